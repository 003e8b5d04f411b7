// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The milestones of strategy 3's console, beside the story of strategy 1: emil works on the host, carla grants and carl watches.
const (
	Joined     Milestone = "jointly declared" // by carla and anna
	Permitted  Milestone = "permitted"        // by clara
	Granted    Milestone = "granted"          // by carla, who acts as access engineer
	Armed      Milestone = "armed"            // by carl
	Consumed   Milestone = "consumed"         // by emil
	Live       Milestone = "live"
	Frozen     Milestone = "frozen"
	Resumed    Milestone = "resumed"
	Terminated Milestone = "terminated"
	Disabled   Milestone = "disabled"
	Proven     Milestone = "proven unusable"
	Captured   Milestone = "captured" // a changed tree, and a process left running
	Explained  Milestone = "explained"
	Sealed     Milestone = "sealed"
)

const agentOfHost = "host:" + Host

// story3 is strategy 3's console from the joint declaration on.
func story3() []chapter {
	return []chapter{
		{Joined, func(w *World) { between("", Called)(w); w.act("carla", Joint()); w.act("anna", Joint()) }},
		{Permitted, func(w *World) { w.act("clara", Permit("emil")) }},
		{Granted, func(w *World) { w.act("carla", GrantTo("emil", "carl")) }},
		{Armed, func(w *World) { w.act("carl", Arm()) }},
		{Consumed, func(w *World) { w.Do("gateway:emil", Connect()); w.Wait(time.Second) }},
		{Live, func(w *World) {
			w.Do("gateway:emil", Opened(true))
			w.Wait(time.Second)
			w.Do("gateway", CheckpointAt(10))
		}},
		{Frozen, func(w *World) {
			w.Do("gateway", &emergencyv1.FreezeRequest{Grant: "G1", Cause: emergencyv1.SessionCause_SESSION_CAUSE_LEASE_LOST})
			w.Wait(time.Second)
		}},
		{Resumed, func(w *World) {
			w.Do("carl", Arm())
			w.Do("carl", &emergencyv1.ResumeRequest{Grant: "G1"})
			w.Do("carl", Note("he looks at the login page"))
			w.Wait(time.Minute)
		}},
		{Terminated, func(w *World) {
			w.Do("gateway", CheckpointAt(20))
			w.act("carl", &emergencyv1.TerminateRequest{Grant: "G1"})
		}},
		{Disabled, func(w *World) { w.act("carla", &emergencyv1.DisableRequest{Grant: "G1"}) }},
		{Proven, func(w *World) { w.act("carla", &emergencyv1.ProveUnusableRequest{Grant: "G1"}) }},
		{Captured, func(w *World) {
			w.act("gateway", &emergencyv1.CaptureSessionDiffRequest{Grant: "G1"})
			w.act(agentOfHost, FoundLeftovers())
		}},
		{Explained, func(w *World) { w.act("carl", ExplainLeftovers("")) }},
		{Sealed, func(w *World) {
			w.act("carl", &emergencyv1.SealSessionRequest{Grant: "G1"})
			w.act("anna", &emergencyv1.PlayRecordingRequest{Grant: "G1"})
		}},
	}
}

// Milestones3 lists those of strategy 3's console in order.
func Milestones3() []Milestone { return names(story3()) }

// Permit is the lead's permission for a person.
func Permit(subject string) *emergencyv1.PermitAccessRequest {
	return &emergencyv1.PermitAccessRequest{Subject: subject, Purpose: "find out why logins fail"}
}

// GrantTo grants a session to a person, watched by another.
func GrantTo(subject, watcher string) *emergencyv1.GrantAccessRequest {
	return &emergencyv1.GrantAccessRequest{Subject: subject, Watcher: watcher, Purpose: "find out why logins fail", Account: "epatch", SourceAddress: "192.0.2.0/24"}
}

// Arm confirms the watch of the last grant that could be meant in the story.
func Arm() *emergencyv1.ArmWatchRequest { return &emergencyv1.ArmWatchRequest{Grant: "G1"} }

// Connect is one attempt to use the credential, as the broker gives it.
func Connect() *emergencyv1.ConnectRequest {
	return &emergencyv1.ConnectRequest{Grant: "G1", SourceAddress: "192.0.2.7", KeyFingerprint: "SHA256:abc", Certificate: []byte("certificate")}
}

// Opened reports that the target is open.
func Opened(agent bool) *emergencyv1.ReportConnectionRequest {
	return &emergencyv1.ReportConnectionRequest{Grant: "G1", HostKeyFingerprint: "SHA256:host", Agent: agent}
}

