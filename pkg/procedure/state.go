// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"maps"
	"slices"
	"time"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Status of an incident (procedure.md 6).
type Status string

// The statuses of an incident; Absent is an incident without a history.
const (
	Absent    Status = ""
	Open      Status = "OPEN"
	StoodDown Status = "STOOD_DOWN"
	Merged    Status = "MERGED"
	Closed    Status = "CLOSED"
)

// State is the fold of one incident's whole history. The zero State with an id is an incident without a history.
type State struct {
	// Incident is the id.
	Incident string
	// Position is the last event's position.
	Position uint64
	// RecordedAt is the last record's time; time in an incident never goes back (procedure.md 0.6).
	RecordedAt time.Time
	// HeadHash is the last record's hash.
	HeadHash string

	Status     Status
	Strategy   uint32
	Declared   Declaration
	Policy     *rulebook.Policy
	MergedInto string
	EndedAt    time.Time
	Outcome    emergencyv1.Outcome

	Strategies []StrategyChange // upwards and downwards, in order
	Joint      []JointHalf      // the half of a joint declaration that waits for the other
	Failures   []Mark           // failed tests, vetoes, failed applies, deployments that differ

	Slots       []Slot
	SlotsFilled Mark // when every slot was filled for the first time
	Rounds      []Round
	Pages       []Page
	Gaps        []Gap
	Declined    []Declined
	Answered    []Declined // who accepted

	Revisions []Revision
	Vetoes    []Veto
	Waivers   []Waiver

	DryRuns      []DryRun
	Observers    []Observer
	Applies      []Apply
	Health       []Mark
	Replications []Replication
	Pushes       []Mark
	Drift        []DriftPath

	Permissions []Permission
	Grants      []Grant

	Lead         *LeadRecord
	NoEffects    []NoEffect
	Late         []LateRecord
	Documented   []DocumentRecord
	BoardReports []BoardReport
	Obligations  []Obligation
	Warned       []Warned
	Breached     []string
	Deviations   []DeviationAt
	Notes        []Mark

	// Heads are the records, Involved who acted, Restricted what is kept outside the history.
	Heads      []RecordHead
	Involved   []Involvement
	Restricted []RestrictedAt
	Disputes   []Dispute
	Rulings    []Ruling
	Directions []Direction
	Lifts      []Lift

	// Archive are the messages of the mailing list's archive; only in the history of that name.
	Archive []ArchivedMessage

	// Requests are the accepted commands by who sent them (G3), for ever.
	Requests map[RequestKey]Result
	// Acted lists who acted in the incident, sorted; arbitrators may not be among them (X14).
	Acted []string
}

// Declaration is how the incident began.
type Declaration struct {
	At          time.Time
	By          string
	ByRole      emergencyv1.Role
	System      string
	Severity    emergencyv1.Severity
	ReasonClass emergencyv1.ReasonClass
	Drill       bool
	Component   string // commitment
	Symptom     string // commitment
	Reason      string // commitment
	Duplicates  []string
}

// Mark is a position and its time; By is a person or system where that matters, Revision where it is about one.
type Mark struct {
	Position uint64
	At       time.Time
	By       string
	Revision string
	Result   string
}

// SlotState of a slot (procedure.md 6).
type SlotState string

// The states of a slot.
const (
	SlotOpen     SlotState = "OPEN"
	SlotAccepted SlotState = "ACCEPTED"
	SlotStandby  SlotState = "STANDBY"
	SlotEnded    SlotState = "ENDED"
)

// Slot is a place in a team that a named person fills.
type Slot struct {
	ID          string
	Team        emergencyv1.Team
	Step        emergencyv1.ResponderStep
	State       SlotState
	Person      string
	Contact     string // commitment of the contact path
	Unconfirmed bool
	Since       time.Time // of the acceptance, or of the last check-in
	OpenSince   time.Time
	// Planned is the step the slot is there for; whoever holds it may do another one of the team's.
	Planned emergencyv1.ResponderStep
	// HandoverTo was asked to take over, and is reached by HandoverContact, a commitment.
	HandoverTo      string
	HandoverContact string
}

