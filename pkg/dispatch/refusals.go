// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"time"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// refusalsPerHour is how many refusals of one person in one hour and incident are recorded one by one; more are counted and
// come with the next one that is recorded (procedure.md 4.0). The count is this process's own and ends with it.
const refusalsPerHour = 20

type refusalKey struct{ incident, who string }

type refusalCount struct {
	hour       int64
	recorded   int
	suppressed int
}

// admit tells whether a refusal is to be recorded now, and how many were only counted since the last one that was.
func (d *Dispatcher) admit(k refusalKey, at time.Time) (bool, int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.refusals[k]
	if !ok {
		c = &refusalCount{}
		d.refusals[k] = c
	}
	if hour := at.Unix() / 3600; hour != c.hour {
		c.hour, c.recorded = hour, 0
	}
	if c.recorded >= refusalsPerHour {
		c.suppressed++
		return false, 0
	}
	c.recorded++
	n := c.suppressed
	c.suppressed = 0
	return true, n
}

// recordRefusal appends CommandRefused for the refusals that are evidence. An error other than a conflict is logged and
// does not hide the refusal from the caller.
func (d *Dispatcher) recordRefusal(ctx context.Context, id string, inc *incident, cmd procedure.Command, in Input, book *rulebook.Book, r *procedure.Refusal) error {
	if !r.Recorded() || inc.state.Position == 0 || r.Reason == procedure.ReasonClockSkew {
		return nil // a clock that is too far behind cannot record anything either
	}
	who := in.Actor.KeyID + in.Actor.Person
	ok, suppressed := d.admit(refusalKey{id, who}, d.cfg.Now())
	if !ok {
		return nil
	}
	event, err := procedure.RefusedEvent(d.cfg.Owner, cmd, r, suppressed)
	if err != nil {
		return err
	}
	digest, err := procedure.RequestDigest(cmd)
	if err != nil {
		return err
	}
	at := d.cfg.Now()
	if at.Before(inc.state.RecordedAt) {
		at = inc.state.RecordedAt
	}
	dec := &procedure.Decision{
		Owner: d.cfg.Owner, Command: procedure.CommandName(cmd), Digest: digest, Actor: refusedActor(book, in), Authority: r.Rule, RecordedAt: at,
		Events: []*emergencyv1.Event{event},
	}
	if inc.state.Policy != nil {
		dec.PolicyDigest = inc.state.Policy.Digest
	}
	_, err = d.record(ctx, id, inc, withoutApproval{cmd}, in, book, dec)
	if err != nil {
		d.cfg.Log.WarnContext(ctx, "refusal not recorded", "incident", id, "reason", string(r.Reason), "error", err)
	}
	return err
}

// withoutApproval keeps a refused signature out of the record: it proved nothing.
type withoutApproval struct{ procedure.Command }

func (w withoutApproval) GetMeta() *emergencyv1.CommandMeta {
	return &emergencyv1.CommandMeta{Incident: w.Command.GetMeta().GetIncident(), RequestId: w.Command.GetMeta().GetRequestId()}
}

func refusedActor(book *rulebook.Book, in Input) *emergencyv1.Actor {
	a := &emergencyv1.Actor{Person: in.Actor.Person, KeyId: in.Actor.KeyID, System: in.Actor.System, SystemName: in.Actor.SystemName}
	if k, ok := book.Key(in.Actor.KeyID); ok && a.System == 0 {
		a.Person, a.System, a.SystemName = k.Key.GetPerson(), k.Key.GetSystem(), k.Key.GetSystemName()
	}
	return a
}
