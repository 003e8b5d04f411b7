// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// parts are the messages of emergency.v1 that are neither command, answer nor event, but part of one.
var parts = []string{
	"Acceptance", "Actor", "Approval", "ArchivedMessage", "Artefact", "Binding", "CalledPage", "Claim", "CommandMeta", "Committed", "Contact", "CriticalSystem", "Passkey", "PasskeyAssertion",
	"AttachedDeviation", "Declination", "DeviationReason", "EndResult", "Event", "GateCheck", "Handover", "Judgement", "Key", "Leftover", "LeftoverFound", "Order", "Policy",
	"PolicyValue", "Record", "RecordingCheckpoint", "Restricted", "ReuseAttempt", "RoleGrant",
	"SealedContact", "Shift", "SignedRecord", "Statement", "TreeReport",
}

// messages are all messages of emergency.v1.
func messages(t *testing.T) map[string]protoreflect.MessageDescriptor {
	t.Helper()
	list := map[string]protoreflect.MessageDescriptor{}
	protoregistry.GlobalFiles.RangeFilesByPackage("emergency.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Messages().Len() {
			m := f.Messages().Get(i)
			list[string(m.Name())] = m
		}
		return true
	})
	if len(list) < 100 {
		t.Fatalf("only %d messages found", len(list))
	}
	return list
}

func newMessage(t *testing.T, m protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(m.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return mt.New().Interface()
}

// TestMessages walks all messages of emergency.v1: each is a command with a row and an answer, an event with a row and a
// case, or a known part of one. A message that somebody adds and forgets fails here.
func TestMessages(t *testing.T) {
	t.Parallel()
	all := messages(t)
	eventNames := map[string]bool{}
	for _, typ := range procedure.EventTypes() {
		eventNames[pt.ShortType(typ)] = true
	}
	for name, d := range all {
		m := newMessage(t, d)
		command, isRequest := strings.CutSuffix(name, "Request")
		answered, isResponse := strings.CutSuffix(name, "Response")
		switch {
		case isRequest:
			if d.Fields().ByName("meta") == nil {
				t.Errorf("%s has no meta", name)
			}
			if got := procedure.CommandName(m); got != command {
				t.Errorf("%s is command %q", name, got)
			}
		case isResponse:
			if all[answered+"Request"] == nil {
				t.Errorf("%s answers nothing", name)
			}
		case eventNames[name], slices.Contains(parts, name):
			if procedure.CommandName(m) != "" {
				t.Errorf("%s is a command", name)
			}
		default:
			t.Errorf("%s is no command, no answer, no event of the catalogue, and no known part", name)
		}
		for i := range d.Fields().Len() {
			if eventNames[name] && d.Fields().Get(i).IsMap() {
				t.Errorf("event %s has a map; its order is nobody's", name)
			}
		}
	}
	for _, p := range parts {
		if all[p] == nil {
			t.Errorf("there is no message %s any more", p)
		}
	}
}

// TestCatalogue holds each event type against its owner and its message, and has each one folded.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	all := messages(t)
	types := procedure.EventTypes()
	if !slices.IsSorted(types) {
		t.Error("not in order")
	}
	for _, typ := range types {
		owner, name, _ := strings.Cut(typ, ".")
		if got, ok := procedure.EventOwner(typ); !ok || got != owner || !slices.Contains(procedure.Owners(), owner) {
			t.Errorf("%s belongs to %q", typ, got)
		}
		m := newMessage(t, all[name])
		e, err := procedure.EncodeEvent(owner, m)
		if err != nil || e.GetType() != typ || e.GetSchemaVersion() != 1 {
			t.Errorf("%s encodes as %v, %v", typ, e, err)
			continue
		}
		back, err := procedure.DecodeEvent(e)
		if err != nil || !proto.Equal(back, m) {
			t.Errorf("%s decodes as %v, %v", typ, back, err)
		}
		checkFolded(t, typ, e)
	}
	refused := 0
	for _, o := range procedure.Owners() {
		if _, ok := procedure.EventOwner(o + ".CommandRefused"); ok {
			refused++
		}
	}
	if refused != 5 {
		t.Errorf("%d owners record refusals", refused)
	}
}

