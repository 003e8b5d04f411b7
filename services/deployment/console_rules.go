// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment/broker"
)

// consoleRules lets the broker ask the procedure. Everything it says is decided on the incident's whole history.
type consoleRules struct {
	s       *Server
	targets targets
}

// told turns a rule's no into the broker's form of it; anything else stays unknown, also that others wrote meanwhile each time:
// the broker then gives it again.
func told(err error) error {
	var no *procedure.Refusal
	if errors.As(err, &no) && !no.Passing() {
		return &broker.Refusal{Reason: string(no.Reason), Text: no.Message}
	}
	return err
}

// Limits that no policy names: the acknowledgement window (console.md 5), the recording's size, which an extension doubles, and the
// anchor's patience.
const (
	window     = 64 << 10
	windowAge  = 3 * time.Second
	recordSize = 64 << 20
	anchor     = 10 * time.Second
)

// Grant implements broker.Rules.
func (r consoleRules) Grant(ctx context.Context, ref broker.Ref) (broker.Grant, error) {
	st, err := r.s.Dispatch.State(ctx, ref.Incident)
	if err != nil {
		return broker.Grant{}, told(err)
	}
	g, ok := st.Grant(ref.Grant)
	if !ok {
		return broker.Grant{}, &broker.Refusal{Reason: string(procedure.ReasonGrant), Text: "there is no grant " + ref.String()}
	}
	out := broker.Grant{Ref: ref, Subject: g.Subject, Watcher: g.Watcher, ArmedAt: g.Armed.At, Host: g.Host, FirstUse: g.FirstUseUntil, Consumed: g.Consumed.Position > 0}
	if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(g.TargetKey)); err == nil { // one that is none keeps nobody from ending the access
		out.TargetKey = key
	}
	p := st.Policy
	out.Limits = broker.Limits{
		Lease: p.Duration("watch.lease"), Silence: p.Duration("watch.freeze_within"), Grace: p.Duration("watch.grace"),
		Presence: p.Duration("watch.presence"), Max: g.Max + g.Extension, Idle: p.Duration("session.idle"), Window: window, WindowAge: windowAge, Recording: r.s.recordSize, Anchor: anchor,
	}
	if g.Extended.Position > 0 {
		out.Recording += r.s.recordSize
	}
	switch {
	case g.Terminated.Position > 0:
		out.Over = "it was ended"
	case g.Expired.Position > 0:
		out.Over = "it was not used in time"
	case g.Disabled.Position > 0:
		out.Over = "it is disabled"
	}
	for _, v := range []struct {
		commitment string
		to         *string
	}{{g.Account, &out.Account}, {g.Source, &out.Source}} {
		if v.commitment == "" {
			continue
		}
		value, _, err := r.s.Vault.Get(ctx, v.commitment)
		if err != nil {
			return broker.Grant{}, err
		}
		*v.to = string(value)
	}
	return out, nil
}

// do decides a command of the gateway; a fresh request id for each, since the broker repeats only what was not stored.
func (r consoleRules) do(ctx context.Context, actor procedure.Actor, cmd procedure.Command, facts *procedure.ConsoleFacts) error {
	_, err := r.s.Dispatch.Do(ctx, cmd, dispatch.Input{Actor: actor, Facts: procedure.Facts{Console: facts}})
	return told(err)
}

func gatewayMeta(ref broker.Ref, what string) *emergencyv1.CommandMeta {
	return &emergencyv1.CommandMeta{Incident: ref.Incident, RequestId: "console." + what + "." + rand.Text()}
}

func (r consoleRules) self() procedure.Actor { return r.s.System(gateway) }

// subject is the grant's subject, through the gateway that has verified the credential.
func (r consoleRules) subject(ctx context.Context, ref broker.Ref) (procedure.Actor, string, error) {
	g, err := r.Grant(ctx, ref)
	actor := r.self()
	actor.Person = g.Subject
	return actor, g.Source, err
}

