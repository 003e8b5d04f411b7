// SPDX-License-Identifier: Apache-2.0

// Package archive is the projection that keeps every message of the log as it is, strangers' included, outside of the log:
// Reconcile compares log, archive and artefacts, and Restore fills an empty log from it.
package archive

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/projection"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Verdicts on a message; another one is the reason for which it is foreign.
const (
	Valid      = "VALID"
	Unreadable = "UNREADABLE"
)

// Definition is what the archive keeps. Nothing in it ever changes.
func Definition() projection.Definition {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the path is well-formed
	}
	return projection.Definition{
		Name: "archive", Version: 1, Migrations: files,
		Tables: []projection.Table{
			{Name: "messages", Columns: []string{"sequence", "incident", "bytes", "sha256", "header", "stored_at", "verdict", "detail", "position", "record_hash"}, Key: 1, AppendOnly: true},
			{Name: "artefacts", Columns: []string{"incident", "position", "number", "sha256", "size", "media_type", "sequence"}, Key: 3, AppendOnly: true},
		},
	}
}

// Fold is the archive's fold: it only looks at each message.
type Fold struct{ changes []projection.Change }

// New returns an empty fold.
func New() projection.Tabular { return &Fold{} }

// Definition implements projection.Tabular.
func (*Fold) Definition() projection.Definition { return Definition() }

// Apply implements projection.Tabular.
func (f *Fold) Apply(batch []*projection.Judged) error {
	for _, m := range batch {
		header := "null" // as JSON has it
		if m.Header != nil {
			text, err := json.Marshal(m.Header) // in the order of names
			if err != nil {
				return fmt.Errorf("header of sequence %d: %w", m.Sequence, err)
			}
			header = string(text)
		}
		row := projection.Row{int64(m.Sequence), m.Incident, m.Data, hexHash(m.Data), header, m.Time, Valid, "", nil, nil}
		switch {
		case m.Record != nil:
			row[8], row[9] = int64(m.Record.Record.GetFirstPosition()), m.Record.Hash
			f.artefacts(m)
		case m.Foreign != nil:
			row[6], row[7] = string(m.Foreign.Reason), m.Foreign.Detail
		default:
			row[6], row[7] = Unreadable, m.Unread.Error()
		}
		f.changes = append(f.changes, projection.Change{Table: "messages", Sequence: m.Sequence, Row: row})
	}
	return nil
}

func (f *Fold) artefacts(m *projection.Judged) {
	for _, e := range m.Record.Events {
		for i, a := range artefactsIn(e.Payload) {
			f.changes = append(f.changes, projection.Change{Table: "artefacts", Sequence: m.Sequence, Row: projection.Row{
				m.Incident, e.Position, i + 1, a.GetSha256(), a.GetSize(), a.GetMediaType(), m.Sequence,
			}})
		}
	}
}

// Take implements projection.Tabular.
func (f *Fold) Take() []projection.Change {
	list := f.changes
	f.changes = nil
	return list
}

// TakeFacts implements projection.Streaming: no row of the archive ever changes.
func (f *Fold) TakeFacts() []projection.Change { return f.Take() }

// artefactsIn are the artefacts that a payload names, however deep, in the order of its fields.
func artefactsIn(payload proto.Message) []*emergencyv1.Artefact {
	var list []*emergencyv1.Artefact
	var walk func(protoreflect.Message)
	walk = func(m protoreflect.Message) {
		if a, ok := m.Interface().(*emergencyv1.Artefact); ok {
			if a.GetSha256() != "" {
				list = append(list, a)
			}
			return
		}
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			fd := fields.Get(i)
			switch {
			case fd.Kind() != protoreflect.MessageKind || fd.IsMap() || !m.Has(fd):
			case fd.IsList():
				for j := range m.Get(fd).List().Len() {
					walk(m.Get(fd).List().Get(j).Message())
				}
			default:
				walk(m.Get(fd).Message())
			}
		}
	}
	walk(payload.ProtoReflect())
	return list
}

func hexHash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
