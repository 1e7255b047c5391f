package main

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/alecthomas/kong"
)

// TestFirstStartsAtOnce: of several processes that start on an empty folder one
// makes the secret, the schema, the user and the agents, and all become ready.
func TestFirstStartsAtOnce(t *testing.T) {
	for _, mode := range [][]string{nil, {"--dev"}} {
		for range 4 {
			data := filepath.Join(t.TempDir(), "data")
			var all sync.WaitGroup
			for range 5 {
				all.Go(func() {
					var grammar cli
					parser, err := newParser(&grammar, kong.Exit(func(int) {}))
					if err != nil {
						t.Error(err)
						return
					}
					args := append([]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0"}, mode...)
					if _, err := parser.Parse(args); err != nil {
						t.Error(err)
						return
					}
					quiet := &world{ctx: context.Background(), stdin: strings.NewReader(""), stdout: io.Discard, stderr: &lockedBuffer{}, now: now}
					m := &Main{Config: grammar.Serve, world: quiet, Log: slog.New(slog.DiscardHandler)}
					if err := m.Open(context.Background()); err != nil {
						t.Errorf("%v: %v", mode, err)
					}
					if err := m.Close(); err != nil {
						t.Errorf("closing: %v", err)
					}
				})
			}
			all.Wait()
		}
	}
}
