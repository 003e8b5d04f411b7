// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment/broker"
)

// consoleHost is what the target's agent does for a session.
type consoleHost struct{ s *Server }

// sessionAttach is how long a session's job waits for an agent that is connecting again. Freezing has one second in all.
const sessionAttach = 500 * time.Millisecond

// grant is the state that a job is about; the event at the position is what the agent verifies.
func (h consoleHost) grant(ctx context.Context, ref broker.Ref) (*procedure.State, *procedure.Grant, error) {
	st, err := h.s.Dispatch.State(ctx, ref.Incident)
	if err != nil {
		return nil, nil, err
	}
	g, ok := st.Grant(ref.Grant)
	if !ok {
		return nil, nil, fmt.Errorf("there is no grant %s", ref)
	}
	return st, g, nil
}

// run has the agent do a session's job. A host that has no agent is told apart from one whose agent is away.
func (h consoleHost) run(ctx context.Context, ref broker.Ref, host string, j *deploymentv1.Job) (*answer, error) {
	j.Incident, j.Grant = ref.Incident, ref.Grant
	ans, err := h.s.hub.run(ctx, sessionAttach, host, j)
	if err != nil {
		if _, g, gone := h.grant(ctx, ref); gone == nil && !g.Agent && h.s.hub.away(host) {
			return nil, broker.ErrNoAgent
		}
		return nil, err
	}
	if !ans.GetOk() {
		return ans, fmt.Errorf("agent on %s: %s: %s", host, ans.GetErrorCode(), ans.GetErrorDetail())
	}
	return ans, nil
}

// Open implements broker.Host.
func (h consoleHost) Open(ctx context.Context, a broker.Access) error {
	st, g, err := h.grant(ctx, a.Ref)
	if err != nil {
		return err
	}
	_, err = h.run(ctx, a.Ref, a.Host, &deploymentv1.Job{
		Id: eventID(st, g.Consumed.Position), Kind: deploymentv1.JobKind_JOB_KIND_OPEN_ACCESS, PublicKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(a.Key))),
		Account: a.Account, ValidUntil: timestamppb.New(a.Until), GraceMs: uint32(a.Grace.Milliseconds()),
	})
	return err
}

// Freeze implements broker.Host. How far it reaches is kept for the record.
func (h consoleHost) Freeze(ctx context.Context, ref broker.Ref, host string) error {
	ans, err := h.run(ctx, ref, host, &deploymentv1.Job{Id: jobID("freeze"), Kind: deploymentv1.JobKind_JOB_KIND_FREEZE_SESSION})
	if err != nil {
		return err
	}
	if ans.GetFreezeMode() != emergencyv1.FreezeMode_FREEZE_MODE_PROCESS && ans.GetFreezeMode() != emergencyv1.FreezeMode_FREEZE_MODE_CGROUP {
		return errors.New("the agent found no processes to stop")
	}
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.s.modes[ref] = ans.GetFreezeMode()
	return nil
}

// freezeMode is how far the last freeze reached, as the agent said.
func (s *Server) freezeMode(ref broker.Ref) emergencyv1.FreezeMode {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mode, ok := s.modes[ref]; ok {
		return mode
	}
	return emergencyv1.FreezeMode_FREEZE_MODE_PROCESS
}

// Thaw implements broker.Host. The agent wants to see the event that ended the freeze.
func (h consoleHost) Thaw(ctx context.Context, ref broker.Ref, host string) error {
	st, g, err := h.grant(ctx, ref)
	if err != nil {
		return err
	}
	position := g.Resumed.Position
	if position == 0 {
		position = g.Armed.Position
	}
	_, err = h.run(ctx, ref, host, &deploymentv1.Job{Id: eventID(st, position), Kind: deploymentv1.JobKind_JOB_KIND_THAW_SESSION})
	return err
}

// End implements broker.Host.
func (h consoleHost) End(ctx context.Context, ref broker.Ref, host string) error {
	_, err := h.run(ctx, ref, host, &deploymentv1.Job{Id: jobID("end"), Kind: deploymentv1.JobKind_JOB_KIND_END_ACCESS})
	return err
}
