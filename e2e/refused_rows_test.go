package e2e

import (
	"net/http"
	"net/url"
	"strings"
)

// The rows of TestRefused.

const diff, thread = "/pull/847/diff", "/pull/847/thread/3"

func permits(*study) []refusal {
	return []refusal{
		{"nothing: it reads", reading, calls(gitHost + diff), heard{Status: 200}, []record{atHost("pull/847", "", "", 0)}},
		{"nothing: it comments", commenting, posts(gitHost+thread, 1000), heard{Status: 201}, []record{atHost("pull/847/thread/3", "", "", 0)}},
		{"nothing: the same by hand", reading, func(a *attempt) { a.send("GET", diff, "", "DPoP", a.proof("GET", diff)) },
			heard{Status: 200}, []record{atHost("pull/847", "", "", 0)}},
	}
}

func atTheGitHost(*study) []refusal {
	return []refusal{
		{"other scope", reading, posts(gitHost+thread, 9), heard{
			1, "refused: insufficient_scope: the access token does not hold the scope that this needs (status 403 of git.internal)",
			403, "insufficient_scope", `Bearer error="insufficient_scope", scope="comment:write pullrequest:read repository:read", ` + metadata,
		}, []record{atHost("pull/847/thread/3", "scope_not_granted", "scope", 403)}},
		{"other pull request", reading, calls(gitHost + "/pull/848/diff"), heard{
			1, `refused: constraint_violated: resource "pull/848" (status 403 of git.internal)`, 403, "constraint_violated", "",
		}, []record{atHost("pull/848", "constraint_violated", "resources", 403)}},
		{"other thread", commenting, posts(gitHost+"/pull/847/thread/4", 9), heard{
			1, `refused: constraint_violated: resource "pull/847/thread/4" (status 403 of git.internal)`, 403, "constraint_violated", "",
		}, []record{atHost("pull/847/thread/4", "constraint_violated", "resources", 403)}},
	}
}

func inTheRuntime(s *study) []refusal {
	const network, metadataAddress = "refused: constraint_violated (allow_network): ", "169.254.169.254 git.internal files.example\n"
	unmapped := []string{"call", "--token-file", "token.jwt", "--key-file", "reviewer.json", "--report-to", s.Issuer, "--agent-key-file", s.reviewer.KeyFile}
	return []refusal{
		{"other host", reading, calls("http://elsewhere.example/"),
			heard{Exit: 1, Says: network + `host "elsewhere.example:80"`},
			[]record{inRuntime("elsewhere.example:80", "constraint_violated", "allow_network")}},
		{"redirect to another host", reading, func(a *attempt) {
			a.send("GET", "/pull/847/archive", "", "DPoP", a.proof("GET", "/pull/847/archive"))
			a.call(gitHost + "/pull/847/archive")
		}, heard{Exit: 1, Says: network + `host "archives.example:443"`, Status: http.StatusSeeOther}, []record{
			atHost("pull/847", "", "", 0), atHost("pull/847", "", "", 0), inRuntime("archives.example:443", "constraint_violated", "allow_network"),
		}},
		{"the git host's name resolves to a metadata address", reading, func(a *attempt) {
			a.hosts(metadataAddress, append(unmapped, gitHost+"/latest/meta-data/")...)
		}, heard{Exit: 1, Says: network + `host "git.internal:443" is at the link-local address 169.254.169.254`}, []record{inRuntime("git.internal:443", "constraint_violated", "allow_network")}},
		{"an allowed name resolves to a metadata address", link("--scope", "pullrequest:read", "--allow-network", "files.example"), func(a *attempt) {
			a.hosts(metadataAddress, append(unmapped, "http://files.example/latest/meta-data/")...)
		}, heard{Exit: 1, Says: network + `host "files.example:80" is at the link-local address 169.254.169.254`}, []record{inRuntime("files.example:80", "constraint_violated", "allow_network")}},
		{"an allowed name resolves to this machine", link("--scope", "pullrequest:read", "--allow-network", "localhost"), func(a *attempt) {
			a.command(append(unmapped, "http://localhost"+s.canary.port()+"/")...)
		}, heard{Exit: 1, Says: network + `host "localhost` + s.canary.port() + `" is at the loopback address 127.0.0.1`}, []record{inRuntime("localhost"+s.canary.port(), "constraint_violated", "allow_network")}},
		{"body over the size", commenting, posts(gitHost+thread, 2001),
			heard{Exit: 1, Says: "refused: constraint_violated (max_file_size): larger than max_file_size"},
			[]record{inRuntime("git.internal:443", "constraint_violated", "max_file_size")}},
		{"body over the size, unchecked", commenting, func(a *attempt) {
			a.send("POST", thread, strings.Repeat("x", 2001), "DPoP", a.proof("POST", thread))
		}, heard{Status: 403, Code: "constraint_violated"}, []record{atHost("pull/847/thread/3", "constraint_violated", "max_file_size", 403)}},
		{"after expiry", link("--scope", "pullrequest:read", "--ttl", "1s"), func(a *attempt) {
			outlive(a.t, a.token)
			a.call(gitHost + "/pull/847")
			a.send("GET", "/pull/847", "", "DPoP", a.proof("GET", "/pull/847"))
		}, heard{1, "refused: expired (ttl): the credential is over", 401, "invalid_token", noToken}, []record{
			inRuntime("git.internal:443", "expired", "ttl"), atHost(gitHost, "expired", "", 401),
		}},
	}
}

