// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// refusalsPerHour is how many refusals of one person in one hour and incident are recorded one by one; more are counted and
// come with the next one that is recorded (procedure.md 4.0). What was recorded is read from the history, so it counts over restarts and in
// all instances of the service; what was only counted is this process's own.
const refusalsPerHour = 20

type refusalKey struct{ incident, who string }

type refusalCount struct {
	hour       int64
	recorded   int
	suppressed int
}

// admit tells whether a refusal is to be recorded now, and how many were only counted since the last one that was.
func (d *Dispatcher) admit(k refusalKey, at time.Time) (ok bool, suppressed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hour := at.Unix() / 3600
	c := d.refusalsOf(k, hour)
	if hour != c.hour {
		c.hour, c.recorded = hour, 0
	}
	if c.recorded >= refusalsPerHour {
		c.suppressed++
		return false, 0
	}
	n := c.suppressed
	c.suppressed = 0
	return true, n
}

// refusalsOf is the count of somebody. The caller holds the lock.
func (d *Dispatcher) refusalsOf(k refusalKey, hour int64) *refusalCount {
	c, known := d.refusals[k]
	if !known {
		d.forgetRefusals(hour)
		c = &refusalCount{}
		d.refusals[k] = c
	}
	return c
}

// recorded counts a refusal of this owner that the history has, whichever instance recorded it.
func (d *Dispatcher) recorded(rec *emergencyv1.Record) {
	hour := d.cfg.Now().Unix() / 3600
	if rec.GetOwner() != d.cfg.Owner || rec.GetRecordedAt().AsTime().Unix()/3600 != hour || !procedure.CountedRefusal(rec) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.refusalsOf(refusalKey{rec.GetIncident(), whoever(rec.GetActor())}, hour)
	if hour != c.hour {
		c.hour, c.recorded = hour, 0
	}
	c.recorded++
}

// takeBack undoes an admission whose record was not stored.
func (d *Dispatcher) takeBack(k refusalKey, suppressed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.refusals[k]; ok {
		c.suppressed += suppressed
	}
}

// manyRefusals is when the counts of past hours are thrown away that say nothing more.
const manyRefusals = 4096

func (d *Dispatcher) forgetRefusals(hour int64) {
	if len(d.refusals) < manyRefusals {
		return
	}
	for k, c := range d.refusals {
		if c.hour != hour && c.suppressed == 0 {
			delete(d.refusals, k)
		}
	}
}

// recordRefusal appends CommandRefused for the refusals that are evidence. An error other than a conflict is logged and
// does not hide the refusal from the caller.
func (d *Dispatcher) recordRefusal(ctx context.Context, inc *incident, c *deciding, r *procedure.Refusal) error {
	each := procedure.EachRefusalRecorded(c.cmd)
	if !r.Recorded() && !each || inc.state.Position == 0 || r.Reason == procedure.ReasonClockSkew {
		return nil // a clock that is too far behind cannot record anything either
	}
	now := d.cfg.Now()
	actor := d.actorOf(c)
	key := refusalKey{c.id, whoever(actor)}
	ok, suppressed := true, 0
	if !each {
		ok, suppressed = d.admit(key, now)
	}
	if !ok {
		return nil
	}
	err := d.appendRefusal(ctx, inc, c, r, actor, now, suppressed)
	if err != nil {
		if !each {
			d.takeBack(key, suppressed)
		}
		d.cfg.Log.WarnContext(ctx, "refusal not recorded", "incident", c.id, "reason", string(r.Reason), "error", err)
	}
	return err
}

func (d *Dispatcher) appendRefusal(ctx context.Context, inc *incident, c *deciding, r *procedure.Refusal, actor *emergencyv1.Actor, now time.Time, suppressed int) error {
	event, err := procedure.RefusedEvent(d.cfg.Owner, c.cmd, r, suppressed)
	if err != nil {
		return err
	}
	digest, err := procedure.RequestDigest(c.cmd)
	if err != nil {
		return err
	}
	dec := &procedure.Decision{
		Owner: d.cfg.Owner, Command: procedure.CommandName(c.cmd), Digest: digest, Actor: actor, Authority: r.Rule, RecordedAt: now,
		Events: []*emergencyv1.Event{event},
	}
	if now.Before(inc.state.RecordedAt) {
		dec.RecordedAt, dec.Skew = inc.state.RecordedAt, inc.state.RecordedAt.Sub(now)
	}
	if inc.state.Policy != nil {
		dec.PolicyDigest = inc.state.Policy.Digest
	}
	bare := *c
	if !procedure.Forwarded(actor) {
		bare.cmd = withoutApproval{c.cmd}
	}
	_, err = d.record(ctx, inc, &bare, dec)
	return err
}

// withoutApproval keeps a refused signature out of the record: it proved nothing. Of a forwarded command it proves whose it was.
type withoutApproval struct{ procedure.Command }

func (w withoutApproval) GetMeta() *emergencyv1.CommandMeta {
	return &emergencyv1.CommandMeta{Incident: w.Command.GetMeta().GetIncident(), RequestId: w.Command.GetMeta().GetRequestId()}
}

// actorOf is who gave a command that may be refused: the person, if a service handed it on and the signature shows whose it is;
// otherwise whoever is at the other end of the connection, also by a key that does not count any more.
func (d *Dispatcher) actorOf(c *deciding) *emergencyv1.Actor {
	if c.cmd.GetMeta().GetForwarded() {
		if a, refusal := procedure.ActorOf(c.cmd, d.env(c)); refusal == nil {
			return a
		}
	}
	in := c.in
	a := &emergencyv1.Actor{Person: in.Actor.Person, KeyId: in.Actor.KeyID, System: in.Actor.System, SystemName: in.Actor.SystemName}
	if k, ok := c.book.Key(in.Actor.KeyID); ok && a.System == 0 {
		a.Person, a.System, a.SystemName = k.Key.GetPerson(), k.Key.GetSystem(), k.Key.GetSystemName()
	}
	return a
}

// whoever is the person, whichever key was used; a key of nobody and a part of a service count by themselves.
func whoever(a *emergencyv1.Actor) string {
	if a.GetPerson() != "" {
		return a.GetPerson()
	}
	return a.GetKeyId() + "/" + a.GetSystem().String() + "/" + a.GetSystemName()
}
