package authz_test

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/store/storetest"
)

// handle asks for one as the MCP tool does.
func (f *flows) handle(credential string, ask delegation.Ask) delegation.Issued {
	f.t.Helper()
	issued, err := f.server.DelegateHandle(context.Background(), credential, f.chain(credential), ask)
	must(f.t, err)
	return issued
}

func handleForm(handle string, change url.Values) url.Values {
	form := exchangeForm(handle, url.Values{"subject_token_type": {authz.TokenTypeHandle}})
	for name, values := range change {
		form[name] = values
	}
	return form
}

// A bound token hands on through a handle: nothing in it works for anybody but
// the named agent, and what comes out is bound to that agent's key.
func TestHandle(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read", "repo:write"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read", "delegate")
	other := f.program(f.alice, "other", []string{"repo:read"}, "read", "delegate")
	mine, theirs := holder(t), holder(t)
	root := orch.signIn(mine, url.Values{"resource": {git}})
	depth := 1
	made := f.handle(root, delegation.Ask{
		Receiver: "code-reviewer", Scopes: []string{"repo:read"}, TTL: 90 * time.Second, MaxDepth: &depth,
		Limits: delegation.Limits{Resources: []string{"pr/847"}}, Tools: delegation.Tools{"diff": delegation.AllowAnyArgs},
	})
	if made.ExpiresIn != time.Minute || made.LID != "" || !slices.Equal(made.Path, []string{orch.id, rev.id}) || !slices.Equal(made.Scopes, []string{"repo:read"}) {
		t.Errorf("%+v", made.Path)
	}
	r := f.lastRecord("delegate")
	detail, _ := r["detail"].(map[string]any)
	if detail["via"] != "mcp" || detail["handle"] != authz.HashSecret(made.Token) {
		t.Errorf("record %v", r)
	}
	// It is named there as tokens are, by its hash and to its end, and no token is.
	issued, _ := detail["issued"].([]any)
	if len(issued) != 1 || !reflect.DeepEqual(issued[0], map[string]any{"lid": detail["handle"], "exp": float64(f.clock.now().Add(time.Minute + time.Second - 1).Unix())}) {
		t.Errorf("issued %v", issued)
	}
	// Who reads the database reads neither the handle nor what it stands for.
	db := storetest.Outside(t, f.dsn)
	var hash, sealed string
	must(t, db.QueryRow(`SELECT hash, sealed FROM handles`).Scan(&hash, &sealed))
	for _, text := range append(f.records(), hash, sealed) {
		if strings.Contains(text, made.Token) || strings.Contains(text, root) {
			t.Error("a handle or its parent stands in the database")
		}
	}
	if _, err := f.registry.Verifier().Verify(made.Token, f.clock.now()); err == nil {
		t.Error("a handle is a token")
	}

	id, secret := f.client(authz.NewClient{Scopes: []string{"repo:read"}})
	for name, bad := range map[string]request{
		"by another agent":       other.by(handleForm(made.Token, nil), holder(t)),
		"by who made it":         orch.by(handleForm(made.Token, nil), mine),
		"by another client":      {form: handleForm(made.Token, nil), client: [2]string{id, secret}, proof: f.dpop(theirs, "")},
		"with something to ask":  rev.by(handleForm(made.Token, url.Values{"scope": {"repo:read"}}), theirs),
		"as an access token":     rev.by(exchangeForm(made.Token, nil), theirs),
		"a handle nobody made":   rev.by(handleForm(made.Token+"x", nil), theirs),
		"the hash of the handle": rev.by(handleForm(hash, nil), theirs),
	} {
		if a := f.do(bad); a.status != http.StatusBadRequest || a.str("error") != "invalid_request" {
			t.Errorf("%s: %v %v", name, a, a.body)
		}
	}
	f.wantError(f.do(rev.by(handleForm(made.Token, nil), agent.PrivateKey{})), http.StatusBadRequest, "invalid_dpop_proof")
	f.wantError(f.do(request{form: handleForm(made.Token, nil), proof: f.dpop(theirs, "")}), http.StatusUnauthorized, "invalid_client")

	// None of these spent it.
	a, c := f.exchanged(rev.by(handleForm(made.Token, nil), theirs))
	if c.Plain() || c.JKT() != theirs.Public().Thumbprint() || c.Agent() != rev.id || c.DepthLeft(0) != 1 || a.body["expires_in"] != 90.0 ||
		!slices.Equal(c.Limits().Resources, []string{"pr/847"}) || !slices.Equal(c.Tools().Names(), []string{"diff"}) ||
		!slices.Equal(c.Path(), []string{orch.id, rev.id}) || !slices.Contains(c.Ancestry(), f.chain(root).LID()) {
		t.Errorf("%v %+v", a.body, c.Links())
	}
	r = f.lastRecord("delegate")
	detail, _ = r["detail"].(map[string]any)
	if r["agent"] != rev.id || detail["via"] != "exchange" || detail["handle"] != hash || detail["key_proved"] != true {
		t.Errorf("record %v", r)
	}
	f.wantError(f.do(rev.by(handleForm(made.Token, nil), theirs)), http.StatusBadRequest, "invalid_request")
	if n := f.recorded("replayed"); n != 1 {
		t.Errorf("%d records of a handle used again", n)
	}
	must(t, db.QueryRow(`SELECT sealed FROM handles`).Scan(&sealed))
	if sealed != "" {
		t.Error("a used handle keeps what it stood for")
	}
}

