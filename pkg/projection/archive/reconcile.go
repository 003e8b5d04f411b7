// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"cacert.org/emergency/pkg/artefacts"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/projection"
)

// Reader is a store of rows that can be read.
type Reader interface {
	Open(ctx context.Context, d projection.Definition) (projection.Position, error)
	// Each calls fn with every row of a table, in the order of its key.
	Each(ctx context.Context, d projection.Definition, table string, fn func(projection.Row) error) error
}

// Kind of a difference.
type Kind string

// The kinds of a difference.
const (
	// MissingInArchive: the log has a message that the archive has passed over.
	MissingInArchive Kind = "MISSING_IN_ARCHIVE"
	// MissingInStream: the archive has a message that the log does not have any more.
	MissingInStream Kind = "MISSING_IN_STREAM"
	// DifferentBytes: both have the sequence, with other bytes or for another incident.
	DifferentBytes Kind = "DIFFERENT_BYTES"
	// ArchiveDamaged: a row's bytes do not have the digest beside them.
	ArchiveDamaged Kind = "ARCHIVE_DAMAGED"
	// ArtefactMissing: the object store does not have what an event names.
	ArtefactMissing Kind = "ARTEFACT_MISSING"
	// ArtefactWrong: it has other bytes under that digest, or of another size.
	ArtefactWrong Kind = "ARTEFACT_WRONG"
)

// Difference is one thing in which log, archive and artefacts do not agree.
type Difference struct {
	Kind     Kind
	Sequence uint64
	Incident string
	Position uint64 // of the event that names an artefact
	Detail   string
}

func (d Difference) String() string {
	where := fmt.Sprintf("sequence %d", d.Sequence)
	if d.Incident != "" {
		where += " of " + d.Incident
	}
	if d.Position > 0 {
		where += fmt.Sprintf(", event %s/%d", d.Incident, d.Position)
	}
	return fmt.Sprintf("%s: %s: %s", d.Kind, where, d.Detail)
}

// Reconciliation is what Reconcile found.
type Reconciliation struct {
	// Differences are in the order of the log, those of artefacts after all others.
	Differences []Difference
	// InStream, InArchive and Artefacts count what was compared; Behind the messages that the archive has yet to read.
	InStream, InArchive, Artefacts, Behind uint64
	// Log is what the log itself is like: chains, signatures, lost sequences.
	Log *history.Report
}

// Sources are what Reconcile compares. All but Pause are required.
type Sources struct {
	Log       history.Store
	Keys      *history.Keyring
	Archive   Reader
	Artefacts artefacts.Store
	// Pause is called while the archive has yet to read so many messages, before it is asked again. Its error ends the waiting, and what is
	// missing then counts as Behind. Nil: nobody waits.
	Pause func(ctx context.Context, behind uint64) error
}

// Reconcile compares the log with the archive, message by message, and the artefacts that events name with the object store.
// It writes nothing. The error says that one of them could not be read to its end.
//
// Log and archive may go on meanwhile: compared is what the log has when its reading begins, and what the archive had before that. The
// order matters: what is in the archive then must be in the log, and what is in the log must come to the archive.
func Reconcile(ctx context.Context, from Sources) (*Reconciliation, error) {
	r := &reconciling{Reconciliation: &Reconciliation{}, log: map[uint64]logged{}}
	before, err := from.Archive.Open(ctx, Definition())
	if err != nil {
		return nil, err
	}
	if r.Log, err = history.Verify(ctx, overheard{from.Log, r.logged}, from.Keys); err != nil {
		return nil, err
	}
	r.until = max(before.Sequence, r.Log.LastSequence)
	at, err := from.await(ctx, r.Log.LastSequence)
	if err != nil {
		return nil, err
	}
	if err := from.Archive.Each(ctx, Definition(), "messages", r.archived); err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	r.passedOver(at)
	seen := map[string]error{}
	err = from.Archive.Each(ctx, Definition(), "artefacts", func(row projection.Row) error { return r.artefact(ctx, row, from.Artefacts, seen) })
	if err != nil {
		return nil, fmt.Errorf("read artefacts: %w", err)
	}
	return r.Reconciliation, nil
}

