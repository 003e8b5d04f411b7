// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"strings"
	"time"
)

// gitFile reads one file's part that begins with "diff --git".
func (p *parser) gitFile() error {
	header := strings.TrimPrefix(p.take(), "diff --git ")
	f := File{Op: Modify, Line: p.line}
	names, err := p.extendedHeaders(&f)
	if err != nil {
		return err
	}
	if err := p.headerNames(&f, header, names); err != nil {
		return err
	}
	if err := p.content(&f); err != nil {
		return err
	}
	return p.add(f)
}

// extended collects what the lines between "diff --git" and the content say.
type extended struct{ renameFrom, renameTo string }

func (p *parser) extendedHeaders(f *File) (extended, error) {
	var x extended
	seen := map[string]bool{}
	for {
		line, ok := p.peek()
		if !ok {
			return x, nil
		}
		key, value, known := cutHeader(line)
		if !known {
			return x, nil
		}
		p.take()
		if seen[key] {
			return x, p.syntax("header %q stands twice", strings.TrimSpace(key))
		}
		seen[key] = true
		if err := p.extendedHeader(f, &x, key, value); err != nil {
			return x, err
		}
	}
}

func cutHeader(line string) (key, value string, ok bool) {
	for _, key := range []string{
		"old mode ", "new mode ", "deleted file mode ", "new file mode ", "copy from ", "copy to ",
		"rename from ", "rename to ", "similarity index ", "dissimilarity index ", "index ",
	} {
		if value, ok := strings.CutPrefix(line, key); ok {
			return key, value, true
		}
	}
	return "", "", false
}

func (p *parser) extendedHeader(f *File, x *extended, key, value string) (err error) {
	switch key {
	case "old mode ":
		f.OldMode = value
	case "new mode ":
		f.NewMode = value
	case "new file mode ":
		f.NewMode = value
		err = p.setOp(f, Create)
	case "deleted file mode ":
		f.OldMode = value
		err = p.setOp(f, Delete)
	case "rename from ":
		x.renameFrom, err = p.wholeName(value)
	case "rename to ":
		x.renameTo, err = p.wholeName(value)
	case "copy from ", "copy to ":
		err = &Error{Code: CodeCopy, Line: p.line, Detail: "a copy's source is not in the patch; make the diff without copy detection"}
	case "index ":
		err = p.indexLine(f, value)
	}
	return err
}

func (p *parser) setOp(f *File, op Op) error {
	if f.Op != Modify {
		return p.syntax("the file is said to be created, deleted or renamed at once")
	}
	f.Op = op
	return nil
}

// indexLine reads "1234..5678 100644". The mode stands there only if it is the same on both sides.
func (p *parser) indexLine(f *File, value string) error {
	ids, mode, hasMode := strings.Cut(value, " ")
	before, after, ok := strings.Cut(ids, "..")
	if !ok || !isHex(before) || !isHex(after) {
		return p.syntax("index line without two object ids")
	}
	f.OldBlob, f.NewBlob = before, after
	if !hasMode {
		return nil
	}
	if f.Op != Modify || f.OldMode != "" || f.NewMode != "" {
		return p.syntax("index line names a mode beside a mode header")
	}
	f.OldMode, f.NewMode = mode, mode
	return nil
}

func isHex(s string) bool {
	return len(s) >= 4 && len(s) <= 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// headerNames settles the two paths from the "diff --git" line and the rename headers, which must agree.
func (p *parser) headerNames(f *File, header string, x extended) error {
	if (x.renameFrom == "") != (x.renameTo == "") {
		return p.syntax("a rename needs both names")
	}
	if f.Op == Modify && (f.OldMode == "") != (f.NewMode == "") {
		return p.syntax("a mode change needs both modes")
	}
	if x.renameFrom != "" {
		if err := p.setOp(f, Rename); err != nil {
			return err
		}
		f.OldPath, f.NewPath = x.renameFrom, x.renameTo
		if !sameHeader(header, f.OldPath, f.NewPath) {
			return p.syntax("rename headers and diff --git line name different files")
		}
		return nil
	}
	name, ok := headerName(header)
	if !ok {
		return &Error{Code: CodeSyntax, Line: f.Line, Detail: "diff --git line does not name one file as a/NAME b/NAME; use git diff with the default prefixes"}
	}
	if f.Op != Create {
		f.OldPath = name
	}
	if f.Op != Delete {
		f.NewPath = name
	}
	return nil
}

// headerName finds NAME in "a/NAME b/NAME", quoted or not. A name may hold spaces: the two halves have
// equal length, so there is one way to split.
func headerName(header string) (string, bool) {
	if strings.HasPrefix(header, `"`) {
		first, rest, ok := unquote(header)
		if !ok || !strings.HasPrefix(rest, " ") {
			return "", false
		}
		second, rest, ok := unquote(rest[1:])
		name, hasA := strings.CutPrefix(first, "a/")
		other, hasB := strings.CutPrefix(second, "b/")
		return name, ok && rest == "" && hasA && hasB && name == other
	}
	if len(header)%2 == 0 {
		return "", false
	}
	half := len(header) / 2
	name, hasA := strings.CutPrefix(header[:half], "a/")
	return name, hasA && header[half:] == " b/"+name
}

// sameHeader says whether a "diff --git" line names these two paths.
func sameHeader(header, before, after string) bool {
	first := "a/" + before
	var rest string
	if strings.HasPrefix(header, `"`) {
		name, tail, ok := unquote(header)
		if !ok || name != first {
			return false
		}
		rest = tail
	} else {
		tail, ok := strings.CutPrefix(header, first)
		if !ok {
			return false
		}
		rest = tail
	}
	second, ok := strings.CutPrefix(rest, " ")
	if ok && strings.HasPrefix(second, `"`) {
		name, tail, ok := unquote(second)
		return ok && tail == "" && name == "b/"+after
	}
	return ok && second == "b/"+after
}

// wholeName reads a name that fills its line, quoted or not.
func (p *parser) wholeName(s string) (string, error) {
	if !strings.HasPrefix(s, `"`) {
		if s == "" {
			return "", p.syntax("empty name")
		}
		return s, nil
	}
	name, rest, ok := unquote(s)
	if !ok || rest != "" {
		return "", p.syntax("quoted name is malformed")
	}
	return name, nil
}

// content reads what follows the headers of a git diff: hunks, binary data, or nothing.
func (p *parser) content(f *File) error {
	line, ok := p.peek()
	switch {
	case !ok, line == "", line == "-- ", strings.HasPrefix(line, "diff --git "):
		return nil
	case line == "GIT binary patch":
		p.take()
		return p.binary(f)
	case strings.HasPrefix(line, "Binary files "):
		p.take()
		return &Error{Code: CodeBinary, Line: p.line, Path: f.Path(), Detail: "the patch says that a binary file differs but does not hold it; use git diff --binary"}
	case strings.HasPrefix(line, "--- "):
		return p.gitHunks(f)
	}
	p.take()
	return p.syntax("unexpected line in the header of a file")
}

func (p *parser) gitHunks(f *File) error {
	before, err := p.sideName("--- ", "a/")
	if err != nil {
		return err
	}
	after, err := p.sideName("+++ ", "b/")
	if err != nil {
		return err
	}
	if before.path != f.OldPath || after.path != f.NewPath {
		return p.syntax("--- and +++ lines do not name the file of the diff --git line")
	}
	return p.readHunks(f)
}

// side is a "---" or "+++" line; path is "" for /dev/null.
type side struct {
	path  string
	epoch bool // the time stamp is 1970-01-01 00:00:00 UTC: how diff -N says "no such file"
}

func (p *parser) sideName(mark, prefix string) (side, error) {
	line, _ := p.peek()
	p.take()
	value, ok := strings.CutPrefix(line, mark)
	if !ok {
		return side{}, p.syntax("expected a line with %q", strings.TrimSpace(mark))
	}
	var name, stamp string
	if strings.HasPrefix(value, `"`) {
		unquoted, rest, ok := unquote(value)
		if !ok || rest != "" && rest[0] != '\t' {
			return side{}, p.syntax("quoted name is malformed")
		}
		name, stamp = unquoted, rest
	} else {
		name, stamp, _ = strings.Cut(value, "\t")
	}
	if name == "/dev/null" {
		return side{}, nil
	}
	path, ok := strings.CutPrefix(name, prefix)
	if !ok || path == "" {
		return side{}, p.syntax("name does not begin with %s; use the default prefixes", prefix)
	}
	return side{path: path, epoch: isEpoch(strings.TrimPrefix(stamp, "\t"))}, nil
}

func isEpoch(stamp string) bool {
	at, err := time.Parse("2006-01-02 15:04:05.999999999 -0700", stamp)
	return err == nil && at.Equal(time.Unix(0, 0))
}

// plainFile reads one file's part of a diff without git headers.
func (p *parser) plainFile() error {
	f := File{Op: Modify, Line: p.line + 1}
	before, err := p.sideName("--- ", "a/")
	if err != nil {
		return err
	}
	after, err := p.sideName("+++ ", "b/")
	if err != nil {
		return err
	}
	switch {
	case before.path == "" && after.path == "":
		return p.syntax("both sides are /dev/null")
	case before.path != "" && after.path != "" && before.path != after.path:
		return p.syntax("a diff without git headers cannot rename a file")
	case before.path == "" || before.epoch:
		f.Op, f.NewPath = Create, after.path
		if after.path == "" {
			return p.syntax("both sides are missing")
		}
	case after.path == "" || after.epoch:
		f.Op, f.OldPath = Delete, before.path
	default:
		f.OldPath, f.NewPath = before.path, after.path
	}
	if err := p.readHunks(&f); err != nil {
		return err
	}
	return p.add(f)
}

// readHunks reads all hunks of one file and holds them against what the headers said.
func (p *parser) readHunks(f *File) error {
	var before, after span
	for {
		line, ok := p.peek()
		if !ok || !strings.HasPrefix(line, "@@ -") {
			break
		}
		p.take()
		b, a, ok := parseHunkHeader(line)
		if !ok {
			return p.syntax("malformed hunk header")
		}
		if f.Hunks > 0 && (b.start < before.end() || a.start < after.end()) {
			return p.syntax("hunks overlap or are out of order")
		}
		before, after = b, a
		if p.hunks++; p.hunks > p.opts.MaxHunks {
			return &Error{Code: CodeTooLarge, Line: p.line, Path: f.Path(), Detail: "too many hunks"}
		}
		f.Hunks++
		if err := p.hunk(f, b, a); err != nil {
			return err
		}
	}
	return p.hunksFit(f, before, after)
}

// hunksFit: a created file has nothing before and a deleted one nothing after, and in a diff without git
// headers an empty side must be spelled as /dev/null, because git would decide it by looking at the tree.
func (p *parser) hunksFit(f *File, before, after span) error {
	noOld := f.Hunks == 1 && before.start == 0 && before.count == 0
	noNew := f.Hunks == 1 && after.start == 0 && after.count == 0
	switch {
	case f.Hunks == 0:
		return p.syntax("file header without a hunk")
	case f.Op == Create && !noOld:
		return p.syntax("a created file cannot have former lines")
	case f.Op == Delete && !noNew:
		return p.syntax("a deleted file cannot keep lines")
	case f.Op == Modify && f.OldBlob == "" && (noOld || noNew):
		return p.syntax("unclear whether the file is created, deleted or was empty; use git diff, or diff -N")
	}
	return nil
}

func parseHunkHeader(line string) (before, after span, ok bool) {
	line = strings.TrimPrefix(line, "@@ -")
	b, rest, ok := strings.Cut(line, " +")
	if !ok {
		return
	}
	a, rest, ok := strings.Cut(rest, " @@")
	if !ok || rest != "" && rest[0] != ' ' && rest != "\r" {
		return before, after, false
	}
	before, ok1 := parseSpan(b)
	after, ok2 := parseSpan(a)
	return before, after, ok1 && ok2
}

// hunk reads exactly the lines that the header counts.
func (p *parser) hunk(f *File, before, after span) error {
	oldLeft, newLeft, changed := before.count, after.count, false
	for oldLeft > 0 || newLeft > 0 {
		if bytes.IndexByte(p.rest, '\n') < 0 {
			return p.syntax("the patch ends inside a hunk; is it cut off?")
		}
		line := p.take()
		if strings.IndexByte(line, 0) >= 0 && !p.opts.AllowBinary {
			return &Error{Code: CodeBinary, Line: p.line, Path: f.Path(), Detail: "line with a NUL byte; binary content was not declared"}
		}
		kind := byte(' ') // GNU diff may write an empty context line as an empty line
		if line != "" {
			kind = line[0]
		}
		switch kind {
		case ' ':
			oldLeft--
			newLeft--
		case '-':
			oldLeft--
			f.Removed++
			changed = true
		case '+':
			newLeft--
			f.Added++
			changed = true
		case '\\':
			if err := p.noNewline(line, oldLeft < before.count || newLeft < after.count); err != nil {
				return err
			}
		default:
			return p.syntax("line inside a hunk begins with none of space, + and -")
		}
		if oldLeft < 0 || newLeft < 0 {
			return p.syntax("the hunk's lines do not fit its header")
		}
	}
	if line, ok := p.peek(); ok && strings.HasPrefix(line, "\\") {
		p.take()
		if err := p.noNewline(line, true); err != nil {
			return err
		}
	}
	if !changed {
		return p.syntax("hunk without a change")
	}
	return nil
}

// noNewline accepts the remark that the line before it has no line end.
func (p *parser) noNewline(line string, afterLine bool) error {
	if !afterLine || len(line) < 12 || !strings.HasPrefix(line, "\\ ") {
		return p.syntax("misplaced remark about a missing line end")
	}
	return nil
}
