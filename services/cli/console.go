// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The one-time access of strategy 3, from the permission to the seal (procedure.md 1.3 and 4.4). What is seen of the session
// itself is in connect.go, watchconsole.go and replayconsole.go.

func (a *app) consoleCommands() []*cobra.Command {
	return []*cobra.Command{
		a.permitCmd(), a.grantCmd(), a.connectCmd(), a.watchConsoleCmd(), a.freezeCmd(), a.resumeCmd(), a.markCmd(), a.extendCmd(),
		a.terminateCmd(), a.disableCmd(), a.proveCmd(), a.sessionDiffCmd(), a.leftoversCmd(), a.explainLeftoversCmd(), a.sealCmd(), a.replayConsoleCmd(),
	}
}

// grant is the one that was named, or else the only one that fits.
func (s *scene) grant(named []string, fits func(*procedure.Grant) bool, what string) (*procedure.Grant, error) {
	if len(named) > 0 && named[0] != "" {
		if g, ok := s.state.Grant(named[0]); ok {
			return g, nil
		}
		return nil, fail(exitRefused, "%s has no grant %q", s.state.Incident, named[0]).hint("which there are: epatch status")
	}
	var list []*procedure.Grant
	for i := range s.state.Grants {
		if g := &s.state.Grants[i]; fits(g) {
			list = append(list, g)
		}
	}
	switch len(list) {
	case 1:
		return list[0], nil
	case 0:
		f := fail(exitRefused, "%s has no grant %s", s.state.Incident, what)
		for i := range s.state.Grants {
			f = f.hint("%s is %s", s.state.Grants[i].ID, grantWord(s.state.Grants[i].State))
		}
		if len(s.state.Grants) == 0 {
			f = f.hint("access is granted by a critical admin: epatch grant PERSON --purpose TEXT")
		}
		return nil, f
	}
	err := usage("%s has %d grants %s; name one", s.state.Incident, len(list), what)
	for _, g := range list {
		err = err.hint("%s: %s, %s", g.ID, g.Subject, grantWord(g.State))
	}
	return nil, err
}

// What makes a grant the one that is meant.
func unused(g *procedure.Grant) bool  { return g.Consumed.Position == 0 && !g.Over() }
func notOver(g *procedure.Grant) bool { return !g.Over() }
func over(g *procedure.Grant) bool    { return g.Over() && g.Opened.Position > 0 }
func isLive(g *procedure.Grant) bool {
	return g.State == procedure.GrantLive || g.State == procedure.GrantFrozen
}
func notProven(g *procedure.Grant) bool { return g.Proven.Position == 0 && g.Sealed.Position == 0 }
func notSealed(g *procedure.Grant) bool { return over(g) && g.Sealed.Position == 0 }

// unexplained are what a session left and nobody has explained.
func unexplained(g *procedure.Grant) []procedure.LeftoverItem {
	var list []procedure.LeftoverItem
	for _, l := range g.Leftovers {
		if l.Explained.Position == 0 {
			list = append(list, l)
		}
	}
	return list
}

func (a *app) permitCmd() *cobra.Command {
	req := &emergencyv1.PermitAccessRequest{}
	cmd := leaf("permit PERSON --purpose TEXT", "Permit the remote access of one person (SP 4.1.1.1); the critical team lead", `
Under strategy 3. Signed; it holds for two hours unless the policy says otherwise. Then a critical admin grants the access.`, `
  epatch permit anna --purpose "find out which process keeps the lock on the session table"`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) (err error) {
			if strings.TrimSpace(req.GetPurpose()) == "" {
				return usage("say what for: --purpose")
			}
			if req.Meta, err = a.meta(cmd.Context()); err != nil {
				return err
			}
			req.Subject = args[0]
			c, err := a.act(cmd.Context(), req, "remote access of %s permitted; a critical admin grants it: epatch grant %s", args[0], args[0])
			if err == nil {
				a.then(cmd.Context(), c.GetIncident())
			}
			return err
		})
	cmd.Flags().StringVar(&req.Purpose, "purpose", "", "what for; restricted")
	cmd.Flags().Uint32Var(&req.ValidMinutes, "minutes", 0, "for how long it may be used (default: as the policy says)")
	cmd.ValidArgsFunction = a.completePersons
	return cmd
}

