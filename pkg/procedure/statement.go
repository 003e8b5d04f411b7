// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// BindingDigest is the one digest that reviews, tests, deployment and replication name (procedure.md 0.14).
func BindingDigest(incident, revision, patchSHA256, baseTree, resultTree, policyDigest string) string {
	patch, _, _ := cutRevision(revision)
	lines := []string{"epatch-binding-v1", incident, patch, revision, patchSHA256, baseTree, resultTree, policyDigest}
	h := sha256.New()
	for _, l := range lines {
		fmt.Fprintf(h, "%s\n", l)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// NextRevision is the id that the next registered revision gets: of a new patch, or of the one that it supersedes.
func NextRevision(s *State, supersedes string) string {
	patches, latest := 0, map[int]int{}
	for _, r := range s.Revisions {
		_, p, n := cutRevision(r.ID)
		patches, latest[p] = max(patches, p), max(latest[p], n)
	}
	if supersedes == "" {
		return fmt.Sprintf("P%dr1", patches+1)
	}
	_, p, _ := cutRevision(supersedes)
	return fmt.Sprintf("P%dr%d", p, latest[p]+1)
}

func cutRevision(id string) (patch string, p, r int) {
	if n, err := fmt.Sscanf(id, "P%dr%d", &p, &r); n != 2 || err != nil {
		return id, 0, 0
	}
	return fmt.Sprintf("P%d", p), p, r
}

// NeedsSignature tells whether a person has to sign a command.
func NeedsSignature(c Command) bool {
	row, ok := commandOf(c)
	return ok && needsSignature(row, c.GetMeta())
}

func needsSignature(row *commandRow, m *emergencyv1.CommandMeta) bool {
	return row.signed || captured(m) || m.GetForwarded()
}

// StatementFor is what a person has to sign for a command on an incident as it stands. The CLI and the pages build it,
// the services and the agents on the hosts build it again and compare. Of a forwarded command it is over the whole command, so that
// whoever hands it on can change nothing of it: sign it last, when nothing of the command changes any more.
func StatementFor(s *State, c Command, person string, role emergencyv1.Role, signedAt time.Time) (*emergencyv1.Statement, error) {
	row, ok := commandOf(c)
	switch {
	case !ok || !needsSignature(row, c.GetMeta()):
		return nil, fmt.Errorf("%s needs no signature", CommandName(c))
	case captured(c.GetMeta()) && c.GetMeta().GetForwarded():
		return nil, fmt.Errorf("%s was captured offline; its person hands it in, nobody else", row.name)
	}
	st := &emergencyv1.Statement{
		Incident: c.GetMeta().GetIncident(), Command: row.name, Person: person, Role: role,
		RequestId: c.GetMeta().GetRequestId(), SignedAt: timestamppb.New(signedAt),
	}
	if captured(c.GetMeta()) {
		return st, capturedStatement(row, c, st)
	}
	if s.Policy != nil {
		st.PolicyDigest = s.Policy.Digest
	}
	if row.claims != nil {
		st.Claims = row.claims(c)
	}
	if row.signed { // what needs no signature otherwise is told by the digest of the command alone
		s.bindStatement(st, c)
	}
	if c.GetMeta().GetForwarded() {
		whole, err := forwardedClaims(c)
		if err != nil {
			return nil, err
		}
		st.Claims = append(st.Claims, whole...)
	}
	return st, nil
}

// bindStatement fills in the bytes that a statement is about.
func (s *State) bindStatement(st *emergencyv1.Statement, c Command) {
	switch m := c.(type) {
	case *emergencyv1.RegisterPatchRequest:
		rev := NextRevision(s, m.GetSupersedes())
		st.PatchSha256, st.BaseTree, st.ResultTree = m.GetSha256(), m.GetBaseTree(), m.GetResultTree()
		st.Binding = &emergencyv1.Binding{Revision: rev, Digest: BindingDigest(st.Incident, rev, st.PatchSha256, st.BaseTree, st.ResultTree, st.PolicyDigest)}
	case *emergencyv1.WithdrawVetoRequest:
		s.bindVeto(st, m.GetVeto())
	case *emergencyv1.OverruleVetoRequest:
		s.bindVeto(st, m.GetVeto())
	case interface{ GetBinding() *emergencyv1.Binding }:
		s.bindRevision(st, m.GetBinding())
	}
}

func (s *State) bindVeto(st *emergencyv1.Statement, id string) {
	for _, v := range s.Vetoes {
		if v.ID != id {
			continue
		}
		if r, ok := s.Revision(v.Revision); ok {
			s.bindRevision(st, &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding})
		}
	}
}

func (s *State) bindRevision(st *emergencyv1.Statement, b *emergencyv1.Binding) {
	st.Binding = &emergencyv1.Binding{Revision: b.GetRevision(), Digest: b.GetDigest()}
	if r, ok := s.Revision(b.GetRevision()); ok {
		st.PatchSha256, st.BaseTree, st.ResultTree = r.Artefact.GetSha256(), r.BaseTree, r.ResultTree
	}
}

// claim is one further thing a statement says; long texts are named by digest.
func claim(name, value string) *emergencyv1.Claim {
	if len(value) > 100 {
		sum := sha256.Sum256([]byte(value))
		value = "sha256:" + hex.EncodeToString(sum[:])
	}
	return &emergencyv1.Claim{Name: name, Value: value}
}

// statementRole is the role the person signed in, unspecified without a readable statement.
func (d *decision) statementRole() emergencyv1.Role {
	var st emergencyv1.Statement
	if a := d.meta.GetApproval(); a == nil || proto.Unmarshal(a.GetPayload(), &st) != nil {
		return emergencyv1.Role_ROLE_UNSPECIFIED
	}
	return st.GetRole()
}

// noApproval refuses a signature that nobody asks for: no statement is defined to hold it against, and kept unverified it would look
// like one that counts (G2).
func (d *decision) noApproval() *Refusal {
	if d.meta.GetApproval() == nil {
		return nil
	}
	return refuse(ReasonSignature, "%s needs no signature when its person gives it directly, and this one would be kept unverified", d.row.name).
		allow(d.row.name, "", "give it again without the approval; the connection tells who gives it")
}

// checkApproval verifies that the person signed exactly this (G2).
func (d *decision) checkApproval(c Command) *Refusal {
	a := d.meta.GetApproval()
	bad := func(format string, args ...any) *Refusal {
		return refuse(ReasonSignature, format, args...).allow("", "", "sign the command with your own key, on your own machine, over what it says now")
	}
	if a == nil {
		return bad("%s needs the signature of the person who gives it", d.row.name)
	}
	entry, ok := d.env.Book.Key(a.GetKeyId())
	if !ok || entry.Key.GetPerson() != d.person {
		return bad("the signing key %s is none of %s's keys", short(a.GetKeyId()), d.person)
	}
	if !entry.RevokedAt.IsZero() && !d.env.present().Before(entry.RevokedAt) {
		return refuse(ReasonKeyRevoked, "the signing key %s was revoked at %s", short(a.GetKeyId()), stamp(entry.RevokedAt))
	}
	st, err := OpenApproval(a, entry.Key)
	if err != nil {
		return bad("%v", err)
	}
	if len(d.row.roles) > 0 && !slices.Contains(d.row.roles, st.GetRole()) { // whom it is for otherwise is for G5
		return bad("it was signed as %s; %s is for %s", roleWord(st.GetRole()), d.row.name, roleList(d.row.roles))
	}
	want, err := StatementFor(d.s, c, d.person, st.GetRole(), st.GetSignedAt().AsTime())
	if err != nil {
		return bad("%v", err)
	}
	if diff := statementDiff(want, st); diff != "" {
		return bad("the signed statement differs from the command in %s", diff)
	}
	return nil
}

// OpenApproval verifies an approval's signature by a key of the rule book and returns what was signed. A passkey signs in its own
// form, every other key in none but the plain one.
func OpenApproval(a *emergencyv1.Approval, key *emergencyv1.Key) (*emergencyv1.Statement, error) {
	if a.GetPayloadType() != StatementPayloadType {
		return nil, fmt.Errorf("the approval is over %q, not over a statement", a.GetPayloadType())
	}
	if err := verifyApproval(a, key); err != nil {
		return nil, err
	}
	var st emergencyv1.Statement
	if err := proto.Unmarshal(a.GetPayload(), &st); err != nil {
		return nil, fmt.Errorf("the signed statement does not decode: %w", err)
	}
	if len(st.ProtoReflect().GetUnknown()) > 0 || st.GetSignedAt() == nil {
		return nil, errors.New("the signed statement is not of a form that this version knows")
	}
	return &st, nil
}

func verifyApproval(a *emergencyv1.Approval, key *emergencyv1.Key) error {
	switch byPasskey := a.GetPasskey() != nil; {
	case byPasskey && key.GetPasskey() == nil:
		return fmt.Errorf("key %s is no passkey and cannot have signed as one", short(key.GetKeyId()))
	case byPasskey:
		return verifyPasskey(key, a)
	case key.GetPasskey() != nil:
		return fmt.Errorf("key %s is a passkey and cannot have signed without a browser", short(key.GetKeyId()))
	}
	return VerifySignature(key.GetPublicKey(), a.GetPayloadType(), a.GetPayload(), a.GetSignature())
}

// statementDiff names the first field in which two statements differ.
func statementDiff(want, got *emergencyv1.Statement) string {
	pairs := []struct{ name, want, got string }{
		{"incident", want.GetIncident(), got.GetIncident()},
		{"command", want.GetCommand(), got.GetCommand()},
		{"person", want.GetPerson(), got.GetPerson()},
		{"request id", want.GetRequestId(), got.GetRequestId()},
		{"revision", want.GetBinding().GetRevision(), got.GetBinding().GetRevision()},
		{"binding", want.GetBinding().GetDigest(), got.GetBinding().GetDigest()},
		{"patch", want.GetPatchSha256(), got.GetPatchSha256()},
		{"base tree", want.GetBaseTree(), got.GetBaseTree()},
		{"result tree", want.GetResultTree(), got.GetResultTree()},
		{"policy", want.GetPolicyDigest(), got.GetPolicyDigest()},
	}
	for _, p := range pairs {
		if p.want != p.got {
			return p.name
		}
	}
	if len(want.GetClaims()) != len(got.GetClaims()) {
		return "claims"
	}
	for i, w := range want.GetClaims() {
		if g := got.GetClaims()[i]; w.GetName() != g.GetName() || w.GetValue() != g.GetValue() {
			return w.GetName()
		}
	}
	return ""
}

// steppedUp asks for a signature made within the last minutes (G8): by some commands, and of most that are forwarded.
func (d *decision) steppedUp(c Command) *Refusal {
	if d.hypothetical || captured(d.meta) || !d.row.stepUp && !(d.meta.GetForwarded() && mustBeFresh(d.row)) { // what was captured is held to when it was done (G9)
		return nil
	}
	valid, ahead, known := freshFor(d.s, d.env.Book, d.env.Now)
	if !known {
		return nil
	}
	var st emergencyv1.Statement
	if err := proto.Unmarshal(d.meta.GetApproval().GetPayload(), &st); err != nil {
		return refuse(ReasonStepUpRequired, "%s needs a fresh signature", d.row.name)
	}
	age := d.env.Now.Sub(st.GetSignedAt().AsTime())
	if age > valid || age < -ahead {
		return refuse(ReasonStepUpRequired, "%s was signed at %s; it needs a signature not older than %s", d.row.name, stamp(st.GetSignedAt().AsTime()), valid).
			allow(CommandName(c), "", "sign again and send it at once; check your clock if you just did")
	}
	return nil
}

// VerifySignature verifies a DSSE signature by a public key in SubjectPublicKeyInfo form: Ed25519; ECDSA on P-256
// or P-384 (ASN.1) over SHA-256; RSA of at least 2048 bits, PKCS #1 v1.5 over SHA-256.
func VerifySignature(publicKey []byte, payloadType string, payload, signature []byte) error {
	key, err := x509.ParsePKIXPublicKey(publicKey)
	if err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	return verifyMessage(key, PAE(payloadType, payload), signature)
}

// leastRSABits is the shortest RSA key whose signatures count.
const leastRSABits = 2048

func verifyMessage(key any, message, signature []byte) error {
	digest := sha256.Sum256(message)
	ok := false
	switch k := key.(type) {
	case ed25519.PublicKey:
		ok = ed25519.Verify(k, message, signature)
	case *ecdsa.PublicKey:
		ok = (k.Curve == elliptic.P256() || k.Curve == elliptic.P384()) && ecdsa.VerifyASN1(k, digest[:], signature)
	case *rsa.PublicKey:
		ok = k.N.BitLen() >= leastRSABits && rsa.VerifyPKCS1v15(k, crypto.SHA256, digest[:], signature) == nil
	default:
		return fmt.Errorf("keys of kind %T are not accepted", key)
	}
	if !ok {
		return errors.New("the signature does not verify")
	}
	return nil
}

// KeyID is the id of a public key in SubjectPublicKeyInfo form: its SHA-256, lower-case hex.
func KeyID(publicKey []byte) string {
	sum := sha256.Sum256(publicKey)
	return hex.EncodeToString(sum[:])
}
