package authz

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Hours is the window of the week in which a standing grant gives tokens. A
// token that was given lives on when the window closes: minutes, as every
// token does (delegation.md §5: windows "belong to the agent's standing grant
// and are checked when a token is issued").
//
//	hours = days " " from "-" to " UTC"       mo-fr 08-18 UTC
//	days  = day ["-" day] *("," day ["-" day])   mo,we,fr   sa-su   fr-mo
//	from  = HH [":" MM], to = the same, up to 24    22:30-24
//
// A window lies within one day: from is before to. The zero Hours is always.
type Hours struct {
	days     [7]bool // by time.Weekday
	from, to int     // minutes of the day, from inclusive; to is 0 for always
}

var dayNames = []string{"su", "mo", "tu", "we", "th", "fr", "sa"} // by time.Weekday

// ParseHours reads a window of the week; "" is always. Errors are ErrInvalid.
func ParseHours(text string) (Hours, error) {
	var h Hours
	if text == "" {
		return h, nil
	}
	bad := invalid("hours are written like %q, in UTC", "mo-fr 08-18 UTC")
	fields := strings.Split(text, " ")
	if len(fields) != 3 || fields[2] != "UTC" || !h.setDays(fields[0]) {
		return Hours{}, bad
	}
	from, to, _ := strings.Cut(fields[1], "-")
	var ok1, ok2 bool
	h.from, ok1 = minutes(from)
	h.to, ok2 = minutes(to)
	if !ok1 || !ok2 || h.from >= h.to {
		return Hours{}, bad
	}
	return h, nil
}

func (h *Hours) setDays(text string) bool {
	for _, span := range strings.Split(text, ",") {
		first, last, isRange := strings.Cut(span, "-")
		from, to := slices.Index(dayNames, first), slices.Index(dayNames, last)
		if !isRange {
			to = from
		}
		if from < 0 || to < 0 {
			return false
		}
		for d := from; ; d = (d + 1) % 7 {
			h.days[d] = true
			if d == to {
				break
			}
		}
	}
	return true
}

// minutes reads HH or HH:MM as minutes of the day, 24 at most.
func minutes(text string) (int, bool) {
	hh, mm, long := strings.Cut(text, ":")
	if !long {
		mm = "00"
	}
	h, err1 := strconv.ParseUint(hh, 10, 8)
	m, err2 := strconv.ParseUint(mm, 10, 8)
	if err1 != nil || err2 != nil || len(hh) != 2 || len(mm) != 2 || m > 59 {
		return 0, false
	}
	total := int(h*60 + m)
	return total, total <= 24*60
}

// Include reports whether the window is open at t.
func (h Hours) Include(t time.Time) bool {
	if h.to == 0 {
		return true
	}
	t = t.UTC()
	minute := t.Hour()*60 + t.Minute()
	return h.days[t.Weekday()] && h.from <= minute && minute < h.to
}