// checkFolded has an event folded into the history it belongs to, and refused by the other one.
func checkFolded(t *testing.T, typ string, e *emergencyv1.Event) {
	t.Helper()
	payload, err := procedure.DecodeEvent(e)
	if err != nil {
		t.Fatal(err)
	}
	record := func(s *procedure.State) error {
		_, err := procedure.Evolve(s, &emergencyv1.Record{Incident: s.Incident, FirstPosition: s.Position + 1, Events: []*emergencyv1.Event{e}}, "")
		return err
	}
	bookErr, incidentErr := record(procedure.NewState(procedure.RuleBook)), record(pt.Given(t, pt.Story(pt.Verified)).World().State)
	_, declares := payload.(*emergencyv1.EmergencyDeclared)
	_, archived := payload.(*emergencyv1.MessageArchived)
	if _, published := payload.(*emergencyv1.PolicyPublished); !published {
		if _, err := (&rulebook.Book{}).With(1, pt.T0(), payload); err != nil {
			t.Errorf("%s is not read by the rule book: %v", typ, err)
		}
	}
	switch {
	case ofRuleBook(payload):
		if bookErr != nil || incidentErr == nil {
			t.Errorf("%s: the rule book says %v, an incident says %v", typ, bookErr, incidentErr)
		}
	case archived:
		if err := record(procedure.NewState(procedure.Archive)); err != nil || incidentErr == nil || bookErr == nil {
			t.Errorf("%s: the archive says %v, an incident says %v, the rule book %v", typ, err, incidentErr, bookErr)
		}
	case declares: // a second declaration in one history
		if incidentErr == nil {
			t.Errorf("%s is folded twice", typ)
		}
	default:
		if incidentErr != nil {
			t.Errorf("%s has no case: %v", typ, incidentErr)
		}
		if _, first := payload.(*emergencyv1.CommandRefused); !first && record(procedure.NewState("e20261124.9")) == nil {
			t.Errorf("%s begins a history", typ)
		}
	}
}

func ofRuleBook(m proto.Message) bool {
	switch m.(type) {
	case *emergencyv1.PersonListed, *emergencyv1.PolicyPublished, *emergencyv1.RoleGranted, *emergencyv1.RoleRevoked, *emergencyv1.KeyAdded,
		*emergencyv1.KeyRevoked, *emergencyv1.RotaChanged, *emergencyv1.ContactsChanged, *emergencyv1.ReachabilityRecorded:
		return true
	}
	return false
}

func TestDecodeEvent(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]*emergencyv1.Event{
		"unknown type":    {Type: "incident.Invented", SchemaVersion: 1},
		"no owner":        {Type: "EmergencyDeclared", SchemaVersion: 1},
		"other owner":     {Type: "review.EmergencyDeclared", SchemaVersion: 1},
		"no version":      {Type: "incident.EmergencyDeclared"},
		"a later version": {Type: "incident.EmergencyDeclared", SchemaVersion: 2},
		"not decodable":   {Type: "incident.EmergencyDeclared", SchemaVersion: 1, Payload: []byte{0xff}},
	} {
		if m, err := procedure.DecodeEvent(e); err == nil {
			t.Errorf("%s: %v", name, m)
		}
	}
	if _, err := procedure.EncodeEvent(procedure.OwnerIncident, &emergencyv1.Statement{}); err == nil {
		t.Error("a statement is an event")
	}
	if _, err := procedure.EncodeEvent("nobody", &emergencyv1.CommandRefused{}); err == nil {
		t.Error("nobody records a refusal")
	}
}

// TestApplyOrder: a record that does not follow is an error, whatever it says.
func TestApplyOrder(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Called)).World()
	for _, first := range []uint64{0, w.State.Position, w.State.Position + 2} {
		if _, err := procedure.Evolve(w.State, &emergencyv1.Record{Incident: w.State.Incident, FirstPosition: first}, ""); err == nil {
			t.Errorf("a record at %d follows position %d", first, w.State.Position)
		}
	}
}

// TestReasonTable: each reason has a kind and a rule, and only the kinds that 4.0 names are recorded.
func TestReasonTable(t *testing.T) {
	t.Parallel()
	for _, r := range procedure.Reasons() {
		code, ok := procedure.CodeOf(r)
		if !ok || code == "" {
			t.Errorf("%s has no kind", r)
		}
		recorded := (&procedure.Refusal{Code: code, Reason: r}).Recorded()
		if want := code == procedure.PermissionDenied || code == procedure.FailedPrecondition; recorded != want {
			t.Errorf("%s of kind %s recorded: %v", r, code, recorded)
		}
	}
	if _, ok := procedure.CodeOf("INVENTED"); ok {
		t.Error("a reason that is not in the table has a kind")
	}
}

func TestRefusedEvent(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Declared)).World()
	before := pt.Fingerprint(withoutHead(w.State))
	c := w.Prepare("theo", pt.StandDown())
	out := w.Try("theo", c)
	w.AppendRefusal("theo", c, out.Refusal)
	if after := pt.Fingerprint(withoutHead(w.State)); after != before {
		t.Error("a recorded refusal changes the state")
	}
	e, err := procedure.RefusedEvent(procedure.OwnerReview, pt.Veto(), &procedure.Refusal{Code: procedure.PermissionDenied, Reason: procedure.ReasonRole, Rule: "G5"}, 3)
	if err != nil {
		t.Fatal(err)
	}
	m, err := procedure.DecodeEvent(e)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.(*emergencyv1.CommandRefused); got.GetCommand() != "RaiseVeto" || got.GetReason() != "ROLE" || got.GetSuppressed() != 3 || e.GetType() != "review.CommandRefused" {
		t.Errorf("%s %v", e.GetType(), got)
	}
}

// withoutHead is a state without what every record changes: position, time and hash of the head.
func withoutHead(s *procedure.State) *procedure.State {
	n := s.Clone()
	n.Position, n.HeadHash, n.RecordedAt, n.Heads = 0, "", pt.T0(), nil
	return n
}
