package demo

import (
	"context"
	"net/http"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// Place is where a step is decided.
type Place string

const (
	// AtKavach: the authorization server decides, and writes it down.
	AtKavach Place = "kavach"
	// AtGitHost: the git host decides with the key set alone, and reports it.
	AtGitHost Place = "git host"
	// AtRuntime: client.Transport decides, in the agent's own process and
	// before a byte leaves, and reports it.
	AtRuntime Place = "runtime"
	// Offline: a key is enough. Nobody is asked, so there is no record either.
	Offline Place = "offline"
)

// Want is what is told of a step: how it has to come out.
type Want struct {
	Where Place `json:"where"`
	// Status is that of the answer; 0: nothing was sent.
	Status int `json:"status,omitempty"`
	// Challenge is the scheme of the WWW-Authenticate header that speaks, Error
	// the code there or, without a challenge, in the body.
	Challenge string `json:"challenge,omitempty"`
	Error     string `json:"error,omitempty"`
	// Reason is why it is refused: what the log must hold. "": it is permitted.
	Reason delegation.Reason `json:"reason,omitempty"`
	// About is what the record is about: the path below the git host, the
	// destination that the runtime refused, or the action at kavach.
	About string `json:"about,omitempty"`
}

// Step is one step of the story.
type Step struct {
	// Name is its short name, for machines.
	Name string
	// Told is the sentence a person reads.
	Told string
	Want Want

	run func(context.Context, *stage) (Outcome, error)
}

// Act is a part of the story.
type Act struct {
	Title string
	Steps []Step
}

// The lives that the story tells.
const (
	readLife    = 180 * time.Second
	commentLife = 60 * time.Second
	// shortLife is that of the token that is watched expiring: times are whole
	// seconds, so between two and three are left of it.
	shortLife = 3 * time.Second
	// commentSize is the max_file_size of the token that writes, in bytes.
	commentSize = 2000
	// hops is how many links are derived while the server is stopped.
	hops = 5
)

// The pull request and the review thread that the story is about, and others
// beside them.
const (
	thePull     = 847
	theThread   = 3
	otherPull   = 848
	otherThread = 4
)

// What a step looks like from outside, by where and why. A git host that does
// not accept a token names no more than itself in its report.

func permitted(status int, about string) Want {
	return Want{Where: AtGitHost, Status: status, About: about}
}

func issued(action string) Want { return Want{Where: AtKavach, Status: http.StatusOK, About: action} }

func noScope(about string) Want {
	return Want{AtGitHost, http.StatusForbidden, "Bearer", "insufficient_scope", delegation.ScopeNotGranted, about}
}

func notAllowed(about string) Want {
	return Want{AtGitHost, http.StatusForbidden, "", "constraint_violated", delegation.ConstraintViolated, about}
}

func noProof(reason delegation.Reason, about string) Want {
	return Want{AtGitHost, http.StatusUnauthorized, "DPoP", "invalid_dpop_proof", reason, about}
}

// noToken: "one text for all"; only the log says which step refused.
func noToken(reason delegation.Reason) Want {
	return Want{AtGitHost, http.StatusUnauthorized, "Bearer", "invalid_token", reason, ""}
}

// outside: nothing was sent.
func outside(destination string) Want {
	return Want{AtRuntime, 0, "", "", delegation.ConstraintViolated, destination}
}

// noExchange: RFC 8693 section 2.2.2 has invalid_request for a subject token
// that is not acceptable.
func noExchange(reason delegation.Reason) Want {
	return Want{AtKavach, http.StatusBadRequest, "", "invalid_request", reason, "delegate"}
}

// Story returns the story: every step, what is told of it, and how it has to
// come out.
func Story() []Act {
	pull, thread := PullID(thePull), ThreadID(thePull, theThread)
	return []Act{
		{"Two agents, each with a key of its own", []Step{
			{"sign-in", "orchestrator signs in with its own key; the token is bound to a holder key", issued("token.issue"), signIn},
			{"key-card", "code-reviewer makes a holder key and signs a key card; orchestrator checks it against the manifest",
				Want{Where: Offline}, keyCard},
		}},
		{"Two tokens for pull request #847", []Step{
			{"delegate", "online: MCP delegate, repository:read pullrequest:read, 180 s, only git.internal, only #847",
				issued("delegate"), delegateOnline},
			{"derive", "offline: a link for the key of the card, comment:write, 60 s, only review thread 3",
				Want{Where: Offline}, deriveOffline},
		}},
		{"The git host lets code-reviewer do exactly that", []Step{
			{"read-pull", "read the pull request", permitted(http.StatusOK, pull), with(reading, "GET", pull, "")},
			{"read-diff", "read the diff", permitted(http.StatusOK, pull), with(reading, "GET", pull+"/diff", "")},
			{"comment", "comment in review thread 3 with the second token", permitted(http.StatusCreated, thread),
				with(commenting, "POST", thread, "p.idle is read without the lock here.")},
			{"exchange", "narrow the first token for oneself: token exchange, pullrequest:read alone", issued("delegate"), exchangeOwn},
		}},
		{"Everything else is refused, where it happens", refusals()},
		{"Kavach is stopped", []Step{
			{"stop", "kavach stops; the git host keeps the public keys it has", Want{Where: Offline}, stopKavach},
			{"read-stopped", "read the diff", permitted(http.StatusOK, pull), with(reading, "GET", pull+"/diff", "")},
			{"five-hops", "five more agents, each derived from the one before, offline; the fifth reads the pull request",
				permitted(http.StatusOK, pull), fiveHops},
			{"refused-stopped", "and what was refused before still is: another pull request", notAllowed(PullID(otherPull)),
				with(reading, "GET", PullID(otherPull)+"/diff", "")},
			{"start", "kavach starts again; what the git host has to report was waiting", Want{Where: Offline}, startKavach},
		}},
		{"Time passes", []Step{
			{"short", "a token of 3 s, made for this step so that nobody waits a minute: it works", permitted(http.StatusOK, pull), shortLived},
			{"expired", "three seconds later it does not", noToken(delegation.Expired), expired},
		}},
	}
}

func refusals() []Step {
	pull, thread, holder := PullID(thePull), ThreadID(thePull, theThread), delegation.HolderBindingFailed
	return []Step{
		{"write", "a write with the first token", noScope(thread), with(reading, "POST", thread, "Looks good.")},
		{"merge", "a merge with the second token", noScope(pull), with(commenting, "POST", pull+"/merge", "")},
		{"other-pull", "another pull request", notAllowed(PullID(otherPull)), with(reading, "GET", PullID(otherPull)+"/diff", "")},
		{"other-thread", "another review thread of the same pull request", notAllowed(ThreadID(thePull, otherThread)),
			with(commenting, "POST", ThreadID(thePull, otherThread), "Here too.")},
		{"other-host", "another host: no connection is opened", outside("example.com:443"), with(reading, "GET", "https://example.com/upload", "")},
		{"redirect", "the git host redirects to another host: the redirect is not followed", outside("archives.example:443"),
			with(reading, "GET", pull+"/archive", "")},
		{"metadata", "git.internal, port 80, resolves to 169.254.169.254: no connection is opened", outside(Host + ":80"),
			with(reading, "GET", "http://"+Host+"/latest/meta-data/", "")},
		{"size", "a comment of 5000 bytes, where 2000 are allowed: no byte leaves", outside(Host + ":443"), tooLong},
		{"size-unchecked", "the same from a runtime that does not check: the git host does", notAllowed(thread), tooLongUnchecked},
		{"stolen", "a stolen token, with a proof by another key", noProof(holder, ""), stolen},
		{"no-proof", "a stolen token without a proof", noProof(holder, ""), withoutProof},
		{"bearer", "a stolen token as a bearer token", noToken(holder), asBearer},
		{"other-url", "a proof made for another URL", noProof(holder, ""), proofForOther},
		{"replay", "a proof that was used before", noProof(delegation.Replayed, pull), replayed},
		{"wider", "a child with a scope that its parent does not hold", noToken(delegation.NotNarrower), widerChild},
		{"stranger", "a child signed by a stranger's key", noToken(delegation.SignatureInvalid), strangersChild},
		{"parent", "the parent's token, cut out of the child's", noProof(holder, ""), parentsToken},
		{"exchange-other", "token exchange by somebody else's client", noExchange(holder), exchangeByOther},
		{"exchange-revoked", "token exchange of a token that orchestrator revoked", noExchange(delegation.Revoked), exchangeRevoked},
	}
}
