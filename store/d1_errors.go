package store

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// d1Fate is what is known of a request that failed.
type d1Fate int

const (
	// d1Unknown: it was sent, and may have happened or happen yet.
	d1Unknown d1Fate = iota
	// d1Refused: nothing of it happened, because of what it says.
	d1Refused
	// d1Away: nothing of it happened; the database, or the way to it, failed.
	d1Away
)

// d1Error is why a request failed.
type d1Error struct {
	fate d1Fate
	code string // the result code of SQLite, if it came so far
	text string // of D1, without anything of ours but names of tables and columns
}

func (e *d1Error) Error() string {
	if e.code != "" {
		return fmt.Sprintf("D1: %s (%s)", e.text, e.code)
	}
	return "D1: " + e.text
}

// d1Failed returns the *d1Error in err, nil if there is none.
func d1Failed(err error) *d1Error {
	var e *d1Error
	errors.As(err, &e)
	return e
}

// d1Code finds the result code of SQLite at the end of what D1 says:
// "D1_ERROR: UNIQUE constraint failed: t.a: SQLITE_CONSTRAINT (extended: …)".
var d1Code = regexp.MustCompile(`^(?s)(.*): (SQLITE_[A-Z]+)(?: \(extended: [A-Z_]+\))?$`)

// What D1 says of requests that it did not begin.
var d1Unbegun = []string{
	"D1 DB is overloaded",
	"Too many requests queued",
	"Exceeded maximum DB size",
}

// newD1Error understands an answer that says no.
func newD1Error(status, code int, text string) *d1Error {
	text = strings.TrimPrefix(text, "D1_ERROR: ")
	if m := d1Code.FindStringSubmatch(text); m != nil {
		e := &d1Error{fate: d1Refused, text: m[1], code: m[2]}
		switch m[2] {
		case "SQLITE_CONSTRAINT", "SQLITE_ERROR", "SQLITE_TOOBIG", "SQLITE_MISMATCH", "SQLITE_RANGE", "SQLITE_AUTH":
		case "SQLITE_INTERRUPT":
			e.fate = d1Unknown // it ran into a limit of time
		default:
			e.fate = d1Away
		}
		return e
	}
	e := &d1Error{text: text}
	if text == "" {
		e.text = fmt.Sprintf("HTTP status %d", status)
	} else if code != 0 {
		e.text = fmt.Sprintf("%s [%d]", text, code)
	}
	for _, said := range d1Unbegun {
		if strings.Contains(text, said) {
			e.fate = d1Away
			return e
		}
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		e.fate, e.text = d1Away, "the token was refused: "+e.text
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType:
		e.fate = d1Away // no such database, or no bridge
	case http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		e.fate = d1Refused // before it was begun
	}
	return e
}

// d1Lost returns whose guard broke a batch: "lost k" of the trigger on
// change_guard.
func d1Lost(err error) (k string, ok bool) {
	e := d1Failed(err)
	if e == nil || e.code != "SQLITE_CONSTRAINT" {
		return "", false
	}
	return strings.CutPrefix(e.text, "lost ")
}

// d1Unique reports whether a UNIQUE or PRIMARY KEY of that table was broken.
func d1Unique(err error, table string) bool {
	e := d1Failed(err)
	return e != nil && strings.HasPrefix(e.text, "UNIQUE constraint failed: "+table+".")
}
