// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// ordered is what an incident is to who gives commands: a log to which each command appends once, at a moment between being given and being
// answered. Its state is the last position; others append in between.
var ordered = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, _, output any) (bool, any) {
		done := output.(*emergencyv1.Committed)
		return done.GetFirstPosition() > state.(uint64) && done.GetLastPosition() >= done.GetFirstPosition(), done.GetLastPosition()
	},
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%v at %d", input, output.(*emergencyv1.Committed).GetFirstPosition())
	},
}

// linearizable tells by an independent checker whether the answers of an incident's commands are those of one log; wrong counts the incidents
// whose answers are not, unknown those of which it could not be told in time.
func linearizable(acks []acked) (checked, wrong, unknown int) {
	byIncident := map[string][]porcupine.Operation{}
	clients := map[string]int{}
	for _, a := range acks {
		id, ok := clients[a.person]
		if !ok {
			id = len(clients)
			clients[a.person] = id
		}
		byIncident[a.done.GetIncident()] = append(byIncident[a.done.GetIncident()], porcupine.Operation{
			ClientId: id, Input: a.command, Output: a.done, Call: a.given.UnixNano(), Return: a.answered.UnixNano(),
		})
	}
	for _, ops := range byIncident {
		switch porcupine.CheckOperationsTimeout(ordered, ops, 30*time.Second) {
		case porcupine.Ok:
			checked++
		case porcupine.Illegal:
			wrong++
		case porcupine.Unknown:
			unknown++
		}
	}
	return checked, wrong, unknown
}

// The checker finds what it is there for.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	at := func(person string, given, answered int, first, last uint64) acked {
		zero := time.Unix(1_000_000, 0)
		return acked{
			person: person, command: "AnnotateLog", given: zero.Add(time.Duration(given) * time.Millisecond), answered: zero.Add(time.Duration(answered) * time.Millisecond),
			done: &emergencyv1.Committed{Incident: "e20261124.1", FirstPosition: first, LastPosition: last},
		}
	}
	for name, c := range map[string]struct {
		acks []acked
		good bool
	}{
		"one after the other":          {[]acked{at("anna", 0, 1, 1, 2), at("bert", 2, 3, 3, 3)}, true},
		"others in between":            {[]acked{at("anna", 0, 1, 1, 2), at("bert", 2, 3, 9, 9)}, true},
		"at the same time, any order":  {[]acked{at("anna", 0, 5, 4, 4), at("bert", 1, 6, 3, 3)}, true},
		"answered late, stored early":  {[]acked{at("anna", 0, 50, 1, 1), at("bert", 2, 3, 2, 2), at("carl", 4, 5, 3, 3)}, true},
		"given after, stored before":   {[]acked{at("anna", 0, 1, 5, 5), at("bert", 2, 3, 4, 4)}, false},
		"the same place twice":         {[]acked{at("anna", 0, 5, 4, 4), at("bert", 1, 6, 4, 4)}, false},
		"one within another's events":  {[]acked{at("anna", 0, 5, 4, 7), at("bert", 1, 6, 5, 5)}, false},
		"a later one is stored before": {[]acked{at("anna", 0, 50, 2, 2), at("bert", 2, 3, 3, 3), at("carl", 4, 5, 1, 1)}, false},
	} {
		checked, wrong, unknown := linearizable(c.acks)
		if unknown != 0 || (wrong == 0) != c.good || checked+wrong != 1 {
			t.Errorf("%s: %d right, %d wrong, %d unknown", name, checked, wrong, unknown)
		}
	}
}
