package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

// serveCmd runs the server. Its fields are the configuration of [Main].
type serveCmd struct {
	placeFlags
	Listen string `default:"127.0.0.1:8420" placeholder:"ADDR" help:"Address of the public listener (${default})."`
	Ops    string `default:"127.0.0.1:8421" placeholder:"ADDR" help:"Address of the operations listener: /healthz, /readyz, /metrics, profiles (${default})."`

	TLSCert string `name:"tls-cert" placeholder:"FILE" and:"tls" help:"Certificate chain; read again when it changes."`
	TLSKey  string `name:"tls-key" placeholder:"FILE" and:"tls" help:"Its private key."`

	TrustedProxy  []string `sep:"," placeholder:"CIDR" help:"Network of a proxy whose X-Forwarded-For is believed; repeatable."`
	AllowedOrigin []string `sep:"," placeholder:"URL" help:"Web origin whose pages may call /mcp; repeatable (the issuer's own)."`

	MCPScopes             string `name:"mcp-scopes" placeholder:"SCOPES" default:"kavach:verify kavach:delegate kavach:audit" help:"What a client of /mcp is told to ask for (${default})."`
	Registration          string `enum:"open,token,off" default:"open" help:"Who may register a client: ${enum} (${default})."`
	RegistrationTokenFile string `placeholder:"FILE" help:"The initial access token for --registration token."`

	CodeTTL       time.Duration `name:"code-ttl" default:"60s" help:"Life of an authorization code (${default})."`
	AccessTTL     time.Duration `name:"access-ttl" default:"10m" help:"Life of an access token (${default}, at most 1h)."`
	AgentTTL      time.Duration `name:"agent-ttl" default:"5m" help:"Life of an access token that an agent gets by its own key (${default}, at most 1h)."`
	RefreshIdle   time.Duration `default:"720h" help:"Life of a refresh token that is not used (${default})."`
	RefreshMax    time.Duration `default:"2160h" help:"Life of a sign-in of a client, however often refreshed (${default})."`
	RefreshReplay time.Duration `default:"30s" help:"How long a used refresh token may come again without ending its family (${default})."`

	RotateKeys time.Duration `default:"2160h" help:"Age at which the next key is made, of every purpose; 0s makes none (${default})."`

	DrainDelay time.Duration `default:"0s" help:"How long after SIGTERM requests are still taken while /readyz says 503: give a load balancer the time to notice (${default})."`

	GitHost string `default:"127.0.0.1:8422" placeholder:"ADDR" help:"With --dev: address of the git host of the case study; empty makes none (${default})."`

	DPoPNonce bool `name:"dpop-nonce" help:"Ask for a nonce of this server in every DPoP proof."`

	Log string `enum:"auto,text,json" default:"auto" help:"Form of the log on stderr: ${enum} (${default}: text on a terminal)."`
}

// maxTTL of an access token: "≤ 1h: the feed forgets after that".
const maxTTL = time.Hour

// minRotateKeys keeps the key set small: a key stays in it for an hour after it
// signed last.
const minRotateKeys = 2 * time.Hour

// maxDrainDelay is less than what supervisors wait before they kill.
const maxDrainDelay = time.Minute

// Run serves until the process is told to stop.
func (c *serveCmd) Run(w *world) error {
	if err := c.check(); err != nil {
		return err
	}
	m := &Main{Config: *c, world: w, Log: newLogger(c.Log, w.stderr)}
	if err := m.Open(w.ctx); err != nil {
		return errors.Join(err, m.Close())
	}
	m.announce()
	err := m.Serve(w.ctx)
	return errors.Join(err, m.Close())
}

