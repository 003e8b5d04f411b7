// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
)

// seen counts what the tests of this package show.
var seen = pt.NewCoverage()

func given(t *testing.T, steps ...pt.Step) *pt.Case {
	t.Helper()
	return pt.Given(t, steps...).Counting(seen)
}

func givenRuleBook(t *testing.T, steps ...pt.Step) *pt.Case {
	t.Helper()
	return pt.GivenRuleBook(t, steps...).Counting(seen)
}

// TestMain runs the tests and then asks whether every reason code was produced and every command was accepted.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("40") // histories in every run; -rapid.checks=1000 for a night
	}
	code := m.Run()
	if code == 0 && wholeRun() {
		code = uncovered()
	}
	os.Exit(code)
}

// wholeRun tells whether all tests ran; a part of them covers only a part.
func wholeRun() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.fuzz", "test.bench"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			fmt.Fprintf(os.Stderr, "coverage of rules is not checked under -%s\n", name)
			return false
		}
	}
	return true
}

// givenByDispatch is the one reason that no rule gives: the history was written to again and again while a command was
// decided (G10).
const givenByDispatch = procedure.ReasonConcurrentModification

func uncovered() int {
	commands, reasons := seen.Missing()
	for _, c := range commands {
		fmt.Fprintf(os.Stderr, "FAIL: no test sees command %s accepted\n", c)
	}
	reasons = slices.DeleteFunc(reasons, func(r procedure.Reason) bool { return r == givenByDispatch })
	for _, r := range reasons {
		fmt.Fprintf(os.Stderr, "FAIL: no test sees a refusal for %s\n", r)
	}
	if len(commands)+len(reasons) > 0 {
		return 1
	}
	return 0
}
