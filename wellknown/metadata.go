// Package wellknown is what clients discover: the authorization server's
// metadata (RFC 8414), protected resource metadata (RFC 9728) and the key set
// (RFC 7517), as documents and as handlers.
//
// What the package guarantees:
//
//   - A document lists what it is told and nothing else: an empty member is
//     left out.
//   - Everything under /.well-known/ answers in JSON, also what is unknown
//     (404) and what fails (503); it may be read by every web page, without
//     credentials.
//   - A key set that is published never holds a private member, and one that
//     is read yields only keys of a pinned algorithm.
package wellknown

import (
	"errors"
	"net/url"
	"strings"
)

// ErrInvalid is the root of the refusals of this package: an identifier or key
// set that cannot be used.
var ErrInvalid = errors.New("invalid")

// ServerMetadata is the authorization server metadata of RFC 8414 with the
// members of RFC 9207, 9126, 9449, 9396, 9728 and client ID metadata documents.
type ServerMetadata struct {
	Issuer                                             string   `json:"issuer"`
	AuthorizationEndpoint                              string   `json:"authorization_endpoint,omitempty"`
	TokenEndpoint                                      string   `json:"token_endpoint,omitempty"`
	JWKSURI                                            string   `json:"jwks_uri,omitempty"`
	RegistrationEndpoint                               string   `json:"registration_endpoint,omitempty"`
	IntrospectionEndpoint                              string   `json:"introspection_endpoint,omitempty"`
	RevocationEndpoint                                 string   `json:"revocation_endpoint,omitempty"`
	PushedAuthorizationRequestEndpoint                 string   `json:"pushed_authorization_request_endpoint,omitempty"`
	DeviceAuthorizationEndpoint                        string   `json:"device_authorization_endpoint,omitempty"`
	ScopesSupported                                    []string `json:"scopes_supported,omitempty"`
	ResponseTypesSupported                             []string `json:"response_types_supported,omitempty"`
	ResponseModesSupported                             []string `json:"response_modes_supported,omitempty"`
	GrantTypesSupported                                []string `json:"grant_types_supported,omitempty"`
	TokenEndpointAuthMethodsSupported                  []string `json:"token_endpoint_auth_methods_supported,omitempty"`
	TokenEndpointAuthSigningAlgValuesSupported         []string `json:"token_endpoint_auth_signing_alg_values_supported,omitempty"`
	IntrospectionEndpointAuthMethodsSupported          []string `json:"introspection_endpoint_auth_methods_supported,omitempty"`
	IntrospectionEndpointAuthSigningAlgValuesSupported []string `json:"introspection_endpoint_auth_signing_alg_values_supported,omitempty"`
	RevocationEndpointAuthMethodsSupported             []string `json:"revocation_endpoint_auth_methods_supported,omitempty"`
	RevocationEndpointAuthSigningAlgValuesSupported    []string `json:"revocation_endpoint_auth_signing_alg_values_supported,omitempty"`
	CodeChallengeMethodsSupported                      []string `json:"code_challenge_methods_supported,omitempty"`
	DPoPSigningAlgValuesSupported                      []string `json:"dpop_signing_alg_values_supported,omitempty"`
	AuthorizationDetailsTypesSupported                 []string `json:"authorization_details_types_supported,omitempty"`
	PromptValuesSupported                              []string `json:"prompt_values_supported,omitempty"`
	ProtectedResources                                 []string `json:"protected_resources,omitempty"`
	ServiceDocumentation                               string   `json:"service_documentation,omitempty"`
	AuthorizationResponseIssParameterSupported         bool     `json:"authorization_response_iss_parameter_supported,omitempty"`
	ClientIDMetadataDocumentSupported                  bool     `json:"client_id_metadata_document_supported,omitempty"`
	// AATIssuer is of draft-niyikiza-oauth-attenuating-agent-tokens: roots of
	// typ aat+jwt are issued.
	AATIssuer bool `json:"aat_issuer,omitempty"`
	// RequestURIParameterSupported is written also when false, because its
	// default in OpenID Connect Discovery is true.
	RequestURIParameterSupported *bool `json:"request_uri_parameter_supported,omitempty"`
}

// ResourceMetadata is the protected resource metadata of RFC 9728.
type ResourceMetadata struct {
	Resource                           string   `json:"resource"`
	AuthorizationServers               []string `json:"authorization_servers,omitempty"`
	JWKSURI                            string   `json:"jwks_uri,omitempty"`
	ScopesSupported                    []string `json:"scopes_supported,omitempty"`
	BearerMethodsSupported             []string `json:"bearer_methods_supported,omitempty"`
	ResourceName                       string   `json:"resource_name,omitempty"`
	ResourceDocumentation              string   `json:"resource_documentation,omitempty"`
	AuthorizationDetailsTypesSupported []string `json:"authorization_details_types_supported,omitempty"`
	DPoPSigningAlgValuesSupported      []string `json:"dpop_signing_alg_values_supported,omitempty"`
	DPoPBoundAccessTokensRequired      bool     `json:"dpop_bound_access_tokens_required,omitempty"`
}

// Where the documents are, below the origin.
const (
	ServerPath   = "/.well-known/oauth-authorization-server"
	ResourcePath = "/.well-known/oauth-protected-resource"
	JWKSPath     = "/.well-known/jwks.json"
)

// ServerPathOf returns the path of an issuer's metadata: the well-known part
// comes before the issuer's own path (RFC 8414 §3.1).
func ServerPathOf(issuer string) (string, error) {
	return inserted(ServerPath, issuer)
}

// ResourcePathOf returns the path of a resource's metadata (RFC 9728 §3.1).
func ResourcePathOf(resource string) (string, error) {
	return inserted(ResourcePath, resource)
}

// ResourceURLOf returns the URL of a resource's metadata, which is what a
// challenge names.
func ResourceURLOf(resource string) (string, error) {
	path, err := ResourcePathOf(resource)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(resource)
	if err != nil {
		return "", errors.Join(ErrInvalid, err)
	}
	target := u.Scheme + "://" + u.Host + path
	if u.RawQuery != "" {
		target += "?" + u.RawQuery
	}
	return target, nil
}

func inserted(wellKnown, identifier string) (string, error) {
	u, err := url.Parse(identifier)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Fragment != "" {
		return "", errors.Join(ErrInvalid, errors.New("identifier is not an absolute URL without a fragment"))
	}
	return wellKnown + strings.TrimSuffix(u.EscapedPath(), "/"), nil
}
