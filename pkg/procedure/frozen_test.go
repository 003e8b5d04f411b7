// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"bufio"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// addFrozen writes the frozen histories of this version that are not there yet. A file that is there is never written to:
// what was recorded once must replay for ever (style.md 6).
var addFrozen = flag.Bool("add-frozen", false, "write frozen histories that are not in testdata yet")

// frozen are the histories of released versions. Each file is text: "expect: " lines, then one record a line, base64, in
// the order of the chain; a line "rulebook" or "incident ID" says whose records follow.
func frozen(t *testing.T) map[string]func() string {
	t.Helper()
	return map[string]func() string{
		"strategy1-v1.txt": func() string {
			return frozenText("A strategy-1 emergency as it should go, with all obligations made visible and paid.", pt.Founding().For(t), strategy1(t))
		},
		"dispute-v1.txt": func() string {
			return frozenText("A dispute that nobody took, filed again and ruled; a review that was re-opened, a panel and its final ruling; obligations lifted; redaction and disclosure.", pt.Founding().For(t), arbitrated(t))
		},
		"strategy2-v1.txt": func() string {
			return frozenText("Strategy 2 on an unreachable team, without an observer, with its update cycle; an act captured offline; back to 1 and jointly on to 3, which had no effect.", pt.Founding().For(t), strategy2(t))
		},
		"backout-v1.txt": func() string {
			return frozenText("An overruled veto, a new revision, waived tests, a deployment that differed, a veto after it, a back-out proven at the second try, and drift.", pt.Founding().For(t), backedOut(t))
		},
		"strategy3-v1.txt": func() string {
			return frozenText("A joint declaration; an access that expired and one whose watch was taken over, frozen by the clock, extended, ended, found still usable, proven unusable and sealed without the end of its recording; its difference replicated.", pt.Founding().For(t), watched(t))
		},
	}
}

func strategy1(t *testing.T) *pt.World {
	w := pt.Given(t, pt.Story(pt.Verified)).World()
	w.Sync()
	w.Wait(26 * time.Hour)
	for _, o := range procedure.Owners() {
		w.Tick(o)
	}
	pt.From(pt.Verified, pt.Settled)(w)
	w.Sync()
	pt.From(pt.Settled, pt.ClosedDown)(w)
	return w
}

func arbitrated(t *testing.T) *pt.World {
	lift := func(s *procedure.State, c *emergencyv1.DeliverRulingRequest) { c.Lifted = []string{"BOARD_SUMMARY/1"} }
	return pt.Given(t, unobserved(pt.CaseOpened)...).And(
		pt.Does("clara", pt.Lead(false)), doesAs("mailer", func(s *procedure.State) procedure.Command {
			return &emergencyv1.ReportFilingRequest{Dispute: the(s, 1), State: emergencyv1.DeliveryState_DELIVERY_STATE_SENT, Detail: "taken"}
		}), nobodyTakes(1), doesAs("casper", closeDeclined(1)), func(w *pt.World) { w.Sync(); w.Tick(procedure.OwnerArbitration) },
		doesAs("mia", refile(aboutOther)), doesAs("casper", openCase(2, "a20270203.1")), doesAs("casper", propose(2, "arno")), doesAs("arno", answerTo(2, true, true)),
		func(w *pt.World) {
			doesAs("arno", func(s *procedure.State) procedure.Command { return pt.Preliminaries(the(s, 2)) })(w)
		},
		doesAs("arno", ruling(2, lift)), pt.Does("casper", &emergencyv1.PublishRulingRequest{Ruling: "R1", Text: "it was justified"}),
		pt.Does("carla", &emergencyv1.ReportDirectionDoneRequest{Direction: "D1", Proof: "it is in the wiki"}), pt.Does("casper", &emergencyv1.ConfirmDirectionRequest{Direction: "D1"}),
		pt.DisputeFrom(aboutOther, pt.Obeyed, pt.FinalRuled), doesAs("clara", redact("reason")), func(w *pt.World) {
			w.Do("reactor", &emergencyv1.ReportRedactionRequest{Redaction: w.State.Position})
		}, doesAs("clara", disclose("incident.EmergencyDeclared", "symptom")), func(w *pt.World) { w.Sync(); w.Tick(procedure.OwnerArbitration) },
	).World()
}

func strategy2(t *testing.T) *pt.World {
	w := pt.Given(t, pt.Story(pt.Verified2)).World()
	w.Sync()
	w.Wait(26 * time.Hour)
	for _, o := range procedure.Owners() {
		w.Tick(o)
	}
	pt.From(pt.Verified2, pt.Blessed)(w)
	w.Do("carla", pt.CapturedAt(note(), w.State.RecordedAt))
	w.Do("anna", &emergencyv1.ConfirmLateRecordRequest{Event: w.State.Position, Proof: "I stood beside her"})
	w.Do("carla", pt.GoBack(1))
	w.Do("anna", pt.Joint())
	w.Wait(time.Minute)
	w.Do("carl", pt.Joint())
	w.Do("clara", pt.NoEffect(3))
	w.Sync()
	return w
}

