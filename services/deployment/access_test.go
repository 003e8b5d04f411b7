// SPDX-License-Identifier: Apache-2.0

package deployment_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cacert.org/emergency/pkg/gitrepo"
	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/worktree"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment"
	"cacert.org/emergency/services/deployment/deploymenttest"
)

// sessionWorld is a world whose deployment service keeps recordings.
type sessionWorld struct {
	*world
	recordings string
	refuses    atomic.Bool // the agent refuses to look
}

func serveSessions(t *testing.T) *sessionWorld {
	t.Helper()
	r := deploymenttest.New(t)
	w := &sessionWorld{recordings: filepath.Join(t.TempDir(), "recordings")}
	var err error
	r.Deployment, err = r.TryDeployment(deployment.Config{
		Repository: r.Bare, StateDir: t.TempDir(), Access: deployment.AccessConfig{Account: "console", MaxLength: 20 * time.Minute, Recordings: w.recordings},
	})
	r.Must(err)
	w.world = &world{r, r.Serve(r.Deployment.Register)}
	return w
}

// sessionAgent attaches an agent that truly lists and reads the host's folder, and finds one process left.
func (w *sessionWorld) sessionAgent() stream {
	w.Helper()
	tree, err := worktree.Open(w.HostRoot, worktree.Spec{})
	w.Must(err)
	s := w.attach(deploymenttest.Host, deploymenttest.Host)
	w.Background(func(ctx context.Context) error {
		defer context.AfterFunc(ctx, s.hangUp)()
		for {
			m, err := s.Recv()
			if err != nil {
				return nil
			}
			if m.GetJob() == nil {
				continue
			}
			if err := w.answer(ctx, s, tree, m.GetJob()); err != nil {
				return nil
			}
		}
	})
	return s
}

func (w *sessionWorld) answer(ctx context.Context, s stream, tree *worktree.Tree, j *deploymentv1.Job) error {
	files, err := tree.Manifest(ctx, gittree.SHA1)
	if err != nil {
		return err
	}
	part := &deploymentv1.ManifestPart{JobId: j.GetId()}
	var list []gittree.Entry
	for _, f := range files {
		list = append(list, gittree.Entry{Path: f.Path, Mode: f.Mode, ID: f.BlobID})
		part.Entries = append(part.Entries, &deploymentv1.ManifestEntry{Path: []byte(f.Path), Mode: f.Mode, Blob: f.BlobID})
	}
	r := &deploymentv1.JobResult{JobId: j.GetId(), Ok: true}
	if r.PostTree, err = gittree.ID(gittree.SHA1, list); err != nil {
		return err
	}
	switch {
	case j.GetWithManifest():
		err = s.Send(&deploymentv1.AttachRequest{Message: &deploymentv1.AttachRequest_Manifest{Manifest: part}})
	case w.refuses.Load():
		r.Ok, r.ErrorCode = false, "NO_SESSION"
	case j.GetKind() == deploymentv1.JobKind_JOB_KIND_LIST_LEFTOVERS:
		r.Leftovers = []*emergencyv1.LeftoverFound{{Kind: emergencyv1.LeftoverKind_LEFTOVER_KIND_PROCESS, What: "4711 sleep 3600"}}
	case j.GetKind() == deploymentv1.JobKind_JOB_KIND_READ_FILES:
		for _, p := range j.GetPaths() {
			f := &deploymentv1.FilePart{JobId: j.GetId(), Path: p, Last: true}
			for _, e := range list {
				if e.Path == string(p) {
					f.Mode = e.Mode
					f.Data, err = os.ReadFile(filepath.Join(w.HostRoot, e.Path))
				}
			}
			err = errors.Join(err, s.Send(&deploymentv1.AttachRequest{Message: &deploymentv1.AttachRequest_File{File: f}}))
		}
	}
	return errors.Join(err, s.Send(result(r)))
}

// granted is an incident with a session granted by the service itself.
func (w *sessionWorld) granted() string {
	w.Helper()
	incident := w.permitted()
	w.Must(w.grant(deploymenttest.Granter, incident))
	return incident
}

