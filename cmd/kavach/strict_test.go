package main

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// a path has one spelling, with and without a path in the issuer.
func TestPathsHaveOneSpelling(t *testing.T) {
	for issuer, base := range map[string]string{"http://127.0.0.1:1": "", "http://127.0.0.1:1/auth": "/auth"} {
		answer := func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("here")) }
		m := &Main{Issuer: issuer, ops: &ops{metrics: newMetrics()}, parts: &parts{routes: map[string]http.Handler{
			"/": http.HandlerFunc(answer), "/oauth/": http.HandlerFunc(answer), "/.well-known/": http.HandlerFunc(answer), "/mcp": http.HandlerFunc(answer),
		}}}
		handler := m.handler()
		get := func(path string) *httptest.ResponseRecorder {
			w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil)
			r.URL.Path = path
			handler.ServeHTTP(w, r)
			return w
		}
		for _, path := range []string{base + "/oauth/token", base + "/mcp", base + "/oauth/", base + "/", cmp.Or(base, "/")} {
			if w := get(path); w.Code != http.StatusOK {
				t.Errorf("%s: %d", path, w.Code)
			}
		}
		for _, path := range []string{
			base + "//oauth/token", base + "/oauth//token", base + "/oauth/./token", base + "/oauth/../oauth/token", base + "/oauth", "/.well-known",
			"//", "", "*", "/..", base + "//mcp", base + "/mcp//", "/.well-known/../oauth/token", "//evil.example/..",
		} {
			w := get(path)
			if w.Code != http.StatusNotFound || w.Header().Get("Location") != "" || w.Header().Get("Cache-Control") != "no-store" || !strings.Contains(w.Body.String(), "not_found") {
				t.Errorf("%q: %d %v %s", path, w.Code, w.Header(), w.Body)
			}
		}
	}
}

func TestOperationsOfThisMachineHaveNoOtherName(t *testing.T) {
	for listen, wants := range map[string]map[string]int{
		"127.0.0.1:0": {"127.0.0.1:1": 200, "localhost": 200, "[::1]:1": 200, "": 200, "evil.example": 421, "127.0.0.1.nip.io:1": 421, "127.1": 421},
		"0.0.0.0:0":   {"kavach:8421": 200},
	} {
		handler := onlyHere(listen, (&ops{metrics: newMetrics()}).handler())
		for host, want := range wants {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/healthz", nil)
			r.Host = host
			if handler.ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s as %q: %d", listen, host, w.Code)
			}
		}
	}
}
