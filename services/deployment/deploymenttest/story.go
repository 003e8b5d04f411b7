// SPDX-License-Identifier: Apache-2.0

package deploymenttest

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/patch"
	"cacert.org/emergency/pkg/procedure"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Declare declares an emergency and returns its id.
func (r *Rig) Declare() string {
	r.Helper()
	c, err := r.dispatchers[procedure.OwnerIncident].Declare(context.Background(), &emergencyv1.DeclareRequest{
		Meta: r.meta(""), System: "www", Symptom: "visitors see each other's data", Severity: emergencyv1.Severity_SEVERITY_HIGH,
		ReasonClass: emergencyv1.ReasonClass_REASON_CLASS_VULNERABILITY, Reason: "the session check always passes",
	}, dispatch.Input{Actor: r.Actor("carla")}, r.Incidents)
	r.Must(err)
	return c.GetIncident()
}

func (r *Rig) meta(incident string) *emergencyv1.CommandMeta {
	return &emergencyv1.CommandMeta{Incident: incident, RequestId: fmt.Sprintf("request-%06d", r.serial.Add(1))}
}

// Actor is somebody by the own key.
func (r *Rig) Actor(who string) procedure.Actor { return procedure.Actor{KeyID: r.Profile(who).KeyID} }

// Do gives a command that must be accepted.
func (r *Rig) Do(who, incident string, cmd procedure.Command, facts procedure.Facts) *emergencyv1.Committed {
	r.Helper()
	c, err := r.Try(who, incident, cmd, facts)
	if err != nil {
		r.Fatalf("%s by %s: %v", procedure.CommandName(cmd), who, err)
	}
	return c
}

// Try gives a command: incident, request id, the current revision's binding and the signature are filled in.
func (r *Rig) Try(who, incident string, cmd procedure.Command, facts procedure.Facts) (*emergencyv1.Committed, error) {
	r.Helper()
	r.Prepare(who, incident, cmd)
	return r.dispatchers[procedure.CommandOwner(cmd)].Do(context.Background(), cmd, dispatch.Input{Actor: r.Actor(who), Facts: facts})
}

// Prepare fills in what a client fills in.
func (r *Rig) Prepare(who, incident string, cmd procedure.Command) {
	r.Helper()
	m := cmd.ProtoReflect()
	if cmd.GetMeta() == nil {
		m.Set(m.Descriptor().Fields().ByName("meta"), protoMessage(r.meta(incident)))
	}
	st := r.State(incident)
	if f := m.Descriptor().Fields().ByName("binding"); f != nil && !m.Has(f) && st.Current() != nil {
		m.Set(f, protoMessage(&emergencyv1.Binding{Revision: st.Current().ID, Digest: st.Current().Binding}))
	}
	if procedure.NeedsSignature(cmd) && cmd.GetMeta().GetApproval() == nil {
		cmd.GetMeta().Approval = r.Sign(who, who, st, cmd)
	}
}

// Sign makes the statement that a person would sign for a command, and signs it with a key.
func (r *Rig) Sign(person, key string, st *procedure.State, cmd procedure.Command) *emergencyv1.Approval {
	r.Helper()
	statement, err := procedure.StatementFor(st, cmd, person, people()[person], time.Now())
	r.Must(err)
	a, err := identity.SignStatement(r.Profile(key).Signer, statement)
	r.Must(err)
	return a
}

// Register registers the rig's patch, as P1r1 of a fresh incident.
func (r *Rig) Register(incident string) {
	r.Helper()
	r.RegisterPatch(incident, r.Patch, r.Base, r.BaseTree(), r.ResultTree())
}

// RegisterPatch registers any patch.
func (r *Rig) RegisterPatch(incident string, b []byte, commit, base, result string) {
	r.Helper()
	r.Do("dora", incident, &emergencyv1.RegisterPatchRequest{
		Bytes: b, Sha256: patch.Digest(b), BaseCommit: commit, BaseTree: base, ResultTree: result, BugId: "bug-1500",
	}, procedure.Facts{Patch: &procedure.PatchFacts{
		Artefact: &emergencyv1.Artefact{Sha256: patch.Digest(b), Size: uint64(len(b)), MediaType: "text/x-diff"}, BaseTree: base, ResultTree: result, Files: 1,
	}})
}

