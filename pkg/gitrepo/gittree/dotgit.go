// SPDX-License-Identifier: Apache-2.0

package gittree

import (
	"strings"
	"unicode/utf8"
)

// DotGit says whether git refuses a name in any tree because some file system takes it for ".git": any
// case, with characters that HFS+ ignores, NTFS's short name git~1, and trailing dots, spaces, a stream
// or a backslash. A file of such a name can be on a host, but never in a tree.
func DotGit(name string) bool {
	for part := range strings.SplitSeq(name, "\\") {
		plain := strings.Map(func(r rune) rune {
			if ignoredByHFS(r) {
				return -1
			}
			return r
		}, validStart(part))
		if strings.EqualFold(plain, ".git") {
			return true
		}
		part, _, _ = strings.Cut(part, ":")
		part = strings.TrimRight(part, ". ")
		if strings.EqualFold(part, ".git") || strings.EqualFold(part, "git~1") {
			return true
		}
	}
	return false
}

// validStart: for git's HFS+ rule a name ends at the first byte that is not UTF-8.
func validStart(s string) string {
	for i, r := range s {
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD") {
			return s[:i]
		}
	}
	return s
}

func ignoredByHFS(r rune) bool {
	switch {
	case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
		return true
	}
	return false
}
