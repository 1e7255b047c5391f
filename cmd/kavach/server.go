package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/people"
)

// Main is a whole server. Tests drive it: Open binds the listeners and makes
// everything, Serve runs until its context ends, Close gives everything back.
type Main struct {
	// Config is the configuration, checked.
	Config serveCmd
	// Log is the process's log.
	Log *slog.Logger
	// Issuer is known after Open: with port 0 it depends on the listener.
	Issuer string
	// Public and Ops are the bound addresses, after Open.
	Public, Ops net.Addr

	world     *world
	listeners []net.Listener // public, operations; closed by the servers, or by Close
	cert      *certificate   // nil without TLS
	d         *deployment
	parts     *parts
	ops       *ops
	settle    []chore // done every settleInterval
	sweep     []chore // done every sweepInterval
	setupCode string
	git       *devGitHost // of the case study, with --dev; nil without
}

// Limits of a connection (authorization-server.md §6: "header 32 KiB, timeouts
// on every phase").
const (
	maxHeader     = 32 << 10
	headerTimeout = 5 * time.Second
	readTimeout   = 30 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 120 * time.Second
)

// answerTimeout is how long a request may wait for the database: what that has
// not said by then is 503, and nothing is handed out. With a reading of the keys
// that others wait for, too, every answer is there within ten seconds.
const answerTimeout = 7 * time.Second

// Draining: after --drain-delay in-flight requests get drainTimeout, then the
// last records are written, and all of it ends within ten seconds more.
const (
	drainTimeout = 8 * time.Second
	stopTimeout  = 10 * time.Second
)

// Open binds the listeners first, so that a taken address changes nothing,
// then opens the database and makes every part.
func (m *Main) Open(ctx context.Context) error {
	for flag, address := range map[string]string{"listen": m.Config.Listen, "ops": m.Config.Ops} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return usagef("write it like 127.0.0.1:8420", "--%s %q is not HOST:PORT", flag, address)
		}
	}
	public, err := net.Listen("tcp", m.Config.Listen)
	if err != nil {
		return listenError("listen", m.Config.Listen, err)
	}
	m.listeners, m.Public = append(m.listeners, public), public.Addr()
	operations, err := net.Listen("tcp", m.Config.Ops)
	if err != nil {
		return listenError("ops", m.Config.Ops, err)
	}
	m.listeners, m.Ops = append(m.listeners, operations), operations.Addr()

	if m.Config.Issuer == "" {
		m.Config.Issuer = issuerFor(m.Config.Listen, public.Addr())
		if err := checkIssuer(m.Config.Issuer); err != nil {
			return err
		}
	}
	m.Issuer = m.Config.Issuer
	if m.Config.TLSCert != "" {
		if m.cert, err = newCertificate(m.Config.TLSCert, m.Config.TLSKey, m.Log); err != nil {
			return withHint(err, "--tls-cert and --tls-key name PEM files that belong together")
		}
	}

	if m.d, err = m.Config.open(ctx, m.Log, m.world.now); err != nil {
		return err
	}
	m.d.keyring = authz.KeyringConfig{RotateEvery: m.Config.RotateKeys, HandleLife: min(m.Config.RefreshIdle, m.Config.RefreshMax)}
	if err := m.d.unlock(ctx, m.world, true); err != nil {
		return err
	}
	if err := m.assemble(ctx); err != nil {
		return err
	}
	if m.Config.Dev {
		if err := m.openDev(ctx); err != nil {
			return err
		}
		return m.openGitHost()
	}
	m.setupCode, err = m.parts.people.NewSetupCode(ctx)
	if errors.Is(err, people.ErrSetUp) {
		return nil
	}
	return err
}

// Serve accepts until ctx ends, then drains. It returns nil after a drain.
func (m *Main) Serve(ctx context.Context) error {
	errorLog := slog.NewLogLogger(m.Log.Handler(), slog.LevelWarn)
	public := &http.Server{
		Handler: m.handler(), MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, ErrorLog: errorLog,
	}
	operations := &http.Server{
		Handler: onlyHere(m.Config.Ops, m.ops.handler()), MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout,
		IdleTimeout: idleTimeout, ErrorLog: errorLog,
	}
	listener := m.listeners[0]
	if m.cert != nil {
		listener = tls.NewListener(listener, m.cert.config())
	}

	ended := make(chan error, 2)
	go func() { ended <- operations.Serve(m.listeners[1]) }()
	go func() { ended <- public.Serve(listener) }()
	keeping, stopKeeping := context.WithCancel(context.WithoutCancel(ctx))
	var keepers sync.WaitGroup
	keepers.Go(func() { m.keep(keeping, settleInterval, m.settle) })
	keepers.Go(func() { m.keep(keeping, sweepInterval, m.sweep) })
	stopGit := m.startGitHost(ctx)
	m.world.note("ready %s", m.Issuer)

	var err error
	select {
	case <-ctx.Done():
	case failed := <-ended:
		err = fmt.Errorf("serving: %w", failed)
	}
	m.ops.draining.Store(true)
	if err == nil {
		m.world.note("draining")
		time.Sleep(m.Config.DrainDelay)
	}
	stopKeeping()
	stopGit()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if shut := public.Shutdown(drain); shut != nil {
		// What is still running after that is cut off.
		public.Close()
	}
	keepers.Wait()
	operations.Close()
	return err
}