// unproved is the record of a request whose sender did not show the key.
func unproved(reason string) record {
	return record{By: "host", Action: "rs.access", Resource: gitHost, Result: "denied", Reason: reason, Evidence: "asserted",
		Path: "orchestrator > code-reviewer", Status: 401}
}

func withoutTheKey(s *study) []refusal {
	const here = "taking the token token.jwt: the key is not the one that the token is bound to"
	failed := unproved("holder_binding_failed")
	call := func(a *attempt, more ...string) {
		a.command(append([]string{"call", gitHost + diff, "--token-file", "token.jwt", "--cacert", s.ca(), "--resolve", "git.internal=" + s.address}, more...)...)
	}
	return []refusal{
		{"without the key: no proof", reading, func(a *attempt) { call(a); a.send("GET", diff, "", "DPoP", "") },
			heard{1, here, 401, "invalid_dpop_proof", noProof}, []record{failed}},
		{"without the key: as a bearer token", reading, func(a *attempt) { call(a); a.send("GET", diff, "", "Bearer", "") },
			heard{1, here, 401, "invalid_token", noToken}, []record{failed}},
		{"without the key: another one", reading, func(a *attempt) {
			call(a, "--key-file", "git.json")
			a.send("GET", diff, "", "DPoP", s.host.Holder.proof("GET", gitHost+diff, a.token))
		}, heard{1, here, 401, "invalid_dpop_proof", noProof}, []record{failed}},
		{"proof for another URL", reading, func(a *attempt) {
			a.must(a.t, "proof", "proof", "--key-file", "reviewer.json", "--method", "GET", "--url", gitHost+"/pull/847", "--token-file", "token.jwt")
			a.send("GET", diff, "", "DPoP", a.read(a.t, "proof"))
			a.verify("--proof", "proof", "--method", "GET", "--url", gitHost+diff)
		}, heard{1, "refused: holder_binding_failed: the proof does not hold for this token and request, now", 401, "invalid_dpop_proof", noProof}, []record{failed}},
		{"replayed proof", reading, func(a *attempt) {
			a.must(a.t, "proof", "proof", "--key-file", "reviewer.json", "--method", "GET", "--url", gitHost+diff, "--token-file", "token.jwt")
			a.send("GET", diff, "", "DPoP", a.read(a.t, "proof"))
			if a.heard.Status != 200 {
				a.t.Errorf("the first time: %+v", a.heard)
			}
			a.send("GET", diff, "", "DPoP", a.read(a.t, "proof"))
		}, heard{Status: 401, Code: "invalid_dpop_proof", Challenges: noProof}, []record{
			// One proof shows one request: of the second the git host only says so.
			atHost("pull/847", "", "", 0), {By: "host", Action: "rs.access", Resource: "pull/847", Result: "denied", Reason: "replayed",
				Evidence: "asserted", Path: "orchestrator > code-reviewer", Status: 401},
		}},
		{"the parent's token taken from a child", func(a *attempt) string {
			parent := reading(a)
			child := s.reviewer.Holder.link(parent, s.host.Holder, "accomplice")
			return child[:strings.LastIndexByte(child, '~')]
		}, func(a *attempt) {
			call(a, "--key-file", "git.json")
			a.send("GET", diff, "", "DPoP", s.host.Holder.proof("GET", gitHost+diff, a.token))
		}, heard{1, here, 401, "invalid_dpop_proof", noProof}, []record{failed}},
	}
}

