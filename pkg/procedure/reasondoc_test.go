// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var updateReasons = flag.Bool("update", false, "write docs/reasons.md from the table of reason codes")

const (
	root       = "../.."
	reasonsDoc = root + "/docs/reasons.md"
	// byHand begins the part of docs/reasons.md that is not made from the table.
	byHand = "## Reasons of the wire and of single services\n"
)

// TestReasonsDocument holds docs/reasons.md to the table. A reason that a reader cannot look up is a defect. It is not
// parallel: TestReasonsByHand reads the file that -update writes.
func TestReasonsDocument(t *testing.T) {
	doc, err := os.ReadFile(reasonsDoc)
	if err != nil {
		t.Fatal(err)
	}
	have, rest, ok := strings.Cut(string(doc), byHand)
	if !ok {
		t.Fatalf("%s has no line %q; what follows it is written by hand and never made again", reasonsDoc, strings.TrimSpace(byHand))
	}
	want := reasonsText()
	if *updateReasons && have != want {
		if err := os.WriteFile(reasonsDoc, []byte(want+byHand+rest), 0o644); err != nil {
			t.Fatal(err)
		}
		have = want
	}
	if have != want {
		t.Errorf("%s is not what the table gives; write it with: go test ./pkg/procedure -run TestReasonsDocument -update\nfirst difference: %s", reasonsDoc, firstDifference(have, want))
	}
}

func reasonsText() string {
	var b strings.Builder
	b.WriteString(`# Reason codes

A refusal names its reason by one of these codes. They are never renamed or reused. The rule is the clause of procedure.md
that refuses; a refusal may name a more exact one. What would make the command allowed is in the refusal itself.

## Reasons of the rules

Made from the table in pkg/procedure/reason.go by ` + "`go test ./pkg/procedure -run TestReasonsDocument -update`" + `.

| Reason | gRPC code | Rule | Meaning |
|---|---|---|---|
`)
	for _, r := range Reasons() {
		row := reasons[r]
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", r, row.code, row.rule, row.meaning)
	}
	b.WriteString("\n")
	return b.String()
}

func firstDifference(have, want string) string {
	h, w := strings.Split(have, "\n"), strings.Split(want, "\n")
	for i := range min(len(h), len(w)) {
		if h[i] != w[i] {
			return fmt.Sprintf("line %d\n  is   %s\n  must %s", i+1, h[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, must be %d", len(h), len(w))
}

// TestMeanings wants one short sentence for each reason, fit for a cell of the table.
func TestMeanings(t *testing.T) {
	t.Parallel()
	sentence := regexp.MustCompile(`^[A-Z][^.|\n]{15,130}\.$`)
	seen := map[string]Reason{}
	for _, r := range Reasons() {
		m := Meaning(r)
		if !sentence.MatchString(m) {
			t.Errorf("%s: the meaning %q is not one short sentence", r, m)
		}
		if other, taken := seen[m]; taken {
			t.Errorf("%s and %s have the same meaning %q", other, r, m)
		}
		seen[m] = r
	}
	if m := Meaning("NO_SUCH_REASON"); m != "" {
		t.Errorf("a reason that does not exist means %q", m)
	}
}

// TestReasonsByHand holds the second part of docs/reasons.md to the reasons that other packages declare, both ways.
func TestReasonsByHand(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(reasonsDoc)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), byHand)
	written := matches(regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| `[A-Z_]+` \\| [^|]+ \\| [^|]+\\. \\|$"), []byte(rest))
	declared := declaredElsewhere(t)
	for _, r := range declared {
		if !slices.Contains(written, r) {
			t.Errorf("%s is not in the part of %s that is written by hand", r, reasonsDoc)
		}
		if _, clash := CodeOf(Reason(r)); clash {
			t.Errorf("%s is a reason of the rules and declared a second time", r)
		}
	}
	for _, r := range written {
		if !slices.Contains(declared, r) {
			t.Errorf("%s has %s, which no package declares", reasonsDoc, r)
		}
	}
	if !slices.IsSorted(written) {
		t.Errorf("the part of %s that is written by hand is not sorted: %v", reasonsDoc, written)
	}
}

// declaredElsewhere finds the reasons that packages outside the rules declare, in the way the repository spells them.
func declaredElsewhere(t *testing.T) (found []string) {
	t.Helper()
	constant := regexp.MustCompile(`\bprocedure\.Reason = "([^"]+)"`)
	for _, module := range []string{"pkg", "services"} {
		err := filepath.WalkDir(filepath.Join(root, module), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			found = append(found, matches(constant, source)...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(found) == 0 {
		t.Fatal("no package outside the rules declares a reason; they are spelt otherwise now, and this test looks past them")
	}
	return found
}

func matches(pattern *regexp.Regexp, text []byte) (list []string) {
	for _, m := range pattern.FindAllSubmatch(text, -1) {
		list = append(list, string(m[1]))
	}
	return list
}
