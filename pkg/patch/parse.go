// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"fmt"
	"math"
	"strings"

	"cacert.org/emergency/pkg/gitrepo/gittree"
)

// Options are limits and permissions. The zero value has the default limits and allows nothing special.
type Options struct {
	MaxBytes  int // size of the patch; default 8 MiB
	MaxFiles  int // files in the patch; default 2,000
	MaxHunks  int // hunks in the patch; default 50,000
	MaxPath   int // bytes of a path; default 1,024, at most 4,096
	MaxBinary int // bytes of one binary file after unpacking; default 16 MiB
	// AllowModeChange permits changing an existing file between 100644 and 100755.
	AllowModeChange bool
	// AllowBinary permits git binary patches and lines with NUL bytes.
	AllowBinary bool
}

func (o Options) withDefaults() Options {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.MaxBytes, 8<<20)
	def(&o.MaxFiles, 2000)
	def(&o.MaxHunks, 50_000)
	def(&o.MaxPath, 1024)
	def(&o.MaxBinary, 16<<20)
	o.MaxPath = min(o.MaxPath, maxPathOption)
	return o
}

// Parse decodes and checks a patch. The error is an *Error. Time and memory are linear in the size of
// the patch, and its size is checked before anything else.
func Parse(b []byte, o Options) (*Patch, error) {
	o = o.withDefaults()
	if len(b) > o.MaxBytes {
		return nil, &Error{Code: CodeTooLarge, Detail: fmt.Sprintf("the patch has %d bytes, allowed are %d", len(b), o.MaxBytes)}
	}
	if IsBundle(b) {
		return nil, &Error{Code: CodeSyntax, Line: 1, Detail: "this is a git bundle, not a diff"}
	}
	p := &parser{opts: o, rest: b, paths: map[string]use{}}
	if err := p.run(); err != nil {
		return nil, err
	}
	if len(p.files) == 0 {
		return nil, &Error{Code: CodeEmpty, Detail: "the patch changes no file"}
	}
	if err := p.checkNesting(); err != nil {
		return nil, err
	}
	return &Patch{Files: p.files}, nil
}

// use notes on which sides of the patch a path stands.
type use struct{ old, new bool }

// parser walks over the lines. Between files it accepts prose only where git's own tools put it: before
// the first file and after a mail signature. Elsewhere a stray line means that a hunk's header counts
// fewer lines than a reader sees, and git would silently drop the rest.
type parser struct {
	opts  Options
	rest  []byte
	line  int // number of the line last taken
	files []File
	hunks int
	paths map[string]use
}

// peek returns the next line without its LF; ok is false at the end.
func (p *parser) peek() (line string, ok bool) {
	if len(p.rest) == 0 {
		return "", false
	}
	raw, _, _ := bytes.Cut(p.rest, []byte{'\n'})
	return string(raw), true
}

func (p *parser) take() string {
	raw, rest, _ := bytes.Cut(p.rest, []byte{'\n'})
	p.rest = rest
	p.line++
	return string(raw)
}

func (p *parser) syntax(format string, args ...any) error {
	return &Error{Code: CodeSyntax, Line: p.line, Detail: fmt.Sprintf(format, args...)}
}

func (p *parser) run() error {
	prose := true
	for {
		line, ok := p.peek()
		if !ok {
			return nil
		}
		var err error
		switch {
		case strings.HasPrefix(line, "diff --git "):
			err, prose = p.gitFile(), false
		case strings.HasPrefix(line, "--- ") && p.plainHeaderAhead():
			err, prose = p.plainFile(), false
		case strings.HasPrefix(line, "@@ -"):
			p.take()
			err = p.syntax("hunk without a file header")
		case strings.HasPrefix(line, "diff --cc ") || strings.HasPrefix(line, "diff --combined "):
			p.take()
			err = p.syntax("combined diff of a merge; make a diff against one base commit")
		case prose:
			p.take()
		case line == "-- ":
			p.take()
			prose = true
		default:
			p.take()
			err = p.between(line)
		}
		if err != nil {
			return err
		}
	}
}

// plainHeaderAhead looks at the three lines that make git take a text for a plain diff.
func (p *parser) plainHeaderAhead() bool {
	lines := bytes.SplitN(p.rest, []byte{'\n'}, 4)
	return len(lines) > 2 && bytes.HasPrefix(lines[1], []byte("+++ ")) && bytes.HasPrefix(lines[2], []byte("@@ -"))
}

// between judges a line that stands after a file's last hunk and begins no other file.
func (p *parser) between(line string) error {
	switch {
	case line == "", strings.HasPrefix(line, "diff "), strings.HasPrefix(line, "Index: "), strings.Trim(line, "=") == "":
		return nil
	case strings.HasPrefix(line, "Only in "), strings.HasPrefix(line, "Binary files "):
		return p.syntax("diff left a file out; use git diff --binary, or diff -N")
	case line[0] == '+', line[0] == '-', line[0] == ' ', line[0] == '\\':
		return p.syntax("the hunk before has more lines than its header counts")
	}
	return p.syntax("unexpected line after a hunk")
}