// Connect implements broker.Rules.
func (r consoleRules) Connect(ctx context.Context, ref broker.Ref, a broker.Attempt) error {
	actor, source, err := r.subject(ctx, ref)
	if err != nil {
		return err
	}
	a.Present = a.Present || r.soonPresent(ctx, ref)
	cmd := &emergencyv1.ConnectRequest{Meta: gatewayMeta(ref, "connect"), Grant: ref.Grant, SourceAddress: a.Source, KeyFingerprint: a.Fingerprint}
	return r.do(ctx, actor, cmd, &procedure.ConsoleFacts{
		LeaseAlive: a.Present, KeyProven: true, SourceAllowed: within(a.Source, source), TargetKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(a.TargetKey))),
	})
}

// viewOpens is how long a subject who comes as soon as the watch is armed waits until the watcher's view has opened.
const viewOpens = 3 * time.Second

// soonPresent waits a little for a watcher whose arming is recorded and whose first sign of life is on its way.
func (r consoleRules) soonPresent(ctx context.Context, ref broker.Ref) bool {
	ctx, cancel := context.WithTimeout(ctx, viewOpens)
	defer cancel()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		if st, ok := r.s.broker.Status(ref); ok && st.Present {
			return true
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return false
		}
	}
}

// within tells whether an address is the named one or in the named prefix; any is, if none was named.
func within(address, named string) bool {
	if named == "" {
		return true
	}
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	if prefix, err := netip.ParsePrefix(named); err == nil {
		return prefix.Contains(ip.Unmap())
	}
	one, err := netip.ParseAddr(named)
	return err == nil && one.Unmap() == ip.Unmap()
}

// Refused implements broker.Rules: what was asked for outside of a session, and why it was refused, is marked as what is refused in one. It
// consumes nothing. On a grant that is sealed the mark is refused, which is recorded in its place.
func (r consoleRules) Refused(ctx context.Context, ref broker.Ref, a broker.RefusedAttempt) error {
	cmd := &emergencyv1.MarkSessionRequest{
		Meta: gatewayMeta(ref, "refused"), Grant: ref.Grant, Kind: emergencyv1.MarkKind_MARK_KIND_REFUSED_REQUEST,
		Text: clipped(attempted(a), 2000),
	}
	err := r.do(ctx, r.self(), cmd, &procedure.ConsoleFacts{})
	var no *broker.Refusal
	if errors.As(err, &no) {
		return nil
	}
	return err
}

// attempted says what was refused, by which of the gateway's reasons, and whence it came.
func attempted(a broker.RefusedAttempt) string {
	text := a.What + " before a session: " + a.Reason + ": " + a.Text + "; from " + a.Source
	if a.Client != "" {
		text += " by " + a.Client
	}
	return text
}

// Opened implements broker.Rules.
func (r consoleRules) Opened(ctx context.Context, ref broker.Ref, o broker.Opening) error {
	g, err := r.Grant(ctx, ref)
	if err != nil {
		return err
	}
	target, err := r.targets.Target(g.Host)
	if err != nil {
		return err
	}
	cmd := &emergencyv1.ReportConnectionRequest{
		Meta: gatewayMeta(ref, "opened"), Grant: ref.Grant, HostKeyFingerprint: ssh.FingerprintSHA256(target.HostKey), Agent: o.HostAgent,
	}
	return r.do(ctx, r.self(), cmd, &procedure.ConsoleFacts{})
}

// Freeze implements broker.Rules.
func (r consoleRules) Freeze(ctx context.Context, ref broker.Ref, f broker.Freezing) error {
	cmd := &emergencyv1.FreezeRequest{Meta: gatewayMeta(ref, "freeze"), Grant: ref.Grant, Cause: causes()[f.Cause]}
	return r.do(ctx, r.self(), cmd, r.frozen(ref, f))
}

