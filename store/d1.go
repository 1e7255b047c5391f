package store

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/kavach-dev/kavach/audit"
)

// Kinds of data source that are Cloudflare D1.
const (
	// kindD1 is d1://ACCOUNT/DATABASE: Cloudflare's REST API.
	kindD1 = "d1"
	// kindD1Bridge is d1-bridge://HOST[:PORT][/PATH]: the Worker in edge/.
	kindD1Bridge = "d1-bridge"
)

// d1API is where Cloudflare answers. A source may name another place (?api=).
const d1API = "https://api.cloudflare.com/client/v4"

// Token is the bearer token for a database that is asked over HTTP.
type Token string

// String keeps the token out of what is printed.
func (Token) String() string { return "[redacted]" }

// GoString keeps the token out of what is printed with %#v.
func (Token) GoString() string { return "[redacted]" }

// LogValue keeps the token out of logs.
func (Token) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// d1Place is where a database on D1 is asked.
type d1Place struct {
	query, batch string // URLs: one read, many writes
}

var (
	d1Name   = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)
	d1Bearer = regexp.MustCompile(`^[!-~]{16,1000}$`)
)

// parseD1 reads a data source. It is https, or http to this machine: the token
// goes with every request.
func parseD1(dsn string) (d1Place, error) {
	bad := func(why string) (d1Place, error) {
		return d1Place{}, fmt.Errorf("%w: %s; want d1://ACCOUNT/DATABASE or d1-bridge://HOST[:PORT][/PATH]", ErrConfig, why)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return bad("the URL cannot be read")
	}
	query, err := url.ParseQuery(u.RawQuery)
	switch {
	case u.User != nil:
		return bad("the token does not belong into the URL")
	case u.Fragment != "" || err != nil:
		return bad("the URL cannot be read")
	case u.Scheme == kindD1Bridge && (u.Hostname() == "" || u.RawQuery != ""):
		return bad("that names no bridge")
	case u.Scheme == kindD1Bridge:
		scheme := "https"
		if onThisMachine(u.Hostname()) {
			scheme = "http"
		}
		base := (&url.URL{Scheme: scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "/")}).String()
		return d1Place{query: base + "/v1/query", batch: base + "/v1/batch"}, nil
	}
	api := d1API
	for name, values := range query {
		if name != "api" || len(values) != 1 {
			return bad("unknown parameter")
		}
		at, err := url.Parse(values[0])
		if err != nil || at.Host == "" || at.User != nil || at.RawQuery != "" || at.Fragment != "" ||
			at.Scheme != "https" && (at.Scheme != "http" || !onThisMachine(at.Hostname())) {
			return bad("api has to be https, or http on this machine")
		}
		api = strings.TrimSuffix(values[0], "/")
	}
	database := strings.TrimPrefix(u.Path, "/")
	if !d1Name.MatchString(u.Host) || !d1Name.MatchString(database) {
		return bad("that names no account and database")
	}
	raw := api + "/accounts/" + u.Host + "/d1/database/" + database + "/raw"
	return d1Place{query: raw, batch: raw}, nil
}

func onThisMachine(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// openD1 opens a database on Cloudflare D1, creating and migrating its schema
// unless cfg is ReadOnly.
func (s *Store) openD1(ctx context.Context, cfg Config) error {
	place, err := parseD1(cfg.DSN)
	if err != nil {
		return err
	}
	if !d1Bearer.MatchString(string(cfg.Token)) {
		return fmt.Errorf("%w: D1 wants a token of 16 visible characters or more", ErrConfig)
	}
	client := newD1Client(place, cfg.Token)
	s.read = d1Reader(client)
	if cfg.ReadOnly {
		return s.checkSchema(ctx, "d1")
	}
	s.write = &d1Writer{client: client}
	return s.migrateD1(ctx, client, cfg.Issuer)
}

// d1Reader is the pool for reads. It holds no connection, and bounds how many
// requests are under way.
func d1Reader(client *d1Client) *reader {
	db := sql.OpenDB(d1Connector{client})
	db.SetMaxOpenConns(d1Connections)
	db.SetMaxIdleConns(d1Connections)
	return &reader{db: db, sqlite: true}
}

// d1Writer is the write path on D1. There is no connection and no transaction
// to hold: every batch is one request, which happens as a whole or not at all.
type d1Writer struct {
	client *d1Client

	mu       sync.Mutex
	admitted string     // see admit
	known    bool       // whether head and fence are what the database has, as far as this process knows
	head     audit.Head // where the log ends
	fence    int64      // see d1_append.go
	doubt    bool       // a batch was sent and not answered
	alone    int        // how many Writes go one a batch
}

// admit makes the write path write where the head is closed by that, and only
// there.
func (w *d1Writer) admit(closed string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.admitted = closed
}

// room always has some: the disk is Cloudflare's, and a database at its limit
// refuses everything, which is a failure of the database as a whole.
func (w *d1Writer) room() error { return nil }

func (w *d1Writer) reclaim(error) bool { return false }

func (w *d1Writer) close() error {
	w.client.closed.Store(true)
	w.client.http.CloseIdleConnections()
	return nil
}
