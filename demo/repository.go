package demo

import (
	"maps"
	"slices"
	"sync"
)

// Repository is what the git host serves, in memory.
type Repository struct {
	mu    sync.Mutex // guards the comments of every thread
	pulls map[int]*pull
}

// pull is a pull request.
type pull struct {
	title   string
	author  string
	diff    string
	threads map[int]*thread
}

// thread is a review thread: a place in the diff and what was said there.
type thread struct {
	line     string
	comments []Comment
}

// Comment is one comment in a review thread.
type Comment struct {
	// Path are the parties from the principal to the author, as the token
	// proved them.
	Path []string `json:"path"`
	Text string   `json:"text"`
}

// Pull is a pull request as the git host shows it.
type Pull struct {
	Number  int    `json:"number"`
	Title   string `json:"title"`
	Author  string `json:"author"`
	Threads []int  `json:"threads"`
}

// Thread is a review thread as the git host shows it.
type Thread struct {
	Pull     int       `json:"pull"`
	Thread   int       `json:"thread"`
	Line     string    `json:"line"`
	Comments []Comment `json:"comments"`
}

// NewRepository returns the repository of the story: pull requests 847 and 848,
// each with review threads.
func NewRepository() *Repository {
	return &Repository{pulls: map[int]*pull{
		847: {
			title: "Close the connection pool on shutdown", author: "alice",
			diff: `diff --git a/pool/pool.go b/pool/pool.go
--- a/pool/pool.go
+++ b/pool/pool.go
@@ -41,6 +41,10 @@ func (p *Pool) Get(ctx context.Context) (*Conn, error) {
 
 // Close closes the pool.
 func (p *Pool) Close() error {
-	return nil
+	for _, c := range p.idle {
+		c.Close()
+	}
+	p.idle = nil
+	return nil
 }
`,
			threads: map[int]*thread{
				3: {line: "pool/pool.go:45"},
				4: {line: "pool/pool.go:47"},
			},
		},
		848: {
			title: "Rotate the deploy key", author: "bob",
			diff:    "diff --git a/deploy/key.pub b/deploy/key.pub\n",
			threads: map[int]*thread{1: {line: "deploy/key.pub:1"}},
		},
	}}
}

// Pull returns a pull request.
func (r *Repository) Pull(number int) (Pull, bool) {
	p, ok := r.pulls[number]
	if !ok {
		return Pull{}, false
	}
	return Pull{Number: number, Title: p.title, Author: p.author, Threads: slices.Sorted(maps.Keys(p.threads))}, true
}

// Diff returns the diff of a pull request.
func (r *Repository) Diff(number int) (string, bool) {
	p, ok := r.pulls[number]
	if !ok {
		return "", false
	}
	return p.diff, true
}

// Thread returns a review thread.
func (r *Repository) Thread(number, id int) (Thread, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.thread(number, id)
	if !ok {
		return Thread{}, false
	}
	return Thread{Pull: number, Thread: id, Line: t.line, Comments: append([]Comment{}, t.comments...)}, true
}

// maxComments bounds a thread: what is in memory has an end.
const maxComments = 1000

// Comment adds a comment to a review thread. It reports whether the thread is
// there and takes more.
func (r *Repository) Comment(number, id int, c Comment) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.thread(number, id)
	if !ok || len(t.comments) >= maxComments {
		return false
	}
	t.comments = append(t.comments, c)
	return true
}

func (r *Repository) thread(number, id int) (*thread, bool) {
	p, ok := r.pulls[number]
	if !ok {
		return nil, false
	}
	t, ok := p.threads[id]
	return t, ok
}
