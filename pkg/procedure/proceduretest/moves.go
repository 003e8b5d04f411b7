// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Move is a command that somebody could try, in its place or not.
type Move struct {
	Who     string
	Command procedure.Command
	Owner   string           // of a tick
	Facts   *procedure.Facts // instead of good ones
}

// Options are how the move is sent.
func (m Move) Options() []Option {
	var list []Option
	if m.Owner != "" {
		list = append(list, Owner(m.Owner))
	}
	if m.Facts != nil {
		list = append(list, Facts(*m.Facts))
	}
	return list
}

// TryMove tries a move.
func (w *World) TryMove(m Move) Outcome {
	w.t.Helper()
	return w.Try(m.Who, m.Command, m.Options()...)
}

// attempt is a command with what is found out for it.
type attempt struct {
	c     procedure.Command
	facts *procedure.Facts
	owner string
}

// Moves are what can be tried in a state: every command of an incident with a few arguments each, good and bad ones, by
// the persons of the cast who hold one of its roles, by one who holds none, and by the systems.
func Moves(s *procedure.State) []Move {
	var list []Move
	for _, a := range attempts(s) {
		for _, who := range candidates()[procedure.CommandName(a.c)] {
			list = append(list, Move{Who: who, Command: a.c, Owner: a.owner, Facts: a.facts})
		}
	}
	return list
}

// cast are the persons who take part in random histories.
func cast() []string {
	return []string{"carla", "carl", "clara", "anna", "bert", "albert", "dora", "theo", "tina", "vera", "bea", "casper", "arno", "agnes", "adele", "doris", "xaver"}
}

// candidates are candidatesFor of each command; never written to.
var candidates = sync.OnceValue(func() map[string][]string {
	list := map[string][]string{}
	for _, c := range commands() {
		list[c.Name] = candidatesFor(c.Name)
	}
	return list
})

// candidatesFor are the actors with whom a command is tried: a few of those who may, and one who may not.
func candidatesFor(command string) []string {
	var info procedure.CommandInfo
	for _, c := range commands() {
		if c.Name == command {
			info = c
		}
	}
	if command == "Respond" || command == "CheckIn" || command == "EndStandby" {
		return []string{"mia", "carla", "clara", "anna", "theo"} // some of each team
	}
	if command == "Connect" {
		return []string{"gateway:emil", "gateway:anna", "gateway:mia", "emil"}
	}
	list := []string{"mia"} // a member, and nothing else
	const most = 5
	for _, p := range cast() {
		if len(list) < most && slices.ContainsFunc(info.Roles, func(r emergencyv1.Role) bool { return holds(p, r) }) {
			list = append(list, p)
		}
	}
	for _, k := range info.Systems {
		switch k {
		case emergencyv1.SystemKind_SYSTEM_KIND_TIMER:
			list = append(list, "timer")
		case emergencyv1.SystemKind_SYSTEM_KIND_MAILER:
			list = append(list, "mailer")
		case emergencyv1.SystemKind_SYSTEM_KIND_REACTOR:
			list = append(list, "reactor")
		case emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT:
			list = append(list, "host:"+Host, "host:"+OtherHost)
		case emergencyv1.SystemKind_SYSTEM_KIND_TEST_AGENT:
			list = append(list, "test:"+TestServer, "test:elsewhere")
		case emergencyv1.SystemKind_SYSTEM_KIND_REPO_AGENT:
			list = append(list, "repo:git")
		case emergencyv1.SystemKind_SYSTEM_KIND_CONSOLE_GATEWAY:
			list = append(list, "gateway")
		}
	}
	return list
}

func holds(person string, role emergencyv1.Role) bool {
	held := RolesOf(person)
	return slices.Contains(held, role) ||
		role == emergencyv1.Role_ROLE_CRITICAL_ADMIN && slices.Contains(held, emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD) ||
		role == emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR && slices.Contains(held, emergencyv1.Role_ROLE_ASSESSMENT_TEAM_LEAD)
}

