// Package templates holds the pages people see, embedded in the binary.
//
// It guarantees that every page leaves with every security header of
// spec/authorization-server.md §4 ("Every HTML answer: …"), that nothing of a
// page comes from another place than the page itself (style and script are
// inline and carry a nonce made for that one answer), that every value is
// escaped for where it stands, and that every page works without JavaScript.
//
// A page is a value: one of the types below. There is no way to write HTML
// to a person but [Pages.Render].
package templates

import "time"

// A Page is one of the page types of this package.
type Page interface {
	// file names the template that shows the page.
	file() string
	// title is what the browser shows in its tab.
	title() string
}

// Login asks for a name and a password: fields `username`, `password`, and
// hidden `return`, posted to /login.
type Login struct {
	Name    string // fills the name field (login_hint, or what was typed)
	Return  string // local path to go on to; "" is the account page
	Problem string // why the last attempt did not work, in words
	Dev     bool   // the server runs with --dev: says how to sign in
}

// Setup creates the first operator: fields `code`, `username`, `password`,
// `confirm`, posted to /setup.
type Setup struct {
	Name    string // what was typed
	Problem string // why the last attempt did not work, in words
	Rules   string // what a password must be, in words
}

// SessionRow is one browser that is signed in.
type SessionRow struct {
	ID       string    // public id of the session, the value of `session`
	Device   string    // browser family, in words
	Network  string    // where it came from, shortened
	Started  time.Time // when it signed in
	LastSeen time.Time // to the minute
	Current  bool      // this is the browser that asks
}

// Account shows who is signed in, where, and ends sessions: buttons
// `action=end` (with `session`), `action=end_others`, `action=password` (with
// `current`, `password`, `confirm`), posted to /account.
type Account struct {
	Name     string       // who is signed in
	ID       string       // random id, as it stands in the audit log
	Role     string       // member, auditor, operator
	RoleText string       // what the role allows, one sentence
	Sessions []SessionRow // newest first
	Notice   string       // what has just been done, in words
	Problem  string       // what did not work, in words
	Rules    string       // what a password must be, in words
}

// ConsentScope is one tick box: field `scope`.
type ConsentScope struct {
	Name      string // the scope, the value of the field
	Text      string // one sentence for people; "" shows the name alone
	Sensitive bool   // marked as reaching far
	Ticked    bool   // ticked when the page is shown
}

// ConsentResource is one resource with the scopes of it that are asked.
type ConsentResource struct {
	Name       string // display name; "" shows the identifier alone
	Identifier string // the resource indicator (RFC 8707)
	Scopes     []ConsentScope
}

// Consent asks a person to approve a client. Posted to Action: the hidden
// fields `transaction` and `person`, every ticked `scope`, and `decision`, which is
// `approve` or `deny`.
type Consent struct {
	Action      string // where the form goes; "" is /consent
	Transaction string // single-use id of the pending request
	User        string // name of the person who is signed in
	UserID      string // their id: the answer is nobody else's

	ClientName   string // as the client calls itself, never verified
	ClientID     string
	ClientHost   string // host of a client id that is an URL; "" when it is none
	RedirectURI  string // where the person goes on to
	RedirectHost string // its host (with port), or its scheme for a private-use URI
	Loopback     bool   // every redirect URI of the client is on this computer

	Resources []ConsentResource // what the client asks for
	// HandOn holds the scopes of other resources that the client may pass on
	// to agents when kavach:delegate is granted.
	HandOn []ConsentResource
	// Held lists scopes the client has already (step-up shows only what is new).
	Held []ConsentScope

	AccessLifetime time.Duration // of one access token
	GrantLifetime  time.Duration // after which the person is asked again; 0 when there is no refresh

	Problem string // why the last answer was not taken, in words
}

// Continue sends the browser on to the client: by script, by meta refresh
// where there is no script, and by a link that always works. It is the answer
// to a consent POST because `form-action 'self'` also governs the redirects
// of a form.
type Continue struct {
	URL        string // redirect URI with its parameters; must pass [Navigable]
	ClientName string // as the client calls itself
	Host       string // host of the URL, shown to the person
	Denied     bool   // the person said no: the client is told so
}

// Error is any page that says what went wrong.
type Error struct {
	Title   string // what happened, a few words; "" takes one that fits the status
	Message string // what it means, one or two sentences
	Hint    string // what to do now
	Code    string // machine-readable name, e.g. an OAuth error code
	// Retry says how long to wait; > 0 also sends Retry-After.
	Retry time.Duration
	// Link is a local path to go on with, LinkText what it says.
	Link, LinkText string
}

// SignedOut confirms the end of a session, or, with Ask, asks whether to end
// it (posted to /logout).
type SignedOut struct {
	Ask  bool   // still signed in: show the button
	Name string // who is signed in, with Ask
}

func (Login) file() string     { return "login.html" }
func (Setup) file() string     { return "setup.html" }
func (Account) file() string   { return "account.html" }
func (Consent) file() string   { return "consent.html" }
func (Continue) file() string  { return "continue.html" }
func (Error) file() string     { return "error.html" }
func (SignedOut) file() string { return "signedout.html" }

func (Login) title() string    { return "Sign in" }
func (Setup) title() string    { return "Set up" }
func (Account) title() string  { return "Your account" }
func (Consent) title() string  { return "Approve access" }
func (Continue) title() string { return "Continue" }
func (e Error) title() string  { return e.Title }
func (s SignedOut) title() string {
	if s.Ask {
		return "Sign out"
	}
	return "Signed out"
}
