// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"slices"
	"time"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The state of strategy 3's one-time access: permissions and grants (seed 3.3 to 3.8; procedure.md 6, GRANT).

// GrantState of a grant (procedure.md 6). Permitted is the state before there is a grant: see Permission.
type GrantState string

// The states of a grant.
const (
	GrantIssued         GrantState = "ISSUED"
	GrantWatcherReady   GrantState = "WATCHER_READY"
	GrantLive           GrantState = "LIVE"
	GrantFrozen         GrantState = "FROZEN"
	GrantExpired        GrantState = "EXPIRED"
	GrantTerminated     GrantState = "TERMINATED"
	GrantDisabled       GrantState = "DISABLED"
	GrantProvenUnusable GrantState = "PROVEN_UNUSABLE"
	GrantStillUsable    GrantState = "STILL_USABLE"
	GrantSealed         GrantState = "SEALED"
)

// Permission is the critical team lead's permission for the access of one person (SP 4.1.1.1).
type Permission struct {
	Mark
	Subject    string
	Purpose    string // commitment
	ValidUntil time.Time
}

// Grant is a one-time connection for one named person, from its installation to its seal.
type Grant struct {
	ID string
	// Subject types; Watcher watches now, Named is the watcher that the grant names; Granter acts as access engineer.
	Subject, Watcher, Named, Granter string
	Host                             string
	Account, Purpose, Source         string // commitments; Source is empty if any address will do
	State                            GrantState
	Position                         uint64
	IssuedAt                         time.Time
	FirstUseUntil                    time.Time
	Max                              time.Duration
	// Permission is the position of the lead's; 0 if the lead could not be reached.
	Permission     uint64
	BeforeTree     string
	BeforeManifest *emergencyv1.Artefact
	// Agent: the host has an agent that can freeze and kill; as granted, then as the connection found it.
	Agent bool
	// Gateway is the instance of the deployment service that has the session, empty if none said so. No rule looks at it.
	Gateway string

	Armed    Mark // the last confirmation of the watch
	Consumed Mark
	Opened   Mark
	HostKey  string // fingerprint
	// TargetKey is the gateway's public key for the host, one authorized_keys line; empty in histories that do not name it.
	TargetKey string
	// Frozen is the last freeze.
	Frozen      Mark
	FreezeCause emergencyv1.SessionCause
	FreezeMode  emergencyv1.FreezeMode
	Resumed     Mark
	Extended    Mark
	Extension   time.Duration
	Checkpoints []Checkpoint
	Marks       []Mark // notes, refused requests, takeovers ...

	Expired    Mark
	Terminated Mark
	Cause      emergencyv1.SessionCause
	Results    []*emergencyv1.EndResult
	// Bytes of output recorded, of input forwarded and of input discarded, as last told.
	OutputOffset, InputBytes, InputDiscarded uint64

	Disabled     Mark // the last time
	DisabledDone Mark // the first time with gateway and host both done
	Proven       Mark // the first time
	LastProven   Mark
	StillUsable  Mark
	RoleEnded    Mark

	Diff              SessionDiff
	LeftoversReported []Mark
	Leftovers         []LeftoverItem

	Sealed    Mark
	Recording *emergencyv1.Artefact
	Record    emergencyv1.RecordingState
}

// Checkpoint anchors the recording's chain in the history.
type Checkpoint struct {
	Mark
	Frame        uint64
	ChainHash    string
	OutputOffset uint64
	Size         uint64
}

// SessionDiff is the difference that a session left in the host's tree.
type SessionDiff struct {
	Mark
	AfterTree     string
	AfterManifest *emergencyv1.Artefact
	// Patch is the difference as a patch, nil if there is none. With a Problem it is evidence alone: it may not be registered.
	Patch      *emergencyv1.Artefact
	Problem    string
	BaseCommit string
	Paths      []string // commitments
}

// LeftoverItem is one thing that a session left on the host.
type LeftoverItem struct {
	Item      string
	Kind      emergencyv1.LeftoverKind
	What      string // commitment
	Reported  Mark
	Explained Mark
}

func (g Grant) clone() Grant {
	g.Checkpoints, g.Marks, g.Results = slices.Clone(g.Checkpoints), slices.Clone(g.Marks), slices.Clone(g.Results)
	g.LeftoversReported, g.Leftovers, g.Diff.Paths = slices.Clone(g.LeftoversReported), slices.Clone(g.Leftovers), slices.Clone(g.Diff.Paths)
	return g
}

// Grant returns a grant by its id.
func (s *State) Grant(id string) (*Grant, bool) {
	for i := range s.Grants {
		if s.Grants[i].ID == id {
			return &s.Grants[i], true
		}
	}
	return nil, false
}

