// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The incident as a whole (procedure.md 4.1).

func (a *app) incidentCommands() []*cobra.Command {
	return []*cobra.Command{a.declareCmd(), a.mergeCmd(), a.standDownCmd(), a.escalateCmd(), a.jointCmd(), a.deEscalateCmd(), a.waiveCmd(), a.leadCmd(), a.noteCmd(), a.submitCmd(), a.confirmLateCmd(), a.documentCmd(), a.boardCmd(), a.closeCmd()}
}

func (a *app) declareCmd() *cobra.Command {
	req := &emergencyv1.DeclareRequest{}
	var severity, class string
	cmd := leaf("declare SYMPTOM --reason TEXT --class CLASS", "Declare an emergency; all teams are called (seed 1.1)", `
Declare a critical issue to be an emergency. Critical admins and software assessors can. The system calls all four teams at
once. System, severity, class and time are public within minutes; symptom, component and reason are not.`, `
  epatch declare "login answers 500 since 02:40" --reason "no member can log in" --class outage
  epatch declare "forged certificate seen" --reason "signer takes any CSR" --class exploit --component signer
  epatch declare "fire drill" --reason "quarterly drill of the teams" --class other --drill`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) (err error) {
			if req.Severity, err = parse[emergencyv1.Severity]("severity", severity); err != nil {
				return err
			}
			if req.ReasonClass, err = parse[emergencyv1.ReasonClass]("class", class); err != nil {
				return err
			}
			req.Symptom = args[0]
			return a.declare(cmd.Context(), req)
		})
	f := cmd.Flags()
	f.StringVar(&req.System, "system", "", "critical system (default: the only one in the policy)")
	f.StringVar(&req.Component, "component", "", "exact component; restricted")
	f.StringVar(&req.Reason, "reason", "", "why it is an emergency, at least 10 characters; restricted")
	f.StringVar(&severity, "severity", "high", "initial severity: high or normal")
	f.StringVar(&class, "class", "", "public class of the reason: vulnerability, exploit, outage, data or other")
	f.BoolVar(&req.Drill, "drill", false, "a drill: same rules, never a real host")
	complete(cmd, "severity", words(emergencyv1.Severity(0))...)
	complete(cmd, "class", words(emergencyv1.ReasonClass(0))...)
	return cmd
}

func (a *app) declare(ctx context.Context, req *emergencyv1.DeclareRequest) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if req.System == "" {
		if req.System, err = a.onlySystem(ctx); err != nil {
			return err
		}
	}
	req.Meta = &emergencyv1.CommandMeta{}
	answer, err := c.Call(ctx, req)
	if err != nil {
		return err
	}
	if a.opt.json {
		return a.out.json(answer)
	}
	id := answer.GetCommitted().GetIncident()
	what := fmt.Sprintf("emergency %s declared on %s, severity %s", id, req.System, word(req.Severity))
	if req.Drill {
		what = fmt.Sprintf("drill %s declared on %s", id, req.System)
	}
	a.recorded(answer.GetCommitted(), what)
	a.out.line("      the teams are being called; see who answers: epatch watch %s", id)
	if r, ok := answer.(*emergencyv1.DeclareResponse); ok && len(r.GetPossibleDuplicates()) > 0 {
		a.out.line("%s the same system already has %s; if it is the same issue: epatch merge %s --into %s --reason TEXT",
			alert("look:"), strings.Join(r.GetPossibleDuplicates(), ", "), id, r.GetPossibleDuplicates()[0])
	}
	return nil
}

// onlySystem is the system of a policy that names just one.
func (a *app) onlySystem(ctx context.Context) (string, error) {
	c, err := a.client()
	if err != nil {
		return "", err
	}
	book, err := c.Book(ctx)
	if noKeyring(err) {
		return "", usage("which system? name it with --system")
	}
	if err != nil {
		return "", err
	}
	policy := book.PolicyInForce(a.proc.Now())
	if policy == nil {
		return "", fail(exitRefused, "no policy is in force").hint("the Board publishes one: epatch policy publish")
	}
	var list []string
	for _, s := range policy.Systems() {
		list = append(list, s.GetSystem())
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return "", usage("which system? name it with --system").hint("one of: %s", strings.Join(list, ", "))
}

func (a *app) mergeCmd() *cobra.Command {
	req := &emergencyv1.MergeIntoRequest{}
	cmd := leaf("merge DUPLICATE --into INCIDENT --reason TEXT", "Merge a duplicate into an earlier incident", `
The duplicate ends, its history stays, and its responders are told to answer in the other incident.`, `
  epatch merge e20261124.2 --into e20261124.1 --reason "both are the broken login"`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
			if req.Target == "" {
				return usage("into which incident? name it with --into")
			}
			a.merging = [2]string{args[0], req.Target}
			req.Meta = &emergencyv1.CommandMeta{Incident: args[0]}
			_, err := a.act(cmd.Context(), req, "%s merged into %s", args[0], req.Target)
			return err
		})
	cmd.Flags().StringVar(&req.Target, "into", "", "earlier incident that goes on")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why they are the same, at least 10 characters")
	cmd.ValidArgsFunction = a.completeIncidents
	_ = cmd.RegisterFlagCompletionFunc("into", a.completeIncidents) // fails only for a flag that does not exist
	return cmd
}

func (a *app) standDownCmd() *cobra.Command {
	return leaf("stand-down REASON", "End the emergency while nothing was changed on the host", `
Everybody who was called is told. The reason is public: it stands in the public log. What is owed stays owed until it is
done, and then the incident can be closed.`, `
  epatch stand-down "false alarm: the monitor's own certificate had expired"`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
			meta, err := a.meta(cmd.Context())
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.StandDownRequest{Meta: meta, Reason: args[0]}, "stood down, with a reason that is public; everybody who was called is told")
			return err
		})
}

