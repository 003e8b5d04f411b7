// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// One byte is changed at each point where bytes pass (issue 3, section 8.2). The step after it refuses and names the point,
// and once the byte is back the emergency goes on.

// names checks that a text names the point that is wrong.
func names(t testing.TB, text string, points ...string) {
	t.Helper()
	for _, p := range points {
		if !strings.Contains(text, p) {
			t.Errorf("%q does not name %q", text, p)
		}
	}
}

// signed is the registration of the story's patch as dora signed it.
func signed(t testing.TB, env *testenv.Env, s *testenv.Story) *emergencyv1.RegisterPatchRequest {
	t.Helper()
	c := s.Patch.Register()
	c.Meta = &emergencyv1.CommandMeta{Incident: s.ID}
	_, err := env.As("dora").Sign(t.Context(), c)
	must(t, err)
	return c
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	at := bytes.Index(b, []byte("printf"))
	b[at] ^= 1
	return b
}

// TestRegisteredPatchChanged: the bytes that arrive are not those that dora signed.
func TestRegisteredPatchChanged(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Answered)

	c := signed(t, env, s)
	c.Bytes = flipped(c.Bytes)
	names(t, s.Refused("dora", c, procedure.ReasonDigest).Message, "SHA-256")

	c = signed(t, env, s) // and the digest with them
	c.Bytes = flipped(c.Bytes)
	c.Sha256 = patch.Digest(c.GetBytes())
	names(t, s.Refused("dora", c, procedure.ReasonSignature).Message, "binding") // which is over the patch's digest

	other := s.Patch // and the signature: then the bytes do not give the tree
	other.Bytes = flipped(other.Bytes)
	names(t, s.Refused("dora", other.Register(), procedure.ReasonResultMismatch).Message, s.Patch.ResultTree)

	other = s.Patch
	other.BaseTree = "sha1:" + strings.Repeat("7", 40)
	names(t, s.Refused("dora", other.Register(), procedure.ReasonBaseMismatch).Message, s.Patch.BaseTree)

	s.Until(testenv.OnTestServer)
	soundHere(t, env)
}

// other is a commit in the repository that is one byte different from a patch's.
func other(env *testenv.Env) string {
	p := env.Repo.Diff(map[string]string{testenv.Program: strings.Replace(testenv.Repaired, "printf", "prints", 1)})
	env.Repo.Git(env.Repo.Clone, "apply", "--index", patchFile(env, p))
	tree := env.Repo.Git(env.Repo.Clone, "write-tree")
	env.Repo.Git(env.Repo.Clone, "reset", "--quiet", "--hard")
	return env.Repo.Git(env.Repo.Clone, "commit-tree", "-p", p.Base, "-m", "one byte different", tree)
}

func patchFile(env *testenv.Env, p testenv.Patch) string {
	file := filepath.Join(env.Dir, "patch.diff")
	_ = os.WriteFile(file, p.Bytes, 0o600) // git says what is wrong with it
	return file
}

// plant puts a commit at a ref of the repository by force, as somebody with a shell there can.
func plant(env *testenv.Env, commit, ref string) {
	env.Repo.Git(env.Repo.Clone, "push", "--quiet", "--force", env.Repo.Bare, commit+":"+ref)
}

// TestTransferredCommitChanged: the repository has, or gets, another commit than the reviewed one under its name.
func TestTransferredCommitChanged(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Registered)
	ref, bad := "refs/heads/emergency/"+s.ID+"/P1r1", other(env)
	plant(env, bad, ref)
	s.Until(testenv.Reviewed)
	refused := env.AwaitEvent(s.ID, "review.CommandRefused", 0)
	names(t, refused.GetPayloadJson(), "REPO_TREE_MISMATCH", "Transfer")
	names(t, s.Refused("anna", &emergencyv1.TransferRequest{Binding: s.Binding()}, procedure.ReasonRepoTreeMismatch).Message, ref, bad)
	env.Repo.Git(env.Repo.Bare, "update-ref", "-d", ref)
	env.Agent(demobook.Test).Stop()
	s.Do("anna", &emergencyv1.TransferRequest{Binding: s.Binding()})

	// Transferred, and then replaced: it is not installed from there.
	env.Stop()
	good := env.Repo.Ref(ref)
	env.Repo.Git(env.Repo.Bare, "update-ref", ref, bad)
	seen := len(env.Log.Lines())
	env.Open()
	names(t, env.Log.Await(seen, "/install", "effect will be tried again"), ref, bad, good)
	if in := s.Read(); testenv.Has(in, "test server") {
		t.Error("it was installed")
	}
	env.Repo.Git(env.Repo.Bare, "update-ref", ref, good)
	env.StartAgent(demobook.Test)
	s.Until(testenv.OnTestServer)
	holds(t, env, demobook.Test, s.Patch.ResultTree)
}

