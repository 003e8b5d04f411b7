// SPDX-License-Identifier: Apache-2.0

package procedure

import "fmt"

// Code is the kind of a refusal; its text is the name of the gRPC status code it travels as.
type Code string

// The kinds of refusal that procedure.md knows.
const (
	Unauthenticated    Code = "UNAUTHENTICATED"
	PermissionDenied   Code = "PERMISSION_DENIED"
	InvalidArgument    Code = "INVALID_ARGUMENT"
	NotFound           Code = "NOT_FOUND"
	AlreadyExists      Code = "ALREADY_EXISTS"
	FailedPrecondition Code = "FAILED_PRECONDITION"
	Aborted            Code = "ABORTED"
	ResourceExhausted  Code = "RESOURCE_EXHAUSTED"
)

// Domain is the error domain of every reason code on the wire.
const Domain = "epatch.cacert.org"

// Refusal is a rule's "no", as data: it reaches gRPC, page and CLI whole.
type Refusal struct {
	// Code is the kind; it decides the status code and whether the refusal is recorded.
	Code Code
	// Reason is the stable reason code.
	Reason Reason
	// Rule is the clause of procedure.md that refused, with its source where it has one.
	Rule string
	// Message says what was refused, for the person who meets it.
	Message string
	// Allow says what would make it allowed, each a thing somebody can do.
	Allow []Allowance
}

// Allowance is one thing that would make a refused command allowed.
type Allowance struct {
	// Command that would help; empty when it is not a command.
	Command string
	// Subject the command would be about, such as a revision or slot.
	Subject string
	// Description says in words what to do and who can.
	Description string
}

// Error makes a Refusal an error, so that it can pass through layers that only carry it.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s/%s (%s): %s", r.Code, r.Reason, r.Rule, r.Message)
}

// Recorded tells whether the refusal becomes a CommandRefused event (procedure.md 4.0).
func (r *Refusal) Recorded() bool {
	return r.Code == PermissionDenied || r.Code == FailedPrecondition
}

// refuse builds a refusal of a known reason; the reason's table row gives code and rule.
func refuse(reason Reason, format string, args ...any) *Refusal {
	row := reasons[reason]
	return &Refusal{Code: row.code, Reason: reason, Rule: row.rule, Message: fmt.Sprintf(format, args...)}
}

// allow adds one thing that would make the command allowed.
func (r *Refusal) allow(command, subject, format string, args ...any) *Refusal {
	r.Allow = append(r.Allow, Allowance{command, subject, fmt.Sprintf(format, args...)})
	return r
}

// under replaces the rule by a more exact one.
func (r *Refusal) under(rule string) *Refusal {
	r.Rule = rule
	return r
}

// Passing tells whether nothing was decided: others wrote to the incident each time, and the command may be given again (G10).
func (r *Refusal) Passing() bool { return r.Reason == ReasonConcurrentModification }
