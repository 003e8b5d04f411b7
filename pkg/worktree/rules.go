// SPDX-License-Identifier: Apache-2.0

package worktree

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"cacert.org/emergency/pkg/gitrepo/gittree"
)

// rules decide which paths belong to the tree. Patterns are split into components.
type rules struct{ include, exclude [][]string }

func parseRules(include, exclude []string) (rules, error) {
	var r rules
	for _, set := range []struct {
		patterns []string
		to       *[][]string
	}{{include, &r.include}, {exclude, &r.exclude}} {
		for _, p := range set.patterns {
			parts, err := parsePattern(p)
			if err != nil {
				return rules{}, &Error{Code: CodeConfig, Detail: fmt.Sprintf("pattern %q: %v", p, err)}
			}
			*set.to = append(*set.to, parts)
		}
	}
	if len(r.include) == 0 {
		r.include = [][]string{{"**"}}
	}
	return r, nil
}

func parsePattern(pattern string) ([]string, error) {
	parts := strings.Split(strings.TrimSuffix(pattern, "/"), "/")
	stars := 0
	for _, part := range parts {
		switch part {
		case "", ".", "..":
			return nil, fmt.Errorf("must be a path below the root, without empty, . and .. components")
		case "**":
			stars++
		}
		if _, err := path.Match(part, ""); err != nil {
			return nil, err
		}
	}
	if stars > 3 { // each ** multiplies the cost of matching
		return nil, fmt.Errorf("more than three ** components")
	}
	return parts, nil
}

// listed says whether a file belongs to the tree.
func (r rules) listed(file string) bool {
	parts := strings.Split(file, "/")
	return !r.excluded(parts) && slices.ContainsFunc(r.include, func(p []string) bool { return covers(p, parts) })
}

// enter says whether a folder may hold files of the tree.
func (r rules) enter(folder string) bool {
	parts := strings.Split(folder, "/")
	return !r.excluded(parts) && slices.ContainsFunc(r.include, func(p []string) bool { return mayHold(p, parts) })
}

func (r rules) excluded(parts []string) bool {
	return slices.ContainsFunc(parts, gittree.DotGit) || slices.ContainsFunc(r.exclude, func(p []string) bool { return covers(p, parts) })
}

// covers: the pattern matches the path or a folder above it.
func covers(pattern, parts []string) bool {
	switch {
	case len(pattern) == 0:
		return true
	case pattern[0] == "**":
		for i := range len(parts) + 1 {
			if covers(pattern[1:], parts[i:]) {
				return true
			}
		}
		return false
	case len(parts) == 0:
		return false
	}
	ok, err := path.Match(pattern[0], parts[0]) // parsePattern has refused malformed patterns
	return err == nil && ok && covers(pattern[1:], parts[1:])
}

// mayHold: something below the folder could match the pattern.
func mayHold(pattern, parts []string) bool {
	if len(pattern) == 0 || len(parts) == 0 || pattern[0] == "**" {
		return true
	}
	ok, err := path.Match(pattern[0], parts[0])
	return err == nil && ok && mayHold(pattern[1:], parts[1:])
}