func attempts(s *procedure.State) []attempt {
	list := slices.Concat(teamAttempts(s), strategyAttempts(s), patchAttempts(s), deployAttempts(s), consoleAttempts(s), disputeAttempts(s), otherAttempts(s))
	if s.Status == procedure.Absent {
		list = append(list, attempt{c: Declare()})
	}
	return list
}

func teamAttempts(s *procedure.State) []attempt {
	one := &emergencyv1.CallOutRequest{Channels: []string{"mail"}}
	list := []attempt{
		{c: &emergencyv1.CallOutRequest{}}, {c: one}, {c: Decline(0)}, {c: HandOver("critical/1", "clara")}, {c: &emergencyv1.CheckInRequest{}},
		{c: &emergencyv1.EndStandbyRequest{Reason: emergencyv1.StandbyEndReason_STANDBY_END_REASON_STEP_DONE}},
		{c: &emergencyv1.EndStandbyRequest{Slot: "testing/1", Reason: emergencyv1.StandbyEndReason_STANDBY_END_REASON_RELEASED}},
	}
	for _, slot := range []string{"critical/1", "critical/2", "assessment/1", "testing/1", "none/1"} {
		list = append(list, attempt{c: Accept(slot)})
	}
	for _, state := range []emergencyv1.DeliveryState{emergencyv1.DeliveryState_DELIVERY_STATE_DELIVERED, emergencyv1.DeliveryState_DELIVERY_STATE_FAILED} {
		list = append(list, attempt{c: &emergencyv1.ReportDeliveryRequest{Page: "1.1", State: state}})
	}
	return list
}

func patchAttempts(s *procedure.State) []attempt {
	n := len(s.Revisions) + 1
	list := []attempt{{c: Register(1)}, {c: Register(n)}}
	if r := s.Current(); r != nil {
		list = append(list, attempt{c: Replace(r.ID, n)}, attempt{c: Replace("P1r1", n)})
	}
	for _, v := range []emergencyv1.ReviewVerdict{approve, emergencyv1.ReviewVerdict_REVIEW_VERDICT_CHANGES, veto} {
		list = append(list, attempt{c: FirstReview(v)}, attempt{c: SecondReview(v)})
	}
	if len(s.Revisions) > 0 {
		old := s.Revisions[0]
		stale := FirstReview(approve)
		stale.Binding = &emergencyv1.Binding{Revision: old.ID, Digest: old.Binding}
		list = append(list, attempt{c: stale})
	}
	wrong := ConfirmServer(s)
	wrong.Tree = Tree("x")
	list = append(list,
		attempt{c: &emergencyv1.TransferRequest{}}, attempt{c: &emergencyv1.TransferRequest{}, facts: &procedure.Facts{}}, attempt{c: ConfirmServer(s)}, attempt{c: wrong},
		attempt{c: Test(pass)}, attempt{c: Test(fail)}, attempt{c: Veto()}, attempt{c: &emergencyv1.ForwardRequest{RollbackPlan: "take it back", To: "carla"}}, attempt{c: &emergencyv1.ForwardRequest{}},
		attempt{c: Waive(emergencyv1.Control_CONTROL_TEST_QUORUM)}, attempt{c: Waive(emergencyv1.Control_CONTROL_OBSERVER)},
	)
	id := "V1"
	if len(s.Vetoes) > 0 {
		id = s.Vetoes[len(s.Vetoes)-1].ID
	}
	return append(list,
		attempt{c: &emergencyv1.WithdrawVetoRequest{Veto: id, Reason: "I misread the patch"}},
		attempt{c: &emergencyv1.OverruleVetoRequest{Veto: id, Reason: "the hole it names was there before, and is smaller"}})
}

