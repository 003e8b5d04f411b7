// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"strconv"
	"time"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// A command can be handed on by a service, as the dashboard does with what is given in a page (G1). It is the act of whoever
// signed it, and the service is trusted with nothing: the signature is needed for every command, covers the whole of it, and is
// as fresh as for a step-up, so that nothing can be changed, made up or kept back for later. Readers check the same again.

// Forwarded tells whether a record's actor is a person whose command a service handed on.
func Forwarded(a *emergencyv1.Actor) bool {
	return a.GetSystem() == emergencyv1.SystemKind_SYSTEM_KIND_SERVICE && a.GetPerson() != ""
}

// ActorOf tells who gives a command, by the check that every decision begins with (G1): whose connection it is, or, of what a
// service hands on, who signed it. Of the environment it needs time, actor and rule book. The role is for the rules to find.
func ActorOf(c Command, env Env) (*emergencyv1.Actor, *Refusal) {
	row, ok := commandOf(c)
	if !ok {
		return nil, refuse(ReasonField, "message %s is no command", c.ProtoReflect().Descriptor().FullName())
	}
	digest, err := RequestDigest(c)
	if err != nil {
		return nil, refuse(ReasonField, "%v", err)
	}
	d := &decision{env: env, row: row, meta: c.GetMeta()}
	return d.recognise(digest)
}

// recognise finds out who gives the command of a digest (G1).
func (d *decision) recognise(digest string) (*emergencyv1.Actor, *Refusal) {
	connection, refusal := d.authenticate()
	if refusal != nil || !d.meta.GetForwarded() {
		return connection, refusal
	}
	if connection.GetSystem() != emergencyv1.SystemKind_SYSTEM_KIND_SERVICE || connection.GetPerson() != "" || connection.GetKeyId() == "" {
		return nil, refuse(ReasonForwarding, "%s is said to be handed on for somebody, and the connection is no service's", d.row.name).
			allow(d.row.name, "", "give it over your own connection, not forwarded; or in a page of the dashboard, which hands it on")
	}
	person, refusal := d.signer(digest)
	if refusal != nil {
		return nil, refusal
	}
	d.person = person
	return &emergencyv1.Actor{
		Person: person, KeyId: d.meta.GetApproval().GetKeyId(), System: connection.GetSystem(), SystemName: connection.GetSystemName(),
	}, nil
}

// signer is the person who signed exactly the command of a digest. Whether the rest of the statement fits the history is for G2.
func (d *decision) signer(digest string) (string, *Refusal) {
	a := d.meta.GetApproval()
	again := func(r *Refusal) *Refusal {
		return r.allow(d.row.name, "", "the person who gives it signs it, as it is, with a key or passkey of the own that the rule book lists")
	}
	if a == nil {
		return "", again(refuse(ReasonSignature, "a forwarded %s needs the signature of the person who gives it", d.row.name))
	}
	entry, ok := d.env.Book.Key(a.GetKeyId())
	if !ok || entry.Key.GetPerson() == "" {
		return "", again(refuse(ReasonKeyUnknown, "the signing key %s is no person's in the rule book", short(a.GetKeyId())))
	}
	if !entry.RevokedAt.IsZero() && !d.env.present().Before(entry.RevokedAt) {
		return "", again(refuse(ReasonKeyRevoked, "the signing key %s was revoked at %s", short(a.GetKeyId()), stamp(entry.RevokedAt)))
	}
	st, err := OpenApproval(a, entry.Key)
	if err != nil {
		return "", again(refuse(ReasonSignature, "%v", err))
	}
	if st.GetPerson() != entry.Key.GetPerson() || st.GetCommand() != d.row.name || st.GetRequestId() != d.meta.GetRequestId() || claimValue(st, requestDigestClaim) != digest {
		return "", again(refuse(ReasonSignature, "what was signed is not this %s, or not all of it", d.row.name))
	}
	return entry.Key.GetPerson(), nil
}

// The claims of a statement that covers its whole command.
const (
	requestDigestClaim    = "request_digest"
	expectedPositionClaim = "expected_position"
)

