// Package api is the JSON API of kavach, mounted at ISSUER/api/v1.
//
// What the package guarantees:
//
//   - A call is authorised by a token for ISSUER/api and by nothing else:
//     cookies are ignored, and no page may call it (no CORS). The one exception
//     is POST /api/v1/agents with an enrolment token in the body.
//   - Bodies are strict JSON of at most 64 KiB (reports: 2 MiB); an unknown or
//     repeated member is refused.
//   - Everybody sees agents and audit entries of their own subtree; operators
//     and holders of audit:read see all. What a caller may not see and what is
//     not there look the same.
//   - Every call is recorded, then answered.
//   - Who reports is who the token was issued to, on its own authentication;
//     what an entry is evidence of, and who acted, is found out here. Chains and
//     proofs that reporters send are used and dropped.
//
// Errors are {"error", "error_description"}.
//
//	POST /api/v1/agents                register an agent
//	GET  /api/v1/agents                list agents      ?after=&limit=
//	GET  /api/v1/agents/{id}           one agent, by id or by name
//	GET  /api/v1/audit/entries         find entries     ?agent=&action=&result=&resource=&sub=&grant=&lid=
//	                                                    &since=&until=&q=&order=&cursor=&limit=
//	GET  /api/v1/audit/entries/{id}    one entry
//	POST /api/v1/audit/entries         report entries, up to 500
package api
