// SPDX-License-Identifier: Apache-2.0

// Package postgres keeps rows of projections in PostgreSQL, for operators who query and chart with SQL.
//
// Each version of a projection has a schema of its own, such as operators_v1, with its own migrations; the position of each
// is in projections.positions, written in the same transaction as the rows. Readers look at views in the schema of the
// projection's name: they stand for the newest version that is complete, and are moved to the next one in the transaction
// that completes it. Nothing here decides anything: rows come from folds in Go.
package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"go.opentelemetry.io/otel/trace"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/projection"
)

//go:embed migrations/*.sql
var migrations embed.FS

// schema is where the positions are.
const schema = "projections"

// Config of a database. URL is required.
type Config struct {
	// URL is a connection string, such as postgres://user:password@host/database. It is a secret.
	URL string
	// Tracer makes spans of transactions; nil for none.
	Tracer trace.TracerProvider
	// Timeout bounds one call but a rebuild's and a dump's; 30 seconds if it is 0.
	Timeout time.Duration
}

// Tables is a projection.Tables in a PostgreSQL database.
type Tables struct {
	pool    *pgxpool.Pool
	timeout time.Duration

	migrated sync.Map // ids of definitions whose tables this process has seen
}

var _ projection.Tables = (*Tables)(nil)

// New reads the configuration. It does not connect: a database that is away now is tried again by whoever uses it.
func New(ctx context.Context, cfg Config) (*Tables, error) {
	c, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, errors.New("the database's address is no PostgreSQL URL, such as postgres://user:password@host/database") // err may hold the password
	}
	if cfg.Tracer != nil {
		c.ConnConfig.Tracer = otelpgx.NewTracer(otelpgx.WithTracerProvider(cfg.Tracer))
	}
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	c.ConnConfig.RuntimeParams["timezone"] = "UTC"
	c.ConnConfig.RuntimeParams["application_name"] = "epatchd"
	c.MaxConns = 4
	c.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true } // a restart of the server leaves dead ones
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	t := &Tables{pool: pool, timeout: cfg.Timeout}
	if t.timeout == 0 {
		t.timeout = 30 * time.Second
	}
	return t, nil
}

// Close ends all connections.
func (t *Tables) Close() { t.pool.Close() }

// Open implements projection.Tables: it applies the migrations that are missing, once a process and whenever the position is
// not there.
func (t *Tables) Open(ctx context.Context, d projection.Definition) (projection.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	if _, done := t.migrated.Load(d.ID()); done {
		at, err := t.position(ctx, t.pool, d, "")
		if missing := (*pgconn.PgError)(nil); !errors.Is(err, pgx.ErrNoRows) && !(errors.As(err, &missing) && missing.Code == undefinedTable) {
			return at, err
		}
	}
	if err := t.Migrate(ctx, d); err != nil {
		return projection.Position{}, err
	}
	_, err := t.pool.Exec(ctx, `INSERT INTO projections.positions (name, version) VALUES ($1, $2) ON CONFLICT DO NOTHING`, d.Name, d.Version)
	if err != nil {
		return projection.Position{}, fmt.Errorf("open %s: %w", d.ID(), err)
	}
	t.migrated.Store(d.ID(), true)
	return t.position(ctx, t.pool, d, "")
}

// PostgreSQL's codes for what another process may have made in the same moment, and for what is not there.
const (
	undefinedTable  = "42P01"
	duplicateSchema = "42P06"
	uniqueViolation = "23505"
)

// Migrate makes the tables of definitions where they are missing.
func (t *Tables) Migrate(ctx context.Context, list ...projection.Definition) error {
	own, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	if err := t.migrate(ctx, schema, own); err != nil {
		return err
	}
	for _, d := range list {
		if err := t.migrate(ctx, d.ID(), d.Migrations); err != nil {
			return err
		}
	}
	return nil
}