// permitted is an incident under strategy 3 in which the lead has permitted the access.
func (w *sessionWorld) permitted() string {
	w.Helper()
	incident := w.Declare()
	for _, who := range []string{deploymenttest.Granter, "anna"} {
		w.Do(who, incident, proceduretest.Joint(), procedure.Facts{})
	}
	w.Do("clara", incident, proceduretest.Permit(deploymenttest.Subject), procedure.Facts{})
	return incident
}

// open arms, connects and opens the session, as the broker and its watcher do.
func (w *sessionWorld) open(incident string) {
	w.Helper()
	w.DoConsole(deploymenttest.Watcher, incident, proceduretest.Arm())
	w.Gateway(deploymenttest.Subject, incident, proceduretest.Connect())
	w.Gateway(deploymenttest.Subject, incident, proceduretest.Opened(true))
}

func (w *sessionWorld) grant(who, incident string) error {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req := proceduretest.GrantTo(deploymenttest.Subject, deploymenttest.Watcher)
	w.Prepare(who, incident, req)
	_, err := w.client(who).GrantAccess(ctx, req)
	return err
}

func (w *sessionWorld) end(incident string) {
	w.Helper()
	w.Do(deploymenttest.Watcher, incident, &emergencyv1.TerminateRequest{Grant: "G1"}, procedure.Facts{})
}

