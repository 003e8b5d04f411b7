// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"time"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The watched session from its first byte to its end (seed 3.5, 3.6; procedure.md 4.4). Freezing and ending are never made
// difficult: no step-up, and ending is never refused for a grant that exists.

// byGateway tells whether the broker gives the command, by itself or for the subject.
func (d *decision) byGateway() bool { return d.env.Actor.System == consoleGateway }

// decideFreeze records a freeze. A person's freeze is always the watcher's wish; the other causes are the broker's to name.
func decideFreeze(d *decision, c *emergencyv1.FreezeRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	if g.State != GrantLive {
		return d.grantState(g)
	}
	cause := emergencyv1.SessionCause_SESSION_CAUSE_WATCHER
	if d.byGateway() && c.GetCause() != 0 {
		cause = c.GetCause()
	}
	x := d.console()
	d.freeze(g, cause, x.FreezeMode, x.OutputOffset, x.InputDiscarded)
	return nil
}

func (d *decision) freeze(g *Grant, cause emergencyv1.SessionCause, mode emergencyv1.FreezeMode, output, discarded uint64) {
	var deviations []emergencyv1.Deviation
	if g.Agent && mode == emergencyv1.FreezeMode_FREEZE_MODE_INPUT { // without an agent the opening of the connection has it
		deviations = append(deviations, emergencyv1.Deviation_DEVIATION_FREEZE_NOT_AVAILABLE)
	}
	d.emit(&emergencyv1.SessionFrozen{Grant: g.ID, Cause: cause, Mode: mode, OutputOffset: output, InputDiscarded: discarded}, deviations...)
}

// decideResume lets a frozen session go on: by its watcher, who has armed the watch again since, and within the grace.
func decideResume(d *decision, c *emergencyv1.ResumeRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	if g.State != GrantFrozen {
		return d.grantState(g)
	}
	if d.person != g.Watcher {
		return refuse(ReasonWatcherRole, "%s watches %s, and lets it go on", g.Watcher, g.ID).allow("ArmWatch", g.ID, "take the watch over by name first")
	}
	if g.full() {
		return g.refuseFull()
	}
	if g.Armed.Position < g.Frozen.Position {
		return refuse(ReasonWatcherAbsent, "%s was frozen at %s, and the watch was not armed since", g.ID, stamp(g.Frozen.At)).allow("ArmWatch", g.ID, "arm the watch again")
	}
	if refusal := d.watched(g); refusal != nil {
		return refusal
	}
	if grace := d.s.Policy.Duration("watch.grace"); d.at.Sub(g.Frozen.At) > grace {
		return refuse(ReasonGraceOver, "%s was frozen at %s, more than %s ago", g.ID, stamp(g.Frozen.At), grace).allow("GrantAccess", "", "it is ended; a new grant is needed")
	}
	d.emit(&emergencyv1.SessionResumed{Grant: g.ID, InputDiscarded: max(g.InputDiscarded, d.console().InputDiscarded)})
	return nil
}

// full tells whether the session is frozen because its recording is full, and was not extended since.
func (g *Grant) full() bool {
	return g.State == GrantFrozen && g.FreezeCause == emergencyv1.SessionCause_SESSION_CAUSE_RECORDING_FULL && g.Extended.Position < g.Frozen.Position
}

// refuseFull says what a session with a full recording needs.
func (g *Grant) refuseFull() *Refusal {
	r := refuse(ReasonLimit, "the recording of %s is full", g.ID)
	if g.Extended.Position > 0 {
		return r.allow("Terminate", g.ID, "it was extended at %s, and once is all there is: end it; a new grant has a new recording", stamp(g.Extended.At))
	}
	return r.allow("ExtendSession", g.ID, "its watcher extends it, once, or ends it")
}

func markFields(f *fields, c *emergencyv1.MarkSessionRequest) {
	f.grant(c.GetGrant())
	checkpoint := c.GetKind() == emergencyv1.MarkKind_MARK_KIND_CHECKPOINT
	f.want(checkpoint == (c.GetCheckpoint() != nil), "checkpoint", "there in a checkpoint and nowhere else")
	f.want(checkpoint || c.GetText() != "", "text", "what is marked, in words")
	f.want(len(c.GetText()) <= 4096, "text", "at most 4096 bytes")
	if checkpoint {
		f.want(digestForm.MatchString(c.GetCheckpoint().GetChainHash()), "checkpoint.chain_hash", "64 lower-case hex digits")
	}
}

