// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Option is a command and whether a person can give it now.
type Option struct {
	// Command is the command's name, Subject what it is about, Title what it does in words.
	Command, Subject, Title string
	// Refusal says why not; nil when it is allowed.
	Refusal *Refusal
	// Who could give it, by role.
	Who []string
	// Next is set when it is the step that waits for this person, or leads to it; Due is when it is due, if that is known.
	Next bool
	Due  time.Time
}

// candidate is a command to ask Decide about.
type candidate struct {
	cmd            Command
	subject, title string
}

// Options tells what a person can do now and why the rest is refused, from the same checks as deciding. The actor is
// recognised by env.Actor.KeyID; facts that only a service can find out are taken as they should be.
func Options(s *State, env Env) []Option {
	var list []Option
	steps := NextSteps(s)
	for _, c := range candidates(s, personOf(env)) {
		row, _ := commandOf(c.cmd)
		refusal := ask(s, c.cmd, row, env)
		o := Option{Command: row.name, Subject: c.subject, Title: c.title, Refusal: refusal}
		for _, r := range rolesFor(c.cmd, row) {
			for _, p := range env.Book.PersonsWith(r, env.Now) {
				if !slices.Contains(o.Who, p) {
					o.Who = append(o.Who, p)
				}
			}
		}
		for _, st := range steps {
			if refusal == nil && st.Command == row.name && (st.Subject == "" || st.Subject == c.subject) && st.waitsFor(personOf(env), env) {
				o.Next, o.Due = true, st.Due
			}
		}
		list = append(list, o)
	}
	leadTo(list, steps, env)
	return list
}

// leadTo marks what leads to a step that waits for the person and is refused yet: the command that its refusal names, where the
// person can give that, as the dry run before a deployment.
func leadTo(list []Option, steps []Step, env Env) {
	for _, o := range list {
		step := slices.IndexFunc(steps, func(st Step) bool {
			return st.Command == o.Command && (st.Subject == "" || st.Subject == o.Subject) && st.waitsFor(personOf(env), env)
		})
		if o.Refusal == nil || step < 0 {
			continue
		}
		for _, way := range o.Refusal.Allow {
			at := slices.IndexFunc(list, func(x Option) bool {
				return x.Refusal == nil && x.Command == way.Command && way.Command != "" && x.Subject == way.Subject
			})
			if at >= 0 && !list[at].Next {
				list[at].Next, list[at].Due = true, steps[step].Due
			}
		}
	}
}

func personOf(env Env) string {
	if env.Actor.Person != "" {
		return env.Actor.Person
	}
	k, _ := env.Book.Key(env.Actor.KeyID)
	return k.Key.GetPerson()
}

// ask decides a command that is not given: no signature, no repetition, no facts are asked for.
func ask(s *State, c Command, row *commandRow, env Env) *Refusal {
	env.Owner = row.owner
	d := &decision{s: s, env: env, row: row, meta: c.GetMeta(), at: env.Now, hypothetical: true}
	actor, refusal := d.authenticate()
	if refusal == nil {
		refusal = d.permit(c, actor)
	}
	if refusal == nil {
		refusal = row.decide(d, c)
	}
	return refusal
}

// candidates are the commands that could make sense for somebody on this incident, with the values the system knows.
func candidates(s *State, person string) []candidate {
	if s.Status == Absent {
		return nil
	}
	meta := &emergencyv1.CommandMeta{Incident: s.Incident}
	list := []candidate{{&emergencyv1.CallOutRequest{Meta: meta}, "", "call the teams"}}
	list = append(list, strategyCandidates(s, meta)...)
	list = append(list, slotCandidates(s, meta, person)...)
	list = append(list, patchCandidates(s, meta)...)
	list = append(list, cycleCandidates(s, meta)...)
	list = append(list, documentCandidates(s, meta)...)
	if r := s.Current(); r != nil {
		list = append(list, revisionCandidates(s, r, meta)...)
	}
	list = append(list, disputeCandidates(s, meta)...)
	list = append(list, consoleCandidates(s, meta)...)
	list = append(list,
		candidate{&emergencyv1.CheckReplicationRequest{Meta: meta}, "", "compare the host with the release branch"},
		candidate{&emergencyv1.RecordLeadDecisionRequest{Meta: meta, Decision: emergencyv1.LeadDecision_LEAD_DECISION_APPROVE}, "", "record the team lead's decision"},
		candidate{&emergencyv1.RecordBoardSummaryRequest{Meta: meta, From: timestamppb.New(s.Declared.At), Until: timestamppb.New(s.Declared.At.Add(time.Second))}, "", "record that the Board was told"},
		candidate{&emergencyv1.AnnotateLogRequest{Meta: meta, Entry: 1}, "", "add a note to the log"},
		candidate{&emergencyv1.StandDownRequest{Meta: meta}, "", "stand down"},
		candidate{&emergencyv1.CloseRequest{Meta: meta}, "", "close the incident"},
	)
	return list
}