// check refuses what cannot be meant, before anything is opened.
func (c *serveCmd) check() error {
	if err := c.resolve(); err != nil {
		return err
	}
	if c.Dev {
		for flag, address := range map[string]string{"listen": c.Listen, "ops": c.Ops, "git-host": c.GitHost} {
			if address != "" && !loopbackListen(address) {
				return usagef("leave --dev out to serve others", "--dev is not safe and listens on this machine alone, but --%s is %s", flag, address)
			}
		}
	}
	if c.Issuer == "" && !loopbackListen(c.Listen) {
		return usagef("write --issuer https://auth.example.com", "--listen %s can be reached from elsewhere, so clients need to know by which --issuer", c.Listen)
	}
	if c.TLSCert != "" && !strings.HasPrefix(c.Issuer, "https://") {
		return usagef("write --issuer https://HOST", "--tls-cert needs an --issuer that is https")
	}
	for flag, ttl := range map[string]time.Duration{
		"code-ttl": c.CodeTTL, "access-ttl": c.AccessTTL, "agent-ttl": c.AgentTTL,
		"refresh-idle": c.RefreshIdle, "refresh-max": c.RefreshMax,
	} {
		if ttl < time.Second {
			return usagef("write it like 90s, 10m or 720h", "--%s %s is shorter than a second", flag, ttl)
		}
	}
	if c.RotateKeys != 0 && c.RotateKeys < minRotateKeys {
		return usagef("0s turns it off; `kavach key rotate` does it by hand", "--rotate-keys %s is less than %s", c.RotateKeys, minRotateKeys)
	}
	if c.DrainDelay < 0 || c.DrainDelay > maxDrainDelay {
		return usagef("5s is enough for most load balancers", "--drain-delay %s is not between 0s and %s", c.DrainDelay, maxDrainDelay)
	}
	if c.RefreshReplay < 0 {
		return usagef("0s turns it off", "--refresh-replay %s is negative", c.RefreshReplay)
	}
	if c.AccessTTL > maxTTL {
		return usagef("refresh tokens are for longer", "--access-ttl %s is longer than an hour, after which revocations are forgotten", c.AccessTTL)
	}
	if c.AgentTTL > maxTTL {
		return usagef("an agent signs in again whenever it likes", "--agent-ttl %s is longer than an hour, after which revocations are forgotten", c.AgentTTL)
	}
	if (c.Registration == "token") != (c.RegistrationTokenFile != "") {
		return usagef("give both or neither", "--registration token and --registration-token-file belong together")
	}
	for _, origin := range c.AllowedOrigin {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.Path != "" || u.RawQuery != "" || u.User != nil {
			return usagef("write it like https://app.example.com", "--allowed-origin %q is not a web origin", origin)
		}
	}
	_, err := c.proxies()
	return err
}

// proxies parses --trusted-proxy.
func (c *serveCmd) proxies() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range c.TrustedProxy {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			if a, aerr := netip.ParseAddr(text); aerr == nil {
				p, err = a.Prefix(a.BitLen())
			}
		}
		if err != nil {
			return nil, usagef("write it like 10.0.0.0/8", "--trusted-proxy %q is not a network", text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// newLogger makes the process's log: text on a terminal, JSON otherwise.
func newLogger(form string, stderr io.Writer) *slog.Logger {
	if form == "auto" {
		form = "json"
		if f, ok := stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			form = "text"
		}
	}
	if form == "json" {
		return slog.New(slog.NewJSONHandler(stderr, nil))
	}
	return slog.New(slog.NewTextHandler(stderr, nil))
}

// announce says where it serves and, while nobody can sign in, how to begin.
func (m *Main) announce() {
	w := m.world
	if m.Config.DB.anybody() {
		w.note("warning: nothing says who may answer as the database %s: add sslmode=verify-full to its address (docs/postgresql.md)", m.Config.DB)
	}
	if m.Config.Dev {
		m.announceDev()
		return
	}
	if m.setupCode != "" {
		w.note("set up at %s/setup with code %s", m.Issuer, m.setupCode)
		w.note("hint: the code works for an hour; `kavach user add NAME --role operator` does the same")
	}
}

// listenError says what to do about an address that cannot be had.
func listenError(flag, address string, err error) error {
	hint := "--" + flag + " takes another address"
	if errors.Is(err, syscall.EADDRINUSE) {
		hint = "is another kavach running? " + hint
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return withHint(fmt.Errorf("listening on %s: %w", address, err), hint)
}
