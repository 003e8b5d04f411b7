// SPDX-License-Identifier: Apache-2.0

package rpc

// Remembered is how many callers a limiter remembers.
func (l *Limiter) Remembered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.known) + len(l.addresses)
}
