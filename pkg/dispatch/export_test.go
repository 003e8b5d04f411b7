// SPDX-License-Identifier: Apache-2.0

package dispatch

// Remembered is how many incidents are in memory.
func (d *Dispatcher) Remembered() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.incidents)
}

// Break makes the next fold of an incident that is in memory panic.
func (d *Dispatcher) Break(id string) {
	inc := d.incident(id)
	inc.lock <- struct{}{}
	defer inc.give()
	inc.state = nil
}