// forwardedClaims are what a statement for a forwarded command says besides the command's own claims: the whole command, and the
// pinned position, which the digest leaves out.
func forwardedClaims(c Command) ([]*emergencyv1.Claim, error) {
	digest, err := RequestDigest(c)
	if err != nil {
		return nil, err
	}
	list := []*emergencyv1.Claim{claim(requestDigestClaim, digest)}
	if m := c.GetMeta(); m.ExpectedPosition != nil {
		list = append(list, claim(expectedPositionClaim, strconv.FormatUint(m.GetExpectedPosition(), 10)))
	}
	return list, nil
}

// mustBeFresh tells whether a forwarded command needs a fresh signature, so that no service can keep one back and hand it on when
// the person does not mean it any more. Never for what makes safe (G8).
func mustBeFresh(row *commandRow) bool { return row.stepUp || !row.safety || row.creates }

// freshFor is how old a signature may be, and how far a clock may be ahead: by the incident's policy, or by the one in force.
func freshFor(s *State, book *rulebook.Book, at time.Time) (valid, ahead time.Duration, known bool) {
	p := s.Policy
	if p == nil {
		p = book.PolicyInForce(at)
	}
	if p == nil {
		return 0, 0, false
	}
	return p.Duration("step_up.valid"), p.Duration("clock.tolerance"), true
}

// verifyForwarded checks, for a reader who believes no service, that a record of a forwarded command is of exactly the command that
// the person signed, and that it was recorded when it was signed. st is the statement, whose signature is verified.
func verifyForwarded(s *State, row *commandRow, rec *emergencyv1.Record, st *emergencyv1.Statement, book *rulebook.Book) error {
	if rec.GetLate() {
		return fmt.Errorf("%s is recorded as captured offline and as forwarded", row.name)
	}
	if got := claimValue(st, expectedPositionClaim); got != "" && got != strconv.FormatUint(rec.GetFirstPosition()-1, 10) {
		return fmt.Errorf("it was signed for position %s and recorded after position %d", got, rec.GetFirstPosition()-1)
	}
	decided := rec.GetRecordedAt().AsTime().Add(-time.Duration(rec.GetSkewMs()) * time.Millisecond)
	valid, ahead, known := freshFor(s, book, decided)
	if age := decided.Sub(st.GetSignedAt().AsTime()); known && mustBeFresh(row) && (age > valid || age < -ahead) {
		return fmt.Errorf("it was signed at %s and recorded at %s", stamp(st.GetSignedAt().AsTime()), stamp(decided))
	}
	return signedWhole(rec, st)
}

// signedWhole checks that a statement is for the very command of a record.
func signedWhole(rec *emergencyv1.Record, st *emergencyv1.Statement) error {
	if got := claimValue(st, requestDigestClaim); got != rec.GetRequestDigest() || got == "" {
		return fmt.Errorf("%s was signed as %q and recorded as %q", requestDigestClaim, got, rec.GetRequestDigest())
	}
	if rec.GetActor().GetKeyId() != rec.GetApproval().GetKeyId() {
		return fmt.Errorf("the actor is recorded with key %s and signed with key %s", short(rec.GetActor().GetKeyId()), short(rec.GetApproval().GetKeyId()))
	}
	if st.GetCommand() != rec.GetCommand() || st.GetRequestId() != rec.GetRequestId() {
		return fmt.Errorf("%s %q was signed and %s %q is recorded", st.GetCommand(), st.GetRequestId(), rec.GetCommand(), rec.GetRequestId())
	}
	return nil
}

// verifyRefused checks a record that a command was refused: of a forwarded one, that it was the person's at all. What it lacked is
// no matter: it has no effect, but it is evidence.
func verifyRefused(rec *emergencyv1.Record, book *rulebook.Book) error {
	if !Forwarded(rec.GetActor()) {
		return nil
	}
	st, err := signedBy(rec, book)
	if err != nil {
		return err
	}
	return signedWhole(rec, st)
}
