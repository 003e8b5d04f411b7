// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"cacert.org/emergency/pkg/gitrepo/gittree"
)

const (
	maxComponent  = 255 // bytes; NAME_MAX of the file systems in use
	maxPathOption = 4096
)

// CheckPath refuses a path that may not be in a patch: absolute, with `.`, `..` or empty components,
// into `.git` however spelled (hardening 1.9), with backslash, control or invisible characters, not
// UTF-8 (an event could not carry it), or over-long. The error is an *Error with CodePath, or
// CodeSubmodule for `.gitmodules`.
func CheckPath(path string) error { return checkPath(path, 0, maxPathOption) }

func checkPath(path string, line, maxLen int) error {
	refuse := func(detail string) error {
		if len(path) > 200 { // the error is shown to people
			return &Error{Code: CodePath, Line: line, Path: strings.ToValidUTF8(path[:200], "") + "...", Detail: detail}
		}
		return &Error{Code: CodePath, Line: line, Path: strings.ToValidUTF8(path, "\uFFFD"), Detail: detail}
	}
	switch {
	case path == "":
		return refuse("empty path")
	case len(path) > maxLen:
		return refuse("path is too long")
	case !utf8.ValidString(path):
		return refuse("path is not UTF-8")
	case strings.HasPrefix(path, "/"):
		return refuse("absolute path; only paths inside the tree are allowed")
	case strings.ContainsRune(path, '\\'):
		return refuse("backslash in path")
	case strings.ContainsFunc(path, invisible):
		return refuse("control or invisible character in path")
	}
	for component := range strings.SplitSeq(path, "/") {
		switch {
		case component == "":
			return refuse("empty path component")
		case component == "." || component == "..":
			return refuse("path with . or .. component")
		case len(component) > maxComponent:
			return refuse("path component is too long")
		case dotGit(component):
			return refuse("path into a repository's own folder")
		case strings.EqualFold(component, ".gitmodules"):
			return &Error{Code: CodeSubmodule, Line: line, Path: path, Detail: "submodule configuration cannot be changed by an emergency patch"}
		}
	}
	return nil
}

// dotGit says whether a file system in use could take the path component for `.git`: any case, NTFS
// short names (`git~1`), NTFS streams (`.git::$INDEX_ALLOCATION`), trailing dots and spaces, and
// characters that HFS+ and others ignore. It refuses more than git does.
func dotGit(component string) bool {
	if gittree.DotGit(component) {
		return true
	}
	name := strings.Map(func(r rune) rune {
		if ignorable(r) {
			return -1
		}
		return r
	}, component)
	name, _, _ = strings.Cut(name, ":")
	name = strings.TrimRight(name, ". ")
	if strings.EqualFold(name, ".git") {
		return true
	}
	short, number, ok := strings.Cut(name, "~")
	return ok && strings.EqualFold(short, "git") && number != "" && strings.Trim(number, "0123456789") == ""
}

func ignorable(r rune) bool {
	return unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) || unicode.Is(unicode.Variation_Selector, r)
}

// invisible finds what would let a path look like another one: control characters, line separators,
// bidirectional overrides, zero-width characters.
func invisible(r rune) bool {
	return unicode.IsControl(r) || ignorable(r) || r == '\u2028' || r == '\u2029'
}

// unquote reads one C-style quoted path from the start of s, as git writes names with special bytes,
// and returns it with the rest of s. It is strict: what git never writes is not accepted.
func unquote(s string) (path, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		return "", s, false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			n, value, ok := escape(s[i+1:])
			if !ok {
				return "", s, false
			}
			b.WriteByte(value)
			i += n
		default:
			b.WriteByte(c)
		}
	}
	return "", s, false
}

// escape reads what follows a backslash: how many bytes it took and the byte it stands for.
func escape(s string) (n int, value byte, ok bool) {
	if s == "" {
		return 0, 0, false
	}
	const letters, values = `abfnrtv"\`, "\a\b\f\n\r\t\v\"\\"
	if i := strings.IndexByte(letters, s[0]); i >= 0 {
		return 1, values[i], true
	}
	if len(s) < 3 || s[0] > '3' {
		return 0, 0, false
	}
	for _, c := range []byte(s[:3]) {
		if c < '0' || c > '7' {
			return 0, 0, false
		}
		value = value<<3 | (c - '0')
	}
	return 3, value, true
}
