package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/kavach-dev/kavach/audit"
)

// begin names the isolation that the guards rely on: a statement sees what is
// committed when it runs.
const begin = `BEGIN ISOLATION LEVEL READ COMMITTED`

// mostSavepoints is how many savepoints a transaction has at most: beyond 64
// the server keeps them where everybody else has to look (design D4).
const mostSavepoints = 60

// windowAfterLoss is how many Changes are sent at once behind a loser. It
// doubles as long as none loses.
const windowAfterLoss = 8

// pgTransaction is one batch on the writer.
type pgTransaction struct {
	*postgresWriter
	log string
	now int64
}

// commit sends the list and COMMIT behind it. A brokenRequest names what failed
// of the list, and nothing is committed then. ErrUnknown: nobody knows.
func (w *postgresWriter) commit(ctx context.Context, list []request) ([]pgconn.CommandTag, error) {
	at := len(list)
	list = append(list, ask(`COMMIT`))
	if err := w.link.prepare(ctx, list); err != nil {
		return nil, err
	}
	w.link.warned.Store(false)
	tags, err := w.link.run(ctx, list)
	var broken *brokenRequest
	switch {
	case err == nil && tags[at].String() != "COMMIT":
		// Of a transaction that failed COMMIT answers ROLLBACK and no error.
		return nil, fmt.Errorf("%w: COMMIT answers %s", ErrStore, tags[at])
	case err == nil && w.link.warned.Load():
		// "The transaction has already committed locally, but might not have been
		// replicated": somebody ended the wait for a standby.
		w.disconnect()
		return nil, fmt.Errorf("%w: the server warns of what it committed", audit.ErrUnknown)
	case err == nil:
		w.used = time.Now()
		return tags, nil
	case errors.As(err, &broken) && (broken.at < at || !isFatal(err)):
		// It says how far it came.
	case pgconn.SafeToRetry(err):
		err = fmt.Errorf("%w: %w", errAgain, err)
	default:
		err = fmt.Errorf("%w: %w", audit.ErrUnknown, err)
	}
	if w.link.broken() {
		w.disconnect()
	}
	return nil, err
}

// rollback ends the transaction with nothing of it left.
func (w *postgresWriter) rollback(ctx context.Context) {
	w.known = false
	if w.link == nil {
		return
	}
	if w.link.conn.TxStatus() == 'I' {
		return
	}
	if _, err := w.link.exec(ctx, `ROLLBACK`); err != nil {
		w.disconnect()
	}
}

// failure is a failure of the database as a whole, marked if the batch is to be
// run again. The connection goes unless the server only said no.
func (w *postgresWriter) failure(doing string, err error) error {
	err = fmt.Errorf("%s: %w", doing, err)
	if errors.Is(err, audit.ErrUnknown) || errors.Is(err, errAgain) {
		return err
	}
	switch code := pgCode(err); {
	case code == pgSerialize || code == pgDeadlock:
		return fmt.Errorf("%w: %w", errAgain, err)
	case code == pgReadOnly || code == pgNoStatement || code == pgStalePlan:
		// A server that became a standby, a session that is not ours.
		w.disconnect()
		return fmt.Errorf("%w: %w", errAgain, err)
	case w.link == nil || w.link.broken():
		w.disconnect()
		return fmt.Errorf("%w: %w", errAgain, err)
	}
	return err
}

// logFailure is failure for a statement of the log's own tables.
func (w *postgresWriter) logFailure(doing string, err error) error {
	if code := pgCode(err); code != pgNoLock && isPostgres(err) {
		return w.failure(doing, err)
	}
	return fmt.Errorf("%w: %s: %w", audit.ErrLogRefused, doing, err)
}

// lockHead begins a transaction and takes the lock of the head.
func (t *pgTransaction) lockHead(ctx context.Context) error {
	rows, closed := 0, ""
	look := ask(`SELECT size, leaf, closed FROM audit_head WHERE one = 1 FOR UPDATE`)
	look.row = func(row [][]byte) (err error) {
		rows++
		t.head.Size, err = strconv.ParseInt(string(row[0]), 10, 64)
		t.head.Leaf, closed = string(row[1]), string(row[2])
		return err
	}
	if _, err := t.link.run(ctx, []request{ask(begin), look}); err != nil {
		return t.logFailure("taking the head", err)
	}
	if rows != 1 {
		return fmt.Errorf("%w: the log has no head", audit.ErrLogRefused)
	}
	if closed != t.admitted {
		return closedError(closed)
	}
	t.known = true
	return nil
}

// guardHead makes a transaction fail unless the head is where we left it.
func (t *pgTransaction) guardHead() request {
	return ask(`SELECT 1/count(*) FROM (SELECT 1 FROM audit_head
		WHERE one = 1 AND size = $1 AND leaf = $2 AND closed = $3 FOR UPDATE) AS h`,
		t.head.Size, t.head.Leaf, t.admitted)
}

