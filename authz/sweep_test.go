package authz_test

import (
	"context"
	"errors"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/store/storetest"
)

// sweep does all the housekeeping of a part of the server at once.
func sweep(log audit.Committer, part interface{ Expired() []audit.Expired }) error {
	var errs []error
	if p, ok := part.(interface{ Settle(context.Context) error }); ok {
		errs = append(errs, p.Settle(context.Background()))
	}
	if p, ok := part.(interface {
		Reap(context.Context) (int, error)
	}); ok {
		_, err := p.Reap(context.Background())
		errs = append(errs, err)
	}
	_, err := audit.Prune(context.Background(), log, part.Expired()...)
	return errors.Join(append(errs, err)...)
}

// count asks the database behind everybody's back.
func (f *flows) count(query string, args ...any) int {
	f.t.Helper()
	var n int
	must(f.t, storetest.Outside(f.t, f.dsn).QueryRow(query, args...).Scan(&n))
	return n
}