// migrate brings one schema up to date. Several processes may do so at once: one does it, the others wait.
func (t *Tables) migrate(ctx context.Context, schema string, files fs.FS) (err error) {
	cfg := t.pool.Config().ConnConfig.Copy()
	cfg.Tracer = nil
	cfg.RuntimeParams["search_path"] = schema
	db := stdlib.OpenDB(*cfg)
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, `CREATE SCHEMA IF NOT EXISTS `+quote(schema))
	if there := (*pgconn.PgError)(nil); err != nil && !(errors.As(err, &there) && (there.Code == duplicateSchema || there.Code == uniqueViolation)) {
		return fmt.Errorf("migrate %s: %w", schema, err)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60))
	if err != nil {
		return fmt.Errorf("migrate %s: %w", schema, err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("migrate %s: %w", schema, err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate %s: %w", schema, err)
	}
	return nil
}

func quote(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// querier is a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (t *Tables) position(ctx context.Context, q querier, d projection.Definition, lock string) (projection.Position, error) {
	var at projection.Position
	var sequence int64
	err := q.QueryRow(ctx, `SELECT sequence, hash, complete FROM projections.positions WHERE name = $1 AND version = $2`+lock, d.Name, d.Version).Scan(&sequence, &at.Hash, &at.Complete)
	if err != nil {
		return projection.Position{}, fmt.Errorf("position of %s: %w", d.ID(), err)
	}
	at.Sequence = uint64(sequence)
	return at, nil
}

// Commit implements projection.Tables.
func (t *Tables) Commit(ctx context.Context, d projection.Definition, step projection.Step, changes []projection.Change) error {
	checked, err := projection.CheckChanges(d, changes)
	if err != nil {
		return err
	}
	if step.From.Complete { // the first write of a version has as long as it takes
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.timeout)
		defer cancel()
	}
	err = pgx.BeginFunc(ctx, t.pool, func(tx pgx.Tx) error { return t.commit(ctx, tx, d, step, checked) })
	if err != nil {
		return fmt.Errorf("commit %s to sequence %d: %w", d.ID(), step.To.Sequence, err)
	}
	return nil
}

func (t *Tables) commit(ctx context.Context, tx pgx.Tx, d projection.Definition, step projection.Step, changes map[string][]projection.Change) error {
	if err := t.standsAt(ctx, tx, d, step.From); err != nil {
		return err
	}
	for _, table := range d.Tables {
		write := upsert
		if table.AppendOnly || step.From.Mark == (history.Mark{}) {
			write = copyIn
		}
		if err := write(ctx, tx, d, table, changes[table.Name]); err != nil {
			return fmt.Errorf("table %s: %w", table.Name, err)
		}
	}
	return move(ctx, tx, d, step)
}

// standsAt keeps others from moving a position that is from until the transaction ends.
func (t *Tables) standsAt(ctx context.Context, tx pgx.Tx, d projection.Definition, from projection.Position) error {
	at, err := t.position(ctx, tx, d, " FOR UPDATE")
	if err != nil {
		return err
	}
	if at != from {
		return &projection.MovedError{ID: d.ID(), Stored: at, Wanted: from}
	}
	return nil
}

func move(ctx context.Context, tx pgx.Tx, d projection.Definition, step projection.Step) error {
	_, err := tx.Exec(ctx, `UPDATE projections.positions SET sequence = $3, hash = $4, complete = $5, committed_at = clock_timestamp() WHERE name = $1 AND version = $2`,
		d.Name, d.Version, int64(step.To.Sequence), step.To.Hash, step.To.Complete)
	if err != nil {
		return err
	}
	if step.To.Complete && !step.From.Complete {
		return show(ctx, tx, d)
	}
	return nil
}

