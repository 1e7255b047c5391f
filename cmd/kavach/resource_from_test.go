package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestFromMetadata: what is about another resource, too long, no metadata or a
// redirect is not taken.
func TestFromMetadata(t *testing.T) {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	serve := func(path, text string) {
		mux.HandleFunc("/.well-known/oauth-protected-resource"+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(strings.ReplaceAll(text, "SELF", server.URL)))
		})
	}
	serve("/good", `{"resource":"SELF/good","resource_name":"Git host","scopes_supported":["repository:read"]}`)
	serve("/other", `{"resource":"SELF/good"}`)
	serve("/text", `hello`)
	serve("/long", `{"resource":"SELF/long","resource_name":"`+strings.Repeat("a", maxMetadata)+`"}`)
	mux.HandleFunc("/.well-known/oauth-protected-resource/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/.well-known/oauth-protected-resource/good", http.StatusFound)
	})
	for _, address := range []string{server.URL + "/good", server.URL + "/.well-known/oauth-protected-resource/good"} {
		r, err := fromMetadata(context.Background(), address)
		if err != nil || r.ID != server.URL+"/good" || r.Name != "Git host" || len(r.Scopes) != 1 || r.Scopes[0].Name != "repository:read" || r.Scopes[0].Description == "" {
			t.Errorf("%s: %+v, %v", address, r, err)
		}
	}
	for _, path := range []string{"/other", "/text", "/long", "/moved", "/absent"} {
		if r, err := fromMetadata(context.Background(), server.URL+path); err == nil {
			t.Errorf("%s is taken: %+v", path, r)
		}
	}
}
