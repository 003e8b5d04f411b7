// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// What is done on and about the host, beside the deployment itself (procedure.md 4.4).

func (a *app) hostCommands() []*cobra.Command {
	return []*cobra.Command{
		a.observeCmd(), a.dryRunCmd(), a.deployCmd(), a.reportApplyCmd(), a.backOutCmd(), a.rollBackCmd(), a.healthCmd(),
		group("replication", "Bring the applied state to the release branch, and compare", a.checkReplicationCmd(), a.pushReplicationCmd()), a.explainDriftCmd(),
	}
}

// about reads the incident and the revision that was named, or the one that an act on the host is about.
func (a *app) about(ctx context.Context, named []string) (*scene, *procedure.Revision, error) {
	s, err := a.scene(ctx)
	if err != nil {
		return nil, nil, err
	}
	r, err := s.revision(named)
	return s, r, err
}

// deployed is the revision that was named, or else the one of the latest attempt on the host.
func (a *app) deployed(ctx context.Context, named []string) (*scene, *procedure.Revision, error) {
	s, err := a.scene(ctx)
	if err != nil {
		return nil, nil, err
	}
	if n := len(s.state.Applies); len(named) == 0 && n > 0 {
		named = []string{s.state.Applies[n-1].Revision}
	}
	r, err := s.revision(named)
	return s, r, err
}

func (a *app) observeCmd() *cobra.Command {
	var after bool
	cmd := leaf("observe [REVISION]", "Confirm that you observe the deployment, or check it afterwards (SP 4.1)", `
The second critical admin says so before the deployment begins. With --after you have checked the host independently; its
agent is asked for the tree again.`, `
  epatch observe
  epatch observe --after`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, r, err := a.about(cmd.Context(), args)
			if after {
				s, r, err = a.deployed(cmd.Context(), args)
			}
			if err != nil {
				return err
			}
			req := &emergencyv1.ConfirmObserverRequest{Meta: s.meta, Binding: bind(r), Kind: emergencyv1.ObserverKind_OBSERVER_KIND_BEFORE, Executor: s.known().Observed(r)}
			done := fmt.Sprintf("you observe the deployment of %s", r.ID)
			if after {
				req.Kind, done = emergencyv1.ObserverKind_OBSERVER_KIND_AFTER, fmt.Sprintf("checked afterwards: the host holds the reviewed tree of %s", r.ID)
			}
			if _, err := a.act(cmd.Context(), req, "%s", done); err != nil {
				return err
			}
			a.then(cmd.Context(), s.state.Incident)
			return nil
		})
	cmd.Flags().BoolVar(&after, "after", false, "an independent check after the deployment")
	cmd.ValidArgsFunction = a.completeRevisions
	return cmd
}

func (a *app) dryRunCmd() *cobra.Command {
	cmd := leaf("dry-run [REVISION]", "Try the patch on the host without changing it (seed 1.9)", `
The host's agent says whether the host holds the base tree, and whether the patch gives exactly the reviewed tree there.
epatch deploy does this by itself.`, `
  epatch dry-run`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, r, err := a.about(cmd.Context(), args)
			if err != nil {
				return err
			}
			return a.dryRun(cmd.Context(), s, r)
		})
	cmd.ValidArgsFunction = a.completeRevisions
	return cmd
}

// agentTime is how long an agent on a host may take for a job.
const agentTime = 2 * time.Minute

