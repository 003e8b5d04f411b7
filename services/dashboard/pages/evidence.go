// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"net/http"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// exhibit is a stored file that an event names by its digest.
type exhibit struct {
	// Kind is the field of the event, such as patch or recording; What says the event in words.
	Kind, What string
	Digest     string
	Size       uint64
	Media      string
	Event      event
	At         *when
	// After is set for what came after the evidence that a dispute rests on.
	After bool
	// Path leads to a page that shows it; empty for what only its keeper shows.
	Path string
}

// exhibits are the files that the events of an incident name; after is where a dispute's evidence ends, 0 for none.
func (p *Pages) exhibits(v *viewer, st *procedure.State, after uint64) []exhibit {
	var list []exhibit
	p.events(st.Incident, func(rec *projection.Record, e projection.Event) {
		for _, a := range artefactsIn(e.Payload) {
			x := exhibit{
				Kind: fieldWords(a.field), What: dossier.Words(e.Payload), Digest: a.GetSha256(), Size: a.GetSize(), Media: a.GetMediaType(), Event: event{st.Incident, e.Position},
				At: v.moment(rec.Record.GetRecordedAt()), After: after > 0 && e.Position > after,
			}
			if m, ok := e.Payload.(*emergencyv1.PatchRegistered); ok {
				x.Path = "/incidents/" + st.Incident + "/patches/" + m.GetBinding().GetRevision()
			}
			list = append(list, x)
		}
	})
	return list
}

// namedFile is a file and the field that names it.
type namedFile struct {
	*emergencyv1.Artefact
	field string
}

// artefactsIn are the files that a payload names, in the order of its fields.
func artefactsIn(payload proto.Message) []namedFile {
	var list []namedFile
	m := payload.ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if fd.Kind() != protoreflect.MessageKind || fd.IsList() || fd.IsMap() || !m.Has(fd) {
			continue
		}
		if a, ok := m.Get(fd).Message().Interface().(*emergencyv1.Artefact); ok && a.GetSha256() != "" {
			list = append(list, namedFile{a, string(fd.Name())})
		}
	}
	return list
}

// evidenceView is what an emergency's history holds beside its events: files, and values that stand outside it.
type evidenceView struct {
	Incident, System string
	Position         uint64
	Head             string
	At               *when
	Records          int
	Roots            []evidenceRoot
	Exhibits         []exhibit
	Restricted       []restrictedEvent
	Fields           int
	Hidden           int
	Written          bool
}

// evidenceRoot is what a dispute's or a ruling's evidence ends with.
type evidenceRoot struct {
	Of, Path string
	Hash     string
	Event    event
}

// restrictedEvent is an event with restricted values.
type restrictedEvent struct {
	Event   event
	What    string
	Foreign bool
	At      *when
	Values  []secret
	// Askable are the commitments of those that the viewer may ask for.
	Askable []string
}

// evidence lists what there is, and shows the restricted values that a POST asks for.
func (p *Pages) evidence(v *viewer, r *http.Request) (*content, error) {
	id := r.PathValue("incident")
	st, err := p.state(v, id)
	if err != nil {
		return nil, err
	}
	records, _ := p.cfg.Records.From(id, 1)
	d := evidenceView{
		Incident: id, System: st.Declared.System, Position: st.Position, Head: st.HeadHash, At: v.when(st.RecordedAt), Records: len(records), Exhibits: p.exhibits(v, st, 0), Roots: rootsOf(st),
	}
	s := p.secrets(v, r, st)
	p.events(id, func(rec *projection.Record, e projection.Event) {
		x := restrictedEvent{Event: event{id, e.Position}, What: dossier.Words(e.Payload), Foreign: v.code != "en", At: v.moment(rec.Record.GetRecordedAt()), Values: s.of(e)}
		if len(x.Values) == 0 {
			return
		}
		for _, value := range x.Values {
			d.Fields++
			d.Written = d.Written || value.State == secretShown
			if value.State == secretHidden {
				d.Hidden++
				x.Askable = append(x.Askable, value.Commitment)
			}
		}
		d.Restricted = append(d.Restricted, x)
	})
	return &content{Title: "evidence.title", Args: []any{id}, Section: "incidents", Template: "evidence", Data: d, Incident: id, Drill: st.Declared.Drill, Still: r.Method == http.MethodPost}, nil
}

func rootsOf(st *procedure.State) []evidenceRoot {
	var list []evidenceRoot
	for _, x := range st.Disputes {
		list = append(list, evidenceRoot{x.ID, casePath(st.Incident, x.ID), x.EvidenceHash, event{st.Incident, x.Evidence}})
	}
	return list
}