func (a *app) grantCmd() *cobra.Command {
	req := &emergencyv1.GrantAccessRequest{}
	cmd := leaf("grant [PERSON]", "Install a one-time connection for one person (seed 3.3)", `
You act as access engineer from then on, which is a deviation that a ruling judges. Person and purpose are those that the team lead
has permitted; where the lead could not be reached, name them. You watch, unless --watcher names another critical admin. The host's
agent lists the tree as it is before, which may take a while. What has to be typed next is shown, for the watcher and for the person.`, `
  epatch grant
  epatch grant anna --purpose "find out which process keeps the lock on the session table"
  epatch grant anna --watcher carl --minutes 30 --from 203.0.113.7`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error { return a.grantAccess(cmd.Context(), req, args) })
	f := cmd.Flags()
	f.StringVar(&req.Purpose, "purpose", "", "what for; restricted (default: as permitted)")
	f.StringVar(&req.Watcher, "watcher", "", "critical admin who watches (default: you)")
	f.Uint32Var(&req.MaxMinutes, "minutes", 0, "longest session (default: as the policy says)")
	f.StringVar(&req.SourceAddress, "from", "", "address or prefix the person comes from; restricted (default: the one that fetches the credential)")
	f.StringVar(&req.Host, "host", "", "host (default: the incident's)")
	f.StringVar(&req.Account, "account", "", "account on the host; restricted (default: the configured one)")
	cmd.ValidArgsFunction = a.completePersons
	_ = cmd.RegisterFlagCompletionFunc("watcher", a.completePersons) // fails only for a flag that does not exist
	return cmd
}

func (a *app) grantAccess(ctx context.Context, req *emergencyv1.GrantAccessRequest, args []string) error {
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	permission, err := s.permission(args)
	if err != nil {
		return err
	}
	req.Meta, req.Subject = s.meta, permission.Subject
	if req.Purpose == "" && permission.Purpose != "" {
		v, err := a.reveal(ctx, s.state.Incident, permission.Purpose)
		if err != nil {
			return err
		}
		req.Purpose = v.Value
	}
	if strings.TrimSpace(req.Purpose) == "" {
		return usage("say what for: --purpose")
	}
	a.progress("asking the agent on %s for the tree as it is before", s.state.Host())
	wait, cancel := context.WithTimeout(ctx, agentTime)
	defer cancel()
	c, err := a.act(wait, req, "one-time connection installed for %s; you act as access engineer, which is a deviation", req.Subject)
	if err != nil || a.opt.json {
		return err
	}
	if s.state, err = s.client.State(ctx, c.GetIncident()); err != nil {
		return err
	}
	for i := range s.state.Grants {
		if g := &s.state.Grants[i]; g.Position >= c.GetFirstPosition() && g.Position <= c.GetLastPosition() {
			a.granted(g)
		}
	}
	return nil
}

// permission is the lead's valid one for the person who was named, or else the only one; without any, what was named.
func (s *scene) permission(args []string) (procedure.Permission, error) {
	var valid []procedure.Permission
	for _, p := range s.state.Permissions {
		if !s.client.Now().After(p.ValidUntil) && (len(args) == 0 || p.Subject == args[0]) {
			valid = append(valid, p)
		}
	}
	switch {
	case len(valid) > 0 && (len(args) > 0 || len(valid) == 1):
		return valid[len(valid)-1], nil
	case len(args) > 0:
		return procedure.Permission{Subject: args[0]}, nil
	case len(valid) == 0:
		return procedure.Permission{}, usage("for whom? no permission of the critical team lead is valid").
			hint("the lead permits it: epatch permit PERSON --purpose TEXT").hint("where the lead cannot be reached: epatch grant PERSON --purpose TEXT")
	}
	err := usage("for whom? %d permissions are valid", len(valid))
	for _, p := range valid {
		err = err.hint("epatch grant %s", p.Subject)
	}
	return procedure.Permission{}, err
}

