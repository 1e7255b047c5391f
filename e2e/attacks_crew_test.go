package e2e

import (
	"bytes"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAttacksOnAgents goes on where TestAttacks ends: what is sent to token
// exchange, to handles, to the tools of /mcp and to everybody who verifies
// chains offline. The rows mean the same besides.
func TestAttacksOnAgents(t *testing.T) {
	c := newCrew(t)
	for _, section := range [][]crewRow{
		tokenEndpointAttacks, exchangeAttacks, wideningAttacks, spliceAttacks, heldKeyAttacks, manifestAttacks, bindingAttacks, boundPageAttacks, toolAttacks, sqlAttacks, handleAttacks, handOnAttacks,
	} {
		for _, row := range section {
			t.Run(row.name, func(t *testing.T) {
				answered, recorded := c.counted(t)
				row.run(t, c)
				c.healthy(t)
				c.wantRecorded(t, answered, recorded)
			})
		}
	}
	t.Run("A-94 secrets of agents stay out of log, metrics and database", c.agentSecretsStayOut)
	if out := c.cli("", "audit", "verify"); !strings.Contains(out, "intact") {
		t.Errorf("the log: %s", out)
	}
}

// crewRow is one row of the list.
type crewRow struct {
	name string
	run  func(*testing.T, *crew)
}

// crew is the server under attack with agents at work.
type crew struct {
	*attack
	orch     *agent // archive:read, archive:write and both of kavach's own; may delegate
	rev      *agent // all that but archive:write; may delegate
	hand     *agent // scopes as rev, but without the capability
	brief    *agent // its manifest ends soon
	stranger *agent // as orch, and of another person
	mallory  tokens // that person's, through a client of hers
	root     string // of orch, for /mcp and the archive, four levels deep
	keys     string // the file with the server's public keys
}

const (
	archive = "https://archive.example/api"
	wiki    = "https://wiki.example/api"
)

func newCrew(t *testing.T) *crew {
	c := &crew{attack: newAttack(t)}
	c.cli("", "resource", "add", archive, "--scope", "archive:read=Read", "--scope", "archive:write=Write", "--kavach-aware")
	c.cli("", "resource", "add", wiki, "--scope", "wiki:read=Read", "--introspector", c.static.ID)
	c.cli("correct horse battery", "user", "add", "mallory", "--password-file", "-")
	const less = "kavach:delegate kavach:verify kavach:audit archive:read"
	c.orch = c.newAgentWith(t, newEd25519(), "orch", less+" archive:write", "delegate")
	c.rev = c.newAgentWith(t, newEd25519(), "rev", less, "delegate")
	c.hand = c.newAgentWith(t, newES256(), "hand", less)
	c.stranger = c.enrolled(t, newEd25519(), "stranger", "mallory", less+" archive:write")
	c.brief = c.enrolled(t, newEd25519(), "brief", "dev", less, set("exp", time.Now().Unix()+12))
	c.mallory = register(t, c.Issuer).signIn(newPerson(t, "mallory", "correct horse battery"), "kavach:verify kavach:delegate kavach:audit", choice{})
	c.root = c.orch.signedIn("", url.Values{"resource": {c.Issuer + "/mcp", archive}, "del_max_depth": {"3"}}).Access
	c.secrets = append(c.secrets, c.root, c.mallory.Access, c.mallory.Refresh)
	var set map[string]any
	getJSON(t, c.Issuer+"/.well-known/jwks.json", &set)
	c.keys = filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(c.keys, []byte(encode(set)), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// enrolled is newAgentWith for another owner and another manifest.
func (c *crew) enrolled(t *testing.T, key signingKey, name, owner, scopes string, changes ...change) *agent {
	t.Helper()
	dir := t.TempDir()
	part := strings.Split(key.manifest(name, scopes, "delegate"), ".")
	header, claims := decodePart(part[0]), decodePart(part[1])
	for file, text := range map[string]string{name + ".key.json": encode(key.private()), name + ".manifest.jwt": key.changed(header, claims, changes)} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := c.server.agent(t, dir, name)
	c.enrol(t, a, owner)
	c.cli("", "agent", "grant", a.ID, "--scope", scopes)
	return a
}

// holding is the same agent with another holder key.
func (a *agent) holding(k signingKey) *agent {
	b := *a
	b.Holder = k
	return &b
}

// grants sends a form to the token endpoint, as an agent that authenticates and
// proves its holder key; nobody does neither. pairs are further parameters.
func (c *crew) grants(t *testing.T, who *agent, values url.Values) reply {
	t.Helper()
	if who == nil {
		return c.form(t, "/oauth/token", values.Encode())
	}
	return c.form(t, "/oauth/token", who.authenticated(values).Encode(), "DPoP", who.proof(""))
}

// exchanged are the parameters of an exchange.
func exchangedWith(subject string, pairs ...string) url.Values {
	values := url.Values{"grant_type": {exchangeGrant}, "subject_token": {subject}, "subject_token_type": {accessType}}
	for i := 0; i < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	return values
}

// trade is an exchange by an agent.
func (c *crew) trade(t *testing.T, who *agent, subject string, pairs ...string) reply {
	t.Helper()
	return c.grants(t, who, exchangedWith(subject, pairs...))
}

// traded is trade that must succeed.
func (c *crew) traded(t *testing.T, who *agent, subject string, pairs ...string) string {
	t.Helper()
	got := c.trade(t, who, subject, pairs...)
	token, _ := got.json(t)["access_token"].(string)
	if got.status != http.StatusOK || token == "" {
		t.Fatalf("exchange: %d %s", got.status, got.body)
	}
	c.secrets = append(c.secrets, token)
	return token
}

// tool calls a tool of /mcp with a bound token, by its holder.
func (c *crew) tool(t *testing.T, who *agent, token, tool string, arguments any) reply {
	t.Helper()
	return c.rpc(t, tool, encode(arguments), "Authorization", "DPoP "+token, "DPoP", who.Holder.proof("POST", c.Issuer+"/mcp", token))
}

// shows sends a token to /mcp, by its holder, for the tool that needs least.
func (c *crew) shows(t *testing.T, who *agent, token string) reply {
	t.Helper()
	return c.tool(t, who, token, "verify", map[string]any{"token": "x"})
}

// wantTool: the tool refuses, and says why.
func wantTool(t *testing.T, what string, got reply, reasons ...string) {
	t.Helper()
	var answer struct {
		Result struct {
			IsError bool
			Content []struct{ Text string }
		}
	}
	decode(t, got.body, &answer)
	said := ""
	if len(answer.Result.Content) > 0 {
		said = answer.Result.Content[0].Text
	}
	if got.status != http.StatusOK || !answer.Result.IsError || !slices.ContainsFunc(reasons, func(r string) bool { return strings.Contains(said, r) }) {
		t.Errorf("%s: %d %s, want %v", what, got.status, got.body, reasons)
	}
}

// content is what a tool answered; it must have succeeded.
func content(t *testing.T, got reply) map[string]any {
	t.Helper()
	var answer struct {
		Result struct {
			IsError           bool
			StructuredContent map[string]any
		}
	}
	decode(t, got.body, &answer)
	if got.status != http.StatusOK || answer.Result.IsError || answer.Result.StructuredContent == nil {
		t.Fatalf("%d %s", got.status, got.body)
	}
	return answer.Result.StructuredContent
}

// wantProof: 401 of a protected resource to who did not show the key.
func wantProof(t *testing.T, what string, got reply) {
	t.Helper()
	if got.status != http.StatusUnauthorized || challenged(got.header) != "invalid_dpop_proof" && challenged(got.header) != "invalid_token" {
		t.Errorf("%s: %d %v %s", what, got.status, got.header.Values("WWW-Authenticate"), got.body)
	}
}

// verdict is that of `kavach verify`, which needs no server: "" if the credential is
// valid for an audience, else why not.
func (c *crew) verdict(t *testing.T, credential, audience string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, "verify", "-", "--jwks", c.keys, "--issuer", c.Issuer, "--audience", audience)
	cmd.Stdin = strings.NewReader(credential)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	said := strings.TrimPrefix(strings.TrimSpace(stderr.String()), "kavach: error: ")
	switch code := cmd.ProcessState.ExitCode(); {
	case err == nil && said == "":
		return ""
	case code != 1 || !strings.HasPrefix(said, "refused: "):
		t.Errorf("verify: exit %d, %s", code, said)
	}
	return strings.TrimPrefix(said, "refused: ")
}

// invalidEverywhere: nobody takes a forged chain, whoever holds its last key:
// neither kavach's own endpoints nor the exchange, and the tool that verifies
// says why.
func (c *crew) invalidEverywhere(t *testing.T, what string, who *agent, chain string, reasons ...string) {
	t.Helper()
	wantProof(t, what, c.shows(t, who, chain))
	wantOAuth(t, what, c.trade(t, who, chain), 400, "invalid_request")
	judged := content(t, c.rpc(t, "verify", encode(map[string]any{"token": chain, "audience": c.Issuer + "/mcp"}), "Authorization", "Bearer "+c.machine))
	reason, _ := judged["reason"].(string)
	if judged["valid"] != false || !slices.Contains(reasons, reason) {
		t.Errorf("%s: verify says %v, want %v", what, judged, reasons)
	}
}

// invalidOffline is invalidEverywhere and who verifies without a server.
func (c *crew) invalidOffline(t *testing.T, what string, who *agent, chain string, reasons ...string) {
	t.Helper()
	c.invalidEverywhere(t, what, who, chain, reasons...)
	got := c.verdict(t, chain, c.Issuer+"/mcp")
	if reason, _, _ := strings.Cut(strings.ReplaceAll(got, ":", " "), " "); !slices.Contains(reasons, reason) {
		t.Errorf("%s: offline it is %q, want %v", what, got, reasons)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}
