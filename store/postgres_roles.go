package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/kavach-dev/kavach/migrations"
)

// pgNoObject is the SQLSTATE of a role that does not exist.
const pgNoObject = "42704"

var (
	// ErrNoRoles: the database has no roles to give anything to.
	ErrNoRoles = fmt.Errorf("%w: only PostgreSQL has roles", ErrStore)
	// ErrNoRole: the database has no such role.
	ErrNoRole = fmt.Errorf("%w: the database has no such role", ErrStore)
	// ErrOwner: the role owns the tables, and would lose what it has.
	ErrOwner = fmt.Errorf("%w: the role is the one that is connected", ErrStore)
)

// GrantServing gives a role of PostgreSQL what a server needs, takes from it what it
// needs not (migrations/roles.postgres.sql), and does it again after every
// migration. The store is open as the owner of the tables.
func (s *Store) GrantServing(ctx context.Context, role string) error {
	w, ok := s.write.(*postgresWriter)
	if !ok {
		return ErrNoRoles
	}
	statements, err := migrations.Grants(pgx.Identifier{role}.Sanitize())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.connect(ctx); err != nil {
		return fmt.Errorf("%w: granting: %w", ErrStore, err)
	}
	ddl := &postgresDDL{ctx: ctx, link: w.link}
	err = ddl.transact(func() error {
		same := 0
		if err := ddl.query(func([][]byte) error { same++; return nil }, `SELECT 1 WHERE current_user = CAST($1 AS TEXT)`, role); err != nil {
			return err
		}
		if same > 0 {
			return ErrOwner
		}
		for _, statement := range statements {
			if err := w.link.conn.ExecParams(ctx, statement, nil, nil, nil, nil).Read().Err; err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err == nil, errors.Is(err, ErrOwner):
		return err
	case pgCode(err) == pgNoObject:
		return ErrNoRole
	}
	return fmt.Errorf("%w: granting: %w", ErrStore, err)
}
