// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/projection/memory"
	"cacert.org/emergency/pkg/projection/postgres"
	"cacert.org/emergency/pkg/projection/postgres/postgrestest"
	"cacert.org/emergency/pkg/projection/projectiontest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

func open(tb testing.TB, address string) *postgres.Tables {
	tb.Helper()
	tables, err := postgres.New(tb.Context(), postgres.Config{URL: address})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(tables.Close)
	return tables
}

func query[T any](tb testing.TB, address, sql string, args ...any) []T {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), address)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(tb.Context())) }() // the test is over
	rows, err := conn.Query(tb.Context(), sql, args...)
	if err != nil {
		tb.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		tb.Fatal(err)
	}
	return list
}

func exec(tb testing.TB, address, sql string) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), address)
	if err != nil {
		tb.Fatal(err)
	}
	_, err = conn.Exec(tb.Context(), sql)
	if err := errors.Join(err, conn.Close(tb.Context())); err != nil {
		tb.Fatal(err)
	}
}

// shown is the version that the views stand for.
func shown(tb testing.TB, address string) int {
	tb.Helper()
	list := query[string](tb, address, `SELECT DISTINCT table_schema::text FROM information_schema.view_table_usage WHERE view_schema = 'sample'`)
	if len(list) != 1 {
		tb.Fatalf("the views stand for %v", list)
	}
	return int(list[0][len(list[0])-1] - '0')
}

func TestTables(t *testing.T) {
	t.Parallel()
	projectiontest.Suite(t, func(tb testing.TB) (projection.Tables, func() int) {
		address := postgrestest.Database(tb)
		return open(tb, address), func() int { return shown(tb, address) }
	})
}

// Views show the rows, and say what the tables say.
func TestViews(t *testing.T) {
	t.Parallel()
	address := postgrestest.Database(t)
	tables, s := open(t, address), projectiontest.NewStream(t)
	s.Write(9)
	s.CatchUp(s.Keeper(tables, 1, nil))
	if got := query[int64](t, address, `SELECT position FROM sample.heads WHERE incident = 'e20261124.1'`); len(got) != 1 || got[0] != 6 {
		t.Errorf("heads: %v", got)
	}
	for sql, want := range map[string]string{
		`SELECT obj_description('sample.heads'::regclass, 'pg_class')`: "It's how far each has come",
		`SELECT col_description('sample.heads'::regclass, 2)`:          "Its last event",
	} {
		if got := query[string](t, address, sql); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q", sql, got)
		}
	}
	if got := query[string](t, address, `SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'sample' ORDER BY 1`); strings.Join(got, " ") != "heads last messages" {
		t.Errorf("views %v", got)
	}
	// What an operator builds on a view outlives a version that only adds columns.
	exec(t, address, `CREATE VIEW sample.mine AS SELECT incident FROM sample.messages`)
	s.CatchUp(s.Keeper(tables, 2, nil))
	if got := query[int64](t, address, `SELECT count(*) FROM sample.mine`); got[0] != 10 {
		t.Errorf("%d rows in an operator's own view", got[0])
	}
	if got := query[int64](t, address, `SELECT sum(size)::bigint FROM sample.messages`); got[0] == 0 {
		t.Error("the new column is not shown")
	}
}

// cutter is a proxy that loses the answer to the next COMMIT.
type cutter struct {
	lis    net.Listener
	target string

	mu    sync.Mutex
	armed int
	cuts  int
}

func newCutter(tb testing.TB, address string) (*cutter, string) {
	tb.Helper()
	u, err := url.Parse(address)
	if err != nil {
		tb.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	c := &cutter{lis: lis, target: u.Host}
	go func() {
		for {
			client, err := lis.Accept()
			if err != nil {
				return
			}
			go c.serve(client)
		}
	}()
	tb.Cleanup(func() { _ = lis.Close() }) // nothing more comes
	u.Host = lis.Addr().String()
	return c, u.String()
}

func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	var lose sync.Mutex
	losing := false
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := client.Read(buf)
			if err != nil {
				_ = server.Close() // ends the other half
				return
			}
			if bytes.Contains(bytes.ToLower(buf[:n]), []byte("commit\x00")) && c.fire() {
				lose.Lock()
				losing = true
				lose.Unlock()
			}
			if _, err := server.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 1<<16)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		lose.Lock()
		cut := losing
		lose.Unlock()
		if cut { // the server has answered, so it is done; the client never hears of it
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (c *cutter) fire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.armed == 0 {
		return false
	}
	c.armed--
	c.cuts++
	return true
}

// A connection that is cut after COMMIT leaves the outcome unknown: it is read again, and nothing is lost or doubled.
func TestCutAfterCommit(t *testing.T) {
	t.Parallel()
	address := postgrestest.Database(t)
	c, through := newCutter(t, address)
	tables, s := open(t, through), projectiontest.NewStream(t)
	for range 3 {
		s.Write(9)
		k := s.Keeper(tables, 1, nil)
		if _, err := tables.Open(t.Context(), projectiontest.NewSample(1).Definition()); err != nil { // migrations commit, too
			t.Fatal(err)
		}
		c.mu.Lock()
		c.armed = 1
		c.mu.Unlock()
		s.CatchUp(k)
		same(t, s, tables)
	}
	if c.cuts != 3 {
		t.Errorf("%d commits were cut", c.cuts)
	}
}

