// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cacert.org/emergency/pkg/projection"
)

// invalidTableDefinition is PostgreSQL's code for a view that may not be replaced by one with other columns.
const invalidTableDefinition = "42P16"

// show makes the views of a projection stand for a version, unless a newer one is complete already. Readers see the old
// version until the transaction ends. A view whose columns stay, or which only gets more, is replaced in place, and keeps its
// grants and what operators built on it. Else it is made anew; where something was built on it PostgreSQL refuses and says
// what, because nothing of an operator's is ever dropped unasked.
func show(ctx context.Context, tx pgx.Tx, d projection.Definition) error {
	var newer bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM projections.positions WHERE name = $1 AND version > $2 AND complete)`, d.Name, d.Version).Scan(&newer); err != nil || newer {
		return err
	}
	if _, err := tx.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+quote(d.Name)); err != nil {
		return fmt.Errorf("show %s: %w", d.ID(), err)
	}
	relations, err := relationsOf(ctx, tx, d.ID())
	if err != nil {
		return fmt.Errorf("show %s: %w", d.ID(), err)
	}
	if err := dropOthers(ctx, tx, d.Name, relations); err != nil {
		return fmt.Errorf("show %s: %w", d.ID(), err)
	}
	for _, r := range relations {
		if err := r.show(ctx, tx, d); err != nil {
			return fmt.Errorf("show %s.%s: %w", d.ID(), r.name, err)
		}
	}
	return nil
}

// relation is a table or view of a version, with its comments.
type relation struct {
	name, comment string
	columns       []comment
}

type comment struct{ column, text string }

func relationsOf(ctx context.Context, tx pgx.Tx, schema string) ([]relation, error) {
	rows, err := tx.Query(ctx, `
		SELECT c.relname, coalesce(obj_description(c.oid, 'pg_class'), ''), a.attname, coalesce(col_description(c.oid, a.attnum), '')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE n.nspname = $1 AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> 'goose_db_version'
		ORDER BY c.relname, a.attnum`, schema)
	if err != nil {
		return nil, err
	}
	var list []relation
	var name, about string
	var col comment
	_, err = pgx.ForEachRow(rows, []any{&name, &about, &col.column, &col.text}, func() error {
		if len(list) == 0 || list[len(list)-1].name != name {
			list = append(list, relation{name: name, comment: about})
		}
		r := &list[len(list)-1]
		r.columns = append(r.columns, col)
		return nil
	})
	return list, err
}

// dropOthers removes the views of the version before that this one does not have.
func dropOthers(ctx context.Context, tx pgx.Tx, schema string, keep []relation) error {
	old, err := relationsOf(ctx, tx, schema)
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, r := range keep {
		kept[r.name] = true
	}
	for _, r := range old {
		if kept[r.name] {
			continue
		}
		if ours, err := stands(ctx, tx, schema, r.name); err != nil {
			return err
		} else if !ours {
			continue // an operator's own
		}
		if _, err := tx.Exec(ctx, "DROP VIEW "+quote(schema, r.name)); err != nil {
			return err
		}
	}
	return nil
}

// stands tells whether a view stands for a table or view of the same name in a version's schema, so is one of ours.
func stands(ctx context.Context, tx pgx.Tx, schema, view string) (ours bool, err error) {
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM information_schema.view_table_usage
		WHERE view_schema = $1 AND view_name = $2 AND table_name = $2 AND table_schema ~ ('^' || $1 || '_v[0-9]+$'))`, schema, view).Scan(&ours)
	return ours, err
}

func (r relation) show(ctx context.Context, tx pgx.Tx, d projection.Definition) error {
	view := quote(d.Name, r.name)
	list := ""
	for i, c := range r.columns {
		if i > 0 {
			list += ", "
		}
		list += quote(c.column)
	}
	create := fmt.Sprintf("CREATE OR REPLACE VIEW %s AS SELECT %s FROM %s", view, list, quote(d.ID(), r.name))
	err := pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
		_, err := inner.Exec(ctx, create)
		return err
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == invalidTableDefinition {
		_, err = tx.Exec(ctx, "DROP VIEW "+view+"; "+create)
	}
	if err != nil {
		return err
	}
	// Comments are the documentation of whoever charts with SQL; COMMENT takes no parameters.
	said := "COMMENT ON VIEW " + view + " IS " + literal(r.comment)
	for _, c := range r.columns {
		said += "; COMMENT ON COLUMN " + view + "." + quote(c.column) + " IS " + literal(c.text)
	}
	_, err = tx.Exec(ctx, said)
	return err
}

// literal is a text as SQL. It comes from our own migrations, and is quoted for what it may hold all the same.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
