// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The end of an access (seed 3.6, 3.8; procedure.md 4.4): disabled, proven unusable, its difference and leftovers taken down,
// sealed.

// decideDisable disables the credential at the gateway and on the host, at any time and as often as needed. Of an access that
// has not ended it ends it.
func decideDisable(d *decision, c *emergencyv1.DisableRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	x := d.console()
	if !g.Over() {
		d.terminate(g, emergencyv1.SessionCause_SESSION_CAUSE_DISABLED, x.Results)
	}
	d.emit(&emergencyv1.ConnectionDisabled{Grant: g.ID, Gateway: endResult(x.Gateway, "gateway_credential"), Host: endResult(x.HostEnd, "host_credential")})
	return nil
}

// endResult is what was found, or that nobody said.
func endResult(r *emergencyv1.EndResult, effect string) *emergencyv1.EndResult {
	if r != nil {
		return r
	}
	return &emergencyv1.EndResult{Effect: effect, Outcome: emergencyv1.EffectOutcome_EFFECT_OUTCOME_UNREACHABLE}
}

// decideProve records the attempts to use the disabled credential again: made since it was disabled, at the gateway, and on
// the host if the credential was ever used, so that a key may be there. Anything but a refusal is an alarm (4.4).
func decideProve(d *decision, c *emergencyv1.ProveUnusableRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	if g.Disabled.Position == 0 {
		return refuse(ReasonNotDisabled, "%s is not disabled", g.ID).allow("Disable", g.ID, "disable it first")
	}
	if g.Sealed.Position > 0 {
		return d.grantState(g)
	}
	if d.hypothetical {
		return nil
	}
	attempts := d.console().Attempts
	said := d.seal(attemptLines(attempts))
	places := []string{"gateway"}
	if g.Consumed.Position > 0 {
		places = append(places, "host")
	}
	var last time.Time
	for _, at := range places {
		tried, refused, when := tries(attempts, at, g.Disabled.At)
		if !refused {
			d.emit(&emergencyv1.CredentialStillUsable{Grant: g.ID, Attempts: said, At: at, Succeeded: tried})
			return nil
		}
		if when.After(last) {
			last = when
		}
	}
	d.emit(&emergencyv1.CredentialProvenUnusable{Grant: g.ID, Attempts: said, AttemptedAt: timestamppb.New(last)})
	if g.RoleEnded.Position == 0 {
		d.emit(&emergencyv1.RoleAssumptionEnded{Grant: g.ID, Person: g.Granter})
	}
	return nil
}

// tries tells whether an attempt was made at a place since a time, whether all of them were refused, and when the last one was.
func tries(list []*emergencyv1.ReuseAttempt, at string, since time.Time) (tried, refused bool, last time.Time) {
	refused = true
	for _, a := range list {
		when := a.GetAttemptedAt().AsTime()
		if a.GetAt() != at || when.Before(since) {
			continue
		}
		tried, refused, last = true, refused && a.GetRefused(), when
	}
	return tried, tried && refused, last
}

func attemptLines(list []*emergencyv1.ReuseAttempt) string {
	text := make([]string, len(list))
	for i, a := range list {
		word := "got in"
		if a.GetRefused() {
			word = "refused"
		}
		text[i] = fmt.Sprintf("%s %s: %s: %s", stamp(a.GetAttemptedAt().AsTime()), a.GetAt(), word, a.GetDetail())
	}
	return lines(text)
}

// ended wants an opened session that is over.
func (d *decision) ended(id string) (*Grant, *Refusal) {
	g, refusal := d.grantOf(id)
	if refusal != nil {
		return nil, refusal
	}
	if g.Terminated.Position == 0 {
		return nil, refuse(ReasonGrantState, "%s is %s; its session has not ended", g.ID, g.words()).allow("Terminate", g.ID, "end it first")
	}
	if g.Opened.Position == 0 {
		return nil, refuse(ReasonGrantState, "%s never had a session; it left nothing", g.ID).allow("ProveUnusable", g.ID, "see that it is disabled and proven unusable")
	}
	if g.Sealed.Position > 0 {
		return nil, refuse(ReasonGrantState, "%s was sealed at %s", g.ID, stamp(g.Sealed.At)).allow("AnnotateLog", "", "add a note to the log")
	}
	if d.person == "" && !d.byGateway() && d.agentName() != g.Host {
		return nil, refuse(ReasonRole, "agent %s does not serve host %s", d.agentName(), g.Host)
	}
	return g, nil
}

