// Package demo is the case study: two agents, a git host, and the story they
// play.
//
// An orchestrator signs in with its own key and hands code-reviewer two tokens
// for pull request #847: one that reads it for 180 seconds, one that writes into
// a single review thread for 60 seconds. A git host that shares nothing with
// kavach but its public keys lets the reviewer do exactly that. Everything else
// is refused where it happens, and stands in the log.
//
// What the package guarantees:
//
//   - Nothing is staged: tokens come from a kavach over HTTP, the git host is
//     reached over TLS, refusals are those of guard, client and delegation.
//   - The story is data ([Story]): every step says what is told, does it, and is
//     compared with what was told. [Run] fails if one turns out otherwise, or if
//     a refusal does not stand in the log with its reason.
//   - The git host asks kavach for nothing while it serves. It fetches the key
//     set and reports what it decided; with kavach stopped it goes on.
//
// The package knows no server: whoever runs the story brings one that implements
// [Kavach]. The git host stands alone, [NewGitHost], and is what
// `kavach serve --dev` starts beside the server.
package demo
