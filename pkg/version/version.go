// SPDX-License-Identifier: Apache-2.0

// Package version says what a program was built from. `make release` writes it in; without that, what the go command knows counts.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Written by the linker (-X), only together. They are not read from the go command's own stamp, because that is left out of a release: it
// depends on how the tree was obtained.
var (
	release string // such as v1.2.0
	commit  string // 40 digits
)

// Number is the program's version: a release's, or "devel" with the commit.
func Number() string {
	if release != "" {
		return release
	}
	c, changed := built()
	switch {
	case c == "":
		return "devel"
	case changed:
		return "devel-" + short(c) + "-changed"
	}
	return "devel-" + short(c)
}

// String is what --version prints: version, commit, and the Go version and platform.
func String() string {
	c := commit
	if c == "" {
		c, _ = built()
	}
	if c == "" {
		c = "unknown"
	}
	return fmt.Sprintf("%s, commit %s, %s %s/%s", Number(), c, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// built is the commit that the go command found, and whether files were changed since.
func built() (commit string, changed bool) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", false
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	return commit, changed
}

func short(commit string) string { return commit[:min(12, len(commit))] }
