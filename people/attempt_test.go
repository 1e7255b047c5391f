package people_test

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// backoff on the canonical account, from everywhere, whatever spelling.
func TestBackoffPerAccount(t *testing.T) {
	w := newWorld(t, "http")
	w.add("maya")
	known := w.browser()
	want(t, "the owner, before", known.login("maya", password), 303)
	want(t, "the owner signs out", known.post("/logout"), 200)

	spellings := []string{"maya", "MAYA", " maya\t", "Ｍａｙａ", "mAyA"}
	for i, name := range spellings {
		w.from(fmt.Sprintf("203.0.113.%d", i+1))
		want(t, name, w.browser().login(name, "wrong"), http.StatusForbidden)
	}
	w.from("198.51.100.7")
	a := w.browser().login("maya", password)
	want(t, "the sixth try", a, http.StatusTooManyRequests)
	if got := a.header.Get("Retry-After"); got != "1" {
		t.Fatalf("Retry-After %q, want 1", got)
	}
	if a.header.Get("RateLimit") == "" {
		t.Fatal("no RateLimit header")
	}
	// The counter is the database's: another process knows it too.
	w.serve("http")
	want(t, "the other replica", w.browser().login("maya", password), http.StatusTooManyRequests)

	// A name that nobody has is slowed down the same.
	for range 5 {
		want(t, "nobody", w.browser().login("nobody", "wrong"), http.StatusForbidden)
	}
	want(t, "nobody", w.browser().login("nobody", "wrong"), http.StatusTooManyRequests)

	// Waits grow, and end.
	last := time.Duration(0)
	for range 12 {
		a := w.browser().login("maya", "wrong")
		if a.status == http.StatusForbidden {
			continue
		}
		want(t, "waiting", a, http.StatusTooManyRequests)
		seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
		if err != nil {
			t.Fatal(err)
		}
		if wait := time.Duration(seconds) * time.Second; wait < last || wait > 5*time.Minute {
			t.Fatalf("wait %v after %v", wait, last)
		} else {
			last = wait
		}
		w.pass(last)
	}
	// All that time the owner comes in with the browser used before.
	want(t, "the owner in the known browser", known.login("maya", password), 303)
	w.pass(5 * time.Minute)
	want(t, "the owner elsewhere, after the wait", w.browser().login("maya", password), 303)
	if got := w.recorded(audit.LoginFail); got[len(got)-1].Reason == "" {
		t.Fatal("a refusal without reason")
	}
}

func TestBackoffPerAddress(t *testing.T) {
	w := newWorld(t, "http")
	w.add("maya")
	w.from("2001:db8:0:1::1")
	tried := 0
	for i := range 100 {
		// Rotating through a /64 makes no difference.
		w.from(fmt.Sprintf("2001:db8:0:1::%x", i+1))
		if a := w.browser().login(fmt.Sprintf("user%d", i), password); a.status == http.StatusTooManyRequests {
			break
		}
		tried++
	}
	if tried != 40 {
		t.Fatalf("one address tried %d accounts, want 40", tried)
	}
	want(t, "somebody else there", w.browser().login("maya", password), http.StatusTooManyRequests)
	w.from("192.0.2.99")
	want(t, "another address", w.browser().login("maya", password), 303)
}

// Logins that work use nothing up, and give no free tries to whoever guesses.
func TestSuccessIsNotCounted(t *testing.T) {
	w := newWorld(t, "http")
	w.add("maya")
	w.add("ivan")
	for range 45 {
		want(t, "signing in", w.browser().login("maya", password), 303)
	}
	for range 4 {
		want(t, "guessing", w.browser().login("ivan", "wrong"), http.StatusForbidden)
	}
	want(t, "ivan signs in", w.browser().login("ivan", password), 303)
	want(t, "guessing", w.browser().login("ivan", "wrong"), http.StatusForbidden)
	want(t, "guessing", w.browser().login("ivan", "wrong"), http.StatusTooManyRequests)
}

func TestParallelAttemptsCount(t *testing.T) {
	w := newWorld(t, "http")
	w.add("maya")
	var wg sync.WaitGroup
	statuses := make([]int, 50)
	for i := range statuses {
		b := w.browser()
		wg.Go(func() { statuses[i] = b.login("maya", "wrong").status })
	}
	wg.Wait()
	count := map[int]int{}
	for _, s := range statuses {
		count[s]++
	}
	if count[http.StatusForbidden] != 5 || count[http.StatusTooManyRequests] != 45 {
		t.Fatalf("50 parallel guesses: %v, want 5 that were checked", count)
	}
}
