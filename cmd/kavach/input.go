package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/term"
)

// maxInput bounds every file a command reads whole: more than the largest
// chain, manifest or key set can need.
const maxInput = 1 << 20

// read returns the bytes of the file name, or of standard input for "-".
func (w *world) read(name string) ([]byte, error) { return w.readUpTo(name, maxInput) }

// readUpTo is read for a file that may be larger.
func (w *world) readUpTo(name string, limit int64) ([]byte, error) {
	var r io.Reader
	if name == "-" {
		r = w.stdin
	} else {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, pathCause(err))
		}
		defer f.Close()
		r = f
	}
	data, err := w.readAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, pathCause(err))
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("reading %s: longer than %d bytes", name, limit)
	}
	return data, nil
}

// readAll gives up when the command is to end. A read of a terminal or a pipe
// cannot be called off: its goroutine is left to the end of the process.
func (w *world) readAll(r io.Reader) ([]byte, error) {
	type content struct {
		data []byte
		err  error
	}
	done := make(chan content, 1)
	go func() {
		data, err := io.ReadAll(r)
		done <- content{data, err}
	}()
	select {
	case c := <-done:
		return c.data, c.err
	case <-w.ctx.Done():
		return nil, errors.New("interrupted")
	}
}

// onceStdin refuses a command line that wants standard input twice: there is
// one.
func onceStdin(names ...string) error {
	n := 0
	for _, name := range names {
		if name == "-" {
			n++
		}
	}
	if n > 1 {
		return usagef("give one of them as a file", "standard input (-) can be read only once")
	}
	return nil
}

// readLine is read for a file that holds one token or secret on one line.
func (w *world) readLine(name string) (string, error) {
	data, err := w.read(name)
	if err != nil {
		return "", err
	}
	line := string(bytes.TrimSpace(data))
	if line == "" {
		return "", fmt.Errorf("reading %s: empty", name)
	}
	return line, nil
}

// pathCause drops the "open NAME" that the callers already say.
func pathCause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// password takes a new password from a file ("-" for standard input), from a
// terminal (asked twice), or, when neither is there, from standard input.
func (w *world) password(file, prompt string) (string, error) {
	if file != "" {
		data, err := w.read(file)
		if err != nil {
			return "", err
		}
		return strings.TrimRight(string(data), "\r\n"), nil
	}
	in, ok := w.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		data, err := w.read("-")
		if err != nil {
			return "", err
		}
		if len(data) == 0 {
			return "", withHint(errors.New("no password on standard input"), "give --password-file FILE, or run it on a terminal")
		}
		return strings.TrimRight(string(data), "\r\n"), nil
	}
	fmt.Fprintf(w.stderr, "%s: ", prompt)
	first, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(w.stderr)
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	fmt.Fprintf(w.stderr, "%s, again: ", prompt)
	second, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(w.stderr)
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	if !bytes.Equal(first, second) {
		return "", errors.New("the two passwords differ")
	}
	return string(first), nil
}

// takenError is the name of a file that is there already.
type takenError string

// Error says so.
func (e takenError) Error() string { return string(e) + " exists already and is not overwritten" }

// Is makes it an fs.ErrExist.
func (takenError) Is(target error) bool { return target == fs.ErrExist }

func taken(name string) error {
	return withHint(takenError(name), "choose another name or folder, or move it away")
}

// checkAbsent fails if name exists already: for commands that write several
// files and must not leave the first behind when the second is taken. Its error
// is fs.ErrExist then, like that of writeNew.
func checkAbsent(names ...string) error {
	for _, name := range names {
		if _, err := os.Lstat(name); err == nil {
			return taken(name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("writing %s: %w", name, pathCause(err))
		}
	}
	return nil
}

// writeNew writes a file that must not exist. It appears whole or not at all,
// and nobody else can read it before its mode says so.
func writeNew(name string, data []byte, mode fs.FileMode) (err error) {
	if err := checkAbsent(name); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".kavach-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, pathCause(err))
	}
	defer os.Remove(tmp.Name())
	if err := tmp.Chmod(mode); err != nil {
		tmp.Close()
		return fmt.Errorf("writing %s: %w", name, pathCause(err))
	}
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return fmt.Errorf("writing %s: %w", name, pathCause(err))
	}
	if err := tmp.Sync(); err != nil {
		tmp.Close()
		return fmt.Errorf("writing %s: %w", name, pathCause(err))
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("writing %s: %w", name, pathCause(err))
	}
	// Link, unlike Rename, fails when the name was taken in the meantime.
	if err := os.Link(tmp.Name(), name); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return taken(name)
		}
		// A file system without hard links: the exclusive create is as safe,
		// it is only not atomic for a reader that looks in between.
		return writeExclusive(name, data, mode)
	}
	return nil
}

// writeExclusive is writeNew for file systems without hard links.
func writeExclusive(name string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return taken(name)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, pathCause(err))
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(name)
		return fmt.Errorf("writing %s: %w", name, pathCause(err))
	}
	return nil
}

// parseSize reads "500", "5MB" (5,000,000) or "5MiB" (5,242,880): spec §5.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "kKMGTiB")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || digits == "" || digits[0] == '+' {
		return 0, fmt.Errorf("size %q is not a number of bytes such as 500, 5MB or 5MiB", s)
	}
	units := map[string]int64{
		"": 1, "B": 1,
		"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	}
	unit, ok := units[s[len(digits):]]
	if !ok {
		return 0, fmt.Errorf("size %q has an unknown unit: write B, kB, MB, GB, KiB, MiB or GiB", s)
	}
	// kavach_limits are integers up to 2^53−1.
	if n > (1<<53-1)/unit || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("size %q is too large", s)
	}
	return n * unit, nil
}

// words splits a space-separated list, as scopes are written everywhere.
func words(s string) []string { return strings.Fields(s) }

// removeQuietly takes back a file of a command that failed half way.
func removeQuietly(name string) { _ = os.Remove(name) }

// warnIfShared says so when others may read a file that must stay secret.
func (w *world) warnIfShared(name string) {
	if name == "-" {
		return
	}
	if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		w.note("hint: %s can be read by others: chmod 600 %s", name, name)
	}
}
