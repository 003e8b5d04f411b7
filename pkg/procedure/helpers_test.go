// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const (
	approve = emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE
	changes = emergencyv1.ReviewVerdict_REVIEW_VERDICT_CHANGES
	veto    = emergencyv1.ReviewVerdict_REVIEW_VERDICT_VETO
	pass    = emergencyv1.TestResult_TEST_RESULT_PASS
	fail    = emergencyv1.TestResult_TEST_RESULT_FAIL

	tests    = emergencyv1.Control_CONTROL_TEST_QUORUM
	observer = emergencyv1.Control_CONTROL_OBSERVER

	critical    = emergencyv1.Team_TEAM_CRITICAL
	assessment  = emergencyv1.Team_TEAM_ASSESSMENT
	development = emergencyv1.Team_TEAM_DEVELOPMENT
	testing_    = emergencyv1.Team_TEAM_TESTING
)

// row is one line of a table: after the history, the command by somebody gives events, or is refused.
type row struct {
	name    string
	given   []pt.Step
	when    procedure.Command
	as      func(*procedure.State) procedure.Command // instead of when, where it depends on the state
	by      string
	with    []pt.Option
	then    []string // types of the events; with refused empty, none means that nothing is recorded
	refused procedure.Reason
	check   func(*testing.T, *pt.World) // of the state afterwards
}

func history(steps ...pt.Step) []pt.Step { return steps }

func events(types ...string) []string { return types }

func run(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.play(t, given(t, r.given...))
		})
	}
}

func runRuleBook(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.play(t, givenRuleBook(t, r.given...))
		})
	}
}

func (r row) play(t *testing.T, c *pt.Case) {
	t.Helper()
	if r.as != nil {
		c.WhenAs(r.as)
	} else {
		c.When(r.when)
	}
	c.By(r.by, r.with...)
	if r.refused != "" {
		c.ThenRefused(r.refused)
	} else {
		c.Then(r.then...)
	}
	if r.check != nil {
		r.check(t, c.World())
	}
}

// with returns a copy of a command with something changed.
func with[C proto.Message](c C, change func(C)) C {
	n := proto.Clone(c).(C)
	change(n)
	return n
}

// current is the current revision.
func current(t *testing.T, w *pt.World) *procedure.Revision {
	t.Helper()
	r := w.State.Current()
	if r == nil {
		t.Fatal("no current revision")
	}
	return r
}

// deviations are the deviations of the last event's record.
func lastDeviations(w *pt.World) []emergencyv1.Deviation {
	var list []emergencyv1.Deviation
	for _, e := range w.Records[len(w.Records)-1].GetEvents() {
		list = append(list, e.GetDeviations()...)
	}
	return list
}

// debt finds an obligation by its kind.
func debt(s *procedure.State, kind string) (procedure.Obligation, bool) {
	for _, o := range procedure.Debts(s) {
		if o.Kind == kind {
			return o, true
		}
	}
	return procedure.Obligation{}, false
}

func stampOf(at time.Time) *timestamppb.Timestamp { return timestamppb.New(at) }

func revokeRole(person string, role emergencyv1.Role, from time.Time) procedure.Command {
	return &emergencyv1.RevokeRoleRequest{Person: person, Role: role, EffectiveAt: stampOf(from), BoardDecision: "m20261124.1"}
}