func backedOut(t *testing.T) *pt.World {
	odd := pt.Does(agent, pt.ReportTree(pt.Tree("odd")))
	steps := history(pt.Story(pt.OnTestServer),
		pt.Does("bert", pt.Veto()), pt.Does("albert", &emergencyv1.OverruleVetoRequest{Veto: "V1", Reason: "the hole it names was there before, and is smaller"}),
		pt.Does("dora", pt.Replace("P1r1", 2)), pt.From(pt.Registered, pt.OnTestServer), pt.Does("theo", pt.Test(pass)), pt.Does("albert", pt.Waive(tests)),
		pt.From(pt.Tested, pt.Applied), odd, pt.Does("beate", pt.Veto()), pt.Does("carla", pt.BackOut()), odd, pt.Does("carla", pt.BackOut()),
		pt.Does(agent, pt.ReportTree(pt.BaseTree())), pt.Does("repo:git", &emergencyv1.CheckReplicationRequest{}, pt.Facts(pt.Drift("etc/odd"))),
		func(w *pt.World) { w.Sync() }, pt.Waits(30*time.Hour), func(w *pt.World) { w.Tick(procedure.OwnerArbitration) },
	)
	return pt.Given(t, steps...).World()
}

// watched is strategy 3 with all that may happen to an access.
func watched(t *testing.T) *pt.World {
	again := func(c procedure.Command) procedure.Command {
		m := proto.Clone(c).(procedure.Command)
		m.ProtoReflect().Set(m.ProtoReflect().Descriptor().Fields().ByName("grant"), protoreflect.ValueOfString("G2"))
		return m
	}
	sync := func(w *pt.World) { w.Sync() }
	tick := func(w *pt.World) { w.Tick(procedure.OwnerDeployment) }
	over := with(pt.Arm(), func(c *emergencyv1.ArmWatchRequest) { c.TakeOverReason = "carl has gone home" })
	failed := found(disable, func(x *procedure.ConsoleFacts) { x.HostEnd = nil })
	incomplete := found(seal, func(x *procedure.ConsoleFacts) {
		x.Recording.State = emergencyv1.RecordingState_RECORDING_STATE_INCOMPLETE
	})
	usable := func(w *pt.World) {
		w.Do("carla", again(prove), found(prove, func(x *procedure.ConsoleFacts) { x.Attempts = pt.Attempts(w.Now, false) })...)
	}
	steps := history(pt.Story(pt.Granted), sync, expired, pt.Does("carla", disable), pt.Does("carla", prove),
		pt.Does("carla", pt.GrantTo("emil", "carl")), pt.Does("carl", again(pt.Arm())), pt.Does("gateway:emil", again(pt.Connect())), pt.Does("gateway:emil", again(pt.Opened(true))),
		pt.Does("gateway", again(pt.CheckpointAt(10))), pt.Does("carla", again(over)), pt.Waits(6*time.Minute), tick, pt.Does("carla", again(pt.Arm())), pt.Does("carla", again(resume)),
		pt.Does("carla", again(extend)), pt.Does("gateway", again(&emergencyv1.MarkSessionRequest{Kind: emergencyv1.MarkKind_MARK_KIND_REFUSED_REQUEST, Text: "subsystem sftp"})),
		pt.Does("gateway", again(freeze)), pt.Waits(time.Second), pt.Does("gateway:emil", again(terminate)), pt.Does("gateway", again(pt.CheckpointAt(20))),
		pt.Does("carla", again(disable), failed...), usable, pt.Does("carla", again(disable)), pt.Does("carla", again(prove)), sync,
		pt.Does(gateway, again(capture)), pt.Does(agent, again(pt.FoundLeftovers())), pt.Does("carl", again(pt.ExplainLeftovers("L2"))), pt.Waits(25*time.Hour), sync,
		func(w *pt.World) { w.Tick(procedure.OwnerArbitration) }, pt.Does("carl", again(pt.ExplainLeftovers(""))), pt.Does("carla", again(seal), incomplete...), pt.Does("anna", again(play)),
		pt.Does("repo:git", &emergencyv1.CheckReplicationRequest{}, pt.Facts(procedure.Facts{Replication: &procedure.ReplicationFacts{HostTree: pt.SessionTree(), BranchTree: pt.SessionTree(), BranchCommit: "beef02"}})),
		sync,
	)
	return pt.Given(t, steps...).World()
}

