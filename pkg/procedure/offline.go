// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Offline capture (G9): what was done while the system could not record it is signed when it was done and recorded later, under
// the rules as they are then. Deadlines go by when it is recorded; both times are shown, and a second person confirms it.

// LateRecord is a command that was captured offline.
type LateRecord struct {
	// Mark is where and when it was recorded, and whose act it is.
	Mark
	// Last is its last event's position; Role is the role in which it was done.
	Last      uint64
	Role      emergencyv1.Role
	Command   string
	Captured  time.Time
	Confirmed Mark
}

func captured(m *emergencyv1.CommandMeta) bool { return m.GetCapturedAt() != nil }

// capturedClaims are what a statement for a captured command says besides the command's own claims: when, and the whole command.
// Bytes and policy are not in it: who is cut off from the system cannot ask for them. The digest covers the binding, which is over
// both.
func capturedClaims(c Command) ([]*emergencyv1.Claim, error) {
	digest, err := RequestDigest(c)
	if err != nil {
		return nil, err
	}
	at := c.GetMeta().GetCapturedAt().AsTime()
	return []*emergencyv1.Claim{claim("captured_at", at.UTC().Format(time.RFC3339Nano)), claim(requestDigestClaim, digest)}, nil
}

// capturedStatement is the statement for a captured command; it needs no more than the command.
func capturedStatement(row *commandRow, c Command, st *emergencyv1.Statement) error {
	more, err := capturedClaims(c)
	if err != nil {
		return err
	}
	if row.claims != nil {
		st.Claims = row.claims(c)
	}
	st.Claims = append(st.Claims, more...)
	if b, ok := c.(interface{ GetBinding() *emergencyv1.Binding }); ok && b.GetBinding() != nil {
		st.Binding = proto.CloneOf(b.GetBinding())
	}
	return nil
}

// capturedInTime refuses a capture from the future or from before the emergency, by a system, or that was not signed then (G9).
func (d *decision) capturedInTime(c Command) *Refusal {
	if !captured(d.meta) {
		return nil
	}
	bad := func(format string, args ...any) *Refusal {
		return refuse(ReasonCapturedAt, format, args...).allow(d.row.name, "", "give it as what it is: done now, or captured when it was done")
	}
	at := d.meta.GetCapturedAt().AsTime()
	var st emergencyv1.Statement
	switch {
	case starts(c):
		return refuse(ReasonCapturedAt, "the agent would apply now what was decided at %s", stamp(at)).
			allow(d.row.name, "", "capture what was applied by hand, saying so (by hand); or start it now")
	case d.row.live:
		return bad("%s cannot have happened without the system that does it", d.row.name)
	case d.person == "" || d.row.beside():
		return bad("only a person's act in an emergency can be captured offline")
	case at.After(d.env.Now):
		return bad("%s is later than now, %s", stamp(at), stamp(d.env.Now))
	case !d.row.creates && at.Before(d.s.Declared.At):
		return bad("%s is before the declaration of the emergency at %s", stamp(at), stamp(d.s.Declared.At))
	case proto.Unmarshal(d.meta.GetApproval().GetPayload(), &st) != nil:
		return bad("it has no signature that was made then")
	}
	if apart := st.GetSignedAt().AsTime().Sub(at).Abs(); apart > d.tolerance() && !d.hypothetical {
		return bad("it was signed at %s and not when it was done, at %s", stamp(st.GetSignedAt().AsTime()), stamp(at))
	}
	d.extra = append(d.extra, emergencyv1.Deviation_DEVIATION_LATE_RECORD)
	return nil
}

// starts tells whether the system begins to act on a host when the command is recorded: it would act now on what was signed then.
func starts(c Command) bool {
	apply, is := c.(*emergencyv1.StartApplyRequest)
	return is && !apply.GetByHand()
}

