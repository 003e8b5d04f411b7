// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Recognise tells whose key it is, by the same check that every command begins with (G1); who gives a command is for ActorOf. Reading needs no more: whoever is
// in the directory may follow every incident (procedure.md 2.1, ME and OB); restricted values are for MayRead to judge.
func Recognise(book *rulebook.Book, keyID string, at time.Time) (*emergencyv1.Actor, *Refusal) {
	d := &decision{env: Env{Now: at, Actor: Actor{KeyID: keyID}, Book: book}}
	return d.authenticate()
}

// RestrictedField is one value of an event that is kept outside the history (procedure.md 0.8).
type RestrictedField struct {
	// Field names it within the payload, such as reason or report.paths; values of a list share a name.
	Field string
	// Commitment is what the payload holds instead.
	Commitment string
	// Of is the person whom a contact path or address leads to; empty for every other field.
	Of string
}

// RestrictedFields lists the restricted values of an event's payload, in the order of its fields.
func RestrictedFields(payload proto.Message) []RestrictedField {
	return restrictedOf(payload.ProtoReflect(), "", "")
}

func restrictedOf(m protoreflect.Message, prefix, of string) []RestrictedField {
	if p := reachedPerson(m); p != "" {
		of = p
	}
	var list []RestrictedField
	for _, fd := range holding(m.Descriptor()) { // not Range, whose order is undefined
		if fd.IsMap() || !m.Has(fd) {
			continue
		}
		name := prefix + string(fd.Name())
		if !fd.IsList() {
			list = append(list, restrictedValue(m.Get(fd).Message(), name, of)...)
			continue
		}
		for j := range m.Get(fd).List().Len() {
			list = append(list, restrictedValue(m.Get(fd).List().Get(j).Message(), name, of)...)
		}
	}
	return list
}

func restrictedValue(m protoreflect.Message, name, of string) []RestrictedField {
	r, ok := m.Interface().(*emergencyv1.Restricted)
	if !ok {
		return restrictedOf(m, name+".", of)
	}
	f := RestrictedField{Field: name, Commitment: r.GetCommitment()}
	if f.reaches() {
		f.Of = of
	}
	return []RestrictedField{f}
}

// reachedPerson is the person whom the contact paths and addresses in a message lead to: the one who was asked, before the
// one who asks.
func reachedPerson(m protoreflect.Message) string {
	for _, name := range []protoreflect.Name{"to", "person"} {
		if fd := m.Descriptor().Fields().ByName(name); fd != nil && fd.Kind() == protoreflect.StringKind && !fd.IsList() {
			return m.Get(fd).String()
		}
	}
	return ""
}

// reaches tells whether the field says how to reach a person.
func (f RestrictedField) reaches() bool {
	last := protoreflect.FullName(f.Field).Name()
	return last == "contact_path" || last == "address"
}

// MayRead judges whether a person may read a restricted value of an incident at a time; nil if so. Restricted values are for
// those who have a part in the procedure. How a person can be reached is only for the two parties that call, their leads and
// the person (procedure.md 8.4). An arbitrator reads the evidence of the own cases, from being asked on; proceedings are
// private (DRP 3.2).
func MayRead(s *State, book *rulebook.Book, person string, at time.Time, eventType string, f RestrictedField) *Refusal {
	allowed := roles(ca, sa, sd, se, te, cm, cl, al)
	switch {
	case f.reaches():
		allowed = roles(ca, sa, cl, al)
	case slices.Contains(proceedings, eventType):
		allowed = roles(cm, dro)
	case s.sealedValue(f.Commitment):
		allowed = roles(cm, dro, bd)
	case ofConsole(eventType):
		allowed = roles(ca, sa, cm, cl, al)
	}
	if person != "" && (s.concerns(book, person, at, f) || slices.ContainsFunc(allowed, func(r emergencyv1.Role) bool { return book.Has(person, r, at) })) {
		return nil
	}
	return refuse(ReasonRole, "%s of %s is not for you to read", f.Field, eventType).under("8.4, 9").
		allow("", "", "ask somebody who is %s", roleList(allowed))
}

// RecordingField stands for the recording of a session, for MayRead with the type RecordingEvent.
func RecordingField() RestrictedField { return RestrictedField{Field: "recording"} }

// RecordingEvent is the type of the event that a recording belongs to.
const RecordingEvent = OwnerDeployment + ".SessionSealed"

// ofConsole tells whether an event is of a remote session. What it restricts, recording and marks, accounts and addresses, is
// for the two teams that answer for it and for those who judge it.
func ofConsole(eventType string) bool {
	row, ok := eventByType[eventType]
	return ok && (strings.HasPrefix(row.name, "Access") || isConsole(row.make()))
}

// proceedings are the events of which parties and teams read nothing.
var proceedings = []string{"arbitration.PreliminariesRecorded", "arbitration.ArbitratorDeclined"}

// concerns tells whether a value is a person's to read whatever roles the person holds: the own address, what the person
// filed, what the person is ordered to do, and the evidence that the person judges.
func (s *State) concerns(book *rulebook.Book, person string, at time.Time, f RestrictedField) bool {
	switch {
	case f.reaches():
		return person == f.Of
	case s == nil:
		return false
	case s.Judges(person) && book.Has(person, ar, at):
		return true
	}
	for _, x := range s.Disputes {
		if x.Filed.By == person && f.Commitment != "" && slices.Contains([]string{x.Claimants, x.Respondents, x.Complaint}, f.Commitment) {
			return true
		}
	}
	return slices.ContainsFunc(s.Directions, func(x Direction) bool {
		return x.Text == f.Commitment && x.Text != "" && (x.Person == person || x.Role != 0 && book.Has(person, x.Role, at))
	})
}

// sealedValue tells whether a commitment is part of a sealed ruling.
func (s *State) sealedValue(commitment string) bool {
	if s == nil {
		return false
	}
	return slices.ContainsFunc(s.Restricted, func(r RestrictedAt) bool { return r.Commitment == commitment && s.sealedRuling(r.Position) })
}

// RevisionState is where a revision stands, in the words of procedure.md 6.
func RevisionState(s *State, r *Revision) string {
	if word := r.Cycle.word(); word != "" {
		return word
	}
	if a := s.ApplyOf(r.ID); a != nil {
		return applyWord(a.State)
	}
	clean := slices.ContainsFunc(s.DryRuns, func(x DryRun) bool { return x.Revision == r.ID && x.Clean })
	switch {
	case r.Superseded != "":
		return "Superseded"
	case r.Forward != nil && clean:
		return "DryRunClean"
	case r.Forward != nil:
		return "Forwarded"
	case r.secondApproved():
		return "Review2Approved"
	case !s.testedAt(r).IsZero():
		return "Tested"
	case r.TestServer != nil:
		return "OnTestServer"
	case r.Transfer != nil:
		return "Transferred"
	case r.firstApproved():
		return "Review1Approved"
	}
	return "Registered"
}

func applyWord(a ApplyState) string {
	switch a {
	case Applying:
		return "Applying"
	case Applied:
		return "Applied"
	case Verified:
		return "Verified"
	case ApplyFailed:
		return "ApplyFailed"
	case Mismatch:
		return "Mismatch"
	case BackingOut:
		return "BackingOut"
	case BackedOut:
		return "BackedOut"
	case BackOutUnproven:
		return "BackOutUnproven"
	case RollingBack:
		return "RollingBack"
	case RolledBack:
		return "RolledBack"
	}
	return fmt.Sprintf("unknown state %q", string(a))
}