func wantRefusal(t *testing.T, err error, want procedure.Reason) {
	t.Helper()
	if r, ok := rpc.RefusalOf(err); !ok || r.Reason != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// The tree before comes from the host's agent, and its list of files is stored.
func TestGrantAccessListsTheHost(t *testing.T) {
	t.Parallel()
	w := serveSessions(t)
	w.sessionAgent()
	incident := w.granted()
	g := w.State(incident).Grants[0]
	if g.BeforeTree != w.BaseTree() || !g.Agent || g.Host != deploymenttest.Host || g.Max != 20*time.Minute {
		t.Errorf("%+v", g)
	}
	b, err := w.Artefacts.Get(t.Context(), g.BeforeManifest.GetSha256())
	if err != nil || !bytes.Contains(b, []byte("\twww/index.php\x00")) || bytes.Count(b, []byte{0}) != 4 {
		t.Errorf("%q, %v", b, err)
	}
	wantRefusal(t, w.grant(deploymenttest.Granter, incident), procedure.ReasonGrantOpen)
}

// Whoever may not grant is told so without an agent; with the agent away nothing is refused, it may be tried again.
func TestGrantAccessWithoutAgent(t *testing.T) {
	t.Parallel()
	w := serveSessions(t)
	incident := w.permitted()
	wantRefusal(t, w.grant("anna", incident), procedure.ReasonSignature)
	wantRefusal(t, w.grant("carla", w.Declare()), procedure.ReasonStrategy)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	req := proceduretest.GrantTo(deploymenttest.Subject, deploymenttest.Watcher)
	w.Prepare("carla", incident, req)
	_, err := w.client("carla").GrantAccess(ctx, req)
	if _, refusal := rpc.RefusalOf(err); err == nil || refusal || len(w.State(incident).Grants) > 0 {
		t.Errorf("%v, grants %v", err, w.State(incident).Grants)
	}
}

// After a session, whoever ended it, what it left and what it changed is recorded, as a patch that applies and gives the tree.
func TestAfterSession(t *testing.T) {
	t.Parallel()
	w := serveSessions(t)
	w.effects()
	w.sessionAgent()
	incident := w.granted()
	w.open(incident)
	w.Must(w.Place())
	w.end(incident)
	st := w.WaitFor(incident, "leftovers and difference", func(st *procedure.State) bool {
		g := st.Grants[0]
		return len(g.LeftoversReported) == 1 && g.Diff.Position > 0
	})
	g := st.Grants[0]
	if g.Diff.AfterTree != w.ResultTree() || g.Diff.BaseCommit != w.Base || g.Diff.Problem != "" || len(g.Diff.Paths) != 4 || len(g.Leftovers) != 1 {
		t.Fatalf("%+v, left %+v", g.Diff, g.Leftovers)
	}
	b, err := w.Artefacts.Get(t.Context(), g.Diff.Patch.GetSha256())
	w.Must(err)
	if _, err := patch.Parse(b, patch.Options{}); err != nil {
		t.Errorf("%v in\n%s", err, b)
	}
	repo, err := gitrepo.Open(t.Context(), w.Bare, gitrepo.Options{StateDir: t.TempDir()})
	w.Must(err)
	w.Must(repo.Fetch(t.Context()))
	if got, err := repo.ApplyPatch(t.Context(), w.Base, b); err != nil || got.ResultTree != w.ResultTree() {
		t.Errorf("applied it gives %s, %v", got.ResultTree, err)
	}
	// it can be registered as what the session left, and as nothing else
	w.register(incident, b)
	req := &emergencyv1.CaptureSessionDiffRequest{Grant: "G1"}
	w.Prepare("carla", incident, req)
	_, err = w.client("carla").CaptureSessionDiff(t.Context(), req)
	wantRefusal(t, err, procedure.ReasonGrantState) // once is enough
	// and then the release branch comes to hold it, by the subject's name, and is found equal
	st = w.WaitFor(incident, "host and branch found equal", func(st *procedure.State) bool { return len(st.Replications) > 0 })
	if r := st.Replications[0]; r.Kind != equal || w.Repo.Git("--git-dir="+w.Bare, "log", "-1", "--format=%cn", deploymenttest.Release) != "bert\n" {
		t.Errorf("%v, branch by %q", r.Kind, w.Repo.Git("--git-dir="+w.Bare, "log", "-1", "--format=%cn", deploymenttest.Release))
	}
}

// What a session changed and nobody has registered is drift; once it is registered it is on its way.
func TestReplicationOfASession(t *testing.T) {
	t.Parallel()
	w := serveSessions(t)
	w.sessionAgent()
	incident := w.granted()
	w.open(incident)
	w.Must(w.Place())
	w.end(incident)
	req := &emergencyv1.CaptureSessionDiffRequest{Grant: "G1"}
	w.Prepare("carla", incident, req)
	_, err := w.client("carla").CaptureSessionDiff(t.Context(), req)
	w.Must(err)
	if r := w.check(incident); r.Kind != drift || len(r.Paths) != 4 {
		t.Errorf("not registered: %v with %d paths", r.Kind, len(r.Paths))
	}
	wantRefusal(t, w.push("carla", incident, ""), procedure.ReasonRepoTreeMismatch)
	b, err := w.Artefacts.Get(t.Context(), w.State(incident).Grants[0].Diff.Patch.GetSha256())
	w.Must(err)
	w.register(incident, b)
	w.Must(w.push("carla", incident, ""))
	if r := w.check(incident); r.Kind != equal {
		t.Errorf("pushed: %v", r.Kind)
	}
}

// register registers what the session left.
func (w *sessionWorld) register(incident string, b []byte) {
	w.Helper()
	w.Do("bert", incident, &emergencyv1.RegisterPatchRequest{
		Bytes: b, Sha256: patch.Digest(b), BaseCommit: w.Base, BaseTree: w.BaseTree(), ResultTree: w.ResultTree(), BugId: "bug-1500", Origin: emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION,
	}, procedure.Facts{Patch: &procedure.PatchFacts{
		Artefact: &emergencyv1.Artefact{Sha256: patch.Digest(b), Size: uint64(len(b)), MediaType: "text/x-diff"}, BaseTree: w.BaseTree(), ResultTree: w.ResultTree(), Files: 4,
	}})
}

// A session that only the clock has ended is ended on the host too, whatever became of the broker.
func TestEndedByTheClock(t *testing.T) {
	t.Parallel()
	w := serveSessions(t)
	agent := w.attach(deploymenttest.Host, deploymenttest.Host)
	incident := w.Granted()
	w.Gateway(deploymenttest.Subject, incident, proceduretest.Connect())
	w.Gateway(deploymenttest.Subject, incident, proceduretest.Opened(true))
	w.TickLater(incident, 3*time.Hour)
	if g := w.State(incident).Grants[0]; g.Terminated.Position == 0 || g.Cause != emergencyv1.SessionCause_SESSION_CAUSE_MAX_LENGTH && g.Cause != emergencyv1.SessionCause_SESSION_CAUSE_GRACE_OVER {
		t.Fatalf("%+v", g)
	}
	w.effects()
	for {
		m, err := agent.Recv()
		w.Must(err)
		j := m.GetJob()
		if j == nil {
			continue
		}
		w.Must(agent.Send(result(&deploymentv1.JobResult{JobId: j.GetId(), ErrorCode: "NO_SESSION"})))
		if j.GetKind() == deploymentv1.JobKind_JOB_KIND_END_ACCESS {
			if j.GetGrant() != "G1" || j.GetIncident() != incident {
				t.Errorf("%v", j)
			}
			return
		}
	}
}

// What no patch can be made of is said and kept; a host that was not changed has no difference.
func TestDifferencesThatAreNoPatch(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		change   func(*sessionWorld) error
		problem  string
		paths    int
		kept     bool // the difference, as evidence
		noCommit bool
	}{
		"unchanged":       {change: func(*sessionWorld) error { return nil }},
		"made executable": {change: func(w *sessionWorld) error { return os.Chmod(filepath.Join(w.HostRoot, "www/index.php"), 0o755) }, problem: string(patch.CodeMode), paths: 1, kept: true},
		"binary":          {change: func(w *sessionWorld) error { return w.WriteHost("www/logo.png", "\x00\x01") }, problem: string(patch.CodeBinary), paths: 1, kept: true},
		"files not sent":  {change: func(w *sessionWorld) error { w.refuses.Store(true); return w.WriteHost("www/index.php", "x") }, problem: "NO_SESSION", paths: 1},
		"a tree before that no commit has": {
			change: func(w *sessionWorld) error { return w.WriteHost("www/index.php", "y") }, problem: string(gitrepo.CodeBaseUnknown), paths: 1, noCommit: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := serveSessions(t)
			w.sessionAgent()
			if x.noCommit {
				w.Must(w.WriteHost("www/index.php", "changed by nobody knows whom"))
			}
			incident := w.granted()
			w.open(incident)
			w.Must(x.change(w))
			w.end(incident)
			req := &emergencyv1.CaptureSessionDiffRequest{Grant: "G1"}
			w.Prepare("carla", incident, req)
			_, err := w.client("carla").CaptureSessionDiff(t.Context(), req)
			w.Must(err)
			d := w.State(incident).Grants[0].Diff
			if d.Position == 0 || len(d.Paths) != x.paths || (d.Patch != nil) != x.kept || (d.Problem == "") != (x.problem == "") || !strings.Contains(d.Problem, x.problem) {
				t.Errorf("%+v", d)
			}
			if strings.Contains(d.Problem, "www/") {
				t.Errorf("the problem %q names a path, which is restricted", d.Problem)
			}
		})
	}
}

