// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Sync is how we know that the servers sync every write before they acknowledge it. With the default of NATS, an
// acknowledged record is lost in a power cut.
type Sync int

const (
	// SyncUnknown is the zero value and is refused.
	SyncUnknown Sync = iota
	// SyncStated: the operator states in the configuration that every server of the cluster has sync_interval: always.
	// A client connection cannot ask for it: only the system account ($SYS.REQ.SERVER.PING.JSZ, config.sync_always)
	// and the monitoring port (/jsz) tell, and no service has either.
	SyncStated
	// SyncVerified: the server itself was asked (Server.Sync).
	SyncVerified
)

// Expect is what a service knows about its log without asking it.
type Expect struct {
	Replicas int  // at least so many copies
	Sync     Sync // see Sync
}

// Finding is one setting or fact by which the log could lose, hide or change a record.
type Finding struct {
	Stream  string // stream or "server"
	Setting string // as NATS spells it
	Is      string
	Must    string
	Why     string // the damage
}

func (f Finding) String() string {
	return fmt.Sprintf("%s: %s is %s, must be %s: %s", f.Stream, f.Setting, f.Is, f.Must, f.Why)
}

// CheckError lists everything that is wrong, so that it can be put right in one go. Get it with errors.As.
type CheckError struct {
	Findings []Finding
}

func (e *CheckError) Error() string {
	lines := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		lines[i] = f.String()
	}
	return "the event log could forget; nothing is written to it until this is put right:\n  " + strings.Join(lines, "\n  ")
}

// checkError never returns a typed nil.
func checkError(findings []Finding) error {
	if len(findings) == 0 {
		return nil
	}
	return &CheckError{Findings: findings}
}

// Check refuses to work on a log that could forget: it is the first thing a service does with its connection. It looks
// at the stream Stream, its contents and the server's version, and returns a *CheckError with all findings, or the error
// of a question it could not ask. It sees the version of the server it is connected to, not of the other replicas.
func Check(ctx context.Context, js jetstream.JetStream, e Expect) error {
	seen, err := check(ctx, js, e)
	if err != nil {
		return err
	}
	return checkError(seen.findings)
}

func check(ctx context.Context, js jetstream.JetStream, e Expect) (seen, error) {
	want := historyStream()
	want.Replicas = e.Replicas
	s, err := look(ctx, js, want)
	if err != nil {
		return seen{}, fmt.Errorf("check the event log: %w", err)
	}
	s.findings = append(s.findings, serverFindings(js, e)...)
	s.findings = append(s.findings, stateFindings(s.info.State)...)
	return s, nil
}

// CheckBucket checks the settings of one bucket that Provision creates, named by its stream: KV_EFFECTS, OBJ_ARTEFACTS,
// KV_RESTRICTED_review ...
func CheckBucket(ctx context.Context, js jetstream.JetStream, stream string, e Expect) error {
	want, ok := wanted(stream)
	if !ok {
		return fmt.Errorf("check stream %s: it is none of ours", stream)
	}
	want.Replicas = e.Replicas
	s, err := look(ctx, js, want)
	if err != nil {
		return fmt.Errorf("check the bucket: %w", err)
	}
	return checkError(s.findings)
}

// seen is one answer of the server and what is wrong with it.
type seen struct {
	info     *jetstream.StreamInfo
	findings []Finding
}