// decideMark marks a place in a session. Persons mark while it is live; the broker, which still closes the recording when
// the session is over, from the use of the credential until the seal, and before it what it refused outside of a session.
func decideMark(d *decision, c *emergencyv1.MarkSessionRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	refused := c.GetKind() == emergencyv1.MarkKind_MARK_KIND_REFUSED_REQUEST
	own := c.GetKind() == emergencyv1.MarkKind_MARK_KIND_CHECKPOINT || refused
	switch {
	case own && !d.byGateway():
		return refuse(ReasonRole, "checkpoints and refused requests are marked by the broker").allow("MarkSession", g.ID, "mark a note")
	case d.byGateway() && (g.Consumed.Position == 0 && !refused || g.Sealed.Position > 0), !d.byGateway() && !g.live():
		return d.grantState(g)
	}
	ev := &emergencyv1.SessionMarked{Grant: g.ID, Kind: c.GetKind(), Text: d.seal(c.GetText()), Checkpoint: c.GetCheckpoint(), OutputOffset: d.console().OutputOffset}
	if ev.GetKind() == 0 {
		ev.Kind = emergencyv1.MarkKind_MARK_KIND_NOTE
	}
	if p := ev.GetCheckpoint(); p != nil {
		last := g.Last()
		if p.GetFrame() <= last.Frame || p.GetOutputOffset() < last.OutputOffset || p.GetSize() <= last.Size {
			return refuse(ReasonField, "checkpoint at frame %d does not follow the one at frame %d", p.GetFrame(), last.Frame).under("4.4 MarkSession").
				allow("MarkSession", g.ID, "a recording only grows")
		}
		ev.OutputOffset = p.GetOutputOffset()
	}
	d.emit(ev)
	return nil
}

func extendFields(f *fields, c *emergencyv1.ExtendSessionRequest) {
	f.grant(c.GetGrant())
	f.reason(c.GetReason(), 20)
}

// decideExtend extends a session once, by its watcher, with a reason: its time and the size of its recording. One that was frozen
// because its recording is full waits for just this decision.
func decideExtend(d *decision, c *emergencyv1.ExtendSessionRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	switch {
	case g.State != GrantLive && !g.full():
		return d.grantState(g)
	case g.Extended.Position > 0:
		return refuse(ReasonLimit, "%s was extended at %s; once is all there is", g.ID, stamp(g.Extended.At)).allow("GrantAccess", "", "a new grant is needed for more time")
	case d.person != g.Watcher:
		return refuse(ReasonLimit, "%s is extended by its watcher, who is %s", g.ID, g.Watcher).allow("ExtendSession", g.ID, "ask %s", g.Watcher)
	}
	more := d.s.Policy.Duration("session.extension")
	if refusal := d.within("an extension", &more, c.GetMinutes(), 0); refusal != nil {
		return refusal
	}
	d.emit(&emergencyv1.SessionExtended{Grant: g.ID, Reason: d.seal(c.GetReason()), Minutes: uint32(more / time.Minute)})
	return nil
}

// decideTerminate ends a session, or a grant that was not used. Of one that has ended the first result is returned.
func decideTerminate(d *decision, c *emergencyv1.TerminateRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	cause, refusal := d.endCause(g, c.GetCause())
	if refusal != nil {
		return refusal
	}
	if g.Terminated.Position > 0 {
		if d.hypothetical {
			return d.grantState(g)
		}
		d.repeated = d.s.resultAt(g.Terminated)
		return nil
	}
	d.terminate(g, cause, d.console().Results)
	return nil
}

