// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"cacert.org/emergency/pkg/procedure"
)

// Refusals of the wire itself, before any rule of the procedure is asked. They share the domain of the rules' reasons.
const (
	// ReasonDeadlineRequired: a unary call came without a deadline.
	ReasonDeadlineRequired procedure.Reason = "DEADLINE_REQUIRED"
	// ReasonCallerClass: this kind of caller may not call this method.
	ReasonCallerClass procedure.Reason = "CALLER_CLASS"
	// ReasonRate: the caller calls too often.
	ReasonRate procedure.Reason = "RATE"
)

// wire is the one table of refusal kinds and status codes.
var wire = []struct {
	kind procedure.Code
	code codes.Code
}{
	{procedure.Unauthenticated, codes.Unauthenticated},
	{procedure.PermissionDenied, codes.PermissionDenied},
	{procedure.InvalidArgument, codes.InvalidArgument},
	{procedure.NotFound, codes.NotFound},
	{procedure.AlreadyExists, codes.AlreadyExists},
	{procedure.FailedPrecondition, codes.FailedPrecondition},
	{procedure.Aborted, codes.Aborted},
	{procedure.ResourceExhausted, codes.ResourceExhausted},
}

func codeOf(kind procedure.Code) (codes.Code, bool) {
	for _, w := range wire {
		if w.kind == kind {
			return w.code, true
		}
	}
	return codes.Internal, false
}

func kindOf(code codes.Code) (procedure.Code, bool) {
	for _, w := range wire {
		if w.code == code {
			return w.kind, true
		}
	}
	return "", false
}

// StatusOf puts a refusal on the wire: google.rpc.ErrorInfo with reason, domain and, in its metadata, rule and code; and
// google.rpc.PreconditionFailure with one violation for each thing that would make the command allowed: type is the
// command, subject what it would be about, description the words. Where the refusal is about a field, that field is named
// once more as google.rpc.BadRequest, for generic clients. A refusal of a kind that does not exist is a defect: INTERNAL.
//
// Bytes that are not UTF-8 become the replacement character, since no status can carry them.
func StatusOf(r *procedure.Refusal) *status.Status {
	code, ok := codeOf(r.Code)
	if !ok {
		return status.New(codes.Internal, "a refusal of unknown kind")
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason: clean(string(r.Reason)), Domain: procedure.Domain,
		Metadata: map[string]string{"rule": clean(r.Rule), "code": string(r.Code)},
	}}
	details = append(details, preconditions(r)...)
	st, err := status.New(code, clean(r.Message)).WithDetails(details...)
	if err != nil { // not for these messages, but the refusal must arrive even then
		return status.New(code, clean(r.Message))
	}
	return st
}

func preconditions(r *procedure.Refusal) []protoadapt.MessageV1 {
	if len(r.Allow) == 0 {
		return nil
	}
	failure, bad := &errdetails.PreconditionFailure{}, &errdetails.BadRequest{}
	for _, a := range r.Allow {
		failure.Violations = append(failure.Violations, &errdetails.PreconditionFailure_Violation{
			Type: clean(a.Command), Subject: clean(a.Subject), Description: clean(a.Description),
		})
		if r.Reason == procedure.ReasonField && a.Command == "" && a.Subject != "" {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: clean(a.Subject), Description: clean(a.Description), Reason: string(r.Reason),
			})
		}
	}
	if len(bad.GetFieldViolations()) == 0 {
		return []protoadapt.MessageV1{failure}
	}
	return []protoadapt.MessageV1{failure, bad}
}

func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// RefusalOf returns the refusal that an error is or carries: a *procedure.Refusal, or a status that StatusOf made,
// wrapped or not. It is StatusOf's exact inverse. ok is false for every other error.
func RefusalOf(err error) (r *procedure.Refusal, ok bool) {
	if err == nil {
		return nil, false
	}
	if errors.As(err, &r) {
		return r, r != nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return nil, false
	}
	return refusalOfStatus(st, plainMessage(err, st))
}

// plainMessage is the message as sent: status.FromError puts the texts of wrapping errors before it.
func plainMessage(err error, st *status.Status) string {
	var carrier interface{ GRPCStatus() *status.Status }
	if errors.As(err, &carrier) {
		return carrier.GRPCStatus().Message()
	}
	return st.Message()
}

func refusalOfStatus(st *status.Status, message string) (*procedure.Refusal, bool) {
	kind, ok := kindOf(st.Code())
	if !ok {
		return nil, false
	}
	r, found := &procedure.Refusal{Code: kind, Message: message}, false
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == procedure.Domain {
				r.Reason, r.Rule, found = procedure.Reason(d.GetReason()), d.GetMetadata()["rule"], true
			}
		case *errdetails.PreconditionFailure:
			for _, v := range d.GetViolations() {
				r.Allow = append(r.Allow, procedure.Allowance{Command: v.GetType(), Subject: v.GetSubject(), Description: v.GetDescription()})
			}
		}
	}
	return r, found
}
