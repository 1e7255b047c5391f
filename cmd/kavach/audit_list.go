package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

type auditCmds struct {
	List   auditListCmd   `cmd:"" help:"Find entries of the log."`
	Verify auditVerifyCmd `cmd:"" help:"Recompute the whole log and say what is wrong with it."`
}

// auditListCmd asks the log (audit.md §4). The operator at the database sees
// all of it.
type auditListCmd struct {
	Agent    string `placeholder:"ID" help:"Who acted, by id."`
	Action   string `placeholder:"VERB" help:"What was done, such as delegate or token.issue."`
	Result   string `placeholder:"RESULT" help:"allowed, denied or failed."`
	Resource string `placeholder:"ID" help:"What it was done to."`
	Sub      string `placeholder:"ID" help:"On whose authority, by id."`
	Grant    string `placeholder:"GID" help:"Under which grant."`
	LID      string `name:"lid" placeholder:"LID" help:"Which token or link, in the chain, its ancestry or what was issued."`
	Since    string `placeholder:"TIME" help:"Not before: RFC 3339, a date, or a span ago such as 2h."`
	Until    string `placeholder:"TIME" help:"Not after."`
	Prefix   string `name:"q" placeholder:"TEXT" help:"Resource begins with this."`
	Oldest   bool   `name:"oldest-first" help:"Oldest first (newest first)."`
	Limit    int    `default:"50" help:"How many (${default}, at most 500)."`
	Cursor   string `placeholder:"CURSOR" help:"Go on after a page: what the page before printed."`
	placeFlags
	jsonFlag
}

func (c *auditListCmd) Run(w *world) error {
	since, err := parseTime(c.Since, w.now())
	if err != nil {
		return usage(fmt.Errorf("--since %w", err), "")
	}
	until, err := parseTime(c.Until, w.now())
	if err != nil {
		return usage(fmt.Errorf("--until %w", err), "")
	}
	if c.Limit < 1 || c.Limit > 500 {
		return usagef("", "--limit %d is not between 1 and 500", c.Limit)
	}
	switch c.Result {
	case "", audit.Allowed, audit.Denied, audit.Failed:
	default:
		return usagef("write allowed, denied or failed", "--result %q is no result", c.Result)
	}
	if c.Action != "" && !audit.KnownAction(c.Action) {
		return usagef("docs/audit-log.md lists them", "--action %q is no action", c.Action)
	}
	d, err := c.openStore(w)
	if err != nil {
		return err
	}
	defer d.close()
	secrets, err := c.cursorSecrets(w, d)
	if err != nil {
		return err
	}
	page, err := audit.NewReader(audit.ReaderConfig{Store: d.store, Secrets: secrets}).Entries(w.ctx, audit.Query{
		Sight: audit.Sight{All: true}, Agent: c.Agent, Action: c.Action, Result: c.Result, Resource: c.Resource,
		Sub: c.Sub, Grant: c.Grant, LID: c.LID, Prefix: c.Prefix, Since: since, Until: until,
		Ascending: c.Oldest, Limit: c.Limit, Cursor: c.Cursor,
	})
	if errors.Is(err, audit.ErrCursor) {
		return usagef("take it, with the flags it came with, from the page before", "--cursor %q continues no page", c.Cursor)
	}
	if err != nil {
		return fmt.Errorf("reading the log: %w", plain(err))
	}
	if c.JSON {
		return w.printRecords(page)
	}
	rows := make([][]string, len(page.Entries))
	for i, e := range page.Entries {
		rows[i] = []string{
			strconv.FormatInt(e.Seq, 10), when(time.UnixMilli(e.Time)), e.Entry.Action, e.Entry.Result, e.Entry.Reason,
			strings.Join(e.Entry.Path, " → "), e.Entry.Agent, e.Entry.Resource,
		}
	}
	if err := w.table([]string{"SEQ", "TIME", "ACTION", "RESULT", "REASON", "PATH", "AGENT", "RESOURCE"}, rows); err != nil {
		return err
	}
	if len(page.Entries) == 0 {
		for _, asked := range []struct{ flag, value, list string }{
			{"agent", c.Agent, "agent list` and `kavach client list"}, {"sub", c.Sub, "user list"},
		} {
			if asked.value != "" {
				w.note("hint: --%s is an id: `kavach %s` show them", asked.flag, asked.list)
			}
		}
	}
	if page.Next != "" {
		w.note("hint: there is more: --cursor %s", page.Next)
	}
	return nil
}

// printRecords prints records byte for byte as they were written and hashed,
// one a line, inside one JSON value.
func (w *world) printRecords(page audit.Page) error {
	next, err := json.Marshal(page.Next)
	if err != nil {
		return err
	}
	b := []byte(`{"entries":[`)
	for i, e := range page.Entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, '\n'), e.Bytes...)
	}
	b = append(append(append(b, "\n],\"next_cursor\":"...), next...), "}\n"...)
	_, err = w.stdout.Write(b)
	return err
}

// cursorSecrets are what signs cursors: the server's, so that a page can be
// continued there. Reading the log needs no secret otherwise; without one (nil)
// a cursor is good for nothing but is not needed for one page either.
func (c *auditListCmd) cursorSecrets(w *world, d *deployment) (func() [][]byte, error) {
	sealed, err := d.store.Keys(w.ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the keys: %w", err)
	}
	if _, err := os.Stat(d.SecretFile); err != nil || len(sealed) == 0 {
		return nil, nil
	}
	if err := d.unlock(w.ctx, w, false); err != nil {
		return nil, err
	}
	return d.keys.Cursor, nil
}

// parseTime reads a point in time in Unix milliseconds, 0 for "".
func parseTime(text string, now time.Time) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago).UnixMilli(), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05Z", "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UnixMilli(), nil
		}
	}
	return 0, fmt.Errorf("%q is no time: write 2026-07-28T12:00:00Z, 2026-07-28 or 2h", text)
}
