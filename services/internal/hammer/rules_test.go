// SPDX-License-Identifier: Apache-2.0

package hammer

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// messages are records as a log would hold them, for readers that do not look at the services' signatures.
func messages(t *testing.T, records []*emergencyv1.Record) (list []history.Message) {
	t.Helper()
	for i, rec := range records {
		b, err := proto.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := proto.Marshal(&emergencyv1.SignedRecord{Record: b})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, history.Message{Incident: rec.GetIncident(), Sequence: uint64(i + 1), Data: signed})
	}
	return list
}

func peopleKeys() map[string][]byte {
	keys := map[string][]byte{}
	for _, p := range proceduretest.People() {
		keys[proceduretest.KeyOf(p.Name).ID] = proceduretest.KeyOf(p.Name).Public
	}
	return keys
}

// The rules find nothing in an emergency that went as it should, and everything that did not.
func TestRulesFindWhatIsWrong(t *testing.T) {
	t.Parallel()
	whole := proceduretest.NewWorld(t)
	proceduretest.Story(proceduretest.ClosedDown)(whole)
	if err := CheckRules(messages(t, whole.Records), peopleKeys()); err != nil {
		t.Fatalf("the story as it should be: %v", err)
	}
	bind := func(w *proceduretest.World) *emergencyv1.Binding {
		r := w.State.Current()
		return &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding}
	}
	start := func(w *proceduretest.World, executor, observer string) *emergencyv1.ApplyStarted {
		return &emergencyv1.ApplyStarted{Binding: bind(w), Host: w.State.Host(), Executor: executor, Observer: observer}
	}
	approve := emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE
	pass := emergencyv1.TestResult_TEST_RESULT_PASS
	for _, c := range []struct {
		name  string
		after proceduretest.Milestone
		owner string
		add   func(*proceduretest.World) []proto.Message
		want  string
	}{
		{"applied over an open veto", proceduretest.Observed, procedure.OwnerDeployment, func(w *proceduretest.World) []proto.Message {
			w.Append(procedure.OwnerReview, "RaiseVeto", &emergencyv1.VetoRaised{Veto: "V1", Binding: bind(w), RaisedBy: "beate"})
			return []proto.Message{start(w, "carla", "carl")}
		}, "veto V1 of beate on P1r1 is open"},
		{"veto that hides that the apply had started", proceduretest.Applying, procedure.OwnerReview, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.VetoRaised{Veto: "V1", Binding: bind(w), RaisedBy: "beate"}}
		}, "said false, was true"},
		{"second review by the first reviewer", proceduretest.Tested, procedure.OwnerReview, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.SecondReviewRecorded{Binding: bind(w), Reviewer: "anna", Verdict: approve}}
		}, "second reviewer anna is one of"},
		{"second review before the tests", proceduretest.OnTestServer, procedure.OwnerReview, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.SecondReviewRecorded{Binding: bind(w), Reviewer: "bert", Verdict: approve}}
		}, "0 passing tests of 2"},
		{"first review by the author", proceduretest.Registered, procedure.OwnerReview, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.FirstReviewRecorded{Binding: bind(w), Reviewer: "dora", Verdict: approve}}
		}, "first reviewer dora is one of"},
		{"test by a reviewer", proceduretest.OnTestServer, procedure.OwnerReview, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.TestReported{Binding: bind(w), Tester: "anna", Result: pass, EnvironmentTree: w.State.Current().ResultTree, BugNote: "x"}}
		}, "tester anna is one of"},
		{"transfer before the review", proceduretest.Registered, procedure.OwnerReview, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.PatchTransferred{Binding: bind(w), CommitTree: w.State.Current().ResultTree}}
		}, "transferred by"},
		{"apply before the forward", proceduretest.ReviewedTwice, procedure.OwnerDeployment, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{start(w, "carla", "carl")}
		}, "forward false"},
		{"two applies at once", proceduretest.Applying, procedure.OwnerDeployment, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{start(w, "carl", "carla")}
		}, "is still being applied"},
		{"applied a second time", proceduretest.Verified, procedure.OwnerDeployment, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{start(w, "carla", "carl")}
		}, "was applied before"},
		{"executor observes himself", proceduretest.Observed, procedure.OwnerDeployment, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{start(w, "carl", "carl")}
		}, "observer carl is one of"},
		{"nobody observes", proceduretest.Observed, procedure.OwnerDeployment, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{start(w, "carla", "")}
		}, "nobody observes"},
		{"executor wrote the patch", proceduretest.Observed, procedure.OwnerDeployment, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{start(w, "dora", "carl")}
		}, "executor dora is one of"},
		{"verified with another tree", proceduretest.Applied, procedure.OwnerDeployment, func(w *proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.DeployVerified{Binding: bind(w), Report: &emergencyv1.TreeReport{PostTree: proceduretest.Tree("odd")}}}
		}, "another tree than the reviewed one"},
		{"another binding", proceduretest.Registered, procedure.OwnerReview, func(w *proceduretest.World) []proto.Message {
			b := bind(w)
			b.Digest = strings.Repeat("0", 64)
			return []proto.Message{&emergencyv1.FirstReviewRecorded{Binding: b, Reviewer: "anna", Verdict: approve}}
		}, "another binding"},
		{"work on a closed incident", proceduretest.ClosedDown, procedure.OwnerNotification, func(*proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.ResponderAccepted{Slot: "critical/1", Person: "carla"}}
		}, "after the incident was closed"},
		{"slot taken twice", proceduretest.Accepted, procedure.OwnerNotification, func(*proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.ResponderAccepted{Slot: "critical/1", Person: "carl"}}
		}, "slot critical/1 is carla's"},
		{"breached twice", proceduretest.Declared, procedure.OwnerIncident, func(*proceduretest.World) []proto.Message {
			b := &emergencyv1.DeadlineBreached{Deadline: "s1.callout"}
			return []proto.Message{b, b}
		}, "breached twice"},
		{"closed while an apply runs", proceduretest.Applying, procedure.OwnerIncident, func(*proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.IncidentClosed{}}
		}, "closed while an apply runs"},
		{"stood down after a change", proceduretest.Verified, procedure.OwnerIncident, func(*proceduretest.World) []proto.Message {
			return []proto.Message{&emergencyv1.IncidentStoodDown{}}
		}, "stood down after the host was changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := proceduretest.NewWorld(t)
			proceduretest.Story(c.after)(w)
			w.Append(c.owner, "Doctored", c.add(w)...)
			wantWrong(t, messages(t, w.Records), c.want)
		})
	}
	for name, c := range map[string]struct {
		doctor func([]*emergencyv1.Record)
		want   string
	}{
		"a signature taken away": {func(list []*emergencyv1.Record) { find(list, "StartApply").Approval = nil }, "not signed by a person's key"},
		"a signature for something else": {func(list []*emergencyv1.Record) {
			find(list, "RecordSecondReview").Approval = find(list, "RecordFirstReview").GetApproval()
		}, "signed something else"},
		"a signature damaged": {func(list []*emergencyv1.Record) { find(list, "Forward").Approval.Signature[9] ^= 1 }, "the person's signature is wrong"},
		"a request id twice": {func(list []*emergencyv1.Record) {
			again := find(list, "CheckIn")
			again.RequestId = find(list, "Respond").GetRequestId()
			again.Command = "Respond"
		}, "is used a second time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var list []*emergencyv1.Record
			for _, rec := range whole.Records {
				list = append(list, proto.CloneOf(rec))
			}
			c.doctor(list)
			wantWrong(t, messages(t, list), c.want)
		})
	}
}

func find(list []*emergencyv1.Record, command string) *emergencyv1.Record {
	return list[slices.IndexFunc(list, func(r *emergencyv1.Record) bool { return r.GetCommand() == command })]
}

func wantWrong(t *testing.T, list []history.Message, want string) {
	t.Helper()
	if err := CheckRules(list, peopleKeys()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("want %q, got %v", want, err)
	}
}
