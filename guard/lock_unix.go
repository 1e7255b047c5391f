//go:build unix && !solaris && !illumos && !aix

package guard

import (
	"errors"
	"os"
	"syscall"
)

// lock takes the file for as long as it is open. The system gives it back when
// the process ends, however it ends.
func lock(file *os.File) error {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errSpillTaken
	}
	// A file system without locks: "one Reporter at a time" is on its user then.
	return nil
}