// A person's report is what the agent says; that nobody could look is a thing to be explained.
func TestReportLeftovers(t *testing.T) {
	t.Parallel()
	w := serveSessions(t)
	agent := w.sessionAgent()
	incident := w.granted()
	w.open(incident)
	report := func(who string) error {
		w.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		req := &emergencyv1.ReportLeftoversRequest{Grant: "G1", Found: []*emergencyv1.LeftoverFound{{Kind: emergencyv1.LeftoverKind_LEFTOVER_KIND_FILE, What: "made up"}}}
		w.Prepare(who, incident, req)
		_, err := w.client(who).ReportLeftovers(ctx, req)
		return err
	}
	wantRefusal(t, report("carla"), procedure.ReasonGrantState)
	w.end(incident)
	wantRefusal(t, report("bert"), procedure.ReasonRole)
	w.Must(report("carla"))
	w.Must(report(deploymenttest.Host))
	agent.hangUp()
	w.Must(report("carl"))
	var kinds []emergencyv1.LeftoverKind
	for _, l := range w.State(incident).Grants[0].Leftovers {
		kinds = append(kinds, l.Kind)
	}
	if len(kinds) != 3 || kinds[0] != emergencyv1.LeftoverKind_LEFTOVER_KIND_PROCESS || kinds[1] != emergencyv1.LeftoverKind_LEFTOVER_KIND_FILE || kinds[2] != emergencyv1.LeftoverKind_LEFTOVER_KIND_NOT_LOOKED_AT {
		t.Errorf("%v", kinds)
	}
}

