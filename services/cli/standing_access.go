// SPDX-License-Identifier: Apache-2.0

package cli

import "cacert.org/emergency/pkg/procedure"

// court shows disputes and directions.
func (a *app) court(st *procedure.State) {
	if len(st.Disputes) > 0 {
		a.part("disputes")
		a.disputes(st)
	}
	if len(st.Directions) > 0 {
		a.part("directions")
		a.directions(st)
	}
}
