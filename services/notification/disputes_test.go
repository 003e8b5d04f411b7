// SPDX-License-Identifier: Apache-2.0

package notification_test

import (
	"slices"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// At each point of a dispute those hear of it whom it waits for, once, and nothing of what is private.
func TestDisputeIsTold(t *testing.T) {
	t.Parallel()
	mail, irc := newWay("mail", takes), newWay("irc", takes)
	x := newRig(t, mail, irc)
	w := proceduretest.Given(t, proceduretest.Story(proceduretest.Verified), proceduretest.Dispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1, proceduretest.FinalRuled)).World()
	x.Seed(w)
	x.start()
	first, second := w.State.Disputes[0].ID, w.State.Disputes[1].ID
	for what, want := range map[string]string{
		"dispute " + first + " is filed":          "casper",
		"a review of ruling R1 is asked for":      "casper",
		"you are asked to arbitrate " + first:     "agnes arno",
		"you are asked to arbitrate " + second:    "agnes",
		"an arbitrator declines " + first:         "casper",
		first + " has an arbitrator":              "casper",
		"direction D1 is for you":                 "carla",
		"direction D1 is reported as carried out": "casper",
		"ruling R1 is delivered":                  "casper",
		second + " is re-opened":                  "doris",
		"you are of the panel for " + second:      "achim adele alois",
	} {
		names := strings.Fields(want)
		got := mail.await(t, len(names), about(what))
		var told []string
		for _, p := range got {
			told = append(told, p.Recipient.Person)
			for _, secret := range []string{"nothing else would have helped in time", "NSW", "no time", "they have to be heard", "write the procedure down"} {
				if strings.Contains(p.Text, secret) {
					t.Errorf("%s tells %q", what, secret)
				}
			}
		}
		slices.Sort(told)
		if !slices.Equal(told, names) {
			t.Errorf("%s: told %v, want %v", what, told, names)
		}
	}
}