func (r consoleRules) frozen(ref broker.Ref, f broker.Freezing) *procedure.ConsoleFacts {
	x := &procedure.ConsoleFacts{FreezeMode: emergencyv1.FreezeMode_FREEZE_MODE_INPUT, OutputOffset: uint64(f.Offset)}
	if f.Mode == broker.FreezeProcess {
		x.FreezeMode = r.s.freezeMode(ref)
	}
	if st, ok := r.s.broker.Status(ref); ok {
		x.InputDiscarded = uint64(st.Discarded)
	}
	return x
}

// Mark implements broker.Rules.
func (r consoleRules) Mark(ctx context.Context, ref broker.Ref, m broker.Mark) error {
	cmd := &emergencyv1.MarkSessionRequest{Meta: gatewayMeta(ref, "mark"), Grant: ref.Grant, Text: clipped(m.Text, 2000)}
	switch m.Kind {
	case broker.MarkCheckpoint:
		cmd.Kind, cmd.Text = emergencyv1.MarkKind_MARK_KIND_CHECKPOINT, ""
		cmd.Checkpoint = &emergencyv1.RecordingCheckpoint{Frame: m.Frame, ChainHash: hex.EncodeToString(m.Chain[:]), OutputOffset: uint64(m.Offset), Size: uint64(m.Size)}
	case broker.MarkRefused:
		cmd.Kind = emergencyv1.MarkKind_MARK_KIND_REFUSED_REQUEST
	case broker.MarkConcealed:
		cmd.Kind = emergencyv1.MarkKind_MARK_KIND_CONCEALMENT
	case broker.MarkGap:
		cmd.Kind = emergencyv1.MarkKind_MARK_KIND_GAP
	case broker.MarkFrozen, broker.MarkNote:
		cmd.Kind = emergencyv1.MarkKind_MARK_KIND_NOTE
	}
	if cmd.GetText() == "" && cmd.GetCheckpoint() == nil {
		cmd.Text = string(m.Kind)
	}
	return r.do(ctx, r.self(), cmd, &procedure.ConsoleFacts{OutputOffset: uint64(m.Offset)})
}

func clipped(text string, most int) string {
	for i := range text {
		if i > most {
			return text[:i]
		}
	}
	return text
}

// Terminate implements broker.Rules.
func (r consoleRules) Terminate(ctx context.Context, ref broker.Ref, e broker.Ending) error {
	cmd := &emergencyv1.TerminateRequest{Meta: gatewayMeta(ref, "terminate"), Grant: ref.Grant, Cause: causes()[e.Cause]}
	err := r.do(ctx, r.self(), cmd, ending(e))
	var no *broker.Refusal
	if err == nil || errors.As(err, &no) { // refused: another has recorded the end before, which has not the recording
		r.anchorEnd(ctx, ref, e)
	}
	return err
}

// anchorEnd puts the recording's last place into the history, so that nothing can be taken from its end or written anew. The end
// itself is recorded by then; an anchor that does not come through is said aloud, and the seal has the digest of the whole.
func (r consoleRules) anchorEnd(ctx context.Context, ref broker.Ref, e broker.Ending) {
	if e.Recording == "" || e.Frame == 0 {
		return
	}
	info, err := os.Stat(e.Recording)
	if err == nil {
		err = r.Mark(ctx, ref, broker.Mark{Kind: broker.MarkCheckpoint, Frame: e.Frame, Chain: e.Chain, Size: info.Size(), Offset: e.Offset})
	}
	if err != nil {
		r.s.Log.WarnContext(ctx, "the end of a recording is not anchored", "grant", ref.String(), "error", err)
	}
}

// ending are the facts of an end: what became of each of its steps, in the words of the procedure.
func ending(e broker.Ending) *procedure.ConsoleFacts {
	x := &procedure.ConsoleFacts{OutputOffset: uint64(e.Offset), InputDiscarded: uint64(e.Discarded)}
	steps := map[string][]string{
		"input": {broker.EffectInput}, "channels": {broker.EffectSubject, broker.EffectTarget}, "processes": {broker.EffectHost},
		"gateway_credential": {broker.EffectCredential}, "host_credential": {broker.EffectHost},
	}
	for _, name := range procedure.EndEffects() {
		x.Results = append(x.Results, endStep(e, name, steps[name]...))
	}
	return x
}