// granted says who has to type what now, in this order.
func (a *app) granted(g *procedure.Grant) {
	a.out.line("      %s on %s, unused until %s", bold(g.ID), g.Host, a.out.at(g.FirstUseUntil))
	a.out.line("first %s, who watches: %s", g.Watcher, scoped("epatch watch-console "+g.ID, a.chosen))
	a.out.line("then  %s, who connects: %s", g.Subject, scoped("epatch connect "+g.ID, a.chosen))
	if !g.Agent {
		a.out.line("%s %s has no agent: processes cannot be frozen or killed from here, only input; that is a deviation", alert("look:"), g.Host)
	}
}

// soon is the common part of a command that only lessens access, and its grant. Where both are named nothing is read before.
func (a *app) soon(ctx context.Context, named []string, fits func(*procedure.Grant) bool, what string) (*emergencyv1.CommandMeta, string, error) {
	if len(named) > 0 {
		meta, err := a.meta(ctx)
		return meta, named[0], err
	}
	s, err := a.scene(ctx)
	if err != nil {
		return nil, "", err
	}
	g, err := s.grant(nil, fits, what)
	if err != nil {
		return nil, "", err
	}
	return s.meta, g.ID, nil
}

func (a *app) onGrant(cmd *cobra.Command) *cobra.Command {
	cmd.ValidArgsFunction = a.completeGrants
	return cmd
}

func (a *app) freezeCmd() *cobra.Command {
	return a.onGrant(leaf("freeze [GRANT]", "Freeze the session at once: nothing more is typed, processes stop", `
What is typed while it is frozen is thrown away. Frozen for longer than the policy's grace it ends. It never asks for anything.`, `
  epatch freeze`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			meta, grant, err := a.soon(cmd.Context(), args, isLive, "with a running session")
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.FreezeRequest{Meta: meta, Grant: grant}, "%s is frozen; go on: epatch resume, or end it: epatch terminate", grant)
			return err
		}))
}

func (a *app) resumeCmd() *cobra.Command {
	return a.onGrant(leaf("resume [GRANT]", "Let a frozen session go on; by its watcher", `
Within the policy's grace. Your signature arms the watch again first, and your view must be open. What was typed meanwhile is lost, on
purpose.`, `
  epatch resume`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			meta, grant, err := a.soon(cmd.Context(), args, func(g *procedure.Grant) bool { return g.State == procedure.GrantFrozen }, "with a frozen session")
			if err != nil {
				return err
			}
			if _, err := a.act(cmd.Context(), &emergencyv1.ArmWatchRequest{Meta: meta, Grant: grant}, "the watch of %s is armed again", grant); err != nil {
				return err
			}
			again := &emergencyv1.CommandMeta{Incident: meta.GetIncident()}
			_, err = a.act(cmd.Context(), &emergencyv1.ResumeRequest{Meta: again, Grant: grant}, "%s goes on", grant)
			return err
		}))
}

func (a *app) markCmd() *cobra.Command {
	req := &emergencyv1.MarkSessionRequest{}
	kinds := []string{"note", "concealment", "gap"}
	var kind string
	cmd := leaf("mark TEXT [GRANT]", "Put a note into the session's recording, at the place where it is now", `
By the watcher; restricted. With --kind concealment you say that something was hidden from you.`, `
  epatch mark "looks at the lock table, as agreed"
  epatch mark "cleared the screen twice" --kind concealment`,
		cobra.RangeArgs(1, 2), func(cmd *cobra.Command, args []string) (err error) {
			if req.Kind, err = parse[emergencyv1.MarkKind]("kind", kind); err != nil {
				return err
			}
			if req.Meta, req.Grant, err = a.soon(cmd.Context(), args[1:], isLive, "with a running session"); err != nil {
				return err
			}
			req.Text = args[0]
			_, err = a.act(cmd.Context(), req, "marked in %s", req.Grant)
			return err
		})
	cmd.Flags().StringVar(&kind, "kind", "note", either(kinds))
	complete(cmd, "kind", kinds...)
	return cmd
}