// What is redeemed is judged when it is redeemed.
func TestHandleStandsForWhatIsTrueNow(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read")
	mine := holder(t)
	ask := delegation.Ask{Receiver: rev.id, Scopes: []string{"repo:read"}}
	root := orch.signIn(mine, url.Values{"resource": {git}})

	late := f.handle(root, ask)
	f.clock.advance(time.Minute)
	f.wantError(f.do(rev.by(handleForm(late.Token, nil), holder(t))), http.StatusBadRequest, "invalid_request")
	if n := f.recorded("expired"); n != 1 {
		t.Errorf("%d records of an expired handle", n)
	}
	f.clock.advance(audit.ClockSkew)
	must(t, sweep(f.log, f.server))
	if _, err := f.store.Handle(t.Context(), authz.HashSecret(late.Token)); err == nil {
		t.Error("an expired handle stays")
	}

	made := f.handle(root, ask)
	parent := f.chain(root)
	_, err := f.registry.Revoke(t.Context(), parent, authz.RevokeTarget{TokenID: parent.LID()})
	must(t, err)
	f.wantError(f.do(rev.by(handleForm(made.Token, nil), holder(t))), http.StatusBadRequest, "invalid_request")
	if n := f.recorded("revoked"); n != 1 {
		t.Errorf("%d records of a revoked parent", n)
	}

	// A handle ends with its parent.
	root = orch.signIn(mine, url.Values{"resource": {git}})
	f.clock.advance(4*time.Minute + 40*time.Second)
	if made = f.handle(root, ask); made.ExpiresIn != 20*time.Second {
		t.Errorf("a handle for %v under a parent of 20 s", made.ExpiresIn)
	}
}

