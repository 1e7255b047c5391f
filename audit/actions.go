package audit

import (
	"regexp"
	"strings"
)

// The closed list of actions (docs list them with their detail). Adding one is
// adding a line here; an action that is not here does not get into the log.
const (
	TokenIssue      = "token.issue"
	TokenRefresh    = "token.refresh"
	TokenRefuse     = "token.refuse"
	TokenIntrospect = "token.introspect"
	AuthorizeRefuse = "authorize.refuse"
	// Delegate is exchange and MCP; detail "via" says which.
	Delegate = "delegate"
	Verified = "verify"
	Revoke   = "revoke"
	// RevokeLift takes back the revocation of a key or a client.
	RevokeLift = "revoke.lift"
	RevokeRead = "revoke.read"

	ConsentGrant    = "consent.grant"
	ConsentDeny     = "consent.deny"
	ConsentWithdraw = "consent.withdraw"

	Login        = "login"
	LoginFail    = "login.fail"
	SessionStart = "session.start"
	SessionEnd   = "session.end"
	SetupDone    = "setup"

	AuditRead    = "audit.read"
	AuditSeal    = "audit.seal"
	AuditRestart = "audit.restart"
	AuditSummary = "audit.summary"
	AuditExport  = "audit.export"
	// AuditRefuse is a report to the log that was not taken.
	AuditRefuse = "audit.refuse"

	AgentCreate   = "agent.create"
	AgentEnrol    = "agent.enrol"
	AgentRegister = "agent.register"
	AgentUpdate   = "agent.update"
	AgentGrant    = "agent.grant"
	AgentSuspend  = "agent.suspend"
	AgentResume   = "agent.resume"
	AgentRead     = "agent.read"
	AgentRefuse   = "agent.refuse"

	ClientRegister = "client.register"
	ClientAdd      = "client.add"
	ClientUpdate   = "client.update"
	ClientRemove   = "client.remove"
	ClientRefuse   = "client.refuse"

	ResourceAdd    = "resource.add"
	ResourceUpdate = "resource.update"
	ResourceRemove = "resource.remove"
	ResourceRead   = "resource.read"

	UserAdd      = "user.add"
	UserUpdate   = "user.update"
	UserPassword = "user.password"
	UserRemove   = "user.remove"

	KeyCreate = "key.create"
	KeyRotate = "key.rotate"
	// KeyRetire: a key that signed is replaced at once, and goes on verifying.
	KeyRetire = "key.retire"
	// KeyRevoke: nothing that a key signed is accepted any more.
	KeyRevoke = "key.revoke"
	// KeyReseal: the deployment secret was changed.
	KeyReseal = "key.reseal"
	// KeyRemove: a key that ended was deleted.
	KeyRemove = "key.remove"

	ApprovalRequest = "approval.request"
	ApprovalGrant   = "approval.grant"
	ApprovalDeny    = "approval.deny"

	ConfigUpdate = "config.update"

	// StoreMove closes a database whose deployment moves to another; StoreStay
	// opens it again, because the move was given up.
	StoreMove    = "store.move"
	StoreStay    = "store.stay"
	StoreRestore = "store.restore"
)

// ReporterPrefix begins every action a reporter may use.
const ReporterPrefix = "rs."

var actions = map[string]bool{
	TokenIssue: true, TokenRefresh: true, TokenRefuse: true, TokenIntrospect: true,
	AuthorizeRefuse: true, Delegate: true, Verified: true, Revoke: true, RevokeLift: true, RevokeRead: true,
	ConsentGrant: true, ConsentDeny: true, ConsentWithdraw: true,
	Login: true, LoginFail: true, SessionStart: true, SessionEnd: true, SetupDone: true,
	AuditRead: true, AuditSeal: true, AuditRestart: true, AuditSummary: true, AuditExport: true, AuditRefuse: true,
	AgentCreate: true, AgentEnrol: true, AgentRegister: true, AgentUpdate: true, AgentGrant: true,
	AgentSuspend: true, AgentResume: true, AgentRead: true, AgentRefuse: true,
	ClientRegister: true, ClientAdd: true, ClientUpdate: true, ClientRemove: true, ClientRefuse: true,
	ResourceAdd: true, ResourceUpdate: true, ResourceRemove: true, ResourceRead: true,
	UserAdd: true, UserUpdate: true, UserPassword: true, UserRemove: true,
	KeyCreate: true, KeyRotate: true, KeyRetire: true, KeyRevoke: true, KeyReseal: true, KeyRemove: true,
	ApprovalRequest: true, ApprovalGrant: true, ApprovalDeny: true,
	ConfigUpdate: true,
	StoreMove:    true, StoreStay: true, StoreRestore: true,
}

// reporterAction is the grammar of what follows ReporterPrefix: words of lower
// case letters, digits, "_" and "-", separated by single dots.
var reporterAction = regexp.MustCompile(`^[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)*$`)

// KnownAction reports whether a may stand in a record.
func KnownAction(a string) bool {
	if actions[a] {
		return true
	}
	verb, ok := strings.CutPrefix(a, ReporterPrefix)
	return ok && len(verb) <= 60 && reporterAction.MatchString(verb)
}
