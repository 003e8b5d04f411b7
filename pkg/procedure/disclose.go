// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Redaction and disclosure of restricted values (procedure.md 8.3 to 8.5).

// Revealed is a restricted value with its salt, as its owner keeps it.
type Revealed struct{ Salt, Value []byte }

// DisclosureClass says when a restricted value may become public.
type DisclosureClass string

// The classes of restricted values.
const (
	// DiscloseDue becomes public by itself at the policy's "disclose".
	DiscloseDue DisclosureClass = "UNTIL_DISCLOSURE"
	// DiscloseByHand becomes public by somebody's decision.
	DiscloseByHand DisclosureClass = "BY_DECISION"
	// DiscloseNever becomes public only by an arbitrator's order (8.4).
	DiscloseNever DisclosureClass = "NEVER"
)

// untilDisclosure are the fields marked "until disclosure" in chapter 5, and the symptom (3.2, "disclose").
var untilDisclosure = []string{
	"incident.EmergencyDeclared symptom",
	"review.FirstReviewRecorded reason", "review.SecondReviewRecorded reason",
	"review.VetoRaised reason", "review.VetoWithdrawn reason", "review.VetoOverruled reason",
	"review.TestReported steps",
	"deployment.DeployVerified report.paths", "deployment.DeployMismatch report.paths", "deployment.PatchBackedOut report.paths",
	"deployment.BackOutUnproven report.paths", "deployment.RolledBack report.paths", "deployment.ReplicationChecked drift_paths",
}

// neverPublic are the events of which nothing restricted is ever public: private proceedings (of a ruling what RulingPublished
// says is), and what a session or its leftovers show.
var neverPublic = []string{
	"arbitration.DisputeFiled", "arbitration.CaseOpened", "arbitration.ArbitratorDeclined", "arbitration.PreliminariesRecorded",
	"arbitration.DirectionIssued", "arbitration.DirectionReported", "arbitration.RulingDelivered", "arbitration.ReviewRuled", "arbitration.ReviewRequested",
	"deployment.SessionMarked", "deployment.SessionDiffCaptured", "deployment.LeftoversReported", "deployment.LeftoversExplained",
	"deployment.CredentialConsumed", "deployment.CredentialProvenUnusable", "deployment.CredentialStillUsable",
}

// neverFields are never public in whatever event they stand: how persons are reached, and where they come from.
var neverFields = []protoreflect.Name{"contact_path", "address", "account", "source_address", "key_fingerprint", "attempts"}

// Disclosure is the class of a restricted field.
func Disclosure(eventType, field string) DisclosureClass {
	switch {
	case slices.Contains(neverPublic, eventType), slices.Contains(neverFields, protoreflect.FullName(field).Name()):
		return DiscloseNever
	case slices.Contains(untilDisclosure, eventType+" "+field):
		return DiscloseDue
	}
	return DiscloseByHand
}

// disclosesAt is when what is restricted until disclosure becomes public: when the host is found equal to the branch after a
// change, or the policy's time after the apply, whichever is first (3.2). ok is false while nothing was changed.
func (s *State) disclosesAt() (at time.Time, ok bool) {
	changed := s.hostChanged()
	if changed.Position == 0 {
		return time.Time{}, false
	}
	at = changed.At.Add(s.Policy.Duration("disclose"))
	for _, m := range s.equals() {
		if m.Position > changed.Position && m.At.Before(at) {
			at = m.At
		}
	}
	return at, true
}

// hostChanged is the first change of the critical host.
func (s *State) hostChanged() Mark {
	var first Mark
	for _, x := range s.sessionDifferences() {
		if first.Position == 0 {
			first = x.Mark
		}
	}
	for _, a := range s.Applies {
		if a.Applied.Position > 0 && (first.Position == 0 || a.Applied.Position < first.Position) {
			return a.Applied
		}
	}
	return first
}

// sealedUntil is until when an arbitrator keeps an event's restricted values secret: by an order of kind seal, over everything
// up to the evidence of its dispute, until its date. Zero for no such order.
func (s *State) sealedUntil(position uint64) time.Time {
	var until time.Time
	for _, x := range s.Directions {
		if x.Kind != emergencyv1.DirectionKind_DIRECTION_KIND_SEAL || x.Void.Position > 0 {
			continue
		}
		if y, ok := s.Dispute(x.Dispute); ok && position <= y.Evidence && x.Due.After(until) {
			until = x.Due
		}
	}
	return until
}

// sealedRuling tells whether an event is part of a sealed ruling.
func (s *State) sealedRuling(position uint64) bool {
	for _, r := range s.Rulings {
		part := r.Position == position || slices.ContainsFunc(s.Directions, func(x Direction) bool { return x.InRuling == r.ID && x.Issued.Position == position })
		if r.Sealed && part {
			return true
		}
	}
	return false
}

// DueDisclosure is a restricted value that is to become public at a time.
type DueDisclosure struct {
	RestrictedAt
	Due time.Time
}

