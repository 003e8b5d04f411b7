// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// A reader that skipped a fact that a newer version added would decide on half the truth.
func TestPayloadWithUnknownFieldIsNotRead(t *testing.T) {
	t.Parallel()
	plain := &emergencyv1.VetoRaised{Veto: "V1", Binding: &emergencyv1.Binding{Revision: "P1r1"}}
	deep := proto.CloneOf(plain)
	deep.GetBinding().ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1))
	for name, c := range map[string]struct {
		payload *emergencyv1.VetoRaised
		read    bool
	}{"as this version knows it": {plain, true}, "with an unknown field deep inside": {deep, false}} {
		e, err := procedure.EncodeEvent(procedure.OwnerReview, c.payload)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := procedure.DecodeEvent(e); (err == nil) != c.read {
			t.Errorf("%s: %v", name, err)
		}
	}
}
