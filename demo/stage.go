package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// actor is an agent of the story with its identity key.
type actor struct {
	id       string
	key      agent.PrivateKey
	manifest string
	client   *client.Agent
}

// stage is where the story plays: everybody's keys, what they hold, and the git
// host. Steps run one after the other.
type stage struct {
	cfg    Config
	issuer string

	cast         []Candidate
	orchestrator actor
	reviewer     actor
	reporter     actor

	authority *Authority
	plain     *http.Client // reaches the git host and checks nothing
	gitAddr   string
	git       *GitHost
	closers   []func(context.Context) error

	// strays counts connections to anywhere but kavach and the git host.
	strays atomic.Int64

	reports  *http.Client // signs code-reviewer in for its reports
	unsent   error        // a report of the runtime that did not get through
	mcp      *assistant
	whole    client.Credential // of the orchestrator, for the git host alone
	cardKey  agent.PrivateKey  // of the reviewer: that of its key card
	card     agent.Card
	cardText string
	reading  client.Credential // the first token
	comments client.Credential // the second token
	short    client.Credential // the one that expires
}

// makeActor makes an identity and signs its manifest.
func (s *stage) makeActor(ctx context.Context, one Agent) (actor, error) {
	key, err := agent.GenerateKey()
	if err != nil {
		return actor{}, err
	}
	m := one.Manifest
	m.IssuedAt, m.Expires = s.cfg.Now(), s.cfg.Now().Add(24*time.Hour)
	a := actor{id: key.Public().Thumbprint(), key: key}
	if a.manifest, err = agent.SignManifest(m, key); err != nil {
		return actor{}, err
	}
	assertion, err := agent.SignAssertion(key, a.id, s.issuer, s.cfg.Now(), 30*time.Second)
	if err != nil {
		return actor{}, err
	}
	a.client, err = client.New(client.Config{Issuer: s.issuer, Key: key, Now: s.cfg.Now})
	if err != nil {
		return actor{}, err
	}
	s.cast = append(s.cast, Candidate{Agent: one, ID: a.id, Signed: a.manifest, Assertion: assertion})
	return a, nil
}

// open starts kavach and the git host and registers everybody.
func (s *stage) open(ctx context.Context) error {
	if err := s.cfg.Kavach.Start(ctx); err != nil {
		return fmt.Errorf("starting kavach: %w", err)
	}
	s.issuer = s.cfg.Kavach.Issuer()
	for _, one := range Agents() {
		made, err := s.makeActor(ctx, one)
		if err != nil {
			return fmt.Errorf("making %s: %w", one.Manifest.Name, err)
		}
		switch one.Manifest.Name {
		case Orchestrator:
			s.orchestrator = made
		case Reviewer:
			s.reviewer = made
		case Reporter:
			s.reporter = made
		}
	}
	if err := s.cfg.Kavach.Prepare(ctx, s.cast); err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	if err := s.openGitHost(ctx); err != nil {
		return err
	}
	s.reports = &http.Client{Timeout: 10 * time.Second, Transport: s.transport(s.reviewer.client.Stay(s.reviewer.client.Reporting()))}
	s.mcp = &assistant{
		url: s.issuer + "/mcp", transcript: s.cfg.Transcript,
		http: &http.Client{Timeout: 10 * time.Second, Transport: s.transport(s.orchestrator.client.Stay(client.Ask{
			Resources: []string{s.issuer + "/mcp", Resource},
			Scopes:    []string{"kavach:delegate", ReadRepository, ReadPull, WriteComment},
		}))},
	}
	return nil
}

