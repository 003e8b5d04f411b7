// SPDX-License-Identifier: Apache-2.0

package operators_test

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/projection/memory"
	"cacert.org/emergency/pkg/projection/operators"
	"cacert.org/emergency/pkg/projection/postgres"
	"cacert.org/emergency/pkg/projection/postgres/postgrestest"
	"cacert.org/emergency/pkg/projection/projectiontest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

func keep(t *testing.T, s *projectiontest.Stream, tables projection.Tables, batch int) {
	t.Helper()
	s.CatchUp(s.Keeper(tables, 1, func(c *projection.KeeperConfig) { c.New, c.Batch = operators.New, batch }))
}

func dump(t *testing.T, tables projection.Tables) string {
	t.Helper()
	return projectiontest.Dump(t, tables, operators.Definition())
}

func open(t *testing.T, address string) *postgres.Tables {
	t.Helper()
	tables, err := postgres.New(t.Context(), postgres.Config{URL: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tables.Close)
	return tables
}

// Every frozen history gives the same rows in memory and in PostgreSQL, byte for byte: folded at once, and step by step over
// many restarts.
func TestFrozenHistories(t *testing.T) {
	t.Parallel()
	projectiontest.EachFrozen(t, func(t *testing.T, s *projectiontest.Stream) {
		fresh := &memory.Tables{}
		keep(t, s, fresh, 512)
		want := dump(t, fresh)
		if strings.Contains(want, `["parked",`) || !strings.Contains(want, `["steps",`) || !strings.Contains(want, `["emergency_log_fields",`) {
			t.Errorf("rows are missing, or an incident is parked: %.2000s", want)
		}
		last := uint64(0)
		if err := s.Store.Scan(t.Context(), 0, func(m history.Message) error { last = m.Sequence; return nil }); err != nil {
			t.Fatal(err)
		}
		whole, steps, grown := open(t, postgrestest.Database(t)), open(t, postgrestest.Database(t)), &memory.Tables{}
		keep(t, s, whole, 512)
		projectiontest.Same(t, dump(t, whole), want)
		for at := last / 3; at < last; at += max(1, last/5) {
			keep(t, s.Truncated(at), steps, 1)
			keep(t, s.Truncated(at), grown, 3)
		}
		keep(t, s, steps, 1)
		keep(t, s, grown, 3)
		projectiontest.Same(t, dump(t, steps), want)
		projectiontest.Same(t, dump(t, grown), want)
	})
}

// The rows say what the rules say.
func TestRowsAreTheRules(t *testing.T) {
	t.Parallel()
	projectiontest.EachFrozen(t, func(t *testing.T, s *projectiontest.Stream) {
		address := postgrestest.Database(t)
		keep(t, s, open(t, address), 512)
		states := projection.NewIncidents()
		if err := projection.Rebuild(t.Context(), projection.Config{Store: s.Store, Keys: s.Keys.Ring, Log: s.Log()}, states); err != nil {
			t.Fatal(err)
		}
		n := 0
		states.Each(func(st *procedure.State) {
			n++
			open := 0
			for _, o := range procedure.Debts(st) {
				if o.Open() {
					open++
				}
			}
			for sql, want := range map[string]any{
				`SELECT count(*) FROM operators.open_obligations WHERE incident = $1`:                                  int64(open),
				`SELECT count(*) FROM operators.obligations WHERE incident = $1`:                                       int64(len(procedure.Debts(st))),
				`SELECT count(*) FROM operators.deployments WHERE incident = $1`:                                       int64(len(st.Applies)),
				`SELECT count(*) FROM operators.calls WHERE incident = $1`:                                             int64(len(st.Pages)),
				`SELECT max(position) FROM operators.events WHERE incident = $1`:                                       int64(st.Position),
				`SELECT status FROM operators.incidents WHERE incident = $1`:                                           string(st.Status),
				`SELECT count(*) FROM operators.step_durations WHERE incident = $1 AND what = 'declared'`:              int64(1),
				`SELECT count(*) FROM operators.deadlines WHERE incident = $1 AND deadline = 'overall'`:                int64(1),
				`SELECT count(*) FROM operators.emergency_log WHERE incident = $1 AND headline = 'Emergency declared'`: int64(1),
			} {
				if got := one(t, address, sql, st.Incident); got != want {
					t.Errorf("%s: %v, want %v", sql, got, want)
				}
			}
		})
		if n != 1 {
			t.Errorf("%d incidents", n)
		}
	})
}

func one(t *testing.T, address, sql string, args ...any) any {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	err = conn.QueryRow(t.Context(), sql, args...).Scan(&v)
	if err := errors.Join(err, conn.Close(context.WithoutCancel(t.Context()))); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// Every table, view and column says what it is; and the queries of the manual run.
func TestDocumented(t *testing.T) {
	t.Parallel()
	address := postgrestest.Database(t)
	s := projectiontest.NewStream(t)
	keep(t, s, open(t, address), 512)
	if got := one(t, address, `SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE n.nspname IN ('operators', 'operators_v1', 'projections') AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND c.relname <> 'goose_db_version'
		AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL)`); got != int64(0) {
		t.Errorf("%v columns without a comment", got)
	}
	if got := one(t, address, `SELECT count(*) FROM information_schema.views WHERE table_schema = 'operators'`); got != int64(len(operators.Definition().Tables)+2) {
		t.Errorf("%v views", got)
	}
	manual, err := os.ReadFile("../../../docs/operators.md")
	if err != nil {
		t.Fatal(err)
	}
	queries := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllSubmatch(manual, -1)
	if len(queries) < 5 {
		t.Fatalf("%d queries in the manual", len(queries))
	}
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }() // the test is over
	for _, q := range queries {
		if _, err := conn.Exec(t.Context(), string(q[1])); err != nil {
			t.Errorf("%s: %v", q[1], err)
		}
	}
}
