// SPDX-License-Identifier: Apache-2.0

// Package memory keeps rows of projections in memory: for tests, and to compare what another store has with a fresh fold.
package memory

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"cacert.org/emergency/pkg/projection"
)

// Tables is a projection.Tables in memory. The zero value is empty and ready.
type Tables struct {
	mu       sync.Mutex
	versions map[string]*version
	shown    map[string]int // version that readers look at, by name
}

type version struct {
	at   projection.Position
	rows map[string][]projection.Row // by table, in the order of keys
}

var _ projection.Tables = (*Tables)(nil)

// Open implements projection.Tables.
func (t *Tables) Open(ctx context.Context, d projection.Definition) (projection.Position, error) {
	if err := ctx.Err(); err != nil {
		return projection.Position{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.version(d).at, nil
}

func (t *Tables) version(d projection.Definition) *version {
	if t.versions == nil {
		t.versions, t.shown = map[string]*version{}, map[string]int{}
	}
	v, ok := t.versions[d.ID()]
	if !ok {
		v = &version{rows: map[string][]projection.Row{}}
		t.versions[d.ID()] = v
	}
	return v
}

// Commit implements projection.Tables.
func (t *Tables) Commit(ctx context.Context, d projection.Definition, step projection.Step, changes []projection.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	checked, err := projection.CheckChanges(d, changes)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.version(d)
	if v.at != step.From {
		return &projection.MovedError{ID: d.ID(), Stored: v.at, Wanted: step.From}
	}
	next := map[string][]projection.Row{}
	for _, table := range d.Tables {
		if next[table.Name], err = merge(table, v.rows[table.Name], checked[table.Name]); err != nil {
			return fmt.Errorf("%s.%s: %w", d.ID(), table.Name, err)
		}
	}
	v.rows, v.at = next, step.To
	if step.To.Complete {
		t.shown[d.Name] = max(t.shown[d.Name], d.Version)
	}
	return nil
}

// Build implements projection.Tables.
func (t *Tables) Build(_ context.Context, d projection.Definition, from projection.Position) (projection.Build, error) {
	return projection.AtOnce(t, d, from), nil
}

// merge is the rows after some changes, both in the order of keys.
func merge(t projection.Table, rows []projection.Row, changes []projection.Change) ([]projection.Row, error) {
	out := slices.Clone(rows)
	for _, c := range changes {
		i, found := slices.BinarySearchFunc(out, c.Row, t.Compare)
		switch {
		case found && t.AppendOnly:
			return nil, fmt.Errorf("a row that is there is added again: %v", c.Row[:t.Key])
		case c.Gone && found:
			out = slices.Delete(out, i, i+1)
		case c.Gone:
		case found:
			out[i] = c.Row
		default:
			out = slices.Insert(out, i, c.Row)
		}
	}
	return out, nil
}

// Dump implements projection.Tables.
func (t *Tables) Dump(ctx context.Context, d projection.Definition, w io.Writer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.version(d)
	for _, table := range d.Tables {
		for _, row := range v.rows[table.Name] {
			if err := projection.DumpRow(w, table.Name, row); err != nil {
				return err
			}
		}
	}
	return nil
}

// Shown is the version that readers look at; 0 for none.
func (t *Tables) Shown(name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown[name]
}

// Each calls fn with every row of a table, in the order of its key.
func (t *Tables) Each(ctx context.Context, d projection.Definition, table string, fn func(projection.Row) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	rows := t.version(d).rows[table]
	t.mu.Unlock()
	for _, row := range rows {
		if err := fn(row); err != nil {
			return err
		}
	}
	return nil
}
