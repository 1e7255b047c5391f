package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// agentFlags say as whom a command talks, and to which server.
type agentFlags struct {
	Issuer  string `required:"" placeholder:"URL" help:"The server."`
	KeyFile string `required:"" placeholder:"FILE" help:"NAME.key.json of the agent: its identity."`
	reachFlags
}

// signer is the agent of the flags. Nothing is sent before it is asked to.
func (f agentFlags) signer(w *world) (*client.Agent, error) {
	if err := checkIssuer(f.Issuer); err != nil {
		return nil, err
	}
	transport, err := f.issuerTransport(w)
	if err != nil {
		return nil, err
	}
	key, id, err := w.readIdentity(f.KeyFile)
	if err != nil {
		return nil, err
	}
	a, err := client.New(client.Config{Issuer: f.Issuer, Key: key, ID: id, Transport: transport, Now: w.now})
	if err != nil {
		return nil, plain(err)
	}
	return a, nil
}

// holderFlag names the key that a token is bound to.
type holderFlag struct {
	HolderFile string `default:"holder.key.json" placeholder:"FILE" help:"The key to bind the token to, as 'kavach holder new' writes it (${default})."`
}

// holder reads that key. "Bound to the DPoP (holder) key, never to the identity
// key" (authorization-server.md §5): there is no token without one.
func (f holderFlag) holder(w *world, agentID string) (agent.PrivateKey, error) {
	key, err := w.readPrivateKey(f.HolderFile)
	if errors.Is(err, fs.ErrNotExist) {
		return key, usage(err, "make the key that the token will be bound to: kavach holder new --out "+f.HolderFile)
	}
	if err == nil && key.Public().Thumbprint() == agentID {
		return key, usagef("--key-file is the agent's identity, --holder-file another key: kavach holder new", "%s is the agent's identity, which no token is bound to", f.HolderFile)
	}
	return key, err
}

// wanted is what a token was asked to be; zero members were left to the server.
type wanted struct {
	scopes []string
	ttl    time.Duration
}

// clamped says whether a token lives shorter than it was asked to. It reads what
// the token says of itself, so that the clocks of two machines do not matter.
func (a wanted) clamped(c client.Credential) bool {
	parts, err := delegation.Inspect(string(c.Token))
	if err != nil || a.ttl == 0 {
		return false
	}
	claims := parts[len(parts)-1].UnverifiedClaims
	iat, _ := claims.Get("iat").Int()
	exp, _ := claims.Get("exp").Int()
	return exp-iat < int64(a.ttl/time.Second)
}

// printCredential prints a token that was just issued: the token alone on
// stdout, so that it can go into a file.
func (w *world) printCredential(c client.Credential, asked wanted, asJSON bool) error {
	if asJSON {
		m := map[string]any{
			"token": string(c.Token), "scopes": c.Scopes, "audience": c.Audience,
			"expires_in": secondsLeft(c.Expires, w.now()), "expires": when(c.Expires),
		}
		if !c.Key.IsZero() {
			m["jkt"] = c.Key.Public().Thumbprint()
		}
		if asked.ttl != 0 {
			m["clamped"] = asked.clamped(c)
		}
		return w.printJSON(m)
	}
	fmt.Fprintln(w.stdout, string(c.Token))
	if asked.clamped(c) {
		w.note("it lives until %s, with what it comes from", when(c.Expires))
	}
	if missing := without(asked.scopes, c.Scopes); len(missing) > 0 {
		w.note("hint: it does not hold %s: the manifest, the grant and the owner each limit what an agent gets", oneLine(strings.Join(missing, " ")))
	}
	return nil
}