// Transfer approves the current revision as first reviewer and transfers it.
func (r *Rig) Transfer(incident, commit string) {
	r.Helper()
	r.Do("anna", incident, &emergencyv1.RecordFirstReviewRequest{Verdict: emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE}, procedure.Facts{})
	r.Do("anna", incident, &emergencyv1.TransferRequest{}, procedure.Facts{
		Pushed: &procedure.PushFacts{Commit: commit, Tree: r.State(incident).Current().ResultTree, Ref: "refs/heads/emergency/fix"},
	})
}

// Forward tests the current revision, approves it as second reviewer and forwards it.
func (r *Rig) Forward(incident string) {
	r.Helper()
	r.Do(TestServer, incident, &emergencyv1.ConfirmTestServerRequest{Tree: r.State(incident).Current().ResultTree, Environment: TestServer}, procedure.Facts{})
	for _, tester := range []string{"theo", "tina"} {
		r.Do(tester, incident, &emergencyv1.ReportTestRequest{Result: emergencyv1.TestResult_TEST_RESULT_PASS, Steps: "logged in as two people", BugNote: "bug-1500#7"}, procedure.Facts{})
	}
	r.Do("bert", incident, &emergencyv1.RecordSecondReviewRequest{Verdict: emergencyv1.ReviewVerdict_REVIEW_VERDICT_APPROVE}, procedure.Facts{})
	r.Do("bert", incident, &emergencyv1.ForwardRequest{To: "carla", RollbackPlan: "back out"}, procedure.Facts{})
}

// Forwarded is an incident whose patch was reviewed, tested and forwarded.
func (r *Rig) Forwarded() string {
	r.Helper()
	incident := r.Declare()
	r.Register(incident)
	r.Transfer(incident, r.Fixed)
	r.Forward(incident)
	return incident
}

// Started is an incident whose apply was started, with a dry run that nobody made.
func (r *Rig) Started(byHand bool) string {
	r.Helper()
	incident := r.Forwarded()
	r.Do("carla", incident, &emergencyv1.DryRunRequest{}, procedure.Facts{Agent: &procedure.AgentFacts{
		Host: Host, HostTree: r.BaseTree(), ResultTree: r.ResultTree(), Clean: true, Files: 4,
	}})
	r.Start(incident, byHand)
	return incident
}

// Start has the observer confirm and the executor start.
func (r *Rig) Start(incident string, byHand bool) {
	r.Helper()
	r.Do("carl", incident, &emergencyv1.ConfirmObserverRequest{}, procedure.Facts{})
	r.Do("carla", incident, &emergencyv1.StartApplyRequest{ByHand: byHand}, procedure.Facts{})
}

// Job is what an honest service would ask of an agent because of an event.
func (r *Rig) Job(incident string, kind deploymentv1.JobKind, position uint64) *deploymentv1.Job {
	r.Helper()
	rev := r.State(incident).Current()
	return &deploymentv1.Job{
		Id: fmt.Sprintf("%s/%d", incident, position), Kind: kind, Incident: incident, Binding: &emergencyv1.Binding{Revision: rev.ID, Digest: rev.Binding},
		PatchSha256: rev.Artefact.GetSha256(), BaseTree: rev.BaseTree, ResultTree: rev.ResultTree,
	}
}

// ApplyJob is the job of an apply that was started.
func (r *Rig) ApplyJob(incident string) *deploymentv1.Job {
	r.Helper()
	return r.Job(incident, deploymentv1.JobKind_JOB_KIND_APPLY, r.State(incident).Applies[0].Position)
}

// Clone copies a message.
func Clone[M proto.Message](m M) M { return proto.CloneOf(m) }