// DueDisclosures are the values that become public by themselves and are not yet, the first one first; those of a merged
// incident follow its target and are not among them. The arbitration service gives a Disclose for each whose time has
// passed: a tick could not, because the values are with their owners.
func DueDisclosures(s *State) []DueDisclosure {
	if s.Status == Absent || s.Status == Merged {
		return nil
	}
	at, ok := s.disclosesAt()
	if !ok {
		return nil
	}
	var list []DueDisclosure
	for _, r := range s.Restricted {
		if due, ok := s.disclosureDue(&r, at); ok {
			list = append(list, DueDisclosure{r, due})
		}
	}
	slices.SortStableFunc(list, func(a, b DueDisclosure) int { return a.Due.Compare(b.Due) })
	return list
}

func (s *State) disclosureDue(r *RestrictedAt, at time.Time) (time.Time, bool) {
	if r.Redacted.Position > 0 || r.Disclosed.Position > 0 || Disclosure(r.EventType, r.Field) != DiscloseDue {
		return time.Time{}, false
	}
	for _, later := range []time.Time{r.At, s.sealedUntil(r.Position)} {
		if later.After(at) {
			at = later
		}
	}
	return at, true
}

func redactFields(f *fields, c *emergencyv1.RedactRequest) {
	f.want(c.GetEvent() > 0, "event", "the position of an event")
	f.want(c.GetCommitment() != "", "commitment", "the commitment of the field")
	f.want(len(strings.TrimSpace(c.GetGround())) >= 10, "ground", "at least 10 characters; it is public")
	f.want(given(c.GetClause()) && len(c.GetClause()) <= 200, "clause", "the clause or case number it rests on; it is public")
}

func redactClaims(c *emergencyv1.RedactRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{
		claim("event", strconv.FormatUint(c.GetEvent(), 10)), claim("commitment", c.GetCommitment()), claim("ground", c.GetGround()), claim("clause", c.GetClause()),
	}
}

// decideRedact orders that value and salt are deleted for ever; the commitment stays (8.5). What an open dispute rests on is
// held, and so is everything while a dispute is owed and not filed: or evidence could be deleted before anybody may name it.
func decideRedact(d *decision, c *emergencyv1.RedactRequest) *Refusal {
	if c.GetEvent() > d.s.Position {
		return refuse(ReasonEntry, "%s has no event at position %d; the last is %d", d.s.Incident, c.GetEvent(), d.s.Position).under("4.5 Redact")
	}
	r, ok := d.s.restricted(c.GetEvent(), c.GetCommitment())
	if !ok {
		return refuse(ReasonExistence, "the event at position %d has no restricted field with this commitment; what is public stays", c.GetEvent()).
			allow("AnnotateLog", "", "add a note that says what is wrong")
	}
	if r.Disclosed.Position > 0 {
		return refuse(ReasonExistence, "the field was disclosed at position %d and stands in the history", r.Disclosed.Position)
	}
	if refusal := d.held(r); refusal != nil {
		return refusal
	}
	if r.Redacted.Position > 0 {
		return refuse(ReasonRedacted, "the field was redacted at position %d", r.Redacted.Position)
	}
	owner, _ := EventOwner(r.EventType)
	d.emit(&emergencyv1.FieldRedacted{Event: r.Position, Commitment: r.Commitment, Field: r.Field, Owner: owner, Ground: c.GetGround(), Clause: c.GetClause()})
	return nil
}

// held refuses to delete evidence (8.5).
func (d *decision) held(r *RestrictedAt) *Refusal {
	for i := range d.s.Disputes {
		x := &d.s.Disputes[i]
		owed := x.Open() || x.Outcome == DisputeJoined && d.s.successor(x).Open() || x.Outcome == DisputeClosedDeclined && x.RefiledBy == ""
		judge := d.s.successor(x).Arbitrator
		if y := d.s.successor(x); len(y.Panel) > 0 {
			judge = y.Senior
		}
		if owed && r.Position <= x.Evidence && judge != d.person {
			return refuse(ReasonEvidenceHold, "the evidence of %s reaches to position %d and is held until a ruling", x.ID, x.Evidence).
				allow("Redact", x.ID, "its arbitrator may redact, or wait for the ruling")
		}
	}
	for _, o := range d.s.openDebts() {
		if strings.HasPrefix(o.Kind, "DISPUTE/") {
			return refuse(ReasonEvidenceHold, "%s is owed: until it is filed, everything is evidence", o.ID).allow("FileDispute", "", "file the dispute first")
		}
	}
	return nil
}

func reportRedactionFields(f *fields, c *emergencyv1.ReportRedactionRequest) {
	f.want(c.GetRedaction() > 0, "redaction", "the position of the FieldRedacted")
}

