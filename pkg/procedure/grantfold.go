// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"time"

	"google.golang.org/protobuf/proto"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// applyConsole folds the events of strategy 3's access; false for any other event. An event about a grant that is not
// there changes nothing.
func (s *State) applyConsole(f fact, payload proto.Message) bool {
	switch e := payload.(type) {
	case *emergencyv1.AccessPermitted:
		s.Permissions = append(s.Permissions, Permission{f.mark(f.who(), "", ""), e.GetSubject(), e.GetPurpose().GetCommitment(), e.GetValidUntil().AsTime()})
	case *emergencyv1.AccessGrantIssued:
		s.Grants = append(s.Grants, Grant{
			ID: e.GetGrant(), Subject: e.GetSubject(), Watcher: e.GetWatcher(), Named: e.GetWatcher(), Granter: f.who(), Host: e.GetHost(),
			Account: e.GetAccount().GetCommitment(), Purpose: e.GetPurpose().GetCommitment(), Source: e.GetSourceAddress().GetCommitment(),
			State: GrantIssued, Position: f.pos, IssuedAt: f.at, FirstUseUntil: e.GetFirstUseUntil().AsTime(),
			Max: time.Duration(e.GetMaxMinutes()) * time.Minute, Permission: e.GetPermission(), BeforeTree: e.GetBeforeTree(),
			BeforeManifest: e.GetBeforeManifest(), Agent: e.GetAgent(), Gateway: e.GetGateway(),
		})
	case interface{ GetGrant() string }:
		if g, ok := s.Grant(e.GetGrant()); ok {
			if armed, ok := payload.(*emergencyv1.WatchArmed); ok {
				s.fillWatcher(f, armed.GetWatcher())
			}
			return g.apply(f, payload)
		}
		return isConsole(payload)
	default:
		return false
	}
	return true
}

// fillWatcher ends the watcher's slot of strategy 3: with the watch armed somebody does its step.
func (s *State) fillWatcher(f fact, watcher string) {
	for i := range s.Slots {
		if sl := &s.Slots[i]; sl.Planned == emergencyv1.ResponderStep_RESPONDER_STEP_WATCH && sl.State != SlotEnded {
			sl.State, sl.Person, sl.Step, sl.Since = SlotEnded, watcher, sl.Planned, f.at
		}
	}
}

// isConsole tells whether an event that names a grant is folded into it.
func isConsole(payload proto.Message) bool { return (&Grant{}).apply(fact{}, payload) }

// apply is the one switch over the events of a grant.
func (g *Grant) apply(f fact, payload proto.Message) bool {
	switch e := payload.(type) {
	case *emergencyv1.RoleAssumed:
		g.Granter = e.GetPerson()
	case *emergencyv1.RoleAssumptionEnded:
		g.RoleEnded = f.mark(e.GetPerson(), "", "")
	case *emergencyv1.GrantExpired:
		g.State, g.Expired = GrantExpired, f.mark("", "", "")
	case *emergencyv1.WatchArmed:
		g.Watcher, g.Armed = e.GetWatcher(), f.mark(e.GetWatcher(), "", "")
		g.OutputOffset = max(g.OutputOffset, e.GetOutputOffset())
		if g.State == GrantIssued {
			g.State = GrantWatcherReady
		}
	case *emergencyv1.CredentialConsumed:
		g.Consumed, g.TargetKey = f.mark(g.Subject, "", ""), e.GetTargetKey()
	case *emergencyv1.ConnectionOpened:
		g.State, g.Opened, g.HostKey, g.Agent = GrantLive, f.mark(g.Subject, "", ""), e.GetHostKeyFingerprint(), e.GetAgent()
	case *emergencyv1.SessionFrozen:
		g.State, g.Frozen, g.FreezeCause, g.FreezeMode = GrantFrozen, f.mark(f.who(), "", ""), e.GetCause(), e.GetMode()
		g.OutputOffset, g.InputDiscarded = max(g.OutputOffset, e.GetOutputOffset()), max(g.InputDiscarded, e.GetInputDiscarded())
	case *emergencyv1.SessionResumed:
		g.State, g.Resumed, g.InputDiscarded = GrantLive, f.mark(f.who(), "", ""), max(g.InputDiscarded, e.GetInputDiscarded())
	case *emergencyv1.SessionMarked:
		g.mark(f, e)
	case *emergencyv1.SessionExtended:
		g.Extended, g.Extension = f.mark(f.who(), "", ""), time.Duration(e.GetMinutes())*time.Minute
	default:
		return g.applyEnd(f, payload)
	}
	return true
}

