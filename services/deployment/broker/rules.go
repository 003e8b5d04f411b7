// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Ref names a grant.
type Ref struct{ Incident, Grant string }

// String is how a grant is named to people: e20261124.1/G1.
func (r Ref) String() string { return r.Incident + "/" + r.Grant }

// Login is the account name by which the subject asks the broker for the grant: e20261124.1.G1.
func (r Ref) Login() string { return r.Incident + "." + r.Grant }

// ParseLogin is the reverse of Login.
func ParseLogin(login string) (Ref, bool) {
	at := strings.LastIndexByte(login, '.')
	if at <= 0 || at == len(login)-1 || len(login) > 64 {
		return Ref{}, false
	}
	return Ref{Incident: login[:at], Grant: login[at+1:]}, true
}

// Grant is what the history says of a grant: who may do what, where, for how long.
type Grant struct {
	Ref
	// Subject is the one person who types; Watcher the one who counts as watching (the granting critical admin, or who took
	// over by name). They are persons, not keys.
	Subject, Watcher string
	// ArmedAt is when the watcher armed last; zero if the watch is not armed.
	ArmedAt time.Time
	// Host and Account are the target's.
	Host, Account string
	// Source is the only address the subject may come from; empty where none was named.
	Source string
	// FirstUse is until when the credential may be used.
	FirstUse time.Time
	// Consumed is whether the credential was used, and TargetKey the public key that was made for the host then; nil if it is not known.
	Consumed  bool
	TargetKey ssh.PublicKey
	// Over is why the grant cannot be used any more (terminated, expired ...); empty while it can.
	Over string
	Limits
}

// Limits are the policy's values that concern a running session. None may be zero or negative: a limit that was forgotten must
// not be one that never applies.
type Limits struct {
	Lease     time.Duration // watch.lease: how long a watcher counts as present after a sign of life
	Silence   time.Duration // watch.freeze_within: how long after it input passes; from then to the end of the lease it is discarded
	Grace     time.Duration // watch.grace: frozen longer ends the session
	Presence  time.Duration // watch.presence: how long an arming (a step-up) counts
	Max       time.Duration // session.max, from the opening
	Idle      time.Duration // session.idle: neither input nor output
	Window    int64         // bytes of output that may be unacknowledged
	WindowAge time.Duration // how old unacknowledged output may be
	Recording int64         // bytes of the recording at which the watcher has to decide
	Anchor    time.Duration // how long a checkpoint may take until the history has it
}

func (l Limits) check() error {
	values := []struct {
		name  string
		value int64
	}{
		{"watch.lease", int64(l.Lease)}, {"watch.freeze_within", int64(l.Silence)}, {"watch.grace", int64(l.Grace)},
		{"watch.presence", int64(l.Presence)},
		{"session.max", int64(l.Max)}, {"session.idle", int64(l.Idle)}, {"the window of unacknowledged output", l.Window},
		{"the age of unacknowledged output", int64(l.WindowAge)}, {"the recording's size", l.Recording},
		{"the time until a checkpoint is anchored", int64(l.Anchor)},
	}
	for _, v := range values {
		if v.value <= 0 {
			return fmt.Errorf("limit of the console: %s is %d, but has to be positive: correct the policy", v.name, v.value)
		}
	}
	return nil
}

// Refusal is a rule's no. Reason is the rule's code, such as CREDENTIAL_CONSUMED; Text is for the person who meets it.
type Refusal struct{ Reason, Text string }

// Error is reason and text.
func (r *Refusal) Error() string { return r.Text + " (" + r.Reason + ")" }

