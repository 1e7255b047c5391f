package client_test

import (
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"

	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// FuzzHost: whatever a URL looks like, only a name that the token allows is
// resolved, and only what it resolved to is dialled.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{
		"https://ok.example/", "http://ok.example:80/", "https://OK.example/x?y#z", "https://ok.example./", "https://evil.example@ok.example/",
		"https://ok.example@evil.example/", "https://ok.example\\@evil.example/", "https://[::ffff:127.0.0.1]/", "http://127.1/",
		"https://git.internal:443", "http://git.internal/", "https://ok.example%2eevil.example/", "//ok.example/", "https:ok.example",
		"https://ｏｋ.example/", "https://ok.example:443:443/", "https://0x7f000001/", "https://a.ok.example/",
	} {
		f.Add(seed)
	}
	key := sync.OnceValue(exampleKey)
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		cred, err := client.Hold(mint(t, key(), network("ok.example")), key())
		if err != nil {
			t.Fatal(err)
		}
		w := &wire{names: map[string][]string{"ok.example": {"203.0.113.7"}, gitHost: {"203.0.113.8"}}}
		tr := &client.Transport{Source: cred, Lookup: w.lookup, Dial: w.dial}
		_, err = tr.RoundTrip(&http.Request{Method: http.MethodGet, URL: u, Host: u.Host})
		if err == nil {
			t.Fatal("nobody is there, and it answered")
		}
		for _, name := range w.lookups {
			if name != "ok.example" && name != gitHost {
				t.Errorf("resolved %q", name)
			}
		}
		if len(w.dials()) > 0 && delegation.ReasonOf(err) != "" {
			t.Errorf("dialled %v and refused", w.dials())
		}
		for _, address := range w.dials() {
			if !slices.Contains([]string{"203.0.113.7", "203.0.113.8"}, address[:len("203.0.113.7")]) {
				t.Errorf("dialled %s", address)
			}
		}
	})
}

// Many requests at once, to the audience and to others.
func TestTransportParallel(t *testing.T) {
	git, tr, r := gitAt(t, held(t, network("ok.example")))
	git.nonce = "n-1"
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			target := gitURL + "/x"
			if i%3 == 0 {
				target = "https://evil.example/"
			}
			answer, err := (&http.Client{Transport: tr}).Get(target)
			if (err != nil) != (i%3 == 0) {
				t.Errorf("%s: %v", target, err)
			}
			if err == nil {
				answer.Body.Close()
				if answer.StatusCode != http.StatusOK {
					t.Errorf("%s: %d", target, answer.StatusCode)
				}
			}
		})
	}
	wg.Wait()
	if git.proofs != 16 || len(r.all()) != 8 {
		t.Errorf("%d proofs held, %d refusals", git.proofs, len(r.all()))
	}
}