// TestRepositoryObjectDamaged: a byte of the reviewed file's object is changed in the repository. The release branch is not
// moved to it, and what is owed stays owed until the repository is mended.
func TestRepositoryObjectDamaged(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.DryRun)
	release := env.Repo.Ref(demobook.Release)
	blob := env.Repo.Git(env.Repo.Bare, "rev-parse", "refs/heads/emergency/"+s.ID+"/P1r1:"+testenv.Program)
	object := filepath.Join(env.Repo.Bare, "objects", blob[:2], blob[2:])
	testenv.Flip(t, object)
	s.Until(testenv.Verified) // the host's bytes do not come from there
	holds(t, env, demobook.Host, s.Patch.ResultTree)
	names(t, env.Log.Await(0, "effect will be tried again", "/replicate"), "repository: fetch")
	if got := env.Repo.Ref(demobook.Release); got != release {
		t.Errorf("the release branch was moved to %s over a damaged repository", got)
	}
	testenv.Flip(t, object)
	s.Until(testenv.Replicated)
}

// TestTestServerChanged: a byte of the test server's tree is changed before the installation, and after its confirmation.
func TestTestServerChanged(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	page := filepath.Join(env.Root(demobook.Test), testenv.Page)
	testenv.Flip(t, page)
	s := env.Play(testenv.Reviewed)
	refused := env.AwaitEvent(s.ID, "review.CommandRefused", 0)
	names(t, refused.GetPayloadJson(), "TEST_TREE_MISMATCH", "ConfirmTestServer")
	names(t, env.Log.Await(0, "/install", "effect will be tried again"), demobook.Test, "HOST_BASE_MISMATCH")
	testenv.Flip(t, page)
	s.Do("anna", &emergencyv1.TransferRequest{Binding: s.Binding()}) // as the refusal says: a job is tried once
	s.Until(testenv.OnTestServer)

	testenv.Flip(t, page)
	names(t, s.Refused("tina", s.Test(testenv.Pass), procedure.ReasonTestTreeMismatch).Message, env.Repo.TreeOf(env.Root(demobook.Test)), s.Patch.ResultTree)
	testenv.Flip(t, page)
	s.Until(testenv.Tested)
}

// overwrite puts an artefact with one byte changed before the right one in the bucket, as somebody with the right to write there can.
func overwrite(t testing.TB, env *testenv.Env, sha256 string) {
	t.Helper()
	ctx, js := t.Context(), env.Node().JetStream()
	objects, err := js.ObjectStore(ctx, "ARTEFACTS")
	must(t, err)
	info, err := objects.GetInfo(ctx, sha256)
	must(t, err)
	stream, err := js.Stream(ctx, "OBJ_ARTEFACTS")
	must(t, err)
	subject := "$O.ARTEFACTS.C." + info.NUID
	msg, err := stream.GetLastMsgForSubject(ctx, subject)
	must(t, err)
	data := bytes.Clone(msg.Data)
	data[len(data)-2] ^= 1
	info.NUID += "x"
	meta, err := json.Marshal(info)
	must(t, err)
	_, err = js.Publish(ctx, "$O.ARTEFACTS.C."+info.NUID, data)
	must(t, err)
	_, err = js.Publish(ctx, "$O.ARTEFACTS.M."+base64.URLEncoding.EncodeToString([]byte(sha256)), meta)
	must(t, err)
}

// TestArtefactChanged: the patch is changed in the artefact bucket, before the transfer, before the dry run and before the
// apply. Whoever has the right bytes mends the store by registering them again.
func TestArtefactChanged(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Registered)
	sha := patch.Digest(s.Patch.Bytes)
	mend := func() { s.Refused("dora", s.Patch.Register(), procedure.ReasonRevisionExists) }

	overwrite(t, env, sha)
	s.Until(testenv.Reviewed)
	names(t, env.Log.Await(0, "/transfer", "effect"), "artefact store", "P1r1", sha)
	if s.Revision().Transfer != nil {
		t.Error("it was transferred")
	}
	mend()
	s.Do("anna", &emergencyv1.TransferRequest{Binding: s.Binding()})
	s.Until(testenv.Observed)

	overwrite(t, env, sha)
	names(t, s.Refused("carla", s.DryRun(), "AGENT_REFUSED").Message, demobook.Host, "artefact store", "P1r1", sha)
	mend()
	s.Until(testenv.DryRun)

	overwrite(t, env, sha)
	s.Until(testenv.Started)
	names(t, env.Log.Await(0, "job not done", "JOB_KIND_APPLY"), "PATCH_LOST", "artefact store", "P1r1", sha)
	untouched(t, env, demobook.Host)
	mend()
	s.Until(testenv.Verified)
}

