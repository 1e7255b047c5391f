package authz

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

const (
	// handleTTL is how long a handle can be redeemed (authorization-server.md §5).
	handleTTL = 60 * time.Second
	// handlePrefix tells people, and what looks for secrets, what they see.
	handlePrefix = "kvh_"
)

// A Handle stands for a delegation that nobody has fetched yet: single use, and
// of use to the named agent alone.
type Handle struct {
	// Hash is the base64url SHA-256 of the handle.
	Hash string
	// Sealed is the parent and what was asked of it, under a key derived from
	// the handle itself; empty once it was redeemed.
	Sealed string
	// Created and Expires bound its life.
	Created, Expires time.Time
	// Used is when it was redeemed; zero is not.
	Used time.Time
}

// DelegateHandle decides like [Server.Delegate] and hands out, instead of the
// token, a handle for it: the named agent redeems it once, within a minute, by
// its own authentication and with its own key. credential is the text that
// parent was verified from. The Token of what is returned is the handle, the
// times are those of the handle; everything else says what its token will be.
func (s *Server) DelegateHandle(ctx context.Context, credential string, parent *delegation.Chain, ask delegation.Ask) (delegation.Issued, error) {
	ask.Caller = ""
	h := &handover{via: "mcp", parent: parent, ask: ask}
	made, err := s.makeHandle(ctx, h, credential)
	if err != nil {
		return delegation.Issued{}, s.refuseHandover(ctx, h, err)
	}
	if err := s.cfg.Commit.Commit(ctx, audit.Change{
		Effects: []audit.Effect{s.cfg.Store.AddHandle(made.row)}, Entries: []audit.Entry{made.entry},
	}); err != nil {
		s.unavailable(ctx, "recording a delegation", err)
		return delegation.Issued{}, oauthError(err)
	}
	return made.issued, nil
}

// madeHandle is a handle that may be handed out when its row and its record are
// durable.
type madeHandle struct {
	row    Handle
	entry  audit.Entry
	issued delegation.Issued
}

// makeHandle decides as if the receiver had come with a key, because it will,
// and seals what was decided about. What it returns says what the token would
// be now.
func (s *Server) makeHandle(ctx context.Context, h *handover, credential string) (madeHandle, error) {
	throwaway, err := agent.GenerateKey()
	if err != nil {
		return madeHandle{}, fmt.Errorf("making a key: %w", err)
	}
	h.ask.Key = throwaway.Public()
	draft, issued, err := s.deriveFor(ctx, h)
	h.ask.Key = agent.PublicKey{}
	if err != nil {
		return madeHandle{}, err
	}
	if h.ask.Receiver == "" { // it named itself
		h.ask.Receiver = h.ask.Caller
	}
	text := handlePrefix + newSecret().Reveal()
	now := s.cfg.Now()
	row := Handle{Hash: HashSecret(text), Created: now, Expires: now.Add(handleTTL)}
	if end := h.parent.Expires(); row.Expires.After(end) {
		row.Expires = end // it could not be redeemed after that
	}
	if row.Sealed, err = sealHandle(text, sealed{
		Parent: credential, Caller: h.ask.Caller, Receiver: h.ask.Receiver, Scopes: h.ask.Scopes, Audience: h.ask.Audience,
		TTL: h.ask.TTL, Details: detailsText(h.ask.Tools, h.ask.Limits), Depth: h.ask.MaxDepth,
	}); err != nil {
		return madeHandle{}, err
	}
	entry := h.decided(draft, issued)
	entry.Detail["handle"] = row.Hash
	// It is found, and revoked, by its hash as a token is by its lid, to the end
	// of the second in which it ends.
	entry.Issued = []audit.Issued{{LID: row.Hash, Expires: row.Expires.Add(time.Second - 1).Unix()}}
	issued.Signed = delegation.Signed{Token: text}
	issued.Expires, issued.ExpiresIn = row.Expires, row.Expires.Sub(now).Truncate(time.Second)
	return madeHandle{row, entry, issued}, nil
}

