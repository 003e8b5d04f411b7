// SPDX-License-Identifier: Apache-2.0

package worktree

import "fmt"

// Code names why an operation on the tree was refused or did not succeed. The values are stable.
type Code string

// The refusals. Unless said otherwise, nothing was changed.
const (
	// CodeBase: the tree on disk is not the base. Find out what differs before anything else.
	CodeBase Code = "HOST_BASE_MISMATCH"
	// CodeResult: the patch makes another tree than the binding says. From Apply this may also mean that
	// another process changed a listed file meanwhile; the former tree was then restored.
	CodeResult Code = "RESULT_MISMATCH"
	// CodeRejected: a hunk does not fit.
	CodeRejected Code = "PATCH_REJECTED"
	// CodeUnlisted: the patch touches a path that does not belong to the tree.
	CodeUnlisted Code = "PATH_UNLISTED"
	// CodeOccupied: on disk there is something else where the patch needs a file or a folder.
	CodeOccupied Code = "PATH_OCCUPIED"
	// CodeUnstable: a file changed while it was read. Repeat.
	CodeUnstable Code = "TREE_UNSTABLE"
	// CodeApply: writing did not succeed (disk full, permission); the former tree was restored.
	CodeApply Code = "APPLY_FAILED"
	// CodeUnproven: the touched files were restored as far as possible, but the tree is not the former one.
	// The paths say where; a person must look.
	CodeUnproven Code = "RESTORE_UNPROVEN"
	// CodeUnknownTree: the tree is neither the former nor the new one of the job, so backing out would
	// destroy somebody's change.
	CodeUnknownTree Code = "TREE_UNKNOWN"
	// CodeRecovery: an earlier job was interrupted; call Recover first.
	CodeRecovery Code = "RECOVERY_NEEDED"
	// CodeJobUnknown: there is no such job.
	CodeJobUnknown Code = "JOB_UNKNOWN"
	// CodeJobReused: the job id was used for another patch or another binding, or the job was undone: it failed, was
	// recovered to the former tree, or was backed out.
	CodeJobReused Code = "JOB_REUSED"
	// CodeBusy: another operation holds the tree. Repeat.
	CodeBusy Code = "BUSY"
	// CodeState: a journal or backup is damaged; nothing is done on its word.
	CodeState Code = "STATE_DAMAGED"
	// CodeConfig: the configuration or an argument is wrong.
	CodeConfig Code = "CONFIGURATION"
)

// Error is a refusal or failure. Its text is safe to show.
type Error struct {
	Code   Code
	Detail string
	// Paths concerned, if known, sorted.
	Paths []string
	// Want and Got are tree ids where two trees were compared.
	Want, Got string
	Err       error
}

// Error is one line.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %s", e.Code, e.Detail)
	if e.Want != "" {
		text += fmt.Sprintf("; expected %s, found %s", e.Want, e.Got)
	}
	if len(e.Paths) > 0 {
		text += fmt.Sprintf(" (%q", e.Paths[0])
		if n := len(e.Paths) - 1; n > 0 {
			text += fmt.Sprintf(" and %d more", n)
		}
		text += ")"
	}
	if e.Err != nil {
		text += fmt.Sprintf(": %v", e.Err)
	}
	return text
}

// Unwrap gives the cause for errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }
