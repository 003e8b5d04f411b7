// SPDX-License-Identifier: Apache-2.0

package projectiontest

import (
	"context"
	"io"
	"slices"

	"cacert.org/emergency/pkg/projection"
)

// plain is a store by the shortest way that can be right: all changes in the order in which they came. It shares no code with
// the stores under test.
type plain struct {
	at      projection.Position
	changes []projection.Change
}

func (p *plain) Open(context.Context, projection.Definition) (projection.Position, error) {
	return p.at, nil
}

func (p *plain) Commit(_ context.Context, _ projection.Definition, step projection.Step, changes []projection.Change) error {
	p.at, p.changes = step.To, append(p.changes, changes...)
	return nil
}

func (p *plain) Build(_ context.Context, d projection.Definition, from projection.Position) (projection.Build, error) {
	return projection.AtOnce(p, d, from), nil
}

func (p *plain) Dump(_ context.Context, d projection.Definition, w io.Writer) error {
	for _, t := range d.Tables {
		var rows []projection.Row
		for _, c := range p.changes {
			if c.Table != t.Name {
				continue
			}
			rows = slices.DeleteFunc(rows, func(r projection.Row) bool { return t.Compare(r, c.Row) == 0 })
			if !c.Gone {
				rows = append(rows, c.Row)
			}
		}
		slices.SortFunc(rows, t.Compare)
		for _, r := range rows {
			if err := projection.DumpRow(w, t.Name, r); err != nil {
				return err
			}
		}
	}
	return nil
}
