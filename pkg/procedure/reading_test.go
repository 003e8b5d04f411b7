// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func sealed(commitment string) *emergencyv1.Restricted {
	return &emergencyv1.Restricted{Commitment: commitment}
}

func TestRestrictedFields(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		payload proto.Message
		want    []procedure.RestrictedField
	}{
		{&emergencyv1.EmergencyDeclared{Component: sealed("a"), Symptom: sealed("b"), Reason: sealed("c")},
			[]procedure.RestrictedField{{Field: "component", Commitment: "a"}, {Field: "symptom", Commitment: "b"}, {Field: "reason", Commitment: "c"}}},
		{&emergencyv1.CallOutIssued{Message: sealed("m"), Pages: []*emergencyv1.CalledPage{{Person: "carl", Address: sealed("1")}, {Person: "anna", Address: sealed("2")}}},
			[]procedure.RestrictedField{{Field: "pages.address", Commitment: "1", Of: "carl"}, {Field: "pages.address", Commitment: "2", Of: "anna"}, {Field: "message", Commitment: "m"}}},
		{&emergencyv1.ResponderAccepted{Person: "carl", ContactPath: sealed("x")}, []procedure.RestrictedField{{Field: "contact_path", Commitment: "x", Of: "carl"}}},
		{&emergencyv1.ResponderHandedOver{From: "carla", To: "carl", ContactPath: sealed("x")}, []procedure.RestrictedField{{Field: "contact_path", Commitment: "x", Of: "carl"}}},
		{&emergencyv1.ContactsChanged{Person: "tom", Contacts: []*emergencyv1.SealedContact{{Address: sealed("x")}}}, []procedure.RestrictedField{{Field: "contacts.address", Commitment: "x", Of: "tom"}}},
		{&emergencyv1.DeployVerified{Report: &emergencyv1.TreeReport{Paths: sealed("p")}}, []procedure.RestrictedField{{Field: "report.paths", Commitment: "p"}}},
		{&emergencyv1.ReplicationChecked{DriftPaths: []*emergencyv1.Restricted{sealed("1"), sealed("2")}}, []procedure.RestrictedField{{Field: "drift_paths", Commitment: "1"}, {Field: "drift_paths", Commitment: "2"}}},
		{&emergencyv1.ResponderDeclined{Person: "carl", Reason: sealed("r")}, []procedure.RestrictedField{{Field: "reason", Commitment: "r"}}},
		{&emergencyv1.DryRunRecorded{Host: "www1"}, nil},
	} {
		if got := procedure.RestrictedFields(c.payload); !slices.Equal(got, c.want) {
			t.Errorf("%T: %v, want %v", c.payload, got, c.want)
		}
	}
}

// Who may read what (8.4, 9): a part in the procedure for most values, a calling party or the person for how to reach somebody.
func TestMayRead(t *testing.T) {
	t.Parallel()
	reason := procedure.RestrictedField{Field: "reason", Commitment: "r"}
	contact := procedure.RestrictedField{Field: "contact_path", Commitment: "c", Of: "theo"}
	address := procedure.RestrictedField{Field: "pages.address", Commitment: "c", Of: "bea"}
	for person, want := range map[string]string{
		"carla": "reason contact address", "clara": "reason contact address", "anna": "reason contact address", "albert": "reason contact address",
		"dora": "reason", "emil": "reason", "tina": "reason", "theo": "reason contact", "casper": "reason", "arno": "",
		"bea": "address", "bruno": "", "doris": "", "sven": "", "axel": "", "mia": "", "nobody-listed": "", "": "",
	} {
		var may []string
		for name, f := range map[string]procedure.RestrictedField{"reason": reason, "contact": contact, "address": address} {
			refusal := procedure.MayRead(nil, proceduretest.Book(), person, proceduretest.T0(), "incident.X", f)
			if refusal == nil {
				may = append(may, name)
				continue
			}
			if refusal.Code != procedure.PermissionDenied || refusal.Reason != procedure.ReasonRole || len(refusal.Allow) == 0 || !strings.Contains(refusal.Message, f.Field) {
				t.Errorf("refusal to %s is not whole: %+v", person, refusal)
			}
		}
		wanted := strings.Fields(want)
		slices.Sort(may)
		slices.Sort(wanted)
		if !slices.Equal(may, wanted) {
			t.Errorf("%q may read %v, want %v", person, may, wanted)
		}
	}
	if procedure.MayRead(nil, proceduretest.Book(), "carla", proceduretest.Founded().Add(-time.Hour), "incident.X", reason) == nil {
		t.Error("carla may read before she held a role")
	}
}

func TestRecognise(t *testing.T) {
	t.Parallel()
	book, now := proceduretest.Book(), proceduretest.T0()
	if a, refusal := procedure.Recognise(book, proceduretest.KeyOf("anna2").ID, now); refusal != nil || a.GetPerson() != "anna" {
		t.Errorf("anna's second key is %v, %v", a, refusal)
	}
	if a, refusal := procedure.Recognise(book, proceduretest.KeyOf("host:www1").ID, now); refusal != nil || a.GetSystemName() != "www1" || a.GetPerson() != "" {
		t.Errorf("the host's key is %v, %v", a, refusal)
	}
	for key, want := range map[string]procedure.Reason{
		"": procedure.ReasonNoIdentity, proceduretest.KeyOf("stranger").ID: procedure.ReasonKeyUnknown, proceduretest.KeyOf("carl-revoked").ID: procedure.ReasonKeyRevoked,
	} {
		if a, refusal := procedure.Recognise(book, key, now); refusal == nil || refusal.Reason != want {
			t.Errorf("key %.12s is %v, %v; want %s", key, a, refusal, want)
		}
	}
}

// RevisionState follows the states of procedure.md 6 along the story, and beside it.
func TestRevisionState(t *testing.T) {
	t.Parallel()
	for milestone, want := range map[proceduretest.Milestone]string{
		proceduretest.Registered: "Registered", proceduretest.Reviewed: "Review1Approved", proceduretest.Transferred: "Transferred",
		proceduretest.OnTestServer: "OnTestServer", proceduretest.Tested: "Tested", proceduretest.ReviewedTwice: "Review2Approved",
		proceduretest.Forwarded: "Forwarded", proceduretest.DryRun: "DryRunClean", proceduretest.Applying: "Applying",
		proceduretest.Applied: "Applied", proceduretest.Verified: "Verified",
	} {
		s := proceduretest.Given(t, proceduretest.Story(milestone)).World().State
		if got := procedure.RevisionState(s, s.Current()); got != want {
			t.Errorf("%s: %s, want %s", milestone, got, want)
		}
	}
	s := proceduretest.Given(t, proceduretest.Story(proceduretest.Tested), proceduretest.Does("dora", proceduretest.Replace("P1r1", 2))).World().State
	if got := procedure.RevisionState(s, &s.Revisions[0]); got != "Superseded" {
		t.Errorf("a replaced revision: %s, want Superseded", got)
	}
	failed := proceduretest.Given(t, proceduretest.Story(proceduretest.Applying), proceduretest.Does("host:www1", proceduretest.ReportApply(false))).World()
	if got := procedure.RevisionState(failed.State, failed.State.Current()); got != "ApplyFailed" {
		t.Errorf("a failed apply: %s, want ApplyFailed", got)
	}
	failed.Do("carla", proceduretest.BackOut())
	if got := procedure.RevisionState(failed.State, failed.State.Current()); got != "BackingOut" {
		t.Errorf("while backing out: %s, want BackingOut", got)
	}
}