func slotCandidates(s *State, meta *emergencyv1.CommandMeta, person string) []candidate {
	var list []candidate
	for _, sl := range s.Slots {
		switch {
		case sl.State == SlotOpen:
			accept := &emergencyv1.Acceptance{Slot: sl.ID, ContactPath: "given on accepting"}
			list = append(list, candidate{&emergencyv1.RespondRequest{Meta: meta, Answer: &emergencyv1.RespondRequest_Accept{Accept: accept}}, sl.ID, "take slot " + sl.ID + " to " + StepWord(sl.Step)})
		case sl.Person == person && sl.State != SlotEnded || sl.HandoverTo == person && person != "":
			list = append(list,
				candidate{&emergencyv1.CheckInRequest{Meta: meta, Slot: sl.ID}, sl.ID, "check in for " + sl.ID},
				candidate{&emergencyv1.EndStandbyRequest{Meta: meta, Slot: sl.ID, Reason: emergencyv1.StandbyEndReason_STANDBY_END_REASON_STEP_DONE}, sl.ID, "end the standby for " + sl.ID})
		}
	}
	return list
}

func patchCandidates(s *State, meta *emergencyv1.CommandMeta) []candidate {
	list := []candidate{{&emergencyv1.RegisterPatchRequest{Meta: meta}, "", "register a patch"}}
	if r := s.Current(); r != nil {
		list = append(list, candidate{&emergencyv1.RegisterPatchRequest{Meta: meta, Supersedes: r.ID}, r.ID, "replace " + r.ID + " by a new revision"})
	}
	for _, v := range s.Vetoes {
		if v.State == VetoOpen {
			list = append(list,
				candidate{&emergencyv1.WithdrawVetoRequest{Meta: meta, Veto: v.ID}, v.ID, "withdraw veto " + v.ID},
				candidate{&emergencyv1.OverruleVetoRequest{Meta: meta, Veto: v.ID}, v.ID, "overrule veto " + v.ID})
		}
	}
	for _, p := range s.openDrift() {
		list = append(list, candidate{&emergencyv1.ExplainDriftRequest{Meta: meta, PathCommitment: p.Commitment, BoundTo: firstRevision(s)}, short(p.Commitment), "explain a path that differs"})
	}
	return list
}

func firstRevision(s *State) string {
	if len(s.Revisions) == 0 {
		return ""
	}
	return s.Revisions[0].ID
}

func revisionCandidates(s *State, r *Revision, meta *emergencyv1.CommandMeta) []candidate {
	const approve = emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE
	b := r.bind()
	return []candidate{
		{&emergencyv1.RecordFirstReviewRequest{Meta: meta, Binding: b, Verdict: approve}, r.ID, "give the first review of " + r.ID},
		{&emergencyv1.TransferRequest{Meta: meta, Binding: b}, r.ID, "transfer " + r.ID + " to the repository"},
		{&emergencyv1.ReportTestRequest{Meta: meta, Binding: b, Result: emergencyv1.TestResult_TEST_RESULT_PASS, BugNote: "auto"}, r.ID, "report a test of " + r.ID},
		{&emergencyv1.RecordSecondReviewRequest{Meta: meta, Binding: b, Verdict: approve}, r.ID, "give the second review of " + r.ID},
		{&emergencyv1.ForwardRequest{Meta: meta, Binding: b, RollbackPlan: "given on forwarding", To: s.executor()}, r.ID, "forward " + r.ID + " to the critical team"},
		{&emergencyv1.RaiseVetoRequest{Meta: meta, Binding: b}, r.ID, "veto " + r.ID},
		{&emergencyv1.WaiveControlRequest{Meta: meta, Binding: b, Control: emergencyv1.Control_CONTROL_TEST_QUORUM}, r.ID + " tests", "waive the test quorum for " + r.ID},
		{&emergencyv1.WaiveControlRequest{Meta: meta, Binding: b, Control: emergencyv1.Control_CONTROL_OBSERVER}, r.ID + " observer", "waive the observer for " + r.ID},
		{&emergencyv1.DryRunRequest{Meta: meta, Binding: b}, r.ID, "try " + r.ID + " on the host without changing it"},
		{&emergencyv1.ConfirmObserverRequest{Meta: meta, Binding: b}, r.ID, "confirm to observe the deployment of " + r.ID},
		{&emergencyv1.StartApplyRequest{Meta: meta, Binding: b}, r.ID, "deploy " + r.ID},
		{&emergencyv1.BackOutRequest{Meta: meta, Binding: b}, r.ID, "back " + r.ID + " out"},
		{&emergencyv1.RollBackRequest{Meta: meta, Binding: b, Observer: lastObserver(s, r)}, r.ID, "roll " + r.ID + " back"},
		{&emergencyv1.RecordHealthRequest{Meta: meta, Binding: b}, r.ID, "record the system's health"},
	}
}

