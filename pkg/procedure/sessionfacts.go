// SPDX-License-Identifier: Apache-2.0

package procedure

import "time"

// What the rest of the procedure asks about the watched console's accesses and sessions (procedure.md 4.4).

// liveGrant is the access that was issued and is not yet proven unusable; empty if there is none.
func (s *State) liveGrant() string { return "" }

// sessionEndedAt is when the first session was terminated; zero if none was.
func (s *State) sessionEndedAt() time.Time { return time.Time{} }

// sessionDifference is what a session changed on the host, as the agent found it.
type sessionDifference struct {
	Mark
	Grant                         string
	SHA256, BeforeTree, AfterTree string
}

// sessionDifferences are the differences that sessions left; a session without one is not among them.
func (s *State) sessionDifferences() []sessionDifference { return nil }
