// SPDX-License-Identifier: Apache-2.0

package review

import (
	"context"
	"crypto/rand"
	"time"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// testFacts are the note of a test and what the test server holds now. The test server is asked only about a test that would
// be recorded otherwise, so that nobody causes work by what is refused or known anyway.
func (s *Server) testFacts(ctx context.Context, req *emergencyv1.ReportTestRequest) (procedure.Facts, error) {
	facts, err := s.noteFacts(ctx, req)
	if err != nil {
		return facts, err
	}
	st, err := s.Dispatch.State(ctx, req.GetMeta().GetIncident())
	if err != nil {
		return facts, service.Retryable(err)
	}
	book, err := s.Dispatch.Book(ctx)
	if err != nil {
		return facts, service.Retryable(err)
	}
	env := procedure.Env{Owner: s.Owner, Now: s.Clock.Now(), Actor: service.Caller(ctx), Book: book, Facts: facts, Salt: make([]byte, 32)} // nothing of it is kept
	d, refusal, err := procedure.Decide(st, req, env)
	if r, ok := st.Revision(req.GetBinding().GetRevision()); ok && err == nil && refusal == nil && d.Repeated == nil {
		facts.Agent = s.environment(ctx, st, r)
	}
	return facts, err
}

// lookWithin is how long a test waits for the test server's agent to say what it holds now.
const lookWithin = 4 * time.Second

// environment asks the test server's agent which tree it holds at the moment of a test: what it confirmed after the
// installation may have been changed since (B5). An agent that is away keeps nobody from reporting a test: then what it
// confirmed counts.
func (s *Server) environment(ctx context.Context, st *procedure.State, r *procedure.Revision) *procedure.AgentFacts {
	server := r.Tested()
	if server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	resp, err := s.agents.RunJob(ctx, &deploymentv1.RunJobRequest{Agent: server.Environment, Job: &deploymentv1.Job{
		Id: "tree." + rand.Text(), Kind: deploymentv1.JobKind_JOB_KIND_REPORT_TREE, Incident: st.Incident, BaseTree: r.ResultTree,
	}})
	if err != nil || !resp.GetResult().GetOk() {
		s.Log.WarnContext(ctx, "the test server was not asked again; what it confirmed counts", "incident", st.Incident, "environment", server.Environment,
			"code", resp.GetResult().GetErrorCode(), "error", err)
		return nil
	}
	return &procedure.AgentFacts{Host: server.Environment, HostTree: resp.GetResult().GetPostTree()}
}
