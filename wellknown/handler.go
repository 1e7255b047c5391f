package wellknown

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
)

// Config says what is served under /.well-known/.
type Config struct {
	// Server returns the authorization server's metadata; nil when there is no
	// authorization server here.
	Server func(context.Context) (ServerMetadata, error)
	// Resources returns the metadata of the resources served here.
	Resources func(context.Context) ([]ResourceMetadata, error)
	// Fallback is the resource whose metadata is also served at the bare
	// /.well-known/oauth-protected-resource, for clients that look only there.
	Fallback string
	// Keys returns the keys to publish; nil when there are none.
	Keys func(context.Context) ([]Key, error)
	// Logger gets what went wrong; nil means slog.Default.
	Logger *slog.Logger
}

// cacheControl lets caches hold a document for a minute: long enough to absorb a
// crowd, short enough for a key that is withdrawn.
const cacheControl = "public, max-age=60"

// Handler serves the documents and answers 404 in JSON for every other path.
// It is meant for the pattern "/.well-known/".
func Handler(c Config) http.Handler {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		AllowOrigins(w.Header())
		switch r.Method {
		case http.MethodOptions:
			w.WriteHeader(http.StatusNoContent)
			return
		case http.MethodGet, http.MethodHead:
		default:
			w.Header().Set("Allow", "GET, HEAD, OPTIONS")
			writeError(w, http.StatusMethodNotAllowed, "invalid_request", "this document is read with GET")
			return
		}
		body, found, err := c.document(r)
		switch {
		case err != nil:
			c.Logger.ErrorContext(r.Context(), "well-known document unavailable", "path", r.URL.Path, "error", err)
			w.Header().Set("Retry-After", "1")
			writeError(w, http.StatusServiceUnavailable, "temporarily_unavailable", "try again in a moment")
		case !found:
			writeError(w, http.StatusNotFound, "not_found", "there is no such document")
		default:
			writeDocument(w, r, body)
		}
	})
}

// AllowOrigins sets the CORS headers of a public document: every page may read
// it, none with credentials (authorization-server.md §6).
func AllowOrigins(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, DPoP, MCP-Protocol-Version")
	h.Set("Access-Control-Expose-Headers", "WWW-Authenticate, DPoP-Nonce, Retry-After")
	h.Set("Access-Control-Max-Age", "3600")
}

// document finds what belongs to the path. The identifiers in the documents
// are configured, never taken from the request's Host.
func (c Config) document(r *http.Request) (body []byte, found bool, err error) {
	ctx, path := r.Context(), r.URL.EscapedPath()
	switch {
	case path == JWKSPath && c.Keys != nil:
		keys, err := c.Keys(ctx)
		if err != nil {
			return nil, false, fmt.Errorf("reading the keys: %w", err)
		}
		body, err = JWKS(keys)
		return body, true, err
	case below(path, ServerPath) && c.Server != nil:
		m, err := c.Server(ctx)
		if err != nil {
			return nil, false, fmt.Errorf("reading the server's metadata: %w", err)
		}
		if want, err := ServerPathOf(m.Issuer); err != nil || path != want {
			return nil, false, err
		}
		body, err = json.Marshal(m)
		return body, true, err
	case below(path, ResourcePath) && c.Resources != nil:
		list, err := c.Resources(ctx)
		if err != nil {
			return nil, false, fmt.Errorf("reading the resources' metadata: %w", err)
		}
		for _, m := range list {
			want, err := ResourcePathOf(m.Resource)
			if err != nil {
				return nil, false, err
			}
			if path == want || path == ResourcePath && m.Resource == c.Fallback {
				body, err = json.Marshal(m)
				return body, true, err
			}
		}
	}
	return nil, false, nil
}

func below(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

func writeDocument(w http.ResponseWriter, r *http.Request, body []byte) {
	sum := sha256.Sum256(body)
	etag := `"` + encode(sum[:16]) + `"`
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", cacheControl)
	h.Set("ETag", etag)
	h.Set("X-Content-Type-Options", "nosniff")
	if match := r.Header.Get("If-None-Match"); match != "" && strings.Contains(match, etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(body) // net/http leaves it out of the answer to HEAD
}

func writeError(w http.ResponseWriter, status int, code, description string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	body, err := json.Marshal(map[string]string{"error": code, "error_description": description})
	if err != nil {
		status, body = http.StatusInternalServerError, nil
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
