package agent

import (
	"github.com/kavach-dev/kavach/jcs"
)

// agentMember is the member of a key file that says whose key it is, where the
// key does not say so itself.
const agentMember = "agent"

// MarshalIdentity is MarshalJWK for the key of an agent that has had another
// one: its id is no thumbprint of this key, so the member agent holds it.
func (k PrivateKey) MarshalIdentity(id string) ([]byte, error) {
	text, err := k.MarshalJWK()
	if err != nil || id == k.public.Thumbprint() {
		return text, err
	}
	if !IsID(id) {
		return nil, invalid("key: %s is not an agent id", agentMember)
	}
	v, err := jcs.Parse(text, jcs.Limits{})
	if err != nil {
		return nil, err
	}
	members := map[string]any{agentMember: id}
	for name, member := range v.Fields() {
		members[name] = member.Str()
	}
	return jcs.Marshal(members)
}

// ParseIdentity is ParsePrivateKey for a key file of an agent. It also returns
// the agent's id: the member agent, or else the thumbprint of the key.
func ParseIdentity(jwk []byte) (PrivateKey, string, error) {
	key, err := ParsePrivateKey(jwk)
	if err != nil {
		return PrivateKey{}, "", err
	}
	v, err := jcs.Parse(jwk, jcs.Limits{Bytes: MaxToken})
	if err != nil {
		return PrivateKey{}, "", err
	}
	member := v.Get(agentMember)
	if !member.Exists() {
		return key, key.public.Thumbprint(), nil
	}
	if !IsID(member.Str()) {
		return PrivateKey{}, "", invalid("key: %s is not an agent id", agentMember)
	}
	return key, member.Str(), nil
}
