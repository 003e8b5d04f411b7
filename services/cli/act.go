// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/cli/client"
)

// act gives a command and says what was recorded, with what the person's key has signed for it.
func (a *app) act(ctx context.Context, cmd procedure.Command, done string, args ...any) (*emergencyv1.Committed, error) {
	answer, err := a.give(ctx, cmd)
	if err != nil {
		return nil, err
	}
	if a.opt.json {
		return answer.GetCommitted(), a.out.json(answer)
	}
	a.recorded(answer.GetCommitted(), fmt.Sprintf(done, args...))
	return answer.GetCommitted(), nil
}

// give sends a command, signed where it has to be, and shows what was signed.
func (a *app) give(ctx context.Context, cmd procedure.Command) (client.Answer, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	var st *emergencyv1.Statement
	if procedure.NeedsSignature(cmd) && cmd.GetMeta().GetApproval() == nil { // what was captured was signed when it was done
		if st, err = c.Sign(ctx, cmd); err != nil {
			return nil, err
		}
	}
	answer, err := c.Call(ctx, cmd)
	if err == nil && st != nil && !a.opt.json {
		a.signed(st, c.KeyID())
	}
	return answer, err
}

// recorded says what was done, and where it stands in the history.
func (a *app) recorded(c *emergencyv1.Committed, done string) {
	where := fmt.Sprintf("position %d", c.GetFirstPosition())
	if c.GetLastPosition() > c.GetFirstPosition() {
		where = fmt.Sprintf("positions %d to %d", c.GetFirstPosition(), c.GetLastPosition())
	}
	again := ""
	if c.GetRepeated() {
		again = ", recorded before"
	}
	if c.GetLastPosition() < c.GetFirstPosition() || c.GetFirstPosition() == 0 {
		where = "nothing new to record"
	}
	a.out.line("%s %s", good("done:"), a.typing(done))
	a.out.line("      %s, %s, %s%s", c.GetIncident(), where, a.out.clock(c.GetRecordedAt()), again)
}

// signed shows what the person's key signs.
func (a *app) signed(st *emergencyv1.Statement, key string) {
	a.out.line("signed as %s, with key %s:", procedure.RoleWord(st.GetRole()), short(key))
	a.out.field("act", "%s", st.GetCommand())
	a.out.field("incident", "%s", st.GetIncident())
	if b := st.GetBinding(); b.GetRevision() != "" {
		a.out.field("revision", "%s", bold(b.GetRevision()))
		a.out.field("binding", "%s", b.GetDigest())
	}
	for _, f := range []struct{ name, value string }{
		{"patch", st.GetPatchSha256()}, {"base tree", st.GetBaseTree()}, {"result", st.GetResultTree()}, {"policy", st.GetPolicyDigest()},
	} {
		if f.value != "" {
			a.out.field(f.name, "%s", f.value)
		}
	}
	for _, c := range st.GetClaims() {
		if value := claimWords(c.GetValue()); value != "" {
			a.out.field(strings.ReplaceAll(c.GetName(), "_", " "), "%s", value)
		}
	}
}

// claimWords is what a claim says as people type it; empty where it says nothing: what was left out, and that something is before
// the deployment, which everybody expects.
func claimWords(value string) string {
	if value == "0" || value == emergencyv1.Phase_PHASE_BEFORE.String() {
		return ""
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("emergency.v1." + value))
	v, ok := d.(protoreflect.EnumValueDescriptor)
	if err != nil || !ok {
		return value
	}
	return kebab(v.Parent().(protoreflect.EnumDescriptor), v)
}

// then says what the incident waits for now, as a help for whoever has just acted.
func (a *app) then(ctx context.Context, incident string) {
	if a.opt.json || a.opt.keyring == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	a.chosen = incident
	if s, err := a.scene(ctx); err == nil { // else the act is recorded all the same
		a.sequel(s)
	}
}