// sealed is what a handle stands for. It is written under the handle alone.
type sealed struct {
	Parent   string          `json:"parent"`
	Caller   string          `json:"caller"` // who authenticated to ask for it, "" for nobody
	Receiver string          `json:"receiver"`
	Scopes   []string        `json:"scopes"`
	Audience []string        `json:"audience"`
	TTL      time.Duration   `json:"ttl"`
	Details  json.RawMessage `json:"details"` // authorization_details
	Depth    *int            `json:"depth"`
}

// detailsText is what delegation.ParseDetails reads.
func detailsText(tools delegation.Tools, limits delegation.Limits) json.RawMessage {
	list := delegation.Details(tools, limits)
	if list == nil {
		list = []any{}
	}
	text, err := json.Marshal(list)
	if err != nil {
		panic("authz: " + err.Error()) // strings, numbers and booleans
	}
	return text
}

// errHandle is the answer to a handle that is not one, any more, or not the
// caller's: which of it is nobody's business.
var errHandle = badRequest("invalid_request", "subject_token is no handle that you can redeem")

// redeem finds out what a handle stands for. Only the agent that it was made
// for learns that there was one; nothing is spent yet.
func (s *Server) redeem(ctx context.Context, f *flow, text string) (*handover, error) {
	if f.client.ID == "" || f.client.Public() {
		return nil, unauthenticated()
	}
	row, err := s.cfg.Store.Handle(ctx, HashSecret(text))
	if errors.Is(err, ErrNotFound) {
		return nil, errHandle
	}
	if err != nil {
		return nil, err
	}
	f.handle = row.Hash
	switch {
	case !row.Used.IsZero():
		return nil, reasoned{errHandle, string(delegation.Replayed)}
	case !f.now.Before(row.Expires):
		return nil, reasoned{errHandle, string(delegation.Expired)}
	}
	what, err := openHandle(text, row)
	if err != nil {
		return nil, err
	}
	if what.Receiver != f.client.ID {
		return nil, reasoned{errHandle, "not_owner"}
	}
	if f.proof == nil {
		return nil, errProof("a handle is redeemed with a DPoP proof of the key that its token shall be bound to")
	}
	parent, err := s.cfg.Registry.verifier.Verify(what.Parent, f.now)
	if err != nil {
		return nil, subjectError(err)
	}
	tools, limits, err := delegation.ParseDetails(what.Details)
	if err != nil {
		return nil, fmt.Errorf("opening a handle: %w", err)
	}
	f.effects = append(f.effects, s.cfg.Store.UseHandle(row.Hash, f.now))
	f.lost = errHandle
	return &handover{
		via: "exchange", parent: parent, client: f.client, proved: f.jkt(), handle: row.Hash,
		ask: delegation.Ask{
			Caller: what.Caller, Receiver: what.Receiver, ReceiverProved: true, Key: f.proof.Key,
			Scopes: what.Scopes, Audience: what.Audience, TTL: what.TTL, Tools: tools, Limits: limits, MaxDepth: what.Depth,
		},
	}, nil
}

// sealHandle encrypts what a handle stands for under the handle, of which the
// server keeps only a hash: a thief of the database reads nothing.
func sealHandle(text string, what sealed) (string, error) {
	plain, err := json.Marshal(what)
	if err != nil {
		return "", fmt.Errorf("sealing a handle: %w", err)
	}
	box, err := handleBox(text)
	if err != nil {
		return "", err
	}
	nonce := make([]byte, box.NonceSize())
	rand.Read(nonce)
	return base64.RawURLEncoding.EncodeToString(box.Seal(nonce, nonce, plain, nil)), nil
}

func openHandle(text string, row Handle) (sealed, error) {
	var what sealed
	box, err := handleBox(text)
	if err != nil {
		return what, err
	}
	raw, err := base64.RawURLEncoding.DecodeString(row.Sealed)
	if err != nil || len(raw) < box.NonceSize() {
		return what, errors.New("opening a handle: its row is damaged")
	}
	plain, err := box.Open(nil, raw[:box.NonceSize()], raw[box.NonceSize():], nil)
	if err != nil {
		return what, fmt.Errorf("opening a handle: its row is damaged: %w", err)
	}
	return what, json.Unmarshal(plain, &what)
}

func handleBox(text string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(text), nil, "kavach handle v1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of a handle: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of a handle: %w", err)
	}
	return cipher.NewGCM(block)
}
