package authz_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/authz"
)

// A client registers its keys, signs in with one of them and is held to DPoP.
func TestClientsRegisterTheirKeys(t *testing.T) {
	f := newFlows(t)
	ec, ed := ecKey(t), holder(t)
	jwk := func(k agent.PublicKey, members map[string]any) map[string]any {
		m := k.JWK()
		for name, value := range members {
			m[name] = value
		}
		return m
	}
	register := func(members map[string]any) (int, map[string]any) {
		t.Helper()
		body := map[string]any{
			"client_name": "Keys", "redirect_uris": []string{callback}, "grant_types": []string{"authorization_code", "refresh_token"},
			"token_endpoint_auth_method": "private_key_jwt",
		}
		for name, value := range members {
			if body[name] = value; value == nil {
				delete(body, name)
			}
		}
		text, err := json.Marshal(body)
		must(t, err)
		r, err := http.Post(f.issuer+"/oauth/register", "application/json", strings.NewReader(string(text)))
		must(t, err)
		return r.StatusCode, decode(t, r)
	}
	set := map[string]any{"keys": []any{
		jwk(ec.Public(), map[string]any{"kid": "one", "use": "sig", "alg": "ES256"}), jwk(ed.Public(), map[string]any{"alg": "EdDSA"}),
	}}
	status, got := register(map[string]any{"jwks": set, "dpop_bound_access_tokens": true})
	id, _ := got["client_id"].(string)
	echoed, _ := got["jwks"].(map[string]any)
	keys, _ := echoed["keys"].([]any)
	if status != http.StatusCreated || got["client_secret"] != nil || len(keys) != 2 || got["dpop_bound_access_tokens"] != true ||
		got["token_endpoint_auth_method"] != "private_key_jwt" {
		t.Fatalf("%d %v", status, got)
	}
	for i, key := range []agent.PrivateKey{ec, ed} {
		p, binding := newProof(), holder(t)
		form := f.redeem(id, f.code(f.signedIn("alice"), id, p, nil), p, url.Values{
			"client_id": nil, "client_assertion_type": {jwtBearer}, "client_assertion": {f.assertion(key, id, nil)},
		})
		f.wantError(f.token(form), http.StatusBadRequest, "invalid_dpop_proof") // "MUST reject token requests ... that do not contain the DPoP header"
		a := f.proved(form, binding)
		if a.status != http.StatusOK || a.str("token_type") != "DPoP" {
			t.Fatalf("key %d: %d %v", i, a.status, a.body)
		}
		// It is no public client: what binds its refresh token is its key.
		form = refreshForm(id, a.str("refresh_token"), url.Values{"client_assertion_type": {jwtBearer}, "client_assertion": {f.assertion(key, id, nil)}})
		if a = f.proved(form, holder(t)); a.status != http.StatusOK {
			t.Errorf("key %d, refresh: %d %v", i, a.status, a.body)
		}
	}
	f.wantError(f.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}, "client_id": {id}}), http.StatusUnauthorized, "invalid_client")

	private := ec.Public().JWK()
	private["d"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	var nine []any
	for range 9 {
		nine = append(nine, holder(t).Public().JWK())
	}
	for name, members := range map[string]map[string]any{
		"no keys":           {},
		"keys of null":      {"jwks": json.RawMessage("null")},
		"none in the set":   {"jwks": map[string]any{"keys": []any{}}},
		"nine in the set":   {"jwks": map[string]any{"keys": nine}},
		"no set":            {"jwks": []any{ec.Public().JWK()}},
		"a private key":     {"jwks": map[string]any{"keys": []any{private}}},
		"an RSA key":        {"jwks": map[string]any{"keys": []any{map[string]any{"kty": "RSA", "n": "AQAB", "e": "AQAB"}}}},
		"a secret":          {"jwks": map[string]any{"keys": []any{map[string]any{"kty": "oct", "k": "AAAA"}}}},
		"an encryption key": {"jwks": map[string]any{"keys": []any{jwk(ec.Public(), map[string]any{"use": "enc"})}}},
		"jwks_uri":          {"jwks_uri": "https://client.example/jwks.json"},
		"both":              {"jwks": set, "jwks_uri": "https://client.example/jwks.json"},
		"both for another":  {"jwks": set, "jwks_uri": "https://client.example/jwks.json", "token_endpoint_auth_method": "none"},
	} {
		status, got := register(members)
		if status != http.StatusBadRequest || got["error"] != "invalid_client_metadata" || got["error_description"] == nil {
			t.Errorf("%s: %d %v", name, status, got)
		}
		if name == "jwks_uri" && !strings.Contains(got["error_description"].(string), "jwks_uri is not fetched here") {
			t.Errorf("jwks_uri alone is refused as %v", got)
		}
	}
	// To the other methods keys mean nothing.
	if status, got := register(map[string]any{"jwks": set, "token_endpoint_auth_method": "none"}); status != http.StatusCreated || got["jwks"] != nil {
		t.Errorf("keys of a public client: %d %v", status, got)
	}
}

func TestStaticClientsWithKeys(t *testing.T) {
	rt := newRegistry(t)
	ctx, key := t.Context(), holder(t).Public()
	for name, n := range map[string]authz.NewClient{
		"no keys":          {Name: "c", Method: authz.MethodKeyJWT},
		"keys for another": {Name: "c", Method: authz.MethodBasic, Keys: []agent.PublicKey{key}},
	} {
		if _, _, err := rt.AddClient(ctx, byOperator, n); err == nil {
			t.Errorf("%s: added", name)
		}
	}
	c, _, err := rt.AddClient(ctx, byOperator, authz.NewClient{Name: "c", Method: authz.MethodKeyJWT, Keys: []agent.PublicKey{key}, BoundTokens: true})
	must(t, err)
	read, err := rt.Client(ctx, c.ID)
	must(t, err)
	if len(read.Keys) != 1 || read.Keys[0] != key || !read.BoundTokens || read.SecretHash != "" {
		t.Errorf("stored as %+v", read)
	}
}
