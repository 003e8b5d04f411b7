// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/projection"
)

func messageOf(row projection.Row) (stored, error) {
	var m stored
	sequence, ok := row[0].(int64)
	if !ok {
		return m, fmt.Errorf("an archived message has the sequence %v", row[0])
	}
	m.Sequence = uint64(sequence)
	m.Incident, _ = row[1].(string)
	m.Data, _ = row[2].([]byte)
	m.sha256, _ = row[3].(string)
	m.verdict, _ = row[6].(string)
	header, _ := row[4].(string)
	if err := json.Unmarshal([]byte(header), &m.Header); err != nil {
		return m, fmt.Errorf("header of archived sequence %d: %w", m.Sequence, err)
	}
	return m, nil
}

// Restored is what Restore wrote.
type Restored struct {
	// Messages are in the log now, of which Foreign are strangers' and Before were there already; LeftOut were strangers' on subjects that name
	// no incident.
	Messages, Foreign, Before, LeftOut uint64
	// SameSequences: every message has the sequence that it had, so that whoever kept a mark goes on from there.
	SameSequences bool
	// Last is the mark of the last message of the new log.
	Last history.Mark
	// Heads of all histories, as the new log has them: equal to those of the archive, or Restore fails.
	Heads map[string]history.Head
}

// ErrNotEmpty is returned by Restore for a log that has other messages than the archive begins with: nothing is ever written over.
var ErrNotEmpty = errors.New("the log is not empty, and what it has is not what the archive begins with")

// DamagedError is returned by Restore when the archive itself is not whole; nothing was written.
type DamagedError struct{ Problems []string }

func (e *DamagedError) Error() string {
	return fmt.Sprintf("the archive is not whole, nothing was written: %d problems, the first: %s", len(e.Problems), e.Problems[0])
}

// Restore fills a log from the archive: an empty one, or one that has the archive's first messages and nothing else, as a restore that was
// interrupted leaves it, or an old copy of the log. Before it writes anything it proves the archive whole: digests of all bytes, no
// gap in the sequences, chain and signatures of every history. Then it appends the same bytes in the same order, and proves
// the new log by reading it from the start and comparing the heads. Strangers' messages are written back as well, so that
// sequences stay, except where their subject names no incident. Nothing else may write to the log meanwhile.
//
// After an error in the middle the log has a part of the messages: do it again.
func Restore(ctx context.Context, from Reader, keys *history.Keyring, to history.Store) (*Restored, error) {
	there, err := presentIn(ctx, to)
	if err != nil {
		return nil, err
	}
	want, err := prove(ctx, from, keys)
	if err != nil {
		return nil, err
	}
	out := &Restored{SameSequences: true}
	last := map[string]uint64{}
	err = from.Each(ctx, Definition(), "messages", func(row projection.Row) error {
		m, err := messageOf(row)
		if err != nil {
			return err
		}
		var sequence uint64
		more := out.Before < uint64(len(there))
		switch {
		case more && there[out.Before].of == digestOf(m.Message):
			sequence = there[out.Before].sequence
			out.Before++
		case m.Incident == "" || len(m.Data) == 0:
			out.LeftOut++
			return nil
		case more:
			return fmt.Errorf("%w: see its sequence %d", ErrNotEmpty, there[out.Before].sequence)
		default:
			if sequence, err = to.Append(ctx, m.Incident, last[m.Incident], m.Data, ownHeaders(m.Header)); err != nil {
				return err
			}
		}
		last[m.Incident] = sequence
		out.Last = history.Message{Sequence: sequence, Data: m.Data}.Mark()
		out.Messages++
		if m.verdict != Valid {
			out.Foreign++
		}
		out.SameSequences = out.SameSequences && sequence == m.Sequence
		return nil
	})
	if err == nil && out.Before < uint64(len(there)) {
		err = fmt.Errorf("%w: it goes on with sequence %d", ErrNotEmpty, there[out.Before].sequence)
	}
	if err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	report, err := history.Verify(ctx, to, keys)
	if err != nil {
		return out, err
	}
	if out.Heads = report.Heads; len(want) != len(report.Heads) {
		return out, fmt.Errorf("the new log has %d histories, the archive %d", len(report.Heads), len(want))
	}
	for id, head := range want {
		if report.Heads[id] != head {
			return out, fmt.Errorf("%s ends at position %d with %s in the new log, at %d with %s in the archive", id, report.Heads[id].Position, report.Heads[id].Hash, head.Position, head.Hash)
		}
	}
	return out, nil
}

// present is a message that the log has already.
type present struct {
	sequence uint64
	of       [sha256.Size]byte
}

func presentIn(ctx context.Context, log history.Store) (list []present, err error) {
	err = log.Scan(ctx, 0, func(m history.Message) error {
		list = append(list, present{m.Sequence, digestOf(m)})
		return nil
	})
	return list, err
}

// digestOf tells a message of a history from every other.
func digestOf(m history.Message) [sha256.Size]byte {
	return sha256.Sum256(append(append([]byte(m.Incident), 0), m.Data...)) // an id has no zero byte
}

// ownHeaders leaves out what only a store sets.
func ownHeaders(all map[string]string) map[string]string {
	own := map[string]string{}
	for name, value := range all {
		if _, err := history.CheckAppend("rulebook", []byte{0}, map[string]string{name: value}); err == nil {
			own[name] = value
		}
	}
	return own
}

// prove reads the archive as if it were a log, and returns the heads of its histories.
func prove(ctx context.Context, from Reader, keys *history.Keyring) (map[string]history.Head, error) {
	var problems []string
	log := &memory.Store{}
	next := uint64(1)
	err := from.Each(ctx, Definition(), "messages", func(row projection.Row) error {
		m, err := messageOf(row)
		if err != nil {
			return err
		}
		if m.Sequence != next {
			problems = append(problems, fmt.Sprintf("sequences %d to %d are missing", next, m.Sequence-1))
		}
		next = m.Sequence + 1
		if got := hexHash(m.Data); got != m.sha256 {
			problems = append(problems, fmt.Sprintf("sequence %d has digest %s, the archive wrote %s", m.Sequence, got, m.sha256))
		}
		subject, err := history.Subject(m.Incident)
		if err != nil {
			subject = "emergency." // which names none
		}
		log.Publish(subject, m.Data)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	at, err := from.Open(ctx, Definition())
	if err != nil {
		return nil, err
	}
	if at.Sequence != next-1 {
		problems = append(problems, fmt.Sprintf("it ends at sequence %d, and says that it has read to %d", next-1, at.Sequence))
	}
	report, err := history.Verify(ctx, log, keys)
	if err != nil {
		return nil, err
	}
	for _, f := range report.Findings {
		if f.Damage {
			problems = append(problems, f.String())
		}
	}
	if len(problems) > 0 {
		return nil, &DamagedError{problems}
	}
	return report.Heads, nil
}
