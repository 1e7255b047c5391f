// Package delegation says what an agent may do: it issues, derives and verifies
// chains of signed grants without any server state.
//
// What the package guarantees:
//
//   - Verify reads no claim before the signature over it held, and refuses at
//     the first failure, in a fixed order, with a fixed name (Reason).
//   - A Chain comes out of Verify and from nowhere else. Chain.Allows is a
//     second, pure question: it asks every link, not only the last one, so a
//     mistake in comparing two links cannot widen authority.
//   - An UnverifiedGrant, what a holder reads of its own token, can only refuse.
//   - A dimension that a link restricts and a request does not speak about is
//     refused. What a request leaves out never counts as allowed.
//   - Derive and Exchange only narrow. Derive works offline with the holder's
//     key; Exchange computes the claims of a new root for the server to sign.
//   - AATStrict is a verifier apart, of the pure draft with its own order of
//     steps, for chains of others. It shares constraints and nothing else with
//     Verifier, and knows no scope, limit, principal or revocation.
//   - No I/O, no clock, no goroutine, no log: callers pass now.
//
// # The token
//
//	root~link~…~leaf              at most 9 compact JWTs joined by "~"
//	root  typ at+jwt (aat+jwt for AAT-only verifiers), signed by the server, kid selects the anchor
//	link  typ aat+jwt, signed by the key in the cnf.jwk of the part before it
//
// One part without del_depth is a plain RFC 9068 access token. One part with
// it is a root, whose holder can append links. The chain layer is that of
// draft-niyikiza-oauth-attenuating-agent-tokens-02.
//
// Outside the token a part is identified by its lid, the SHA-256 of its JWS
// signing input, and by nothing else: a jti is chosen by whoever signs.
//
// # Where the specification leaves a choice
//
//   - aud is a string or an array of distinct strings.
//   - Printable ASCII is 0x20 to 0x7e. An integer is never written "-0".
//   - A missing kid, or one of another grammar or purpose, is unknown_root. A
//     missing del_depth or del_max_depth of a chain is depth_invalid.
//   - "*" stands in a resource only as the last segment of a prefix, and an
//     IPv4 address is never written as an IPv6 one: both would have a second
//     reading.
//   - A name whose last label is a number is refused, as URLs do.
//   - What is malformed anywhere in the constraints of a token is malformed,
//     also beside an unknown type. "64 array items" holds for every array in a
//     constraint, at any nesting, and "strings 1024 B" for every string and
//     every name of a member.
//   - A call whose arguments nobody gave is unhandled for a tool that restricts
//     them; one without arguments says an empty object.
//   - A list of a constraint is a set: what this package writes is sorted and
//     without repetition.
//   - A plain token made by Exchange carries "hops", how many more hand-overs
//     it allows. Without it exchanging a sealed chain would start again at the
//     depth of its grant. Nobody but the issuer reads it.
package delegation

import "time"

// Revision names the draft whose chain layer this package is wire-compatible
// with.
const Revision = "draft-niyikiza-oauth-attenuating-agent-tokens-02"

// Sizes and times of delegation.md §1.
const (
	// MaxLinks is the number of tokens in a chain, the root included.
	MaxLinks = 9
	// MaxDepth is the deepest del_depth and the largest del_max_depth.
	MaxDepth = 8
	// DefaultMaxDepth is the depth a grant gives unless it says otherwise.
	DefaultMaxDepth = 3
	// MaxToken is the size of one compact JWT in bytes.
	MaxToken = 8192
	// MaxChainHeader is the size of a chain in an Authorization header.
	MaxChainHeader = 7168
	// MaxChainBody is the size of a chain in a body or in MCP _meta, and so
	// the largest that Verify looks at.
	MaxChainBody = 57344
	// MaxAudience is the number of resources a root may name.
	MaxAudience = 8
	// MaxAncestry is the number of ids in anc.
	MaxAncestry = 32
	// MaxTools is the number of tools in one token.
	MaxTools = 64

	// IatSkew is how far in the future iat and nbf may lie. There is no
	// leeway for exp.
	IatSkew = 30 * time.Second
	// DefaultRootTTL and MaxRootTTL bound tokens signed by the server. The
	// maximum is checked by Verify.
	DefaultRootTTL = 300 * time.Second
	MaxRootTTL     = 3600 * time.Second
	// DefaultLinkTTL, MaxLinkTTL and MinLinkTTL bound what Derive makes; a
	// verifier does not check them.
	DefaultLinkTTL = 120 * time.Second
	MaxLinkTTL     = 900 * time.Second
	MinLinkTTL     = time.Second
)

// Algorithms (RFC 7518, RFC 9864). The list is closed: "none" and HMAC cannot
// be written down, and "EdDSA" is refused.
const (
	Ed25519 = "Ed25519"
	ES256   = "ES256"
	RS256   = "RS256"
)

// Types of the JWTs in a chain, byte-exact.
const (
	TypeAccessToken = "at+jwt"
	TypeLink        = "aat+jwt"
)