// add checks a finished file and keeps it.
func (p *parser) add(f File) error {
	if len(p.files) >= p.opts.MaxFiles {
		return &Error{Code: CodeTooLarge, Line: f.Line, Detail: fmt.Sprintf("more than %d files", p.opts.MaxFiles)}
	}
	if err := p.checkFile(&f); err != nil {
		return err
	}
	p.files = append(p.files, f)
	return nil
}

func (p *parser) checkFile(f *File) error {
	for _, path := range []string{f.OldPath, f.NewPath} {
		if path == "" {
			continue
		}
		if err := checkPath(path, f.Line, p.opts.MaxPath); err != nil {
			return err
		}
	}
	for _, mode := range []string{f.OldMode, f.NewMode} {
		if mode == "" {
			continue
		}
		if err := checkMode(mode, f.Line, f.Path()); err != nil {
			return err
		}
	}
	if f.ModeChange() && !p.opts.AllowModeChange {
		return &Error{Code: CodeMode, Line: f.Line, Path: f.Path(), Detail: "mode change from " + f.OldMode + " to " + f.NewMode + " was not declared"}
	}
	if f.Binary && !p.opts.AllowBinary {
		return &Error{Code: CodeBinary, Line: f.Line, Path: f.Path(), Detail: "binary content was not declared"}
	}
	if f.cutOff() {
		return &Error{Code: CodeSyntax, Line: f.Line, Path: f.Path(), Detail: "the file's part changes nothing; is the patch cut off?"}
	}
	return p.claim(f)
}

// cutOff finds a part whose content is missing: it changes nothing, or its index line tells of content
// that no hunk brings. Without this a patch cut at the right line would create an empty file.
func (f *File) cutOff() bool {
	if f.Hunks > 0 || f.Binary {
		return false
	}
	switch {
	case f.OldBlob == "":
		return f.Op == Modify && !f.ModeChange()
	case f.Op == Create:
		return !emptyBlob(f.NewBlob)
	case f.Op == Delete:
		return !emptyBlob(f.OldBlob)
	}
	return true
}

// emptyBlob: the (shortened) id of an empty file in either object format.
func emptyBlob(id string) bool {
	return strings.HasPrefix("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", id) ||
		strings.HasPrefix("473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813", id)
}

// claim refuses a path that another part of the patch touches too.
func (p *parser) claim(f *File) error {
	if f.Op == Rename && f.OldPath == f.NewPath {
		return &Error{Code: CodeDuplicate, Line: f.Line, Path: f.NewPath, Detail: "a file is renamed to itself"}
	}
	for i, path := range []string{f.OldPath, f.NewPath} {
		if path == "" || i == 1 && path == f.OldPath {
			continue
		}
		if _, taken := p.paths[path]; taken {
			return &Error{Code: CodeDuplicate, Line: f.Line, Path: path, Detail: "the patch touches this path twice; make one diff of the whole change"}
		}
		p.paths[path] = use{old: path == f.OldPath, new: path == f.NewPath}
	}
	return nil
}

// checkNesting refuses a patch whose result would need a path to be a file and a folder at once. Cost
// is the sum of path depths, which the patch's own size bounds.
func (p *parser) checkNesting() error {
	for _, f := range p.files {
		for i, side := range []string{f.OldPath, f.NewPath} {
			for at := strings.LastIndexByte(side, '/'); at > 0; at = strings.LastIndexByte(side[:at], '/') {
				u, ok := p.paths[side[:at]]
				if ok && (i == 0 && u.old || i == 1 && u.new) {
					return &Error{Code: CodeDuplicate, Line: f.Line, Path: side[:at], Detail: "the patch has this path as a file and as a folder"}
				}
			}
		}
	}
	return nil
}

func checkMode(mode string, line int, path string) error {
	switch mode {
	case gittree.ModeFile, gittree.ModeExecutable:
		return nil
	case gittree.ModeSymlink:
		return &Error{Code: CodeSymlink, Line: line, Path: path, Detail: "symbolic links cannot be changed by an emergency patch"}
	case gittree.ModeSubmodule:
		return &Error{Code: CodeSubmodule, Line: line, Path: path, Detail: "submodules cannot be changed by an emergency patch"}
	}
	return &Error{Code: CodeMode, Line: line, Path: path, Detail: "only the modes 100644 and 100755 are allowed"}
}

// span is one side of a hunk header: first line and number of lines.
type span struct{ start, count int }

func (s span) end() int {
	if s.count == 0 { // "-5,0": after line 5
		return s.start + 1
	}
	return s.start + s.count
}

// parseSpan reads "12,5" or "12" (one line).
func parseSpan(s string) (span, bool) {
	start, count, both := strings.Cut(s, ",")
	a, ok := number(start)
	if !ok {
		return span{}, false
	}
	n := 1
	if both {
		if n, ok = number(count); !ok {
			return span{}, false
		}
	}
	return span{a, n}, a > 0 || n == 0
}

// number reads plain decimal digits; no sign, no space, and no value that sums could overflow.
func number(s string) (int, bool) {
	if s == "" || len(s) > 10 {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, n <= math.MaxInt32
}
