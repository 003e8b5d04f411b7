// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Up and down between the strategies (procedure.md 1.2, 1.3 and 4.1).

// escalation is the ground as it was typed.
type escalation struct {
	unreachable, gap, unfit string
	failed                  uint64
	reason, debt            string
}

func (a *app) escalateCmd() *cobra.Command {
	e := &escalation{}
	cmd := leaf("escalate --reason TEXT", "Go from strategy 1 to strategy 2, on a ground that is proven (seed 2)", `
A ground is proven from the history: a team that was called often and long enough and did not come, one with nobody on duty, a
step that failed. Where exactly one is proven it need not be named. Or you sign that strategy 1 does not fit, with a code that is
public and a reason of at least 40 characters. Whoever is skipped is told; documentation and a dispute are owed from then on.`, `
  epatch escalate --reason "three rounds, nobody of the testers answers"
  epatch escalate --unreachable testing --reason "three rounds, nobody answers"
  epatch escalate --failed 31 --reason "the test server's data is too old for this bug"
  epatch escalate --unfit exploit-active --reason "the hole is being used against members right now, see the log of mirror 2"`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error { return a.escalate(cmd.Context(), e) })
	f := cmd.Flags()
	f.StringVar(&e.unreachable, "unreachable", "", "team that was called and did not come")
	f.StringVar(&e.gap, "gap", "", "team with nobody on duty")
	f.Uint64Var(&e.failed, "failed", 0, "position of the test, veto, apply or deployment that failed")
	f.StringVar(&e.unfit, "unfit", "", "why strategy 1 does not fit: "+either(words(emergencyv1.UnfitCode(0))))
	f.StringVar(&e.reason, "reason", "", "in words, at least 10 characters, 40 with --unfit; restricted")
	f.StringVar(&e.debt, "debt-reason", "", "why although you owe what is overdue; asked only then; restricted")
	cmd.MarkFlagsMutuallyExclusive("unreachable", "gap", "failed", "unfit")
	complete(cmd, "unreachable", words(emergencyv1.Team(0))...)
	complete(cmd, "gap", words(emergencyv1.Team(0))...)
	complete(cmd, "unfit", words(emergencyv1.UnfitCode(0))...)
	return cmd
}

func (a *app) escalate(ctx context.Context, e *escalation) error {
	req, err := e.ground()
	if err != nil {
		return err
	}
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	if req.Ground == 0 {
		if err := a.findGround(s, req); err != nil {
			return err
		}
	}
	req.Meta, req.Reason, req.DebtReason = s.meta, e.reason, e.debt
	if _, err := a.act(ctx, req, "%s is under strategy 2: %s", s.state.Incident, groundWords(req)); err != nil {
		return err
	}
	if !a.opt.json {
		a.out.line("      everybody whose step is skipped is told; owed from now on: documentation and a dispute")
	}
	a.then(ctx, s.state.Incident)
	return nil
}

// ground is what the flags say; none if they say nothing.
func (e *escalation) ground() (req *emergencyv1.EscalateRequest, err error) {
	req = &emergencyv1.EscalateRequest{}
	switch {
	case e.unreachable != "":
		req.Ground = emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE
		req.Team, err = parse[emergencyv1.Team]("team", e.unreachable)
	case e.gap != "":
		req.Ground = emergencyv1.EscalationGround_ESCALATION_GROUND_COVERAGE_GAP
		req.Team, err = parse[emergencyv1.Team]("team", e.gap)
	case e.failed != 0:
		req.Ground, req.Evidence = emergencyv1.EscalationGround_ESCALATION_GROUND_STEP_FAILED, e.failed
	case e.unfit != "":
		req.Ground = emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT
		req.Code, err = parse[emergencyv1.UnfitCode]("code", e.unfit)
	}
	return req, err
}

// findGround takes the one ground that the history proves. None or several are the person's to say.
func (a *app) findGround(s *scene, req *emergencyv1.EscalateRequest) error {
	proven := procedure.ProvenGrounds(s.state, a.proc.Now())
	if len(proven) == 1 {
		req.Ground, req.Team, req.Evidence = proven[0].Ground, proven[0].Team, proven[0].Evidence
		return nil
	}
	err := usage("the history of %s proves no ground for strategy 2 yet; name the one that you mean", s.state.Incident)
	if len(proven) > 1 {
		err = usage("the history of %s proves %d grounds for strategy 2; name one", s.state.Incident, len(proven))
	}
	for _, g := range proven {
		err = err.hint("%s: epatch escalate %s --reason TEXT", groundWords(g), groundFlag(g))
	}
	if len(proven) == 0 {
		err = err.hint("a team that does not come is called again, until it counts as unreachable: epatch call-out")
	}
	return err.hint("strategy 1 does not fit, which you sign: epatch escalate --unfit CODE --reason TEXT (CODE: %s)", either(words(emergencyv1.UnfitCode(0))))
}