// record writes a recording as the broker does, and anchors it in the history.
func (w *sessionWorld) record(incident string, end bool) []byte {
	w.Helper()
	tape, err := recording.Create(recording.Config{
		Dir: w.recordings, Name: incident + ".G1.cast", Limit: recording.MinLimit, Now: time.Now, Salt: rand.Reader,
		Header: recording.Header{Incident: incident, Grant: "G1", Subject: "bert", Watcher: "carl", Host: "www1", Account: "console", Cols: 80, Rows: 24, Term: "xterm"},
	})
	w.Must(err)
	_, err = tape.Output([]byte("hello, half of this was seen\r\n"))
	w.Must(errors.Join(err, tape.Ack("carl", 15)))
	at, err := tape.Checkpoint()
	w.Must(err)
	w.Gateway("", incident, &emergencyv1.MarkSessionRequest{Grant: "G1", Kind: emergencyv1.MarkKind_MARK_KIND_CHECKPOINT, Checkpoint: &emergencyv1.RecordingCheckpoint{
		Frame: at.Frame, ChainHash: at.Chain.String(), OutputOffset: uint64(at.Output), Size: uint64(at.Bytes),
	}})
	if end {
		_, err = tape.End("SUBJECT_EXIT")
		w.Must(err)
	} else {
		w.Must(tape.Close())
	}
	b, err := os.ReadFile(filepath.Join(w.recordings, incident+".G1.cast"))
	w.Must(err)
	return b
}

// ready brings a session to where only its recording is missing for the seal.
func (w *sessionWorld) ready(record func(incident string)) string {
	w.Helper()
	w.sessionAgent()
	incident := w.granted()
	w.open(incident)
	record(incident)
	w.end(incident)
	w.DoConsole(deploymenttest.Granter, incident, &emergencyv1.DisableRequest{Grant: "G1"})
	w.DoConsole(deploymenttest.Granter, incident, &emergencyv1.ProveUnusableRequest{Grant: "G1"})
	ctx := context.Background()
	diff, left := &emergencyv1.CaptureSessionDiffRequest{Grant: "G1"}, &emergencyv1.ReportLeftoversRequest{Grant: "G1"}
	explain := &emergencyv1.ExplainLeftoversRequest{Grant: "G1", Explanation: "known, and ended by hand"}
	w.Prepare("carla", incident, diff)
	_, err := w.client("carla").CaptureSessionDiff(ctx, diff)
	w.Must(err)
	w.Prepare("carla", incident, left)
	_, err = w.client("carla").ReportLeftovers(ctx, left)
	w.Must(err)
	w.Prepare("carl", incident, explain)
	_, err = w.client("carl").ExplainLeftovers(ctx, explain)
	w.Must(err)
	return incident
}

func (w *sessionWorld) seal(incident string) procedure.Grant {
	w.Helper()
	req := &emergencyv1.SealSessionRequest{Grant: "G1"}
	w.Prepare("carl", incident, req)
	_, err := w.client("carl").SealSession(context.Background(), req)
	w.Must(err)
	return w.State(incident).Grants[0]
}

