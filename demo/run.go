package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/kavach-dev/kavach/guard"
)

// ErrOtherwise: the story did not come out as told.
var ErrOtherwise = errors.New("the story came out otherwise")

// Config says how the story plays. Kavach is needed.
type Config struct {
	// Kavach is the server; it is started, stopped and started again, and
	// stopped at the end.
	Kavach Kavach
	// Listen is where the git host listens. Empty: a free port on loopback.
	Listen string
	// SpillDir is where the git host's reports wait while kavach is stopped.
	// Empty: in memory.
	SpillDir string
	// Transcript, if set, gets every MCP message of the story, one a line: what
	// a model, and whoever keeps its transcript, gets to see.
	Transcript io.Writer
	// Opened and Played are told when the stage is set and after every step, for
	// whoever narrates. Nil: nobody is told.
	Opened func(Scene)
	Played func(Played)
	// Last runs before everything is closed, kavach and git host still serving.
	// A test tries its attacks there.
	Last func(context.Context, Scene) error
	// Need replaces NeedOf at the git host. A test breaks a rule with it and
	// sees the story fail.
	Need func(*http.Request) (guard.Need, error)
	// Now is the clock; the story waits by the real one. Nil: time.Now.
	Now func() time.Time
	// Log takes what operators should see. Nil: it is discarded.
	Log *slog.Logger
}

// Scene is where the story plays.
type Scene struct {
	// Issuer is kavach, GitHost the address that Host's name stands for.
	Issuer  string `json:"issuer"`
	GitHost string `json:"git_host"`
	// CA is the certificate to trust, in PEM.
	CA []byte `json:"-"`
}

// Played is a step that was played.
type Played struct {
	// Act is the title of its part, First whether it begins it.
	Act   string  `json:"act"`
	First bool    `json:"-"`
	Step  string  `json:"step"`
	Told  string  `json:"told"`
	Want  Want    `json:"want"`
	Got   Outcome `json:"got"`
	// OK says that it came out as told.
	OK bool `json:"ok"`
	// Wrong says what was otherwise.
	Wrong string `json:"wrong,omitempty"`
	// Seq is the record of it, −1 if it has none.
	Seq int64 `json:"seq"`
}

// Result is how the story came out.
type Result struct {
	Scene Scene `json:"scene"`
	// OK says that every step, every record and the log are as told.
	OK    bool     `json:"ok"`
	Steps []Played `json:"steps"`
	// Names says who is behind the ids in the trail.
	Names   map[string]string `json:"names"`
	Trail   []Record          `json:"trail"`
	Verdict Verdict           `json:"log"`
	// Wrong lists what is otherwise, steps included.
	Wrong []string `json:"wrong,omitempty"`
}

// Run plays the story. It returns what happened, and an error that wraps
// ErrOtherwise if any of it came out otherwise.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &stage{cfg: cfg}
	result, err := s.play(ctx)
	return result, errors.Join(err, s.close(), cfg.Kavach.Stop())
}

func (s *stage) play(ctx context.Context) (Result, error) {
	var result Result
	if err := s.open(ctx); err != nil {
		return result, err
	}
	result.Scene = Scene{Issuer: s.issuer, GitHost: s.gitAddr, CA: s.authority.PEM()}
	result.Names = s.names()
	if s.cfg.Opened != nil {
		s.cfg.Opened(result.Scene)
	}
	before, err := s.cfg.Kavach.Records(ctx)
	if err != nil {
		return result, fmt.Errorf("reading the log: %w", err)
	}
	for _, act := range Story() {
		for i, step := range act.Steps {
			played := s.step(ctx, step)
			played.Act, played.First = act.Title, i == 0
			result.Steps = append(result.Steps, played)
			if s.cfg.Played != nil {
				s.cfg.Played(played)
			}
			if !played.OK {
				result.Wrong = append(result.Wrong, step.Name+": "+played.Wrong)
			}
			if ctx.Err() != nil {
				return result, ctx.Err()
			}
		}
	}
	if s.cfg.Last != nil {
		if err := s.cfg.Last(ctx, result.Scene); err != nil {
			return result, err
		}
	}
	// The git host ends first: what it has to report is in the log then.
	if err := s.close(); err != nil {
		return result, err
	}
	records, err := s.cfg.Kavach.Records(ctx)
	if err != nil {
		return result, fmt.Errorf("reading the log: %w", err)
	}
	result.Trail = records[len(before):]
	result.Wrong = append(result.Wrong, s.check(result.Steps, result.Trail)...)
	if result.Verdict, err = s.cfg.Kavach.VerifyLog(ctx); err != nil {
		return result, fmt.Errorf("verifying the log: %w", err)
	}
	if !result.Verdict.OK {
		result.Wrong = append(result.Wrong, "the log does not hold: "+result.Verdict.Summary)
	}
	result.OK = len(result.Wrong) == 0
	if !result.OK {
		return result, fmt.Errorf("%w in %d places, first: %s", ErrOtherwise, len(result.Wrong), result.Wrong[0])
	}
	return result, nil
}

// step plays one step and compares it with what was told.
func (s *stage) step(ctx context.Context, step Step) Played {
	played := Played{Step: step.Name, Told: step.Told, Want: step.Want, Seq: -1}
	strays := s.strays.Load()
	s.unsent = nil
	got, err := step.run(ctx, s)
	played.Got = got
	want := step.Want
	switch {
	case err != nil:
		played.Wrong = err.Error()
	case s.strays.Load() != strays:
		played.Wrong = "a connection was opened to somewhere else"
	case s.unsent != nil:
		played.Wrong = s.unsent.Error()
	case got.Status != want.Status:
		played.Wrong = fmt.Sprintf("status %d, not %d", got.Status, want.Status)
	case got.Challenge != want.Challenge || got.Error != want.Error:
		played.Wrong = fmt.Sprintf("it says %s %s, not %s %s", got.Challenge, got.Error, want.Challenge, want.Error)
	case want.Where == AtRuntime && got.Reason != want.Reason:
		played.Wrong = fmt.Sprintf("the runtime says %q, not %s", got.Reason, want.Reason)
	default:
		played.OK = true
	}
	return played
}

// names says who is behind an id.
func (s *stage) names() map[string]string {
	names := map[string]string{}
	for _, one := range s.cast {
		names[one.ID] = one.Manifest.Name
	}
	return names
}
