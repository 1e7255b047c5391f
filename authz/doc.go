// Package authz is the OAuth 2.1 authorization server: clients, resources,
// consent, grants, tokens, signing keys, agents.
//
// What it guarantees:
//
//   - A token, a code or a yes leaves the process after its record is durable,
//     and what made it true was committed with that record ([Server.Handler],
//     [Server.Delegate]; design D3).
//   - A code is redeemed once and a refresh token rotated once, whatever runs
//     in parallel and on however many processes: the proof is a conditional
//     UPDATE, never a read before it. A failed attempt uses nothing up.
//   - Nobody gets more than the person behind it holds at that moment.
//   - No browser is sent anywhere but to a redirect URI that the client has
//     registered, compared byte for byte, and every response names its issuer.
//   - The database holds nothing that can be presented: codes, refresh tokens,
//     transaction ids and secrets are stored as SHA-256, keys sealed. There is
//     no row per access token; what ends tokens is a row about their grant,
//     link, key or client, which every check of a token looks up.
//   - A failure of the database or the log is a 503, never an invalid_client.
//
// How an authorization goes on its way:
//
//	GET /oauth/authorize   understand → pending row → /login → /consent
//	POST /consent          approve → code row + consent rows + record → client
//	POST /oauth/token      pre-filter → fosite over the flow → one Change → answer
//
// A pre-filter decides about everything that fosite v0.49.0 decides wrongly
// (authorization-server.md §2) before fosite sees the request; fosite's types
// end in fosite.go and fosite_*.go.
package authz