func (g *Grant) mark(f fact, e *emergencyv1.SessionMarked) {
	g.OutputOffset = max(g.OutputOffset, e.GetOutputOffset())
	if c := e.GetCheckpoint(); e.GetKind() == emergencyv1.MarkKind_MARK_KIND_CHECKPOINT {
		g.Checkpoints = append(g.Checkpoints, Checkpoint{f.mark(f.who(), "", ""), c.GetFrame(), c.GetChainHash(), c.GetOutputOffset(), c.GetSize()})
		return
	}
	g.Marks = append(g.Marks, f.mark(f.who(), "", e.GetKind().String()))
}

// applyEnd folds what ends an access and what comes after it.
func (g *Grant) applyEnd(f fact, payload proto.Message) bool {
	switch e := payload.(type) {
	case *emergencyv1.SessionTerminated:
		if g.State != GrantDisabled && g.State != GrantProvenUnusable { // to end what nobody can use takes no proof back
			g.State = GrantTerminated
		}
		g.Terminated, g.Cause, g.Results = f.mark(f.who(), "", ""), e.GetCause(), e.GetResults()
		g.OutputOffset, g.InputBytes = max(g.OutputOffset, e.GetOutputOffset()), e.GetInputBytes()
		g.InputDiscarded = max(g.InputDiscarded, e.GetInputDiscarded())
	case *emergencyv1.ConnectionDisabled:
		g.Disabled = f.mark(f.who(), "", "")
		if !g.spent() {
			g.State = GrantDisabled
		}
		if g.DisabledDone.Position == 0 && achieved(e.GetGateway()) && achieved(e.GetHost()) {
			g.DisabledDone = g.Disabled
		}
	case *emergencyv1.CredentialProvenUnusable:
		g.State, g.LastProven = GrantProvenUnusable, f.mark(f.who(), "", "")
		if g.Proven.Position == 0 {
			g.Proven = g.LastProven
		}
	case *emergencyv1.CredentialStillUsable:
		g.State, g.StillUsable = GrantStillUsable, f.mark(f.who(), "", e.GetAt())
	case *emergencyv1.SessionDiffCaptured:
		g.Diff = SessionDiff{
			Mark: f.mark(f.who(), "", ""), AfterTree: e.GetAfterTree(), AfterManifest: e.GetAfterManifest(), Patch: e.GetDiff(),
			Problem: e.GetDiffProblem(), BaseCommit: e.GetBaseCommit(),
		}
		for _, p := range e.GetChangedPaths() {
			g.Diff.Paths = append(g.Diff.Paths, p.GetCommitment())
		}
	case *emergencyv1.LeftoversReported:
		m := f.mark(f.who(), "", "")
		g.LeftoversReported = append(g.LeftoversReported, m)
		for _, l := range e.GetItems() {
			g.Leftovers = append(g.Leftovers, LeftoverItem{Item: l.GetItem(), Kind: l.GetKind(), What: l.GetWhat().GetCommitment(), Reported: m})
		}
	case *emergencyv1.LeftoversExplained:
		g.explain(f, e)
	case *emergencyv1.SessionSealed:
		g.State, g.Sealed, g.Recording, g.Record = GrantSealed, f.mark(f.who(), "", ""), e.GetRecording(), e.GetState()
	case *emergencyv1.RecordingPlayed:
		g.Marks = append(g.Marks, f.mark(e.GetPerson(), "", "played"))
	default:
		return false
	}
	return true
}

func (g *Grant) explain(f fact, e *emergencyv1.LeftoversExplained) {
	for i := range g.Leftovers {
		for _, item := range e.GetItems() {
			if l := &g.Leftovers[i]; l.Item == item && l.Explained.Position == 0 {
				l.Explained = f.mark(f.who(), "", "")
			}
		}
	}
}

// achieved tells whether one step that ends an access is done, or had nothing to do.
func achieved(r *emergencyv1.EndResult) bool {
	o := r.GetOutcome()
	return o == emergencyv1.EffectOutcome_EFFECT_OUTCOME_DONE || o == emergencyv1.EffectOutcome_EFFECT_OUTCOME_NOT_NEEDED
}
