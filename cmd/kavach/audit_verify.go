package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/store"
)

// auditVerifyCmd recomputes the log. It opens the database read-only, so it
// may run on a copy and needs no secret.
type auditVerifyCmd struct {
	Log string `name:"log-id" placeholder:"ID" help:"The id the log must have, kept from an earlier run (whatever the database says)."`
	placeFlags
	jsonFlag
}

// auditReport is what `audit verify --json` prints.
type auditReport struct {
	OK        bool           `json:"ok"`
	Log       string         `json:"log"`
	Size      int64          `json:"size"`
	Head      string         `json:"head"`
	Records   int64          `json:"records"`
	Bytes     int64          `json:"bytes"`
	Findings  []auditFinding `json:"findings"`
	Truncated bool           `json:"truncated,omitempty"`
}

type auditFinding struct {
	Kind  string `json:"kind"`
	First int64  `json:"first"`
	Last  int64  `json:"last"`
	Note  string `json:"note"`
}

func (c *auditVerifyCmd) Run(w *world) error {
	if err := c.resolve(); err != nil {
		return err
	}
	start := time.Now()
	report, err := verifyLog(w.ctx, c.placeFlags, audit.VerifyConfig{Log: c.Log, Progress: w.progress("verifying the log")})
	if err != nil {
		return err
	}
	if c.JSON {
		if err := w.printJSON(report); err != nil {
			return err
		}
	} else if err := report.print(w, time.Since(start)); err != nil {
		return err
	}
	if !report.OK {
		err := fmt.Errorf("the log does not hold: %s", report.summary())
		if c.JSON {
			return &silentError{err}
		}
		return err
	}
	return nil
}

// verifyLog recomputes the log of a place, which it opens read-only.
func verifyLog(ctx context.Context, place placeFlags, cfg audit.VerifyConfig) (auditReport, error) {
	config := place.storeConfig()
	config.ReadOnly = true
	s, err := store.Open(ctx, config)
	if err != nil {
		return auditReport{}, openError(place.DB, err)
	}
	defer s.Close()
	found, err := audit.Verify(ctx, s, cfg)
	if err != nil {
		return auditReport{}, fmt.Errorf("reading the log: %w", plain(err))
	}
	report := auditReport{
		OK: found.OK(), Log: found.Log, Size: found.Size, Head: found.Head, Records: found.Records, Bytes: found.Bytes,
		Findings: []auditFinding{}, Truncated: found.Truncated,
	}
	for _, f := range found.Findings {
		report.Findings = append(report.Findings, auditFinding{Kind: string(f.Kind), First: f.First, Last: f.Last, Note: f.Note})
	}
	return report, nil
}

// print shows the report to a person.
func (r *auditReport) print(w *world, took time.Duration) error {
	verdict := "intact"
	if !r.OK {
		verdict = "DAMAGED"
	}
	err := w.fields("log", r.Log, "records", fmt.Sprint(r.Size), "head", r.Head, "verdict", verdict,
		"read", fmt.Sprintf("%d records, %d bytes, %.1f s", r.Records, r.Bytes, took.Seconds()))
	if err != nil || r.OK {
		return err
	}
	fmt.Fprintln(w.stdout)
	rows := [][]string{}
	for _, f := range r.Findings {
		rows = append(rows, []string{span(f), f.Kind, f.Note})
	}
	if r.Truncated {
		rows = append(rows, []string{"…", "", "there is more"})
	}
	return w.table([]string{"SEQ", "WHAT", "HOW IT SHOWED"}, rows)
}

// summary counts the findings by kind, in order of appearance.
func (r *auditReport) summary() string {
	var kinds []string
	count := map[string]int{}
	for _, f := range r.Findings {
		if count[f.Kind] == 0 {
			kinds = append(kinds, f.Kind)
		}
		count[f.Kind]++
	}
	for i, kind := range kinds {
		kinds[i] = fmt.Sprintf("%d %s", count[kind], kind)
	}
	if len(kinds) == 0 {
		return "it could not be read to its end"
	}
	return strings.Join(kinds, ", ")
}

// span shows which records a finding covers.
func span(f auditFinding) string {
	if f.First == f.Last {
		return fmt.Sprint(f.First)
	}
	return fmt.Sprintf("%d–%d", f.First, f.Last)
}

// progress shows how far something is, on a terminal, once it takes longer
// than two seconds. It returns nil where there is nobody to see it.
func (w *world) progress(what string) func(done, of int64) {
	f, ok := w.stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	start := time.Now()
	var shown time.Time
	return func(done, of int64) {
		took := time.Since(start)
		if took < 2*time.Second || (time.Since(shown) < 200*time.Millisecond && done < of) {
			return
		}
		shown = time.Now()
		fmt.Fprintf(f, "\rkavach: %s: %d of %d, %.0f/s ", what, done, of, float64(done)/took.Seconds())
		if done >= of {
			fmt.Fprintln(f)
		}
	}
}
