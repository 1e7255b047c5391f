package store

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	minFree     = 64 << 20
	reserveSize = 16 << 20
	// reserveLook is how often the reserve is made again after it was used.
	reserveLook = 10 * time.Second
)

// disk watches the space under the database (design D3): below free bytes
// authority is not widened; when even a narrowing Change does not fit, the
// reserve file goes and makes room.
type disk struct {
	dir     string
	reserve string
	free    int64 // negative: never refuse

	mu     sync.Mutex
	looked time.Time // when the reserve was last made or found
}

func newDisk(path string, free int64) *disk {
	if free == 0 {
		free = minFree
	}
	d := &disk{dir: filepath.Dir(path), reserve: path + "-reserve", free: free}
	_ = d.room()
	return d
}

// room says whether there is room to widen authority.
func (d *disk) room() error {
	if d.free < 0 {
		return nil
	}
	have, known := freeSpace(d.dir)
	if !known {
		return nil
	}
	if have < d.free {
		return fmt.Errorf("%w: %d MiB free on the disk of the database, %d wanted", ErrStore, have>>20, d.free>>20)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); d.looked.IsZero() || now.Sub(d.looked) > reserveLook {
		d.looked = now
		if have >= d.free+reserveSize {
			d.make()
		}
	}
	return nil
}

// make writes the reserve, in bytes that no file system compresses away. That
// it cannot is no reason not to work: then there is no reserve.
func (d *disk) make() {
	if info, err := os.Stat(d.reserve); err == nil && info.Size() == reserveSize {
		return
	}
	block := make([]byte, reserveSize/256)
	_, _ = rand.Read(block) // never fails (crypto/rand)
	filler := bytes.Repeat(block, 256)
	if err := os.WriteFile(d.reserve, filler, 0o600); err != nil {
		_ = os.Remove(d.reserve)
	}
}

// reclaim deletes the reserve and reports whether there was one.
func (d *disk) reclaim() bool {
	return os.Remove(d.reserve) == nil
}
