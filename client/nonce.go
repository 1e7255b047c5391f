package client

import (
	"net/http"
	"net/url"
	"sync"

	"github.com/kavach-dev/kavach/agent"
)

const (
	proofHeader = "DPoP"
	nonceHeader = "DPoP-Nonce"
	// maxNonces bounds what is remembered; a forgotten nonce costs one round
	// trip.
	maxNonces = 64
	// maxNonce is the longest nonce that is taken.
	maxNonce = 256
)

// nonces remembers the last DPoP-Nonce of each server for each key. Its zero
// value is usable.
type nonces struct {
	mu sync.Mutex // guards m
	m  map[string]string
}

// nonceKey names a server and a key: a nonce may be the key's own.
func nonceKey(target string, key agent.PublicKey) string {
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + " " + key.Thumbprint()
}

func (n *nonces) get(key string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.m[key]
}

// keep takes the nonce of an answer, any answer (RFC 9449 section 8.2: "the
// client MUST use the new nonce").
func (n *nonces) keep(key string, header http.Header) {
	nonce := header.Get(nonceHeader)
	if nonce == "" || len(nonce) > maxNonce {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m == nil || len(n.m) >= maxNonces {
		n.m = map[string]string{}
	}
	n.m[key] = nonce
}
