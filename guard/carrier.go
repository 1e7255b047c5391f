package guard

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"github.com/kavach-dev/kavach/delegation"
)

// carried is what a request brings with it.
type carried struct {
	scheme     string
	credential string
	// proof is an AAT proof, "" for none.
	proof string
	// message is the MCP message in the body, where a proof of a call needs it.
	message *delegation.Message
}

// twoCarriers: "Exactly one carrier: with `_meta` there is no `Authorization`
// header, or one with the byte-identical chain; else 400 `malformed`"
// (delegation.md §6).
type twoCarriers struct{ refusal *delegation.Refusal }

func malformedCarrier(detail string) error {
	return &twoCarriers{&delegation.Refusal{Reason: delegation.Malformed, Part: -1, Detail: detail}}
}

func (e *twoCarriers) Error() string { return e.refusal.Error() }
func (e *twoCarriers) Unwrap() error { return e.refusal }

// carried finds the one credential of a request and an AAT proof beside it. A
// DPoP proof is looked for later, because it is over the request.
func (g *guard) carried(r *http.Request) (carried, error) {
	c := carried{}
	proofs := r.Header.Values(delegation.AATProofHeader)
	if len(proofs) > 1 || len(proofs) == 1 && len(r.Header.Values("DPoP")) > 0 {
		return c, malformedCarrier("more than one proof")
	}
	if len(proofs) == 1 {
		c.proof = proofs[0]
	}
	if g.MCP && r.Method == http.MethodPost {
		var err error
		if c.message, err = message(r, len(proofs) == 1, g.readable(r)); err != nil {
			return c, err
		}
	}
	var err error
	c.scheme, c.credential, err = credentials(r.Header)
	if c.message == nil || c.message.Presented == nil {
		if err == nil && len(c.credential) > delegation.MaxChainHeader && isChain(c.credential) {
			err = &delegation.Refusal{Reason: delegation.TooLarge, Part: -1}
		}
		return c, err
	}
	p := c.message.Presented
	// A chain "never Bearer": whatever the header's scheme is, it counts.
	switch sent := r.Header.Values("Authorization"); {
	case len(sent) == 0:
		c.scheme, c.credential = delegation.DPoP, p.Credential()
	case len(sent) > 1 || err != nil || c.credential != p.Credential():
		return c, malformedCarrier("the chain in _meta and the credential in the header are not the same")
	}
	if len(proofs) > 0 || len(r.Header.Values("DPoP")) > 0 {
		return c, malformedCarrier("more than one proof")
	}
	c.proof = p.Proof
	return c, nil
}

// maxUnknown bounds how much of a body is kept for somebody who is not known
// yet: a chain and a proof of MaxChainBody, and the arguments that the proof
// repeats.
const maxUnknown = 256 << 10

// readable is how much of the message is read before anybody is known. More than
// maxUnknown is for those whose token, in the header, holds already: bodies on
// their way are memory that strangers could take.
func (g *guard) readable(r *http.Request) int64 {
	if g.Strict != nil || r.ContentLength >= 0 && r.ContentLength <= maxUnknown {
		return delegation.MaxMessage
	}
	if _, credential, err := credentials(r.Header); err == nil {
		if _, err := g.Verifier.Verify(credential, g.Now()); err == nil {
			return delegation.MaxMessage
		}
	}
	return maxUnknown
}

// message reads the MCP message in the body and puts the body back. It is nil if
// nothing of it is needed: nobody presents anything in it, and no proof in a
// header speaks about it. What is no message is the handler's to refuse.
func message(r *http.Request, proven bool, limit int64) (*delegation.Message, error) {
	if r.Body == nil {
		return nil, nil
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, err
		}
		return nil, &badNeed{err}
	}
	if limit == maxUnknown && len(text) > maxUnknown {
		return nil, &http.MaxBytesError{Limit: maxUnknown}
	}
	r.Body = putBack{io.MultiReader(bytes.NewReader(text), r.Body), r.Body}
	// A member's name may be escaped, so a body with a backslash is read, too.
	named := bytes.Contains(text, []byte(delegation.MetaKey))
	if !named && !proven && !bytes.ContainsRune(text, '\\') {
		return nil, nil
	}
	m, err := delegation.ParseMessage(text)
	if err == nil {
		return &m, nil
	}
	var refused *delegation.Refusal
	switch {
	case !named || !errors.As(err, &refused):
		return nil, nil
	case refused.Reason == delegation.TooLarge:
		return nil, refused
	}
	return nil, &twoCarriers{refused}
}

// putBack is a body that was read and is there again.
type putBack struct {
	io.Reader
	io.Closer
}
