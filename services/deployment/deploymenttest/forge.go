// SPDX-License-Identifier: Apache-2.0

package deploymenttest

import (
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Forge writes a history anew as all services together could, with their own keys: change returns the record to be put in
// place of the given copy, nil to leave it out. Positions and chain are made to fit. Only the people's keys are missing.
func (r *Rig) Forge(records []*emergencyv1.SignedRecord, change func(*emergencyv1.Record) *emergencyv1.Record) []*emergencyv1.SignedRecord {
	r.Helper()
	var forged []*emergencyv1.SignedRecord
	position, prev := uint64(1), ""
	for _, signed := range records {
		rec := r.Open(signed)
		if rec = change(rec); rec == nil {
			continue
		}
		if prev != "" {
			rec.PrevHash = prev
		} else {
			rec.PrevHash = history.Genesis(rec.GetIncident())
		}
		rec.FirstPosition = position
		var out *emergencyv1.SignedRecord
		out, prev = r.Seal(rec, rec.GetOwner())
		forged, position = append(forged, out), position+uint64(len(rec.GetEvents()))
	}
	return forged
}

// Open decodes a record.
func (r *Rig) Open(signed *emergencyv1.SignedRecord) *emergencyv1.Record {
	r.Helper()
	rec := &emergencyv1.Record{}
	r.Must(proto.Unmarshal(signed.GetRecord(), rec))
	return rec
}

// Seal signs a record with the key of a service, whoever it says that it belongs to.
func (r *Rig) Seal(rec *emergencyv1.Record, owner string) (*emergencyv1.SignedRecord, string) {
	r.Helper()
	b, hash, err := history.Seal(rec, r.Signers[owner])
	r.Must(err)
	out := &emergencyv1.SignedRecord{}
	r.Must(proto.Unmarshal(b, out))
	return out, hash
}

// Event encodes a payload as an event of its owner.
func (r *Rig) Event(owner string, payload proto.Message) *emergencyv1.Event {
	r.Helper()
	e, err := procedure.EncodeEvent(owner, payload)
	r.Must(err)
	return e
}

// Payload decodes an event.
func (r *Rig) Payload(e *emergencyv1.Event) proto.Message {
	r.Helper()
	m, err := procedure.DecodeEvent(e)
	r.Must(err)
	return m
}