// Close gives everything back. It may be called after a failed Open.
func (m *Main) Close() error {
	for _, l := range m.listeners {
		l.Close() // closed already if it was served
	}
	if m.git != nil {
		m.git.listener.Close()
	}
	if m.d == nil {
		return nil
	}
	d := m.d
	m.d = nil
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout-drainTimeout)
	defer cancel()
	return errors.Join(d.log.Close(ctx), d.store.Close())
}

// handler is what the public listener serves.
func (m *Main) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range m.parts.routes {
		mux.Handle(pattern, h)
		root := strings.TrimSuffix(pattern, "/")
		if _, taken := m.parts.routes[root]; root != "" && root != pattern && !taken {
			mux.HandleFunc(root, nowhere)
		}
	}
	var root http.Handler = mux
	if base := issuerPath(m.Issuer); base != "" {
		// With a path in the issuer everything lives below it but the
		// well-known documents, which have it inserted (RFC 8414 §3).
		outer := http.NewServeMux()
		outer.Handle("/.well-known/", m.parts.routes["/.well-known/"])
		outer.Handle(base+"/", http.StripPrefix(base, mux))
		outer.HandleFunc("/.well-known", nowhere)
		outer.HandleFunc(base, func(w http.ResponseWriter, r *http.Request) {
			r = r.Clone(r.Context()) // the issuer, typed into a browser
			r.URL.Path, r.URL.RawPath = "/", ""
			mux.ServeHTTP(w, r)
		})
		outer.HandleFunc("/", nowhere)
		root = outer
	}
	return m.ops.metrics.measure(m.leaving(m.recovering(strict(newAdmission().admit(inTime(root))))))
}

// leaving ends the connection with the answer once this process drains: whoever
// keeps connections, such as a proxy, would use one again in the moment in which
// it is closed, and could not know whether the request was done.
func (m *Main) leaving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.ops.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// inTime gives a request the deadline that its reads and commits have together.
func inTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		served := r.WithContext(ctx)
		defer func() { r.Pattern = served.Pattern }() // measure looks at it
		next.ServeHTTP(w, served)
	})
}

// strict stands before a ServeMux, which would answer every other spelling of a
// path with a 307 that has no header of ours and sends a password on. A path
// has one spelling here: /oauth//token is no way around what guards /oauth/token.
func strict(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
			// RFC 9112 section 6.1: the server "MUST close the connection after
			// responding" if Content-Length came too. net/http takes that away
			// unseen, so what follows any chunked body is not read as a request.
			w.Header().Set("Connection", "close")
		}
		clean := path.Clean(r.URL.Path)
		if clean != "/" && strings.HasSuffix(r.URL.Path, "/") {
			clean += "/"
		}
		if clean != r.URL.Path || clean[0] != '/' {
			nowhere(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// nowhere answers for what is no path here.
func nowhere(w http.ResponseWriter, _ *http.Request) {
	authz.WriteError(w, &authz.Error{Status: http.StatusNotFound, Code: "not_found", Description: "there is nothing at this path"})
}

// issuerPath is the path of an issuer, "" for none.
func issuerPath(issuer string) string {
	_, rest, _ := strings.Cut(issuer, "://")
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[i:]
	}
	return ""
}

// recovering turns a panic into an answer without a stack.
func (m *Main) recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p)
			}
			m.Log.Error("a handler panicked", "route", routeLabel(r.Pattern), "panic", fmt.Sprint(p), "stack", stack())
			if rec, ok := w.(*statusRecorder); ok && rec.status != 0 {
				panic(http.ErrAbortHandler) // half an answer is out: cut it off
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusInternalServerError)
			w.Write([]byte(`{"error":"server_error"}` + "\n"))
		}()
		next.ServeHTTP(w, r)
	})
}

// addressOf says where a request comes from.
func (m *Main) addressOf(trusted []netip.Prefix) func(*http.Request) netip.Addr {
	return func(r *http.Request) netip.Addr { return clientAddress(r, trusted) }
}
