// SPDX-License-Identifier: Apache-2.0

package rpc_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
)

var kinds = map[procedure.Code]codes.Code{
	procedure.Unauthenticated: codes.Unauthenticated, procedure.PermissionDenied: codes.PermissionDenied,
	procedure.InvalidArgument: codes.InvalidArgument, procedure.NotFound: codes.NotFound,
	procedure.AlreadyExists: codes.AlreadyExists, procedure.FailedPrecondition: codes.FailedPrecondition,
	procedure.Aborted: codes.Aborted, procedure.ResourceExhausted: codes.ResourceExhausted,
}

// overWire encodes and decodes a status as gRPC does.
func overWire(t interface{ Fatal(...any) }, st *status.Status) error {
	data, err := proto.Marshal(st.Proto())
	if err != nil {
		t.Fatal(err)
	}
	var p spb.Status
	if err := proto.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	return status.FromProto(&p).Err()
}

func TestRefusalRoundTrip(t *testing.T) {
	t.Parallel()
	reasons := procedure.Reasons()
	allowance := rapid.Custom(func(t *rapid.T) procedure.Allowance {
		return procedure.Allowance{Command: rapid.String().Draw(t, "command"), Subject: rapid.String().Draw(t, "subject"), Description: rapid.String().Draw(t, "description")}
	})
	rapid.Check(t, func(t *rapid.T) {
		reason := rapid.SampledFrom(reasons).Draw(t, "reason")
		code, _ := procedure.CodeOf(reason)
		want := &procedure.Refusal{Code: code, Reason: reason, Rule: rapid.String().Draw(t, "rule"), Message: rapid.String().Draw(t, "message")}
		want.Allow = rapid.SliceOfN(allowance, 0, 4).Draw(t, "allow")
		if len(want.Allow) == 0 {
			want.Allow = nil
		}
		err := overWire(t, rpc.StatusOf(want))
		if status.Code(err) != kinds[code] {
			t.Fatalf("status code %s for %s", status.Code(err), code)
		}
		for _, e := range []error{err, fmt.Errorf("ask review: %w", err), want, fmt.Errorf("decide: %w", want)} {
			got, ok := rpc.RefusalOf(e)
			if !ok || !cmp.Equal(got, want) {
				t.Fatalf("%T came back as %v (%t)\n%s", e, got, ok, cmp.Diff(want, got))
			}
		}
	})
}

func TestEveryKindHasAStatus(t *testing.T) {
	t.Parallel()
	for kind, code := range kinds {
		if got := rpc.StatusOf(&procedure.Refusal{Code: kind, Reason: "X"}).Code(); got != code {
			t.Errorf("%s travels as %s", kind, got)
		}
	}
	for _, r := range procedure.Reasons() {
		code, _ := procedure.CodeOf(r)
		if _, ok := kinds[code]; !ok {
			t.Errorf("reason %s is of kind %s, which has no status", r, code)
		}
	}
	if got := rpc.StatusOf(&procedure.Refusal{Code: "NO_SUCH_KIND", Message: "secret"}); got.Code() != codes.Internal || got.Message() == "secret" {
		t.Errorf("an unknown kind travels as %v", got)
	}
}

func TestRefusalDetails(t *testing.T) {
	t.Parallel()
	st := rpc.StatusOf(&procedure.Refusal{
		Code: procedure.InvalidArgument, Reason: procedure.ReasonField, Rule: "G2", Message: "field system must be named",
		Allow: []procedure.Allowance{{Subject: "system", Description: "give a name"}, {Command: "Declare", Subject: "x", Description: "again"}},
	})
	want := []proto.Message{
		&errdetails.ErrorInfo{Reason: "FIELD", Domain: "epatch.cacert.org", Metadata: map[string]string{"rule": "G2", "code": "INVALID_ARGUMENT"}},
		&errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
			{Subject: "system", Description: "give a name"}, {Type: "Declare", Subject: "x", Description: "again"},
		}},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "system", Description: "give a name", Reason: "FIELD"}}},
	}
	got := st.Details()
	if len(got) != len(want) {
		t.Fatalf("%d details: %v", len(got), got)
	}
	for i, w := range want {
		if g, ok := got[i].(proto.Message); !ok || !proto.Equal(g, w) {
			t.Errorf("detail %d is %v, want %v", i, got[i], w)
		}
	}
}

func TestRefusalWithBadText(t *testing.T) {
	t.Parallel()
	bad := "caf\xe9"
	r := &procedure.Refusal{Code: procedure.NotFound, Reason: procedure.ReasonSlot, Rule: bad, Message: bad, Allow: []procedure.Allowance{{Command: bad, Subject: bad, Description: bad}}}
	got, ok := rpc.RefusalOf(overWire(t, rpc.StatusOf(r)))
	if !ok || got.Reason != procedure.ReasonSlot || got.Message != "caf\uFFFD" || len(got.Allow) != 1 {
		t.Errorf("came back as %v, %t", got, ok)
	}
}

func TestNoRefusal(t *testing.T) {
	t.Parallel()
	foreign, err := status.New(codes.NotFound, "x").WithDetails(&errdetails.ErrorInfo{Reason: "SLOT", Domain: "example.org"})
	if err != nil {
		t.Fatal(err)
	}
	ours, err := status.New(codes.Unavailable, "x").WithDetails(&errdetails.ErrorInfo{Reason: "SLOT", Domain: procedure.Domain})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{nil, errors.New("x"), status.Error(codes.NotFound, "x"), foreign.Err(), ours.Err(), (*procedure.Refusal)(nil)} {
		if r, ok := rpc.RefusalOf(err); ok {
			t.Errorf("%#v is taken as refusal %v", err, r)
		}
	}
}