// dryRun runs it and says what the agent found.
func (a *app) dryRun(ctx context.Context, s *scene, r *procedure.Revision) error {
	host := s.state.Host()
	a.progress("asking the agent on %s to try %s", host, r.ID)
	wait, cancel := context.WithTimeout(ctx, agentTime)
	defer cancel()
	answer, err := a.give(wait, &emergencyv1.DryRunRequest{Meta: s.fresh(), Binding: bind(r), Host: host})
	if err != nil {
		return err
	}
	if a.opt.json {
		if err := a.out.json(answer); err != nil {
			return err
		}
	}
	if s.state, err = s.client.State(ctx, s.state.Incident); err != nil {
		return err
	}
	i := slices.IndexFunc(s.state.DryRuns, func(x procedure.DryRun) bool { return x.Position == answer.GetCommitted().GetFirstPosition() })
	if i < 0 || !s.state.DryRuns[i].Clean {
		return fail(exitDiffers, "the dry run of %s on %s is not clean: the patch does not give exactly the reviewed tree there", r.ID, host).
			hint("nothing was changed on %s", host).hint("what differs: epatch timeline --from %d", answer.GetCommitted().GetFirstPosition()).
			hint("compare host and branch: epatch replication check").hint("then a revision against what the host runs: epatch patch register FILE --bug ID")
	}
	if !a.opt.json {
		a.recorded(answer.GetCommitted(), fmt.Sprintf("dry run of %s on %s is clean: it gives exactly the reviewed tree", r.ID, host))
	}
	return nil
}

func (a *app) healthCmd() *cobra.Command {
	var checks string
	list := words(emergencyv1.HealthResult(0))
	cmd := leaf("health HEALTH [REVISION]", "Record the health of the system after the patch (seed 1.9)", `
Due half an hour after the patch was applied.`, `
  epatch health good --checks "login, issuing and revoking a certificate; load as before"`,
		oneOf(list, 1), func(cmd *cobra.Command, args []string) error {
			result, err := parse[emergencyv1.HealthResult]("health", args[0])
			if err != nil {
				return err
			}
			s, r, err := a.deployed(cmd.Context(), args[1:])
			if err != nil {
				return err
			}
			if _, err := a.act(cmd.Context(), &emergencyv1.RecordHealthRequest{Meta: s.meta, Binding: bind(r), Result: result, Checks: checks}, "health after %s: %s", r.ID, args[0]); err != nil {
				return err
			}
			if result == emergencyv1.HealthResult_HEALTH_RESULT_BAD && !a.opt.json {
				a.out.line("%s", a.typing("      to take the patch back: epatch roll-back --reason TEXT"))
			}
			a.then(cmd.Context(), s.state.Incident)
			return nil
		})
	cmd.Flags().StringVar(&checks, "checks", "", "what you checked; restricted")
	cmd.ValidArgsFunction = a.completeThenRevisions(list...)
	return cmd
}

func (a *app) checkReplicationCmd() *cobra.Command {
	return leaf("check", "Compare the critical host with the release branch (seed 2.5)", `
The agent reports the host's tree, the service reads the branch; nothing is claimed by hand.`, `
  epatch replication check`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), agentTime)
			defer cancel()
			a.progress("asking the agent on %s for its tree", s.state.Host())
			c, err := a.act(ctx, &emergencyv1.CheckReplicationRequest{Meta: s.meta}, "host and branch compared")
			if err != nil || a.opt.json {
				return err
			}
			if s.state, err = s.client.State(ctx, s.state.Incident); err != nil {
				return err
			}
			for _, r := range s.state.Replications {
				if r.Position >= c.GetFirstPosition() && r.Position <= c.GetLastPosition() {
					a.compared(s, r)
				}
			}
			a.sequel(s)
			return nil
		})
}

func (a *app) compared(s *scene, r procedure.Replication) {
	host, branch := s.state.Host(), s.state.ReleaseRef()
	switch r.Kind {
	case emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL:
		a.out.line("      %s %s and %s hold the same tree", good("equal:"), host, branch)
	case emergencyv1.ReplicationResult_REPLICATION_RESULT_LAG:
		a.out.line("      %s what was applied on %s has not arrived on %s yet: %s", alert("lag:"), host, branch, a.typing("epatch replication push"))
	case emergencyv1.ReplicationResult_REPLICATION_RESULT_DRIFT, emergencyv1.ReplicationResult_REPLICATION_RESULT_UNSPECIFIED:
		a.out.line("      %s %s between %s and %s that nothing here explains: %s", bad("drift:"), plural(len(r.Paths), "path differs", "paths differ"), host, branch, a.typing("epatch explain-drift"))
	}
}