// mine shows the step that waits for the person, if there is one.
func (a *app) mine(s *scene) bool {
	list := s.mine(a.proc.Now())
	if len(list) == 0 {
		return false
	}
	if list[0].Command == "CallOut" && beingCalled(s.state, a.proc.Now()) {
		a.out.line("%s", dim("the teams are being called"))
		return true
	}
	a.out.line("%s %s: %s", bold("next:"), list[0].Title, a.typing(s.lineOf(list[0])))
	return true
}

// mine are the steps that wait for the person, in the order in which the incident waits for them. While it waits for the emergency
// itself to go on, what can only be told afterwards is not among them.
func (s *scene) mine(now time.Time) []procedure.Option {
	const debt = "7" // the chapter of obligations
	afterwards := []string{"FileDispute", "Document"}
	var list []procedure.Option
	options, steps := s.options(now), procedure.NextSteps(s.state)
	for _, st := range steps {
		if st.Number == debt && steps[0].Number != debt && slices.Contains(afterwards, st.Command) {
			continue
		}
		for _, o := range options {
			if o.Next && o.Command == st.Command && (st.Subject == "" || st.Subject == o.Subject) {
				list = append(list, o)
			}
		}
	}
	return list
}

// lineOf is what to type for an option, with what this strategy asks for besides.
func (s *scene) lineOf(o procedure.Option) string {
	if o.Command == "Forward" && s.state.Strategy > 1 {
		return missingPart()[o.Command][procedure.ReasonLocalTest]
	}
	return commandLine(o.Command, o.Subject)
}

// callTime is how long the services take at most to call the teams after a declaration, which they do by themselves.
const callTime = 10 * time.Second

// beingCalled tells whether the first call-out is still on its way, so that a second one would only wake people twice.
func beingCalled(st *procedure.State, now time.Time) bool {
	return len(st.Rounds) == 0 && now.Sub(st.Declared.At) < callTime
}

// sequel shows the step that waits for the person, or else the one that waits for others.
func (a *app) sequel(s *scene) {
	if a.mine(s) {
		return
	}
	if steps := procedure.NextSteps(s.state); len(steps) > 0 {
		waits := slices.DeleteFunc(slices.Clone(steps[0].Persons), func(p string) bool { return slices.Contains(steps[0].Not, p) })
		whom := ""
		if len(waits) > 0 {
			whom = ", waits for " + strings.Join(once(waits), ", ")
		}
		a.out.line("next: %s%s", steps[0].Title, whom)
	}
}

// once leaves out what was there before.
func once(list []string) []string {
	var out []string
	for _, x := range list {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// leaf builds a command that takes part in the procedure.
func leaf(use, about, long, example string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	long = strings.TrimSpace(long)
	if c := strings.Trim(choice(use), " ()"); c != "" {
		long += "\n\n" + c + "."
	}
	return &cobra.Command{Use: use, Short: about, Long: long, Example: strings.TrimRight(strings.TrimLeft(example, "\n"), " \n"), Args: args, RunE: run}
}

// group builds a command that only holds others.
func group(use, about string, list ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: about, Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var examples []string
	for _, sub := range list {
		first, _, _ := strings.Cut(sub.Example, "\n")
		examples = append(examples, first)
	}
	c.Example = strings.Join(examples, "\n")
	c.AddCommand(list...)
	return c
}

// noCommand refuses what is no command of a group, with those that may have been meant.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	f := usage("unknown command %q for %q", args[0], cmd.CommandPath())
	for _, s := range cmd.SuggestionsFor(args[0]) {
		f = f.hint("did you mean: %s %s", cmd.CommandPath(), s)
	}
	return f
}

// oneOf asks for a first argument out of an enumeration's words, and at most some more.
func oneOf(list []string, more int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage("one of %s is needed", strings.Join(list, ", "))
		}
		if len(args) > 1+more {
			return usage("%q is one argument too many", args[1+more])
		}
		return nil
	}
}