func lastObserver(s *State, r *Revision) string {
	if a := s.ApplyOf(r.ID); a != nil {
		return a.Observer
	}
	return ""
}

// Step is a step of the procedure that the incident waits for.
type Step struct {
	// Number is the step's number in chapter 1, such as 1.6; Title says it in words.
	Number, Title string
	// Command would do it, on Subject; empty where an agent or service does it by itself.
	Command, Subject string
	// Persons it waits for; anybody who is allowed if empty. Not is who cannot do it.
	Persons, Not []string
	// Role it waits for, where more may do it than are asked to: anyone may file a dispute, one owes it.
	Role emergencyv1.Role
	// Due is when it is due.
	Due time.Time
}

func (st Step) waitsFor(person string, env Env) bool {
	asked := st.Role == emergencyv1.Role_ROLE_UNSPECIFIED || env.Book.Has(person, st.Role, env.Now)
	return asked && (len(st.Persons) == 0 || slices.Contains(st.Persons, person)) && !slices.Contains(st.Not, person)
}

// Waits tells whether an incident may wait for anybody: false is certain, for any person and at any time, until the next event. So whoever
// looks for what waits leaves out those that are over.
func Waits(s *State) bool {
	if s.Status == Absent || s.Status == Merged { // it waits in the one that it was merged into
		return false
	}
	return s.Status == Open || len(NextSteps(s)) > 0 || len(s.openDebts()) > 0 ||
		slices.ContainsFunc(s.Slots, func(sl Slot) bool { return sl.HandoverTo != "" })
}

// NextSteps are the steps that the incident waits for, the most urgent first; the first one is where it stands.
func NextSteps(s *State) []Step {
	if s.Status != Open {
		return append(cycleSteps(s), debtSteps(s)...)
	}
	list := slices.Concat(consoleSteps(s), mainStep(s), cycleSteps(s))
	if len(s.Rounds) == 0 {
		list = append([]Step{{Number: "1.2", Title: "call the teams", Command: "CallOut", Due: s.due("s1.callout")}}, list...)
	}
	for _, sl := range s.Slots {
		switch sl.State {
		case SlotOpen:
			list = append(list, Step{Number: "1.3", Title: "a responder for " + sl.ID, Command: "Respond", Subject: sl.ID, Persons: s.calledFor(sl.Team), Not: s.holdersOf(sl.Team), Due: s.due("s1.slots")})
		case SlotAccepted:
			who := []string{sl.Person}
			list = append(list, Step{Number: "1.4", Title: "standby of " + sl.Person, Command: "CheckIn", Subject: sl.ID, Persons: who, Due: sl.Since.Add(s.Policy.Duration("callout.ack_expiry"))})
		case SlotStandby, SlotEnded:
		}
		if sl.HandoverTo != "" {
			list = append(list, Step{Number: "1.4", Title: "take over " + sl.ID, Command: "CheckIn", Subject: sl.ID, Persons: []string{sl.HandoverTo}})
		}
	}
	return append(list, debtSteps(s)...)
}

// due is when a step of strategy 1 is due; never, once the incident has left it (3.2).
func (s *State) due(key string) time.Time {
	if !s.leftStrategy1().IsZero() {
		return time.Time{}
	}
	return s.Declared.At.Add(s.Policy.Duration(key))
}

