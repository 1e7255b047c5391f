package mcp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/mcp"
)

// switchable commits, or commits nothing: what the handler costs without the log.
type switchable struct {
	log audit.Committer
	off atomic.Bool
}

func (s *switchable) Commit(ctx context.Context, c audit.Change) error {
	if s.off.Load() {
		return nil
	}
	return s.log.Commit(ctx, c)
}

// BenchmarkDelegate measures the tool delegate over HTTP, with and without the
// log, in turns within one run: "log/nolog" is the ratio of calls a second.
func BenchmarkDelegate(b *testing.B) {
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			var commit *switchable
			d := newDeployment(b, func(log audit.Committer) audit.Committer {
				commit = &switchable{log: log}
				return commit
			})
			alice := d.user("alice", "member")
			coder := d.enrol(alice, "code-reviewer")
			token := d.signIn(alice, "inspector", []string{git, d.issuer + mcp.Path}, mcp.ScopeDelegate, "repo:read")
			body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delegate","arguments":{"agent":"` + coder + `","scopes":["repo:read"]}}}`
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
			defer client.CloseIdleConnections()
			const turn = 320
			load := func(off bool) time.Duration {
				commit.off.Store(off)
				start := time.Now()
				var done sync.WaitGroup
				for range callers {
					done.Go(func() {
						for range turn / callers {
							if err := callOnce(client, d.url, token, body); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				done.Wait()
				return time.Since(start)
			}
			load(true)
			load(false)
			var nolog, logged time.Duration
			calls := 0
			for b.Loop() {
				nolog += load(true)
				logged += load(false)
				calls += turn
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(nolog)/float64(logged), "log/nolog")
			b.ReportMetric(float64(calls)/logged.Seconds(), "calls/s")
		})
	}
}

func callOnce(client *http.Client, url, token, body string) error {
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("MCP-Protocol-Version", "2025-11-25")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(answer), `"token_id"`)) {
		err = fmt.Errorf("%d %s", resp.StatusCode, answer)
	}
	return err
}