func (a *app) pushReplicationCmd() *cobra.Command {
	req := &emergencyv1.PushReplicationRequest{}
	cmd := leaf("push", "Bring the applied state to the release branch (seed 2.5)", `
Pushes the commit of the applied revision, unless another one is named.`, `
  epatch replication push`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) (err error) {
			if req.Meta, err = a.meta(cmd.Context()); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), agentTime)
			defer cancel()
			if _, err = a.act(ctx, req, "pushed to the release branch"); err != nil {
				return err
			}
			a.then(cmd.Context(), req.Meta.GetIncident())
			return nil
		})
	cmd.Flags().StringVar(&req.Commit, "commit", "", "commit to push (default: that of the applied revision)")
	return cmd
}

func (a *app) explainDriftCmd() *cobra.Command {
	var by, text string
	cmd := leaf("explain-drift [PATH-OR-COMMITMENT] --by WHAT --text TEXT", "Explain a path that differs between host and branch (seed 2.5)", `
Text alone explains nothing: name the revision, the revert or the case that accounts for the path. Without a path the open
ones are listed.`, `
  epatch explain-drift
  epatch explain-drift www/config.php --by P1r1 --text "the patch creates it; the branch has it from tomorrow's push"
  epatch explain-drift 3fa1c2 --by revert:0d3a7b9 --text "hand edit of May, reverted"`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			open := openDrift(cmd.Context(), s)
			if len(args) == 0 && (by == "" || len(open) != 1) {
				return a.listDrift(s, open)
			}
			path, err := findDrift(open, args)
			if err != nil {
				return err
			}
			_, err = a.act(cmd.Context(), &emergencyv1.ExplainDriftRequest{Meta: s.meta, PathCommitment: path.commitment, BoundTo: by, Explanation: text}, "%s explained by %s", path, by)
			return err
		})
	cmd.Flags().StringVar(&by, "by", "", "what explains it: a revision, revert:COMMIT, or a case number")
	cmd.Flags().StringVar(&text, "text", "", "in words; restricted")
	return cmd
}

// drifting is a path that differs: its commitment, and its name where the person may read it.
type drifting struct{ commitment, name string }

func (d drifting) String() string {
	if d.name != "" {
		return d.name
	}
	return "path " + short(d.commitment)
}

func openDrift(ctx context.Context, s *scene) []drifting {
	var list []drifting
	for _, p := range s.state.Drift {
		if p.Explained.Position > 0 {
			continue
		}
		d := drifting{commitment: p.Commitment}
		answer, err := s.client.Query().ReadRestricted(ctx, &dashboardv1.ReadRestrictedRequest{Incident: s.state.Incident, Commitment: p.Commitment})
		if err == nil { // else the commitment has to do: the path is restricted, and its keeper may be away
			d.name = answer.GetValue()
		}
		list = append(list, d)
	}
	return list
}

func (a *app) listDrift(s *scene, open []drifting) error {
	if len(open) == 0 {
		return fail(exitRefused, "%s has no path that is to be explained", s.state.Incident).hint("compare host and branch: epatch replication check")
	}
	a.out.line("%s to be explained:", plural(len(open), "path", "paths"))
	for _, d := range open {
		a.out.line("  %s  %s", short(d.commitment), d.name)
	}
	return usage("name the path, and what explains it: --by REVISION, revert:COMMIT or a case number")
}

func findDrift(open []drifting, args []string) (drifting, error) {
	if len(args) == 0 {
		return open[0], nil
	}
	var found []drifting
	for _, d := range open {
		if d.name == args[0] || len(args[0]) >= 6 && strings.HasPrefix(d.commitment, args[0]) {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return drifting{}, usage("%q names %s that is to be explained", args[0], plural(len(found), "path", "paths")).hint("list them: epatch explain-drift")
	}
	return found[0], nil
}