// verifyCaptured makes a statement that was made offline comparable with one that the events demand, after checking what it says of
// itself: when it was captured, and that it is for this very command.
func verifyCaptured(rec *emergencyv1.Record, want, st *emergencyv1.Statement) error {
	for _, x := range []struct{ name, value string }{
		{"captured_at", rec.GetOccurredAt().AsTime().UTC().Format(time.RFC3339Nano)}, {requestDigestClaim, rec.GetRequestDigest()},
	} {
		if got := claimValue(st, x.name); got != x.value {
			return fmt.Errorf("%s was signed as %q and recorded as %q", x.name, got, x.value)
		}
	}
	if rec.GetOccurredAt().AsTime().After(rec.GetRecordedAt().AsTime()) {
		return fmt.Errorf("it is recorded to have happened at %s, after it was recorded", stamp(rec.GetOccurredAt().AsTime()))
	}
	want.PatchSha256, want.BaseTree, want.ResultTree, want.PolicyDigest = "", "", "", ""
	if st.GetBinding() == nil {
		want.Binding = nil // a command that names none; the digest covers what it names
	}
	return nil
}

func claimValue(st *emergencyv1.Statement, name string) string {
	for _, c := range st.GetClaims() {
		if c.GetName() == name {
			return c.GetValue()
		}
	}
	return ""
}

// noteLate keeps a record that was captured offline.
func (s *State) noteLate(rec *emergencyv1.Record) {
	if !rec.GetLate() {
		return
	}
	at := rec.GetRecordedAt().AsTime()
	s.Late = append(s.Late, LateRecord{
		Mark: Mark{Position: rec.GetFirstPosition(), At: at, By: rec.GetActor().GetPerson()}, Last: s.Position, Role: rec.GetActor().GetRole(),
		Command: rec.GetCommand(), Captured: rec.GetOccurredAt().AsTime(),
	})
}

func (s *State) lateRecord(position uint64) *LateRecord {
	for i := range s.Late {
		if l := &s.Late[i]; l.Position <= position && position <= l.Last {
			return l
		}
	}
	return nil
}

// lateDebts: each act that was captured offline is confirmed by a second person, within the 72 h that the policy has for what has
// no time of its own.
func (s *State) lateDebts() []Obligation {
	var list []Obligation
	for _, l := range s.Late {
		list = append(list, s.owe("OFFLINE_RECONCILE", Mark{Position: l.Position, At: l.At}, l.At.Add(s.Policy.Duration("obligation.fallback")), l.Role, l.By, "ConfirmLateRecord", "G9", l.Confirmed))
	}
	return list
}

func confirmLateFields(f *fields, c *emergencyv1.ConfirmLateRecordRequest) {
	f.want(c.GetEvent() > 0, "event", "the position of the late event")
	f.want(strings.TrimSpace(c.GetProof()) != "", "proof", "what the confirmation rests on")
}

// decideConfirmLate is a second person's word for what was captured offline.
func decideConfirmLate(d *decision, c *emergencyv1.ConfirmLateRecordRequest) *Refusal {
	if c.GetEvent() > d.s.Position {
		return refuse(ReasonEntry, "%s has no event at position %d; the last is %d", d.s.Incident, c.GetEvent(), d.s.Position)
	}
	l := d.s.lateRecord(c.GetEvent())
	if l == nil || l.Confirmed.Position > 0 {
		refusal := refuse(ReasonNotLate, "the event at position %d was recorded when it happened", c.GetEvent())
		if l != nil {
			refusal.Message = fmt.Sprintf("the late event at position %d was confirmed by %s", c.GetEvent(), l.Confirmed.By)
		}
		return refusal.allow("ConfirmLateRecord", "", "name an event that is late and not confirmed")
	}
	if l.By == d.person {
		return refuse(ReasonSamePerson, "%s did it; another person confirms it", d.person).under("4.1 ConfirmLateRecord").
			allow("ConfirmLateRecord", "", "%s", d.another(ca, sa))
	}
	d.emit(&emergencyv1.LateRecordConfirmed{Event: c.GetEvent(), Proof: c.GetProof()})
	return nil
}

func (s *State) applyLateConfirmed(f fact, e *emergencyv1.LateRecordConfirmed) {
	if l := s.lateRecord(e.GetEvent()); l != nil && l.Confirmed.Position == 0 {
		l.Confirmed = f.mark(f.who(), "", e.GetProof())
	}
}
