// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cacert.org/emergency/pkg/procedure"
)

// Reasons of a Finding that are not those of a ForeignError.
const (
	// ReasonNoIncident: the subject names no incident.
	ReasonNoIncident Reason = "NO_INCIDENT"
	// ReasonUnreadable: an authentic record that this version does not know; nothing after it was judged.
	ReasonUnreadable Reason = "UNREADABLE"
	// ReasonPayload: an event of the history whose payload does not decode.
	ReasonPayload Reason = "PAYLOAD"
	// ReasonLost: sequences that the store gave out and does not have any more.
	ReasonLost Reason = "LOST"
	// ReasonHistoryEnds: the valid history ends, and authentic records follow that do not continue it.
	ReasonHistoryEnds Reason = "HISTORY_ENDS"
)

// Finding is one thing that is wrong in a store.
type Finding struct {
	Reason   Reason
	Incident string // empty where none is concerned
	Sequence uint64 // of the message; for ReasonLost the first lost one
	Position uint64 // of the event concerned, or of the last valid event before; 0 if none
	// Damage tells a history that is not whole from noise that every reader skips: junk, forgeries, replays. A damaged
	// record without a successor cannot be told from noise.
	Damage bool
	Detail string
}

func (f Finding) String() string {
	where := f.Incident
	if where == "" {
		where = "the stream"
	}
	if f.Position > 0 {
		where = fmt.Sprintf("%s, position %d", where, f.Position)
	}
	return fmt.Sprintf("%s, sequence %d: %s: %s", where, f.Sequence, f.Reason, f.Detail)
}

// Report is what Verify found.
type Report struct {
	Findings     []Finding
	Messages     uint64
	Records      uint64 // of the messages, those that are history
	Events       uint64
	LastSequence uint64
	Suppressed   uint64 // findings of noise beyond the first 10,000 findings, which are not listed
	// Heads of all incidents that have a valid record. Compare them with what was anchored elsewhere: a tail that is
	// wholly lost leaves no trace in the store itself.
	Heads map[string]Head
}

// Clean tells that there is nothing but history.
func (r *Report) Clean() bool { return len(r.Findings) == 0 }

// maxFindings bounds what a flood of junk makes of the report. Damage is always listed.
const maxFindings = 10_000

// Sound tells that no history is damaged; there may be noise.
func (r *Report) Sound() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Damage })
}

// Verify walks every message of the store, all incidents and the rule book, and checks chain, signatures, owners and
// payloads. The error says that the store could not be read to its end; the report then has what was seen before.
func Verify(ctx context.Context, store Store, keys *Keyring) (*Report, error) {
	v := verifier{keys: keys, report: &Report{Heads: map[string]Head{}}, incidents: map[string]*verified{}}
	err := store.Scan(ctx, 0, v.message)
	v.finish()
	if err != nil {
		return v.report, fmt.Errorf("verify after sequence %d: %w", v.report.LastSequence, err)
	}
	return v.report, nil
}

type verifier struct {
	keys      *Keyring
	report    *Report
	incidents map[string]*verified
}

// verified is what the verifier knows of one incident.
type verified struct {
	chain    *Chain
	hashes   map[string]bool // of all records of the history
	sequence uint64          // of the last one
	strays   []uint64        // sequences of authentic records after that one that do not continue it
	unread   uint64          // messages after an unreadable one
}

func (v *verifier) add(f Finding) {
	if !f.Damage && len(v.report.Findings) >= maxFindings {
		v.report.Suppressed++
		return
	}
	v.report.Findings = append(v.report.Findings, f)
}

func (v *verifier) message(m Message) error {
	if next := v.report.LastSequence + 1; m.Sequence > next {
		v.add(Finding{Reason: ReasonLost, Sequence: next, Damage: true,
			Detail: fmt.Sprintf("%d messages are lost, sequences %d to %d", m.Sequence-next, next, m.Sequence-1)})
	}
	v.report.LastSequence = m.Sequence
	v.report.Messages++
	if m.Incident == "" {
		v.add(Finding{Reason: ReasonNoIncident, Sequence: m.Sequence, Detail: "the subject names no incident"})
		return nil
	}
	state, ok := v.incidents[m.Incident]
	if !ok {
		state = &verified{chain: NewChain(m.Incident, v.keys), hashes: map[string]bool{}}
		v.incidents[m.Incident] = state
	}
	v.record(state, m)
	return nil
}

func (v *verifier) record(state *verified, m Message) {
	if state.chain.unreadable != nil {
		state.unread++
		return
	}
	before := state.chain.Head().Position
	entry, err := state.chain.Accept(m.Data)
	var foreign *ForeignError
	var unreadable *UnreadableError
	switch {
	case errors.As(err, &foreign):
		v.foreign(state, m, foreign)
	case errors.As(err, &unreadable):
		v.add(Finding{ReasonUnreadable, m.Incident, m.Sequence, unreadable.Position, true, unreadable.Error()})
	default:
		state.hashes[entry.Hash] = true
		state.sequence, state.strays = m.Sequence, nil
		v.report.Records++
		v.report.Events += uint64(len(entry.Record.GetEvents()))
		v.payloads(entry, m, before)
	}
}

func (v *verifier) foreign(state *verified, m Message, err *ForeignError) {
	f := Finding{err.Reason, m.Incident, m.Sequence, state.chain.Head().Position, false, err.Detail}
	if state.hashes[err.Hash] {
		f.Detail += " (a copy of a record that is in the history)"
	} else if err.Reason == ReasonGap || err.Reason == ReasonBrokenChain || err.Reason == ReasonTimeBackwards {
		f.Damage = true
		state.strays = append(state.strays, m.Sequence)
	}
	if len(state.strays) < 2 || !f.Damage { // finish counts the others
		v.add(f)
	}
}

func (v *verifier) payloads(entry *Entry, m Message, before uint64) {
	for i, event := range entry.Record.GetEvents() {
		if _, err := procedure.DecodeEvent(event); err != nil {
			v.add(Finding{ReasonPayload, m.Incident, m.Sequence, before + 1 + uint64(i), true, err.Error()})
		}
	}
}

// finish says of each incident where its history ends too early, in the order of ids.
func (v *verifier) finish() {
	ids := make([]string, 0, len(v.incidents))
	for id := range v.incidents {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, strings.Compare)
	for _, id := range ids {
		state := v.incidents[id]
		head := state.chain.Head()
		if head.Position > 0 {
			v.report.Heads[id] = head
		}
		if n := len(state.strays); n > 0 {
			v.add(Finding{ReasonHistoryEnds, id, state.strays[0], head.Position, true, fmt.Sprintf(
				"the valid history ends at position %d (sequence %d); %d authentic records after it, sequences %d to %d, do not continue it: what lay between is lost or was changed",
				head.Position, state.sequence, n, state.strays[0], state.strays[n-1])})
		}
		if state.unread > 0 {
			v.add(Finding{ReasonUnreadable, id, state.sequence, head.Position, true,
				fmt.Sprintf("%d messages after it were not judged", state.unread)})
		}
	}
}