// effects appends the statements of a Change.
func appendEffects(list []request, effects []audit.Effect) ([]request, error) {
	for _, e := range effects {
		stmt, ok := e.(*statement)
		if !ok {
			return nil, fmt.Errorf("%w: effect %T is not of this store", ErrStore, e)
		}
		r := must(stmt.rows, stmt.query, stmt.args...)
		if r.bad != nil {
			return nil, r.bad
		}
		list = append(list, r)
	}
	return list, nil
}

// records appends the statements that write records and move the head.
func (t *pgTransaction) records(list []request, to audit.Head, records []audit.Record) []request {
	if len(records) == 0 {
		return list
	}
	var seq, lidSeq, exp []int64
	text := make([][]string, 11)
	var lids, roles []string
	for _, r := range records {
		seq = append(seq, r.Seq)
		for i, s := range []string{r.ID, r.By, string(r.Bytes), r.Leaf, r.Path, r.Agent, r.Sub, string(r.Action), r.Resource, string(r.Result), r.Grant} {
			text[i] = append(text[i], s)
		}
		for _, m := range r.Mentions {
			lids, roles = append(lids, m.ID), append(roles, string(m.Role))
			lidSeq, exp = append(lidSeq, r.Seq), append(exp, m.Expires)
		}
	}
	list = append(list, ask(`WITH h AS (UPDATE audit_head SET size = $1, leaf = $2 WHERE one = 1 AND size = $3 AND leaf = $4 RETURNING 1),
		r AS (INSERT INTO audit_records
			(seq, id, wrote, time, bytes, leaf, path, agent, sub, action, resource, result, grant_id)
			SELECT u.seq, u.id, u.wrote, $5, u.bytes, u.leaf, u.path, u.agent, u.sub, u.action, u.resource, u.result, u.grant_id
			FROM unnest($6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
				$13::text[], $14::text[], $15::text[], $16::text[], $17::text[])
				AS u(seq, id, wrote, bytes, leaf, path, agent, sub, action, resource, result, grant_id), h RETURNING 1)
		SELECT 1/(count(*)=$18)::int FROM r`,
		to.Size, to.Leaf, t.head.Size, t.head.Leaf, t.now, seq, text[0], text[1], text[2], text[3], text[4],
		text[5], text[6], text[7], text[8], text[9], text[10], len(records)))
	if len(lids) > 0 {
		list = append(list, ask(`WITH l AS (INSERT INTO audit_lids (lid, role, seq, exp)
			SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) RETURNING 1)
			SELECT 1/(count(*)=$5)::int FROM l`, lids, roles, lidSeq, exp, len(lids)))
	}
	return list
}

// recordFailure says why records were not written.
func (t *pgTransaction) recordFailure(err error) error {
	if e := pgError(err); e != nil && e.Code == pgUnique && e.ConstraintName == "audit_records_id" {
		return audit.ErrDuplicate
	}
	return t.logFailure("inserting records", err)
}

// whole runs a batch as if every Change wins, in one pipeline.
func (t *pgTransaction) whole(ctx context.Context, batch []audit.Write) ([]audit.Outcome, error) {
	if err := t.connect(ctx); err != nil {
		return nil, err
	}
	guard := t.known && t.locking == 0
	var list []request
	if guard {
		list = append(list, ask(begin), t.guardHead())
	}
	first := len(list)
	ends := make([]int, len(batch)) // of the statements of each Write
	for i := range batch {
		var err error
		if list, err = appendEffects(list, batch[i].Effects); err != nil {
			return nil, &audit.BrokenError{Index: i, Err: err}
		}
		ends[i] = len(list)
	}
	last := len(list)
	owner := func(at int) int {
		for i, end := range ends {
			if at < end {
				return i
			}
		}
		return -1
	}
	if err := t.prepareAll(ctx, list, first, owner); err != nil {
		return nil, err
	}
	if !guard {
		if t.locking > 0 {
			t.locking--
		}
		if err := t.lockHead(ctx); err != nil {
			t.rollback(ctx)
			return nil, err
		}
	}
	seq := audit.NewSequencer(t.log, t.head, t.now)
	outcomes := make([]audit.Outcome, len(batch))
	var records []audit.Record
	for i := range batch {
		from := len(records)
		for _, d := range batch[i].Drafts {
			records = append(records, seq.Next(d))
		}
		outcomes[i].Records = records[from:len(records):len(records)]
	}
	list = t.records(list, seq.Head(), records)
	_, err := t.commit(ctx, list)
	if err == nil {
		t.head, t.known = seq.Head(), true
		return outcomes, nil
	}
	t.rollback(ctx)
	if errors.Is(err, audit.ErrUnknown) {
		return outcomes, err
	}
	var broken *brokenRequest
	if !errors.As(err, &broken) {
		return nil, t.failure("writing a batch", err)
	}
	switch at := broken.at; {
	case at < first && pgCode(err) == pgDivision:
		return nil, errHeadMoved
	case at < first:
		return nil, t.logFailure("taking the head", err)
	case at < last && isPostgres(err):
		return nil, t.failure("running a change", err)
	case at < last:
		return nil, errLoser
	case at < len(list):
		return nil, t.recordFailure(err)
	}
	return nil, t.failure("committing", err)
}