// OpenGrant returns the grant that is issued and not yet proven unusable, or nil. There is one at most, and while there is
// one the incident does not end (4.1 Close).
func (s *State) OpenGrant() *Grant {
	for i := range s.Grants {
		if g := &s.Grants[i]; !g.spent() {
			return g
		}
	}
	return nil
}

// spent tells whether the access is proven unusable.
func (g *Grant) spent() bool { return g.State == GrantProvenUnusable || g.State == GrantSealed }

// live tells whether the session runs, frozen or not.
func (g *Grant) live() bool { return g.State == GrantLive || g.State == GrantFrozen }

// unused tells whether the credential still waits for its one use.
func (g *Grant) unused() bool {
	return (g.State == GrantIssued || g.State == GrantWatcherReady) && g.Consumed.Position == 0
}

// Over tells whether the access has ended: terminated, or expired without use.
func (g *Grant) Over() bool { return g.Terminated.Position > 0 || g.Expired.Position > 0 }

// changed tells whether the session left the host's tree other than it was.
func (g *Grant) changed() bool {
	return g.Diff.Position > 0 && g.Diff.AfterTree != g.BeforeTree
}

// Last is the last checkpoint of the recording; zero without one.
func (g *Grant) Last() Checkpoint {
	if len(g.Checkpoints) == 0 {
		return Checkpoint{}
	}
	return g.Checkpoints[len(g.Checkpoints)-1]
}

// EndsBy is when the session ends at the latest; of a grant that was not opened, as if it were opened now or when its
// credential was used.
func (g *Grant) EndsBy() time.Time {
	switch {
	case g.Opened.Position > 0:
		return g.Opened.At.Add(g.Max + g.Extension)
	case g.Consumed.Position > 0:
		return g.Consumed.At.Add(g.Max)
	}
	return g.FirstUseUntil
}

// endOrPlan is when the access ended, or will at the latest; what is owed afterwards runs from then.
func (g *Grant) endOrPlan() time.Time {
	if g.Terminated.Position > 0 {
		return g.Terminated.At
	}
	return g.EndsBy()
}

// PresenceUntil is until when the watcher has to confirm to be present.
func (s *State) PresenceUntil(g *Grant) time.Time {
	return g.Armed.At.Add(s.Policy.Duration("watch.presence"))
}

// unexplained are the items that nobody has explained.
func (g *Grant) unexplained() []string {
	var list []string
	for _, l := range g.Leftovers {
		if l.Explained.Position == 0 {
			list = append(list, l.Item)
		}
	}
	return list
}

// sessionOpened tells whether any session reached the host: a production effect.
func (s *State) sessionOpened() bool {
	return slices.ContainsFunc(s.Grants, func(g Grant) bool { return g.Opened.Position > 0 })
}

// lastSession is the last opened session that ended, or nil.
func (s *State) lastSession() *Grant {
	for i := len(s.Grants) - 1; i >= 0; i-- {
		if g := &s.Grants[i]; g.Opened.Position > 0 && g.Terminated.Position > 0 {
			return g
		}
	}
	return nil
}

// consoleDebts are what the accesses owe (7).
func (s *State) consoleDebts() []Obligation {
	p := s.Policy
	var list []Obligation
	for i := range s.Grants {
		g := &s.Grants[i]
		issued, end := Mark{Position: g.Position, At: g.IssuedAt}, g.endOrPlan()
		list = append(list,
			s.owe("DISABLE_ACCESS", issued, end.Add(p.Duration("disable")), ca, g.Granter, "Disable", "seed 3.6", g.DisabledDone),
			s.owe("PROVE_UNUSABLE", issued, end.Add(p.Duration("prove_unusable")), ca, g.Granter, "ProveUnusable", "seed 3.6", g.Proven))
		if g.Opened.Position > 0 {
			list = append(list, s.owe("SEAL_SESSION", g.Opened, end.Add(p.Duration("seal")), ca, g.Watcher, "SealSession", "seed 3.6", g.Sealed))
		}
		for _, m := range g.LeftoversReported {
			if o, owed := s.leftoverDebt(g, m); owed {
				list = append(list, o)
			}
		}
		if g.changed() {
			list = append(list, s.replicate(g.Diff.Mark))
		}
	}
	return list
}

// leftoverDebt is owed for one report until its last item is explained.
func (s *State) leftoverDebt(g *Grant, report Mark) (Obligation, bool) {
	var last Mark
	items, open := 0, false
	for _, l := range g.Leftovers {
		if l.Reported.Position != report.Position {
			continue
		}
		items++
		open = open || l.Explained.Position == 0
		if l.Explained.Position > last.Position {
			last = l.Explained
		}
	}
	if open {
		last = Mark{}
	}
	due := report.At.Add(s.Policy.Duration("explain_leftovers"))
	return s.owe("EXPLAIN_LEFTOVERS", report, due, ca, g.Watcher, "ExplainLeftovers", "seed 3.6", last), items > 0
}