// decideReportRedaction notes that the owner has deleted value and salt; a second report says nothing new.
func decideReportRedaction(d *decision, c *emergencyv1.ReportRedactionRequest) *Refusal {
	for _, r := range d.s.Restricted {
		if r.Redacted.Position != c.GetRedaction() {
			continue
		}
		if r.Erased.Position == 0 {
			d.emit(&emergencyv1.RedactionCompleted{Redaction: c.GetRedaction(), Commitment: r.Commitment})
		}
		return nil
	}
	return refuse(ReasonEntry, "nothing was redacted at position %d", c.GetRedaction()).under("4.5 Redact")
}

// PendingRedactions are the redactions that were decided and of which nobody has reported yet that the value is gone.
func PendingRedactions(s *State) []RestrictedAt {
	var list []RestrictedAt
	for _, r := range s.Restricted {
		if r.Redacted.Position > 0 && r.Erased.Position == 0 {
			list = append(list, r)
		}
	}
	return list
}

// RedactionOf finds what was redacted by the event at a position, for the owner who is asked to delete it.
func RedactionOf(s *State, position uint64, commitment string) (RestrictedAt, bool) {
	for _, r := range s.Restricted {
		if r.Redacted.Position == position && position > 0 && r.Commitment == commitment {
			return r, true
		}
	}
	return RestrictedAt{}, false
}

func discloseFields(f *fields, c *emergencyv1.DiscloseRequest) {
	f.want(c.GetEvent() > 0, "event", "the position of an event")
	f.want(digestForm.MatchString(c.GetCommitment()), "commitment", "64 lower-case hex digits")
}

// decideDisclose publishes a value with its salt, so that anybody can check it against the commitment. The reactor discloses
// what has become due and nothing else.
func decideDisclose(d *decision, c *emergencyv1.DiscloseRequest) *Refusal {
	r, ok := d.s.restricted(c.GetEvent(), c.GetCommitment())
	if !ok {
		return refuse(ReasonEntry, "no event of %s at position %d holds this commitment", d.s.Incident, c.GetEvent()).under("4.5 Disclose")
	}
	for _, check := range []func(*RestrictedAt) *Refusal{d.kept, d.unsealed, d.publishable, d.dueOrDecided} {
		if refusal := check(r); refusal != nil {
			return refusal
		}
	}
	if d.hypothetical {
		return nil // whether it is still kept only its owner can tell
	}
	v := d.env.Facts.Revealed
	if v == nil {
		return refuse(ReasonValueGone, "the value is not kept any more, or never was")
	}
	if Commit(v.Salt, v.Value) != r.Commitment {
		return refuse(ReasonEntry, "what the owner keeps is not what the commitment names").under("4.5 Disclose (0.8)")
	}
	d.emit(&emergencyv1.FieldDisclosed{Event: r.Position, Commitment: r.Commitment, Field: r.Field, Value: v.Value, Salt: v.Salt})
	return nil
}

func (d *decision) kept(r *RestrictedAt) *Refusal {
	switch {
	case r.Redacted.Position > 0:
		return refuse(ReasonValueGone, "the field was redacted at position %d", r.Redacted.Position)
	case r.Disclosed.Position > 0:
		return refuse(ReasonDisclosed, "the field was disclosed at position %d", r.Disclosed.Position)
	}
	return nil
}

// judge tells whether the actor acts as arbitrator of a dispute of this incident.
func (d *decision) judge() bool { return d.role == ar && d.s.decides(d.person) }

// decides tells whether a person is or was appointed in a dispute of the incident.
func (s *State) decides(person string) bool {
	return slices.ContainsFunc(s.Disputes, func(x Dispute) bool { return x.Arbitrator == person || slices.Contains(x.Panel, person) })
}

func (d *decision) unsealed(r *RestrictedAt) *Refusal {
	if d.s.sealedRuling(r.Position) {
		return refuse(ReasonSealed, "the field belongs to a sealed ruling")
	}
	if until := d.s.sealedUntil(r.Position); until.After(d.at) && !d.judge() {
		return refuse(ReasonSealed, "an arbitrator keeps it secret until %s", stamp(until)).allow("Disclose", "", "the arbitrator may disclose it, or wait until then")
	}
	return nil
}

func (d *decision) publishable(r *RestrictedAt) *Refusal {
	if Disclosure(r.EventType, r.Field) == DiscloseNever && !d.judge() {
		return refuse(ReasonNeverPublic, "%s of %s is never public", r.Field, r.EventType).allow("Disclose", "", "only an arbitrator of the incident's dispute may order it")
	}
	return nil
}

func (d *decision) dueOrDecided(r *RestrictedAt) *Refusal {
	if d.person != "" {
		return nil
	}
	if at, ok := d.s.disclosesAt(); ok {
		if due, ok := d.s.disclosureDue(r, at); ok && d.at.After(due) {
			return nil
		}
	}
	return refuse(ReasonNotDue, "%s of %s does not become public by itself, or not yet", r.Field, r.EventType)
}
