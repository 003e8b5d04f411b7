// SPDX-License-Identifier: Apache-2.0

package app_test

import (
	"io"
	"strings"
	"testing"

	"cacert.org/emergency/services/internal/app"
)

// TestMisspeltVariable: no command of epatchd takes its default where somebody has set something else, as he thinks.
func TestMisspeltVariable(t *testing.T) {
	t.Parallel()
	// Each is refused for what it lacks, and not for what stands in the environment for others.
	others := []string{
		"EPATCH_DATA=" + t.TempDir(), "EPATCH_SERVER=localhost:1", "EPATCH_SERVER_REVIEW=localhost:2", "EPATCH_PROFILE=p", "EPATCH_LINK_KEY=k", "EPATCH_INSTALLATION=i",
		"EPATCH_TESTENV_CHILD=x", "EPATCH_TEST_UPDATE=1", "EPATCH_AGENT_HOST=h", "EPATCHED=1", "PATH=/bin",
	}
	for _, command := range []string{
		"all --http 0.0.0.0:0", "incident", "review", "dashboard", "nats provision --nats-seed s --identity none", "migrate", "establish none.json", "history reconcile", "history restore",
	} {
		run := func(environ ...string) error {
			cmd := app.Command(environ)
			cmd.SetArgs(strings.Fields(command))
			cmd.SetOut(io.Discard)
			return cmd.ExecuteContext(t.Context())
		}
		if err := run(others...); err == nil || strings.Contains(err.Error(), "no setting is called so") {
			t.Errorf("%s with the settings of others: %v", command, err)
		}
		for _, wrong := range []string{"EPATCH_NATS_SYNCD=true", "EPATCH_DATABSE=postgres://secret"} {
			err := run(append(others, wrong)...)
			name, value, _ := strings.Cut(wrong, "=")
			if err == nil || !strings.Contains(err.Error(), name+": no setting is called so") || strings.Contains(err.Error(), value) {
				t.Errorf("%s with %s: %v", command, wrong, err)
			}
		}
	}
}
