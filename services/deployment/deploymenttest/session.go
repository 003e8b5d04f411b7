// SPDX-License-Identifier: Apache-2.0

package deploymenttest

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The persons of a session: carla grants, carl watches, bert types. The joint declaration is carla's and anna's.
const (
	Granter = "carla"
	Watcher = "carl"
	Subject = "bert"
)

// AsGateway gives a command as the broker, for a person whose key it has verified if one is named.
func (r *Rig) AsGateway(person, incident string, cmd procedure.Command, x *procedure.ConsoleFacts) *emergencyv1.Committed {
	r.Helper()
	m := cmd.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName("meta"), protoMessage(r.meta(incident)))
	c, err := r.dispatchers[procedure.OwnerDeployment].Do(context.Background(), cmd, dispatch.Input{
		Actor: procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_CONSOLE_GATEWAY, SystemName: procedure.OwnerDeployment, Person: person},
		Facts: procedure.Facts{Console: x},
	})
	if err != nil {
		r.Fatalf("%s by the gateway: %v", procedure.CommandName(cmd), err)
	}
	return c
}

// Permitted is an incident under strategy 3 in which the lead has permitted the subject's access.
func (r *Rig) Permitted() string {
	r.Helper()
	incident := r.Declare()
	for _, who := range []string{Granter, "anna"} {
		r.Do(who, incident, &emergencyv1.SignJointDeclarationRequest{
			WhyNot_1: "the testers cannot reproduce it on the test server at all", WhyNot_2: "no patch can be prepared before the cause is understood",
			WhyLive: "it happens only with the live database and its present load",
		}, procedure.Facts{})
	}
	r.Do("clara", incident, &emergencyv1.PermitAccessRequest{Subject: Subject, Purpose: "find out why logins fail"}, procedure.Facts{})
	return incident
}

// GrantRequest asks for the session of the rig's persons.
func GrantRequest() *emergencyv1.GrantAccessRequest {
	return &emergencyv1.GrantAccessRequest{Subject: Subject, Watcher: Watcher, Account: "console", Purpose: "find out why logins fail"}
}

// OpenSession arms, connects and opens the session of grant G1, as the broker and its watcher do.
func (r *Rig) OpenSession(incident string) {
	r.Helper()
	r.Do(Watcher, incident, &emergencyv1.ArmWatchRequest{Grant: "G1"}, procedure.Facts{Console: &procedure.ConsoleFacts{RecorderReady: true, Anchored: true}})
	r.AsGateway(Subject, incident, &emergencyv1.ConnectRequest{Grant: "G1", SourceAddress: "192.0.2.7"}, &procedure.ConsoleFacts{LeaseAlive: true, KeyProven: true, SourceAllowed: true})
	r.AsGateway(Subject, incident, &emergencyv1.ReportConnectionRequest{Grant: "G1", HostKeyFingerprint: "SHA256:host", Agent: true}, nil)
}

// ProveUnusable disables the access of G1 and has it proven unusable.
func (r *Rig) ProveUnusable(incident string) {
	r.Helper()
	done := &emergencyv1.EndResult{Outcome: emergencyv1.EffectOutcome_EFFECT_OUTCOME_DONE}
	r.Do(Granter, incident, &emergencyv1.DisableRequest{Grant: "G1"}, procedure.Facts{Console: &procedure.ConsoleFacts{Gateway: done, HostEnd: done}})
	var attempts []*emergencyv1.ReuseAttempt
	for _, at := range []string{"gateway", "host"} {
		attempts = append(attempts, &emergencyv1.ReuseAttempt{At: at, AttemptedAt: timestamppb.New(time.Now().Add(time.Second)), Refused: true})
	}
	r.Do(Granter, incident, &emergencyv1.ProveUnusableRequest{Grant: "G1"}, procedure.Facts{Console: &procedure.ConsoleFacts{Attempts: attempts}})
}