// await waits until the archive has read up to a sequence, and returns how far it has come.
func (s Sources) await(ctx context.Context, sequence uint64) (uint64, error) {
	for {
		at, err := s.Archive.Open(ctx, Definition())
		if err != nil || at.Sequence >= sequence || s.Pause == nil || s.Pause(ctx, sequence-at.Sequence) != nil {
			return at.Sequence, err
		}
	}
}

// overheard is a log of which somebody hears each message that another one reads.
type overheard struct {
	history.Store
	hear func(history.Message)
}

func (o overheard) Scan(ctx context.Context, after uint64, fn func(history.Message) error) error {
	return o.Store.Scan(ctx, after, func(m history.Message) error {
		o.hear(m)
		return fn(m)
	})
}

// logged is a message of the log, with its digest.
type logged struct{ incident, sha256 string }

type reconciling struct {
	*Reconciliation
	log   map[uint64]logged // what the archive was not seen to have
	until uint64            // what comes after it came meanwhile
}

func (r *reconciling) add(d Difference) { r.Differences = append(r.Differences, d) }

func (r *reconciling) logged(m history.Message) {
	r.InStream++
	r.log[m.Sequence] = logged{m.Incident, hexHash(m.Data)}
}

// archived compares a row of the archive, whose bytes must be what they were, with the log.
func (r *reconciling) archived(row projection.Row) error {
	a, err := messageOf(row)
	if err != nil || a.Sequence > r.until {
		return err
	}
	r.InArchive++
	got := hexHash(a.Data)
	if got != a.sha256 {
		r.add(Difference{ArchiveDamaged, a.Sequence, a.Incident, 0, fmt.Sprintf("its bytes have digest %s, the archive wrote %s", got, a.sha256)})
	}
	m, ok := r.log[a.Sequence]
	delete(r.log, a.Sequence)
	switch {
	case !ok:
		r.add(Difference{MissingInStream, a.Sequence, a.Incident, 0, "the archive has it, with digest " + got})
	case m.sha256 != got:
		r.add(Difference{DifferentBytes, a.Sequence, a.Incident, 0, fmt.Sprintf("digest %s in the log, %s in the archive", m.sha256, got)})
	case m.incident != a.Incident:
		r.add(Difference{DifferentBytes, a.Sequence, m.incident, 0, fmt.Sprintf("of incident %q in the log, %q in the archive", m.incident, a.Incident)})
	}
	return nil
}

// passedOver names what only the log has, up to where the archive has read.
func (r *reconciling) passedOver(at uint64) {
	for sequence, m := range r.log {
		if sequence > at {
			r.Behind++
			continue
		}
		r.add(Difference{MissingInArchive, sequence, m.incident, 0, "the log has it, with digest " + m.sha256})
	}
	slices.SortStableFunc(r.Differences, func(a, b Difference) int { return cmp.Compare(a.Sequence, b.Sequence) })
}

func (r *reconciling) artefact(ctx context.Context, row projection.Row, files artefacts.Store, seen map[string]error) error {
	incident, _ := row[0].(string)
	position, _ := row[1].(int64)
	digest, _ := row[3].(string)
	size, _ := row[4].(int64)
	sequence, _ := row[6].(int64)
	if uint64(sequence) > r.until {
		return nil
	}
	r.Artefacts++
	err, known := seen[digest]
	if !known {
		var data []byte
		if data, err = files.Get(ctx, digest); err == nil && int64(len(data)) != size {
			err = fmt.Errorf("%w: %d bytes, the event says %d", artefacts.ErrCorrupt, len(data), size)
		}
		seen[digest] = err
	}
	d := Difference{ArtefactWrong, uint64(sequence), incident, uint64(position), fmt.Sprintf("artefact %s: %v", digest, err)}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, artefacts.ErrNotFound):
		d.Kind = ArtefactMissing
	case !errors.Is(err, artefacts.ErrCorrupt) && !errors.Is(err, artefacts.ErrDigest) && !errors.Is(err, artefacts.ErrTooLarge):
		return err
	}
	r.add(d)
	return nil
}

// stored is a row of the archive as the message that it was.
type stored struct {
	history.Message
	sha256  string
	verdict string
}
