// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/worktree"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	reviewv1 "cacert.org/emergency/proto/emergency/review/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/agent/session"
)

// done is the answer to a job.
type done struct {
	result *deploymentv1.JobResult
	files  []*deploymentv1.ManifestEntry
	entry  *entry // in the journal, once the job was verified
	// instance of the service that wants it done, by its address; empty for a job that is taken up again.
	instance string
	// contents of files, for the job that asks for them.
	contents []session.Content
}

// kinds are the jobs that an agent does.
func (a *Agent) kinds() map[deploymentv1.JobKind]func(context.Context, *deploymentv1.Job, *done) error {
	if a.cfg.Kind == KindTest {
		return map[deploymentv1.JobKind]func(context.Context, *deploymentv1.Job, *done) error{
			deploymentv1.JobKind_JOB_KIND_REPORT_TREE: a.tell, deploymentv1.JobKind_JOB_KIND_INSTALL: a.install,
		}
	}
	return map[deploymentv1.JobKind]func(context.Context, *deploymentv1.Job, *done) error{
		deploymentv1.JobKind_JOB_KIND_REPORT_TREE: a.tell, deploymentv1.JobKind_JOB_KIND_DRY_RUN: a.dryRun, deploymentv1.JobKind_JOB_KIND_APPLY: a.apply,
		deploymentv1.JobKind_JOB_KIND_BACK_OUT: a.backOut, deploymentv1.JobKind_JOB_KIND_VERIFY: a.verify,
		deploymentv1.JobKind_JOB_KIND_OPEN_ACCESS: a.openAccess, deploymentv1.JobKind_JOB_KIND_FREEZE_SESSION: a.freezeSession,
		deploymentv1.JobKind_JOB_KIND_THAW_SESSION: a.thawSession, deploymentv1.JobKind_JOB_KIND_END_ACCESS: a.endAccess,
		deploymentv1.JobKind_JOB_KIND_LIST_LEFTOVERS: a.listLeftovers, deploymentv1.JobKind_JOB_KIND_READ_FILES: a.readFiles,
	}
}

// do does one job of an instance of the service, or tells again what became of it.
func (a *Agent) do(ctx context.Context, instance string, j *deploymentv1.Job) *done {
	ctx, span := a.deps.Tracer.Tracer("cacert.org/emergency/services/agent").Start(ctx, "job "+strings.TrimPrefix(j.GetKind().String(), "JOB_KIND_"),
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attribute.String("emergency.incident", j.GetIncident()), attribute.String("emergency.job", j.GetId())))
	defer span.End()
	d := &done{instance: instance, result: &deploymentv1.JobResult{JobId: j.GetId()}}
	perform, ok := a.kinds()[j.GetKind()]
	if !ok {
		perform = func(context.Context, *deploymentv1.Job, *done) error {
			return refuse(codeJob, "a %s agent does no %s", a.cfg.Kind, j.GetKind())
		}
	}
	old, err := a.journal.load(j.GetId())
	if err == nil && old != nil && proto.Equal(old.job, j) {
		// A test server may be mended by hand and asked again; what was tried on a critical host people decide about.
		if old.result != nil && (old.result.GetOk() || j.GetKind() != deploymentv1.JobKind_JOB_KIND_INSTALL) {
			d.result = proto.CloneOf(old.result)
			return d
		}
		d.entry = old
	}
	if err == nil {
		err = perform(ctx, j, d)
	}
	if err != nil && ctx.Err() != nil {
		err = away("the agent is being stopped: %w", err)
	}
	a.conclude(ctx, j, d, err)
	if !d.result.GetOk() {
		span.SetStatus(codes.Error, d.result.GetErrorCode()) // the detail may name what lies on the host
	}
	return d
}

// conclude writes the result, into the journal too if the job had been taken up and nothing is left to do.
func (a *Agent) conclude(ctx context.Context, j *deploymentv1.Job, d *done, err error) {
	log := a.log.With("incident", j.GetIncident(), "job", j.GetId(), "kind", j.GetKind().String())
	d.result.Ok = err == nil
	if err != nil {
		code, detail := describe(err)
		d.result.ErrorCode, d.result.ErrorDetail = code, clean(detail)
		log.ErrorContext(ctx, "job not done", "code", code, "detail", detail)
	} else {
		log.InfoContext(ctx, "job done", "before", d.result.GetPreTree(), "now", d.result.GetPostTree())
	}
	if d.entry == nil || d.result.GetErrorCode() == codeUnavailable {
		return
	}
	d.entry.result = d.result
	if err := a.journal.save(d.entry); err != nil {
		log.ErrorContext(ctx, "the result of a job could not be kept; it will be told anew", "error", err)
	}
}

// found writes what an operation on the tree found into the result.
func (d *done) found(r worktree.Report) {
	d.result.PreTree, d.result.PostTree, d.result.ChangedPaths, d.result.RejectedHunks = r.PreTree, r.PostTree, cleanAll(r.ChangedPaths), uint32(len(r.RejectedHunks))
}

// patiently repeats what may succeed soon: a service is away, a history is behind.
func (a *Agent) patiently(ctx context.Context, try func() error) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 50*time.Millisecond, 2*time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := try()
		var away errAway
		if err != nil && !errors.As(err, &away) && !errors.Is(err, errShort) {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(a.cfg.Patience))
	return err
}

// verified reads and verifies the history that a job refers to, up to the position that asks for it.
func (a *Agent) verified(ctx context.Context, j *deploymentv1.Job, position uint64) (v *verified, err error) {
	err = a.patiently(ctx, func() error {
		var err error
		if v, err = a.follow.read(ctx, j.GetIncident()); err != nil {
			return err
		}
		return v.reaches(position)
	})
	return v, err
}

// patch fetches the bytes that were reviewed.
func (a *Agent) patch(ctx context.Context, incident string, r *procedure.Revision) ([]byte, error) {
	var resp *reviewv1.ReadPatchResponse
	err := a.patiently(ctx, func() error {
		var err error
		resp, err = a.patches.ReadPatch(ctx, &reviewv1.ReadPatchRequest{Incident: incident, Revision: r.ID})
		if no, ok := rpc.RefusalOf(err); ok && no.Code == procedure.FailedPrecondition { // asking again changes nothing
			return refuse(codePatchLost, "the patch of %s cannot be had: %s", r.ID, no.Message)
		}
		if err != nil {
			return away("patch of %s: %w", r.ID, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if got := patch.Digest(resp.GetBytes()); got != r.Artefact.GetSha256() {
		return nil, refuse(codePatchDiffers, "the patch of %s that is handed out has SHA-256 %s, reviewed was %s", r.ID, got, r.Artefact.GetSha256())
	}
	if patch.IsBundle(resp.GetBytes()) {
		return resp.GetDiff(), nil // held to the reviewed trees like every patch: exactly this base gives exactly this result
	}
	return resp.GetBytes(), nil
}

// now is the tree on the disk, in the object format of another one.
func (a *Agent) now(ctx context.Context, like string) (string, error) {
	algo, _, err := gittree.ParseID(like)
	if err != nil {
		algo = gittree.SHA1
	}
	return a.tree.ID(ctx, algo)
}

// tell computes the tree.
func (a *Agent) tell(ctx context.Context, j *deploymentv1.Job, d *done) error {
	algo, _, err := gittree.ParseID(j.GetBaseTree())
	if err != nil {
		algo = gittree.SHA1
	}
	files, err := a.tree.Manifest(ctx, algo)
	if err != nil {
		return err
	}
	list := make([]gittree.Entry, len(files))
	for i, f := range files {
		list[i] = gittree.Entry{Path: f.Path, Mode: f.Mode, ID: f.BlobID}
		if j.GetWithManifest() {
			d.files = append(d.files, &deploymentv1.ManifestEntry{Path: []byte(f.Path), Mode: f.Mode, Blob: f.BlobID})
		}
	}
	d.result.PreTree, err = gittree.ID(algo, list)
	d.result.PostTree = d.result.PreTree
	return err
}

// dryRun tries the patch on copies. It verifies as much as an apply does that far, so that what would keep the agent from
// applying is known before anything was started.
func (a *Agent) dryRun(ctx context.Context, j *deploymentv1.Job, d *done) error {
	v, err := a.verified(ctx, j, 0)
	if err != nil {
		return err
	}
	r, err := v.revision(j)
	if err != nil {
		return err
	}
	if v.state.Host() != a.cfg.Name {
		return refuse(string(procedure.ReasonDrillBoundary), "the host of %s is %s, this is %s", v.state.Incident, v.state.Host(), a.cfg.Name)
	}
	bytes, err := a.patch(ctx, j.GetIncident(), r)
	if err != nil {
		return err
	}
	report, err := a.tree.DryRun(ctx, bytes, r.BaseTree, r.ResultTree)
	d.found(report)
	return err
}

// apply puts the reviewed bytes in place, once, and reports what came of it, whatever it is.
func (a *Agent) apply(ctx context.Context, j *deploymentv1.Job, d *done) error {
	v, r, started, err := a.attempt(ctx, j)
	if err != nil {
		return a.fail(ctx, j, v, d, err)
	}
	switch started.State {
	case procedure.Applying:
	case procedure.Applied, procedure.ApplyFailed: // reported, and then interrupted before the tree was
		return a.truth(ctx, j, d, r.BaseTree, r.ResultTree)
	default:
		return refuse(string(procedure.ReasonNoApplyRunning), "the apply of %s is %s", r.ID, started.State)
	}
	if err := v.mayApply(r, started, a.deps.Now()); err != nil {
		return a.fail(ctx, j, v, d, err)
	}
	bytes, err := a.patch(ctx, j.GetIncident(), r)
	var lost *refusal
	if errors.As(err, &lost) && lost.code == codePatchLost {
		return away("%w", err) // nothing speaks against the apply: it is done once the bytes are back
	}
	if err == nil {
		d.entry, err = a.journal.begin(j)
	}
	if err != nil {
		return a.fail(ctx, j, v, d, err)
	}
	a.step("begun")
	report, err := a.tree.Apply(ctx, j.GetId(), bytes, r.BaseTree, r.ResultTree)
	d.found(report)
	a.step("tried")
	if err != nil {
		return a.fail(ctx, j, v, d, err)
	}
	if err := a.reportApply(ctx, j, nil); err != nil {
		return err
	}
	a.step("apply-reported")
	if err := a.reportTree(ctx, j, report.PreTree, report.PostTree, report.ChangedPaths); err != nil {
		return err
	}
	a.step("tree-reported")
	return nil
}

// step tells a test how far a job has come; the steps on the tree are told by package worktree.
func (a *Agent) step(name string) {
	if a.deps.Failpoint != nil {
		a.deps.Failpoint("agent:" + name)
	}
}

// attempt verifies the history and finds in it the apply that a job belongs to.
func (a *Agent) attempt(ctx context.Context, j *deploymentv1.Job) (*verified, *procedure.Revision, *procedure.Apply, error) {
	position, err := positionOf(j)
	if err != nil {
		return nil, nil, nil, err
	}
	v, err := a.verified(ctx, j, position)
	if err != nil {
		return v, nil, nil, err
	}
	r, started, err := v.apply(j, position, a.cfg.Name)
	return v, r, started, err
}

// fail reports why a job was not done and what the host holds now, and returns the reason. What only is not possible now is
// not reported: it will be tried again.
func (a *Agent) fail(ctx context.Context, j *deploymentv1.Job, v *verified, d *done, reason error) error {
	if later(reason) || ctx.Err() != nil {
		return reason
	}
	a.log.ErrorContext(ctx, "ALARM: a job is refused or failed", "incident", j.GetIncident(), "job", j.GetId(), "error", reason)
	j = v.truthful(j)
	if j.GetKind() == deploymentv1.JobKind_JOB_KIND_APPLY {
		if err := a.reportApply(ctx, j, reason); err != nil {
			return errors.Join(err, reason)
		}
	}
	before := d.result.GetPreTree()
	tree, err := a.now(ctx, j.GetBaseTree())
	if err != nil {
		return errors.Join(reason, err)
	}
	if before == "" {
		before = tree
	}
	d.result.PreTree, d.result.PostTree = before, tree
	if err := a.reportTree(ctx, j, before, tree, nil); err != nil {
		return errors.Join(err, reason)
	}
	return reason
}

// truthful puts the binding of the verified history in the place of what the job says, so that a refusal reaches the record
// of the apply that it is about.
func (v *verified) truthful(j *deploymentv1.Job) *deploymentv1.Job {
	if v == nil {
		return j
	}
	r, ok := v.state.Revision(j.GetBinding().GetRevision())
	if a := v.state.RunningApply(); !ok && a != nil {
		r, ok = v.state.Revision(a.Revision)
	}
	if !ok {
		return j
	}
	j = proto.CloneOf(j)
	j.Binding = &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding}
	return j
}

// truth reports the tree as it is; the job is done if that is the wanted one.
func (a *Agent) truth(ctx context.Context, j *deploymentv1.Job, d *done, before, want string) error {
	tree, err := a.now(ctx, want)
	if err != nil {
		return err
	}
	d.result.PreTree, d.result.PostTree = before, tree
	if err := a.reportTree(ctx, j, before, tree, d.result.GetChangedPaths()); err != nil {
		return err
	}
	if tree != want {
		return &worktree.Error{Code: worktree.CodeResult, Detail: "the tree is not the wanted one", Want: want, Got: tree}
	}
	return nil
}

// backOut restores the tree before the patch from the apply's own copies.
func (a *Agent) backOut(ctx context.Context, j *deploymentv1.Job, d *done) error {
	v, r, started, err := a.attempt(ctx, j)
	if err == nil {
		d.entry, err = a.journal.begin(j)
	}
	if err != nil {
		return a.fail(ctx, j, v, d, err)
	}
	report, err := a.tree.BackOut(ctx, eventID(j.GetIncident(), started.Position))
	d.found(report)
	var e *worktree.Error
	if errors.As(err, &e) && e.Code == worktree.CodeJobUnknown {
		// Applied by hand, and so taken back by hand; or never applied at all. The tree tells.
		return a.truth(ctx, j, d, r.ResultTree, r.BaseTree)
	}
	if err != nil {
		return a.fail(ctx, j, v, d, err)
	}
	return a.truth(ctx, j, d, report.PreTree, r.BaseTree)
}

// verify reports the tree after the executor applied the patch by hand.
func (a *Agent) verify(ctx context.Context, j *deploymentv1.Job, d *done) error {
	v, r, _, err := a.attempt(ctx, j)
	if err == nil {
		d.entry, err = a.journal.begin(j)
	}
	if err != nil {
		return a.fail(ctx, j, v, d, err)
	}
	before := r.BaseTree
	for _, x := range v.state.DryRuns { // the last that this agent saw of the tree before
		if x.Revision == r.ID && x.Host == a.cfg.Name {
			before = x.HostTree
		}
	}
	if tree, err := a.now(ctx, r.ResultTree); err == nil && tree == r.ResultTree {
		d.result.ChangedPaths = a.touched(ctx, j, r)
	}
	return a.truth(ctx, j, d, before, r.ResultTree)
}

// touched are the paths of a patch whose exact result is on the disk; none if the patch cannot be had now.
func (a *Agent) touched(ctx context.Context, j *deploymentv1.Job, r *procedure.Revision) []string {
	bytes, err := a.patch(ctx, j.GetIncident(), r)
	if err != nil {
		return nil
	}
	p, err := patch.Parse(bytes, patch.Options{})
	if err != nil {
		return nil
	}
	return cleanAll(p.Paths())
}

// install brings a reviewed patch to the test server. An older one there is taken back first, so that the tree is the base.
func (a *Agent) install(ctx context.Context, j *deploymentv1.Job, d *done) error {
	position, err := positionOf(j)
	if err != nil {
		return err
	}
	v, err := a.verified(ctx, j, position)
	if err != nil {
		return err
	}
	r, err := v.mayInstall(j, position, a.cfg.Name, a.deps.Now())
	if err != nil {
		return err
	}
	bytes, err := a.patch(ctx, j.GetIncident(), r)
	if err != nil {
		return err
	}
	if d.entry, err = a.journal.begin(j); err != nil {
		return err
	}
	err = a.replace(ctx, j, d, r, bytes)
	if err != nil && later(err) {
		return err
	}
	tree, errNow := a.now(ctx, r.ResultTree)
	if errNow != nil {
		return errors.Join(err, errNow)
	}
	d.result.PostTree = tree
	if d.entry.result != nil && tree != r.ResultTree {
		return err // the history has been told once that the server holds another tree
	}
	return errors.Join(a.confirm(ctx, j, tree), err)
}

// replace takes older patches back until the tree is the base, then applies.
func (a *Agent) replace(ctx context.Context, j *deploymentv1.Job, d *done, r *procedure.Revision, bytes []byte) error {
	tree, err := a.now(ctx, r.BaseTree)
	if err != nil {
		return err
	}
	d.result.PreTree = tree
	if tree == r.ResultTree {
		return nil
	}
	past, err := a.journal.all()
	if err != nil {
		return err
	}
	slices.Reverse(past) // each is tried once, the newest first
	for _, e := range past {
		if tree == r.BaseTree || e.job.GetKind() != deploymentv1.JobKind_JOB_KIND_INSTALL || e.job.GetResultTree() != tree || e.job.GetId() == j.GetId() {
			continue
		}
		report, err := a.tree.BackOut(ctx, e.job.GetId())
		if err != nil {
			return err
		}
		tree = report.PostTree
		a.log.InfoContext(ctx, "an older patch was taken back from the test server", "job", e.job.GetId(), "tree", tree)
	}
	report, err := a.tree.Apply(ctx, j.GetId(), bytes, r.BaseTree, r.ResultTree)
	d.result.ChangedPaths = cleanAll(report.ChangedPaths)
	return err
}
