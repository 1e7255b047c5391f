package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

const (
	testIssuer = "https://kavach.test"
	gitHost    = "git.internal"
	gitURL     = "https://" + gitHost
)

func newKey(t *testing.T) agent.PrivateKey {
	t.Helper()
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serverKey signs the tokens of every test.
var serverKey = func() delegation.ServerKey {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return delegation.ServerKey{KID: "at-test", Signer: private}
}()

// mint signs a root for a holder; change may alter it.
func mint(t *testing.T, holder agent.PrivateKey, change func(*delegation.Claims)) string {
	t.Helper()
	now := time.Now()
	claims := delegation.Claims{
		Issuer: testIssuer, Subject: "agent-1", ClientID: "agent-1", Audience: []string{gitURL},
		IssuedAt: now, Expires: now.Add(5 * time.Minute), Scopes: []string{"repository:read", "comment:write"},
		GrantID: "g-1", Root: true, MaxDepth: 3, Key: holder.Public(),
	}
	if change != nil {
		change(&claims)
	}
	signed, err := delegation.Sign(claims, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	return signed.Token
}

// held is a minted root with its key.
func held(t *testing.T, change func(*delegation.Claims)) client.Credential {
	t.Helper()
	key := newKey(t)
	c, err := client.Hold(mint(t, key, change), key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func network(hosts ...string) func(*delegation.Claims) {
	return func(c *delegation.Claims) { c.Limits.AllowNetwork = append([]string{}, hosts...) }
}

// authority is a certificate authority of a test.
type authority struct {
	pool *x509.CertPool
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{pool: x509.NewCertPool(), cert: cert, key: key}
	a.pool.AddCert(cert)
	return a
}

// serve starts a TLS server that speaks for the names; with "HTTP/1.1" among
// them it speaks no HTTP/2.
func (a *authority) serve(t *testing.T, h http.Handler, names ...string) *httptest.Server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "HTTP/1.1" }), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = !slices.Contains(names, "HTTP/1.1")
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// gitServer is a resource server: it takes what a verifier takes.
type gitServer struct {
	t *testing.T
	// nonce is demanded in every proof, if it is set.
	nonce string

	mu     sync.Mutex
	seen   map[string]bool // jti of proofs
	proofs int             // requests with a proof that held
	auths  []string        // every Authorization that came
	next   http.HandlerFunc
}

func (g *gitServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.auths = append(g.auths, r.Header.Get("Authorization"))
	refuse := func(code string) {
		w.Header().Add("WWW-Authenticate", "Bearer")
		w.Header().Add("WWW-Authenticate", `DPoP error="`+code+`", algs="Ed25519 ES256"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "DPoP ")
	if !ok {
		refuse("invalid_token")
		return
	}
	anchor, err := serverKey.Anchor()
	if err != nil {
		g.t.Error(err)
	}
	verifier := delegation.Verifier{Issuer: testIssuer, Anchors: delegation.AnchorSet(anchor)}
	chain, err := verifier.Verify(token, time.Now())
	if err != nil {
		refuse("invalid_token")
		return
	}
	proof, err := agent.VerifyProof(r.Header.Get("DPoP"), agent.ProofCheck{
		Method: r.Method, URL: gitURL + r.URL.Path, Token: token, JKT: chain.JKT(), Now: time.Now(),
	})
	switch {
	case err != nil || g.seen[proof.JTI]:
		refuse("invalid_dpop_proof")
		return
	case g.nonce != "" && proof.Nonce != g.nonce:
		w.Header().Set("DPoP-Nonce", g.nonce)
		refuse("use_dpop_nonce")
		return
	}
	if g.seen == nil {
		g.seen = map[string]bool{}
	}
	g.seen[proof.JTI] = true
	g.proofs++
	if g.next != nil {
		g.next(w, r)
	}
}

// canary is a listener on loopback that nobody may connect to.
type canary struct {
	addr netip.AddrPort
	mu   sync.Mutex
	n    int
}

func newCanary(t *testing.T) *canary {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &canary{addr: netip.MustParseAddrPort(l.Addr().String())}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.n++
			c.mu.Unlock()
			conn.Close()
		}
	}()
	return c
}

func (c *canary) connections() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// wire is a network of a test: names have addresses, and an address is a
// listener on loopback. What is dialled is remembered.
type wire struct {
	mu      sync.Mutex
	names   map[string][]string
	hosts   map[string]string // address:port → listener
	dialled []string
	lookups []string
}

func (w *wire) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lookups = append(w.lookups, host)
	var list []netip.Addr
	for _, text := range w.names[host] {
		list = append(list, netip.MustParseAddr(text))
	}
	if list == nil {
		return nil, errors.New("no such host")
	}
	return list, nil
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dialled = append(w.dialled, address)
	to := w.hosts[address]
	w.mu.Unlock()
	if to == "" {
		return nil, errors.New("nobody is at " + address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, to)
}

func (w *wire) dials() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{}, w.dialled...)
}

// reports collects what a Transport reported.
type reports struct {
	mu   sync.Mutex
	list []client.Attempt
	err  error
}

func (r *reports) report(_ context.Context, a client.Attempt) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, a)
	return r.err
}

func (r *reports) all() []client.Attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]client.Attempt{}, r.list...)
}

// wantRefused checks that err is a refusal of that dimension, and that it was
// reported once.
func wantRefused(t *testing.T, err error, r *reports, reason delegation.Reason, dimension string) {
	t.Helper()
	var refused *client.Refused
	if !errors.As(err, &refused) || !errors.Is(err, delegation.ErrRefused) || !errors.Is(err, client.ErrFailed) {
		t.Fatalf("error %v is no refusal", err)
	}
	if refused.Refusal.Reason != reason || refused.Refusal.Dimension != dimension {
		t.Fatalf("refused for %s (%s), want %s (%s): %v", refused.Refusal.Reason, refused.Refusal.Dimension, reason, dimension, err)
	}
	if r == nil {
		return
	}
	n := 0
	for _, a := range r.all() {
		if a.Refusal != nil {
			n++
		}
	}
	if n != 1 {
		t.Fatalf("%d refusals reported, want 1", n)
	}
}
