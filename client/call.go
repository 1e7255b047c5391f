package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

type callKey struct{}

// WithCall says that requests with this context call a tool: a Transport then
// proves the call, tool and arguments, in place of method and URL, in the header
// AAT-Proof. It is what a server demands for a side effect with a chain where
// TLS does not end in it. The arguments are an object, as the server reads them
// from the request; the zero Value is an empty one.
func WithCall(ctx context.Context, tool string, arguments jcs.Value) context.Context {
	return context.WithValue(ctx, callKey{}, delegation.Call{Name: tool, Arguments: arguments})
}

func callOf(ctx context.Context) (delegation.Call, bool) {
	call, ok := ctx.Value(callKey{}).(delegation.Call)
	return call, ok
}

// ProveCall makes an AAT proof: the holder of the chain calls this tool with
// these arguments, now, at this audience, which is one of the chain's. nonce is
// the last DPoP-Nonce of that server, or "".
func (c Credential) ProveCall(call delegation.Call, audience, nonce string, now time.Time) (string, error) {
	parts, err := delegation.Inspect(string(c.Token))
	if err != nil {
		return "", failed("reading the token: %w", err)
	}
	leaf := parts[len(parts)-1]
	if c.Key.IsZero() || !leaf.UnverifiedClaims.Get("cnf").Get("jwk").Exists() {
		return "", failed("a call is proved with a chain and its key: the token is none, or the key is not here")
	}
	if !call.Exact() {
		return "", failed("a number among the arguments is not what others read: write it as a string or with fewer digits")
	}
	proof, err := agent.SignAATProof(c.Key, agent.AATProof{
		LID: leaf.LID, LeafJTI: leaf.UnverifiedClaims.Get("jti").Str(), Tool: call.Name, Arguments: call.Arguments,
		Audience: audience, Nonce: nonce, IssuedAt: now,
	})
	if err != nil {
		return "", failed("making a proof: %w", err)
	}
	return proof, nil
}

// AuthorizeCall is Authorize with an AAT proof over a call.
func (c Credential) AuthorizeCall(r *http.Request, call delegation.Call, audience, nonce string, now time.Time) error {
	proof, err := c.ProveCall(call, audience, nonce, now)
	if err != nil {
		return err
	}
	bare(r.Header)
	r.Header.Set("Authorization", delegation.DPoP+" "+string(c.Token))
	r.Header.Set(delegation.AATProofHeader, proof)
	return nil
}

// Present returns an MCP message with the chain, and a proof of the message, in
// its _meta: the way of a chain that no header takes. The message goes without
// an Authorization header then.
func (c Credential) Present(message []byte, audience, nonce string, now time.Time) ([]byte, error) {
	m, err := delegation.ParseMessage(message)
	if err != nil {
		return nil, failed("reading the message: %w", err)
	}
	proof, err := c.ProveCall(m.Call, audience, nonce, now)
	if err != nil {
		return nil, err
	}
	text, err := m.With(delegation.Present(string(c.Token), proof))
	if err != nil {
		return nil, failed("writing the message: %w", err)
	}
	return text, nil
}

// bare takes credentials and proofs out of a header, however their names were
// put into the map: that is how they would be sent.
func bare(header http.Header) {
	for name := range header {
		for _, ours := range []string{"Authorization", proofHeader, delegation.AATProofHeader} {
			if strings.EqualFold(name, ours) {
				delete(header, name)
			}
		}
	}
}

// presents says whether a request carries its credential in its body.
func (t *Transport) presents(cred Credential, method string) bool {
	return t.MCP && method == http.MethodPost && !cred.Key.IsZero() &&
		(t.ProveCalls || len(cred.Token) > delegation.MaxChainHeader)
}

// authorize puts credential and proof on a request to an audience, and makes its
// body.
func (v *verdict) authorize(out *http.Request, body io.ReadCloser, nonce string) (io.ReadCloser, error) {
	call, called := callOf(out.Context())
	switch {
	case v.t.presents(v.cred, v.attempt.Method):
		return v.present(out, body, nonce)
	case called:
		return body, v.cred.AuthorizeCall(out, call, v.audience(), nonce, v.t.now())
	}
	return body, v.cred.Authorize(out, nonce, v.t.now())
}

// present replaces the message in the body by one with chain and proof.
func (v *verdict) present(out *http.Request, body io.ReadCloser, nonce string) (io.ReadCloser, error) {
	if body == nil {
		return nil, failed("an MCP server is sent messages")
	}
	message, err := io.ReadAll(io.LimitReader(body, delegation.MaxMessage+1))
	err = errors.Join(err, body.Close())
	if err != nil {
		return nil, failed("reading the message: %w", err)
	}
	// What the transport adds is no part of what the token's holder writes.
	if err := v.grant.AllowsSize(int64(len(message))); err != nil {
		return nil, v.refuse(out.Context(), err)
	}
	text, err := v.cred.Present(message, v.audience(), nonce, v.t.now())
	if err != nil {
		return nil, err
	}
	bare(out.Header)
	out.ContentLength = int64(len(text))
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
	return io.NopCloser(bytes.NewReader(text)), nil
}

// audience is how the token names the server that this request goes to: of
// several at one origin the one whose path leads furthest to this one.
func (v *verdict) audience() string {
	best := ""
	for _, audience := range v.grant.Audience() {
		if !ownOrigin([]string{audience}, v.to, false) {
			continue
		}
		if best == "" || below(v.attempt.URL, audience) && (!below(v.attempt.URL, best) || len(audience) > len(best)) {
			best = audience
		}
	}
	return best
}

// below reports whether a URL is that of a resource, or one under it.
func below(url, resource string) bool {
	rest, ok := strings.CutPrefix(url, strings.TrimSuffix(resource, "/"))
	return ok && (rest == "" || slices.Contains([]byte("/?#"), rest[0]))
}
