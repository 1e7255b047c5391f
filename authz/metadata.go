package authz

import (
	"context"
	"net/http"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/wellknown"
)

// newWellKnown serves what clients discover. Everything in it is configured:
// neither Host nor a forwarding header of the request says anything about it
// . There is no openid-configuration: that would promise ID tokens.
func (g *Registry) newWellKnown() http.Handler {
	return wellknown.Handler(wellknown.Config{
		Server:    func(context.Context) (wellknown.ServerMetadata, error) { return g.serverMetadata(), nil },
		Resources: func(context.Context) ([]wellknown.ResourceMetadata, error) { return g.resourceMetadata(), nil },
		Fallback:  g.cfg.Issuer + "/mcp",
		Keys:      g.publishedKeys,
		Logger:    g.cfg.Log,
	})
}

// publishedKeys are the keys of the JWKS document: those that sign what
// others verify, never one that signs cookies, cursors or the log.
func (g *Registry) publishedKeys(ctx context.Context) ([]wellknown.Key, error) {
	if g.cfg.Keys == nil {
		return nil, nil
	}
	if _, err := g.Catalog(ctx); err != nil { // a resource that was just added may ask for a key
		// What is known stays true: without the database tokens still verify.
		g.cfg.Log.WarnContext(ctx, "reading keys for the JWKS document failed", "error", err)
	}
	var keys []wellknown.Key
	for _, k := range g.cfg.Keys.Public() {
		keys = append(keys, wellknown.Key{KID: k.KID, Alg: k.Alg, Public: k.Public})
	}
	return keys, nil
}

// serverMetadata is the document of RFC 8414. It lists what is served and
// nothing else (§1).
func (g *Registry) serverMetadata() wellknown.ServerMetadata {
	issuer := g.cfg.Issuer
	no := false
	m := wellknown.ServerMetadata{
		Issuer:                issuer,
		AuthorizationEndpoint: issuer + "/oauth/authorize",
		TokenEndpoint:         issuer + "/oauth/token",
		JWKSURI:               issuer + wellknown.JWKSPath,
		IntrospectionEndpoint: issuer + "/oauth/introspect",
		RevocationEndpoint:    issuer + "/oauth/revoke",
		ScopesSupported: []string{
			ScopeVerify, ScopeDelegate, ScopeAudit, ScopeAgentsManage, ScopeAuditRead, ScopeOffline,
		},
		ResponseTypesSupported:                             []string{"code"},
		ResponseModesSupported:                             []string{"query"},
		GrantTypesSupported:                                []string{GrantCode, GrantRefresh, GrantClientCredentials, GrantExchange},
		TokenEndpointAuthMethodsSupported:                  []string{string(MethodNone), string(MethodBasic), string(MethodPost), string(MethodKeyJWT)},
		TokenEndpointAuthSigningAlgValuesSupported:         clientAlgs(),
		IntrospectionEndpointAuthMethodsSupported:          []string{string(MethodBasic), string(MethodPost), string(MethodKeyJWT)},
		IntrospectionEndpointAuthSigningAlgValuesSupported: clientAlgs(),
		RevocationEndpointAuthMethodsSupported:             []string{string(MethodNone), string(MethodBasic), string(MethodPost), string(MethodKeyJWT)},
		RevocationEndpointAuthSigningAlgValuesSupported:    clientAlgs(),
		DPoPSigningAlgValuesSupported:                      clientAlgs(),
		AuthorizationDetailsTypesSupported:                 delegation.DetailsTypes(),
		CodeChallengeMethodsSupported:                      []string{"S256"},
		PromptValuesSupported:                              []string{"none", "login", "consent", "select_account"},
		ProtectedResources:                                 []string{issuer + "/mcp", issuer + "/api"},
		AuthorizationResponseIssParameterSupported:         true,
		RequestURIParameterSupported:                       &no,
		AATIssuer:                                          true,
	}
	if g.cfg.Registration != RegistrationOff {
		m.RegistrationEndpoint = issuer + registerEndpoint
	}
	return m
}

// clientAlgs are how clients may sign assertions and proofs: "EdDSA" is what
// many libraries write for Ed25519 (delegation.md §2).
func clientAlgs() []string { return []string{AlgEd25519, AlgES256, "EdDSA"} }

// resourceMetadata are the documents of RFC 9728 for kavach's own resources.
// scopes_supported is the minimal useful set, never offline_access (mcp.md §2).
func (g *Registry) resourceMetadata() []wellknown.ResourceMetadata {
	issuer := g.cfg.Issuer
	return []wellknown.ResourceMetadata{
		{
			Resource: issuer + "/mcp", AuthorizationServers: []string{issuer}, ResourceName: "kavach",
			ScopesSupported: g.cfg.BaselineScopes, BearerMethodsSupported: []string{"header"},
			DPoPSigningAlgValuesSupported: clientAlgs(),
		},
		{
			Resource: issuer + "/api", AuthorizationServers: []string{issuer}, ResourceName: "kavach API",
			ScopesSupported: []string{ScopeAgentsManage, ScopeAudit}, BearerMethodsSupported: []string{"header"},
			DPoPSigningAlgValuesSupported: clientAlgs(),
		},
	}
}