func look(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (seen, error) {
	info, err := streamInfo(ctx, js, want.Name)
	if err != nil {
		return seen{}, fmt.Errorf("look at stream %s: %w", want.Name, err)
	}
	return seen{info: info, findings: configFindings(info.Config, want)}, nil
}

func streamInfo(ctx context.Context, js jetstream.JetStream, name string) (*jetstream.StreamInfo, error) {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	return stream.Info(ctx, jetstream.WithDeletedDetails(true))
}

func serverFindings(js jetstream.JetStream, e Expect) []Finding {
	var findings []Finding
	if v := js.Conn().ConnectedServerVersion(); !versionAtLeast(v, MinServerVersion) {
		findings = append(findings, Finding{"server", "version", v, MinServerVersion + " or newer",
			"older servers were not measured and have known losses"})
	}
	if e.Sync != SyncStated && e.Sync != SyncVerified {
		findings = append(findings, Finding{"server", "sync_interval", "unknown", "always",
			"a power cut loses acknowledged records otherwise; a client cannot ask for it, so the operator has to set it on " +
				"every server and state it in our configuration"})
	}
	return findings
}

// setting is one row of the comparison.
type setting struct {
	name     string
	is, must any
	why      string
}

// configFindings compares all settings that decide what is kept. Free are description, metadata, placement,
// compression, limits on consumers and the number of bytes.
func configFindings(is, must jetstream.StreamConfig) []Finding {
	const (
		drops    = "messages would be dropped"
		alters   = "somebody could remove or replace messages"
		foreign  = "messages would come from or go to where nobody checks them"
		unsynced = "a message would be acknowledged before it is safe"
		batches  = "this way of writing was not checked for keeping the order"
		stale    = "a read may be answered by a replica that is behind"
	)
	rows := []setting{
		{"subjects", is.Subjects, must.Subjects, "an incident would not be stored, or other messages would"},
		{"storage", is.Storage, must.Storage, "a restart would lose everything"},
		{"retention", is.Retention, must.Retention, drops},
		{"discard", is.Discard, must.Discard, "a full stream would drop its oldest messages"},
		{"discard_new_per_subject", is.DiscardNewPerSubject, false, "writes would be refused early"},
		{"max_age", is.MaxAge, must.MaxAge, drops},
		{"max_msgs", is.MaxMsgs, must.MaxMsgs, "writes would be refused early"},
		{"max_msgs_per_subject", is.MaxMsgsPerSubject, must.MaxMsgsPerSubject, drops},
		{"max_msg_size", is.MaxMsgSize, must.MaxMsgSize, "a record would not fit, or none of our readers would take it"},
		{"deny_delete", is.DenyDelete, must.DenyDelete, alters},
		{"deny_purge", is.DenyPurge, must.DenyPurge, alters},
		{"allow_rollup_hdrs", is.AllowRollup, must.AllowRollup, alters},
		{"allow_msg_ttl", is.AllowMsgTTL, false, drops},
		{"subject_delete_marker_ttl", is.SubjectDeleteMarkerTTL, time.Duration(0), drops},
		{"allow_msg_counter", is.AllowMsgCounter, false, alters},
		{"allow_msg_schedules", is.AllowMsgSchedules, false, "messages would be written by the server itself"},
		{"allow_atomic", is.AllowAtomicPublish, false, batches},
		{"allow_batched", is.AllowBatchPublish, false, batches},
		{"persist_mode", is.PersistMode, jetstream.DefaultPersistMode, unsynced + ": it overrules sync_interval"},
		{"no_ack", is.NoAck, false, "nothing would be acknowledged"},
		{"sealed", is.Sealed, false, "nothing could be written"},
		{"duplicate_window", is.Duplicates, must.Duplicates, "a foreign message id could swallow a write"},
		{"first_seq", is.FirstSeq, uint64(0), "a stream that starts later hides what was before"},
		{"allow_direct", is.AllowDirect, must.AllowDirect, stale},
		{"mirror_direct", is.MirrorDirect, false, stale},
		{"mirror", origin(is.Mirror), "none", foreign},
		{"sources", origins(is.Sources), "none", foreign},
		{"subject_transform", transform(is.SubjectTransform), "none", foreign},
		{"republish", republish(is.RePublish), "none", foreign},
	}
	var findings []Finding
	for _, row := range rows {
		if text(row.is) != text(row.must) {
			findings = append(findings, Finding{must.Name, row.name, text(row.is), text(row.must), row.why})
		}
	}
	if is.MaxBytes <= 0 {
		findings = append(findings, Finding{must.Name, "max_bytes", text(is.MaxBytes), "set",
			"the stream would fill the disk, and then the server stops"})
	}
	if is.Replicas < must.Replicas {
		findings = append(findings, Finding{must.Name, "num_replicas", text(is.Replicas), fmt.Sprintf("%d or more", must.Replicas),
			"one lost disk would lose the stream"})
	}
	return append(findings, unknownFeature(is, must, len(findings) > 0)...)
}

// unknownFeature finds settings newer than this program: the server marks a stream with the API level its settings
// need, and ours need none. Where another finding explains the level it is not repeated.
func unknownFeature(is, must jetstream.StreamConfig, explained bool) []Finding {
	const key = "_nats.req.level"
	if level := is.Metadata[key]; !explained && level != "" && level != "0" {
		return []Finding{{must.Name, key, level, "0", "the stream uses a feature this program does not know"}}
	}
	return nil
}

// text shows a value as the operator would write it.
func text(v any) string {
	switch v := v.(type) {
	case []string:
		v = slices.Sorted(slices.Values(v))
		return "[" + strings.Join(v, " ") + "]"
	default:
		return fmt.Sprint(v)
	}
}

func origin(s *jetstream.StreamSource) string {
	if s == nil {
		return "none"
	}
	return "stream " + s.Name
}

func origins(sources []*jetstream.StreamSource) string {
	if len(sources) == 0 {
		return "none"
	}
	names := make([]string, len(sources))
	for i, s := range sources {
		names[i] = origin(s)
	}
	return strings.Join(names, ", ")
}

func transform(t *jetstream.SubjectTransformConfig) string {
	if t == nil {
		return "none"
	}
	return t.Source + " to " + t.Destination
}

func republish(r *jetstream.RePublish) string {
	if r == nil {
		return "none"
	}
	return r.Source + " to " + r.Destination
}

// stateFindings asks whether the stream has forgotten already: all sequences from 1 to the last must be there.
func stateFindings(s jetstream.StreamState) []Finding {
	var findings []Finding
	add := func(name string, is, must any, why string) {
		findings = append(findings, Finding{Stream, name, text(is), text(must), why})
	}
	if s.LastSeq == 0 {
		return nil // nothing was ever stored; the server then reports sequence 0 as deleted
	}
	if s.FirstSeq != 1 {
		add("state.first_seq", s.FirstSeq, 1, "the beginning is gone")
	}
	if s.NumDeleted != 0 || len(s.Deleted) != 0 {
		add("state.num_deleted", few(s.NumDeleted, s.Deleted), 0, "messages are gone")
	}
	// Lost bytes without a lost message are a write that a crash cut off, if they fit into one.
	if s.Lost != nil && (len(s.Lost.Msgs) > 0 || s.Lost.Bytes > recordMost) {
		add("state.lost", fmt.Sprintf("%d messages, %d bytes", len(s.Lost.Msgs), s.Lost.Bytes), 0, "the server could not read messages back from its disk")
	}
	if s.Msgs != s.LastSeq {
		add("state.messages", s.Msgs, s.LastSeq, "fewer messages than sequence numbers given out")
	}
	return findings
}

// few names the first of the sequences, so that a restore can be checked against them.
func few(n int, seqs []uint64) string {
	const most = 10
	if len(seqs) > most {
		return fmt.Sprintf("%d %v...", n, seqs[:most])
	}
	return fmt.Sprintf("%d %v", n, seqs)
}
