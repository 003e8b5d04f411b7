// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"cacert.org/emergency/pkg/projection"
)

// Build implements projection.Tables: one transaction, into which rows are copied while there are more to come. Meanwhile nobody else
// builds this version; readers look at the one before.
func (t *Tables) Build(ctx context.Context, d projection.Definition, from projection.Position) (projection.Build, error) {
	tx, err := t.pool.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", d.ID(), err)
	}
	b := &build{tables: t, tx: tx, d: d, from: from}
	if err := t.standsAt(ctx, tx, d, from); err != nil {
		b.Close()
		return nil, fmt.Errorf("build %s: %w", d.ID(), err)
	}
	return b, nil
}

type build struct {
	tables *Tables
	tx     pgx.Tx
	d      projection.Definition
	from   projection.Position
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
