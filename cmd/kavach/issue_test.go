package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/wellknown"
)

// cmdIssue plays the server for offline scripts:
//
//	issue FILE [key=value…]
//
// writes a token of https://auth.example and the key set jwks.json that
// verifies it. Keys: scope, aud, depth, ttl, holder (a file with the receiver's
// public JWK: then it is the root of a chain), size, network, tool, client.
func cmdIssue(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || neg {
		ts.Fatalf("usage: issue FILE [key=value…]")
	}
	set := map[string]string{"scope": "repository:read", "aud": "https://git.example", "depth": "3", "ttl": "300s", "client": "orchestrator"}
	for _, pair := range args[1:] {
		key, value, _ := strings.Cut(pair, "=")
		set[key] = value
	}
	ttl, err := time.ParseDuration(set["ttl"])
	ts.Check(err)
	issued := time.Now()
	if ttl < 0 {
		issued = issued.Add(2 * ttl)
		ttl = -ttl
	}
	c := delegation.Claims{
		Issuer: "https://auth.example", Subject: "usr_alice", ClientID: set["client"], GrantID: "gr_1",
		Audience: strings.Fields(set["aud"]), Scopes: strings.Fields(set["scope"]),
		IssuedAt: issued, Expires: issued.Add(ttl),
	}
	if file := set["holder"]; file != "" {
		w := &world{ctx: context.Background(), stdin: strings.NewReader(""), stderr: os.Stderr}
		key, err := w.readPublicKey(ts.MkAbs(file))
		ts.Check(err)
		c.Root, c.Key = true, key
		fmt.Sscan(set["depth"], &c.MaxDepth)
	}
	if set["size"] != "" {
		n, err := parseSize(set["size"])
		ts.Check(err)
		c.Limits.MaxFileSize = &n
	}
	if set["network"] != "" {
		c.Limits.AllowNetwork = strings.Fields(set["network"])
	}
	for _, tool := range strings.Fields(set["tool"]) {
		if c.Tools == nil {
			c.Tools = delegation.Tools{}
		}
		c.Tools[tool] = delegation.AllowAnyArgs
	}
	signed, err := delegation.Sign(c, delegation.ServerKey{KID: "at-script", Signer: issuerKey()})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(signed.Token+"\n"), 0o600))
	jwks, err := wellknown.JWKS([]wellknown.Key{{KID: "at-script", Alg: delegation.Ed25519, Public: issuerKey().Public()}})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("jwks.json"), jwks, 0o600))
}

// The issuer's key is the same for every script of one run.
var (
	issuerOnce   sync.Once
	theIssuerKey ed25519.PrivateKey
)

func issuerKey() ed25519.PrivateKey {
	issuerOnce.Do(func() {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		theIssuerKey = key
	})
	return theIssuerKey
}
