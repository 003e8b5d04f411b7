// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"flag"
	"log/slog"
	"testing"

	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	jetstreamstore "cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/natsd/natsdtest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
)

var (
	commands = flag.Int("hammer.commands", defaultCommands, "how many commands the hammer gives")
	seed     = flag.Uint64("hammer.seed", 1, "where its choices come from")
)

// fullRun is from how many commands on a run must have seen everything.
const fullRun = 2500

// Sixteen clients, all commands, one real log.
func TestHammer(t *testing.T) {
	t.Parallel()
	server, js := natsdtest.Start(t)
	open := func(i int) *jetstreamstore.Store {
		connection := js
		if i > 0 {
			connection = natsdtest.Connect(t, server)
		}
		store, err := jetstreamstore.New(t.Context(), jetstreamstore.Config{JS: connection, Logger: slog.New(slog.DiscardHandler), Consumers: true})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	r := dispatchtest.New(t, open(0))
	r.Log = slog.New(slog.DiscardHandler)
	h := New(r, Config{Clients: 16, Commands: *commands, Seed: *seed, Open: 3}, open(1))
	report := h.Run(t.Context())
	report.Write(t.Output())
	if err := h.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if *commands < fullRun {
		return // a short run is for the race detector; what it happens to send is no matter
	}
	for _, m := range proceduretest.Moves(declared(t)) { // others need a grant or a dispute, which few incidents come to
		if name := procedure.CommandName(m.Command); report.ByCommand[name] == nil {
			t.Errorf("%s was never sent", name)
		}
	}
	for _, name := range []string{"StartApply", "RaiseVeto", "RecordSecondReview", "SyncObligations", "Respond", "CallOut", "ReportTree", "Escalate", "EnterUpdateCycle"} {
		if n := report.ByCommand[name]; n == nil || n.Accepted == 0 {
			t.Errorf("%s was never accepted: the run shows too little", name)
		}
	}
	if report.Repeated == 0 || report.Reasons[procedure.ReasonPositionMismatch] == 0 || report.Reasons[procedure.ReasonRequestIDReused] == 0 {
		t.Errorf("no repetition, pin or reuse was seen: %+v", report.Count)
	}
}

func declared(t *testing.T) *procedure.State {
	t.Helper()
	w := proceduretest.NewWorld(t)
	proceduretest.Story(proceduretest.Declared)(w)
	return w.State
}