func (a *app) waiveCmd() *cobra.Command {
	var reason string
	controls := map[string]emergencyv1.Control{"tests": emergencyv1.Control_CONTROL_TEST_QUORUM, "observer": emergencyv1.Control_CONTROL_OBSERVER}
	cmd := leaf("waive CONTROL [REVISION] --reason TEXT", "Waive a control that cannot be had tonight, as debt", `
The assessment team lead waives the second test (never the first), the critical team lead the observer. It is a deviation
that is public, has to be made up for, and ends when the revision is replaced.`, `
  epatch waive tests --reason "the second tester cannot be reached, three rounds"
  epatch waive observer --reason "no other critical admin answers since an hour"`,
		oneOf([]string{"tests", "observer"}, 1), func(cmd *cobra.Command, args []string) error {
			control, ok := controls[args[0]]
			if !ok {
				return usage("%q cannot be waived", args[0]).hint("one of: tests, observer")
			}
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			r, err := s.revision(args[1:])
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.WaiveControlRequest{Meta: s.meta, Control: control, Binding: bind(r), Reason: reason}, "%s waived for %s, as debt", args[0], r.ID)
			return err
		})
	cmd.Flags().StringVar(&reason, "reason", "", "why, at least 20 characters; restricted")
	cmd.ValidArgsFunction = a.completeThenRevisions("tests", "observer")
	return cmd
}

func (a *app) leadCmd() *cobra.Command {
	req := &emergencyv1.RecordLeadDecisionRequest{}
	list := words(emergencyv1.LeadDecision(0))
	cmd := leaf("lead-decision DECISION", "Record the critical team lead's decision (SP 3.2.3.1)", `
Say whether the handling is approved and whether it is referred to dispute resolution. Not referring a high severity is a
deviation and needs a reason (SP 5.4). A referred case waits for a dispute; until it is decided the incident cannot be closed.`, `
  epatch lead-decision approve --reason "regular handling, no data was exposed"
  epatch lead-decision approve --refer
  epatch lead-decision no-effect --strategy 2 --reason "the escalation was not used after all"`,
		oneOf(list, 0), func(cmd *cobra.Command, args []string) (err error) {
			if req.Decision, err = parse[emergencyv1.LeadDecision]("decision", args[0]); err != nil {
				return err
			}
			if !req.Refer && strings.TrimSpace(req.GetReason()) == "" {
				return usage("say why it is not referred to dispute resolution: --reason").hint("or refer it: --refer")
			}
			if req.Meta, err = a.meta(cmd.Context()); err != nil {
				return err
			}
			referred := "not referred to dispute resolution"
			if req.Refer {
				referred = "referred to dispute resolution"
			}
			c, err := a.act(cmd.Context(), req, "decision recorded: %s, %s", args[0], referred)
			if err == nil && req.Refer && !a.opt.json {
				a.out.line("%s", a.typing("      a dispute is owed now: epatch dispute file -i "+c.GetIncident()))
			}
			return err
		})
	cmd.Flags().BoolVar(&req.Refer, "refer", false, "refer the handling to dispute resolution; a dispute is owed then")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; needed when not referred; restricted")
	cmd.Flags().Uint32Var(&req.Strategy, "strategy", 0, "with no-effect: the strategy that changed nothing (default: the active one)")
	cmd.ValidArgs = list
	return cmd
}

func (a *app) noteCmd() *cobra.Command {
	req := &emergencyv1.AnnotateLogRequest{}
	cmd := leaf("note TEXT", "Add a note to an entry of the emergency log", `
The note is about the last event unless --entry names another one. It is public unless --restricted.`, `
  epatch note "mirror 2 was taken out of rotation by telephone at 03:20"
  epatch note --entry 14 --restricted "the reviewer was reached on the private number"`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) (err error) {
			if req.Meta, err = a.meta(cmd.Context()); err != nil {
				return err
			}
			if req.Entry == 0 {
				s, err := a.scene(cmd.Context())
				if err != nil {
					return err
				}
				req.Entry = s.state.Position
			}
			req.Text = args[0]
			kind := "public"
			if req.Restricted {
				kind = "restricted"
			}
			_, err = a.act(cmd.Context(), req, "%s note on entry %d", kind, req.Entry)
			return err
		})
	cmd.Flags().Uint64Var(&req.Entry, "entry", 0, "position of the event that it is about (default: the last)")
	cmd.Flags().BoolVar(&req.Restricted, "restricted", false, "keep the text out of the public log")
	return cmd
}

func (a *app) closeCmd() *cobra.Command {
	req := &emergencyv1.CloseRequest{}
	list := words(emergencyv1.Outcome(0))
	cmd := leaf("close OUTCOME SUMMARY", "Close the incident; refused while something is owed", `
The summary goes to the public log. It states facts, never blame or approval.`, `
  epatch close fixed "login works again since 04:12; the session table was missing an index"`,
		cobra.ExactArgs(2), func(cmd *cobra.Command, args []string) (err error) {
			if req.Outcome, err = parse[emergencyv1.Outcome]("outcome", args[0]); err != nil {
				return err
			}
			if req.Meta, err = a.meta(cmd.Context()); err != nil {
				return err
			}
			req.Summary = args[1]
			_, err = a.act(cmd.Context(), req, "closed: %s", args[0])
			return err
		})
	cmd.ValidArgs = list
	return cmd
}