// endStep is one step of an end, which the broker may have done in parts.
func endStep(e broker.Ending, name string, parts ...string) *emergencyv1.EndResult {
	out := &emergencyv1.EndResult{Effect: name, Outcome: emergencyv1.EffectOutcome_EFFECT_OUTCOME_NOT_NEEDED}
	for _, part := range parts {
		done := e.Effect(part)
		if connection := part == broker.EffectSubject || part == broker.EffectTarget; connection && done.Problem == broker.NotAttempted {
			continue // there is none here
		}
		out.TookMs = max(out.TookMs, done.Took.Milliseconds())
		switch {
		case !done.Done:
			out.Outcome, out.Detail = emergencyv1.EffectOutcome_EFFECT_OUTCOME_FAILED, done.Problem
		case out.Outcome == emergencyv1.EffectOutcome_EFFECT_OUTCOME_NOT_NEEDED:
			out.Outcome, out.Detail = emergencyv1.EffectOutcome_EFFECT_OUTCOME_DONE, done.Problem
		}
	}
	return out
}

// causes are the broker's causes in the words of the procedure.
func causes() map[broker.Cause]emergencyv1.SessionCause {
	return map[broker.Cause]emergencyv1.SessionCause{
		broker.CauseWatcher: emergencyv1.SessionCause_SESSION_CAUSE_WATCHER, broker.CauseLease: emergencyv1.SessionCause_SESSION_CAUSE_LEASE_LOST,
		broker.CauseHidden: emergencyv1.SessionCause_SESSION_CAUSE_WATCHER_HIDDEN, broker.CausePresence: emergencyv1.SessionCause_SESSION_CAUSE_PRESENCE,
		broker.CauseWindow: emergencyv1.SessionCause_SESSION_CAUSE_UNSEEN_OUTPUT, broker.CauseRecorder: emergencyv1.SessionCause_SESSION_CAUSE_RECORDER,
		broker.CauseAnchor: emergencyv1.SessionCause_SESSION_CAUSE_ANCHOR, broker.CauseRecording: emergencyv1.SessionCause_SESSION_CAUSE_RECORDING_FULL,
		broker.CauseThaw:   emergencyv1.SessionCause_SESSION_CAUSE_TARGET_LOST,
		broker.CauseKilled: emergencyv1.SessionCause_SESSION_CAUSE_ADMIN, broker.CauseDisabled: emergencyv1.SessionCause_SESSION_CAUSE_DISABLED,
		broker.CauseExpired: emergencyv1.SessionCause_SESSION_CAUSE_NOT_OPENED, broker.CauseExit: emergencyv1.SessionCause_SESSION_CAUSE_SUBJECT,
		broker.CauseConnection: emergencyv1.SessionCause_SESSION_CAUSE_CONNECTION_LOST, broker.CauseTarget: emergencyv1.SessionCause_SESSION_CAUSE_TARGET_LOST,
		broker.CauseGrace: emergencyv1.SessionCause_SESSION_CAUSE_GRACE_OVER, broker.CauseMax: emergencyv1.SessionCause_SESSION_CAUSE_MAX_LENGTH,
		broker.CauseIdle: emergencyv1.SessionCause_SESSION_CAUSE_IDLE, broker.CauseOpen: emergencyv1.SessionCause_SESSION_CAUSE_NOT_OPENED,
		broker.CauseGateway: emergencyv1.SessionCause_SESSION_CAUSE_GATEWAY_LOST, broker.CauseDefect: emergencyv1.SessionCause_SESSION_CAUSE_GATEWAY_LOST,
	}
}

// causeOf is the cause as those who watch are told it.
func causeOf(c broker.Cause) emergencyv1.SessionCause { return causes()[c] }