// copyIn adds rows that are not there. PostgreSQL refuses a key that is.
func copyIn(ctx context.Context, tx pgx.Tx, d projection.Definition, table projection.Table, changes []projection.Change) error {
	if len(changes) == 0 {
		return nil
	}
	i := -1
	_, err := tx.CopyFrom(ctx, pgx.Identifier{d.ID(), table.Name}, table.Columns, pgx.CopyFromFunc(func() ([]any, error) {
		for i++; i < len(changes); i++ {
			if !changes[i].Gone {
				return changes[i].Row, nil
			}
		}
		return nil, nil
	}))
	return err
}

// upsertsAtOnce is how many rows travel to the server before its answers are read.
const upsertsAtOnce = 1000

// upsert writes rows that may be there already, and removes what is gone.
func upsert(ctx context.Context, tx pgx.Tx, d projection.Definition, table projection.Table, changes []projection.Change) error {
	put, remove := upsertSQL(d, table), deleteSQL(d, table)
	for len(changes) > 0 {
		n := min(len(changes), upsertsAtOnce)
		var batch pgx.Batch
		for _, c := range changes[:n] {
			if c.Gone {
				batch.Queue(remove, c.Row...)
			} else {
				batch.Queue(put, c.Row...)
			}
		}
		if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

func upsertSQL(d projection.Definition, t projection.Table) string {
	names, values, sets := make([]string, len(t.Columns)), make([]string, len(t.Columns)), []string{}
	for i, c := range t.Columns {
		names[i], values[i] = quote(c), fmt.Sprintf("$%d", i+1)
		if i >= t.Key {
			sets = append(sets, quote(c)+" = EXCLUDED."+quote(c))
		}
	}
	then := "NOTHING"
	if len(sets) > 0 {
		then = "UPDATE SET " + strings.Join(sets, ", ")
	}
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s) ON CONFLICT (%s) DO %s", quote(d.ID(), t.Name), strings.Join(names, ", "), strings.Join(values, ", "), strings.Join(names[:t.Key], ", "), then)
}

func deleteSQL(d projection.Definition, t projection.Table) string {
	where := make([]string, t.Key)
	for i, c := range t.Columns[:t.Key] {
		where[i] = fmt.Sprintf("%s = $%d", quote(c), i+1)
	}
	return "DELETE FROM " + quote(d.ID(), t.Name) + " WHERE " + strings.Join(where, " AND ")
}

// Dump implements projection.Tables. It reads one snapshot.
func (t *Tables) Dump(ctx context.Context, d projection.Definition, w io.Writer) error {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return pgx.BeginTxFunc(ctx, t.pool, options, func(tx pgx.Tx) error {
		for _, table := range d.Tables {
			if err := each(ctx, tx, d, table, "", nil, func(row projection.Row) error { return projection.DumpRow(w, table.Name, row) }); err != nil {
				return fmt.Errorf("dump %s.%s: %w", d.ID(), table.Name, err)
			}
		}
		return nil
	})
}

// Each calls fn with every row of a table, in the order of its key.
func (t *Tables) Each(ctx context.Context, d projection.Definition, table string, fn func(projection.Row) error) error {
	for _, x := range d.Tables {
		if x.Name == table {
			return pgx.BeginTxFunc(ctx, t.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error { return each(ctx, tx, d, x, "", nil, fn) })
		}
	}
	return fmt.Errorf("%s has no table %q", d.ID(), table)
}

// columns are the names of a table's columns as SQL.
func columns(table projection.Table) []string {
	names := make([]string, len(table.Columns))
	for i, c := range table.Columns {
		names[i] = quote(c)
	}
	return names
}

func each(ctx context.Context, tx pgx.Tx, d projection.Definition, table projection.Table, where string, args []any, fn func(projection.Row) error) error {
	names := columns(table)
	rows, err := tx.Query(ctx, fmt.Sprintf("SELECT %s FROM %s%s ORDER BY %s", strings.Join(names, ", "), quote(d.ID(), table.Name), where, strings.Join(names[:table.Key], ", ")), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return err
		}
		if err := fn(values); err != nil {
			return err
		}
	}
	return rows.Err()
}
