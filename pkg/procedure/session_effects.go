// SPDX-License-Identifier: Apache-2.0

package procedure

import "time"

// What the rest of the procedure asks about the watched console's sessions (procedure.md 4.4).

// sessionEndedAt is when the first session was terminated; zero if none was.
func (s *State) sessionEndedAt() time.Time {
	for _, g := range s.Grants {
		if g.Opened.Position > 0 && g.Terminated.Position > 0 {
			return g.Terminated.At
		}
	}
	return time.Time{}
}

// sessionDifference is what a session changed on the host, as the agent found it.
type sessionDifference struct {
	Mark
	Grant                         string
	SHA256, BeforeTree, AfterTree string
}

// sessionDifferences are the differences that sessions left; a session without one is not among them.
func (s *State) sessionDifferences() []sessionDifference {
	var list []sessionDifference
	for _, g := range s.Grants {
		if !g.changed() {
			continue
		}
		x := sessionDifference{Mark: g.Diff.Mark, Grant: g.ID, BeforeTree: g.BeforeTree, AfterTree: g.Diff.AfterTree}
		if g.Diff.Problem == "" { // what may not be registered is kept as evidence only
			x.SHA256 = g.Diff.Patch.GetSha256()
		}
		list = append(list, x)
	}
	return list
}

// is tells whether a patch is exactly this difference. Where it could not be captured as a patch, the trees say it.
func (x sessionDifference) is(sha256, before, after string) bool {
	return (x.SHA256 == "" || x.SHA256 == sha256) && x.BeforeTree == before && x.AfterTree == after
}

// sessionEffects are the connections that were opened, by the critical admin who had granted each.
func (s *State) sessionEffects() []Mark {
	var list []Mark
	for _, g := range s.Grants {
		if g.Opened.Position > 0 {
			list = append(list, Mark{Position: g.Opened.Position, At: g.Opened.At, By: g.Granter})
		}
	}
	return list
}

// actedInSession tells whether a person granted or watched an access that was used.
func (s *State) actedInSession(person string) bool {
	for _, g := range s.Grants {
		if g.Opened.Position > 0 && (g.Granter == person || g.Watcher == person || g.Armed.By == person) {
			return true
		}
	}
	return false
}
