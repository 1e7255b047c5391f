package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"

	"github.com/kavach-dev/kavach/api"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/mcp"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/templates"
)

// parts are what a server is made of.
type parts struct {
	people *people.Server
	agents *authz.Agents
	authz  *authz.Server
	// routes of the public listener, by net/http pattern.
	routes map[string]http.Handler
}

// assemble makes every part and connects them: only the command knows
// everybody.
func (m *Main) assemble(ctx context.Context) error {
	c, d, now := &m.Config, m.d, m.world.now
	trusted, err := c.proxies()
	if err != nil {
		return err
	}
	registrationHash := ""
	if c.RegistrationTokenFile != "" {
		token, err := m.world.readLine(c.RegistrationTokenFile)
		if err != nil {
			return err
		}
		registrationHash = authz.HashSecret(token)
	}

	var nonces guard.Nonces
	if c.DPoPNonce {
		nonces = guard.NewNonces(guard.NoncesConfig{Secrets: d.keys.Nonce})
	}
	d.registry, err = authz.NewRegistry(authz.RegistryConfig{
		Issuer: m.Issuer, Store: d.store, Flows: d.store, Commit: d.log, Refusals: d.log, Keys: d.keys,
		Agents:       d.store,
		Registration: authz.RegistrationPolicy(c.Registration), RegistrationTokenHash: registrationHash,
		TrustedProxies: trusted, BaselineScopes: words(c.MCPScopes), Nonces: nonces, Now: now, Log: m.Log,
	})
	if err != nil {
		return usage(plain(err), "")
	}
	agents := authz.NewAgents(authz.AgentsConfig{
		Issuer: m.Issuer, Store: d.store, Commit: d.log, Refusals: d.log, Registry: d.registry, Keys: d.keys, Now: now,
	})
	pages, err := templates.New(templates.Config{Issuer: m.Issuer, Logger: m.Log})
	if err != nil {
		return fmt.Errorf("reading the pages: %w", err)
	}
	persons, err := people.New(people.Config{
		Store: d.store, Log: d.log, Pages: pages, Issuer: m.Issuer, CookieSecrets: d.keys.Cookie,
		Address: m.addressOf(trusted), Dev: c.Dev, Now: now, Logger: m.Log,
	})
	if err != nil {
		return err
	}
	replays, counters := authz.NewReplays(d.store, d.log), authz.NewCounters(d.store, d.log)
	server, err := authz.New(authz.Config{
		Issuer: m.Issuer, Store: d.store, Registry: d.registry, Keys: d.keys, Agents: agents, People: persons,
		Pages: pages, Commit: d.log, Refusals: d.log,
		CodeTTL: c.CodeTTL, AccessTTL: c.AccessTTL, AgentTTL: c.AgentTTL, Nonces: nonces, RefreshIdle: c.RefreshIdle, RefreshMax: c.RefreshMax,
		RefreshReplay: cmp.Or(c.RefreshReplay, -1), Now: now, Log: m.Log, // "0s turns it off"
	})
	if err != nil {
		return err
	}
	reader := audit.NewReader(audit.ReaderConfig{Store: d.store, Secrets: d.keys.Cursor})
	tools, err := mcp.New(mcp.Config{
		Issuer: m.Issuer, Version: buildVersion().Version, Verifier: d.registry.Verifier(), Revocations: d.registry,
		Baseline: words(c.MCPScopes), Delegator: server, Revoker: revoker{d.registry}, Auditor: reader, Agents: agents,
		Commit: d.log, Refusals: d.log, Source: func(r *http.Request) string { return clientAddress(r, trusted).String() },
		Origins: c.AllowedOrigin, Replays: replays, Nonces: nonces, Counters: counters, Now: now, Log: m.Log,
	})
	if err != nil {
		return err
	}
	programs, err := api.New(api.Config{
		Issuer: m.Issuer, Verifier: d.registry.Verifier(), Revocations: d.registry, Agents: agents, People: d.registry,
		Auditor: reader, Resources: d.registry, Revoker: d.registry, Spent: d.store, Commit: d.log, Refusals: d.log, Replays: replays, Nonces: nonces,
		Counters: counters, TrustedProxies: trusted, Now: now, Log: m.Log,
	})
	if err != nil {
		return err
	}

	oauth := server.Handler()
	m.parts = &parts{people: persons, agents: agents, authz: server, routes: map[string]http.Handler{
		"/.well-known/": oauth,
		"/oauth/":       oauth,
		authz.FeedPath:  oauth,
		"/consent":      oauth,
		mcp.Path:        tools.Handler(),
		api.Path + "/":  programs.Handler(),
		"/":             persons.Handler(),
	}}
	m.ops = &ops{metrics: newMetrics(), checks: []readyCheck{
		{"database", d.store.Ping},
		{"log", func(context.Context) error {
			if err := d.log.Status().Err; err != nil {
				return err
			}
			return d.store.Room() // also while nobody writes
		}},
	}}
	m.chores()
	m.ops.metrics.watchLog(d.log.Status)
	m.ops.metrics.watchHeld(d.registry.HeldRevocations)
	return nil
}

// revoker lets the MCP tool revoke through the registry.
type revoker struct{ registry *authz.Registry }

// Revoke implements mcp.Revoker.
func (r revoker) Revoke(ctx context.Context, caller *delegation.Chain, what mcp.Revocation) (mcp.Revoked, error) {
	done, err := r.registry.Revoke(ctx, caller, authz.RevokeTarget(what))
	return mcp.Revoked(done), err
}

// clientAddress is where a request comes from, trusted proxies looked through.
func clientAddress(r *http.Request, trusted []netip.Prefix) netip.Addr {
	return authz.ClientAddress(r, trusted)
}

// stack is the stack of a panic, for the log alone.
func stack() string { return strings.TrimSpace(string(debug.Stack())) }
