package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// printJSON writes v as one indented JSON value.
func (w *world) printJSON(v any) error {
	e := json.NewEncoder(w.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table prints rows under a heading, aligned, cells made harmless for a
// terminal. An empty cell is "-", so that columns can be cut by scripts.
func (w *world) table(heading []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(heading, "\t"))
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = oneLine(cell)
			if cells[i] == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return tw.Flush()
}

// fields prints one thing as aligned "name  value" lines.
func (w *world) fields(pairs ...string) error {
	tw := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		value := oneLine(pairs[i+1])
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(tw, "%s\t%s\n", pairs[i], value)
	}
	return tw.Flush()
}

// when prints a time for people: UTC, to the second.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// left prints a time to live for people.
func left(d time.Duration) string {
	if d <= 0 {
		return "expired"
	}
	return d.Round(time.Second).String() + " left"
}
