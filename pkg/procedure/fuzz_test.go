// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// fuzzWorlds are the histories that fuzzed commands and events meet.
func fuzzWorlds(t pt.T) []*pt.World {
	list := []*pt.World{pt.NewWorld(t), pt.Founding().For(t)}
	for _, m := range slices.Concat(pt.Milestones(), pt.Milestones2()) {
		list = append(list, pt.Given(t, pt.Story(m)).World())
	}
	for _, m := range pt.Milestones3() {
		list = append(list, pt.Given(t, pt.Story(m)).World())
	}
	return list
}

// FuzzCommand has any bytes decided as any command, in any state, by anybody: never a panic, never anything changed.
func FuzzCommand(f *testing.F) {
	worlds, infos := fuzzWorlds(f), procedure.Commands()
	actors := []string{"carla", "anna", "theo", "clara", "bea", "nobody", "stranger", "host:" + pt.Host, "timer", "reactor:anna", "service", "gateway", "gateway:emil", "carl", "emil"}
	for i, w := range worlds {
		for j, m := range pt.Moves(w.State) {
			if j%7 != i%7 {
				continue // enough of them
			}
			b, err := proto.Marshal(w.Prepare(m.Who, m.Command))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, uint8(i), indexOf(infos, m.Command), uint8(j), uint8(i%2))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, world, command, actor, facts uint8) {
		w := worlds[int(world)%len(worlds)].For(t)
		info := infos[int(command)%len(infos)]
		c := info.New()
		if proto.Unmarshal(data, c) != nil {
			return
		}
		owner := info.Owner
		if owner == "" {
			owner = procedure.Owners()[int(facts)%5]
		}
		env := w.Env(actors[int(actor)%len(actors)], owner)
		if facts%2 == 0 {
			env.Facts = pt.GoodFacts(w.State, c)
		}
		out := w.DecideIn(c, env)
		if out.Refusal != nil {
			pt.CheckRefusal(t, out.Refusal)
		}
		if out.Decision != nil && out.Decision.Repeated == nil && len(out.Decision.Events) > 0 {
			w.Record(c, out.Decision)
			useState(w.State, w.Book)
		}
	})
}

func indexOf(infos []procedure.CommandInfo, c procedure.Command) uint8 {
	for i, info := range infos {
		if info.Name == procedure.CommandName(c) {
			return uint8(i)
		}
	}
	return 0
}

// FuzzEvent has any bytes folded as any event, in any state: it is folded or refused, and what was folded can be used.
func FuzzEvent(f *testing.F) {
	worlds, types := fuzzWorlds(f), procedure.EventTypes()
	for _, w := range []*pt.World{worlds[1], worlds[len(worlds)-1]} { // the rule book, and the whole story
		for i, rec := range w.Records {
			for j, e := range rec.GetEvents() {
				f.Add(e.GetPayload(), uint8(i+j), uint8(typeIndex(types, e.GetType())), uint32(1), int32(j))
			}
		}
	}
	f.Add([]byte{0xff}, uint8(1), uint8(3), uint32(1), int32(99))
	f.Fuzz(func(t *testing.T, data []byte, world, typ uint8, schema uint32, deviation int32) {
		w := worlds[int(world)%len(worlds)]
		before := pt.Fingerprint(w.State)
		e := &emergencyv1.Event{Type: types[int(typ)%len(types)], SchemaVersion: schema, Payload: data}
		if deviation > 0 {
			e.Deviations = []emergencyv1.Deviation{emergencyv1.Deviation(deviation)}
		}
		rec := &emergencyv1.Record{
			Incident: w.State.Incident, FirstPosition: w.State.Position + 1, RecordedAt: stampOf(w.Now), Events: []*emergencyv1.Event{e, e},
			Actor: &emergencyv1.Actor{Person: "carla"}, Command: "Declare", Owner: procedure.OwnerIncident,
		}
		_ = procedure.VerifyRecord(w.State, rec, w.Book) // whatever it says, it says it
		s, err := procedure.Evolve(w.State, rec, "hash")
		if pt.Fingerprint(w.State) != before {
			t.Fatalf("evolving %s changed the state before it", e.GetType())
		}
		if err != nil {
			return
		}
		book := w.Book
		if m, err := procedure.DecodeEvent(e); err == nil {
			if b, err := book.With(book.Position+1, w.Now, m); err == nil {
				book = b
			}
		}
		useState(s, book)
	})
}

func typeIndex(types []string, typ string) int {
	for i, t := range types {
		if t == typ {
			return i
		}
	}
	return 0
}

// useState asks everything that is derived from a state.
func useState(s *procedure.State, b *rulebook.Book) {
	env := procedure.Env{Now: pt.T0().Add(100 * time.Hour), Actor: pt.Actor("carla"), Book: b, Salt: make([]byte, 32)}
	procedure.Debts(s)
	procedure.NeedsSync(s)
	for _, d := range procedure.Deadlines(s) {
		d.State(s, env.Now)
	}
	procedure.NextSteps(s)
	for _, who := range []string{"carla", "anna", "theo", "bea"} {
		env.Actor = pt.Actor(who)
		procedure.Options(s, env)
	}
	for _, o := range procedure.Owners() {
		env.Owner = o
		procedure.NextDue(s, env)
	}
	for _, g := range s.Grants {
		procedure.AccessGate(s, g.ID, s.Host(), b, env.Now)
		procedure.SessionGate(s, g.ID, s.Host(), b, env.Now)
		_, _ = procedure.MayWatch(s, g.ID, "carl", b, env.Now)
		procedure.MayFetchCredential(s, g.ID, "emil", b, env.Now)
	}
	s.OpenGrant()
	if r := s.Current(); r != nil {
		procedure.HostGate(s, r.ID, s.Host(), b, env.Now)
	}
}