// Round is one call-out or re-page of everybody.
type Round struct {
	Number   uint32
	Position uint64
	At       time.Time
	Teams    []emergencyv1.Team
	Channels []string
	Fallback bool
	By       string
}

// Page is one message to one person on one channel and what became of it.
type Page struct {
	ID       string
	Round    uint32
	Team     emergencyv1.Team
	Person   string
	Channel  string
	Address  string // commitment
	SentAt   time.Time
	State    emergencyv1.DeliveryState
	Detail   string
	Position uint64
}

// Gap is a called team with nobody on duty.
type Gap struct {
	Team     emergencyv1.Team
	Position uint64
	At       time.Time
}

// Declined is a person who will not take part for a team.
type Declined struct {
	Team     emergencyv1.Team
	Person   string
	Position uint64
}

// Revision is one revision of a patch with everything decided on it.
type Revision struct {
	ID         string
	Patch      string
	Binding    string
	Artefact   *emergencyv1.Artefact
	BaseCommit string
	BaseTree   string
	ResultTree string
	Author     string
	BugID      string
	Origin     emergencyv1.PatchOrigin
	By         string
	Position   uint64
	At         time.Time
	Superseded string // by which revision

	// Checks are those before the deployment; Cycle has those of the regular update cycle after it, nil until it is entered.
	Checks
	Cycle *Cycle
	// TestedAt is when the quorum was reached for the first time, with a waiver or without; testing again does not move it.
	TestedAt time.Time
	Forward  *Forward
}

// Review is a first or second review.
type Review struct {
	Mark
	Verdict emergencyv1.ReviewVerdict
}

// Transfer is the push to the repository.
type Transfer struct {
	Mark
	Commit string
	Tree   string
	Ref    string
	// FirstAt is when it was transferred for the first time; a repetition does not make it late.
	FirstAt time.Time
}

// TestServer is the test server's tree.
type TestServer struct {
	Mark
	Tree        string
	Environment string
}

// Test is one person's test; a second one by the same person replaces the first (X9).
type Test struct {
	Mark
	Pass bool
	Note string
}

// Forward is the handing over to the critical team.
type Forward struct {
	Mark
	To        string
	LocalTest bool
	// Complete: forwarded under strategy 1, after all that it asks for; it stays so when it is forwarded again.
	Complete bool
	// FirstAt is when it was forwarded for the first time; a repetition does not make it late.
	FirstAt time.Time
}

// VetoState of a veto.
type VetoState string

// The states of a veto.
const (
	VetoOpen      VetoState = "OPEN"
	VetoWithdrawn VetoState = "WITHDRAWN"
	VetoOverruled VetoState = "OVERRULED"
)

// Veto stops a revision until it is withdrawn or overruled.
type Veto struct {
	ID         string
	Revision   string
	By         string
	State      VetoState
	AfterApply bool
	Position   uint64
	At         time.Time
	Ended      Mark
}

// Waiver is a waived control.
type Waiver struct {
	Mark
	Control emergencyv1.Control
}

// DryRun is a dry run on the host.
type DryRun struct {
	Mark
	Host     string
	HostTree string
	Clean    bool
}

// Observer is a confirmation to observe, or of an independent check afterwards.
type Observer struct {
	Mark
	After    bool
	Executor string
}

// ApplyState of a deployment (procedure.md 6).
type ApplyState string

// The states of a deployment.
const (
	Applying        ApplyState = "APPLYING"
	Applied         ApplyState = "APPLIED"
	Verified        ApplyState = "VERIFIED"
	ApplyFailed     ApplyState = "FAILED"
	Mismatch        ApplyState = "MISMATCH"
	BackingOut      ApplyState = "BACKING_OUT"
	BackedOut       ApplyState = "BACKED_OUT"
	BackOutUnproven ApplyState = "BACK_OUT_UNPROVEN"
	RollingBack     ApplyState = "ROLLING_BACK"
	RolledBack      ApplyState = "ROLLED_BACK"
)

