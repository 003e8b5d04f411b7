// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

// What strategies 2 and 3 add to an incident, in the words of the query API: how it came to them, remote access, the update cycle
// afterwards, and what was captured offline.

func strategiesOf(s *procedure.State) []*dashboardv1.StrategyChange {
	var list []*dashboardv1.StrategyChange
	for _, c := range s.Strategies {
		list = append(list, &dashboardv1.StrategyChange{
			Mark: mark(c.Mark), From: c.From, To: c.To, Ground: c.Ground, Team: c.Team, Code: c.Code,
			Skipped: append([]string(nil), c.Skipped...), Signers: append([]string(nil), c.Signers...),
		})
	}
	return list
}

func lateRecordsOf(s *procedure.State) []*dashboardv1.LateRecord {
	var list []*dashboardv1.LateRecord
	for _, l := range s.Late {
		list = append(list, &dashboardv1.LateRecord{
			Mark: mark(l.Mark), LastPosition: l.Last, Role: l.Role, Command: l.Command, CapturedAt: instant(l.Captured), Confirmed: mark(l.Confirmed),
		})
	}
	return list
}

func permissionsOf(s *procedure.State) []*dashboardv1.AccessPermission {
	var list []*dashboardv1.AccessPermission
	for _, p := range s.Permissions {
		list = append(list, &dashboardv1.AccessPermission{Mark: mark(p.Mark), Subject: p.Subject, ValidUntil: instant(p.ValidUntil), Purpose: restricted(p.Purpose)})
	}
	return list
}

func grantsOf(s *procedure.State) []*dashboardv1.Grant {
	var list []*dashboardv1.Grant
	for i := range s.Grants {
		g := &s.Grants[i]
		out := &dashboardv1.Grant{
			Id: g.ID, State: string(g.State), Subject: g.Subject, Watcher: g.Watcher, NamedWatcher: g.Named, Granter: g.Granter, Host: g.Host, Position: g.Position,
			IssuedAt: instant(g.IssuedAt), FirstUseUntil: instant(g.FirstUseUntil), MaxSeconds: int64((g.Max + g.Extension).Seconds()), Permission: g.Permission, Agent: g.Agent,
			Armed: mark(g.Armed), Consumed: mark(g.Consumed), Opened: mark(g.Opened), Frozen: mark(g.Frozen), FreezeCause: g.FreezeCause, FreezeMode: g.FreezeMode,
			Resumed: mark(g.Resumed), Extended: mark(g.Extended), Expired: mark(g.Expired), Terminated: mark(g.Terminated), EndCause: g.Cause, Disabled: mark(g.DisabledDone),
			ProvenUnusable: mark(g.Proven), StillUsable: mark(g.StillUsable), RoleEnded: mark(g.RoleEnded), Diff: mark(g.Diff.Mark), BeforeTree: g.BeforeTree,
			AfterTree: g.Diff.AfterTree, ChangedPaths: uint32(len(g.Diff.Paths)), DiffProblem: g.Diff.Problem, // bounded by what an event can hold
			Sealed: mark(g.Sealed), RecordingState: g.Record, RecordingSha256: g.Recording.GetSha256(), OutputBytes: g.OutputOffset, InputBytes: g.InputBytes, InputDiscarded: g.InputDiscarded,
		}
		for _, l := range g.Leftovers {
			out.Leftovers = append(out.Leftovers, &dashboardv1.Leftover{Item: l.Item, Kind: l.Kind, What: restricted(l.What), Reported: mark(l.Reported), Explained: mark(l.Explained)})
		}
		list = append(list, out)
	}
	return list
}

func cycleOf(r *procedure.Revision) *dashboardv1.Cycle {
	c := r.Cycle
	if c == nil {
		return nil
	}
	return &dashboardv1.Cycle{
		Entered: mark(c.Entered), Commit: c.Entered.Result, BugId: c.BugID, Checks: inOrder(phaseChecks(&c.Checks, r.Superseded != "")),
		Concluded: mark(c.Concluded), Outcome: c.Outcome, OutcomeCommit: c.Concluded.Result,
	}
}
