// SPDX-License-Identifier: Apache-2.0

package review_test

import (
	"bytes"
	"testing"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func TestOneByteInTheArtefactStore(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	patch := r.mend()
	r.do("dora", patch)
	bad := bytes.Clone(patch.GetBytes())
	bad[len(bad)-2] ^= 1
	r.memory.Replace(patch.GetSha256(), bad)
	p, err := r.read("anna", "P1r1")
	r.isRefusal("read", p, err, procedure.ReasonDigest, "artefact store", "P1r1", patch.GetSha256())
	// An approval is recorded, and its transfer waits for the bytes.
	r.do("anna", &emergencyv1.RecordFirstReviewRequest{Verdict: approve})
	got, err := r.srv.Transfer(r.as("anna"), r.prepare("anna", &emergencyv1.TransferRequest{}).(*emergencyv1.TransferRequest))
	r.isRefusal("transfer", got, err, procedure.ReasonDigest, "artefact store")
	if r.count("review.PatchTransferred") != 0 || r.bare("for-each-ref", "refs/heads/emergency") != "" {
		t.Errorf("transferred from changed bytes: %q", r.events())
	}
	// Whoever has the patch mends the store.
	r.refused("dora", r.mend(), procedure.ReasonRevisionExists)
	if p, err := r.read("anna", "P1r1"); err != nil || !bytes.Equal(p.GetBytes(), patch.GetBytes()) {
		t.Errorf("after mending: %v", err)
	}
	r.wait("transferred", transferred("P1r1"))
}

func TestRevokedKeyReadsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend())
	if _, err := r.read("theo2", "P1r1"); err != nil {
		t.Fatal(err)
	}
	revoke := &emergencyv1.RevokeKeyRequest{
		Meta:  &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: "revoke-0001"},
		KeyId: proceduretest.KeyOf("theo2").ID, Reason: "lost on a train",
	}
	_, err := r.dispatcher(procedure.OwnerArbitration).Do(t.Context(), revoke, dispatch.Input{Actor: proceduretest.Actor("theo")})
	r.must(err)
	p, err := r.read("theo2", "P1r1")
	r.isRefusal("read with the revoked key", p, err, procedure.ReasonKeyRevoked)
	if _, err := r.read("theo", "P1r1"); err != nil {
		t.Errorf("read with the other key: %v", err)
	}
}

func TestNoIdentityReadsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend())
	p, err := r.srv.ReadPatch(t.Context(), nil)
	r.isRefusal("read without a certificate", p, err, procedure.ReasonNoIdentity)
}
