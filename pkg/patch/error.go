// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"fmt"
	"strings"
)

// Code names why a patch was refused. The values are stable: events and clients carry them.
type Code string

// The refusals.
const (
	// CodeSyntax: the bytes are no diff that has exactly one reading.
	CodeSyntax Code = "PATCH_SYNTAX"
	// CodeEmpty: no file is changed.
	CodeEmpty Code = "PATCH_EMPTY"
	// CodeTooLarge: a limit of Options is exceeded.
	CodeTooLarge Code = "PATCH_TOO_LARGE"
	// CodePath: a path leaves the tree, reaches into a repository's own folder, or cannot be shown safely.
	CodePath Code = "PATH_FORBIDDEN"
	// CodeSymlink: a symbolic link is created, changed or deleted.
	CodeSymlink Code = "SYMLINK_REFUSED"
	// CodeMode: a mode other than 100644 and 100755, or a mode change that was not allowed.
	CodeMode Code = "MODE_REFUSED"
	// CodeSubmodule: a submodule or its configuration is changed.
	CodeSubmodule Code = "SUBMODULE_REFUSED"
	// CodeBinary: content that a reviewer cannot read as text, and binary content was not allowed.
	CodeBinary Code = "BINARY_REFUSED"
	// CodeDuplicate: two parts of the patch touch the same path, so that their order would matter.
	CodeDuplicate Code = "DUPLICATE_PATH"
	// CodeCopy: a copy. Its source is not part of the patch, so the text alone does not show the result.
	CodeCopy Code = "COPY_REFUSED"
)

// Error is the refusal of a patch. It carries nothing of the patch but line number and path.
type Error struct {
	Code Code
	// Line is the line of the patch, from 1; 0 where the refusal is about no single line.
	Line int
	// Path is the path concerned, as the patch has it; "" if none.
	Path string
	// Detail says what was met and, where it helps, what to do next. It is one line of plain text.
	Detail string
}

// Error is one line: code, place, detail. The path is quoted, so that it cannot forge a log line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Code))
	if e.Line > 0 {
		fmt.Fprintf(&b, " at line %d", e.Line)
	}
	if e.Path != "" {
		fmt.Fprintf(&b, ", path %q", e.Path)
	}
	b.WriteString(": ")
	b.WriteString(e.Detail)
	return b.String()
}