func (a *app) extendCmd() *cobra.Command {
	req := &emergencyv1.ExtendSessionRequest{}
	cmd := leaf("extend [GRANT] --reason TEXT", "Extend a session, once; by its watcher", `
By the policy's extension, unless --minutes says less.`, `
  epatch extend --reason "the dump takes ten minutes longer than planned"`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) (err error) {
			if strings.TrimSpace(req.GetReason()) == "" {
				return usage("say why: --reason")
			}
			if req.Meta, req.Grant, err = a.soon(cmd.Context(), args, isLive, "with a running session"); err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), req, "%s is extended, once", req.Grant)
			return err
		})
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, at least 20 characters; restricted")
	cmd.Flags().Uint32Var(&req.Minutes, "minutes", 0, "by how much (default: as the policy says)")
	return a.onGrant(cmd)
}

func (a *app) terminateCmd() *cobra.Command {
	return a.onGrant(leaf("terminate [GRANT]", "End the session at once, or a grant that was not used (seed 3.6)", `
By a critical admin, or by the person whose session it is. It never asks for anything and is never refused for a grant that exists.
Input, channels, processes, and the credential at the gateway and on the host are ended each by itself; what became of each is shown.`, `
  epatch terminate`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			meta, grant, err := a.soon(cmd.Context(), args, notOver, "that is not over")
			if err != nil {
				return err
			}
			return a.ending(cmd.Context(), &emergencyv1.TerminateRequest{Meta: meta, Grant: grant}, grant+" is over; disable it now: epatch disable")
		}))
}

func (a *app) disableCmd() *cobra.Command {
	return a.onGrant(leaf("disable [GRANT]", "Disable the connection, at the gateway and on the host (seed 3.6)", `
Before or during a session it ends it too. It never asks for anything. Give it again where one side could not be reached.`, `
  epatch disable`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			meta, grant, err := a.soon(cmd.Context(), args, notProven, "that is not proven unusable")
			if err != nil {
				return err
			}
			return a.ending(cmd.Context(), &emergencyv1.DisableRequest{Meta: meta, Grant: grant}, grant+" is disabled; now prove it: epatch prove-unusable")
		}))
}

func (a *app) proveCmd() *cobra.Command {
	return a.onGrant(leaf("prove-unusable [GRANT]", "Have the disabled credential tried again, as proof (seed 3.6)", `
The broker itself tries, at the gateway and on the host; both have to refuse. Otherwise that is recorded as an alarm.`, `
  epatch prove-unusable`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			meta, grant, err := a.soon(cmd.Context(), args, notProven, "that is not proven unusable")
			if err != nil {
				return err
			}
			return a.ending(cmd.Context(), &emergencyv1.ProveUnusableRequest{Meta: meta, Grant: grant}, "the credential of "+grant+" was tried again")
		}))
}

func (a *app) sealCmd() *cobra.Command {
	return a.onGrant(leaf("seal [GRANT]", "Seal the access: recording stored, access proven unusable, leftovers answered (seed 3.6)", `
The service checks the whole recording against the history and says whether it is complete. The difference of the host's tree is
captured and leftovers are looked for first, where that was not done.`, `
  epatch seal`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			meta, grant, err := a.soon(cmd.Context(), args, notSealed, "that waits for its seal")
			if err != nil {
				return err
			}
			return a.ending(cmd.Context(), &emergencyv1.SealSessionRequest{Meta: meta, Grant: grant}, grant+" is sealed")
		}))
}

func (a *app) sessionDiffCmd() *cobra.Command {
	return a.onGrant(leaf("session-diff [GRANT]", "Capture what the session changed in the host's tree (seed 3.8)", `
The host's agent lists the tree and sends what differs; the difference becomes a patch that can be registered. It is done by itself at
the end of a session; this is for when the agent was away.`, `
  epatch session-diff`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			meta, grant, err := a.soon(cmd.Context(), args, notSealed, "whose session is over and not sealed")
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), agentTime)
			defer cancel()
			return a.ending(ctx, &emergencyv1.CaptureSessionDiffRequest{Meta: meta, Grant: grant}, "the host's tree is compared with the one before "+grant)
		}))
}

