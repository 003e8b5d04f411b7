// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The rule book: policy, directory, keys, rota and contacts (procedure.md 4.6).

func establishFields(f *fields, c *emergencyv1.EstablishRequest) {
	f.want(c.GetBoardDecision() != "", "board_decision", "the Board's decision id (X4)")
	f.want(len(c.GetPersons()) > 0, "persons", "at least one person")
	for _, p := range c.GetPersons() {
		f.word("persons", p)
	}
}

// decideEstablish founds an empty rule book, under the same rules as later changes.
func decideEstablish(d *decision, c *emergencyv1.EstablishRequest) *Refusal {
	if d.env.Book != nil && d.env.Book.Position > 0 {
		return refuse(ReasonRuleBookExists, "the rule book already has %d positions", d.env.Book.Position).allow("PublishPolicy", "", "change it by its own commands")
	}
	policy, err := rulebook.ParsePolicy(c.GetPolicy())
	if err != nil {
		return refuse(ReasonPolicyInvalid, "%v", err)
	}
	d.emit(&emergencyv1.PolicyPublished{Policy: c.GetPolicy(), Number: policy.Number})
	for _, p := range c.GetPersons() {
		d.emit(&emergencyv1.PersonListed{Person: p})
	}
	held := map[string][]emergencyv1.Role{}
	for _, g := range c.GetGrants() {
		if !slices.Contains(c.GetPersons(), g.GetPerson()) {
			return refuse(ReasonField, "a role is granted to %q, who is not listed", g.GetPerson())
		}
		held[g.GetPerson()] = append(held[g.GetPerson()], withTeamRole(g.GetRole())...)
		if refusal := exclusiveGrant(g.GetPerson(), held[g.GetPerson()]); refusal != nil {
			return refusal
		}
		d.emit(&emergencyv1.RoleGranted{Grant: &emergencyv1.RoleGrant{Person: g.GetPerson(), Role: g.GetRole(), EffectiveAt: g.GetEffectiveAt(), BoardDecision: c.GetBoardDecision()}})
	}
	seen := map[string]bool{}
	for _, k := range c.GetKeys() {
		if refusal := keyForm(k); refusal != nil {
			return refusal
		}
		if seen[k.GetKeyId()] {
			return refuse(ReasonKeyExists, "key %s is listed twice", short(k.GetKeyId()))
		}
		seen[k.GetKeyId()] = true
		d.emit(&emergencyv1.KeyAdded{Key: k})
	}
	return nil
}

func withTeamRole(r emergencyv1.Role) []emergencyv1.Role {
	switch r {
	case cl:
		return roles(cl, ca)
	case al:
		return roles(al, sa)
	default:
		return roles(r)
	}
}

func exclusiveGrant(person string, held []emergencyv1.Role) *Refusal {
	a, b, conflict := Exclusive(held)
	if !conflict {
		return nil
	}
	return refuse(ReasonRoleExclusivity, "%s would hold %s and %s, which exclude each other", person, roleWord(a), roleWord(b)).
		allow("RevokeRole", person, "revoke the other role first")
}

// keyForm checks that a key is whose it says, that its id is its own digest, and that a passkey can be one.
func keyForm(k *emergencyv1.Key) *Refusal {
	switch {
	case KeyID(k.GetPublicKey()) != k.GetKeyId():
		return refuse(ReasonField, "key_id is not the SHA-256 of the public key")
	case (k.GetPerson() == "") == (k.GetSystem() == 0):
		return refuse(ReasonField, "a key belongs to one person or one system")
	case k.GetSystem() != 0 && k.GetSystemName() == "":
		return refuse(ReasonField, "a system's key names the system, such as the host it runs on")
	}
	return passkeyForm(k)
}

func policyFields(f *fields, c *emergencyv1.PublishPolicyRequest) {
	f.want(len(c.GetPolicy()) > 0, "policy", "the policy document")
	f.want(c.GetSecond() != nil, "second", "the second person's approval")
}

func policyClaims(c *emergencyv1.PublishPolicyRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{{Name: "policy", Value: "sha256:" + KeyID(c.GetPolicy())}}
}