func frozenText(title string, book, incident *pt.World) string {
	var b strings.Builder
	fmt.Fprintf(&b, "title: %s\n", title)
	for _, line := range summary(incident.State) {
		fmt.Fprintf(&b, "expect: %s\n", line)
	}
	for _, w := range []*pt.World{book, incident} {
		fmt.Fprintf(&b, "history: %s\n", w.State.Incident)
		for _, rec := range w.Bytes {
			fmt.Fprintln(&b, base64.StdEncoding.EncodeToString(rec))
		}
	}
	return b.String()
}

// summary is what a history must still mean to every later version.
func summary(s *procedure.State) []string {
	list := []string{
		fmt.Sprintf("status %s, strategy %d, position %d, recorded %s, head %s", s.Status, s.Strategy, s.Position, s.RecordedAt.Format(time.RFC3339Nano), s.HeadHash),
		fmt.Sprintf("declared %s by %s, %s, outcome %s", s.Declared.System, s.Declared.By, s.Declared.Severity, s.Outcome),
		fmt.Sprintf("acted %s", strings.Join(s.Acted, " ")),
	}
	for _, sl := range s.Slots {
		list = append(list, fmt.Sprintf("slot %s %s %s", sl.ID, sl.State, sl.Person))
	}
	for _, r := range s.Revisions {
		list = append(list, fmt.Sprintf("revision %s binding %s author %s superseded %q reviews %s %s tests %d forwarded %t", r.ID, r.Binding, r.Author, r.Superseded, verdictOf(r.First), verdictOf(r.Second), len(r.Tests), r.Forward != nil))
	}
	for _, v := range s.Vetoes {
		list = append(list, fmt.Sprintf("veto %s of %s on %s %s", v.ID, v.By, v.Revision, v.State))
	}
	for _, a := range s.Applies {
		list = append(list, fmt.Sprintf("apply %s on %s by %s with %q %s host %s", a.Revision, a.Host, a.Executor, a.Observer, a.State, a.HostTree))
	}
	for _, d := range s.Deviations {
		list = append(list, fmt.Sprintf("deviation %s at %d", d.Deviation, d.Position))
	}
	for _, o := range procedure.Debts(s) {
		list = append(list, fmt.Sprintf("debt %s owner %s due %s by %d", o.ID, procedure.RoleWord(o.OwnerRole), o.Due.Format(time.RFC3339), o.By))
	}
	for _, o := range s.Obligations {
		list = append(list, fmt.Sprintf("visible %s open %t", o.ID, o.Open()))
	}
	for _, d := range procedure.Deadlines(s) {
		list = append(list, fmt.Sprintf("deadline %s %s", d.Key, d.State(s, s.RecordedAt)))
	}
	list = slices.Concat(list, consoleSummary(s), disputeSummary(s), strategySummary(s))
	return append(list, fmt.Sprintf("requests %d, pages %d, breached %s", len(s.Requests), len(s.Pages), strings.Join(s.Breached, " ")))
}

// disputeSummary is what disputes, and what was redacted or disclosed, must still mean.
func disputeSummary(s *procedure.State) []string {
	var list []string
	for _, x := range s.Disputes {
		list = append(list, fmt.Sprintf("dispute %s %s by %s evidence %d attached %d case %s manager %s arbitrator %s panel %s refiled %q joined %q mailed %q",
			x.ID, x.State(s.RecordedAt), x.Filed.By, x.Evidence, len(x.Deviations), x.Case, x.Opened.By, x.Arbitrator, strings.Join(x.Panel, " "), x.RefiledBy, x.JoinedTo, x.Mailed.Result))
	}
	for _, r := range s.Rulings {
		list = append(list, fmt.Sprintf("ruling %s on %s by %s sealed %t final %t judged %d lifted %s superseded %q", r.ID, r.Dispute, r.By, r.Sealed, r.Final, len(r.Judgements), strings.Join(r.Lifted, " "), r.Superseded))
	}
	for _, x := range s.Directions {
		list = append(list, fmt.Sprintf("direction %s for %s/%s until %s reported by %q done by %q void %q", x.ID, x.Person, procedure.RoleWord(x.Role), x.Due.Format(time.RFC3339), x.Reported.By, x.Done.By, x.Void.Result))
	}
	for _, r := range s.Restricted {
		if r.Redacted.Position+r.Disclosed.Position > 0 {
			list = append(list, fmt.Sprintf("restricted %s %s at %d redacted %d erased %d disclosed %d", r.EventType, r.Field, r.Position, r.Redacted.Position, r.Erased.Position, r.Disclosed.Position))
		}
	}
	return list
}