// What may not be handed on may not be promised either.
func TestHandleRefuses(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read")
	root := orch.signIn(holder(t), url.Values{"resource": {git}})
	for name, ask := range map[string]delegation.Ask{
		"nobody":        {Scopes: []string{"repo:read"}},
		"itself":        {Receiver: orch.id},
		"somebody else": {Receiver: "nobody"},
		"more":          {Receiver: rev.id, Scopes: []string{"repo:write"}},
	} {
		if made, err := f.server.DelegateHandle(t.Context(), root, f.chain(root), ask); err == nil || made.Token != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	down := audit.ErrUnavailable
	f.log.fail(down)
	made, err := f.server.DelegateHandle(t.Context(), root, f.chain(root), delegation.Ask{Receiver: rev.id})
	if err == nil || made.Token != "" {
		t.Error("a handle left without its record")
	}
	f.log.fail(nil)
}

// Asked at the token endpoint: a bound subject, an agent that is named, and no
// key of it.
func TestExchangeAnswersWithAHandle(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read")
	mine, theirs := holder(t), holder(t)
	root := orch.signIn(mine, url.Values{"resource": {git}})
	for name, change := range map[string]url.Values{
		"no key":  {"agent": {"code-reviewer"}},
		"by name": {"agent": {rev.id}, "requested_token_type": {authz.TokenTypeHandle}},
	} {
		a := f.do(orch.by(exchangeForm(root, change), mine))
		if a.status != http.StatusOK || a.str("token_type") != "N_A" || a.str("issued_token_type") != authz.TokenTypeHandle || a.body["expires_in"] != 60.0 {
			t.Fatalf("%s: %v %v", name, a, a.body)
		}
		if _, c := f.exchanged(rev.by(handleForm(a.str("access_token"), nil), theirs)); c.JKT() != theirs.Public().Thumbprint() || c.ClientID() != rev.id {
			t.Errorf("%s: %+v", name, c.Links())
		}
	}
	f.wantError(f.do(orch.by(exchangeForm(root, url.Values{"requested_token_type": {authz.TokenTypeHandle}}), mine)), 400, "invalid_request")
}

// Whatever may come once, exactly one of many at once wins with it, also on two
// servers that share nothing but the database.
func TestExchangeOnceByManyAtOnce(t *testing.T) {
	f := newFlows(t)
	twin := f.twin()
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read")
	mine := holder(t)
	root := orch.signIn(mine, url.Values{"resource": {git}})
	made := f.handle(root, delegation.Ask{Receiver: rev.id, Scopes: []string{"repo:read"}})

	card := rev.card(holder(t).Public())
	carded := url.Values{"actor_token": {card}, "actor_token_type": {authz.TokenTypeAgentKey}}
	proof, assertion := f.dpop(mine, ""), orch.by(url.Values{}, mine).form
	for _, c := range []struct {
		name   string
		one    func() request
		status int
		code   string
	}{
		{"a handle", func() request { return rev.by(handleForm(made.Token, nil), holder(t)) }, 400, "invalid_request"},
		{"a key card", func() request { return orch.by(exchangeForm(root, carded), mine) }, 400, "invalid_request"},
		{"a proof", func() request { r := orch.by(exchangeForm(root, nil), mine); r.proof = proof; return r }, 400, "invalid_dpop_proof"},
		{"an assertion", func() request {
			r := orch.by(exchangeForm(root, nil), mine)
			for name, values := range assertion {
				r.form[name] = values
			}
			return r
		}, 401, "invalid_client"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := f.recorded("replayed")
			requests := make([]request, 50)
			for i := range requests {
				requests[i] = c.one()
			}
			answers, errs := make([]answer, len(requests)), make([]error, len(requests))
			start := make(chan struct{})
			var done sync.WaitGroup
			for i, r := range requests {
				origin := f.issuer
				if i%2 == 1 {
					origin = twin
				}
				done.Go(func() {
					<-start
					answers[i], errs[i] = sendTo(origin, r)
				})
			}
			close(start)
			done.Wait()
			won := 0
			for i, a := range answers {
				must(t, errs[i])
				if a.status == http.StatusOK {
					won++
				} else {
					f.wantError(a, c.status, c.code)
				}
			}
			if won != 1 {
				t.Errorf("%d of %d won", won, len(requests))
			}
			if n := f.recorded("replayed") - before; n != len(requests)-1 {
				t.Errorf("%d records of a replay", n)
			}
		})
	}
}
