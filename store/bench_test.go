package store

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
	"github.com/kavach-dev/kavach/store/pgtest"
)

// BenchmarkCommit measures Changes beside raw durable transactions of the same
// statements and rows on the same driver: no checks, no hashes, no queue.
// "ratio" is Changes a second over raw Changes a second, measured in turns in
// the same run (audit.md §6: at least 0.5; a lone one costs at most 1.5 ×, so
// its ratio is at least 0.67).
func BenchmarkCommit(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) {
		benchmarkCommit(b, func(b *testing.B) (*Store, raw) {
			s, _ := openTest(b)
			return s, newRaw(b)
		})
	})
	b.Run("postgres", func(b *testing.B) {
		c := pgtest.Start(b, pgtest.Config{Durable: true})
		benchmarkCommit(b, func(b *testing.B) (*Store, raw) {
			s, err := Open(context.Background(), Config{DSN: c.Database(b)})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { s.Close() })
			return s, newRawPostgres(b, c.Database(b))
		})
	})
}

// raw writes the rows of n Changes in one durable transaction.
type raw interface{ batch(b *testing.B, n int) }

func benchmarkCommit(b *testing.B, open func(b *testing.B) (*Store, raw)) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s, raw := open(b)
			l := audit.NewLog(audit.Config{Store: s})
			var ours, theirs time.Duration
			done := 0
			const turn = 512
			for done < b.N {
				n := min(turn, b.N-done)
				start := time.Now()
				inParallel(b, callers, n, func(i int64) error {
					e := benchEntry(i)
					return l.Commit(context.Background(), audit.Change{
						Effects: []audit.Effect{benchEffect(e.ID), benchEffect2(e.ID)}, Entries: []audit.Entry{e}})
				})
				ours += time.Since(start)
				before := l.Status()
				size := max(1, int(before.Changes/max(1, before.Batches))) // the batch size the log reached
				start = time.Now()
				for at := 0; at < n; at += size {
					raw.batch(b, min(size, n-at))
				}
				theirs += time.Since(start)
				done += n
			}
			st := l.Status()
			b.ReportMetric(float64(theirs)/float64(ours), "ratio")
			b.ReportMetric(float64(done)/ours.Seconds(), "changes/s")
			b.ReportMetric(float64(done)/theirs.Seconds(), "raw/s")
			b.ReportMetric(float64(st.Changes)/float64(st.Batches), "changes/batch")
			b.ReportMetric(0, "ns/op")
			if err := l.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func benchEntry(i int64) audit.Entry {
	e := audittest.Entry(fmt.Sprint("https://git.example/pull/", i))
	e.Action, e.Sub, e.Grant = audit.Delegate, "01a20d52-b51f-7dcc-a659-02560b4bbf50", "01a20d52-b51f-7dcc-a659-02560b4bbf51"
	e.Path = []string{"orchestrator", "code-reviewer"}
	e.Detail = map[string]any{"via": "mcp", "ttl": 180, "scopes": []string{"repository:read", "pullrequest:read"}}
	return e
}

func benchEffect(id string) audit.Effect {
	return effect(1, `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`, id, "1")
}

func benchEffect2(id string) audit.Effect {
	return effect(1, `UPDATE settings SET value = $2 WHERE name = $1 AND value = $3`, id, "2", "1")
}

// inParallel runs do n times from a number of goroutines.
func inParallel(b *testing.B, callers, n int, do func(i int64) error) {
	var next atomic.Int64
	var wait sync.WaitGroup
	for range callers {
		wait.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(n) {
					return
				}
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// rawWriter writes the rows of a Change with prepared statements and nothing
// else, a batch in a transaction.
type rawWriter struct {
	w    *writer
	next int64
}

func newRaw(b *testing.B) *rawWriter {
	s, err := Open(context.Background(), Config{DSN: "sqlite:" + filepath.Join(b.TempDir(), "raw.db"), MinFree: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return &rawWriter{w: s.writer()}
}

func (r *rawWriter) batch(b *testing.B, n int) {
	exec := func(query string, args ...any) {
		if _, err := r.w.exec(query, args...); err != nil {
			b.Fatal(err)
		}
	}
	exec("BEGIN IMMEDIATE")
	for range n {
		id := audit.NewID()
		exec(rawInsert, id, "1")
		exec(rawUpdate, id, "2", "1")
		exec(rawRecord, rawArgs(r.next, id)...)
		r.next++
	}
	exec(rawHead, r.next, rawLeaf)
	exec("COMMIT")
}

// The raw statements, and the arguments of a record.
const (
	rawInsert = `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	rawUpdate = `UPDATE settings SET value = $2 WHERE name = $1 AND value = $3`
	rawRecord = `INSERT INTO audit_records
		(seq, id, wrote, time, bytes, leaf, path, agent, sub, action, resource, result, grant_id)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`
	rawHead = `UPDATE audit_head SET size = $1, leaf = $2 WHERE one = 1`
	rawLeaf = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
)

func rawArgs(seq int64, id string) []any {
	return []any{seq, id, "server", int64(1_700_000_000_000), rawBytes, rawLeaf, `"orchestrator","code-reviewer",`,
		"operator", "01a20d52-b51f-7dcc-a659-02560b4bbf50", "delegate", fmt.Sprint("https://git.example/pull/", seq),
		"allowed", "01a20d52-b51f-7dcc-a659-02560b4bbf51"}
}

// rawPostgres sends the same to PostgreSQL: a batch of pgx, of statements that
// are prepared by name.
type rawPostgres struct {
	conn *pgx.Conn
	next int64
}

func newRawPostgres(b *testing.B, dsn string) *rawPostgres {
	s, err := Open(context.Background(), Config{DSN: dsn})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(context.Background()) })
	for name, query := range map[string]string{"insert": rawInsert, "update": rawUpdate, "record": rawRecord,
		"head": rawHead, "begin": "BEGIN", "commit": "COMMIT"} {
		if _, err := conn.Prepare(context.Background(), name, query); err != nil {
			b.Fatal(err)
		}
	}
	return &rawPostgres{conn: conn}
}

func (r *rawPostgres) batch(b *testing.B, n int) {
	var batch pgx.Batch
	batch.Queue("begin")
	for range n {
		id := audit.NewID()
		batch.Queue("insert", id, "1")
		batch.Queue("update", id, "2", "1")
		batch.Queue("record", rawArgs(r.next, id)...)
		r.next++
	}
	batch.Queue("head", r.next, rawLeaf)
	batch.Queue("commit")
	if err := r.conn.SendBatch(context.Background(), &batch).Close(); err != nil {
		b.Fatal(err)
	}
}

// rawBytes is as long as the record of benchEntry.
const rawBytes = `{"action":"delegate","agent":"operator","by":"server","detail":{"scopes":["repository:read","pullrequest:read"],"ttl":180,"via":"mcp"},"evidence":"server","grant":"01a20d52-b51f-7dcc-a659-02560b4bbf51","id":"01a20d52-b51f-7dcc-a659-02560b4bbf50","log":"kavach.example:8420/audit/00000000","path":["orchestrator","code-reviewer"],"prev":"47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU","resource":"https://git.example/pull/1","result":"allowed","seq":123456,"sub":"01a20d52-b51f-7dcc-a659-02560b4bbf50","time":1700000000000,"v":1}`
