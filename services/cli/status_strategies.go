// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// What status shows of how the incident came to its strategy, from the history as this machine has verified it.

// strategies shows how the incident came to its strategy, and a half of a joint declaration that waits.
func (a *app) strategies(st *procedure.State) {
	for _, c := range st.Strategies {
		why := ""
		switch {
		case c.To < c.From:
			why = "back from " + fmt.Sprint(c.From)
		case c.To == 3:
			why = "joint declaration"
		default:
			why = groundWords(&emergencyv1.EscalateRequest{Ground: c.Ground, Team: c.Team, Code: c.Code})
		}
		if len(c.Skipped) > 0 {
			why += "; skips " + strings.ReplaceAll(strings.Join(c.Skipped, ", "), "_", " ")
		}
		a.out.field(fmt.Sprintf("strategy %d", c.To), "%s, %s", why, a.out.at(c.At))
	}
	if st.Strategy < 3 && len(st.Joint) > 0 {
		half := st.Joint[0]
		if until := half.At.Add(st.Policy.Duration("joint.window")); !a.proc.Now().After(until) {
			a.out.field("strategy 3", "%s has signed one half; the other one counts until %s: %s", half.By, a.out.at(until), a.typing("epatch joint-declare --agree"))
		}
	}
}
