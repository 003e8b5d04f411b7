// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/timer"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/testenv"
)

// ahead is a machine's clock that was set wrong.
type ahead struct {
	timer.Clock
	by time.Duration
}

func (c ahead) Now() time.Time { return c.Clock.Now().Add(c.by) }

func (c ahead) Alarm(at time.Time) (<-chan struct{}, func()) { return c.Clock.Alarm(at.Add(-c.by)) }

// The page of the process says when its clock is further from the event log's than the rule book tolerates (0.6), and not before.
func TestSystemTellsAWrongClock(t *testing.T) {
	t.Parallel()
	for by, want := range map[time.Duration]string{
		-5 * time.Minute: "The clock of this process is 5m0s behind the event log&#39;s",
		5 * time.Minute:  "The clock of this process is 5m0s ahead of the event log&#39;s",
		time.Minute:      "",
	} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			env := testenv.Start(t, testenv.Options{NoAgents: true, Settings: func(s *app.Settings) { s.Clock = ahead{timer.System{}, by} }})
			body := plain(t, env).as("carl").page("/system")
			if said := strings.Contains(body, "The clock of this process is"); said != (want != "") || !strings.Contains(body, want) {
				t.Errorf("the page says %s", text(body))
			}
		})
	}
}