// A recording is sealed as what it is: whole, without its end, damaged, or not there.
func TestSealSession(t *testing.T) {
	t.Parallel()
	damage := func(w *sessionWorld, incident string) {
		name := filepath.Join(w.recordings, incident+".G1.cast")
		b := w.record(incident, true)
		w.Must(os.WriteFile(name, bytes.Replace(b, []byte("half"), []byte("none"), 1), 0o600))
	}
	for name, x := range map[string]struct {
		record func(*sessionWorld, string)
		want   emergencyv1.RecordingState
	}{
		"whole":           {func(w *sessionWorld, incident string) { w.record(incident, true) }, emergencyv1.RecordingState_RECORDING_STATE_COMPLETE},
		"without its end": {func(w *sessionWorld, incident string) { w.record(incident, false) }, emergencyv1.RecordingState_RECORDING_STATE_INCOMPLETE},
		"damaged":         {damage, emergencyv1.RecordingState_RECORDING_STATE_BROKEN},
		"not there":       {func(*sessionWorld, string) {}, emergencyv1.RecordingState_RECORDING_STATE_MISSING},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := serveSessions(t)
			g := w.seal(w.ready(func(incident string) { x.record(w, incident) }))
			if g.State != procedure.GrantSealed || g.Record != x.want || (g.Recording != nil) != (x.want != emergencyv1.RecordingState_RECORDING_STATE_MISSING) {
				t.Errorf("%s %s, %v", g.State, g.Record, g.Recording)
			}
		})
	}
}

// play reads a recording as a client does.
func (w *sessionWorld) play(who, incident string) ([]byte, []*emergencyv1.RecordingCheckpoint, error) {
	s, err := deploymentv1.NewConsoleServiceClient(w.Conn(w.addr, who)).ReadRecording(context.Background(), &deploymentv1.ReadRecordingRequest{
		Incident: incident, Grant: "G1", RequestId: "play-" + who + rand.Text(),
	})
	w.Must(err)
	var all []byte
	var anchors []*emergencyv1.RecordingCheckpoint
	for {
		part, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return all, anchors, nil
		}
		if err != nil {
			return nil, nil, err
		}
		all, anchors = append(all, part.GetData()...), append(anchors, part.GetAnchors()...)
	}
}

// A recording is played by those who may, and each time it is an event before a byte is shown (N28, N32).
func TestReadRecording(t *testing.T) {
	t.Parallel()
	w := serveSessions(t)
	var whole []byte
	incident := w.ready(func(incident string) { whole = w.record(incident, true) })
	played := func() int {
		n := 0
		for _, m := range w.State(incident).Grants[0].Marks {
			if m.Result == "played" {
				n++
			}
		}
		return n
	}
	for i, who := range []string{"anna", "carl"} {
		b, anchors, err := w.play(who, incident)
		if err != nil || !bytes.Equal(b, whole) || len(anchors) != 1 {
			t.Errorf("%s: %d bytes of %d, %d anchors, %v", who, len(b), len(whole), len(anchors), err)
		}
		if played() != i+1 {
			t.Errorf("played %d times, recorded %d", i+1, played())
		}
	}
	for _, who := range []string{"theo", "dora", "bea", deploymenttest.Host} {
		if b, _, err := w.play(who, incident); len(b) > 0 {
			t.Errorf("%s sees %d bytes", who, len(b))
		} else {
			wantRefusal(t, err, procedure.ReasonRole)
		}
	}
	if played() != 2 {
		t.Errorf("recorded %d", played())
	}
	// once sealed it comes from the store, whatever becomes of the folder
	w.seal(incident)
	w.Must(os.RemoveAll(w.recordings))
	if b, _, err := w.play("clara", incident); err != nil || !bytes.Equal(b, whole) {
		t.Errorf("%d bytes of %d, %v", len(b), len(whole), err)
	}
	if left, err := os.ReadDir(w.recordings); err != nil || len(left) > 0 {
		t.Errorf("what was brought to be read is left behind: %v, %v", left, err)
	}
}
