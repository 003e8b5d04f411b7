// SPDX-License-Identifier: Apache-2.0

package procedure

// Rung is the last rung of the ladder that was told for an obligation; 0 if none was (procedure.md 7, SP 5.3.3).
func (s *State) Rung(id string) uint32 {
	if o, ok := s.recorded(id); ok {
		return o.rung
	}
	return 0
}
