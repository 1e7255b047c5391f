package guard

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// spillFile is one JSON entry a line, in the order they came.
const spillFile = "reports.jsonl"

var (
	errSpillFull  = errors.New("the directory for waiting entries is full")
	errSpillFile  = errors.New(spillFile + " is not a file of its own")
	errSpillTaken = errors.New("another reporter uses the directory for waiting entries")
)

// spill is where entries wait while the log is away. What was sent is forgotten
// when everything was: the file is read again from its beginning after a crash,
// and the ids of entries make sending one twice harmless. Reporter.mu guards it.
type spill struct {
	file    *os.File
	limit   int64
	size    int64 // up to the last whole line
	sent    int64 // the log has what is before
	skipped int64 // lines that could not be read
}

// openSpill opens what an earlier process may have left.
func openSpill(dir string, limit int64) (*spill, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := openSpillFile(filepath.Join(dir, spillFile))
	if err != nil {
		return nil, err
	}
	s := &spill{file: file, limit: limit}
	if err := s.recover(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return s, nil
}

// openSpillFile opens the file for this process and this user alone. It is cut
// where its last line is torn, so it must not be a link to something else.
func openSpillFile(name string) (*os.File, error) {
	if there, err := os.Lstat(name); err == nil && !there.Mode().IsRegular() {
		return nil, errSpillFile
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	opened, err := file.Stat()
	if err == nil {
		// Once more: it may have been put there in between.
		if there, lerr := os.Lstat(name); lerr != nil || !os.SameFile(opened, there) {
			err = errSpillFile
		}
	}
	if err == nil && opened.Mode().Perm() != 0o600 {
		err = file.Chmod(0o600)
	}
	if err == nil {
		err = lock(file)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// recover finds the end of the last whole line. What a crash left half written
// was not acknowledged to anybody who needs it whole.
func (s *spill) recover() error {
	in := bufio.NewReader(s.file)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return s.file.Truncate(s.size)
		}
		if err != nil {
			return err
		}
		s.size += int64(len(line))
		if _, ok := readLine(line); !ok {
			s.skipped++
		}
	}
}

func readLine(line []byte) (e wireEntry, ok bool) {
	in := json.NewDecoder(bytes.NewReader(line))
	in.DisallowUnknownFields()
	err := in.Decode(&e)
	return e, err == nil && e.ID != ""
}

// add appends entries. After an error the file ends where it did before.
func (s *spill) add(entries ...wireEntry) error {
	var text bytes.Buffer
	for _, e := range entries {
		line, err := json.Marshal(e.stored())
		if err != nil {
			return err
		}
		text.Write(line)
		text.WriteByte('\n')
	}
	if s.size+int64(text.Len()) > s.limit {
		return errSpillFull
	}
	if _, err := s.file.WriteAt(text.Bytes(), s.size); err != nil {
		return errors.Join(fmt.Errorf("writing waiting entries: %w", err), s.file.Truncate(s.size))
	}
	s.size += int64(text.Len())
	return nil
}

func (s *spill) empty() bool { return s.sent == s.size }

// next returns the entries that come next, and where the log has them all.
func (s *spill) next(most, mostBytes int) (entries []wireEntry, end int64, err error) {
	in := bufio.NewReader(io.NewSectionReader(s.file, s.sent, s.size-s.sent))
	end = s.sent
	for n := 0; n < most; n++ {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return entries, end, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("reading waiting entries: %w", err)
		}
		if mostBytes -= len(line); mostBytes < 0 && len(entries) > 0 {
			return entries, end, nil
		}
		end += int64(len(line))
		if e, ok := readLine(line); ok {
			entries = append(entries, e)
		}
	}
	return entries, end, nil
}

// done notes that the log has what is before end.
func (s *spill) done(end int64) error {
	if s.sent = end; s.sent < s.size {
		return nil
	}
	s.sent, s.size = 0, 0
	return s.file.Truncate(0)
}

func (s *spill) close() error { return errors.Join(s.file.Sync(), s.file.Close()) }
