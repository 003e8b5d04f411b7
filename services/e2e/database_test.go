// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cacert.org/emergency/pkg/projection/postgres/postgrestest"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/testenv"
)

// TestDatabase: what operators query is kept in PostgreSQL while an emergency runs. The database crashes in the middle: no command
// waits for it, and afterwards nothing is missing. Then log, archive and files are compared, and the log is restored from the archive.
func TestDatabase(t *testing.T) {
	t.Parallel()
	server := postgrestest.Own(t)
	address := server.Database(t)
	env := testenv.Start(t, testenv.Options{Settings: func(s *app.Settings) { s.Database = address }})
	s := env.Story()
	s.Until(testenv.Reviewed)
	awaitKept(t, env, address, s)
	must(t, server.Stop("immediate"))
	s.Until(testenv.Tested)
	if got := fetch(t, "http://"+env.HTTP()+"/metrics"); !strings.Contains(got, `epatch_projection_behind{projection="postgres.archive"}`) || !strings.Contains(got, `epatch_projection_position{projection="postgres.operators"}`) {
		t.Error("the metrics do not tell how far the rows are behind")
	}
	must(t, server.Start())
	s.Until(testenv.Closed)
	awaitKept(t, env, address, s)
	st := s.State()
	if got := ask[string](t, address, `SELECT status FROM operators.incidents WHERE incident = $1`, s.ID); got != "CLOSED" {
		t.Errorf("the incident is %s in the database", got)
	}
	if got := ask[int64](t, address, `SELECT count(*) FROM operators.events WHERE incident = $1`, s.ID); got != int64(st.Position) {
		t.Errorf("%d events in the database, the history has %d", got, st.Position)
	}
	env.Stop()

	said := compareLog(t, "reconcile", "--data", env.Data(), "--database", address)
	if !strings.Contains(said, "no difference") || strings.Contains(said, "files named by events 0") {
		t.Errorf("reconcile said %s", said)
	}
	to := filepath.Join(t.TempDir(), "restored")
	must(t, os.Mkdir(to, 0o700))
	said = compareLog(t, "restore", "--data", to, "--keyring", env.Data("services.keys.json"), "--database", address)
	if !strings.Contains(said, s.ID+" ends at ") || !strings.Contains(said, st.HeadHash) || !strings.Contains(said, " 0 left out") {
		t.Errorf("restore said %s, the history ends with %s", said, st.HeadHash)
	}
	// The restored log is the log, but for the files, which are not in the archive.
	if said, err := tryCompare(t, "reconcile", "--data", to, "--keyring", env.Data("services.keys.json"), "--database", address); err == nil || !strings.Contains(said, "ARTEFACT_MISSING") || strings.Contains(said, "MISSING_IN") || strings.Contains(said, "DIFFERENT") {
		t.Errorf("reconcile said %s, %v", said, err)
	}
	// Doing it again writes nothing; a log that has anything else is left alone.
	again := compareLog(t, "restore", "--data", to, "--keyring", env.Data("services.keys.json"), "--database", address)
	if !strings.Contains(again, "of them were there before") || !strings.Contains(again, st.HeadHash) {
		t.Errorf("restore said %s when all was there", again)
	}
	other := testenv.Start(t, testenv.Options{NoAgents: true})
	other.Play(testenv.Declared)
	other.Stop()
	if said, err := tryCompare(t, "restore", "--data", other.Data(), "--keyring", env.Data("services.keys.json"), "--database", address); err == nil || !strings.Contains(said+err.Error(), "is not empty") {
		t.Errorf("into another log: %s, %v", said, err)
	}
}

// TestDatabaseOfAnotherLog: rows of a log that is not this one end the process, before a command is decided on less than the truth.
func TestDatabaseOfAnotherLog(t *testing.T) {
	t.Parallel()
	address := postgrestest.Own(t).Database(t)
	set := testenv.Options{NoAgents: true, Settings: func(s *app.Settings) { s.Database = address }}
	one := testenv.Start(t, set)
	s := one.Play(testenv.Called)
	awaitKept(t, one, address, s)
	one.Stop()
	node, err := app.Open(t.Context(), app.Settings{
		Data: t.TempDir(), Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", LogFormat: "text", LogLevel: "error", LogTo: testenv.NewLog(t), Database: address,
	})
	must(t, err)
	if err := node.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "the log was rolled back") {
		t.Errorf("it ran on: %v", err)
	}
	must(t, node.Close())
}

// TestHistoryCommandRefuses: which log is meant is never guessed, and what is missing is named before anything is asked.
func TestHistoryCommandRefuses(t *testing.T) {
	t.Parallel()
	const database, nats = "--database=postgres://localhost:1/none", "--nats=tls://localhost:1"
	for want, args := range map[string][]string{
		"setting database":       {"--data=x"},
		"setting nats-seed":      {database, nats, "--identity=x", "--keyring=x"},
		"setting identity":       {database, nats, "--nats-seed=x", "--keyring=x"},
		"setting keyring":        {database, nats, "--nats-seed=x", "--identity=x"},
		"settings data and nats": {database, nats, "--nats-seed=x", "--identity=x", "--keyring=x", "--data=x"},
		"setting nats: ":         {database, "--nats-seed=x"},
	} {
		for _, verb := range []string{"reconcile", "restore"} {
			if said, err := tryCompare(t, append([]string{verb}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %v: %v, want %q\n%s", verb, args, err, want, said)
			}
		}
	}
}

// awaitKept waits until the rows have the incident as it is.
func awaitKept(t *testing.T, env *testenv.Env, address string, s *testenv.Story) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		last, err := env.Node().Store().Last(ctx, s.ID)
		must(t, err)
		var n int
		conn, err := pgx.Connect(ctx, address)
		if err == nil {
			err = conn.QueryRow(ctx, `SELECT count(*) FROM projections.positions WHERE complete AND sequence >= $1`, int64(last)).Scan(&n)
			_ = conn.Close(ctx) // only read from
		}
		if n == 2 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d projections have read to %d: %v", n, last, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func ask[T any](t *testing.T, address, sql string, args ...any) (v T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	must(t, err)
	must(t, conn.QueryRow(t.Context(), sql, args...).Scan(&v))
	must(t, conn.Close(t.Context()))
	return v
}

func fetch(t *testing.T, address string) string {
	t.Helper()
	res, err := http.Get(address)
	must(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	return string(b)
}

func compareLog(t *testing.T, args ...string) string {
	t.Helper()
	said, err := tryCompare(t, args...)
	if err != nil {
		t.Fatalf("epatchd history %s: %v: %s", args[0], err, said)
	}
	return said
}

func tryCompare(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	cmd := app.Command(nil)
	cmd.SetArgs(append([]string{"history"}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}