// CheckpointAt anchors the recording at a frame.
func CheckpointAt(frame uint64) *emergencyv1.MarkSessionRequest {
	sum := sha256.Sum256(fmt.Append(nil, "frame ", frame))
	return &emergencyv1.MarkSessionRequest{Grant: "G1", Kind: emergencyv1.MarkKind_MARK_KIND_CHECKPOINT, Checkpoint: &emergencyv1.RecordingCheckpoint{
		Frame: frame, ChainHash: hex.EncodeToString(sum[:]), OutputOffset: frame * 100, Size: frame * 150,
	}}
}

// Note is a watcher's note.
func Note(text string) *emergencyv1.MarkSessionRequest {
	return &emergencyv1.MarkSessionRequest{Grant: "G1", Text: text}
}

// FoundLeftovers is the agent's report of one process and one key.
func FoundLeftovers() *emergencyv1.ReportLeftoversRequest {
	return &emergencyv1.ReportLeftoversRequest{Grant: "G1", Found: []*emergencyv1.LeftoverFound{
		{Kind: emergencyv1.LeftoverKind_LEFTOVER_KIND_PROCESS, What: "pid 4711 sleep 3600"},
		{Kind: emergencyv1.LeftoverKind_LEFTOVER_KIND_AUTHORIZED_KEY, What: "/root/.ssh/authorized_keys"},
	}}
}

// ExplainLeftovers explains one item, or all.
func ExplainLeftovers(item string) *emergencyv1.ExplainLeftoversRequest {
	return &emergencyv1.ExplainLeftoversRequest{Grant: "G1", Item: item, Explanation: "known, and removed by hand"}
}

// SessionTree is what the host holds after the story's session.
func SessionTree() string { return Tree("after the session") }

// SessionPatch is the difference of the story's session.
func SessionPatch() []byte { return []byte("diff --git a/login b/login\n") }

// Artefact names bytes.
func Artefact(b []byte, mediaType string) *emergencyv1.Artefact {
	sum := sha256.Sum256(b)
	return &emergencyv1.Artefact{Sha256: hex.EncodeToString(sum[:]), Size: uint64(len(b)), MediaType: mediaType}
}

// ConsoleFacts are what broker, agent and artefact store would say for a command when all is well.
func ConsoleFacts(s *procedure.State, c procedure.Command) *procedure.ConsoleFacts {
	x := &procedure.ConsoleFacts{}
	done := func(effect string) *emergencyv1.EndResult {
		return &emergencyv1.EndResult{Effect: effect, Outcome: emergencyv1.EffectOutcome_EFFECT_OUTCOME_DONE, TookMs: 12}
	}
	var g procedure.Grant
	if n, ok := c.(interface{ GetGrant() string }); ok {
		if found, ok := s.Grant(n.GetGrant()); ok {
			g = *found
		}
	}
	x.OutputOffset = g.OutputOffset + 40
	switch c.(type) {
	case *emergencyv1.GrantAccessRequest:
		x.Account, x.Agent = "epatch", true
		x.Before = &procedure.HostTree{Tree: BaseTree(), Manifest: Artefact([]byte("before"), "application/vnd.cacert.emergency.manifest")}
	case *emergencyv1.ArmWatchRequest:
		x.RecorderReady, x.Anchored = true, true
	case *emergencyv1.ConnectRequest:
		x.LeaseAlive, x.KeyProven, x.SourceAllowed = true, true, true
	case *emergencyv1.ResumeRequest:
		x.LeaseAlive, x.InputDiscarded = true, 3
	case *emergencyv1.FreezeRequest:
		x.FreezeMode, x.InputDiscarded = emergencyv1.FreezeMode_FREEZE_MODE_CGROUP, 3
	case *emergencyv1.TerminateRequest, *emergencyv1.DisableRequest:
		for _, e := range procedure.EndEffects() {
			x.Results = append(x.Results, done(e))
		}
		x.InputBytes, x.Gateway, x.HostEnd = 77, done("gateway_credential"), done("host_credential")
	case *emergencyv1.ProveUnusableRequest:
		x.Attempts = Attempts(s.RecordedAt.Add(time.Second), true)
	case *emergencyv1.CaptureSessionDiffRequest:
		x.After = &procedure.DiffFacts{
			HostTree: procedure.HostTree{Tree: SessionTree(), Manifest: Artefact([]byte("after"), "application/vnd.cacert.emergency.manifest")},
			Paths:    []string{"login"}, Patch: Artefact(SessionPatch(), "text/x-diff"), BaseCommit: strings.Repeat("c", 40),
		}
	case *emergencyv1.ReportLeftoversRequest:
		x.Looked = true
	case *emergencyv1.SealSessionRequest:
		last := g.Last()
		x.Recording = &procedure.RecordingFacts{
			Artefact: Artefact([]byte("recording"), "application/x-asciicast"), State: emergencyv1.RecordingState_RECORDING_STATE_COMPLETE, WatchedPermille: 1000,
			End: &emergencyv1.RecordingCheckpoint{Frame: last.Frame, ChainHash: last.ChainHash, OutputOffset: last.OutputOffset, Size: last.Size},
		}
	}
	return x
}

