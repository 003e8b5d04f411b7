// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"cacert.org/emergency/pkg/projection"
)

// Build implements projection.Tables: one transaction, into which rows are copied while there are more to come. It has the version's own
// tables to itself meanwhile; readers of the views look at the version before.
func (t *Tables) Build(ctx context.Context, d projection.Definition, from projection.Position) (projection.Build, error) {
	tx, err := t.pool.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", d.ID(), err)
	}
	b := &build{tables: t, tx: tx, d: d, from: from}
	if err := b.begin(ctx); err != nil {
		b.Close()
		return nil, fmt.Errorf("build %s: %w", d.ID(), err)
	}
	return b, nil
}

func (b *build) begin(ctx context.Context) error {
	if err := b.tables.standsAt(ctx, b.tx, b.d, b.from); err != nil {
		return err
	}
	for _, table := range b.d.Tables {
		if err := b.dropKey(ctx, table); err != nil {
			return fmt.Errorf("table %s: %w", table.Name, err)
		}
	}
	return nil
}

// dropKey takes the primary key from a table until Commit: an index of all rows costs a third less than one that each row is added to. Nobody
// else sees the table without it, since the transaction ends with the key or not at all.
func (b *build) dropKey(ctx context.Context, table projection.Table) error {
	name, at := "", quote(b.d.ID(), table.Name)
	err := b.tx.QueryRow(ctx, `SELECT conname FROM pg_constraint WHERE contype = 'p' AND conrelid = $1::regclass`, at).Scan(&name)
	if err != nil {
		return err
	}
	b.keys = append(b.keys, fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s PRIMARY KEY (%s)", at, quote(name), strings.Join(columns(table)[:table.Key], ", ")))
	_, err = b.tx.Exec(ctx, fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s", at, quote(name)))
	return err
}

type build struct {
	tables *Tables
	tx     pgx.Tx
	d      projection.Definition
	from   projection.Position
	keys   []string // SQL that gives the tables their primary keys again
}

// Add implements projection.Build.
func (b *build) Add(ctx context.Context, rows []projection.Change) error {
	checked, err := projection.CheckRows(b.d, rows)
	if err != nil {
		return err
	}
	for _, table := range b.d.Tables {
		if err := copyIn(ctx, b.tx, b.d, table, checked[table.Name]); err != nil {
			return fmt.Errorf("build %s: table %s: %w", b.d.ID(), table.Name, err)
		}
	}
	return nil
}

// Commit implements projection.Build.
func (b *build) Commit(ctx context.Context, to projection.Position, changes []projection.Change) error {
	checked, err := projection.CheckChanges(b.d, changes)
	if err != nil {
		return err
	}
	for _, table := range b.d.Tables {
		if err := copyIn(ctx, b.tx, b.d, table, checked[table.Name]); err != nil {
			return fmt.Errorf("build %s: table %s: %w", b.d.ID(), table.Name, err)
		}
	}
	for _, add := range b.keys {
		if _, err := b.tx.Exec(ctx, add); err != nil {
			return fmt.Errorf("build %s: %w", b.d.ID(), err)
		}
	}
	if err := move(ctx, b.tx, b.d, projection.Step{From: b.from, To: to}); err != nil {
		return fmt.Errorf("build %s to sequence %d: %w", b.d.ID(), to.Sequence, err)
	}
	if err := b.tx.Commit(ctx); err != nil {
		return fmt.Errorf("build %s to sequence %d: %w", b.d.ID(), to.Sequence, err)
	}
	return nil
}

// Close implements projection.Build.
func (b *build) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = b.tx.Rollback(ctx) // or it was committed, or the connection is away and the server does it
}
