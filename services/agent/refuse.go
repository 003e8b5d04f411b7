// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"

	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/worktree"
)

// Codes by which the agent refuses a job; those of package worktree, of package patch and the reasons of package procedure
// come besides. The values are stable.
const (
	// codeUnavailable: nothing was done, and nothing speaks against the job; it may be sent again.
	codeUnavailable = "UNAVAILABLE"
	// codeJob: the job makes no sense, or is for another agent.
	codeJob = "JOB"
	// codeJobDiffers: the job names other bytes, trees or events than the verified history.
	codeJobDiffers = "JOB_DIFFERS"
	// codeHistory: a record of the history is not what its actor can have decided.
	codeHistory = "HISTORY_INVALID"
	// codeHistoryShort: the history does not reach the event that the job names.
	codeHistoryShort = "HISTORY_SHORT"
	// codeRolledBack: the history ends before the place to which it was verified earlier.
	codeRolledBack = "HISTORY_ROLLED_BACK"
	// codeOtherHistory: the history is another one than was verified earlier.
	codeOtherHistory = "HISTORY_OTHER"
	// codePatchDiffers: the bytes handed out are not those that were reviewed.
	codePatchDiffers = "PATCH_DIFFERS"
	// codePatchLost: the review service has no such bytes any more, or others than were registered.
	codePatchLost = "PATCH_LOST"
	// codeNoConsole: no watched sessions come to this host, by its settings.
	codeNoConsole = "NO_CONSOLE"
	// codeNoSession: no access was opened on this host for the grant.
	codeNoSession = "NO_SESSION"
	// codeSession: the host could not do what a session needs, or would not; the words say what.
	codeSession = "SESSION"
	// codeHost: something on this host does not work: a full disk, a missing program.
	codeHost = "HOST_ERROR"
)

// refusal is why a job is not done. Its text is for the people who read the report.
type refusal struct{ code, detail string }

func (r *refusal) Error() string { return r.code + ": " + r.detail }

func refuse(code, format string, args ...any) *refusal {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// ungated is a rule's refusal in the agent's words.
func ungated(r *procedure.Refusal) *refusal {
	return refuse(string(r.Reason), "the gate is not green: %s (%s)", r.Message, r.Rule)
}

// errAway is what keeps a job from being done now, and says nothing against it.
type errAway struct{ error }

func (e errAway) Unwrap() error { return e.error }

func away(format string, args ...any) error { return errAway{fmt.Errorf(format, args...)} }

// describe gives code and words of what went wrong.
func describe(err error) (code, detail string) {
	var (
		refused *refusal
		tree    *worktree.Error
		bytes   *patch.Error
		away    errAway
	)
	switch {
	case errors.As(err, &away):
		return codeUnavailable, err.Error()
	case errors.As(err, &refused):
		return refused.code, err.Error()
	case errors.As(err, &tree):
		if tree.Code == worktree.CodeBusy || tree.Code == worktree.CodeUnstable {
			return codeUnavailable, err.Error()
		}
		return string(tree.Code), err.Error()
	case errors.As(err, &bytes):
		return string(bytes.Code), err.Error()
	}
	return codeHost, err.Error()
}

// later tells that nothing speaks against the job but that it cannot be done now.
func later(err error) bool {
	code, _ := describe(err)
	return code == codeUnavailable
}