// decidePublishPolicy takes the next version, chained to the one before, signed by two persons.
func decidePublishPolicy(d *decision, c *emergencyv1.PublishPolicyRequest) *Refusal {
	p, err := rulebook.ParsePolicy(c.GetPolicy())
	if err != nil {
		return refuse(ReasonPolicyInvalid, "%v", err).allow("PublishPolicy", "", "correct the document")
	}
	if p.BoardDecision == "" {
		return refuse(ReasonBoardDecisionMissing, "the policy names no Board decision").allow("PublishPolicy", "", "name the Board's decision id")
	}
	last := d.env.Book.LatestPolicy()
	if last == nil || p.Number != last.Number+1 || p.PreviousDigest != last.Digest {
		have := uint32(0)
		if last != nil {
			have = last.Number
		}
		return refuse(ReasonPolicyRollback, "version %d does not follow version %d, or not its bytes", p.Number, have).
			allow("PublishPolicy", "", "number the version %d and name the digest of version %d", have+1, have)
	}
	second, refusal := d.secondSigner(c)
	if refusal != nil {
		return refusal
	}
	d.emit(&emergencyv1.PolicyPublished{Policy: c.GetPolicy(), Number: p.Number, SignedBy: []string{d.person, second}})
	return nil
}

// Countersigned is the command that the second person signs: the same policy under the same request id, by whichever road the first
// person then gives it. It cannot cover the whole of a forwarded one, which holds the second signature itself.
func Countersigned(c *emergencyv1.PublishPolicyRequest) *emergencyv1.PublishPolicyRequest {
	plain := proto.CloneOf(c)
	if plain.GetMeta() != nil {
		plain.Meta.Forwarded = false
	}
	return plain
}

// secondSigner is another Board member, or the critical team lead, who signed the same policy.
func (d *decision) secondSigner(c *emergencyv1.PublishPolicyRequest) (string, *Refusal) {
	a := c.GetSecond()
	entry, ok := d.env.Book.Key(a.GetKeyId())
	person := entry.Key.GetPerson()
	if !ok || person == "" || !entry.RevokedAt.IsZero() {
		return "", refuse(ReasonSignature, "the second signature's key %s is no person's valid key", short(a.GetKeyId()))
	}
	if person == d.person {
		return "", refuse(ReasonSamePerson, "%s signed twice", person).under("4.6 PublishPolicy").allow("PublishPolicy", "", "have it signed by %s", d.another(bd, cl))
	}
	if !d.holds(person, bd) && !d.holds(person, cl) {
		return "", refuse(ReasonRole, "%s is neither of the Board nor the critical team lead", person).allow("PublishPolicy", "", "have it signed by %s", d.another(bd, cl))
	}
	st, err := OpenApproval(a, entry.Key)
	if err != nil {
		return "", refuse(ReasonSignature, "second signature: %v", err)
	}
	if !d.holds(person, st.GetRole()) || st.GetRole() != bd && st.GetRole() != cl {
		return "", refuse(ReasonSignature, "the second signature was made as %s", roleWord(st.GetRole()))
	}
	want, err := StatementFor(d.s, Countersigned(c), person, st.GetRole(), st.GetSignedAt().AsTime())
	if err != nil {
		return "", refuse(ReasonSignature, "second signature: %v", err)
	}
	if diff := statementDiff(want, st); diff != "" {
		return "", refuse(ReasonSignature, "the second signature is over something else: %s differs", diff)
	}
	return person, nil
}

func grantFields(f *fields, c *emergencyv1.GrantRoleRequest) {
	f.word("grant.person", c.GetGrant().GetPerson())
	f.want(c.GetGrant().GetRole() != 0 && c.GetGrant().GetRole() != me, "grant.role", "a role that is granted")
	f.want(c.GetGrant().GetEffectiveAt() != nil, "grant.effective_at", "from when it holds")
}

