// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"testing"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
)

// TestConsoleStory plays a watched session as it should go, from the joint declaration to the seal.
func TestConsoleStory(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Sealed)).World()
	g := w.State.Grants[0]
	if g.State != procedure.GrantSealed || w.State.OpenGrant() != nil {
		t.Fatalf("%+v", g)
	}
	for _, kind := range []string{"DISABLE_ACCESS", "PROVE_UNUSABLE", "SEAL_SESSION", "EXPLAIN_LEFTOVERS"} {
		if o, ok := debt(w.State, kind); !ok || o.Open() {
			t.Errorf("%s: %+v", kind, o)
		}
	}
	if o, ok := debt(w.State, "REPLICATE"); !ok || !o.Open() {
		t.Errorf("the session changed the host: %+v", o)
	}
}
