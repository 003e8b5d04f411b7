// SPDX-License-Identifier: Apache-2.0

package gitcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"cacert.org/emergency/pkg/gitrepo/gittree"
)

// RejectedHunk is a place where a patch does not fit.
type RejectedHunk struct {
	Path   string
	Line   int    // of the file before the patch, where the first hunk that does not fit should stand; 0 if git names none
	Detail string // git's words
}

// Offset is a hunk that fits, but not where its header says.
type Offset struct {
	Path  string
	Hunk  int // number of the hunk within its file, from 1
	Line  int // where it was applied
	Lines int // distance from the place that the header names
}

// Rejection: the patch does not apply to the index. Returned by ApplyCached.
type Rejection struct{ Hunks []RejectedHunk }

func (r *Rejection) Error() string {
	if len(r.Hunks) == 0 {
		return "the patch does not apply"
	}
	return fmt.Sprintf("the patch does not apply: %q line %d", r.Hunks[0].Path, r.Hunks[0].Line)
}

// ApplyCached applies a patch to an index and to no other file: byte-exact, without fuzz, whitespace
// tolerance, three-way merge, attributes or filters. Repository and host agent both apply through it, so
// that the same bytes give the same tree. Hunks that fit at another line are applied and returned as
// offsets; the caller judges them. Errors: *Rejection, and those of Run.
//
// git stops at the first hunk of a file that does not fit, so a Rejection has one hunk per file.
func (g *Git) ApplyCached(ctx context.Context, gitDir, index string, patch []byte) ([]Offset, error) {
	messages := &head{left: 1 << 20}
	_, err := g.run(ctx, Call{
		Args:   []string{"apply", "--cached", "-p1", "--whitespace=nowarn", "--verbose", "-"},
		GitDir: gitDir, Index: index, Stdin: bytes.NewReader(patch),
	}, messages)
	var failure *Failure
	if errors.As(err, &failure) {
		if r := rejection(failure.Stderr); r != nil {
			return nil, r
		}
	}
	if err != nil {
		return nil, err
	}
	return offsets(messages.String()), nil
}

// Patterns of git's messages under LC_ALL=C; the tests hold them against the git in use.
var (
	checkingLine = regexp.MustCompile(`^Checking patch (.*)\.\.\.$`)
	offsetLine   = regexp.MustCompile(`^Hunk #(\d+) succeeded at (\d+) \(offset (-?\d+) lines?\)\.$`)
	rejectedLine = regexp.MustCompile(`^error: patch failed: (.*):(\d+)$`)
	refusedLine  = regexp.MustCompile(`^error: (.*): (patch does not apply|already exists in index|does not exist in index|does not match index|wrong type)$`)
	linkLine     = regexp.MustCompile(`^error: affected file '(.*)' is beyond a symbolic link$`)
)

func offsets(messages string) []Offset {
	var found []Offset
	var path string
	for line := range strings.SplitSeq(messages, "\n") {
		if m := checkingLine.FindStringSubmatch(line); m != nil {
			path = m[1]
		} else if m := offsetLine.FindStringSubmatch(line); m != nil {
			found = append(found, Offset{Path: path, Hunk: atoi(m[1]), Line: atoi(m[2]), Lines: atoi(m[3])})
		}
	}
	return found
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// rejection reads git's messages; nil if they speak of something else than hunks and files that do not fit.
func rejection(messages string) *Rejection {
	var r Rejection
	seen := map[string]bool{}
	for line := range strings.SplitSeq(messages, "\n") {
		if m := rejectedLine.FindStringSubmatch(line); m != nil {
			seen[m[1]] = true
			r.Hunks = append(r.Hunks, RejectedHunk{Path: m[1], Line: atoi(m[2]), Detail: "patch does not apply"})
		} else if m := refusedLine.FindStringSubmatch(line); m != nil && !seen[m[1]] {
			r.Hunks = append(r.Hunks, RejectedHunk{Path: m[1], Detail: m[2]})
		} else if m := linkLine.FindStringSubmatch(line); m != nil {
			r.Hunks = append(r.Hunks, RejectedHunk{Path: m[1], Detail: "beyond a symbolic link"})
		}
	}
	if len(r.Hunks) == 0 {
		return nil
	}
	return &r
}

// FillIndex writes an index that holds exactly these entries. The objects need not exist.
func (g *Git) FillIndex(ctx context.Context, gitDir, index string, entries []gittree.Entry) error {
	var in bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&in, "%s %s\t%s\x00", e.Mode, e.ID, e.Path)
	}
	_, err := g.Run(ctx, Call{Args: []string{"update-index", "-z", "--index-info"}, GitDir: gitDir, Index: index, Stdin: &in})
	return err
}

// ReadIndex lists an index.
func (g *Git) ReadIndex(ctx context.Context, gitDir, index string) ([]gittree.Entry, error) {
	out, err := g.Run(ctx, Call{Args: []string{"ls-files", "--stage", "-z"}, GitDir: gitDir, Index: index})
	if err != nil {
		return nil, err
	}
	return ParseEntries(out)
}

// ParseEntries reads lines "mode id stage<TAB>path" or "mode type id<TAB>path", each ended by NUL.
func ParseEntries(out []byte) ([]gittree.Entry, error) {
	var entries []gittree.Entry
	for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if line == "" {
			continue
		}
		meta, path, ok := strings.Cut(line, "\t")
		fields := strings.Fields(meta)
		if !ok || len(fields) != 3 {
			return nil, fmt.Errorf("unexpected line in git's list of files: %q", line)
		}
		id := fields[1]
		switch id {
		case "blob", "commit":
			id = fields[2]
		}
		entries = append(entries, gittree.Entry{Path: path, Mode: fields[0], ID: id})
	}
	return entries, nil
}
