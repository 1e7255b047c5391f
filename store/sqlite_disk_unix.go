//go:build unix && !solaris && !illumos && !aix && !netbsd && !openbsd

package store

import "syscall"

// freeSpace returns how many bytes an ordinary user can still write in dir.
func freeSpace(dir string) (bytes int64, known bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return int64(uint64(st.Bavail) * uint64(st.Bsize)), true
}
