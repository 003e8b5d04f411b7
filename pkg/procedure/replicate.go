// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"regexp"
	"strings"
	"time"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Replication: the branch under the assessors' control must hold what the critical host runs (B9; procedure.md 4.4, 10.12).

func lines(paths []string) string { return strings.Join(paths, "\n") }

func decidePush(d *decision, _ *emergencyv1.PushReplicationRequest) *Refusal {
	if !d.s.ProductionEffect() {
		return refuse(ReasonNotDeployed, "nothing was changed on the critical host").allow("StartApply", "", "there is nothing to replicate yet")
	}
	if d.hypothetical {
		return nil
	}
	p := d.env.Facts.Pushed
	if p == nil {
		return refuse(ReasonRepoTreeMismatch, "nothing arrived on the branch")
	}
	importer := d.person
	if importer == "" {
		importer = "repo-agent"
	}
	d.emit(&emergencyv1.ReplicationPushed{Commit: p.Commit, Tree: p.Tree, Ref: p.Ref, RealActor: d.s.lastActor(), ImportActor: importer, Signed: p.Signed})
	return nil
}

func checkReplicationFields(f *fields, c *emergencyv1.CheckReplicationRequest) {
	f.optionalWord("host", c.GetHost())
}

// decideCheckReplication judges the comparison that the service computed; nobody claims it.
func decideCheckReplication(d *decision, c *emergencyv1.CheckReplicationRequest) *Refusal {
	host, refusal := d.hostOf(c.GetHost())
	if refusal != nil {
		return refusal
	}
	if d.hypothetical {
		return nil
	}
	x := d.env.Facts.Replication
	if x == nil {
		return refuse(ReasonNotDeployed, "host and branch could not be compared").allow("CheckReplication", "", "see that the agent on %s and the repository can be reached", host)
	}
	ev := &emergencyv1.ReplicationChecked{Host: host, HostTree: x.HostTree, BranchTree: x.BranchTree, BranchCommit: x.BranchCommit}
	switch {
	case x.HostTree == x.BranchTree:
		ev.Result = emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL
	case x.Pending && len(x.Unexplained) == 0:
		ev.Result, ev.Waiting = emergencyv1.ReplicationResult_REPLICATION_RESULT_LAG, d.s.waiting()
	default:
		ev.Result = emergencyv1.ReplicationResult_REPLICATION_RESULT_DRIFT
		for _, p := range x.Unexplained {
			ev.DriftPaths = append(ev.DriftPaths, d.seal(p))
		}
	}
	if effect, least, known := d.s.lastEffect(); known && ev.Result != emergencyv1.ReplicationResult_REPLICATION_RESULT_DRIFT {
		until := d.at
		if ev.Result == emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL && !x.ArrivedAt.IsZero() {
			until = x.ArrivedAt
		}
		ev.LagDays, ev.LagSeconds = Lag(effect, until)
		ev.LowerBound = least
	}
	d.emit(ev)
	return nil
}

// waiting are the revisions that came to the host since it was last found equal to the branch, and are there still.
func (s *State) waiting() []string {
	equal := s.lastEqual().Position
	var list []string
	for i := range s.Revisions {
		if since, there := s.onHostSince(&s.Revisions[i]); there && since.Position > equal {
			list = append(list, s.Revisions[i].ID)
		}
	}
	return list
}

// lastActor is who changed the host last: the executor of an apply, or the subject of a session.
func (s *State) lastActor() string {
	who, at := "", uint64(0)
	for _, a := range s.Applies {
		who, at = a.Executor, a.Position
	}
	for _, g := range s.Grants {
		if g.Opened.Position > at {
			who, at = g.Subject, g.Opened.Position
		}
	}
	return who
}

// lastEffect is when the host was last changed. What a session changed was changed at its end or before: the lag from then is
// the least that it can be (10.12).
func (s *State) lastEffect() (at time.Time, least, known bool) {
	var last uint64
	for _, a := range s.Applies {
		switch {
		case a.Ended.Position > 0:
			last, at = a.Ended.Position, a.Ended.At
		case a.Applied.Position > 0:
			last, at = a.Applied.Position, a.Applied.At
		}
	}
	for i := range s.Grants {
		if g := &s.Grants[i]; g.changed() && g.Terminated.Position > last {
			last, at, least = g.Terminated.Position, g.Terminated.At, true
		}
	}
	return at, least, last > 0
}

// Lag is the number of UTC calendar days, and of seconds, from an effect on the host to the commit's arrival; nothing if
// the commit was there first (10.12).
func Lag(effect, arrival time.Time) (days uint32, seconds int64) {
	if arrival.Before(effect) {
		return 0, 0
	}
	day := func(t time.Time) int64 { return t.UTC().Unix() / 86400 }
	return uint32(day(arrival) - day(effect)), int64(arrival.Sub(effect) / time.Second)
}

func explainFields(f *fields, c *emergencyv1.ExplainDriftRequest) {
	f.want(digestForm.MatchString(c.GetPathCommitment()), "path_commitment", "64 lower-case hex digits, as the check shows")
}

var (
	caseForm   = regexp.MustCompile(`^a[0-9]{8}\.[1-9][0-9]{0,5}$`)
	revertForm = regexp.MustCompile(`^revert:[0-9a-f]{7,64}$`)
)

// decideExplainDrift binds a differing path to a registered revision, a revert or a case number; text alone explains nothing.
func decideExplainDrift(d *decision, c *emergencyv1.ExplainDriftRequest) *Refusal {
	open := false
	for _, p := range d.s.openDrift() {
		open = open || p.Commitment == c.GetPathCommitment()
	}
	if !open {
		return refuse(ReasonPath, "this path is no open drift").allow("CheckReplication", "", "compare again")
	}
	_, registered := d.s.Revision(c.GetBoundTo())
	if !registered && !caseForm.MatchString(c.GetBoundTo()) && !revertForm.MatchString(c.GetBoundTo()) {
		return refuse(ReasonExplUnbound, "%q is no registered revision, revert or case number", c.GetBoundTo()).
			allow("ExplainDrift", "", "name a revision such as P1r1, revert:<commit>, or a case such as a20261124.1")
	}
	d.emit(&emergencyv1.DriftExplained{PathCommitment: c.GetPathCommitment(), BoundTo: c.GetBoundTo(), Explanation: d.seal(c.GetExplanation())})
	return nil
}

// openDrift are the differing paths neither explained nor gone in a later comparison that found the trees equal.
func (s *State) openDrift() []DriftPath {
	var list []DriftPath
	equal := s.lastEqual()
	for _, p := range s.Drift {
		if p.Explained.Position == 0 && p.Found.Position > equal.Position {
			list = append(list, p)
		}
	}
	return list
}

func (s *State) lastEqual() Mark {
	for i := len(s.Replications) - 1; i >= 0; i-- {
		if s.Replications[i].Kind == emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL {
			return s.Replications[i].Mark
		}
	}
	return Mark{}
}
