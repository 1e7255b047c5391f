package main

import (
	"errors"
	"fmt"

	"github.com/kavach-dev/kavach/conformance"
)

type conformanceCmds struct {
	Delegation conformanceDelegationCmd `cmd:"" help:"Decide a file of test vectors for chains: ours, or those of the draft."`
}

// maxVectors bounds a file of vectors.
const maxVectors = 64 << 20

// conformanceDelegationCmd runs vectors, so that whoever writes another
// verifier sees what this one says to the same bytes.
type conformanceDelegationCmd struct {
	Vectors string `required:"" placeholder:"FILE" help:"The vectors: kdt1.json or aat02.json of delegation/testdata, or a file of either format; - is standard input."`
	Failed  bool   `help:"Print only the vectors that are not decided as expected."`
	jsonFlag
}

// Run exits with status 1 on any mismatch.
func (c *conformanceDelegationCmd) Run(w *world) error {
	data, err := w.readUpTo(c.Vectors, maxVectors)
	if err != nil {
		return err
	}
	file, err := conformance.Parse(data)
	if err != nil {
		return withHint(fmt.Errorf("reading the vectors %s: %w", c.Vectors, err), "the formats are those of delegation/testdata/aat02.json and kdt1.json")
	}
	results, err := file.Run()
	if err != nil {
		return fmt.Errorf("running the vectors %s: %w", c.Vectors, err)
	}
	wrong, shown := 0, []conformance.Result{}
	for _, r := range results {
		if !r.OK {
			wrong++
		}
		if !r.OK || !c.Failed {
			shown = append(shown, r)
		}
	}
	if err := c.print(w, file.Profile, shown, len(results), wrong); err != nil {
		return err
	}
	switch failure := fmt.Errorf("%d of %d vectors are not decided as expected", wrong, len(results)); {
	case len(results) == 0:
		return errors.New("there is no vector in the file")
	case wrong > 0 && c.JSON:
		return &silentError{failure}
	case wrong > 0:
		return failure
	}
	return nil
}

func (c *conformanceDelegationCmd) print(w *world, profile string, shown []conformance.Result, all, wrong int) error {
	if c.JSON {
		return w.printJSON(map[string]any{"profile": profile, "vectors": all, "mismatches": wrong, "results": shown})
	}
	rows := make([][]string, len(shown))
	for i, r := range shown {
		ok := "ok"
		if !r.OK {
			ok = "MISMATCH: " + r.Difference
		}
		rows[i] = []string{r.ID, r.Verdict, r.Decided, r.ExpectedVerdict, r.Expected, ok}
	}
	if len(rows) > 0 {
		if err := w.table([]string{"VECTOR", "VERDICT", "DECIDED BY", "EXPECTED", "BY", "OK"}, rows); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w.stderr, "%s: %d vectors, %d as expected\n", profile, all, all-wrong)
	return err
}