// Attempts are attempts to use a disabled credential, at the gateway and on the host.
func Attempts(at time.Time, refused bool) []*emergencyv1.ReuseAttempt {
	return []*emergencyv1.ReuseAttempt{
		{At: "gateway", AttemptedAt: timestamppb.New(at), Refused: true, Detail: "GRANT_STATE"},
		{At: "host", AttemptedAt: timestamppb.New(at), Refused: refused, Detail: "permission denied (publickey)"},
	}
}

// WithConsole are good facts for a command with something changed.
func WithConsole(s *procedure.State, c procedure.Command, change func(*procedure.ConsoleFacts)) procedure.Facts {
	x := ConsoleFacts(s, c)
	change(x)
	return procedure.Facts{Console: x}
}

func consoleAttempts(s *procedure.State) []attempt {
	list := []attempt{{c: Permit("emil")}, {c: Permit("clara")}}
	if len(s.Permissions) == 0 && len(s.Grants) == 0 && s.Strategy != 3 {
		return append(list, attempt{c: GrantTo("emil", "carl")}, attempt{c: Connect()}, attempt{c: Arm()}, attempt{c: &emergencyv1.TerminateRequest{Grant: "G1"}})
	}
	id := fmt.Sprintf("G%d", max(1, len(s.Grants)))
	on := func(c procedure.Command) procedure.Command {
		m := proto.Clone(c).(procedure.Command)
		fd := m.ProtoReflect().Descriptor().Fields().ByName("grant")
		m.ProtoReflect().Set(fd, stringValue(id))
		return m
	}
	other := func(c procedure.Command, change func(*procedure.ConsoleFacts)) attempt {
		m := on(c)
		f := WithConsole(s, m, change)
		return attempt{c: m, facts: &f}
	}
	over := Arm()
	over.TakeOverReason = "carl has gone home"
	long, last := GrantTo("emil", "carl"), uint64(0)
	long.MaxMinutes = 61
	if g, ok := s.Grant(id); ok {
		last = g.Last().Frame
	}
	list = append(list,
		attempt{c: GrantTo("emil", "carl")}, attempt{c: GrantTo("anna", "clara")}, attempt{c: GrantTo("carla", "carl")}, attempt{c: GrantTo("theo", "carl")}, attempt{c: long},
		attempt{c: GrantTo("emil", "carl"), facts: &procedure.Facts{}}, attempt{c: on(Arm())}, attempt{c: on(over)}, other(Arm(), func(x *procedure.ConsoleFacts) { x.Anchored = false }),
		attempt{c: on(Connect())}, other(Connect(), func(x *procedure.ConsoleFacts) { x.LeaseAlive = false }), other(Connect(), func(x *procedure.ConsoleFacts) { x.KeyProven = false }),
		attempt{c: on(Opened(true))}, attempt{c: on(Opened(false))}, attempt{c: on(&emergencyv1.FreezeRequest{})}, other(&emergencyv1.FreezeRequest{}, func(x *procedure.ConsoleFacts) { x.FreezeMode = emergencyv1.FreezeMode_FREEZE_MODE_INPUT }),
		attempt{c: on(&emergencyv1.ResumeRequest{})}, attempt{c: on(Note("a note"))}, attempt{c: on(CheckpointAt(last + 10))}, attempt{c: on(CheckpointAt(1))},
		attempt{c: on(&emergencyv1.ExtendSessionRequest{Reason: "the cause is found, the cure is not"})}, attempt{c: on(&emergencyv1.TerminateRequest{})}, attempt{c: on(&emergencyv1.DisableRequest{})},
		attempt{c: on(&emergencyv1.DisableRequest{}), facts: &procedure.Facts{}}, attempt{c: on(&emergencyv1.ProveUnusableRequest{})},
		other(&emergencyv1.ProveUnusableRequest{}, func(x *procedure.ConsoleFacts) { x.Attempts = Attempts(s.RecordedAt.Add(time.Second), false) }),
		attempt{c: on(&emergencyv1.CaptureSessionDiffRequest{})}, other(&emergencyv1.CaptureSessionDiffRequest{}, func(x *procedure.ConsoleFacts) { x.After.Tree, x.After.Paths, x.After.Patch = BaseTree(), nil, nil }),
		attempt{c: on(FoundLeftovers())}, attempt{c: on(ExplainLeftovers(""))}, attempt{c: on(ExplainLeftovers("L2"))},
		attempt{c: on(&emergencyv1.SealSessionRequest{})}, attempt{c: on(&emergencyv1.PlayRecordingRequest{})},
	)
	return list
}
