package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/demo"
)

// demoCmd plays the case study against servers of its own.
type demoCmd struct {
	Transcript string `placeholder:"FILE" help:"Write the MCP messages of the story into a new file, one a line."`
	jsonFlag

	// change lets a test break a rule.
	change func(*demo.Config)
}

// Run plays the story: exit status 0 only if all of it came out as told.
func (c *demoCmd) Run(w *world) error {
	folder, err := os.MkdirTemp("", "kavach-demo-")
	if err != nil {
		return fmt.Errorf("making a folder for the demo: %w", pathCause(err))
	}
	defer os.RemoveAll(folder)
	log := slog.New(slog.NewTextHandler(w.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	cfg := demo.Config{
		Kavach:   &demoServer{w: w, folder: filepath.Join(folder, "kavach"), log: log},
		SpillDir: filepath.Join(folder, "git-reports"), Now: w.now,
	}
	var transcript *printed
	if c.Transcript != "" {
		f, err := os.OpenFile(c.Transcript, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return taken(c.Transcript)
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", c.Transcript, pathCause(err))
		}
		defer f.Close()
		transcript = &printed{to: f}
		cfg.Transcript = transcript
	}
	// A reader that goes away (`kavach demo | head`) ends the story, not the
	// process: the folder has to be deleted.
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	ctx, unread := context.WithCancelCause(w.ctx)
	defer unread(nil)
	narrator := &demo.Narrator{Out: heardWriter{w.stdout, unread}, Color: w.onTerminal()}
	if !c.JSON {
		cfg.Opened, cfg.Played = narrator.Open, narrator.Played
	}
	if c.change != nil {
		c.change(&cfg)
	}
	result, err := demo.Run(ctx, cfg)
	if w.ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, demo.ErrOtherwise) {
		return fmt.Errorf("playing the story: %w", err)
	}
	if c.JSON {
		if err := w.printJSON(result); err != nil {
			return err
		}
	} else {
		narrator.Close(result)
	}
	if err != nil {
		return &silentError{err}
	}
	if transcript != nil {
		if failed := transcript.failed.Load(); failed != nil {
			return fmt.Errorf("writing %s: %w", c.Transcript, pathCause(*failed))
		}
	}
	return nil
}

// heardWriter tells when nobody reads any more.
type heardWriter struct {
	to     io.Writer
	unread context.CancelCauseFunc
}

func (r heardWriter) Write(text []byte) (int, error) {
	n, err := r.to.Write(text)
	if err != nil {
		r.unread(printingFailed(err))
	}
	return n, err
}

// onTerminal says whether a person reads stdout as it comes.
func (w *world) onTerminal() bool {
	out := w.stdout
	if p, ok := out.(*printed); ok {
		out = p.to
	}
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// demoTries and demoPause bound the wait for the port that kavach served on
// before it was stopped.
const (
	demoTries = 50
	demoPause = 100 * time.Millisecond
)

// demoServer is a whole `kavach serve` with a folder of its own. It implements
// demo.Kavach.
type demoServer struct {
	w      *world
	folder string
	log    *slog.Logger

	main   *Main
	listen string // where it served before
	stop   context.CancelFunc
	ended  chan error
}

// Start implements demo.Kavach.
func (d *demoServer) Start(ctx context.Context) error {
	var c serveCmd
	if err := kong.ApplyDefaults(&c, kong.Resolvers()); err != nil {
		return err
	}
	c.Data, c.Listen, c.Ops = d.folder, "127.0.0.1:0", "127.0.0.1:0"
	if d.listen != "" {
		c.Listen = d.listen
	}
	if err := c.check(); err != nil {
		return err
	}
	quiet := *d.w
	quiet.stderr = io.Discard // the story says what there is to say
	m := &Main{Config: c, world: &quiet, Log: d.log}
	err := m.Open(ctx)
	for tries := 0; tries < demoTries && d.listen != "" && errors.Is(err, syscall.EADDRINUSE); tries++ {
		// Somebody's outgoing connection has the port for a moment.
		time.Sleep(demoPause)
		err = m.Open(ctx)
	}
	if err != nil {
		return errors.Join(err, m.Close())
	}
	d.main, d.listen = m, m.Public.String()
	// It is stopped by the story, whose context ends with an interrupt.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop, d.ended = stop, make(chan error, 1)
	go func() { d.ended <- m.Serve(serving) }()
	return nil
}

// Stop implements demo.Kavach.
func (d *demoServer) Stop() error {
	if d.main == nil {
		return nil
	}
	d.stop()
	err := errors.Join(<-d.ended, d.main.Close())
	d.main = nil
	return err
}

// Issuer implements demo.Kavach.
func (d *demoServer) Issuer() string { return d.main.Issuer }

// errStopped: a question to a server that does not run.
var errStopped = errors.New("kavach is stopped")

// Records implements demo.Kavach.
func (d *demoServer) Records(ctx context.Context) ([]demo.Record, error) {
	if d.main == nil {
		return nil, errStopped
	}
	reader := audit.NewReader(audit.ReaderConfig{Store: d.main.d.store})
	q := audit.Query{Sight: audit.Sight{All: true}, Ascending: true, Limit: 500}
	var all []demo.Record
	for {
		page, err := reader.Entries(ctx, q)
		if err != nil {
			return nil, plain(err)
		}
		for _, s := range page.Entries {
			e := s.Entry
			method, _ := e.Detail["method"].(string)
			all = append(all, demo.Record{
				Seq: s.Seq, By: e.By, Evidence: e.Evidence, Path: e.Path, Agent: e.Agent, Action: e.Action,
				Method: method, Resource: e.Resource, Result: e.Result, Reason: e.Reason,
			})
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return all, nil
		}
	}
}

// VerifyLog implements demo.Kavach.
func (d *demoServer) VerifyLog(ctx context.Context) (demo.Verdict, error) {
	if d.main == nil {
		return demo.Verdict{}, errStopped
	}
	report, err := verifyLog(ctx, d.main.d.placeFlags, audit.VerifyConfig{})
	if err != nil {
		return demo.Verdict{}, err
	}
	verdict := demo.Verdict{OK: report.OK, Log: report.Log, Records: report.Size, Head: report.Head}
	if !report.OK { // summary is for damage alone
		verdict.Summary = report.summary()
	}
	return verdict, nil
}

// Prepare implements demo.Kavach: what an operator does beforehand.
func (d *demoServer) Prepare(ctx context.Context, cast []demo.Candidate) error {
	if d.main == nil {
		return errStopped
	}
	owner, err := d.main.parts.people.EnsureDev(ctx)
	if err != nil {
		return fmt.Errorf("making the person who answers for the agents: %w", err)
	}
	stage := theStage{deployment: d.main.d, agents: d.main.parts.agents, by: byOperator}
	for _, one := range cast {
		if err := stage.register(ctx, owner.ID, one); err != nil {
			return err
		}
	}
	return stage.grant(ctx, cast)
}
