package main

import (
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/kavach-dev/kavach/authz"
)

// admission refuses what would only wait. A server that takes on more than it
// can do soon does nothing in time: everybody waits until nobody does any more,
// and the work for those who left is lost.
type admission struct {
	most    int64
	working atomic.Int64
}

// newAdmission leaves room for as many as may wait for a password (128 for each
// processor, see people) and for as much else as keeps the processors busy.
func newAdmission() *admission {
	return &admission{most: 256 * int64(runtime.GOMAXPROCS(0))}
}

// admit answers 503 while too many requests are worked on. Those that wait for
// their own client, its body or its reading, do not count: slow clients shut
// nobody out. What narrows authority is always let in.
func (a *admission) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer a.working.Add(-1)
		if a.working.Add(1) > a.most && !strings.HasSuffix(r.URL.Path, "/oauth/revoke") {
			authz.WriteError(w, &authz.Error{Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable", RetryAfter: 1,
				Description: "too many requests are being answered at this moment"})
			return
		}
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &waitingBody{r.Body, a}
		}
		next.ServeHTTP(&waitingWriter{w, a}, r)
	})
}

// waitingBody does not count a request while its body is on its way.
type waitingBody struct {
	io.ReadCloser
	a *admission
}

func (b *waitingBody) Read(p []byte) (int, error) {
	b.a.working.Add(-1)
	defer b.a.working.Add(1)
	return b.ReadCloser.Read(p)
}

// waitingWriter does not count a request while its answer is on its way.
type waitingWriter struct {
	http.ResponseWriter
	a *admission
}

func (w *waitingWriter) Write(p []byte) (int, error) {
	w.a.working.Add(-1)
	defer w.a.working.Add(1)
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher for handlers that ask for it by type.
func (w *waitingWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

func (w *waitingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
