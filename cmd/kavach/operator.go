package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"strings"

	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/store"
)

// roles a person can have.
var roles = []string{string(people.Member), string(people.Auditor), string(people.Operator)}

// logger is what an operator command logs to: only what an operator must see.
func (w *world) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(w.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// openStore opens the database for a command. It makes none: a misspelt folder
// is an error, not a deployment without anybody in it.
func (p *placeFlags) openStore(w *world) (*deployment, error) {
	if err := p.resolve(); err != nil {
		return nil, err
	}
	if file, ok := p.DB.file(); !ok {
		config := p.storeConfig()
		config.ReadOnly = true
		s, err := store.Open(w.ctx, config)
		if err != nil {
			return nil, openError(p.DB, err)
		}
		s.Close()
	} else if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil, openError(p.DB, store.ErrNoDatabase)
	}
	return p.makeStore(w)
}

// makeStore is openStore for commands that may come before the first start of
// the server.
func (p *placeFlags) makeStore(w *world) (*deployment, error) {
	return p.open(w.ctx, w.logger(), w.now)
}

// openRegistry is openStore with the registry of clients, resources and agents.
// It needs no secret: it neither signs nor verifies tokens.
func (p *placeFlags) openRegistry(w *world) (*deployment, error) {
	d, err := p.openStore(w)
	if err != nil {
		return nil, err
	}
	return d.withRegistry(w)
}

// makeRegistry is makeStore with the registry.
func (p *placeFlags) makeRegistry(w *world) (*deployment, error) {
	d, err := p.makeStore(w)
	if err != nil {
		return nil, err
	}
	return d.withRegistry(w)
}

func (d *deployment) withRegistry(w *world) (*deployment, error) {
	// The log is named after the issuer that the database was made for. Kavach's
	// own resources are named after the issuer too, so a guess must not pass.
	made, _, _ := strings.Cut(d.store.LogID(), "/audit/")
	if d.Issuer == "" && made != hostOf(d.issuerOrDefault()) {
		w.note("hint: this is the database of %s, not of %s: give the --issuer that `kavach serve` has", oneLine(made), d.issuerOrDefault())
	}
	var err error
	d.registry, err = authz.NewRegistry(authz.RegistryConfig{
		Issuer: d.issuerOrDefault(), Store: d.store, Flows: d.store, Agents: d.store, Commit: d.log, Refusals: d.log, Now: w.now, Log: w.logger(),
	})
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	d.agents = authz.NewAgents(authz.AgentsConfig{
		Issuer: d.issuerOrDefault(), Store: d.store, Commit: d.log, Refusals: d.log, Registry: d.registry, Now: w.now,
	})
	return d, nil
}

// unlock opens the keys in the database. makeSecret allows it to start a
// deployment that has none.
func (d *deployment) unlock(ctx context.Context, w *world, makeSecret bool) error {
	sealed, err := d.store.Keys(ctx)
	if err != nil {
		return fmt.Errorf("reading the keys: %w", err)
	}
	secret, made, err := d.openSecret(makeSecret && len(sealed) == 0)
	if err != nil {
		return err
	}
	d.keyring.Store, d.keyring.Commit, d.keyring.Secret, d.keyring.Now = d.store, d.log, secret, w.now
	d.keyring.Reread = func() (authz.DeploymentSecret, error) {
		again, _, err := d.openSecret(false)
		return again, err
	}
	d.keys, err = authz.OpenKeyring(ctx, d.keyring)
	if errors.Is(err, authz.ErrSecret) {
		return d.wrongSecret("the secret file " + d.SecretFile + " is not the one")
	}
	if err != nil {
		return fmt.Errorf("opening the keys: %w", err)
	}
	if made {
		w.note("wrote the secret that opens the keys to %s", d.SecretFile)
		w.note("hint: keep it, and its backups, apart from the database: who has both has the signing keys")
	}
	return nil
}

// people opens the part that knows users. It serves no pages here.
func (d *deployment) people(w *world) (*people.Server, error) {
	return people.New(people.Config{
		Store: d.store, Log: d.log, Issuer: d.issuerOrDefault(), Now: w.now, Logger: w.logger(),
	})
}

// user finds a person by name.
func (d *deployment) user(w *world, name string) (people.User, error) {
	p, err := d.people(w)
	if err != nil {
		return people.User{}, err
	}
	u, err := p.UserNamed(w.ctx, name)
	if errors.Is(err, people.ErrNotFound) {
		return u, withHint(fmt.Errorf("no user %s", oneLine(name)), "`kavach user list` shows them")
	}
	return u, err
}

// hostOf is the host of a URL, or the text itself.
func hostOf(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Host
	}
	return address
}
