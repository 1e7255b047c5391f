package templates

import (
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"
	"unicode"
)

var funcs = template.FuncMap{
	"moment": moment,
	"words":  words,
	"plain":  plain,
	"at":     at,
	// Render has checked the URL with Navigable: private-use schemes of
	// registered clients are wanted here, html/template would drop them.
	"away": func(s string) template.URL { return template.URL(s) },
}

// at is a local path below the path of the issuer; what is not local stays.
func at(base, location string) string {
	if strings.HasPrefix(location, "/") && !strings.HasPrefix(location, "//") {
		return base + location
	}
	return location
}

func moment(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04 UTC") }

// words says a duration as people do, rounded up to whole units so that a
// promise of "try again in" is never too early.
func words(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if d%u.unit == 0 && d >= u.unit {
			return count(int64(d/u.unit), u.name)
		}
		if d >= 2*u.unit {
			return count(int64((d+u.unit-1)/u.unit), u.name)
		}
	}
	return count(max(1, int64((d+time.Second-1)/time.Second)), "second")
}

func count(n int64, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

// plain makes a text chosen by somebody else one short line without
// characters that change the direction or the look of what stands around it.
func plain(s string) string {
	const most = 80
	var b strings.Builder
	n := 0
	for _, r := range strings.Join(strings.Fields(s), " ") {
		if r == unicode.ReplacementChar || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp) {
			continue
		}
		// More than a few marks on one letter paint over the lines around it.
		if unicode.Is(unicode.Mn, r) && n == 0 {
			continue
		}
		if n++; n > most {
			b.WriteRune('…')
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

// complete fills what the caller left out with words that fit the status.
func (e Error) complete(status int) Error {
	title, message := "That did not work", "The request could not be understood."
	switch status {
	case http.StatusForbidden:
		title, message = "Not allowed", "This request is not allowed."
	case http.StatusNotFound:
		title, message = "Nothing here", "There is no page at this address."
	case http.StatusMethodNotAllowed:
		title, message = "That does not work here", "This page does not take that kind of request."
	case http.StatusRequestEntityTooLarge:
		title, message = "Too large", "What was sent is larger than this page takes."
	case http.StatusTooManyRequests:
		title, message = "Please wait", "There were too many attempts."
	case http.StatusInternalServerError:
		title, message = "Something went wrong", "The mistake is on this server. Nothing has changed."
	case http.StatusServiceUnavailable:
		title, message = "Not available now", "The server cannot do this at the moment. Please try again shortly."
	}
	if e.Title == "" {
		e.Title = title
	}
	if e.Message == "" {
		e.Message = message
	}
	if e.Link != "" && e.LinkText == "" {
		e.LinkText = "Go on"
	}
	return e
}