func decideGrantRole(d *decision, c *emergencyv1.GrantRoleRequest) *Refusal {
	g := c.GetGrant()
	if g.GetBoardDecision() == "" {
		return refuse(ReasonBoardDecisionMissing, "a role is granted by a decision of the Board").allow("GrantRole", "", "name the Board's decision id")
	}
	if refusal := d.notBackDated(g.GetEffectiveAt().AsTime()); refusal != nil {
		return refusal
	}
	held := append(d.env.Book.RolesFrom(g.GetPerson(), g.GetEffectiveAt().AsTime()), withTeamRole(g.GetRole())...)
	if refusal := exclusiveGrant(g.GetPerson(), held); refusal != nil {
		return refusal
	}
	if !d.env.Book.Listed(g.GetPerson()) {
		d.emit(&emergencyv1.PersonListed{Person: g.GetPerson()})
	}
	d.emit(&emergencyv1.RoleGranted{Grant: g})
	return nil
}

func (d *decision) notBackDated(at time.Time) *Refusal {
	if at.Before(d.at.Add(-d.tolerance())) {
		return refuse(ReasonField, "effective_at %s lies in the past; the directory is never back-dated", stamp(at)).under("4.6").allow("", "effective_at", "name now or later")
	}
	return nil
}

func revokeRoleFields(f *fields, c *emergencyv1.RevokeRoleRequest) {
	f.word("person", c.GetPerson())
	f.want(c.GetRole() != 0, "role", "the role")
	f.want(c.GetEffectiveAt() != nil, "effective_at", "from when")
}

func decideRevokeRole(d *decision, c *emergencyv1.RevokeRoleRequest) *Refusal {
	if c.GetBoardDecision() == "" {
		return refuse(ReasonBoardDecisionMissing, "a role is revoked by a decision of the Board").allow("RevokeRole", "", "name the Board's decision id")
	}
	if refusal := d.notBackDated(c.GetEffectiveAt().AsTime()); refusal != nil {
		return refusal
	}
	if !d.env.Book.Granted(c.GetPerson(), c.GetRole(), c.GetEffectiveAt().AsTime()) {
		return refuse(ReasonField, "%s has no grant as %s that ends after %s", c.GetPerson(), roleWord(c.GetRole()), stamp(c.GetEffectiveAt().AsTime())).
			under("4.6").allow("RevokeRole", c.GetPerson(), "name a role that the person was granted; a team lead's other role comes with the lead's")
	}
	d.emit(&emergencyv1.RoleRevoked{Person: c.GetPerson(), Role: c.GetRole(), EffectiveAt: c.GetEffectiveAt(), BoardDecision: c.GetBoardDecision()})
	return nil
}

func addKeyFields(f *fields, c *emergencyv1.AddKeyRequest) {
	f.want(digestForm.MatchString(c.GetKey().GetKeyId()), "key.key_id", "64 lower-case hex digits")
	f.want(len(c.GetKey().GetPublicKey()) > 0 && len(c.GetKey().GetPublicKey()) <= 4096, "key.public_key", "a SubjectPublicKeyInfo of at most 4096 bytes")
}

// decideAddKey: a person adds a key of one's own with a key already listed; everything else is for the Board.
func decideAddKey(d *decision, c *emergencyv1.AddKeyRequest) *Refusal {
	k := c.GetKey()
	if refusal := keyForm(k); refusal != nil {
		return refusal
	}
	if refusal := d.ownOrBoard(k.GetPerson()); refusal != nil {
		return refusal
	}
	if old, ok := d.env.Book.Key(k.GetKeyId()); ok {
		return refuse(ReasonKeyExists, "key %s belongs to %s%s", short(k.GetKeyId()), old.Key.GetPerson(), old.Key.GetSystemName())
	}
	if k.GetPerson() != "" && !d.env.Book.Listed(k.GetPerson()) {
		return refuse(ReasonField, "%q is not in the directory", k.GetPerson()).allow("GrantRole", k.GetPerson(), "the Board lists the person by granting a role")
	}
	d.emit(&emergencyv1.KeyAdded{Key: k})
	return nil
}

func (d *decision) ownOrBoard(person string) *Refusal {
	if person != "" && person == d.person || d.holds(d.person, bd) {
		return nil
	}
	return refuse(ReasonRole, "another's key is for the Board").allow(d.row.name, "", "ask %s", d.whoHas(roles(bd)))
}

func revokeKeyFields(f *fields, c *emergencyv1.RevokeKeyRequest) {
	f.want(digestForm.MatchString(c.GetKeyId()), "key_id", "64 lower-case hex digits")
	f.reason(c.GetReason(), 5)
}