// mostSealed bounds the restricted values of one event: a record must stay well under the stream's 1 MiB.
const mostSealed = 2000

// bounded cuts a list that is too long for one event, loudly: its last entry says how many more there are.
func bounded[T any](list []T, more func(int) T) []T {
	if len(list) <= mostSealed {
		return list
	}
	return append(list[:mostSealed-1:mostSealed-1], more(len(list)-mostSealed+1))
}

// decideDiff records what the session changed in the host's tree; computed from the agent's lists, never claimed. It counts
// once: the tree after the session is not looked for again when others have changed the host. A difference that could not be
// made a patch may be computed again.
func decideDiff(d *decision, c *emergencyv1.CaptureSessionDiffRequest) *Refusal {
	g, refusal := d.ended(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	if g.Diff.Position > 0 && g.Diff.Problem == "" {
		return refuse(ReasonGrantState, "the difference of %s was captured at %s", g.ID, stamp(g.Diff.At)).allow("CheckReplication", "", "compare host and release branch for what came later")
	}
	if d.hypothetical {
		return nil
	}
	x := d.console().After
	if x == nil || x.Tree == "" {
		return refuse(ReasonManifestMissing, "the files of %s are not listed as they are after the session", g.Host).
			allow("CaptureSessionDiff", g.ID, "see that the agent on %s runs and reaches the deployment service", g.Host)
	}
	ev := &emergencyv1.SessionDiffCaptured{Grant: g.ID, BeforeTree: g.BeforeTree, AfterTree: x.Tree, AfterManifest: x.Manifest, Diff: x.Patch, BaseCommit: x.BaseCommit}
	if x.Tree != g.BeforeTree {
		ev.DiffProblem = x.Problem
	}
	for _, p := range bounded(x.Paths, func(n int) string { return fmt.Sprintf("%d more, in the lists of files before and after", n) }) {
		ev.ChangedPaths = append(ev.ChangedPaths, d.seal(p))
	}
	d.emit(ev)
	return nil
}

func leftoversFields(f *fields, c *emergencyv1.ReportLeftoversRequest) {
	f.grant(c.GetGrant())
	f.want(len(c.GetFound()) <= 1000, "found", "at most 1000 entries")
	for _, l := range c.GetFound() {
		f.want(l.GetKind() != 0 && l.GetWhat() != "", "found", "a kind and what exactly")
	}
}

// decideLeftovers lists what the session left on the host, as its agent found it. That nobody could look is an item too.
func decideLeftovers(d *decision, c *emergencyv1.ReportLeftoversRequest) *Refusal {
	g, refusal := d.ended(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	found := d.console().Leftovers
	switch agent := d.person == "" && !d.byGateway(); {
	case agent:
		found = c.GetFound()
	case !d.console().Looked:
		found = append(found[:len(found):len(found)], &emergencyv1.LeftoverFound{Kind: emergencyv1.LeftoverKind_LEFTOVER_KIND_NOT_LOOKED_AT, What: "the host's agent could not be asked"})
	}
	ev := &emergencyv1.LeftoversReported{Grant: g.ID}
	found = bounded(found, func(n int) *emergencyv1.LeftoverFound {
		return &emergencyv1.LeftoverFound{Kind: emergencyv1.LeftoverKind_LEFTOVER_KIND_NOT_LOOKED_AT, What: fmt.Sprintf("%d more, which are not listed", n)}
	})
	for i, l := range found {
		ev.Items = append(ev.Items, &emergencyv1.Leftover{Item: fmt.Sprintf("L%d", len(g.Leftovers)+i+1), Kind: l.GetKind(), What: d.seal(l.GetWhat())})
	}
	d.emit(ev)
	return nil
}

func explainLeftoversFields(f *fields, c *emergencyv1.ExplainLeftoversRequest) {
	f.grant(c.GetGrant())
	f.optionalWord("item", c.GetItem())
	f.want(utf8.RuneCountInString(c.GetExplanation()) >= 10, "explanation", "what it is and what becomes of it, at least 10 characters")
}

// decideExplainLeftovers answers one listed item, or all that are not answered yet.
func decideExplainLeftovers(d *decision, c *emergencyv1.ExplainLeftoversRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	items := g.unexplained()
	if c.GetItem() != "" {
		items = nil
		for _, open := range g.unexplained() {
			if open == c.GetItem() {
				items = []string{open}
			}
		}
	}
	if len(items) == 0 {
		return refuse(ReasonItem, "%s has no open leftover %s", g.ID, c.GetItem()).allow("ReportLeftovers", g.ID, "have the host looked at")
	}
	d.emit(&emergencyv1.LeftoversExplained{Grant: g.ID, Items: items, Explanation: d.seal(c.GetExplanation())})
	return nil
}

// decideSeal seals an access. A recording without its end frame, or a broken one, is accepted and shown as what it is.
func decideSeal(d *decision, c *emergencyv1.SealSessionRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	switch {
	case refusal != nil:
		return refusal
	case g.Proven.Position == 0 || g.State == GrantStillUsable:
		return refuse(ReasonNotProvenUnusable, "%s is %s", g.ID, g.words()).allow("ProveUnusable", g.ID, "have it proven unusable first")
	}
	if g, refusal = d.ended(c.GetGrant()); refusal != nil {
		return refusal
	}
	open := g.unexplained()
	switch {
	case g.Diff.Position == 0:
		return refuse(ReasonDiffMissing, "what the session of %s changed is not captured", g.ID).allow("CaptureSessionDiff", g.ID, "capture it")
	case len(g.LeftoversReported) == 0:
		return refuse(ReasonLeftoversOpen, "nobody has looked for what the session of %s left on the host", g.ID).allow("ReportLeftovers", g.ID, "have the host looked at")
	case len(open) > 0:
		return refuse(ReasonLeftoversOpen, "%s left %d things that nobody has explained, the first is %s", g.ID, len(open), open[0]).allow("ExplainLeftovers", g.ID, "explain them")
	case d.hypothetical:
		return nil
	}
	x := d.console().Recording
	if x == nil {
		return refuse(ReasonRecorderNotReady, "the recording of %s could not be looked at", g.ID).allow("SealSession", g.ID, "the operator sees to the deployment service's state folder")
	}
	d.emit(&emergencyv1.SessionSealed{Grant: g.ID, Recording: x.Artefact, State: x.State, End: x.End, WatchedPermille: x.WatchedPermille, FirstBadFrame: x.FirstBadFrame})
	return nil
}

// decidePlay records that somebody plays a recording, before it is shown (N28, N32): who calls, or whom a service names that
// shows it to somebody who is signed in there. The record's actor says which of the two.
func decidePlay(d *decision, c *emergencyv1.PlayRecordingRequest) *Refusal {
	g, refusal := d.grantOf(c.GetGrant())
	if refusal != nil {
		return refusal
	}
	if g.Consumed.Position == 0 {
		return refuse(ReasonGrantState, "%s was not used; there is nothing to play", g.ID).allow("PlayRecording", g.ID, "wait for its session")
	}
	reader := d.person
	switch {
	case reader == "" && c.GetPerson() == "" && !d.hypothetical:
		return refuse(ReasonField, "person: whom the recording is shown to").allow("PlayRecording", g.ID, "name the person")
	case reader == "":
		reader = c.GetPerson()
	case c.GetPerson() != "" && c.GetPerson() != reader:
		return refuse(ReasonField, "person: you play it yourself, not %s", c.GetPerson()).allow("PlayRecording", g.ID, "leave the person out")
	}
	if refusal := MayRead(d.s, d.env.Book, reader, d.env.Now, RecordingEvent, RecordingField()); refusal != nil {
		return refusal // an arbitrator sees the recordings of the own cases
	}
	d.emit(&emergencyv1.RecordingPlayed{Grant: g.ID, Person: reader})
	return nil
}