// endCause is why the session ends. Of a person it is that person's wish, whatever else is claimed.
func (d *decision) endCause(g *Grant, named emergencyv1.SessionCause) (emergencyv1.SessionCause, *Refusal) {
	switch {
	case d.byGateway():
		if named == 0 {
			return emergencyv1.SessionCause_SESSION_CAUSE_CONNECTION_LOST, nil
		}
		return named, nil
	case d.person == "":
		if d.agentName() != g.Host {
			return 0, refuse(ReasonRole, "agent %s does not serve host %s", d.agentName(), g.Host)
		}
		if named == 0 {
			return emergencyv1.SessionCause_SESSION_CAUSE_TARGET_LOST, nil
		}
		return named, nil
	case d.person == g.Subject:
		return emergencyv1.SessionCause_SESSION_CAUSE_SUBJECT, nil
	case teamRole(d.role) != ca:
		return 0, refuse(ReasonRole, "%s is ended by a critical admin or by its subject, who is %s", g.ID, g.Subject).allow("Terminate", g.ID, "ask %s", d.whoHas(roles(ca)))
	case d.person == g.Watcher:
		return emergencyv1.SessionCause_SESSION_CAUSE_WATCHER, nil
	}
	return emergencyv1.SessionCause_SESSION_CAUSE_ADMIN, nil
}

func (d *decision) terminate(g *Grant, cause emergencyv1.SessionCause, results []*emergencyv1.EndResult) {
	x := d.console()
	d.emit(&emergencyv1.SessionTerminated{
		Grant: g.ID, Cause: cause, Results: results, OutputOffset: max(g.OutputOffset, x.OutputOffset),
		InputBytes: x.InputBytes, InputDiscarded: max(g.InputDiscarded, x.InputDiscarded),
	})
}

// resultAt is the result of the command that recorded an event.
func (s *State) resultAt(m Mark) *Result {
	for _, r := range s.Requests {
		if r.First <= m.Position && m.Position <= r.Last {
			return &r
		}
	}
	return &Result{First: m.Position, Last: m.Position, RecordedAt: m.At}
}

// EndEffects are the steps that end an access, in their order; each is tried whatever becomes of the others.
func EndEffects() []string {
	return []string{"input", "channels", "processes", "gateway_credential", "host_credential"}
}

// byTheClock says that nobody has reported what became of the steps.
func byTheClock() []*emergencyv1.EndResult {
	var list []*emergencyv1.EndResult
	for _, e := range EndEffects() {
		list = append(list, &emergencyv1.EndResult{Effect: e, Outcome: emergencyv1.EffectOutcome_EFFECT_OUTCOME_UNREACHABLE, Detail: "ended by the clock, the broker did not report"})
	}
	return list
}

// consoleTimers end and freeze what the broker has not. It does so at the due time itself; the clock waits a little longer,
// because the broker's record says what became of the processes and the clock's cannot.
func (d *decision) consoleTimers() []timer {
	if d.s.Policy == nil {
		return nil
	}
	var list []timer
	for i := range d.s.Grants {
		list = append(list, d.grantTimers(&d.s.Grants[i])...)
	}
	return list
}

func (d *decision) grantTimers(g *Grant) []timer {
	grace, slack := d.s.Policy.Duration("watch.grace"), d.s.Policy.Duration("watch.lease")
	end := func(due time.Time, what string, cause emergencyv1.SessionCause) timer {
		return timer{due, fmt.Sprintf("grant/%s/%s", g.ID, what), func(d *decision) { d.terminate(g, cause, byTheClock()) }}
	}
	switch {
	case g.unused():
		return []timer{{g.FirstUseUntil, "grant/" + g.ID + "/expire", func(d *decision) { d.emit(&emergencyv1.GrantExpired{Grant: g.ID}) }}}
	case g.State == GrantWatcherReady:
		return []timer{end(g.Consumed.At.Add(grace+slack), "open", emergencyv1.SessionCause_SESSION_CAUSE_NOT_OPENED)}
	case g.State == GrantLive:
		return []timer{
			end(g.EndsBy().Add(grace), "max", emergencyv1.SessionCause_SESSION_CAUSE_MAX_LENGTH),
			{d.s.PresenceUntil(g).Add(slack), "grant/" + g.ID + "/presence", func(d *decision) {
				d.freeze(g, emergencyv1.SessionCause_SESSION_CAUSE_PRESENCE, 0, g.OutputOffset, g.InputDiscarded)
			}},
		}
	case g.State == GrantFrozen:
		return []timer{
			end(g.EndsBy().Add(grace), "max", emergencyv1.SessionCause_SESSION_CAUSE_MAX_LENGTH),
			end(g.Frozen.At.Add(grace+slack), "grace", emergencyv1.SessionCause_SESSION_CAUSE_GRACE_OVER),
		}
	}
	return nil
}