// Apply is one attempt to bring a revision to the host.
type Apply struct {
	Revision string
	Host     string
	Executor string
	Observer string
	Strategy uint32
	ByHand   bool
	// NoObserverSaid: the executor said why nobody observes.
	NoObserverSaid bool
	// TestsWaived: applied with fewer passing tests than the quorum; TestsDone is when the quorum was reached after all.
	TestsWaived bool
	TestsDone   Mark
	State       ApplyState
	PreTree     string
	HostTree    string
	Position    uint64
	StartedAt   time.Time
	Applied     Mark // PatchApplied
	Verified    Mark // DeployVerified
	Mismatch    Mark
	Unproven    Mark // first BackOutUnproven
	Ended       Mark // PatchBackedOut or RolledBack
	Last        uint64
}

// Running tells whether the host may be changing (procedure.md 6, rule 3).
func (a Apply) Running() bool {
	switch a.State {
	case Applying, Applied, ApplyFailed, BackingOut, RollingBack:
		return true
	case Verified, Mismatch, BackedOut, BackOutUnproven, RolledBack:
		return false
	}
	return false
}

// Replication is one comparison of host and branch.
type Replication struct {
	Mark
	Kind  emergencyv1.ReplicationResult
	Paths []string // commitments
}

// DriftPath is a path of the last comparison that differs.
type DriftPath struct {
	Commitment string
	Found      Mark
	Explained  Mark
}

// LeadRecord is the critical team lead's latest decision.
type LeadRecord struct {
	Mark
	Decision emergencyv1.LeadDecision
	Referred bool
	// First is the first decision, FirstReferred the first one that referred the case to dispute resolution.
	First, FirstReferred Mark
}

// DocumentRecord is a documentation of one strategy.
type DocumentRecord struct {
	Mark
	Strategy uint32
}

// BoardReport is a period that was reported to the Board.
type BoardReport struct {
	Mark
	From, Until time.Time
}

// Warned is a warning that was given.
type Warned struct {
	Deadline string
	Percent  uint32
}

// DeviationAt is a deviation and where it stands.
type DeviationAt struct {
	Position  uint64
	Deviation emergencyv1.Deviation
}

// RequestKey identifies a command for repetition (G3). For Declare the incident is not part of it.
type RequestKey struct {
	Person, Command, RequestID string
}

// Result is what an accepted command recorded.
type Result struct {
	Digest     string
	First      uint64
	Last       uint64
	Types      []string
	RecordedAt time.Time
	Hash       string
}

// Clone returns a copy that shares no map or slice with the original, so that one state can be continued in many ways.
func (s *State) Clone() *State {
	n := *s
	n.Declared.Duplicates = slices.Clone(s.Declared.Duplicates)
	n.Slots, n.Pages, n.Gaps, n.Declined = slices.Clone(s.Slots), slices.Clone(s.Pages), slices.Clone(s.Gaps), slices.Clone(s.Declined)
	n.Rounds = slices.Clone(s.Rounds)
	for i := range n.Rounds {
		n.Rounds[i].Teams, n.Rounds[i].Channels = slices.Clone(n.Rounds[i].Teams), slices.Clone(n.Rounds[i].Channels)
	}
	n.Revisions = slices.Clone(s.Revisions)
	for i := range n.Revisions {
		n.Revisions[i] = n.Revisions[i].clone()
	}
	n.Vetoes, n.Waivers, n.DryRuns, n.Observers = slices.Clone(s.Vetoes), slices.Clone(s.Waivers), slices.Clone(s.DryRuns), slices.Clone(s.Observers)
	n.Applies, n.Health, n.Pushes, n.Drift = slices.Clone(s.Applies), slices.Clone(s.Health), slices.Clone(s.Pushes), slices.Clone(s.Drift)
	n.Replications = slices.Clone(s.Replications)
	for i := range n.Replications {
		n.Replications[i].Paths = slices.Clone(n.Replications[i].Paths)
	}
	n.cloneStrategy(s)
	n.Permissions, n.Grants = slices.Clone(s.Permissions), slices.Clone(s.Grants)
	for i := range n.Grants {
		n.Grants[i] = n.Grants[i].clone()
	}
	n.Lead = clonePointer(s.Lead)
	n.Documented, n.BoardReports, n.Obligations = slices.Clone(s.Documented), slices.Clone(s.BoardReports), slices.Clone(s.Obligations)
	n.Warned, n.Breached, n.Deviations, n.Notes = slices.Clone(s.Warned), slices.Clone(s.Breached), slices.Clone(s.Deviations), slices.Clone(s.Notes)
	n.cloneArbitration(s)
	n.Archive = slices.Clone(s.Archive)
	n.Requests, n.Acted = maps.Clone(s.Requests), slices.Clone(s.Acted)
	return &n
}

