// SPDX-License-Identifier: Apache-2.0

package gitrepo

import "fmt"

// Code names why the repository refused or could not serve. The values are stable.
type Code string

// The refusals.
const (
	// CodeUnavailable: the repository did not answer, or not in time. Try again later.
	CodeUnavailable Code = "REPOSITORY_UNAVAILABLE"
	// CodeBaseUnknown: the commit, branch or tree is not in the repository as last fetched.
	CodeBaseUnknown Code = "BASE_UNKNOWN"
	// CodeBaseMismatch: the patch does not apply exactly to the base; make it anew against that commit.
	CodeBaseMismatch Code = "BASE_MISMATCH"
	// CodeResultMismatch: a tree that was computed twice came out differently, or a commit has another tree than asked.
	CodeResultMismatch Code = "RESULT_MISMATCH"
	// CodeBundle: the bytes are no bundle of exactly one branch that grows from the base.
	CodeBundle Code = "BUNDLE_REFUSED"
	// CodeNotFastForward: the branch has moved or would lose commits; fetch, and decide on the new head.
	CodeNotFastForward Code = "NOT_FAST_FORWARD"
	// CodeRef: the ref's name or the repository's own policy does not allow the change.
	CodeRef Code = "REF_REFUSED"
	// CodeArgument: a value of the caller is malformed; the detail names it.
	CodeArgument Code = "ARGUMENT"
)

// Error is a refusal. Its text is safe to show; Err, for the technical log, has git's own words.
type Error struct {
	Code   Code
	Op     string // what was being done, such as "push"
	Detail string // what was met and what to do next
	Paths  []string
	Err    error
}

// Error is one line.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %s: %s", e.Op, e.Code, e.Detail)
	if len(e.Paths) > 0 {
		text += fmt.Sprintf(" (%q", e.Paths[0])
		if n := len(e.Paths) - 1; n > 0 {
			text += fmt.Sprintf(" and %d more", n)
		}
		text += ")"
	}
	return text
}

// Unwrap gives the cause for errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }
