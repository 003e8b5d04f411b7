// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
)

// What must hold in the verified history before a job is done. The rules themselves are in package procedure; here a job is
// held against them.

var eventForm = regexp.MustCompile(`^[ex][0-9]{8}\.[1-9][0-9]{0,5}/[1-9][0-9]{0,9}$`)

// positionOf is the position of the event that a job names; its id must be that of an event of its incident.
func positionOf(j *deploymentv1.Job) (uint64, error) {
	incident, position, _ := strings.Cut(j.GetId(), "/")
	if !eventForm.MatchString(j.GetId()) || incident != j.GetIncident() {
		return 0, refuse(codeJob, "the job's id %.80q is no event of incident %.80q", j.GetId(), j.GetIncident())
	}
	return strconv.ParseUint(position, 10, 64)
}

// reaches checks that the history goes as far as the event that a job names.
func (v *verified) reaches(position uint64) error {
	if v.state.Position >= position {
		return nil
	}
	return fmt.Errorf("%w: %w", errShort, refuse(codeHistoryShort, "the history of %s ends at position %d, the job is asked for by position %d%s", v.state.Incident, v.state.Position, position, v.hint()))
}

// revision is the revision that a job is about. Each value that the job names must be the history's; a job without it fails
// as well as one with another.
func (v *verified) revision(j *deploymentv1.Job) (*procedure.Revision, error) {
	r, ok := v.state.Revision(j.GetBinding().GetRevision())
	if !ok {
		return nil, refuse(codeJobDiffers, "there is no revision %.20q in %s%s", j.GetBinding().GetRevision(), v.state.Incident, v.hint())
	}
	for _, c := range []struct{ what, job, history string }{
		{"patch digest", j.GetPatchSha256(), r.Artefact.GetSha256()},
		{"base tree", j.GetBaseTree(), r.BaseTree},
		{"result tree", j.GetResultTree(), r.ResultTree},
		{"binding", j.GetBinding().GetDigest(), r.Binding},
		{"recomputed binding", procedure.BindingDigest(v.state.Incident, r.ID, r.Artefact.GetSha256(), r.BaseTree, r.ResultTree, v.state.Policy.Digest), r.Binding},
	} {
		if c.job != c.history {
			return nil, refuse(codeJobDiffers, "the %s of %s is %.80q in the job and %s in the history", c.what, r.ID, c.job, c.history)
		}
	}
	return r, nil
}

// apply is the attempt that a job belongs to, if a person started it by the event that the job names, on this host.
func (v *verified) apply(j *deploymentv1.Job, position uint64, host string) (*procedure.Revision, *procedure.Apply, error) {
	r, err := v.revision(j)
	if err != nil {
		return nil, nil, err
	}
	a := v.state.ApplyOf(r.ID)
	switch {
	case a == nil:
		return nil, nil, refuse(string(procedure.ReasonNoApplyRunning), "no apply of %s was started in the verified history%s", r.ID, v.hint())
	case a.Host != host:
		return nil, nil, refuse(string(procedure.ReasonDrillBoundary), "the apply of %s is for host %s, this is %s", r.ID, a.Host, host)
	}
	started, verb := a.Position, "started"
	switch j.GetKind() {
	case deploymentv1.JobKind_JOB_KIND_BACK_OUT:
		started, verb = a.Last, "asked to be taken back"
		if a.State != procedure.BackingOut && a.State != procedure.RollingBack {
			return nil, nil, refuse(string(procedure.ReasonNothingToBackOut), "%s is %s, nobody has asked to take it back", r.ID, a.State)
		}
	case deploymentv1.JobKind_JOB_KIND_VERIFY:
		started, verb = a.Applied.Position, "reported as applied by hand"
	default:
	}
	if started != position {
		return nil, nil, refuse(codeJobDiffers, "%s was %s by position %d, the job names position %d", r.ID, verb, started, position)
	}
	return r, a, nil
}

// mayApply is the gate on the host.
func (v *verified) mayApply(r *procedure.Revision, a *procedure.Apply, now time.Time) error {
	if refused := procedure.HostGate(v.state, r.ID, a.Host, v.book, now); refused != nil {
		return ungated(refused)
	}
	if a.ByHand {
		return refuse(codeJobDiffers, "%s is applied by hand, this agent only verifies it", r.ID)
	}
	return nil
}

// mayInstall is the gate on a test server, and the job's own event.
func (v *verified) mayInstall(j *deploymentv1.Job, position uint64, environment string, now time.Time) (*procedure.Revision, error) {
	r, err := v.revision(j)
	if err != nil {
		return nil, err
	}
	if refused := procedure.TestGate(v.state, r.ID, environment, v.book, now); refused != nil {
		return nil, refuse(string(refused.Reason), "the gate is not green: %s (%s)%s", refused.Message, refused.Rule, v.hint())
	}
	if at := r.Underway().Transfer.Position; at != position {
		return nil, refuse(codeJobDiffers, "%s was transferred by position %d, the job names position %d", r.ID, at, position)
	}
	return r, nil
}

func eventID(incident string, position uint64) string {
	return fmt.Sprintf("%s/%d", incident, position)
}
