package people

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// Limit says how a subject (an account, a browser at an account, an address,
// the set-up form) is slowed down. Try number Free and each after it makes the
// next wait Step × x² (x = 1, 2, 3 …), Most at most. Whoever does not try for
// Window starts anew. There is no limit that locks for good.
type Limit struct {
	Free   int64
	Step   time.Duration
	Most   time.Duration
	Window time.Duration
}

// Every attempt counts when it begins, so that parallel ones count too, and is
// taken back if it was no failure.
var (
	accountLimit = Limit{Free: 5, Step: time.Second, Most: 5 * time.Minute, Window: time.Hour}
	addressLimit = Limit{Free: 40, Step: time.Second, Most: 5 * time.Minute, Window: time.Hour}
	// "5 tries a minute"
	setupLimit = Limit{Free: 5, Step: time.Minute, Most: time.Minute, Window: time.Minute}
)

// counted is one attempt at several subjects.
type counted struct {
	s        *Server
	subjects []string
	limits   []Limit
}

func (c *counted) add(l Limit, subject string) {
	c.subjects = append(c.subjects, sum(c.s.keys.subject, subject))
	c.limits = append(c.limits, l)
}

// tooManyError says how long to wait.
type tooManyError struct{ wait time.Duration }

func (tooManyError) Error() string { return "people: too many attempts" }

// waiting fails with tooManyError while one of the subjects has to wait.
func (c *counted) waiting(ctx context.Context) error {
	now, wait := c.s.now(), time.Duration(0)
	for _, subject := range c.subjects {
		until, err := c.s.store.Attempt(ctx, subject)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		wait = max(wait, until.Sub(now))
	}
	if wait > 0 {
		return tooManyError{wait}
	}
	return nil
}

// count counts the attempt at every subject, or at none and fails with
// tooManyError.
func (c *counted) count(ctx context.Context) error {
	now := c.s.now()
	change := audit.Change{}
	for i, subject := range c.subjects {
		change.Effects = append(change.Effects, c.s.store.Try(subject, c.limits[i], now))
	}
	change.Effects = append(change.Effects, c.s.store.SweepAttempts(now.Add(-2*time.Hour)))
	err := c.s.log.Commit(ctx, change)
	if !errors.Is(err, audit.ErrConflict) {
		return err
	}
	// Others were faster and used up what was free.
	if err := c.waiting(ctx); err != nil {
		return err
	}
	return tooManyError{time.Second}
}

// undo takes the attempt back.
func (c *counted) undo() []audit.Effect {
	var effects []audit.Effect
	for _, subject := range c.subjects {
		effects = append(effects, c.s.store.Untry(subject))
	}
	return effects
}

// peer is the address of the other end of the connection.
func peer(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(host)
	return a
}

// place is what counts as one address: an IPv6 customer has a /64 at least.
func place(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return "unknown"
	}
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.String()
	}
	return a.String()
}

// network is what of an address is written down: "address as /24 or /48".
func network(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return ""
	}
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, _ := a.Prefix(bits)
	return p.String()
}

// device is what of a User-Agent is written down: the family only. The order
// matters, every browser claims to be the ones after it.
func device(agent string) string {
	for _, f := range []struct{ mark, name string }{
		{"Edg", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"},
		{"CriOS/", "Chrome"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"},
	} {
		if strings.Contains(agent, f.mark) {
			return f.name
		}
	}
	return "Another browser"
}