func groundFlag(g *emergencyv1.EscalateRequest) string {
	switch g.GetGround() {
	case emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE:
		return "--unreachable " + word(g.GetTeam())
	case emergencyv1.EscalationGround_ESCALATION_GROUND_COVERAGE_GAP:
		return "--gap " + word(g.GetTeam())
	case emergencyv1.EscalationGround_ESCALATION_GROUND_STEP_FAILED:
		return fmt.Sprintf("--failed %d", g.GetEvidence())
	case emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT, emergencyv1.EscalationGround_ESCALATION_GROUND_UNSPECIFIED:
	}
	return "--unfit " + word(g.GetCode())
}

func groundWords(g *emergencyv1.EscalateRequest) string {
	switch g.GetGround() {
	case emergencyv1.EscalationGround_ESCALATION_GROUND_TEAM_UNREACHABLE:
		return "the " + procedure.TeamWord(g.GetTeam()) + " team was called and does not come"
	case emergencyv1.EscalationGround_ESCALATION_GROUND_COVERAGE_GAP:
		return "the " + procedure.TeamWord(g.GetTeam()) + " team has nobody on duty"
	case emergencyv1.EscalationGround_ESCALATION_GROUND_STEP_FAILED:
		return fmt.Sprintf("a step failed at position %d", g.GetEvidence())
	case emergencyv1.EscalationGround_ESCALATION_GROUND_UNFIT, emergencyv1.EscalationGround_ESCALATION_GROUND_UNSPECIFIED:
	}
	return "strategy 1 does not fit, " + word(g.GetCode())
}

func (a *app) jointCmd() *cobra.Command {
	req := &emergencyv1.SignJointDeclarationRequest{}
	var agree bool
	cmd := leaf("joint-declare --why-not-1 TEXT --why-not-2 TEXT --why-live TEXT", "Sign one half of the joint declaration that leads to strategy 3 (seed 3.2)", `
One critical admin and one software assessor, two persons, within the policy's window of each other. Each text has at least 40
characters and is restricted. Without texts the other half is shown, and for how long it still counts; --agree signs the same texts.`, `
  epatch joint-declare
  epatch joint-declare --agree
  epatch joint-declare --why-not-1 "TEXT" --why-not-2 "TEXT" --why-live "TEXT"`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error { return a.jointDeclare(cmd.Context(), req, agree) })
	f := cmd.Flags()
	f.StringVar(&req.WhyNot_1, "why-not-1", "", "why strategy 1 does not solve it; restricted")
	f.StringVar(&req.WhyNot_2, "why-not-2", "", "why strategy 2 does not solve it; restricted")
	f.StringVar(&req.WhyLive, "why-live", "", "why the live system must be analysed; restricted")
	f.BoolVar(&agree, "agree", false, "sign the texts of the other half")
	for _, flag := range []string{"why-not-1", "why-not-2", "why-live"} {
		cmd.MarkFlagsMutuallyExclusive("agree", flag)
	}
	return cmd
}

func (a *app) jointDeclare(ctx context.Context, req *emergencyv1.SignJointDeclarationRequest, agree bool) error {
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	half, until := s.firstHalf()
	if half != nil {
		texts, err := a.jointTexts(ctx, s, half)
		if err != nil {
			return err
		}
		a.showHalf(half, until, texts)
		if agree {
			req.WhyNot_1, req.WhyNot_2, req.WhyLive = texts[0], texts[1], texts[2]
		}
	}
	if req.GetWhyNot_1() == "" && req.GetWhyNot_2() == "" && req.GetWhyLive() == "" {
		return noTexts(half, agree)
	}
	req.Meta = s.meta
	c, err := a.act(ctx, req, "your half of the joint declaration is signed")
	if err != nil || a.opt.json {
		return err
	}
	if s.state, err = s.client.State(ctx, c.GetIncident()); err != nil {
		return err
	}
	if s.state.Strategy == 3 {
		a.out.line("%s is under strategy 3; the critical team lead permits access, a critical admin grants it", bold(s.state.Incident))
	} else if mine, until := s.firstHalf(); mine != nil {
		a.out.line("%s", a.typing("      the other half counts until "+a.out.at(until)+", by "+otherHalf(s, mine)+": epatch joint-declare --agree"))
	}
	a.then(ctx, s.state.Incident)
	return nil
}

