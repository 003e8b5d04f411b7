// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

// TestOldFindingsAreSaidToBeOld: after a roll-back neither the health of the patch nor the comparison with it is present.
func TestOldFindingsAreSaidToBeOld(t *testing.T) {
	t.Parallel()
	rolled := func(health, compared uint64) *procedure.State {
		return &procedure.State{
			Applies:      []procedure.Apply{{Revision: "P1r1", Position: 40, State: procedure.RolledBack, Ended: procedure.Mark{Position: 60}}},
			Health:       []procedure.Mark{{Revision: "P1r1", Position: health, Result: "GOOD"}},
			Replications: []procedure.Replication{{Mark: procedure.Mark{Position: compared}}},
		}
	}
	for _, x := range []struct {
		name  string
		state procedure.ApplyState
		st    *procedure.State
		want  []string
	}{
		{"both older", procedure.RolledBack, rolled(50, 55), []string{"health good, before the roll-back", "host and branch: equal, before the roll-back"}},
		{"compared again", procedure.RolledBack, rolled(50, 70), []string{"health good, before the roll-back", "host and branch: equal"}},
		{"both again", procedure.RolledBack, rolled(65, 70), []string{"health good", "host and branch: equal"}},
		{"not verified here", procedure.BackedOut, nil, []string{"health good, before the back-out", "host and branch: equal, before the back-out"}},
		{"runs", procedure.Verified, rolled(50, 55), []string{"health good", "host and branch: equal"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			a := testApp()
			a.out = newPrinter(&b, a.proc)
			a.deployments(&dashboardv1.Incident{Replication: "EQUAL", Deployments: []*dashboardv1.Deployment{
				{Revision: "P1r1", Position: 40, State: string(x.state), Health: "GOOD"},
			}}, x.st)
			for _, want := range x.want {
				if !strings.Contains(b.String(), want+"\n") {
					t.Errorf("no line ends in %q:\n%s", want, b.String())
				}
			}
		})
	}
}

func TestTheFirstCallIsNotRepeated(t *testing.T) {
	t.Parallel()
	now := testApp().proc.Now()
	for _, x := range []struct {
		age    time.Duration
		rounds int
		want   bool
	}{{time.Second, 0, true}, {time.Minute, 0, false}, {time.Second, 1, false}} {
		st := &procedure.State{Rounds: make([]procedure.Round, x.rounds)}
		st.Declared.At = now.Add(-x.age)
		if got := beingCalled(st, now); got != x.want {
			t.Errorf("%s after the declaration with %d rounds: %t", x.age, x.rounds, got)
		}
	}
}

func TestOnce(t *testing.T) {
	t.Parallel()
	if got := once([]string{"dora", "emil", "dora"}); !slices.Equal(got, []string{"dora", "emil"}) {
		t.Errorf("got %v", got)
	}
}
