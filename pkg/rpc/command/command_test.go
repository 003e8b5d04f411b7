// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/rpc/command"
)

// What may be answered otherwise a moment later is sent again; what a rule or a certificate says is an answer.
func TestPassing(t *testing.T) {
	t.Parallel()
	refusal := func(code procedure.Code, reason procedure.Reason) error {
		return rpc.StatusOf(&procedure.Refusal{Code: code, Reason: reason, Rule: "G10", Message: "no"}).Err()
	}
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"nothing":            {nil, false},
		"away":               {status.Error(codes.Unavailable, "no server"), true},
		"too slow":           {status.Error(codes.DeadlineExceeded, "late"), true},
		"a certificate":      {status.Error(codes.Unavailable, "tls: certificate has expired"), false},
		"others were faster": {refusal(procedure.Aborted, procedure.ReasonConcurrentModification), true},
		"too many calls":     {refusal(procedure.ResourceExhausted, rpc.ReasonRate), true},
		"another position":   {refusal(procedure.Aborted, procedure.ReasonPositionMismatch), false},
		"a rule":             {refusal(procedure.FailedPrecondition, procedure.ReasonEntry), false},
		"something else":     {errors.New("broken"), false},
	} {
		if got := command.Passing(c.err); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}
