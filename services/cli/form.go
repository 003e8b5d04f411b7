// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// A form is a text that a person fills in with an editor: parts under headings of the form "== name", and lines beginning with
// # that explain and are not part of it. It is for what no command line holds, a dispute or a ruling.

// maxForm is what a form may have at most, so that a wrong file is told from one.
const maxForm = 256 << 10

// part is one part of a form as the program writes it.
type part struct {
	name, help, text string
}

// writeForm writes a form to be filled in.
func writeForm(w io.Writer, about string, parts []part) error {
	var b strings.Builder
	for _, l := range strings.Split(strings.TrimSpace(about), "\n") {
		fmt.Fprintf(&b, "# %s\n", harmless(l))
	}
	for _, p := range parts {
		fmt.Fprintf(&b, "\n== %s\n", p.name)
		for _, l := range strings.Split(strings.TrimSpace(p.help), "\n") {
			if l != "" {
				fmt.Fprintf(&b, "# %s\n", harmless(l))
			}
		}
		for _, l := range strings.Split(p.text, "\n") {
			fmt.Fprintln(&b, harmless(l))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// readForm reads a filled in form; - is standard input. Parts that it does not know are refused: what somebody wrote under a
// mistyped heading must not be lost.
func (a *app) readForm(file string, known ...string) (map[string]string, error) {
	in := a.proc.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, usage("%v", err)
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxForm+1))
	if err != nil {
		return nil, usage("%s cannot be read: %v", file, err)
	}
	if len(data) > maxForm {
		return nil, usage("%s is larger than %d bytes; is it the right file?", file, maxForm)
	}
	return parseForm(string(data), known)
}

func parseForm(text string, known []string) (map[string]string, error) {
	parts, name := map[string]string{}, ""
	for n, l := range strings.Split(text, "\n") {
		l = strings.TrimRight(l, "\r")
		heading, is := strings.CutPrefix(l, "== ")
		switch {
		case strings.HasPrefix(l, "#"):
		case is:
			name = strings.TrimSpace(heading)
			if !slices.Contains(known, name) {
				return nil, usage("line %d: there is no part %q", n+1, name).hint("the parts are: %s", strings.Join(known, ", "))
			}
			if _, twice := parts[name]; twice {
				return nil, usage("line %d: part %q is there twice", n+1, name)
			}
			parts[name] = ""
		case name == "" && strings.TrimSpace(l) != "":
			return nil, usage("line %d stands under no heading", n+1).hint("a heading is a line such as == %s", known[0])
		case name != "":
			parts[name] += l + "\n"
		}
	}
	for k, v := range parts {
		parts[k] = strings.Trim(v, "\n ")
	}
	return parts, nil
}

// lines are the lines of a part that say something.
func lines(text string) []string {
	var list []string
	for _, l := range strings.Split(text, "\n") {
		if l = strings.TrimSpace(l); l != "" {
			list = append(list, l)
		}
	}
	return list
}