// calledFor are the persons called for a team who have not declined; everybody if nobody was called.
func (s *State) calledFor(t emergencyv1.Team) []string {
	var list []string
	for _, p := range s.Pages {
		declined := slices.ContainsFunc(s.Declined, func(x Declined) bool { return x.Person == p.Person && x.Team == t })
		if p.Team == t && !declined && !slices.Contains(list, p.Person) && len(s.Held(p.Person)) == 0 {
			list = append(list, p.Person)
		}
	}
	return list
}

// holdersOf are the persons who hold a slot of a team.
func (s *State) holdersOf(t emergencyv1.Team) []string {
	var list []string
	for _, sl := range s.Slots {
		if sl.Team == t && (sl.State == SlotAccepted || sl.State == SlotStandby) {
			list = append(list, sl.Person)
		}
	}
	return list
}

// holders are the persons who hold a slot for a step.
func (s *State) holders(step emergencyv1.ResponderStep) []string {
	var list []string
	for _, sl := range s.Slots {
		if sl.Step == step && sl.Person != "" && sl.State != SlotOpen {
			list = append(list, sl.Person)
		}
	}
	return distinct(list)
}

// mainStep is where the patch stands on its way (chapter 1.1, 1.5 to 1.9).
func mainStep(s *State) []Step {
	if s.Strategy > 1 {
		return shortSteps(s)
	}
	r := s.Current()
	if r != nil && r.Origin == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION {
		return nil // it is on the host already, and its reviews are those of the update cycle
	}
	if r == nil {
		return []Step{{Number: "1.5", Title: "prepare and register the patch", Command: "RegisterPatch", Persons: s.holders(emergencyv1.ResponderStep_RESPONDER_STEP_PREPARE), Due: s.due("s1.patch")}}
	}
	if a := s.ApplyOf(r.ID); a != nil {
		return applySteps(s, r, a)
	}
	if open := s.OpenVetoes(r.ID); len(open) > 0 {
		return []Step{{Number: "1.6", Title: "veto " + open[0].ID + " is open", Command: "WithdrawVeto", Subject: open[0].ID, Persons: []string{open[0].By}}}
	}
	switch {
	case r.First == nil:
		return []Step{{Number: "1.6", Title: "first review of " + r.ID, Command: "RecordFirstReview", Subject: r.ID, Persons: s.holders(emergencyv1.ResponderStep_RESPONDER_STEP_FIRST_REVIEW), Not: distinct([]string{r.Author, r.By}), Due: s.due("s1.review1")}}
	case !r.firstApproved() || r.Second != nil && !r.secondApproved():
		return []Step{{Number: "1.5", Title: "a new revision of " + r.Patch, Command: "RegisterPatch", Subject: r.ID, Persons: distinct([]string{r.Author, r.By})}}
	case r.Transfer == nil:
		return []Step{{Number: "1.6", Title: "transfer of " + r.ID + " to the repository", Command: "Transfer", Subject: r.ID, Persons: []string{r.First.By}, Due: s.due("s1.review1")}}
	case r.TestServer == nil:
		return []Step{{Number: "1.6", Title: r.ID + " on the test server", Due: s.due("s1.review1")}}
	case len(failing(r)) > 0:
		return failedSteps(s, r)
	case s.testedAt(r).IsZero():
		return []Step{{Number: "1.7", Title: "tests of " + r.ID, Command: "ReportTest", Subject: r.ID, Persons: s.holders(emergencyv1.ResponderStep_RESPONDER_STEP_TEST), Not: testersOf(r), Due: s.due("s1.tests")}}
	case r.Second == nil:
		return []Step{{Number: "1.8", Title: "second review of " + r.ID, Command: "RecordSecondReview", Subject: r.ID, Persons: s.holders(emergencyv1.ResponderStep_RESPONDER_STEP_SECOND_REVIEW), Not: distinct([]string{r.First.By, r.Author, r.By}), Due: s.due("s1.review2")}}
	case r.Forward == nil:
		return []Step{{Number: "1.8", Title: "forwarding of " + r.ID, Command: "Forward", Subject: r.ID, Persons: []string{r.Second.By}, Due: s.due("s1.review2")}}
	}
	return deploySteps(s, r)
}

// failedSteps are what a failing test waits for: a new revision, or that its tester tests again.
func failedSteps(s *State, r *Revision) []Step {
	by := failing(r)
	return []Step{
		{Number: "1.5", Title: fmt.Sprintf("a new revision of %s: %s's test failed", r.Patch, strings.Join(by, "'s and ")), Command: "RegisterPatch", Subject: r.ID, Persons: distinct([]string{r.Author, r.By})},
		{Number: "1.7", Title: "another test of " + r.ID + " by " + strings.Join(by, " and "), Command: "ReportTest", Subject: r.ID, Persons: by, Due: s.due("s1.tests")},
	}
}

