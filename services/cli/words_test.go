// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func testApp() *app {
	p := Process{Now: func() time.Time { return time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC) }, Zone: time.UTC}
	return &app{proc: p}
}

// every lists the commands that do something.
func every(c *cobra.Command) []*cobra.Command {
	if len(c.Commands()) == 0 {
		return []*cobra.Command{c}
	}
	var list []*cobra.Command
	for _, sub := range c.Commands() {
		list = append(list, every(sub)...)
	}
	return list
}

func TestEveryCommandIsExplained(t *testing.T) {
	t.Parallel()
	root := testApp().root()
	all := every(root)
	if len(all) < 45 {
		t.Fatalf("only %d commands", len(all))
	}
	for _, c := range all {
		if c.Short == "" || c.Long == "" || c.Example == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short %q, long %q, example %q", c.CommandPath(), c.Short, c.Long, c.Example)
		}
		if strings.Contains(c.Use, "|") {
			t.Errorf("%s: typed as it stands, %q runs the part before the bar", c.CommandPath(), c.Use)
		}
		if !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: its example shows another command:\n%s", c.CommandPath(), c.Example)
		}
	}
}

// TestExamplesAreRight: an example that does not parse costs a person at night more than none.
func TestExamplesAreRight(t *testing.T) {
	t.Parallel()
	for _, c := range every(testApp().root()) {
		for _, line := range strings.Split(c.Example, "\n") {
			for _, part := range strings.Split(line, "&&") {
				if i := strings.Index(part, "epatch "); i >= 0 {
					checkLine(t, part[i:])
				}
			}
		}
	}
	for command, line := range typed() {
		if strings.Contains(line, "%s") {
			line = strings.ReplaceAll(line, "%s", "SUBJECT")
		}
		if strings.Contains(line, "|") {
			t.Errorf("%s: typed as it stands, %q runs the part before the bar", command, line)
		}
		t.Run(command, func(t *testing.T) { checkLine(t, line) })
	}
}

// checkLine finds the command of a line and parses its flags.
func checkLine(t *testing.T, line string) {
	t.Helper()
	words := shellWords(line)
	cmd, rest, err := testApp().root().Find(words[1:])
	if err != nil {
		t.Errorf("%s: %v", line, err)
		return
	}
	if cmd.HasSubCommands() {
		t.Errorf("%s: names only the group %s", line, cmd.CommandPath())
		return
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("%s: %v", line, err)
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		t.Errorf("%s: %v", line, err)
	}
}

// shellWords splits a line as a shell would, as far as the examples go.
func shellWords(line string) []string {
	var words []string
	var b strings.Builder
	quoted, any := false, false
	for _, r := range line {
		switch {
		case r == '"':
			quoted, any = !quoted, true
		case r == '>' && !quoted || r == '|' && !quoted && strings.HasSuffix(line, "| "):
			return words
		case r == ' ' && !quoted:
			if any {
				words = append(words, b.String())
			}
			any = false
			b.Reset()
		default:
			b.WriteRune(r)
			any = true
		}
		if strings.HasSuffix(b.String(), "   ") {
			break
		}
	}
	if any {
		words = append(words, b.String())
	}
	return words
}

// TestEveryActCanBeTyped: whatever a person may do by the matrix has a command line, and hints can name it.
func TestEveryActCanBeTyped(t *testing.T) {
	t.Parallel()
	notTyped := []string{"AbsorbDuplicate", "ReportTree"} // the services' own half of a merge; the agent's report
	for _, c := range procedure.Commands() {
		has := commandLine(c.Name, "") != ""
		want := len(c.Roles) > 0 && !slices.Contains(notTyped, c.Name)
		if has != want {
			t.Errorf("%s: typed %t, wanted %t", c.Name, has, want)
		}
	}
	for name := range typed() {
		if !slices.ContainsFunc(procedure.Commands(), func(c procedure.CommandInfo) bool { return c.Name == name }) {
			if _, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("emergency.v1." + name + "Request")); err != nil {
				t.Errorf("%s is no command of the procedure", name)
			}
		}
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ command, subject, want string }{
		{"Respond", "critical/1", "epatch accept --slot critical/1"},
		{"Respond", "", "epatch accept"},
		{"WithdrawVeto", "V1", "epatch veto withdraw V1 --reason TEXT"},
		{"WithdrawVeto", "", "epatch veto withdraw --reason TEXT"},
		{"StartApply", "P1r1", "epatch deploy"},
		{"RecordSecondReview", "P1r2", "epatch review second VERDICT P1r2 (VERDICT: approve, changes or veto)"},
		{"RecordFirstReview", "", "epatch review first VERDICT REVISION (VERDICT: approve, changes or veto)"},
		{"ReportTest", "P1r1", "epatch test RESULT P1r1 --steps TEXT (RESULT: pass or fail)"},
		{"FileDispute", "", "epatch dispute file"},
		{"Terminate", "G1", "epatch terminate G1"},
		{"Terminate", "", "epatch terminate"},
		{"DeEscalate", "1", "epatch de-escalate 1 --reason TEXT"},
		{"DeEscalate", "", "epatch de-escalate STRATEGY --reason TEXT (STRATEGY: 1 or 2)"},
		{"ReportTest", "P1r1 after", "epatch test RESULT P1r1 --steps TEXT (RESULT: pass or fail)"},
		{"Tick", "", ""},
		{"", "", ""},
	} {
		if got := commandLine(x.command, x.subject); got != x.want {
			t.Errorf("%s %s: %q, want %q", x.command, x.subject, got, x.want)
		}
	}
}