// ending gives a command about the end of an access and says what became of each part.
func (a *app) ending(ctx context.Context, cmd procedure.Command, done string) error {
	c, err := a.act(ctx, cmd, "%s", done)
	if err != nil || a.opt.json {
		return err
	}
	if a.opt.keyring == "" {
		return nil
	}
	events, err := a.eventsOf(ctx, c)
	if err != nil {
		a.note("what became of each part cannot be shown: %v", err)
		return nil // it is recorded all the same
	}
	for _, e := range events {
		a.endWords(e)
	}
	a.then(ctx, c.GetIncident())
	return nil
}

// eventsOf are the events that an act recorded, as verified here.
func (a *app) eventsOf(ctx context.Context, c *emergencyv1.Committed) ([]proto.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var list []proto.Message
	err := a.conn.Follow(ctx, c.GetIncident(), func(st *procedure.State, e *history.Entry) error {
		if e.Record.GetFirstPosition() < c.GetFirstPosition() {
			return nil
		}
		for _, ev := range e.Record.GetEvents() {
			payload, err := procedure.DecodeEvent(ev)
			if err != nil {
				return err
			}
			list = append(list, payload)
		}
		if st.Position >= c.GetLastPosition() {
			return errEnded
		}
		return nil
	})
	if errors.Is(err, errEnded) {
		return list, nil
	}
	return nil, err
}

// endWords says what an event tells of the end of an access.
func (a *app) endWords(e proto.Message) {
	switch m := e.(type) {
	case *emergencyv1.SessionTerminated:
		for _, r := range m.GetResults() {
			a.endResult(strings.ReplaceAll(r.GetEffect(), "_", " "), r)
		}
	case *emergencyv1.ConnectionDisabled:
		a.endResult("gateway", m.GetGateway())
		a.endResult("host", m.GetHost())
	case *emergencyv1.CredentialProvenUnusable:
		a.out.line("%s both refused it", good("proven:"))
	case *emergencyv1.CredentialStillUsable:
		what := "could not be tried"
		if m.GetSucceeded() {
			what = "WAS LET IN"
		}
		a.out.line("%s at the %s it %s; disable it again: epatch disable", bad("alarm:"), m.GetAt(), what)
	case *emergencyv1.SessionDiffCaptured:
		a.diffWords(m)
	case *emergencyv1.LeftoversReported:
		for _, l := range m.GetItems() {
			a.out.field(l.GetItem(), "%s", word(l.GetKind()))
		}
		if len(m.GetItems()) == 0 {
			a.out.line("      nothing was left on the host")
		}
	case *emergencyv1.SessionSealed:
		a.sealWords(m)
	}
}

func (a *app) endResult(what string, r *emergencyv1.EndResult) {
	state := any(word(r.GetOutcome()))
	switch r.GetOutcome() {
	case emergencyv1.EffectOutcome_EFFECT_OUTCOME_DONE:
		state = good("done")
	case emergencyv1.EffectOutcome_EFFECT_OUTCOME_FAILED, emergencyv1.EffectOutcome_EFFECT_OUTCOME_UNREACHABLE:
		state = bad(word(r.GetOutcome()))
	case emergencyv1.EffectOutcome_EFFECT_OUTCOME_UNSPECIFIED, emergencyv1.EffectOutcome_EFFECT_OUTCOME_NOT_NEEDED:
	}
	a.out.line("  %-18s %s  %s", what, state, r.GetDetail())
}

func (a *app) diffWords(m *emergencyv1.SessionDiffCaptured) {
	if n := len(m.GetChangedPaths()); n > 0 {
		a.out.line("      %s changed, from tree %s to %s", plural(n, "path", "paths"), short(m.GetBeforeTree()), short(m.GetAfterTree()))
		return
	}
	a.out.line("      the host's tree is as it was before")
}

func (a *app) sealWords(m *emergencyv1.SessionSealed) {
	state := any(bad(word(m.GetState())))
	if m.GetState() == emergencyv1.RecordingState_RECORDING_STATE_COMPLETE {
		state = good("complete")
	}
	a.out.line("      recording %s, sha256 %s, %s of it seen by the watcher", state, short(m.GetRecording().GetSha256()), fmt.Sprintf("%.1f %%", float64(m.GetWatchedPermille())/10))
	if n := m.GetFirstBadFrame(); n > 0 {
		a.out.line("      first bad frame: %d", n)
	}
}

