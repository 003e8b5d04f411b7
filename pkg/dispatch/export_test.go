// SPDX-License-Identifier: Apache-2.0

package dispatch

// Remembered is how many incidents are in memory.
func (d *Dispatcher) Remembered() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.incidents)
}