// same compares with a fresh fold in memory, byte for byte.
func same(t *testing.T, s *projectiontest.Stream, tables projection.Tables) {
	t.Helper()
	fresh := &memory.Tables{}
	s.CatchUp(s.Keeper(fresh, 1, nil))
	d := projectiontest.NewSample(1).Definition()
	projectiontest.Same(t, projectiontest.Dump(t, tables, d), projectiontest.Dump(t, fresh, d))
}

// crashing stops the server in the middle of a transaction, and starts it again after some tries.
type crashing struct {
	projection.Tables
	t      *testing.T
	server *postgrestest.Server

	address string
	at      int
	n       int
	down    bool
	tries   int
}

func (c *crashing) Open(ctx context.Context, d projection.Definition) (projection.Position, error) {
	if c.down {
		if c.tries++; c.tries == 3 {
			c.down = false
			if err := c.server.Start(); err != nil {
				c.t.Error(err)
			}
		}
	}
	return c.Tables.Open(ctx, d)
}

func (c *crashing) Commit(ctx context.Context, d projection.Definition, step projection.Step, changes []projection.Change) error {
	// Somebody holds the last table, so the transaction has written all others and waits there when the server goes.
	return c.crash(ctx, `LOCK TABLE sample_v1.last IN ACCESS EXCLUSIVE MODE`, func() error { return c.Tables.Commit(ctx, d, step, changes) })
}

func (c *crashing) Build(ctx context.Context, d projection.Definition, from projection.Position) (projection.Build, error) {
	b, err := c.Tables.Build(ctx, d, from)
	if err != nil {
		return nil, err
	}
	return &crashingBuild{b, c}, nil
}

type crashingBuild struct {
	projection.Build
	c *crashing
}

func (b *crashingBuild) Commit(ctx context.Context, to projection.Position, changes []projection.Change) error {
	// A build has its tables to itself; somebody is about to make the schema of the views, which comes last.
	return b.c.crash(ctx, `CREATE SCHEMA sample`, func() error { return b.Build.Commit(ctx, to, changes) })
}

func (c *crashing) crash(ctx context.Context, hold string, commit func() error) error {
	if c.n++; c.n != c.at {
		return commit()
	}
	holder, err := pgx.Connect(ctx, c.address)
	if err != nil {
		return err
	}
	defer func() { _ = holder.Close(ctx) }() // the server is gone
	if _, err := holder.Exec(ctx, "BEGIN; "+hold); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- commit() }()
	for waits := false; !waits; {
		if err := holder.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)`).Scan(&waits); err != nil {
			return err
		}
	}
	if err := c.server.Stop("immediate"); err != nil {
		c.t.Error(err)
	}
	c.down = true
	return <-ended
}

// A restart of PostgreSQL in mid-batch loses and doubles nothing.
func TestRestartInMidBatch(t *testing.T) {
	t.Parallel()
	server := postgrestest.Own(t)
	address := server.Database(t)
	tables, s := open(t, address), projectiontest.NewStream(t)
	crashed := 0
	for _, at := range []int{1, 2, 3} { // the first build, and batches after it
		s.Write(11)
		c := &crashing{Tables: tables, t: t, server: server, address: address, at: at}
		s.CatchUp(s.Keeper(c, 1, nil))
		if c.tries > 0 {
			crashed++
		}
		same(t, s, tables)
	}
	if crashed != 3 {
		t.Errorf("the server crashed %d times", crashed)
	}
}

// A database that was lost is filled again from the log, and commands never wait for it.
func TestDatabaseLost(t *testing.T) {
	t.Parallel()
	server := postgrestest.Own(t)
	address := server.Database(t)
	tables, s := open(t, address), projectiontest.NewStream(t)
	s.Write(7)
	s.CatchUp(s.Keeper(tables, 1, nil))
	exec(t, address, `DROP SCHEMA projections CASCADE; DROP SCHEMA sample CASCADE; DROP SCHEMA sample_v1 CASCADE`)
	s.Write(7)
	s.CatchUp(s.Keeper(tables, 1, nil))
	same(t, s, tables)
	if err := server.Stop("fast"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	tried := 0
	k := s.Keeper(tables, 1, func(c *projection.KeeperConfig) {
		c.Pause = func(ctx context.Context, _ int) error {
			if tried++; tried == 4 {
				stop()
			}
			return ctx.Err()
		}
	})
	if err := k.Run(ctx); err != nil || tried != 4 {
		t.Errorf("without a database: %v after %d tries", err, tried)
	}
	if st := k.Status(); st.Trouble == "" || st.Kept != 0 {
		t.Errorf("status %+v", st)
	}
	s.Write(1) // the log takes records all the while
	if last, err := s.Store.Last(t.Context(), "e20261124.1"); err != nil || last == 0 {
		t.Error(last, err)
	}
}

func TestSecretStaysSecret(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"postgres://u:hunter2@[::1/x", "postgres://u:hunter2@127.0.0.1:1/x?sslmode=disable&pool_max_conns=x"} {
		if _, err := postgres.New(t.Context(), postgres.Config{URL: address}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
	tables := open(t, "postgres://u:hunter2@127.0.0.1:1/x?sslmode=disable")
	if _, err := tables.Open(t.Context(), projectiontest.NewSample(1).Definition()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}
