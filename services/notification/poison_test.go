// SPDX-License-Identifier: Apache-2.0

package notification_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
)

// counting counts the errors that are logged about incidents.
type counting struct {
	slog.Handler
	errors *atomic.Int32
}

func (c counting) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError && r.Message == "nobody is told of this incident: this version cannot follow it" {
		c.errors.Add(1)
	}
	return c.Handler.Handle(ctx, r)
}

// An incident that this version cannot follow keeps nobody of another incident from being paged (hardening 2, poison event), and the
// log is told of it once.
func TestPoisonedIncidentStopsNoPages(t *testing.T) {
	t.Parallel()
	mail, irc := newWay("mail", takes), newWay("irc", takes)
	x := newRig(t, mail, irc)
	x.SeedStory(proceduretest.OnStandby)
	review := x.Dispatcher(procedure.OwnerReview)
	x.must(x.Do(review, incident, "dora", proceduretest.Register(1)))
	x.must(x.Do(review, incident, "vera", proceduretest.Veto())) // each of them is planned for from the incident's state
	w := x.Keys.NewWriter(t, x.Store, incident, procedure.OwnerIncident)
	future := historytest.Record(t, incident, procedure.OwnerIncident, w.Chain.Head(), 1, "future")
	future.Events[0].SchemaVersion = 99
	if _, err := w.Append(t.Context(), x.Keys.Seal(t, future)); err != nil {
		t.Fatal(err)
	}
	told := &atomic.Int32{}
	x.Log = slog.New(counting{x.Log.Handler(), told})
	x.start()
	x.declare("carla")
	for _, page := range mail.await(t, onDuty, urgent) {
		if page.Incident == incident {
			t.Errorf("a page for %s", page.Incident)
		}
	}
	if n := told.Load(); n != 1 {
		t.Errorf("the log was told %d times", n)
	}
}
