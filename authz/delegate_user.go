package authz

import (
	"context"
	"errors"
	"slices"

	"github.com/kavach-dev/kavach/agent"
)

// name finds out who will use the result ("Who acts", delegation.md §7): "the
// agent proved by actor_token or a key card, else the one whose registered key
// is in req_cnf, else the agent named in `delegate`, else the caller".
func (s *Server) name(ctx context.Context, h *handover) error {
	ask := &h.ask
	if h.card != "" {
		return s.readCard(ctx, h)
	}
	if ask.Receiver != "" || ask.Key.IsZero() || ask.KeyByProof {
		return nil
	}
	a, err := s.cfg.Registry.cfg.Store.AgentOfKey(ctx, ask.Key.Thumbprint())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if err == nil {
		ask.Receiver = a.ID
	}
	return nil
}

// errCard is the answer to an actor_token that is not what it must be.
var errCard = badRequest("invalid_request", "actor_token must be a key card of a registered agent for this issuer, unexpired, and of the same key as req_cnf")

// readCard takes receiver and key from the card, which it verifies.
func (s *Server) readCard(ctx context.Context, h *handover) error {
	ask := &h.ask
	id, err := agent.UnverifiedCardAgent(h.card)
	if err != nil {
		return errCard
	}
	a, err := s.agentOf(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return errCard
	}
	if err != nil {
		return err
	}
	check := agent.CardCheck{Agent: a.ID, Audience: s.cfg.Issuer, Now: s.cfg.Now()}
	card, err := agent.VerifyCard(h.card, a.Key, check)
	if err != nil {
		// Its key may have changed since it was read. That the one before does not
		// count any more is decided by cardOnce.
		s.agents.forget(id)
		if a, err = s.agentOf(ctx, id); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		card, err = agent.VerifyCard(h.card, a.Key, check)
	}
	if err != nil || !ask.Key.IsZero() && ask.Key != card.Key {
		return errCard
	}
	ask.Receiver, ask.ReceiverProved, ask.Key = a.ID, true, card.Key
	h.cardOnce = s.cfg.Registry.cfg.Store.OnceByAgent(
		HashSecret("card "+a.ID+" "+card.JTI), card.Expires, a.ID, a.Key.Thumbprint())
	return nil
}

// standsOn adds what the request brings to what its parent stands on: who asks,
// who receives, the key and the handle.
func (h *handover) standsOn(q StandingQuery) StandingQuery {
	if h.ask.Caller != "" {
		q.Parties = append(q.Parties, h.ask.Caller)
	}
	if h.handle != "" {
		q.Links = append(q.Links, h.handle)
	}
	if agent.IsID(h.ask.Receiver) {
		q.Named = append(q.Named, h.ask.Receiver)
	}
	if !h.ask.Key.IsZero() {
		q.Keys = append(q.Keys, h.ask.Key.Thumbprint())
	}
	return q
}

// user holds whoever will use the result to what is known of it.
func (s *Server) user(ctx context.Context, h *handover, standing Standing) error {
	ask := &h.ask
	if ask.Receiver == "" {
		return s.callerUses(ctx, h)
	}
	a, err := s.receiver(ctx, h, standing)
	if err != nil {
		return err
	}
	ask.Receiver = a.ID
	// Any key that is not registered, and came without a card, is recorded as
	// unproven.
	ask.ReceiverProved = ask.ReceiverProved || !ask.Key.IsZero() && ask.Key == a.Key
	h.limitDepth(a.Depth())
	if a.ID == ask.Caller && !slices.Contains(h.parent.Path(), a.ID) {
		// It names itself, to bring its key: then it is the caller who uses the
		// result, and stands in the path once.
		ask.Receiver = ""
	}
	return nil
}

// receiver finds the agent that is named: active, and with the same person
// behind it as behind the caller. Who it is not to be found for, does not
// learn whether it exists.
func (s *Server) receiver(ctx context.Context, h *handover, standing Standing) (Agent, error) {
	unknown := badRequest("invalid_request", "you have no active agent of that id or name")
	if s.cfg.Agents == nil {
		return Agent{}, unknown
	}
	person := standing.Holder
	var a Agent
	var err error
	if id := h.ask.Receiver; !agent.IsID(id) {
		a, err = s.cfg.Agents.FindAgent(ctx, person.ID, id)
	} else if err = ErrNotFound; slices.Contains(standing.Acting, id) {
		a, err = s.agentOf(ctx, id)
		a.Status = AgentActive // at this moment, whatever was read before
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Agent{}, err
	}
	// An agent that authenticated and names itself shows what it is.
	own := err == nil && a.ID == h.ask.Caller
	if err != nil || !a.Active(s.cfg.Now()) || !own && (person.ID == "" || a.Owner != person.ID) {
		return Agent{}, unknown
	}
	return a, nil
}

// callerUses is for a result that nobody else is named for: an agent gets no
// depth that its manifest does not declare, and only an agent, or who sent the
// key to be bound, gets a root (delegation.md §3).
func (s *Server) callerUses(ctx context.Context, h *handover) error {
	id := h.ask.Caller
	if id == "" {
		id = h.parent.ClientID()
	}
	a, err := s.agentOf(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil // a client
	}
	if err != nil {
		return err
	}
	if !s.cfg.Now().Before(a.ManifestExpires) {
		return errDenied("the manifest of the calling agent has expired") // "gets no new tokens"
	}
	h.ask.KeyByProof = false
	h.limitDepth(a.Depth())
	return nil
}

// agentOf is an agent by its id, as it was at most a second ago, or
// ErrNotFound. What is issued to one that was suspended since is dead, as step 15
// finds.
func (s *Server) agentOf(ctx context.Context, id string) (Agent, error) {
	if s.cfg.Agents == nil || !agent.IsID(id) {
		return Agent{}, ErrNotFound
	}
	return s.agents.read(id, s.cfg.Now(), func() (Agent, error) { return s.cfg.Agents.FindAgent(ctx, "", id) })
}

// limitDepth: capabilities bind what the server issues (delegation.md §10).
func (h *handover) limitDepth(depth int) {
	if h.ask.MaxDepth == nil || *h.ask.MaxDepth > depth {
		h.ask.MaxDepth = &depth
	}
}