// verify is `kavach verify`, which needs the key set and no server.
func (a *attempt) verify(more ...string) {
	a.t.Helper()
	a.keySet(a.t)
	a.command(append([]string{"verify", "token.jwt", "--jwks", "jwks.json", "--issuer", a.Issuer, "--audience", gitHost}, more...)...)
}

// child is one that code-reviewer, or a stranger, makes for the accomplice: the
// git host, which holds git.json.
func child(by func(*study) signingKey, changes ...change) func(*attempt) string {
	return func(a *attempt) string { return by(a.study).link(reading(a), a.host.Holder, "accomplice", changes...) }
}

func reviewers(s *study) signingKey { return s.reviewer.Holder }
func strangers(*study) signingKey   { return newEd25519() }

// useForged shows a chain to everybody: `kavach verify`, and the git host, which
// is sent it by an honest command and then by hand.
func useForged(a *attempt) {
	a.command("call", gitHost+diff, "--token-file", "token.jwt", "--key-file", "git.json", "--cacert", a.ca(), "--resolve", "git.internal="+a.address)
	if a.heard.Exit != 1 || a.heard.Says != "refused: invalid_token: the access token is not valid here (status 401 of git.internal)" {
		a.t.Errorf("call: %+v", a.heard)
	}
	a.send("GET", diff, "", "DPoP", a.host.Holder.proof("GET", gitHost+diff, a.token))
	a.verify()
}

func forged(s *study) []refusal {
	// The log takes from a chain that does not verify nothing but its name.
	alone := func(reason, dimension string) []record {
		return both([]record{{By: "host", Action: "rs.access", Resource: gitHost, Result: "denied", Reason: reason, Dimension: dimension, Evidence: "asserted", Status: 401}})
	}
	isWider := func(dimension string) heard {
		return heard{1, "refused: not_narrower (" + dimension + ")", 401, "invalid_token", noToken}
	}
	wider := func(limits map[string]any) change {
		return set("authorization_details", []any{
			map[string]any{"type": "attenuating_agent_token", "tools": map[string]any{}},
			map[string]any{"type": "kavach_limits", "resources": limits["resources"], "allow_network": limits["allow_network"]},
		})
	}
	derives := func(key string, flags ...string) func(*attempt) {
		return func(a *attempt) {
			a.command(append([]string{"delegate", "--parent", "token.jwt", "--key-file", key, "--to", "git.json.pub", "--agent", "accomplice"}, flags...)...)
		}
	}
	return []refusal{
		{"nothing: a child as it should be", child(reviewers), func(a *attempt) {
			a.send("GET", diff, "", "DPoP", s.host.Holder.proof("GET", gitHost+diff, a.token))
			a.verify()
		}, heard{Status: 200}, []record{func() record {
			r := atHost("pull/847", "", "", 0)
			r.Path += " > accomplice"
			return r
		}()}},
		{"a stranger's key does not derive", reading, derives("git.json", "--scope", "pullrequest:read"),
			heard{Exit: 1, Says: "refused: holder_binding_failed (key): the key is not the one the parent is bound to"}, nil},
		{"a child derived by a stranger's key", child(strangers), useForged,
			heard{1, "refused: signature_invalid", 401, "invalid_token", noToken}, alone("signature_invalid", "")},
		{"a child signed by a stranger's key", child(strangers, func(_, claims map[string]any) {
			claims["iss"] = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:" + s.reviewer.Holder.thumbprint()
		}), useForged, heard{1, "refused: signature_invalid", 401, "invalid_token", noToken}, alone("signature_invalid", "")},
		{"wider in scope is not derived", reading, derives("reviewer.json", "--scope", "comment:write"),
			heard{Exit: 1, Says: "refused: not_narrower (scope)"}, nil},
		{"a child wider in scope", child(reviewers, set("scope", "comment:write pullrequest:read")), useForged, isWider("scope"), alone("not_narrower", "scope")},
		{"a child wider in resources", child(reviewers, wider(map[string]any{"resources": []string{"pull/*"}, "allow_network": []string{"git.internal"}})),
			useForged, isWider("resources"), alone("not_narrower", "resources")},
		{"a child wider in network", child(reviewers, wider(map[string]any{"resources": []string{"pull/847"}, "allow_network": []string{"git.internal", "example.com"}})),
			useForged, isWider("allow_network"), alone("not_narrower", "allow_network")},
		{"a child that outlives its parent", child(reviewers, func(_, claims map[string]any) { claims["exp"] = claims["iat"].(int64) + 600 }),
			useForged, heard{1, "refused: outlives_parent", 401, "invalid_token", noToken}, alone("outlives_parent", "")},
	}
}

