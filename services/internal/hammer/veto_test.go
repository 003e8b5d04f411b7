// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

var races = flag.Int("hammer.races", defaultRaces, "how often a deployment races a veto")

// ready is the story up to where a patch is ready to be deployed, as few records: one for each run of one owner's events.
func ready(t *testing.T) []*emergencyv1.Record {
	t.Helper()
	w := proceduretest.NewWorld(t)
	proceduretest.Story(proceduretest.Observed)(w)
	var list []*emergencyv1.Record
	for _, rec := range w.Records {
		if n := len(list); n > 0 && list[n-1].GetOwner() == rec.GetOwner() {
			list[n-1].Events = append(list[n-1].Events, rec.GetEvents()...)
			list[n-1].RecordedAt = rec.GetRecordedAt()
			continue
		}
		list = append(list, proto.CloneOf(rec))
	}
	return list
}

// seedReady puts such an incident into the log.
func seedReady(t *testing.T, r *dispatchtest.Rig, id string, story []*emergencyv1.Record) *procedure.State {
	t.Helper()
	w := r.Keys.NewWriter(t, r.Store, id, procedure.OwnerIncident)
	s := procedure.NewState(id)
	for _, rec := range story {
		rec = proto.CloneOf(rec)
		rec.Incident, rec.FirstPosition, rec.PrevHash = id, w.Chain.Head().Position+1, w.Chain.Head().Hash
		signed := r.Keys.Seal(t, rec)
		sequence, err := r.Store.Append(t.Context(), id, w.Last, signed, nil)
		if err != nil {
			t.Fatal(err)
		}
		entry, err := w.Chain.Accept(signed)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(entry.Record, entry.Hash); err != nil {
			t.Fatal(err)
		}
		w.Last = sequence
	}
	return s
}

// A deployment and a veto that cross: never both in the wrong order, and the loser is told why.
func TestDeploymentRacesVeto(t *testing.T) {
	t.Parallel()
	r := dispatchtest.JetStream(t)
	r.Log = slog.New(slog.DiscardHandler)
	story := ready(t)
	r.Clock.Set(story[len(story)-1].GetRecordedAt().AsTime())
	deployment, review := r.Dispatcher(procedure.OwnerDeployment), r.Dispatcher(procedure.OwnerReview)
	won := map[string]int{}
	for n := range *races {
		id := fmt.Sprintf("e20261124.%d", n+1)
		s := seedReady(t, r, id, story)
		start := r.Prepare(s, nil, "carla", &emergencyv1.StartApplyRequest{})
		veto := r.Prepare(s, nil, "beate", proceduretest.Veto())
		if n%2 == 0 { // both have decided on the same head before; else one of them reads it first
			for _, d := range []*dispatch.Dispatcher{deployment, review} {
				if _, err := d.State(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
		}
		var startErr, vetoErr error
		var group sync.WaitGroup
		begin := make(chan struct{})
		group.Go(func() { <-begin; _, startErr = deployment.Do(t.Context(), start, r.Input(s, "carla", start)) })
		group.Go(func() { <-begin; _, vetoErr = review.Do(t.Context(), veto, r.Input(s, "beate", veto)) })
		close(begin)
		group.Wait()
		won[judgeRace(t, r.State(id), startErr, vetoErr)]++
		if t.Failed() {
			t.Fatalf("race %d", n)
		}
	}
	t.Logf("%d races: %v", *races, won)
	if *races >= 100 && (won["veto"] == 0 || won["deployment"] == 0) {
		t.Errorf("one side never won (%v): they did not race", won)
	}
	r.Check()
}

// judgeRace looks at what is in the log, and at what the two were told.
func judgeRace(t *testing.T, s *procedure.State, startErr, vetoErr error) (winner string) {
	t.Helper()
	if vetoErr != nil {
		t.Errorf("a veto is never refused here: %v", vetoErr)
		return ""
	}
	v := s.Vetoes[0]
	if startErr == nil {
		if len(s.Applies) != 1 || !v.AfterApply || v.Position < s.Applies[0].Position {
			t.Errorf("deployed, and the veto at %d says after apply %t: %+v", v.Position, v.AfterApply, s.Applies)
		}
		return "deployment"
	}
	var refusal *procedure.Refusal
	if !errors.As(startErr, &refusal) || refusal.Reason != procedure.ReasonVetoOpen || len(refusal.Allow) == 0 || refusal.Message == "" {
		t.Errorf("the loser was told %v", startErr)
	}
	if len(s.Applies) != 0 || v.AfterApply {
		t.Errorf("refused, and yet: %+v, after apply %t", s.Applies, v.AfterApply)
	}
	return "veto"
}
