// SPDX-License-Identifier: Apache-2.0

package deploymenttest

import (
	"context"
	"fmt"
	"time"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	vaultmemory "cacert.org/emergency/pkg/vault/memory"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Strategy 3 of the rig: carla grants, bert works on the host and carl watches.
const (
	Granter = "carla"
	Subject = "bert"
	Watcher = "carl"
	Grant   = "G1"
)

// gateway is the broker of consoles, by itself or for a person whose key it has verified.
func gateway(person string) procedure.Actor {
	return procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_CONSOLE_GATEWAY, SystemName: procedure.OwnerDeployment, Person: person}
}

// Gateway gives a command as the broker does, with facts as when all is well.
func (r *Rig) Gateway(person, incident string, cmd procedure.Command) *emergencyv1.Committed {
	r.Helper()
	m := cmd.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName("meta"), protoMessage(r.meta(incident)))
	c, err := r.dispatchers[procedure.OwnerDeployment].Do(context.Background(), cmd, dispatch.Input{Actor: gateway(person), Facts: r.consoleFacts(incident, cmd)})
	if err != nil {
		r.Fatalf("%s by the broker for %q: %v", procedure.CommandName(cmd), person, err)
	}
	return c
}

func (r *Rig) consoleFacts(incident string, cmd procedure.Command) procedure.Facts {
	x := proceduretest.ConsoleFacts(r.State(incident), cmd)
	if x.Before != nil {
		x.Before.Tree = r.BaseTree()
	}
	return procedure.Facts{Console: x}
}

// DoConsole gives a person's command about a grant, with facts as when all is well.
func (r *Rig) DoConsole(who, incident string, cmd procedure.Command) *emergencyv1.Committed {
	r.Helper()
	return r.Do(who, incident, cmd, r.consoleFacts(incident, cmd))
}

// Granted is an incident under strategy 3 with a grant whose watch is armed.
func (r *Rig) Granted() (incident string) {
	r.Helper()
	incident = r.Declare()
	for _, who := range []string{Granter, "anna"} {
		r.Do(who, incident, proceduretest.Joint(), procedure.Facts{})
	}
	r.Do("clara", incident, proceduretest.Permit(Subject), procedure.Facts{})
	r.DoConsole(Granter, incident, proceduretest.GrantTo(Subject, Watcher))
	r.DoConsole(Watcher, incident, proceduretest.Arm())
	return incident
}

// Consumed is an incident whose credential is used, and the job that lets the broker's key in.
func (r *Rig) Consumed(publicKey, account string) (incident string, open *deploymentv1.Job) {
	r.Helper()
	incident = r.Granted()
	r.Gateway(Subject, incident, proceduretest.Connect())
	open = r.SessionJob(incident, deploymentv1.JobKind_JOB_KIND_OPEN_ACCESS)
	open.PublicKey, open.Account = publicKey, account
	return incident, open
}

// TickLater has the clock look at an incident some time from now: what the broker has not done by then is recorded.
func (r *Rig) TickLater(incident string, after time.Duration) {
	r.Helper()
	d, err := dispatch.New(dispatch.Config{
		Owner: procedure.OwnerDeployment, Store: r.Store, Keys: r.Keys, Signer: r.Signers[procedure.OwnerDeployment], Vault: vaultmemory.New(), Log: r.Logger,
		Now: func() time.Time { return time.Now().Add(after) },
	})
	r.Must(err)
	_, err = d.Do(context.Background(), &emergencyv1.TickRequest{Meta: r.meta(incident)}, dispatch.Input{
		Actor: procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_TIMER, SystemName: procedure.OwnerDeployment},
	})
	r.Must(err)
}

// SessionJob is a job about the grant, asked for by the last event of the incident.
func (r *Rig) SessionJob(incident string, kind deploymentv1.JobKind) *deploymentv1.Job {
	r.Helper()
	return &deploymentv1.Job{Id: fmt.Sprintf("%s/%d", incident, r.State(incident).Position), Kind: kind, Incident: incident, Grant: Grant}
}
