// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"strings"
	"testing"

	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/testenv"
)

// A database that is away stops nothing: the page says that its rows stand still, how far behind they are, and no secret.
func TestSystemWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{NoAgents: true, Settings: func(s *app.Settings) {
		s.Database = "postgres://epatch:hunter2@127.0.0.1:1/epatch?sslmode=disable"
	}})
	env.Play(testenv.Declared)
	for {
		body := plain(t, env).as("carl").page("/system")
		if strings.Count(body, "cannot be written now") < 2 {
			continue // the first try is not over yet
		}
		if !strings.Contains(body, "in PostgreSQL") || !strings.Contains(body, "being built") || strings.Contains(body, "hunter2") {
			t.Errorf("the page says %s", body)
		}
		return
	}
}
