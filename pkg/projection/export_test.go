// SPDX-License-Identifier: Apache-2.0

package projection

import "cacert.org/emergency/pkg/procedure"

// Break makes the next fold of an incident panic.
func (p *Incidents) Break(incident string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.states[incident] = (*procedure.State)(nil)
}