// both: the command asked, and somebody by hand.
func both(r []record) []record { return append(r, r...) }

func exchanged(s *study) []refusal {
	atKavach := func(agent, reason, path string) []record {
		return []record{{By: "kavach", Action: "delegate", Result: "denied", Reason: reason, Evidence: "server", Agent: agent, Path: path}}
	}
	const ofLink = "orchestrator > code-reviewer"
	narrower := url.Values{"scope": {"pullrequest:read"}}
	exchange := func(a *attempt, who *agent, holder string) {
		a.command("exchange", "token.jwt", "--issuer", s.Issuer, "--key-file", who.KeyFile, "--holder-file", holder, "--scope", "pullrequest:read")
	}
	return []refusal{
		{"exchange by somebody else's client", reading, func(a *attempt) {
			exchange(a, s.host, "git.json")
			a.exchangeBy(s.host, narrower)
		}, heard{1, "taking the token token.jwt: the key is not the one that the token is bound to", 400, "invalid_request", ""},
			atKavach("host", "holder_binding_failed", ofLink)},
		{"exchange of a plain token by somebody else's client", func(a *attempt) string { return s.plainToken(a.t) }, func(a *attempt) {
			exchange(a, s.host, "git.json")
			a.exchangeBy(s.host, narrower)
		}, heard{1, "exchanging the token: unauthorized_client: subject_token was not issued to this client", 400, "unauthorized_client", ""},
			both(atKavach("host", "not_owner", "robot"))},
		{"redeeming somebody else's handle", func(a *attempt) string {
			return s.orchestrator.signedIn("kavach:delegate pullrequest:read", url.Values{"resource": {s.Issuer + "/mcp", gitHost}}).Access
		}, func(a *attempt) {
			made := s.orchestrator.called(a.token, "delegate", map[string]any{"agent": s.reviewer.ID, "scopes": []string{"pullrequest:read"}, "audience": gitHost})
			handle, _ := made["handle"].(string)
			s.handle = hashed(handle)
			a.write(a.t, "handle", handle)
			a.find = []string{"--agent", s.host.ID, "--action", "token.refuse"}
			a.command("redeem", "handle", "--issuer", s.Issuer, "--key-file", s.host.KeyFile, "--holder-file", "git.json")
			got, err := s.host.ask(s.host.authenticated(url.Values{"grant_type": {exchangeGrant}, "subject_token": {handle}, "subject_token_type": {handleType}}), s.host.proof(""))
			if err != nil {
				a.t.Fatal(err)
			}
			a.heard.Status, a.heard.Code = got.Status, got.Error
		}, heard{1, "redeeming the handle: invalid_request: subject_token is no handle that you can redeem", 400, "invalid_request", ""},
			both([]record{{By: "kavach", Action: "token.refuse", Result: "denied", Reason: "not_owner", Evidence: "server", Agent: "host", Path: "host", Handle: "the handle"}})},
		{"exchange of a revoked link", reading, func(a *attempt) {
			s.orchestrator.called(s.root, "revoke", map[string]any{"chain": a.token})
			exchange(a, s.reviewer, "reviewer.json")
			a.exchangeBy(s.reviewer, narrower)
		}, heard{1, "exchanging the token: invalid_request: the exchange is refused: revoked", 400, "invalid_request", ""},
			both(atKavach("reviewer", "revoked", ofLink))},
	}
}
