// Package mcp is kavach's MCP server: one endpoint, ISSUER/mcp, whose tools are
// delegate, verify, audit and revoke.
//
// What the package guarantees:
//
//   - Nothing reaches the MCP library that this package has not read itself,
//     strictly: duplicate members, names in another case and batches are
//     refused, so what was authorised is what is executed.
//   - The order of checks is fixed: size, CORS, Origin, Host, credentials
//     (guard), HTTP method, JSON-RPC and its headers, then scope and limits of
//     this very call against every link of the caller's token.
//   - The authority that delegate hands on is that of the token the request was
//     authorised with. No parameter names a parent.
//   - Every tools/call and every resources/read is recorded, then answered. If
//     it cannot be recorded it is not answered.
//   - No request depends on another: there are no sessions, so any replica
//     serves any request, and no client can reach the answer, the notification
//     or the cancellation of another.
//
// A client of 2026-07-28 (stateless, _meta in every request) and one of
// 2025-11-25 back to 2024-11-05 (initialize first) are served side by side.
//
// Stdio is the other transport, for clients that start a program: it carries
// messages to the endpoint of a running server as a client of it, and decides
// nothing.
//
// Which member is read where:
//
//	POST /mcp   Authorization ─ guard ─ chain ┐
//	            body ─ parseMessage ─ agree ──┴─ authorize ─ mcp-go ─ tool ─ audit ─ answer
package mcp