// openGitHost starts the git host on loopback, with a certificate of its own
// authority and its own credential for reporting.
func (s *stage) openGitHost(ctx context.Context) error {
	var err error
	if s.authority, err = NewAuthority(s.cfg.Now()); err != nil {
		return err
	}
	cert, err := s.authority.Certificate(s.cfg.Now())
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listening for the git host: %w", err)
	}
	s.gitAddr = listener.Addr().String()
	s.plain = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.authority.Pool()},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.gitAddr)
		},
	}}
	reports, err := NewReporter(ReporterConfig{
		Agent: s.reporter.client, SpillDir: s.cfg.SpillDir, Now: s.cfg.Now, Log: s.cfg.Log,
	})
	if err != nil {
		listener.Close()
		return err
	}
	s.git = NewGitHost(GitHostConfig{
		Issuer: s.issuer, Report: reports.Report, Need: s.cfg.Need, Now: s.cfg.Now, Log: s.cfg.Log,
	})
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- s.git.Serve(serving, listener, cert) }()
	s.closers = append(s.closers, func(ctx context.Context) error {
		stop()
		err := <-ended
		s.git.Close()
		return errors.Join(err, reports.Close(ctx))
	})
	return nil
}

// closeTimeout bounds how long the last reports may take.
const closeTimeout = 30 * time.Second

// close ends the git host and delivers what is left to report: kavach still
// serves. It may be called again.
func (s *stage) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	for len(s.closers) > 0 {
		errs = append(errs, s.closers[0](ctx))
		s.closers = s.closers[1:]
	}
	return errors.Join(errs...)
}

// transport is the runtime of an agent: its token where it belongs, and nothing
// leaves that the token does not allow.
func (s *stage) transport(source client.Source) *client.Transport {
	return &client.Transport{
		Source:  source,
		Resolve: map[string]string{Host + ":443": s.gitAddr},
		RootCAs: s.authority.Pool(),
		Lookup:  lookup,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address != s.gitAddr && address != strings.TrimPrefix(s.issuer, "http://") {
				s.strays.Add(1)
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
		Now: s.cfg.Now,
	}
}

// asReviewer is what code-reviewer's program uses. Its runtime reports what it
// refuses.
func (s *stage) asReviewer(source client.Source) *http.Client {
	reporter := &client.Reporter{Agent: s.reviewer.client, Source: source, HTTP: s.reports}
	t := s.transport(source)
	t.Report = func(ctx context.Context, a client.Attempt) error {
		err := reporter.Report(ctx, a)
		if err != nil {
			s.unsent = err // it stays refused; the story fails
		}
		return err
	}
	return &http.Client{Timeout: 10 * time.Second, Transport: t}
}

// lookup is the name service of the story. The name git.internal was moved to
// where clouds keep their credentials: what a runtime must notice.
func lookup(_ context.Context, host string) ([]netip.Addr, error) {
	if host == Host {
		return []netip.Addr{netip.MustParseAddr("169.254.169.254")}, nil
	}
	return []netip.Addr{netip.MustParseAddr("203.0.113.7")}, nil
}

// Outcome is how a step came out.
type Outcome struct {
	Status    int               `json:"status,omitempty"`
	Challenge string            `json:"challenge,omitempty"`
	Error     string            `json:"error,omitempty"`
	Reason    delegation.Reason `json:"reason,omitempty"` // of a refusal by the runtime
	// Note is what a person should see of it.
	Note string `json:"note,omitempty"`
}

// ask sends a request and reads the outcome.
func ask(c *http.Client, r *http.Request) (Outcome, error) {
	resp, err := c.Do(r)
	var refused *client.Refused
	if errors.As(err, &refused) {
		return Outcome{Reason: refused.Refusal.Reason, Note: refused.Refusal.Dimension}, nil
	}
	if err != nil {
		return Outcome{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return Outcome{}, fmt.Errorf("reading the answer: %w", err)
	}
	return readOutcome(resp, body), nil
}

// request makes a request to the git host.
func request(ctx context.Context, method, path, body string) (*http.Request, error) {
	url := path
	if !strings.Contains(path, "://") {
		url = Resource + "/" + path
	}
	if body == "" {
		return http.NewRequestWithContext(ctx, method, url, nil)
	}
	return http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
}
