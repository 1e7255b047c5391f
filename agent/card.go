package agent

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/jcs"
)

// CardType is the typ of a key card.
const CardType = "agent-key+jwt"

// MaxCardLife is the longest life of a key card (delegation.md §10).
const MaxCardLife = 600 * time.Second

// Card is a key card: an agent says to one reader which key it wants
// delegations bound to. It is signed by the agent's identity key, so that a
// delegator learns the key without trusting who relays it.
type Card struct {
	// Agent is the id of the agent that signs.
	Agent string
	// Audience is who reads it: the delegator's agent id, or the issuer of an
	// authorization server.
	Audience string
	// Key is the new delegation key. It is never the identity key.
	Key PublicKey
	// JTI identifies the card. Empty: SignCard takes a random one.
	JTI string
	// IssuedAt and Expires are whole seconds, at most MaxCardLife apart.
	IssuedAt time.Time
	Expires  time.Time
}

// SignCard makes a key card. An empty Agent is the thumbprint of the key, and
// zero Expires MaxCardLife after IssuedAt.
func SignCard(key PrivateKey, card Card) (string, error) {
	if key.IsZero() {
		return "", invalid("key: none")
	}
	if card.Agent == "" {
		card.Agent = key.Public().Thumbprint()
	}
	if card.JTI == "" {
		card.JTI = rand.Text()
	}
	if card.Expires.IsZero() {
		card.Expires = card.IssuedAt.Add(MaxCardLife)
	}
	if err := card.check(key.Public()); err != nil {
		return "", err
	}
	payload, err := jcs.Marshal(map[string]any{
		"iss": card.Agent, "aud": card.Audience, "jwk": card.Key.JWK(), "jti": card.JTI,
		"iat": card.IssuedAt.Unix(), "exp": card.Expires.Unix(),
	})
	if err != nil {
		return "", fmt.Errorf("%w: card: %w", ErrInvalid, err)
	}
	return SignCompact(key, map[string]any{"typ": CardType, "kid": card.Agent}, payload)
}

// CardCheck is what a reader demands of a key card.
type CardCheck struct {
	// Agent is whose card it must be.
	Agent string
	// Audience is who reads it.
	Audience string
	// Now is the time of the check.
	Now time.Time
}

// VerifyCard checks a key card under the agent's identity key, which the reader
// has from the agent's manifest.
func VerifyCard(token string, key PublicKey, check CardCheck) (Card, error) {
	c, err := SplitCompact(token)
	if err != nil {
		return Card{}, err
	}
	payload, err := c.Verify(key, CardType)
	if err != nil {
		return Card{}, err
	}
	v, err := claims(payload)
	if err != nil {
		return Card{}, err
	}
	card, err := readCard(v)
	if err != nil {
		return Card{}, err
	}
	if err := card.check(key); err != nil {
		return Card{}, err
	}
	kid := c.UnverifiedHeader.Get("kid")
	switch now := check.Now.Unix(); {
	case check.Agent == "" || card.Agent != check.Agent || kid.Kind() != jcs.String || kid.Str() != card.Agent:
		return Card{}, invalid("card: of another agent")
	case check.Audience == "" || card.Audience != check.Audience:
		return Card{}, invalid("card: for somebody else")
	case card.IssuedAt.Unix() > now+skewSeconds:
		return Card{}, invalid("card: not yet valid")
	case card.Expires.Unix() <= now:
		return Card{}, invalid("card: expired")
	}
	return card, nil
}

func readCard(v jcs.Value) (Card, error) {
	var card Card
	for _, member := range []struct {
		name string
		into *string
	}{{"iss", &card.Agent}, {"aud", &card.Audience}, {"jti", &card.JTI}} {
		s := v.Get(member.name)
		if s.Kind() != jcs.String {
			return Card{}, invalid("card: %s is not a string", member.name)
		}
		*member.into = s.Str()
	}
	var err error
	if card.Key, err = ParsePublicKey(v.Get("jwk")); err != nil {
		return Card{}, fmt.Errorf("card: %w", err)
	}
	iat, err := seconds(v, "iat")
	if err != nil {
		return Card{}, fmt.Errorf("card: %w", err)
	}
	exp, err := seconds(v, "exp")
	if err != nil {
		return Card{}, fmt.Errorf("card: %w", err)
	}
	if v.Get("nbf").Exists() {
		return Card{}, invalid("card: nbf has no place in it")
	}
	card.IssuedAt, card.Expires = time.Unix(iat, 0), time.Unix(exp, 0)
	return card, nil
}

// check holds for making and for verifying alike.
func (card Card) check(identity PublicKey) error {
	switch life := card.Expires.Unix() - card.IssuedAt.Unix(); {
	case !IsID(card.Agent):
		return invalid("card: iss is not an agent id")
	case !printable(card.Audience, maxText):
		return invalid("card: aud is missing")
	case !printable(card.JTI, maxJTI):
		return invalid("card: jti is not 1 to %d printable characters", maxJTI)
	case card.Key.IsZero():
		return invalid("card: no key")
	case card.Key == identity:
		// delegation.md §7: "the identity key signs manifests, cards and
		// assertions only".
		return invalid("card: the identity key is no delegation key")
	case card.IssuedAt.Unix() < 0 || life <= 0:
		return invalid("card: exp must be after iat")
	case life > int64(MaxCardLife/time.Second):
		return invalid("card: lives longer than %v", MaxCardLife)
	}
	return nil
}

// UnverifiedCardAgent returns whose card a token claims to be, so that a reader
// can find the key to verify it with.
func UnverifiedCardAgent(token string) (string, error) {
	c, err := SplitCompact(token)
	if err != nil {
		return "", err
	}
	if err := c.checkTyp([]string{CardType}); err != nil {
		return "", err
	}
	v, err := claims(c.UnverifiedPayload)
	if err != nil {
		return "", err
	}
	if id := v.Get("iss").Str(); IsID(id) {
		return id, nil
	}
	return "", invalid("card: iss is not an agent id")
}