// TestCriticalTreeChangedBefore: a byte of the critical tree is changed between the clean dry run and the apply. The agent
// computes the tree again and leaves it as it is.
func TestCriticalTreeChangedBefore(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.DryRun)
	testenv.Flip(t, filepath.Join(env.Root(demobook.Host), testenv.Page))
	found := env.Repo.TreeOf(env.Root(demobook.Host))
	s.Until(testenv.Started)
	in := env.Await(s.ID, "the agent's refusal", func(in *dashboardv1.Incident) bool { return testenv.Deployment(in) == "BACK_OUT_UNPROVEN" })
	if got := in.GetDeployments()[0].GetHostTree(); got != found {
		t.Errorf("the history says that the host holds %s, git says %s", got, found)
	}
	names(t, env.Log.Await(0, "job not done", "JOB_KIND_APPLY"), "HOST_BASE_MISMATCH", s.Patch.BaseTree, found)
	holds(t, env, demobook.Host, found)
	if got := read(t, env.Root(demobook.Host), testenv.Program); got != testenv.Vulnerable {
		t.Errorf("the program was changed to %q", got)
	}
	debt(t, in, "BACKOUT_PROOF")
}

// TestCriticalTreeChangedDuring: a byte that the patch does not touch is changed while the agent applies. The agent sees
// that the result is not the reviewed tree, takes its own work back, and nothing counts as deployed.
func TestCriticalTreeChangedDuring(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{NoAgents: true})
	env.StartAgent(demobook.Test)
	var once, armed atomic.Bool
	page := filepath.Join(env.Root(demobook.Host), testenv.Page)
	env.StartAgentWith(env.AgentConfig(demobook.Host), agent.Deps{Dialer: env.Dial, Failpoint: func(step string) {
		if armed.Load() && strings.Contains(step, ":placed:") && once.CompareAndSwap(false, true) {
			testenv.Flip(t, page)
		}
	}})
	s := env.Play(testenv.DryRun)
	armed.Store(true)
	s.Until(testenv.Started)
	env.Await(s.ID, "the end of the apply", func(in *dashboardv1.Incident) bool {
		d := testenv.Deployment(in)
		return d == "VERIFIED" || d == "MISMATCH" || d == "BACKED_OUT" || d == "BACK_OUT_UNPROVEN"
	})
	if !once.Load() {
		t.Fatal("nothing was changed during the apply")
	}
	if got := testenv.Deployment(s.Read()); got != "BACK_OUT_UNPROVEN" {
		t.Errorf("the deployment is %s", got)
	}
	if got := read(t, env.Root(demobook.Host), testenv.Program); got != testenv.Vulnerable {
		t.Errorf("the agent left its half of the patch: %q", got)
	}
}

// TestCriticalTreeChangedAfter: a byte of the critical tree is changed after the verification. The comparison of host and
// branch finds the path, and the second look of an observer refuses.
func TestCriticalTreeChangedAfter(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Replicated)
	testenv.Flip(t, filepath.Join(env.Root(demobook.Host), testenv.Page))
	names(t, s.Refused("carl", s.Observe(emergencyv1.ObserverKind_OBSERVER_KIND_AFTER), procedure.ReasonTreeMismatch).Message, s.Patch.ResultTree)
	s.Do("anna", &emergencyv1.CheckReplicationRequest{})
	in := s.Read()
	if in.GetReplication() != "DRIFT" {
		t.Errorf("replication is %s", in.GetReplication())
	}
	debt(t, in, "EXPLAIN_DRIFT")
	st := s.State()
	if len(st.Drift) != 1 {
		t.Fatalf("%d paths differ", len(st.Drift))
	}
	res, err := env.As("anna").Query().ReadRestricted(context.Background(), &dashboardv1.ReadRestrictedRequest{Incident: s.ID, Commitment: st.Drift[0].Commitment})
	must(t, err)
	if res.GetValue() != testenv.Page {
		t.Errorf("the path that differs is said to be %q", res.GetValue())
	}
}
