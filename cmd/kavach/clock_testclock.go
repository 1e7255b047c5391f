//go:build testclock

// A binary built with the tag testclock lives at a time that a test chooses.
// Release builds have no such code.

package main

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// now is the system clock plus the seconds written in the file $KAVACH_CLOCK.
// An absent or unreadable file adds nothing, so that a test may write it late.
func now() time.Time {
	t := time.Now()
	name := os.Getenv("KAVACH_CLOCK")
	if name == "" {
		return t
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return t
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return t
	}
	return t.Add(time.Duration(seconds) * time.Second)
}
