package e2e

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// shared is the cluster on which every test with replicas has a database.
var shared struct {
	once    sync.Once
	cluster *cluster
	end     func()
	err     error
	made    atomic.Int64
}

// endSharedCluster is for TestMain.
func endSharedCluster() {
	if shared.end != nil {
		shared.end()
	}
}

// database is one on the shared cluster.
type database struct{ DSN, bin string }

// newDatabase makes an empty database on PostgreSQL.
func newDatabase(t *testing.T) *database {
	t.Helper()
	shared.once.Do(func() { shared.cluster, shared.end, shared.err = openCluster(nil, "-set", "max_connections=300") })
	need(t, "PostgreSQL", shared.err == nil || !strings.Contains(shared.err.Error(), "no PostgreSQL here"))
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	c := shared.cluster
	c.mu.Lock()
	c.t = t
	c.mu.Unlock()
	return &database{DSN: c.do("database e2e_%d", shared.made.Add(1)).DSN, bin: c.Bin}
}

// startReplicas runs three processes of kavach on one database on PostgreSQL,
// behind a proxy that sends every request to any of them.
func startReplicas(t *testing.T, args ...string) *server {
	t.Helper()
	db := newDatabase(t)
	s := &server{t: t, Data: filepath.Join(t.TempDir(), "data"), site: site{DB: db.DSN}, database: db, args: []string{"serve", "--dev", "--listen", freeAddress(t)}}
	s.Issuer = "http://" + s.args[3]
	issuer := []string{"--issuer", s.Issuer}
	if slices.Contains(args, "--issuer") {
		issuer = nil
	}
	for i := range 3 {
		one := &server{t: t, Issuer: s.Issuer, Ops: freeAddress(t), Data: s.Data, listen: freeAddress(t), site: s.site, database: db}
		one.args = slices.Concat([]string{"serve", "--dev", "--listen", one.listen, "--ops", one.Ops, "--data", s.Data, "--git-host", "", "--trusted-proxy", proxyAddress + "/32"}, issuer, args)
		if i > 0 {
			one.args = append(one.args, "--git-host", "") // one is enough
		}
		s.replicas = append(s.replicas, one)
	}
	s.run()
	t.Cleanup(func() { s.kill(); s.complain() })
	s.balancer = newBalancer(t, s)
	return s
}

// proxyAddress is where the proxy's connections come from: not where those of
// the tests do, whose X-Forwarded-For nobody has to believe.
const proxyAddress = "127.0.0.2"

// balancer is a plain reverse proxy before replicas.
type balancer struct {
	replicas []*server
	out      []atomic.Bool // of service
	failed   atomic.Int64  // requests that a replica did not answer
}

// newBalancer listens where the server's issuer says, and in place of its
// operations listener.
func newBalancer(t *testing.T, s *server) *balancer {
	t.Helper()
	b := &balancer{replicas: s.replicas, out: make([]atomic.Bool, len(s.replicas))}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", b.pick().listen, r.In.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery // as it came
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(proxyAddress)}}).DialContext,
			MaxIdleConnsPerHost: 64, DisableCompression: true,
		},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				b.failed.Add(1)
			}
			w.Header().Set("Retry-After", "1")
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		},
	}
	s.Ops = freeAddress(t)
	for address, handler := range map[string]http.Handler{s.args[3]: proxy, s.Ops: http.HandlerFunc(b.operations)} {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: handler, ErrorLog: proxy.ErrorLog}
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(listener) }()
		t.Cleanup(func() { server.Close(); <-done })
	}
	return b
}

// pick is a replica that is in service, any if none is.
func (b *balancer) pick() *server {
	order := rand.Perm(len(b.replicas))
	for _, i := range order {
		if !b.out[i].Load() {
			return b.replicas[i]
		}
	}
	return b.replicas[order[0]]
}

// watch asks /readyz of every replica twenty times a second until the test ends,
// as load balancers do, and takes those out of service that are not ready.
func (b *balancer) watch(t *testing.T) {
	stop := make(chan struct{})
	var watching sync.WaitGroup
	for i, r := range b.replicas {
		watching.Go(func() {
			for {
				status, _ := r.ops("/readyz")
				b.out[i].Store(status != http.StatusOK)
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	t.Cleanup(func() { close(stop); watching.Wait() })
}

// operations answers for all replicas: their metrics one after the other, and
// what the first says that does not say 200.
func (b *balancer) operations(w http.ResponseWriter, r *http.Request) {
	status, all := http.StatusOK, ""
	for _, one := range b.replicas {
		got, body := one.ops(r.URL.Path)
		if got == 0 {
			got = http.StatusBadGateway
		}
		if got != http.StatusOK && status == http.StatusOK {
			status = got
		}
		all += body
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, all)
}

// stopAll drains several at once.
func stopAll(all []*server) error {
	errs := make([]error, len(all))
	var stopping sync.WaitGroup
	for i, s := range all {
		stopping.Go(func() { errs[i] = s.stop() })
	}
	stopping.Wait()
	return errors.Join(errs...)
}

// direct is an address of kavach itself, without what stands before it.
func (s *server) direct() string {
	if s.replicas != nil {
		return s.replicas[0].listen
	}
	if s.listen != "" {
		return s.listen
	}
	return strings.TrimPrefix(s.Issuer, "http://")
}

// binaryValue is how a dump writes bytes.
var binaryValue = regexp.MustCompile(`\\\\x([0-9a-f]{2,})`)

// kept is all that lies in the database, with SQLite as the files have it.
func (s *server) kept(t *testing.T) []byte {
	t.Helper()
	if s.database == nil {
		var all []byte
		for _, name := range []string{"kavach.db", "kavach.db-wal"} {
			if raw, err := os.ReadFile(filepath.Join(s.Data, name)); err == nil {
				all = append(all, raw...)
			}
		}
		return all
	}
	cmd := exec.Command(filepath.Join(s.database.bin, "pg_dump"), s.database.DSN)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	dump, err := cmd.Output()
	if err != nil {
		t.Fatalf("pg_dump: %v: %s", err, &stderr)
	}
	for _, found := range binaryValue.FindAllSubmatch(dump, -1) {
		if value, err := hex.DecodeString(string(found[1])); err == nil {
			dump = append(append(dump, '\n'), value...)
		}
	}
	return dump
}
