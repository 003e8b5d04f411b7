// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"

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
	Differences []Difference
	// InStream, InArchive and Artefacts count what was compared; Behind the messages that the archive has yet to read.
	InStream, InArchive, Artefacts, Behind uint64
	// Log is what the log itself is like: chains, signatures, lost sequences.
	Log *history.Report
}

// Reconcile compares the log with the archive, message by message, and the artefacts that events name with the object store.
// It writes nothing. The error says that one of them could not be read to its end.
func Reconcile(ctx context.Context, log history.Store, keys *history.Keyring, from Reader, files artefacts.Store) (*Reconciliation, error) {
	r := &reconciling{Reconciliation: &Reconciliation{}, archived: map[uint64]archived{}}
	at, err := from.Open(ctx, Definition())
	if err != nil {
		return nil, err
	}
	if err := from.Each(ctx, Definition(), "messages", r.archive); err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	if err := log.Scan(ctx, 0, func(m history.Message) error { r.message(m, at.Sequence); return nil }); err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	r.lost()
	seen := map[string]error{}
	if err := from.Each(ctx, Definition(), "artefacts", func(row projection.Row) error { return r.artefact(ctx, row, files, seen) }); err != nil {
		return nil, fmt.Errorf("read artefacts: %w", err)
	}
	if r.Log, err = history.Verify(ctx, log, keys); err != nil {
		return nil, err
	}
	return r.Reconciliation, nil
}

type archived struct{ incident, sha256 string }

type reconciling struct {
	*Reconciliation
	archived map[uint64]archived
	order    []uint64 // sequences of the archive
}

func (r *reconciling) add(d Difference) { r.Differences = append(r.Differences, d) }

// archive notes a row of the archive, whose bytes must be what they were.
func (r *reconciling) archive(row projection.Row) error {
	m, err := messageOf(row)
	if err != nil {
		return err
	}
	r.InArchive++
	if got := hexHash(m.Data); got != m.sha256 {
		r.add(Difference{ArchiveDamaged, m.Sequence, m.Incident, 0, fmt.Sprintf("its bytes have digest %s, the archive wrote %s", got, m.sha256)})
	}
	r.archived[m.Sequence] = archived{m.Incident, hexHash(m.Data)}
	r.order = append(r.order, m.Sequence)
	return nil
}

func (r *reconciling) message(m history.Message, until uint64) {
	r.InStream++
	a, ok := r.archived[m.Sequence]
	delete(r.archived, m.Sequence)
	switch got := hexHash(m.Data); {
	case !ok && m.Sequence > until:
		r.Behind++
	case !ok:
		r.add(Difference{MissingInArchive, m.Sequence, m.Incident, 0, "the log has it, with digest " + got})
	case a.sha256 != got:
		r.add(Difference{DifferentBytes, m.Sequence, m.Incident, 0, fmt.Sprintf("digest %s in the log, %s in the archive", got, a.sha256)})
	case a.incident != m.Incident:
		r.add(Difference{DifferentBytes, m.Sequence, m.Incident, 0, fmt.Sprintf("of incident %q in the log, %q in the archive", m.Incident, a.incident)})
	}
}

// lost names what only the archive has, in order.
func (r *reconciling) lost() {
	for _, sequence := range r.order {
		if a, ok := r.archived[sequence]; ok {
			r.add(Difference{MissingInStream, sequence, a.incident, 0, "the archive has it, with digest " + a.sha256})
		}
	}
}

func (r *reconciling) artefact(ctx context.Context, row projection.Row, files artefacts.Store, seen map[string]error) error {
	incident, _ := row[0].(string)
	position, _ := row[1].(int64)
	digest, _ := row[3].(string)
	size, _ := row[4].(int64)
	sequence, _ := row[6].(int64)
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