func decideRevokeKey(d *decision, c *emergencyv1.RevokeKeyRequest) *Refusal {
	k, ok := d.env.Book.Key(c.GetKeyId())
	if !ok {
		return refuse(ReasonKeyUnknown, "key %s is not in the rule book", short(c.GetKeyId()))
	}
	if refusal := d.ownOrBoard(k.Key.GetPerson()); refusal != nil {
		return refusal
	}
	if !k.RevokedAt.IsZero() {
		return refuse(ReasonKeyRevoked, "key %s was already revoked at %s", short(c.GetKeyId()), stamp(k.RevokedAt)).under("4.6 RevokeKey")
	}
	d.emit(&emergencyv1.KeyRevoked{KeyId: c.GetKeyId(), Reason: c.GetReason()})
	return nil
}

func rotaFields(f *fields, c *emergencyv1.SetRotaRequest) {
	f.want(c.GetTeam() != 0, "team", "a team")
	for _, s := range c.GetShifts() {
		f.word("shifts.person", s.GetPerson())
		f.want(s.GetTeam() == c.GetTeam(), "shifts.team", "the team of the rota")
		f.want(s.GetFrom() != nil && (s.GetUntil() == nil || s.GetFrom().AsTime().Before(s.GetUntil().AsTime())), "shifts.from", "before until")
	}
}

func decideSetRota(d *decision, c *emergencyv1.SetRotaRequest) *Refusal {
	for _, s := range c.GetShifts() {
		if !d.ofTeam(s.GetPerson(), c.GetTeam()) {
			return refuse(ReasonNotTeamMember, "%s is not of the %s team", s.GetPerson(), teamWord(c.GetTeam())).allow("GrantRole", s.GetPerson(), "the Board grants the role first")
		}
	}
	// A whole rota is replaced, so what another lead set meanwhile would be gone without anybody having seen it.
	if r := d.env.Book.Rota(c.GetTeam()); c.PlannedOn != nil && r.Position > c.GetPlannedOn() {
		return refuse(ReasonPositionMismatch, "the rota of the %s team was changed at %s, after it was read for this change", teamWord(c.GetTeam()), stamp(r.ChangedAt)).
			under("4.6 SetRota").allow("SetRota", "", "look at the rota as it is now, and make the change again")
	}
	d.emit(&emergencyv1.RotaChanged{Team: c.GetTeam(), Shifts: c.GetShifts()})
	return nil
}

func contactsFields(f *fields, c *emergencyv1.SetContactsRequest) {
	f.word("person", c.GetPerson())
	for _, x := range c.GetContacts() {
		f.word("contacts.channel", x.GetChannel())
		f.want(x.GetAddress() != "" && len(x.GetAddress()) <= 320, "contacts.address", "an address of at most 320 bytes")
	}
}

// decideSetContacts keeps the addresses out of the history; by the person, or by a team lead.
func decideSetContacts(d *decision, c *emergencyv1.SetContactsRequest) *Refusal {
	lead := d.holds(d.person, cl) || d.holds(d.person, al)
	if c.GetPerson() != d.person && !lead {
		return refuse(ReasonRole, "another's contacts are for the team leads").allow("SetContacts", c.GetPerson(), "ask %s", d.whoHas(roles(cl, al)))
	}
	ev := &emergencyv1.ContactsChanged{Person: c.GetPerson()}
	for _, x := range c.GetContacts() {
		ev.Contacts = append(ev.Contacts, &emergencyv1.SealedContact{Channel: x.GetChannel(), Address: d.seal(x.GetAddress())})
	}
	d.emit(ev)
	return nil
}

// ReachedWithin is for how long a success counts: who was not reached since then is not surely reachable (procedure.md 4.6).
const ReachedWithin = 90 * 24 * time.Hour

func reachFields(f *fields, c *emergencyv1.RecordReachabilityRequest) {
	f.word("person", c.GetPerson())
	f.word("channel", c.GetChannel())
}

func decideReachability(d *decision, c *emergencyv1.RecordReachabilityRequest) *Refusal {
	d.emit(&emergencyv1.ReachabilityRecorded{Person: c.GetPerson(), Channel: c.GetChannel(), Reached: c.GetReached()})
	return nil
}

func sortPositions(list []uint64) { slices.Sort(list) }
