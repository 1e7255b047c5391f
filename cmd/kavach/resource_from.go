package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/wellknown"
)

// maxMetadata bounds a metadata document.
const maxMetadata = 64 << 10

// fromMetadata reads what a resource server says of itself (RFC 9728), once and
// on the operator's command: kavach never does it to decide anything. The
// document must be about the very resource it was fetched for (§3.3).
func fromMetadata(ctx context.Context, address string) (authz.Resource, error) {
	document, err := metadataAddress(address)
	if err != nil {
		return authz.Resource{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, document, nil)
	if err != nil {
		return authz.Resource{}, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := agentHTTP.Do(req)
	if err != nil {
		return authz.Resource{}, fmt.Errorf("reading %s: %w", document, urlCause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return authz.Resource{}, fmt.Errorf("reading %s: status %d", document, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata+1))
	if err != nil {
		return authz.Resource{}, fmt.Errorf("reading %s: %w", document, err)
	}
	var m wellknown.ResourceMetadata
	if len(body) > maxMetadata || json.Unmarshal(body, &m) != nil || m.Resource == "" {
		return authz.Resource{}, fmt.Errorf("reading %s: it is no protected resource metadata", document)
	}
	if want, err := wellknown.ResourceURLOf(m.Resource); err != nil || want != document {
		return authz.Resource{}, fmt.Errorf("reading %s: it is about another resource, %q", document, m.Resource)
	}
	r := authz.Resource{ID: m.Resource, Name: m.ResourceName}
	for _, scope := range m.ScopesSupported {
		r.Scopes = append(r.Scopes, authz.Scope{Name: scope, Description: "Use " + scope + " at " + hostOf(m.Resource)})
	}
	return r, nil
}

// metadataAddress is where the metadata of a resource is: an address that is no
// well-known one is the resource's own.
func metadataAddress(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "https" && !(u.Scheme == "http" && loopbackHost(u.Hostname()))) {
		return "", usagef("write the resource's address, or that of its metadata", "--from %q is not an https URL", address)
	}
	if len(u.Path) >= len(wellknown.ResourcePath) && u.Path[:len(wellknown.ResourcePath)] == wellknown.ResourcePath {
		return address, nil
	}
	document, err := wellknown.ResourceURLOf(address)
	if err != nil {
		return "", usagef("write the resource's address, or that of its metadata", "--from %q is not a resource", address)
	}
	return document, nil
}
