package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/demo"
	"github.com/kavach-dev/kavach/guard"
)

// devGitHost is the git host of the case study beside `serve --dev`.
type devGitHost struct {
	listener  net.Listener
	authority *demo.Authority
	caFile    string
}

// Names in the data folder of --dev.
const (
	gitCAFile    = "git-ca.pem"
	gitSpillDir  = "git-reports"
	gitDrainTime = 2 * time.Second
)

// openGitHost binds the git host's listener and writes the certificate to
// trust. It goes on without one where that cannot be: kavach is not less for it.
func (m *Main) openGitHost() error {
	if m.Config.GitHost == "" {
		return nil
	}
	if m.cert != nil {
		m.world.note("hint: the git host of the case study is not started with --tls-cert: it trusts the system's certificates alone")
		return nil
	}
	listener, err := net.Listen("tcp", m.Config.GitHost)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		m.world.note("the git host of the case study is not started: listening on %s: %v", m.Config.GitHost, err)
		m.world.note("hint: --git-host takes another address")
		return nil
	}
	// Its key is never written, so every start makes a new authority.
	g := &devGitHost{listener: listener, caFile: filepath.Join(m.Config.Data, gitCAFile)}
	if g.authority, err = demo.NewAuthority(m.world.now()); err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := replaceFile(g.caFile, g.authority.PEM()); err != nil {
		return errors.Join(err, listener.Close())
	}
	m.git = g
	return nil
}

// replaceFile writes a public file so that a reader sees the old or the new.
func replaceFile(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, pathCause(err))
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		removeQuietly(f.Name())
		return fmt.Errorf("writing %s: %w", name, pathCause(err))
	}
	return nil
}

// serveGitHost serves until ctx ends. kavach serves by then: the git host
// fetches its keys first.
func (m *Main) serveGitHost(ctx context.Context) error {
	made, err := readCreatedAgent(filepath.Join(m.Config.Data, "agents"), demo.Reporter, m.world.now())
	if err != nil {
		return fmt.Errorf("reading the key of %s: %w", demo.Reporter, err)
	}
	a, err := client.New(client.Config{Issuer: m.Issuer, Key: made.key, Now: m.world.now})
	if err != nil {
		return err
	}
	reports, err := demo.NewReporter(demo.ReporterConfig{
		Agent: a, SpillDir: filepath.Join(m.Config.Data, gitSpillDir), Now: m.world.now, Log: m.Log,
	})
	if err != nil {
		return err
	}
	cert, err := m.git.authority.Certificate(m.world.now())
	if err != nil {
		return err
	}
	host := demo.NewGitHost(demo.GitHostConfig{Issuer: m.Issuer, Report: reports.Report, Now: m.world.now, Log: m.Log})
	err = host.Serve(ctx, m.git.listener, cert)
	host.Close()
	return errors.Join(err, closeReports(ctx, reports))
}

// closeReports sends what waits, for a while: the rest waits on disk.
func closeReports(ctx context.Context, reports *guard.Reporter) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), gitDrainTime)
	defer cancel()
	if err := reports.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// startGitHost runs serveGitHost beside the server. Its failure ends nothing
// but itself. The returned function ends it and waits: before kavach stops, so
// that its last reports arrive.
func (m *Main) startGitHost(ctx context.Context) (stop func()) {
	if m.git == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() {
		if err := m.serveGitHost(ctx); err != nil {
			m.Log.Error("the git host of the case study ended", "error", err)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// announceGitHost says how to play the case study by hand.
func (m *Main) announceGitHost() {
	fmt.Fprintf(m.world.stderr, `the case study, by hand ("kavach demo" plays all of it)
  git host      %[1]s on %[2]s, with certificates of %[3]s
  two keys      kavach holder new
                kavach holder new --out review.key.json >review.jwk
  sign in       kavach token --issuer %[4]s --key-file %[5]s \
                  --resource %[1]s --scope '%[6]s %[7]s' >git.jwt
  hand on       kavach delegate --parent git.jwt --key-file holder.key.json --to review.jwk --agent code-reviewer \
                  --scope '%[6]s %[7]s' --resource pull/847 --allow-network %[8]s >read.jwt
  use           kavach call %[1]s/pull/847/diff --token-file read.jwt --key-file review.key.json \
                  --resolve %[8]s=%[2]s --cacert %[3]s
  refused       the same for /pull/848/diff, or https://example.com
  who did it    kavach audit list --data %[9]s

`, demo.Resource, m.git.listener.Addr(), m.git.caFile, m.Issuer,
		filepath.Join(m.Config.Data, "agents", demo.Orchestrator+".key.json"), demo.ReadRepository, demo.ReadPull, demo.Host, m.Config.Data)
}
