// Package client is what an agent's program holds in its hand: it signs in and
// stays signed in, hands narrower tokens on, calls with proof, and stays inside
// the constraints of its own token.
//
// What the package guarantees:
//
//   - The identity key signs assertions and key cards and nothing else. Tokens
//     are bound to a holder key, made for the session unless one is given.
//   - A token and its proof are sent to the origin of an audience of the token,
//     and nowhere else: not after a redirect, not in an error, not in a report.
//     A proof or a token that was refused is never followed by a request without
//     one.
//   - A Transport opens a connection only where every link of the token lets it
//     (allow_network), to exactly the address that was checked. What it refuses,
//     it refuses before a byte leaves, and reports.
//   - A body, in either direction, never exceeds the max_file_size of any link.
//     One of known length is refused whole; one of unknown length is cut.
//   - Nothing is verified here: the holder reads its own token in order to keep
//     to it. Whether the token holds is for the server it is shown to.
//   - HTTP proxies of the environment are not used, and the clock is passed in.
//     There is no goroutine beside those of net/http for connections in use; only
//     an Egress has one that accepts, and one more for each tunnel, which end
//     with Serve.
//
// # An agent
//
//	a, err := client.New(client.Config{Issuer: issuer, Key: identity})
//	session := a.Stay(client.Ask{Scopes: []string{"repository:read"}, Resources: []string{"https://git.internal"}})
//	http := &http.Client{Transport: &client.Transport{Source: session}}
//
// An agent that was handed a chain makes its Credential with Hold.
//
// The session signs in again before its token expires, and also when an audience
// answers 401 with error="invalid_token", for a token that was revoked or signed
// by a key that is gone. The Transport then sends the request once more with the
// new token, judged by that and with a proof of its own, if its body can be had
// again (GetBody). A second 401 is the answer; that there is no new token is an
// error that says why. Requests that are refused together sign in once. A
// Credential is not renewed; see Renewer for a Source of one's own.
//
// # What a request meets
//
// A request whose origin (scheme, host, port) is that of an audience of the
// last token goes there with token and proof and needs no entry in
// allow_network. Every other request carries neither and must match
// allow_network of every link. In both cases the host must be written in its one
// canonical form (lower case is made of upper case; Unicode, a trailing dot and
// user information are refused), and its addresses are checked after resolution:
// unspecified, multicast, link-local and loopback ones are refused unless the
// Transport's own configuration names them; an audience that is itself written
// as a loopback address or localhost names it, too. http.Client follows a
// redirect by calling RoundTrip again, so every hop is judged like a first
// request and gets its own proof.
//
// The proof is a DPoP proof over method, URL and token. For a request that calls
// a tool (WithCall) it is an AAT proof over the call, and with Transport.MCP a
// chain that is too long for a header travels with such a proof in the message.
package client