func noTexts(half *procedure.JointHalf, agree bool) error {
	err := usage("three texts are needed: why not strategy 1, why not strategy 2, why the live system")
	if half == nil && agree {
		err = usage("nobody has signed a half that still counts; the first one is yours to write")
	}
	if half != nil {
		err = err.hint("to sign the same: epatch joint-declare --agree")
	}
	return err.hint("%s", howTyped("SignJointDeclaration"))
}

// firstHalf is the half that waits for the other one, and until when it counts; nil if there is none.
func (s *scene) firstHalf() (*procedure.JointHalf, time.Time) {
	if s.state.Strategy == 3 || len(s.state.Joint) == 0 {
		return nil, time.Time{}
	}
	half := &s.state.Joint[0]
	until := half.At.Add(s.state.Policy.Duration("joint.window"))
	if s.client.Now().After(until) {
		return nil, time.Time{}
	}
	return half, until
}

// otherHalf says who could sign the half that is missing.
func otherHalf(s *scene, have *procedure.JointHalf) string {
	role := emergencyv1.Role_ROLE_CRITICAL_ADMIN
	if have.Half == role {
		role = emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR
	}
	return procedure.RoleWord(role) + " (" + strings.Join(s.book.PersonsWith(role, s.client.Now()), ", ") + ")"
}

// jointTexts are the three texts of a half, proven to be those that were signed; none where the person may not read them.
func (a *app) jointTexts(ctx context.Context, s *scene, half *procedure.JointHalf) (texts [3]string, err error) {
	fields, err := a.restrictedAt(ctx, s, half.Position)
	if err != nil {
		return texts, err
	}
	for i, name := range []string{"why_not_1", "why_not_2", "why_live"} {
		v, err := a.reveal(ctx, s.state.Incident, fields[name])
		if err != nil {
			return texts, err
		}
		if v.Why != "" {
			return [3]string{}, nil
		}
		texts[i] = v.Value
	}
	sum := sha256.New()
	for _, t := range texts {
		fmt.Fprintf(sum, "%s\n", t)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != half.Result {
		return texts, fail(exitUnverified, "the texts that came for the half at position %d are not those that %s signed", half.Position, half.By).
			hint("do not sign them; ask %s", half.By)
	}
	return texts, nil
}

func (a *app) showHalf(half *procedure.JointHalf, until time.Time, texts [3]string) {
	if a.opt.json {
		return
	}
	a.out.line("%s signed one half as %s, position %d; it counts until %s", bold(half.By), procedure.RoleWord(half.Half), half.Position, a.out.at(until))
	for i, name := range []string{"why not 1", "why not 2", "why live"} {
		if texts[i] != "" {
			a.out.field(name, "%s", texts[i])
		}
	}
}

func (a *app) deEscalateCmd() *cobra.Command {
	req := &emergencyv1.DeEscalateRequest{}
	cmd := leaf("de-escalate STRATEGY --reason TEXT", "Go back to a lower strategy; what is owed stays owed", `
Refused while a connection is granted or a patch is being applied. The reason is public.`, `
  epatch de-escalate 1 --reason "both testers are here now and the test server is up again"`,
		oneOf([]string{"1", "2"}, 0), func(cmd *cobra.Command, args []string) (err error) {
			to, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil || to < 1 || to > 2 {
				return usage("%q is no lower strategy", args[0]).hint("one of: 1, 2")
			}
			if strings.TrimSpace(req.GetReason()) == "" {
				return usage("say why: --reason")
			}
			if req.Meta, err = a.meta(cmd.Context()); err != nil {
				return err
			}
			req.To = uint32(to)
			c, err := a.act(cmd.Context(), req, "back to strategy %d", to)
			if err == nil {
				a.then(cmd.Context(), c.GetIncident())
			}
			return err
		})
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, at least 20 characters; public")
	cmd.ValidArgs = []string{"1", "2"}
	return cmd
}
