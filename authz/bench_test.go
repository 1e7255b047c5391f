package authz_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/store"
	"github.com/kavach-dev/kavach/templates"
)

// The benchmark's servers are processes of their own, so that the processor
// time of one is not mixed with that of the load: TestMain turns this binary
// into one of them.
func TestMain(m *testing.M) {
	if mode := os.Getenv("KAVACH_BENCH_SERVER"); mode != "" {
		if err := serveBench(mode, os.Getenv("KAVACH_BENCH_DATA")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// unlogged commits nothing: what the token endpoint costs without the log.
type unlogged struct{}

func (unlogged) Commit(context.Context, audit.Change) error { return nil }

// serveBench serves one of
//
//	bare      a net/http handler that reads the form and writes an answer of equal size
//	unlogged  kavach's token endpoint whose decisions are recorded nowhere
//	logged    kavach's token endpoint
//
// prints its address, client and secret, and ends with standard input. /cpu
// answers the processor time that the process has used, in nanoseconds.
func serveBench(mode, data string) error {
	ctx := context.Background()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	issuer := "http://" + listener.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("/cpu", func(w http.ResponseWriter, _ *http.Request) {
		var used syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, used.Utime.Nano()+used.Stime.Nano())
	})
	id, secret := "client", "secret"
	if mode == "bare" {
		answer, err := json.Marshal(map[string]any{"access_token": strings.Repeat("a", 600), "token_type": "bearer", "expires_in": 599, "scope": "repo:read"})
		if err != nil {
			return err
		}
		mux.HandleFunc("POST /oauth/token", func(w http.ResponseWriter, r *http.Request) {
			if err := r.ParseForm(); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(answer)
		})
	} else {
		var token http.Handler
		if token, id, secret, err = benchToken(ctx, issuer, data, mode == "logged"); err != nil {
			return err
		}
		mux.Handle("/oauth/token", token)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	fmt.Println(issuer, id, secret)
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// benchToken is a whole authorization server with one client.
func benchToken(ctx context.Context, issuer, data string, logged bool) (http.Handler, string, string, error) {
	quiet := slog.New(slog.DiscardHandler)
	db, err := store.Open(ctx, store.Config{DSN: "sqlite:" + filepath.Join(data, "kavach.db"), Issuer: issuer})
	if err != nil {
		return nil, "", "", err
	}
	log := audit.NewLog(audit.Config{Store: db, Logger: quiet})
	keys, err := authz.OpenKeyring(ctx, authz.KeyringConfig{Store: db, Commit: log, Secret: authz.NewDeploymentSecret()})
	if err != nil {
		return nil, "", "", err
	}
	registry, err := authz.NewRegistry(authz.RegistryConfig{Issuer: issuer, Store: db, Commit: log, Refusals: log, Keys: keys, Flows: db, Log: quiet})
	if err != nil {
		return nil, "", "", err
	}
	pages, err := templates.New(templates.Config{Issuer: issuer, Logger: quiet})
	if err != nil {
		return nil, "", "", err
	}
	users, err := people.New(people.Config{Store: db, Log: log, Pages: pages, Issuer: issuer, CookieSecrets: keys.Cookie, Logger: quiet})
	if err != nil {
		return nil, "", "", err
	}
	operator := authz.Actor{Agent: audit.Operator, Via: "cli"}
	if err := registry.AddResource(ctx, operator, authz.Resource{ID: git, Name: "Git", TokenAlg: authz.AlgES256, Scopes: []authz.Scope{{Name: "repo:read", Description: "Read code"}}}); err != nil {
		return nil, "", "", err
	}
	client, secret, err := registry.AddClient(ctx, operator, authz.NewClient{Name: "load", Method: authz.MethodPost, Scopes: []string{"repo:read"}})
	if err != nil {
		return nil, "", "", err
	}
	var commit audit.Committer = log
	if !logged {
		commit = unlogged{}
	}
	server, err := authz.New(authz.Config{Issuer: issuer, Store: db, Registry: registry, Keys: keys, People: users, Pages: pages, Commit: commit, Refusals: log, Log: quiet})
	if err != nil {
		return nil, "", "", err
	}
	return server.Handler(), client.ID, secret.Reveal(), nil
}

// bench is a running server under load.
type bench struct {
	issuer string
	form   url.Values
	spent  time.Duration // wall time of the load
	cpu    time.Duration // processor time of the server
}

func startBench(b *testing.B, mode string) *bench {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "KAVACH_BENCH_SERVER="+mode, "KAVACH_BENCH_DATA="+b.TempDir())
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	words := strings.Fields(line)
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {words[1]}, "client_secret": {words[2]}, "scope": {"repo:read"}, "resource": {git}}
	return &bench{issuer: words[0], form: form}
}

// exchange makes the load one of token exchanges: of the token that the load
// before would have got.
func (s *bench) exchange(b *testing.B) *bench {
	b.Helper()
	response, err := http.PostForm(s.issuer+"/oauth/token", s.form)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	var got struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
		b.Fatal(err)
	}
	s.form.Set("grant_type", authz.GrantExchange)
	s.form.Set("subject_token", got.AccessToken)
	s.form.Set("subject_token_type", authz.TokenTypeAccess)
	return s
}

func (s *bench) used(b *testing.B) time.Duration {
	b.Helper()
	response, err := http.Get(s.issuer + "/cpu")
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	var n int64
	if _, err := fmt.Fscan(response.Body, &n); err != nil {
		b.Fatal(err)
	}
	return time.Duration(n)
}

// load sends n requests from a number of callers at once.
func (s *bench) load(b *testing.B, callers, n int) {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	defer client.CloseIdleConnections()
	form := s.form.Encode()
	before, start := s.used(b), time.Now()
	var done sync.WaitGroup
	for i := range callers {
		done.Go(func() {
			for range (n + i) / callers {
				response, err := client.Post(s.issuer+"/oauth/token", "application/x-www-form-urlencoded", strings.NewReader(form))
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				if response.StatusCode != http.StatusOK {
					b.Errorf("the token endpoint answered %d", response.StatusCode)
					return
				}
			}
		})
	}
	done.Wait()
	s.spent += time.Since(start)
	s.cpu += s.used(b) - before
}

// BenchmarkClientCredentials measures the client credentials grant.
func BenchmarkClientCredentials(b *testing.B) {
	compare(b, func(s *bench) *bench { return s })
}

// BenchmarkTokenExchange measures token exchange: verifying the subject, looking
// up whether it was revoked, deriving, signing, recording.
func BenchmarkTokenExchange(b *testing.B) {
	compare(b, func(s *bench) *bench { return s.exchange(b) })
}

// compare measures a load at the token endpoint with and without the log, beside
// a bare net/http handler, in turns within one run. "log/nolog" and "log/bare"
// are ratios of requests a second; "cpu-…" is the server's own processor time
// per request in microseconds.
func compare(b *testing.B, of func(*bench) *bench) {
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			bare, nolog, logged := of(startBench(b, "bare")), of(startBench(b, "unlogged")), of(startBench(b, "logged"))
			servers := []*bench{bare, nolog, logged}
			const turn = 400
			done := 0
			for b.Loop() {
				for _, s := range servers {
					s.load(b, callers, turn)
				}
				done += turn
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(nolog.spent)/float64(logged.spent), "log/nolog")
			b.ReportMetric(float64(bare.spent)/float64(logged.spent), "log/bare")
			b.ReportMetric(float64(done)/logged.spent.Seconds(), "requests/s")
			for name, s := range map[string]*bench{"bare": bare, "nolog": nolog, "log": logged} {
				b.ReportMetric(float64(s.cpu.Microseconds())/float64(done), "cpu-"+name+"-µs/request")
			}
		})
	}
}
