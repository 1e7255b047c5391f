package main

import (
	"fmt"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// receiverFlags name who is delegated to: a key and a name on the delegator's
// word, or a key card that says both.
type receiverFlags struct {
	To       string `placeholder:"FILE" help:"The receiver's public JWK, as 'kavach holder new' prints it; with --agent."`
	Agent    string `placeholder:"ID" help:"The receiver's agent id; in the chain it is your word."`
	Card     string `placeholder:"FILE" help:"The receiver's key card, in place of --to and --agent; with --manifest."`
	Manifest string `placeholder:"FILE" help:"The receiver's manifest, which the card must verify against: the first one, its history, or one with a countersignature."`

	JWKS   string `name:"jwks" placeholder:"FILE" help:"The key set of the server that countersigned the manifest."`
	Issuer string `placeholder:"URL" help:"That server."`
}

// checkReceiver wants one of the two ways, and all of it.
func (f receiverFlags) checkReceiver() error {
	byKey, byCard := f.To != "" && f.Agent != "", f.Card != "" && f.Manifest != ""
	some := (f.To != "" || f.Agent != "") && (f.Card != "" || f.Manifest != "")
	if byKey == byCard || some {
		return usagef("a card is what the receiver makes with `kavach agent card`", "say who receives it: --to and --agent, or --card and --manifest")
	}
	return nil
}

// receiver is the key that the next link is for, and writes into n whose it is.
// With a card both are what the receiver signed: "it derives only for a key it
// made itself or one from a card that verifies against the agent's manifest"
// (delegation.md §10).
func (f receiverFlags) receiver(w *world, parent string, n *delegation.Narrow) (agent.PublicKey, error) {
	if f.Card == "" {
		n.ClientID = f.Agent
		return w.readPublicKey(f.To)
	}
	manifest, err := w.readLine(f.Manifest)
	if err != nil {
		return agent.PublicKey{}, err
	}
	m, err := w.verifyManifest(manifest, f.JWKS, f.Issuer)
	if err != nil {
		return agent.PublicKey{}, fmt.Errorf("reading the manifest %s: %w", f.Manifest, err)
	}
	text, err := w.readLine(f.Card)
	if err != nil {
		return agent.PublicKey{}, err
	}
	delegator, err := lastParty(parent)
	if err != nil {
		return agent.PublicKey{}, err
	}
	card, err := agent.VerifyCard(text, m.Key, agent.CardCheck{Agent: m.ID, Audience: delegator, Now: w.now()})
	if err != nil {
		return agent.PublicKey{}, withHint(fmt.Errorf("reading the key card %s: %w", f.Card, err),
			"the receiver makes one for you: kavach agent card --key-file NAME.key.json --audience "+oneLine(delegator))
	}
	n.ClientID, n.Card = m.ID, text
	return card.Key, nil
}

// lastParty is whom the last link of a chain names: the delegator, in whose name
// the card must be made out. It is unverified, like all that the holder of a
// chain reads in it.
func lastParty(chain string) (string, error) {
	parts, err := delegation.Inspect(chain)
	if err != nil {
		return "", fmt.Errorf("reading the chain: %w", err)
	}
	return parts[len(parts)-1].UnverifiedClaims.Get("client_id").Str(), nil
}
