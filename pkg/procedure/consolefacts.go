// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"time"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// ConsoleFacts are what the broker, the host's agent and the artefact store say about one command; a client claims none of
// it. Only the fields of that command are set.
type ConsoleFacts struct {
	// Account is the configured account of the host, Agent whether its agent can freeze and kill, Before the tree as it is, and
	// Instance the one of the service at whose gateway the credential counts; GrantAccess.
	Account  string
	Instance string
	Agent    bool
	Before   *HostTree
	// MaxLength and FirstUse are the configured limits, 0 for none; they may only tighten the policy's; GrantAccess.
	MaxLength, FirstUse time.Duration
	// RecorderReady and Anchored: the recorder can write, and the history takes its checkpoints; ArmWatch.
	RecorderReady, Anchored bool
	// LeaseAlive: the watcher's client was heard of within watch.lease and its view is not hidden; Connect, Resume.
	LeaseAlive bool
	// KeyProven: the other side signed with the key of the certificate that was issued for this grant, which is valid here
	// and now; SourceAllowed: it comes from the address that certificate and grant name; Connect.
	KeyProven, SourceAllowed bool
	// TargetKey is the public key that the gateway will use at the host; Connect.
	TargetKey string
	// What the recording and the counters say; ArmWatch, Freeze, Resume, MarkSession, Terminate, Disable.
	OutputOffset, InputBytes, InputDiscarded uint64
	// FreezeMode is what the freeze holds; Freeze.
	FreezeMode emergencyv1.FreezeMode
	// Results are what became of each step of the end; Terminate, Disable where it implies that.
	Results []*emergencyv1.EndResult
	// Gateway and HostEnd are what became of disabling the credential; Disable.
	Gateway, HostEnd *emergencyv1.EndResult
	// Attempts to use the credential again; ProveUnusable.
	Attempts []*emergencyv1.ReuseAttempt
	// After is the tree after the session and the difference; CaptureSessionDiff.
	After *DiffFacts
	// Looked: the host's agent looked for leftovers and found these; ReportLeftovers.
	Looked    bool
	Leftovers []*emergencyv1.LeftoverFound
	// Recording is what the service found when it checked the recording; SealSession.
	Recording *RecordingFacts
}

// HostTree is a host's tree and the stored list of its files.
type HostTree struct {
	Tree     string
	Manifest *emergencyv1.Artefact
}

// DiffFacts are the difference of a session, computed by the service.
type DiffFacts struct {
	HostTree
	Paths []string
	// Patch is the difference as a patch that gives the tree after; Problem says why it may not be registered, or why there is
	// none. Both are empty if nothing changed.
	Patch      *emergencyv1.Artefact
	Problem    string
	BaseCommit string
}

// RecordingFacts are what the check of a recording found.
type RecordingFacts struct {
	Artefact        *emergencyv1.Artefact
	State           emergencyv1.RecordingState
	End             *emergencyv1.RecordingCheckpoint
	WatchedPermille uint32
	FirstBadFrame   uint64
}
