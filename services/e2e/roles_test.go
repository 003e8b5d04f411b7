// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os/exec"
	"testing"

	"github.com/jackc/pgx/v5"

	"cacert.org/emergency/pkg/projection/postgres/postgrestest"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/testenv"
)

// TestRoles: with the roles of deploy/postgres the services keep their rows, and who draws charts reads those and nothing else, from the
// first start on.
func TestRoles(t *testing.T) {
	t.Parallel()
	server := postgrestest.Own(t)
	cmd := exec.CommandContext(t.Context(), "psql", server.Database(t), "--no-psqlrc", "--quiet", "--file=../../deploy/postgres/roles.sql", "--set=epatch_password=it's one", "--set=charts_password=another")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("roles.sql: %v\n%s", err, out)
	}
	address := func(user, password string) string {
		return "postgres://" + user + ":" + password + "@" + server.Addr() + "/epatch?sslmode=disable"
	}
	env := testenv.Start(t, testenv.Options{NoAgents: true, Settings: func(s *app.Settings) { s.Database = address("epatch", "it%27s%20one") }})
	s := env.Play(testenv.Declared)
	awaitKept(t, env, address("epatch", "it%27s%20one"), s)

	charts := address("charts", "another")
	if got := ask[string](t, charts, `SELECT status FROM operators.incidents WHERE incident = $1`, s.ID); got != "OPEN" {
		t.Errorf("the incident is %s for who draws charts", got)
	}
	conn, err := pgx.Connect(t.Context(), charts)
	must(t, err)
	defer conn.Close(t.Context())
	for _, forbidden := range []string{
		`SELECT count(*) FROM archive.messages`, `DELETE FROM operators.incidents`, `CREATE TABLE operators.mine (x int)`, `CREATE TABLE public.mine (x int)`, `CREATE SCHEMA mine`,
	} {
		if _, err := conn.Exec(t.Context(), forbidden); err == nil {
			t.Errorf("who draws charts may %s", forbidden)
		}
	}
}