func (a *app) leftoversCmd() *cobra.Command {
	var again bool
	cmd := leaf("leftovers [GRANT]", "What the session left on the host: processes, timers, keys, sockets", `
As the host's agent reported it at the end; what exactly is shown to those who may read it. With --again the agent looks once more.`, `
  epatch leftovers
  epatch leftovers --again`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			g, err := s.grant(args, over, "whose session is over")
			if err != nil {
				return err
			}
			if again || len(g.LeftoversReported) == 0 {
				ctx, cancel := context.WithTimeout(cmd.Context(), agentTime)
				defer cancel()
				a.progress("asking the agent on %s what is left", g.Host)
				return a.ending(ctx, &emergencyv1.ReportLeftoversRequest{Meta: s.meta, Grant: g.ID}, "what "+g.ID+" left on "+g.Host+" is reported")
			}
			return a.leftovers(cmd.Context(), s, g)
		})
	cmd.Flags().BoolVar(&again, "again", false, "the agent looks once more")
	return a.onGrant(cmd)
}

func (a *app) leftovers(ctx context.Context, s *scene, g *procedure.Grant) error {
	if a.opt.json {
		return a.out.jsonValue(g.Leftovers)
	}
	if len(g.Leftovers) == 0 {
		a.out.line("%s left nothing on %s", g.ID, g.Host)
	}
	var rows [][]any
	for _, l := range g.Leftovers {
		state := any(alert("to be explained"))
		if l.Explained.Position > 0 {
			state = "explained"
		}
		v, err := a.reveal(ctx, s.state.Incident, l.What)
		if err != nil {
			return err
		}
		what := any(v.Value)
		if v.Why != "" {
			what = dim(v.Why)
		}
		rows = append(rows, []any{"  " + l.Item, word(l.Kind), state, what})
	}
	a.out.table([]string{"  ITEM", "KIND", "STATE", "WHAT"}, rows)
	if len(unexplained(g)) > 0 {
		a.out.line("%s", a.typing("explain them, or each by its item: epatch explain-leftovers TEXT"))
	}
	return nil
}

func (a *app) explainLeftoversCmd() *cobra.Command {
	req := &emergencyv1.ExplainLeftoversRequest{}
	cmd := leaf("explain-leftovers TEXT [GRANT]", "Say what a session's leftovers are, and what becomes of them", `
All that are not explained yet, unless --item names one. Without it nothing is sealed.`, `
  epatch explain-leftovers "the dump under /var/tmp is needed until Friday, then clara removes it"
  epatch explain-leftovers "the backup job, it was there before" --item L2`,
		cobra.RangeArgs(1, 2), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			g, err := s.grant(args[1:], func(g *procedure.Grant) bool { return len(unexplained(g)) > 0 }, "with leftovers to explain")
			if err != nil {
				return err
			}
			req.Meta, req.Grant, req.Explanation = s.meta, g.ID, args[0]
			what := plural(len(unexplained(g)), "leftover", "leftovers")
			if req.Item != "" {
				what = req.Item
			}
			if _, err := a.act(cmd.Context(), req, "%s of %s explained", what, g.ID); err != nil {
				return err
			}
			a.then(cmd.Context(), s.state.Incident)
			return nil
		})
	cmd.Flags().StringVar(&req.Item, "item", "", "item, such as L1 (default: all that are not explained)")
	return cmd
}

// grantWord is a grant's state in words.
func grantWord(st procedure.GrantState) string {
	return strings.ReplaceAll(strings.ToLower(string(st)), "_", " ")
}

func (a *app) completeGrants(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	return a.asked(cmd, func(ctx context.Context) ([]string, error) {
		a.opt.json = true // no word on standard error
		s, err := a.scene(ctx)
		if err != nil {
			return nil, err
		}
		var list []string
		for i := range s.state.Grants {
			g := &s.state.Grants[i]
			list = append(list, g.ID+"\t"+harmless(g.Subject+", "+grantWord(g.State)))
		}
		return list, nil
	})
}