// failing are the persons whose latest test failed.
func failing(r *Revision) []string {
	var list []string
	for _, t := range r.Tests {
		if !t.Pass {
			list = append(list, t.By)
		}
	}
	return list
}

func testersOf(r *Revision) []string {
	list := []string{r.Author, r.By}
	for _, t := range r.Tests {
		list = append(list, t.By)
	}
	return distinct(list)
}

func deploySteps(s *State, r *Revision) []Step {
	var list []Step
	confirmed := slices.ContainsFunc(s.Observers, func(o Observer) bool { return o.Revision == r.ID && !o.After })
	if !confirmed && s.Waived(emergencyv1.Control_CONTROL_OBSERVER, r.ID) == nil {
		list = append(list, Step{Number: "1.9", Title: "an observer for the deployment of " + r.ID, Command: "ConfirmObserver", Subject: r.ID, Persons: s.holders(emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE), Not: []string{r.Forward.To}, Due: s.due("s1.deploy")})
	}
	return append(list, Step{Number: "1.9", Title: "deployment of " + r.ID, Command: "StartApply", Subject: r.ID, Persons: []string{r.Forward.To}, Due: s.due("s1.deploy")})
}

func applySteps(s *State, r *Revision, a *Apply) []Step {
	executor := []string{a.Executor}
	switch a.State {
	case Applying, Applied:
		return []Step{{Number: "1.9", Title: r.ID + " is being applied on " + a.Host}}
	case BackingOut, RollingBack:
		return []Step{{Number: "1.9", Title: r.ID + " is being taken back on " + a.Host}}
	case ApplyFailed, Mismatch, BackOutUnproven:
		return []Step{{Number: "1.9", Title: "back out " + r.ID, Command: "BackOut", Subject: r.ID, Persons: executor}}
	case BackedOut, RolledBack:
		return []Step{{Number: "1.5", Title: "a new revision of " + r.Patch + ", or close", Command: "RegisterPatch", Subject: r.ID, Persons: distinct([]string{r.Author, r.By})}}
	case Verified:
		if len(s.openDebts()) == 0 {
			return []Step{{Number: "1", Title: "close the incident", Command: "Close"}}
		}
	}
	return nil
}

// debtSteps are the open obligations, the soonest due first.
func debtSteps(s *State) []Step {
	var list []Step
	for _, o := range s.openDebts() {
		if slices.Contains(ofArbitration, o.Kind) {
			continue
		}
		st := Step{Number: "7", Title: fmt.Sprintf("%s is owed by %s", o.Kind, o.owner()), Command: o.How, Due: o.Due}
		switch {
		case o.Owner != "":
			st.Persons = []string{o.Owner}
		case o.How == "FileDispute":
			st.Role = o.OwnerRole
		}
		if o.How == "FileDispute" {
			st.Subject = o.Kind // not any dispute, but the one that is owed
		}
		list = append(list, st)
	}
	list = append(list, s.disputeSteps()...)
	slices.SortStableFunc(list, func(a, b Step) int { return a.Due.Compare(b.Due) })
	return list
}

// StepWord is a responder's step in words.
func StepWord(st emergencyv1.ResponderStep) string {
	switch st {
	case emergencyv1.ResponderStep_RESPONDER_STEP_EXECUTE:
		return "deploy"
	case emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE:
		return "observe the deployment"
	case emergencyv1.ResponderStep_RESPONDER_STEP_FIRST_REVIEW:
		return "review first"
	case emergencyv1.ResponderStep_RESPONDER_STEP_SECOND_REVIEW:
		return "review second"
	case emergencyv1.ResponderStep_RESPONDER_STEP_PREPARE:
		return "prepare the patch"
	case emergencyv1.ResponderStep_RESPONDER_STEP_TEST:
		return "test"
	case emergencyv1.ResponderStep_RESPONDER_STEP_WATCH:
		return "watch the console"
	case emergencyv1.ResponderStep_RESPONDER_STEP_DECLARE:
		return "sign the joint declaration"
	case emergencyv1.ResponderStep_RESPONDER_STEP_UNSPECIFIED:
	}
	return "help"
}