func deployAttempts(s *procedure.State) []attempt {
	dirty := &procedure.Facts{Agent: &procedure.AgentFacts{Host: Host, HostTree: BaseTree(), ResultTree: Tree("x"), Rejected: 1}}
	odd := &procedure.Facts{Agent: &procedure.AgentFacts{Host: Host, HostTree: Tree("x")}}
	result := Tree("x")
	if r := s.Current(); r != nil {
		result = r.ResultTree
	}
	drift, lag := Drift("etc/odd"), Lagging(s)
	path := procedure.Commit(nil, nil)
	for _, p := range s.Drift {
		if p.Explained.Position == 0 {
			path = p.Commitment
		}
	}
	return []attempt{
		{c: &emergencyv1.DryRunRequest{}}, {c: &emergencyv1.DryRunRequest{}, facts: dirty}, {c: &emergencyv1.DryRunRequest{}, facts: odd}, {c: &emergencyv1.DryRunRequest{Host: DrillHost}},
		{c: Observe()}, {c: CheckAfter()}, {c: CheckAfter(), facts: odd}, {c: &emergencyv1.StartApplyRequest{}}, {c: &emergencyv1.StartApplyRequest{Observer: "carl"}},
		{c: ReportApply(true)}, {c: ReportApply(false)}, {c: ReportTree(result)}, {c: ReportTree(BaseTree())}, {c: ReportTree(Tree("odd"))},
		{c: BackOut()}, {c: RollBack("carl")}, {c: Health()}, {c: &emergencyv1.PushReplicationRequest{}},
		{c: &emergencyv1.CheckReplicationRequest{}}, {c: &emergencyv1.CheckReplicationRequest{}, facts: &drift}, {c: &emergencyv1.CheckReplicationRequest{}, facts: &lag},
		{c: &emergencyv1.ExplainDriftRequest{PathCommitment: path, BoundTo: "P1r1"}}, {c: &emergencyv1.ExplainDriftRequest{PathCommitment: path, BoundTo: "nothing"}},
	}
}

func otherAttempts(s *procedure.State) []attempt {
	none := Lead(false)
	none.Decision = emergencyv1.LeadDecision_LEAD_DECISION_NO_EFFECT
	bare := Document(s)
	bare.Reasons = nil
	before := BoardSummary()
	before.Until = timestamppb.New(T0().Add(-time.Hour))
	earlier, later := &procedure.Facts{Other: earlierNeighbour()}, &procedure.Facts{Other: laterNeighbour()}
	list := []attempt{
		{c: &emergencyv1.MergeIntoRequest{Target: "e20261124.7", Reason: "it is the same outage"}, facts: earlier},
		{c: &emergencyv1.MergeIntoRequest{Target: "e20261124.8", Reason: "it is the same outage"}, facts: later},
		{c: &emergencyv1.AbsorbDuplicateRequest{Source: "e20261124.8", SourceHeadHash: later.Other.HeadHash}, facts: later},
		{c: StandDown()}, {c: Lead(false)}, {c: Lead(true)}, {c: none}, {c: &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "a note"}}, {c: &emergencyv1.AnnotateLogRequest{Entry: 9999, Text: "a note"}},
		{c: Document(s)}, {c: bare}, {c: BoardSummary()}, {c: before}, {c: Close()}, {c: &emergencyv1.SyncObligationsRequest{}},
	}
	for _, o := range procedure.Owners() {
		list = append(list, attempt{c: &emergencyv1.TickRequest{}, owner: o})
	}
	return list
}

var (
	earlierNeighbour = sync.OnceValue(func() *procedure.State { return neighbour("e20261124.7", -time.Hour) })
	laterNeighbour   = sync.OnceValue(func() *procedure.State { return neighbour("e20261124.8", time.Hour) })
)

// neighbour is another open incident of the same system.
func neighbour(id string, after time.Duration) *procedure.State {
	w := NewIncident(must{}, id)
	w.Wait(after)
	w.Do("carla", Declare())
	return w.State
}