// strategySummary is what changes of strategy, the update cycle and offline capture must still mean. Files without an update cycle
// were frozen without these lines.
func strategySummary(s *procedure.State) []string {
	if !slices.ContainsFunc(s.Revisions, func(r procedure.Revision) bool { return r.Cycle != nil }) {
		return nil
	}
	var list []string
	for _, c := range s.Strategies {
		list = append(list, fmt.Sprintf("strategy %d to %d at %d by %s ground %s %s %s skips %s", c.From, c.To, c.Position, c.By, c.Ground, c.Team, c.Code, strings.Join(c.Skipped, " ")))
	}
	for _, r := range s.Revisions {
		if c := r.Cycle; c != nil {
			list = append(list, fmt.Sprintf("cycle of %s entered %d %s reviews %s %s tests %d transferred %t concluded %d %s", r.ID, c.Entered.Position, c.BugID, verdictOf(c.First), verdictOf(c.Second), len(c.Tests), c.Transfer != nil, c.Concluded.Position, c.Outcome))
		}
		if f := r.Forward; f != nil && f.LocalTest {
			list = append(list, fmt.Sprintf("%s handed over by %s to %s, complete %t", r.ID, f.By, f.To, f.Complete))
		}
	}
	for _, l := range s.Late {
		list = append(list, fmt.Sprintf("late %s of %s captured %s confirmed %d", l.Command, l.By, l.Captured.Format(time.RFC3339Nano), l.Confirmed.Position))
	}
	return list
}

// consoleSummary is what strategy 3's access must still mean.
func consoleSummary(s *procedure.State) []string {
	var list []string
	for _, p := range s.Permissions {
		list = append(list, fmt.Sprintf("permission for %s by %s until %s", p.Subject, p.By, p.ValidUntil.Format(time.RFC3339)))
	}
	for _, g := range s.Grants {
		list = append(list, fmt.Sprintf("grant %s %s subject %s watcher %s granter %s on %s ends by %s cause %s mode %s", g.ID, g.State, g.Subject, g.Watcher, g.Granter, g.Host, g.EndsBy().Format(time.RFC3339), g.Cause, g.FreezeMode))
		for _, c := range g.Checkpoints {
			list = append(list, fmt.Sprintf("checkpoint %d %s %d", c.Frame, c.ChainHash, c.Size))
		}
		list = append(list, fmt.Sprintf("after tree %s patch %s paths %d, recording %s %s, role ended %d, proven %d", g.Diff.AfterTree, g.Diff.Patch.GetSha256(), len(g.Diff.Paths), g.Recording.GetSha256(), g.Record, g.RoleEnded.Position, g.Proven.Position))
		for _, l := range g.Leftovers {
			list = append(list, fmt.Sprintf("leftover %s %s explained %d", l.Item, l.Kind, l.Explained.Position))
		}
	}
	return list
}

// TestFrozenHistories replays what earlier versions recorded: chain, people's signatures, and meaning.
func TestFrozenHistories(t *testing.T) {
	t.Parallel()
	if *addFrozen {
		for name, text := range frozen(t) {
			addFile(t, filepath.Join("testdata", name), text)
		}
	}
	files, err := filepath.Glob(filepath.Join("testdata", "*-v*.txt"))
	if err != nil || len(files) < len(frozen(t)) {
		t.Fatalf("frozen histories are missing: %v, %v; none is ever removed", files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			t.Parallel()
			replayFile(t, f)
		})
	}
}

func addFile(t *testing.T, path string, text func() string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text()); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func replayFile(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var expect []string
	book, s, head := &rulebook.Book{}, procedure.NewState(""), ""
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		kind, rest, _ := strings.Cut(lines.Text(), ": ")
		switch kind {
		case "title":
		case "expect":
			expect = append(expect, rest)
		case "history":
			s, head = procedure.NewState(rest), pt.Genesis(rest)
		default:
			head, book = replayLine(t, lines.Text(), s, head, book)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if got := summary(s); !slices.Equal(got, expect) {
		t.Errorf("the history means\n  %s\nit was recorded as\n  %s", strings.Join(got, "\n  "), strings.Join(expect, "\n  "))
	}
}

func replayLine(t *testing.T, line string, s *procedure.State, head string, book *rulebook.Book) (string, *rulebook.Book) {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		t.Fatal(err)
	}
	var rec emergencyv1.Record
	if err := proto.Unmarshal(b, &rec); err != nil {
		t.Fatal(err)
	}
	if rec.GetPrevHash() != head || rec.GetIncident() != s.Incident {
		t.Fatalf("record %s/%d does not follow %s", rec.GetIncident(), rec.GetFirstPosition(), head)
	}
	if s.Incident != procedure.RuleBook {
		if err := procedure.VerifyRecord(s, &rec, book); err != nil {
			t.Fatalf("record %s/%d: %v", rec.GetIncident(), rec.GetFirstPosition(), err)
		}
	}
	if err := s.Apply(&rec, pt.HashOf(b)); err != nil {
		t.Fatal(err)
	}
	if s.Incident == procedure.RuleBook {
		book = pt.FollowBook(t, book, s.Position, &rec)
	}
	return pt.HashOf(b), book
}
