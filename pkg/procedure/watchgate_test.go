// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// TestMayWatchThrough: nobody counts as the watcher through a service but who has just signed exactly that.
func TestMayWatchThrough(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Live)).World()
	const id = "watch-0123456789"
	signed := func(by string, change func(*emergencyv1.Statement)) *emergencyv1.Approval {
		st := procedure.WatchStatement(w.State, "G1", "carl", id, w.Now)
		if change != nil {
			change(st)
		}
		return pt.KeyOf(by).Sign(st)
	}
	for name, x := range map[string]struct {
		a     *emergencyv1.Approval
		after time.Duration
		want  procedure.Reason
	}{
		"as it should be":           {a: signed("carl", nil)},
		"by another key of his":     {a: signed("carl", nil), after: time.Minute},
		"not signed":                {want: procedure.ReasonSignature},
		"signed by another":         {a: signed("carla", nil), want: procedure.ReasonSignature},
		"for another":               {a: signed("carl", func(s *emergencyv1.Statement) { s.Person = "carla" }), want: procedure.ReasonSignature},
		"for another session":       {a: signed("carl", func(s *emergencyv1.Statement) { s.Claims[0].Value = "G2" }), want: procedure.ReasonSignature},
		"for another emergency":     {a: signed("carl", func(s *emergencyv1.Statement) { s.Incident = "e20261123.9" }), want: procedure.ReasonSignature},
		"under another policy":      {a: signed("carl", func(s *emergencyv1.Statement) { s.PolicyDigest = "" }), want: procedure.ReasonSignature},
		"in another role":           {a: signed("carl", func(s *emergencyv1.Statement) { s.Role = roleTE }), want: procedure.ReasonSignature},
		"without an id":             {a: signed("carl", func(s *emergencyv1.Statement) { s.RequestId = "" }), want: procedure.ReasonSignature},
		"what arms the watch":       {a: signed("carl", func(s *emergencyv1.Statement) { s.Command = "ArmWatch" }), want: procedure.ReasonSignature},
		"changed after the signing": {a: changedAfter(signed("carl", nil)), want: procedure.ReasonSignature},
		"too old":                   {a: signed("carl", nil), after: time.Hour, want: procedure.ReasonStepUpRequired},
		"from the future":           {a: signed("carl", nil), after: -time.Hour, want: procedure.ReasonStepUpRequired},
	} {
		got, until, no := procedure.MayWatchThrough(w.State, "G1", "carl", x.a, w.Book, w.Now.Add(x.after))
		checkGate(t, no, x.want)
		if x.want == "" && (got != id || !until.After(w.Now.Add(x.after))) {
			t.Errorf("%s: id %q until %s", name, got, until)
		}
	}
}

func changedAfter(a *emergencyv1.Approval) *emergencyv1.Approval {
	b := proto.Clone(a).(*emergencyv1.Approval)
	b.Payload = append(b.Payload, 0x1a, 0x01, 'x')
	return b
}
