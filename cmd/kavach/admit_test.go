package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestAdmission: what is worked on is bounded, who waits for their own client is
// not, and what takes authority away is let in.
func TestAdmission(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	a := &admission{most: 2}
	h := a.admit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		inside <- struct{}{}
		<-leave
		_, _ = io.WriteString(w, "done")
	}))
	ask := func(path string, body io.Reader) chan *httptest.ResponseRecorder {
		answer := make(chan *httptest.ResponseRecorder, 1)
		go func() {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequest("POST", path, body))
			answer <- rec
		}()
		return answer
	}
	var slow []*io.PipeWriter
	var all []chan *httptest.ResponseRecorder
	for range 10 { // their bodies never end by themselves
		body, w := io.Pipe()
		slow = append(slow, w)
		all = append(all, ask("/oauth/token", body))
		if _, err := w.Write([]byte("a")); err != nil {
			t.Fatal(err)
		}
		for a.working.Load() != 0 {
			time.Sleep(time.Millisecond) // it reads on
		}
	}
	for range 2 {
		all = append(all, ask("/oauth/token", strings.NewReader("b")))
		<-inside
	}
	if refused := <-ask("/oauth/token", strings.NewReader("c")); refused.Code != http.StatusServiceUnavailable || refused.Header().Get("Retry-After") == "" ||
		!strings.Contains(refused.Body.String(), "temporarily_unavailable") {
		t.Errorf("a third: %d %v %s", refused.Code, refused.Header(), refused.Body)
	}
	all = append(all, ask("/oauth/revoke", strings.NewReader("d")))
	<-inside
	for _, w := range slow {
		w.Close()
		<-inside
	}
	close(leave)
	for _, answer := range all {
		if rec := <-answer; rec.Code != http.StatusOK {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
	}
	if n := a.working.Load(); n != 0 {
		t.Errorf("%d are still worked on", n)
	}
}