func TestObligationsAreTyped(t *testing.T) {
	t.Parallel()
	open := &procedure.Refusal{Reason: procedure.ReasonObligationsOpen, Allow: []procedure.Allowance{
		{Command: "FileDispute", Subject: "DISPUTE/REFERRED", Description: "a"}, {Command: "ReportTest", Subject: "TEST_DEBT/1", Description: "b"},
	}}
	want := []string{"a: epatch dispute file", "b: epatch test RESULT REVISION --steps TEXT (RESULT: pass or fail)"}
	if got := testApp().refused(open).Hints; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestGroupsShowExamples: who asks for the help of a group wants to see one line of each part.
func TestGroupsShowExamples(t *testing.T) {
	t.Parallel()
	for _, c := range testApp().root().Commands() {
		if n := len(c.Commands()); n > 0 && len(strings.Split(c.Example, "\n")) < n {
			t.Errorf("%s has %d commands and the examples\n%s", c.CommandPath(), n, c.Example)
		}
	}
}

func TestTheIncidentIsNamed(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		several    bool
		text, want string
	}{
		{true, "take it: epatch accept", "take it: epatch accept -i e20261124.2"},
		{false, "take it: epatch accept", "take it: epatch accept"},
		{true, "next: epatch close OUTCOME SUMMARY" + choice("OUTCOME"), "next: epatch close OUTCOME SUMMARY -i e20261124.2 (OUTCOME: fixed, not-fixed or not-needed)"},
		{true, "which there are: epatch incidents", "which there are: epatch incidents"},
		{true, "who answers: epatch watch e20261124.2", "who answers: epatch watch e20261124.2"},
		{true, "declare it again", "declare it again"},
	} {
		a := testApp()
		a.top, a.chosen, a.several = a.root(), "e20261124.2", x.several
		if got := a.typing(x.text); got != x.want {
			t.Errorf("%q, want %q", got, x.want)
		}
	}
}

func roundTrip[E protoreflect.Enum](t *testing.T) {
	t.Helper()
	var zero E
	list := words(zero)
	if len(list) != zero.Descriptor().Values().Len()-1 {
		t.Errorf("%s: %v lacks a value", zero.Descriptor().Name(), list)
	}
	for _, w := range list {
		e, err := parse[E]("value", w)
		if err != nil || word(e) != w || e.Number() == 0 || strings.ToLower(w) != w || strings.ContainsAny(w, "_ ") {
			t.Errorf("%s: %q is %v, %q, %v", zero.Descriptor().Name(), w, e, word(e), err)
		}
	}
	for _, wrong := range []string{"", "unspecified", "nonsense", "0", string(zero.Descriptor().Values().ByNumber(1).Name())} {
		if e, err := parse[E]("value", wrong); err == nil {
			t.Errorf("%s: %q was taken as %v", zero.Descriptor().Name(), wrong, e)
		}
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	roundTrip[emergencyv1.Severity](t)
	roundTrip[emergencyv1.ReasonClass](t)
	roundTrip[emergencyv1.Team](t)
	roundTrip[emergencyv1.ResponderStep](t)
	roundTrip[emergencyv1.ReviewVerdict](t)
	roundTrip[emergencyv1.TestResult](t)
	roundTrip[emergencyv1.HealthResult](t)
	roundTrip[emergencyv1.LeadDecision](t)
	roundTrip[emergencyv1.Outcome](t)
	roundTrip[emergencyv1.ApplyOutcome](t)
	roundTrip[emergencyv1.Role](t)
	roundTrip[emergencyv1.UnfitCode](t)
	roundTrip[emergencyv1.EscalationGround](t)
	roundTrip[emergencyv1.CycleOutcome](t)
	roundTrip[emergencyv1.SessionCause](t)
	roundTrip[emergencyv1.MarkKind](t)
	roundTrip[emergencyv1.LeftoverKind](t)
	roundTrip[emergencyv1.EffectOutcome](t)
	roundTrip[emergencyv1.RecordingState](t)
	roundTrip[emergencyv1.DisputeConcern](t)
	roundTrip[emergencyv1.DirectionKind](t)
	roundTrip[emergencyv1.Finding](t)
	roundTrip[emergencyv1.ReviewGround](t)
}
