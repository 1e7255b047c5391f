package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// event is a line of the journal: that something was asked for, or what was
// heard. The two have the same mark, which nothing else has and which is part
// of the request where the protocol has room for it.
type event struct {
	Mark string            `json:"mark"`
	Say  string            `json:"say"` // ask or heard
	Op   string            `json:"op"`
	At   int64             `json:"at"` // Unix milliseconds
	Took int64             `json:"took,omitempty"`
	What map[string]string `json:"what,omitempty"` // asked
	Got  map[string]string `json:"got,omitempty"`  // heard, of a success
	// Status is 0 if there was no answer; Error says why, or what a refusal said.
	Status int    `json:"status,omitempty"`
	Retry  string `json:"retry,omitempty"`
	Error  string `json:"error,omitempty"`
}

// journal writes events to a file. What write returned from is on the disk:
// whatever dies afterwards, the checker knows what was promised.
type journal struct {
	t     *testing.T
	path  string
	lines chan journalLine
	done  sync.WaitGroup
}

type journalLine struct {
	text    []byte
	durable chan struct{}
}

func newJournal(t *testing.T) *journal {
	t.Helper()
	j := &journal{t: t, path: filepath.Join(t.TempDir(), "journal"), lines: make(chan journalLine, 64)}
	file, err := os.OpenFile(j.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	j.done.Go(func() { j.run(file) })
	t.Cleanup(func() { close(j.lines); j.done.Wait() })
	return j
}

// run writes what is waiting with one fsync, so that the journal does not set
// the pace.
func (j *journal) run(file *os.File) {
	for line := range j.lines {
		batch := []journalLine{line}
		for more := true; more; {
			select {
			case next, ok := <-j.lines:
				if more = ok; ok {
					batch = append(batch, next)
				}
			default:
				more = false
			}
		}
		var text []byte
		for _, l := range batch {
			text = append(text, l.text...)
		}
		if _, err := file.Write(text); err != nil {
			j.t.Errorf("the journal: %v", err)
		}
		if err := file.Sync(); err != nil {
			j.t.Errorf("the journal: %v", err)
		}
		for _, l := range batch {
			close(l.durable)
		}
	}
	file.Close()
}

// write returns when the event is on the disk.
func (j *journal) write(e event) {
	e.At = time.Now().UnixMilli()
	line := journalLine{append([]byte(encode(e)), '\n'), make(chan struct{})}
	j.lines <- line
	<-line.durable
}

// read hands over the events from offset on and says where they end.
func (j *journal) read(offset int64, each func(event) error) (int64, error) {
	file, err := os.Open(j.path)
	if err != nil {
		return offset, err
	}
	defer file.Close()
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return offset, err
	}
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return offset, nil // a torn last line is not read
		}
		if err != nil {
			return offset, err
		}
		offset += int64(len(line))
		var e event
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&e); err != nil {
			return offset, fmt.Errorf("%s: %w", line, err)
		}
		if err := each(e); err != nil {
			return offset, err
		}
	}
}
