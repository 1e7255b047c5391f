package templates

import (
	"bytes"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ErrURL is the root of what is wrong with a URL a page should link to.
var ErrURL = errors.New("templates: not a URL to send a person to")

//go:embed *.html style.css mark.svg
var files embed.FS

// Config says how pages are shown.
type Config struct {
	// Issuer is the configured issuer URL. Its host stands at the foot of
	// every page, and an https issuer sends HSTS.
	Issuer string
	// Logger receives the errors of broken templates; nil is slog.Default.
	Logger *slog.Logger
}

// Pages renders pages. It is immutable and safe for concurrent use.
type Pages struct {
	secure bool
	host   string
	base   string // path of the issuer: where "/" of our local paths is
	log    *slog.Logger
	set    map[string]*template.Template
	style  template.CSS
	mark   template.HTML
}

// New parses the embedded pages.
func New(c Config) (*Pages, error) {
	p := &Pages{log: c.Logger, set: map[string]*template.Template{}}
	if p.log == nil {
		p.log = slog.Default()
	}
	if u, err := url.Parse(c.Issuer); err == nil {
		p.secure, p.host, p.base = u.Scheme == "https", u.Host, strings.TrimSuffix(u.EscapedPath(), "/")
	}
	style, err := files.ReadFile("style.css")
	if err != nil {
		return nil, fmt.Errorf("templates: reading the style: %w", err)
	}
	mark, err := files.ReadFile("mark.svg")
	if err != nil {
		return nil, fmt.Errorf("templates: reading the mark: %w", err)
	}
	// Both are ours, embedded at build time: nothing in them comes from a request.
	p.style, p.mark = template.CSS(style), template.HTML(mark)
	for _, page := range []Page{Login{}, Setup{}, Account{}, Consent{}, Continue{}, Error{}, SignedOut{}} {
		t, err := template.New("frame.html").Funcs(funcs).ParseFS(files, "frame.html", page.file())
		if err != nil {
			return nil, fmt.Errorf("templates: parsing %s: %w", page.file(), err)
		}
		p.set[page.file()] = t
	}
	return p, nil
}

// frame is what every template is executed with.
type frame struct {
	Title string
	Host  string
	Base  string
	Nonce string
	Style template.CSS
	Mark  template.HTML
	Page  Page
}

// Render writes one page with every header it needs. Headers set before
// (Set-Cookie, Allow) are kept.
func (p *Pages) Render(w http.ResponseWriter, status int, page Page) {
	if e, ok := page.(Error); ok {
		page = e.complete(status)
		if e.Retry > 0 {
			// Seconds, rounded up: a client that obeys must not come too early.
			w.Header().Set("Retry-After", strconv.FormatInt(int64((e.Retry+time.Second-1)/time.Second), 10))
		}
	}
	if c, ok := page.(Continue); ok {
		if err := Navigable(c.URL); err != nil {
			p.log.Error("rendering a page", "page", page.file(), "error", err)
			p.Render(w, http.StatusInternalServerError, Error{})
			return
		}
	}
	nonce := newNonce()
	var b bytes.Buffer
	err := p.set[page.file()].ExecuteTemplate(&b, "frame.html",
		frame{Title: page.title(), Host: p.host, Base: p.base, Nonce: nonce, Style: p.style, Mark: p.mark, Page: page})
	p.secureHeaders(w.Header(), nonce)
	if err != nil {
		p.log.Error("rendering a page", "page", page.file(), "error", err)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte("Something went wrong on this server. Please try again.\n"))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// SeeOther answers 303 without a body: never 307 or 308, which would send a
// password on (RFC 9700 §4.12). A local path is one below the issuer's.
func (p *Pages) SeeOther(w http.ResponseWriter, location string) {
	p.secureHeaders(w.Header(), newNonce())
	w.Header().Set("Location", at(p.base, location))
	w.WriteHeader(http.StatusSeeOther)
}

// secureHeaders sets the headers of spec/authorization-server.md §4.
func (p *Pages) secureHeaders(h http.Header, nonce string) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+nonce+"'; script-src 'nonce-"+nonce+
		"'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	if p.secure {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// Navigable says whether a page may send a person to a URL: https, http, or a
// private-use scheme (the caller has matched it with what the client
// registered), never one that runs in our origin or reads this computer.
func Navigable(raw string) error {
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("\"<>\\^`{|}", r) }) {
		return fmt.Errorf("%w: it holds a character that must be percent-encoded", ErrURL)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("%w: it does not parse", ErrURL)
	}
	switch u.Scheme {
	case "":
		return fmt.Errorf("%w: it is not absolute", ErrURL)
	case "http", "https":
		if u.Host == "" {
			return fmt.Errorf("%w: it has no host", ErrURL)
		}
	case "javascript", "vbscript", "data", "blob", "file", "filesystem", "about", "view-source", "ws", "wss", "ftp":
		return fmt.Errorf("%w: its scheme is refused", ErrURL)
	}
	return nil
}

func newNonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}