func (r Revision) clone() Revision {
	r.Checks, r.Cycle, r.Forward = r.Checks.clone(), r.Cycle.clone(), clonePointer(r.Forward)
	return r
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// Revision returns a revision by its id.
func (s *State) Revision(id string) (*Revision, bool) {
	for i := range s.Revisions {
		if s.Revisions[i].ID == id {
			return &s.Revisions[i], true
		}
	}
	return nil, false
}

// Current returns the latest revision of the latest patch, or nil.
func (s *State) Current() *Revision {
	for i := len(s.Revisions) - 1; i >= 0; i-- {
		if s.Revisions[i].Superseded == "" {
			return &s.Revisions[i]
		}
	}
	return nil
}

// Slot returns a slot by its id.
func (s *State) Slot(id string) (*Slot, bool) {
	for i := range s.Slots {
		if s.Slots[i].ID == id {
			return &s.Slots[i], true
		}
	}
	return nil, false
}

// Held returns the slots that a person holds.
func (s *State) Held(person string) []*Slot {
	var list []*Slot
	for i := range s.Slots {
		if sl := &s.Slots[i]; sl.Person == person && (sl.State == SlotAccepted || sl.State == SlotStandby) {
			list = append(list, sl)
		}
	}
	return list
}

// ApplyOf returns the latest attempt on a revision, or nil.
func (s *State) ApplyOf(revision string) *Apply {
	for i := len(s.Applies) - 1; i >= 0; i-- {
		if s.Applies[i].Revision == revision {
			return &s.Applies[i]
		}
	}
	return nil
}

// RunningApply returns the attempt that may be changing the host, or nil.
func (s *State) RunningApply() *Apply {
	for i := range s.Applies {
		if s.Applies[i].Running() {
			return &s.Applies[i]
		}
	}
	return nil
}

// ProductionEffect tells whether the critical host may have been changed.
func (s *State) ProductionEffect() bool { return len(s.Applies) > 0 || s.sessionOpened() }

// OpenVetoes lists the open vetoes on a revision.
func (s *State) OpenVetoes(revision string) []*Veto {
	var list []*Veto
	for i := range s.Vetoes {
		if s.Vetoes[i].Revision == revision && s.Vetoes[i].State == VetoOpen {
			list = append(list, &s.Vetoes[i])
		}
	}
	return list
}

// Waived tells whether a control is waived for a revision.
func (s *State) Waived(c emergencyv1.Control, revision string) *Waiver {
	for i := range s.Waivers {
		if s.Waivers[i].Control == c && s.Waivers[i].Revision == revision {
			return &s.Waivers[i]
		}
	}
	return nil
}

// Host returns the host that the incident's system runs on; a drill has its own.
func (s *State) Host() string {
	if s.Policy == nil {
		return ""
	}
	sys, _ := s.Policy.System(s.Declared.System)
	if s.Declared.Drill {
		return sys.GetDrillHost()
	}
	return sys.GetHost()
}

// TestEnvironment returns the test server's name.
func (s *State) TestEnvironment() string {
	if s.Policy == nil {
		return ""
	}
	sys, _ := s.Policy.System(s.Declared.System)
	return sys.GetTestEnvironment()
}

// ReleaseRef returns the branch that the critical host runs.
func (s *State) ReleaseRef() string {
	if s.Policy == nil {
		return ""
	}
	sys, _ := s.Policy.System(s.Declared.System)
	return sys.GetReleaseRef()
}

// MarshalText makes a request key the key of a JSON object.
func (k RequestKey) MarshalText() ([]byte, error) {
	return []byte(k.Person + " " + k.Command + " " + k.RequestID), nil
}