func refused(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// Reasons that the broker itself refuses by, named as in procedure.md 4.4.
const (
	ReasonGrantState    = "GRANT_STATE"
	ReasonWatcherAbsent = "WATCHER_ABSENT"
	ReasonWatcherRole   = "WATCHER_ROLE"
	ReasonConsumed      = "CREDENTIAL_CONSUMED"
	ReasonNotSubject    = "NOT_SUBJECT"
	ReasonSource        = "SOURCE_ADDRESS"
	ReasonExpired       = "GRANT_EXPIRED"
	ReasonRecorder      = "RECORDER_NOT_READY"
	ReasonSurface       = "SSH_SURFACE"
	ReasonOverloaded    = "OVERLOADED"
	ReasonKey           = "KEY"
	ReasonLimit         = "LIMIT"
)

// Rules is the procedure, as far as the console meets it. A *Refusal means that the rules said no (and recorded that); any
// other error means that it is not known whether the event was stored. All methods may be called from several goroutines at
// once, for one grant too.
type Rules interface {
	// Grant returns the grant as it stands. A grant that does not exist is a *Refusal.
	Grant(ctx context.Context, ref Ref) (Grant, error)
	// Connect consumes the credential: a compare-and-set that one caller of all wins. It must be stored when it returns nil.
	// Every refused attempt is recorded by it, one by one.
	Connect(ctx context.Context, ref Ref, a Attempt) error
	// Opened records that the shell on the target has started. It must be stored when it returns nil.
	Opened(ctx context.Context, ref Ref, o Opening) error
	// Freeze records a freeze that was done. It is called again until it is stored or refused.
	Freeze(ctx context.Context, ref Ref, f Freezing) error
	// Mark records something that happened in the session. It is called again until it is stored or refused.
	Mark(ctx context.Context, ref Ref, m Mark) error
	// Terminate records an end that was made. It is called again until it is stored or refused.
	Terminate(ctx context.Context, ref Ref, e Ending) error
	// Refused records an attempt that did not come as far as Connect: a credential of ours that is expired, comes from
	// elsewhere or is used for anything but a console. It may be lost if the log is down.
	Refused(ctx context.Context, ref Ref, r RefusedAttempt) error
}

// Attempt is a proven credential and how it came.
type Attempt struct {
	// Serial and Fingerprint are those of the certificate and of its key, whose signature was checked.
	Serial      uint64
	Fingerprint string
	// Source is the client's address, without a port; Client its version text, one line.
	Source, Client string
	// TargetKey is the key that will be let in on the target.
	TargetKey ssh.PublicKey
	// Present is whether the watcher is present at this moment.
	Present bool
	At      time.Time
}

// Opening is how a session began.
type Opening struct {
	Attempt
	// Term, Columns and Rows are the terminal.
	Term          string
	Columns, Rows uint32
	// HostAgent is false where the host has no agent: only input can be frozen there.
	HostAgent bool
	// Recording names the recording's file.
	Recording string
	At        time.Time
}

// RefusedAttempt is something refused outside of a session.
type RefusedAttempt struct {
	Source, Client string
	// What was asked, such as "subsystem sftp"; Reason a code; Text why.
	What, Reason, Text string
	At                 time.Time
}

// Cause is why a session was frozen or ended.
type Cause string

// Causes of freezes.
const (
	CauseWatcher   Cause = "WATCHER"        // the watcher said so
	CauseLease     Cause = "LEASE_LOST"     // no sign of life from the watcher
	CauseHidden    Cause = "WATCHER_HIDDEN" // the watcher's view is not visible
	CausePresence  Cause = "PRESENCE_OLD"   // the watcher's last step-up is too long ago
	CauseWindow    Cause = "OUTPUT_UNSEEN"  // output is unacknowledged for too long
	CauseRecorder  Cause = "RECORDER_LOST"  // the recording cannot be written
	CauseAnchor    Cause = "NOT_ANCHORED"   // the history does not take the recording's checkpoints
	CauseRecording Cause = "RECORDING_FULL" // the recording has reached its size; the watcher decides
	CauseThaw      Cause = "THAW_FAILED"    // the host could not let the processes go on
)

// Causes of ends.
const (
	CauseKilled     Cause = "KILLED"          // a person ended the session
	CauseDisabled   Cause = "DISABLED"        // a person disabled the access before anybody had ended it
	CauseExpired    Cause = "EXPIRED"         // nobody came within the first-use time
	CauseExit       Cause = "SUBJECT_EXIT"    // the shell ended by itself
	CauseConnection Cause = "CONNECTION_LOST" // the subject's connection ended
	CauseTarget     Cause = "TARGET_LOST"     // the target's connection ended
	CauseGrace      Cause = "GRACE_OVER"      // frozen for too long
	CauseMax        Cause = "MAX_LENGTH"
	CauseIdle       Cause = "IDLE"
	CauseOpen       Cause = "OPEN_FAILED"  // the target could not be opened after the credential was consumed
	CauseGateway    Cause = "GATEWAY_LOST" // the broker stopped, or came back without the session
	CauseDefect     Cause = "DEFECT"       // a defect of the broker; its text is in the log
)

// FreezeMode is how far a freeze reaches.
type FreezeMode string

// Modes of freezes.
const (
	FreezeProcess FreezeMode = "process" // the session's processes stand still
	FreezeInput   FreezeMode = "input"   // only what is typed is stopped (deviation FREEZE_NOT_AVAILABLE)
)

// Freezing is a freeze that was done.
type Freezing struct {
	Cause Cause
	Mode  FreezeMode
	// Problem is why the processes were not frozen; empty if they were.
	Problem string
	// Offset is how much output there was, in bytes; Seen how much of it the watcher has acknowledged.
	Offset, Seen int64
	At           time.Time
}

// MarkKind is a kind of mark.
type MarkKind string

// Kinds of marks.
const (
	MarkCheckpoint MarkKind = "checkpoint"
	MarkRefused    MarkKind = "refused"     // something other than a console was asked
	MarkGap        MarkKind = "gap"         // input that was discarded
	MarkConcealed  MarkKind = "concealment" // input that the terminal did not show
	MarkFrozen     MarkKind = "frozen"      // the processes were frozen, but late
	MarkNote       MarkKind = "note"
)

// Mark is something that happened in a session.
type Mark struct {
	Kind MarkKind
	Text string
	// Frame and Chain are number and hash of the recording's last frame, Size its bytes so far (checkpoint), Offset the output's.
	Frame  uint64
	Chain  [32]byte
	Size   int64
	Offset int64
	// Bytes are those discarded (gap) or not shown (concealment).
	Bytes int64
	At    time.Time
}

// Effect is one of the independent effects of an end.
type Effect struct {
	// Name is one of the Effect constants.
	Name string
	// Done is whether the effect is known to be reached; what is not known is not done.
	Done bool
	// Problem is why not, or what was found.
	Problem string
	Took    time.Duration
}

// Names of the effects of an end.
const (
	EffectInput      = "input"      // the gate is shut
	EffectSubject    = "subject"    // the subject's connection is closed
	EffectTarget     = "target"     // the target's connection is closed
	EffectHost       = "host"       // key line removed, processes killed and verified gone
	EffectCredential = "credential" // the gateway does not accept the credential any more
	EffectRecording  = "recording"  // the recording has its end frame and is on disk
)

// Ending is an end and what was reached.
type Ending struct {
	Cause Cause
	// By is the person who ended it; empty if nobody did.
	By string
	// Text is for people: the exit status, what failed.
	Text    string
	Effects []Effect
	// Opened is whether there was a session at all.
	Opened bool
	// Offset is the output's length in bytes, Discarded the bytes of input that were not forwarded.
	Offset, Discarded int64
	// Live and Frozen are how long the session was either.
	Live, Frozen time.Duration
	// Recording is the file's path, with number and hash of its last frame; empty without one.
	Recording string
	Frame     uint64
	Chain     [32]byte
	SHA256    [32]byte // of the whole file
	At        time.Time
}

// NotAttempted is the problem of an effect that was not attempted.
const NotAttempted = "not attempted"

// Effect returns the effect of that name; one with the problem NotAttempted if there is none.
func (e Ending) Effect(name string) Effect {
	for _, x := range e.Effects {
		if x.Name == name {
			return x
		}
	}
	return Effect{Name: name, Problem: NotAttempted}
}

// ErrNoAgent is returned by Host where the host has no agent: an administrator has to do by hand what an agent would do.
var ErrNoAgent = errors.New("the host has no agent")

// Host is what the agent on the target can do. Each method may return ErrNoAgent; any other error means that it is not known
// whether it was done. All of them may be repeated.
type Host interface {
	// Open installs the key as the account's only console key, until access.Until.
	Open(ctx context.Context, access Access) error
	// Freeze stops the session's processes; Thaw lets them go on.
	Freeze(ctx context.Context, ref Ref, host string) error
	Thaw(ctx context.Context, ref Ref, host string) error
	// End removes the key, kills the session's processes and returns nil when they are verified gone.
	End(ctx context.Context, ref Ref, host string) error
}

// Access is the broker's own one-time access to a target.
type Access struct {
	Grant
	Key ssh.PublicKey
	// Until is when the key line expires by itself.
	Until time.Time
}

// Line is the line of an authorized_keys file for a host without an agent.
func (a Access) Line() string {
	return fmt.Sprintf(`restrict,pty,expiry-time="%s" %s epatch %s`, a.Until.UTC().Format("200601021504Z"),
		strings.TrimSpace(string(ssh.MarshalAuthorizedKey(a.Key))), a.Ref)
}

// Targets knows the hosts.
type Targets interface {
	// Target returns where a host's sshd listens and the key it has to prove. A host that is not configured is an error.
	Target(host string) (Target, error)
}

// Target is a host's sshd.
type Target struct {
	Address string
	HostKey ssh.PublicKey
}
