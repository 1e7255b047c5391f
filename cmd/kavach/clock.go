//go:build !testclock

package main

import "time"

// now is the clock of the whole process. Packages get it passed in.
func now() time.Time { return time.Now() }
