// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"testing"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
)

// TestStory plays strategy 1 as it should go.
func TestStory(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.ClosedDown)).World()
	if w.State.Status != procedure.Closed {
		t.Fatalf("status %s", w.State.Status)
	}
	for _, o := range procedure.Debts(w.State) {
		if o.Open() {
			t.Errorf("still owed: %+v", o)
		}
	}
}
