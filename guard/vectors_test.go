package guard_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/conformance"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// vectorServer is a resource server as one vector describes it.
type vectorServer struct {
	v         conformance.Vector
	decisions []guard.Decision
	debited   []string
}

func (s *vectorServer) Revoked(_ context.Context, c *delegation.Chain) (bool, error) {
	if s.v.Revoked.Stale {
		return false, errors.New("stale")
	}
	feed, err := s.v.Feed()
	if err != nil {
		return false, err
	}
	return feed.Revokes(c), nil
}

func (s *vectorServer) Once(_ context.Context, key string, _ time.Time) (bool, error) {
	return !slices.Contains(s.v.State.Seen, key), nil
}

func (s *vectorServer) Debit(_ context.Context, budgets []delegation.Budget) (bool, error) {
	for _, b := range budgets {
		if s.v.State.Counters[b.LID] >= b.Limit {
			return false, nil
		}
	}
	for _, b := range budgets {
		s.debited = append(s.debited, b.LID)
	}
	return true, nil
}

func (s *vectorServer) Nonce(string, time.Time) string          { return s.v.Policy.Nonce }
func (s *vectorServer) Valid(nonce, _ string, _ time.Time) bool { return nonce == s.v.Policy.Nonce }
func (s *vectorServer) Report(_ context.Context, d guard.Decision) error {
	s.decisions = append(s.decisions, d)
	return nil
}

// serve sends what the vector carries through the middleware.
func (s *vectorServer) serve(t *testing.T) (reply, bool) {
	t.Helper()
	v := s.v
	verifier, err := v.Verifier()
	if err != nil {
		t.Fatal(err)
	}
	need, err := v.Request.Delegation()
	if err != nil {
		t.Fatal(err)
	}
	method, body, meta := v.Method, "", false
	var headers []string
	for _, c := range v.Credentials {
		switch c.Carrier {
		case "authorization":
			headers = append(headers, c.Scheme+" "+c.Token)
		case "meta":
			meta, method = true, http.MethodPost
			body = message(t, v, c.Chain)
		}
	}
	cfg := guard.Config{
		Resource: v.Audience, Verifier: verifier, SharedAudience: v.Policy.SharedAudience, DPoPForWrites: v.Policy.DPoPForWrites, MCP: meta,
		Need: guard.Need{Request: need, ReadOnly: v.Policy.ReadOnly}, Replays: s, Report: s.Report,
		URL: func(*http.Request) string { return v.URL }, Now: func() time.Time { return time.Unix(v.Now, 0) }, Log: slog.New(slog.DiscardHandler),
	}
	if v.Revoked != nil {
		cfg.Revocations = s
	}
	if v.State.Counters != nil {
		cfg.Counters = s
	}
	if v.Policy.Nonce != "" {
		cfg.Nonces = s
	}
	r := httptest.NewRequest(method, v.URL, strings.NewReader(body))
	r.Header["Authorization"] = headers
	for _, p := range v.Proofs {
		if p.Type == "dpop" {
			r.Header.Add("DPoP", p.Text)
		}
	}
	ran := false
	got := do(guard.Require(cfg)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran = true })), r)
	return got, ran
}

// message is the call of a tool that carries chain and proof in its _meta.
func message(t *testing.T, v conformance.Vector, chain []string) string {
	t.Helper()
	held := map[string]any{"aat_chain": chain}
	for _, p := range v.Proofs {
		held["aat_pop"] = p.Text
	}
	text, err := json.Marshal(map[string]any{
		"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{
			"name": v.Request.Tool.Value.Name, "arguments": json.RawMessage(v.Request.Tool.Value.Text), "_meta": map[string]any{delegation.MetaKey: held},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestVectors: the vectors that a request can carry get the verdict and the
// reason from the middleware that the verifier gives alone, and the answer that
// belongs to it (mcp.md §2.3).
func TestVectors(t *testing.T) {
	data, err := os.ReadFile("../delegation/testdata/kdt1.json")
	if err != nil {
		t.Fatal(err)
	}
	file, err := conformance.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, v := range file.KDT1 {
		if v.Proofs == nil || v.Request == nil || v.Derive != nil || v.Exchange != nil {
			continue // these are not requests
		}
		ran++
		s := &vectorServer{v: v}
		got, passed := s.serve(t)
		if len(s.decisions) == 0 {
			t.Errorf("%s: nothing is reported", v.ID)
			continue
		}
		d, want := s.decisions[0], v.Expected
		if want.Verdict == conformance.Permit {
			debits := []string{}
			for _, i := range want.Debits {
				debits = append(debits, want.Path[i].LID)
			}
			if !passed || got.status != http.StatusOK || !d.Allowed || !slices.Equal(debits, append([]string{}, s.debited...)) || !slices.Equal(want.Unchecked, append([]string{}, d.Unchecked...)) {
				t.Errorf("%s (%s): %d %s, %s %s %s, debited %v", v.ID, v.Title, got.status, got.body, d.Reason, d.Dimension, d.Detail, s.debited)
			}
			continue
		}
		if passed || d.Allowed || d.Reason != want.Reason || want.Dimension != "" && d.Dimension != want.Dimension || want.Detail != "" && d.Detail != want.Detail {
			t.Errorf("%s (%s): passed %v, %s %s %s, want %s %s %s", v.ID, v.Title, passed, d.Reason, d.Dimension, d.Detail, want.Reason, want.Dimension, want.Detail)
		}
		if status := statusOf(want.Reason); got.status != status && !(got.status == http.StatusBadRequest && strings.HasPrefix(v.ID, "0-carrier-")) {
			t.Errorf("%s: %s is answered %d, want %d", v.ID, want.Reason, got.status, status)
		}
		if len(s.debited) > 0 {
			t.Errorf("%s: refused and debited", v.ID)
		}
	}
	if ran < 1400 {
		t.Errorf("only %d vectors ran", ran)
	}
}

func statusOf(reason delegation.Reason) int {
	switch reason {
	case delegation.ScopeNotGranted, delegation.ConstraintViolated, delegation.NeedsCounter:
		return http.StatusForbidden
	case delegation.StatusUnknown:
		return http.StatusServiceUnavailable
	}
	return http.StatusUnauthorized
}
