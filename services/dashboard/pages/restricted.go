// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"net/http"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Restricted values in pages that show many: each says what it is and, where the viewer may not read it, why. It is read only when
// the viewer asks for it, by the query API, which writes down every reading.

// The ways in which a restricted value can stand in a page.
const (
	secretHidden    = "hidden"    // the viewer may ask for it
	secretShown     = "shown"     // the viewer has asked for it
	secretRefused   = "refused"   // by the rules, or its keeper is away
	secretRedacted  = "redacted"  // deleted for ever
	secretDisclosed = "disclosed" // it is public
)

// secret is one restricted value.
type secret struct {
	restricted
	// Label is the field in words; Foreign if the catalogue has none for it.
	Label   string
	Foreign bool
	State   string
	Event   event
	// By is what redacted or disclosed it.
	By event
}

// secrets judge and read restricted values of one incident for one viewer.
type secrets struct {
	p     *Pages
	v     *viewer
	st    *procedure.State
	asked func(commitment string) bool
	// disclosed are the public values by commitment, gone where each was redacted or disclosed.
	disclosed map[string]string
	gone      map[string]procedure.RestrictedAt
}

// secrets of an incident; a POST asks for the values named by its field "commitment", or with "all" for each that the viewer may read.
func (p *Pages) secrets(v *viewer, r *http.Request, st *procedure.State) *secrets {
	s := &secrets{p: p, v: v, st: st, asked: func(string) bool { return false }, disclosed: map[string]string{}, gone: map[string]procedure.RestrictedAt{}}
	if r.Method == http.MethodPost {
		wanted, all := map[string]bool{}, r.PostFormValue("all") != ""
		for _, c := range r.PostForm["commitment"] {
			wanted[c] = c != ""
		}
		s.asked = func(c string) bool { return all || wanted[c] }
	}
	for _, x := range st.Restricted {
		if x.Redacted.Position > 0 || x.Disclosed.Position > 0 {
			s.gone[x.Commitment] = x
		}
	}
	p.events(st.Incident, func(_ *projection.Record, e projection.Event) {
		if d, ok := e.Payload.(*emergencyv1.FieldDisclosed); ok {
			s.disclosed[d.GetCommitment()] = string(d.GetValue())
		}
	})
	return s
}

// events visits the events of an incident in order.
func (p *Pages) events(incident string, visit func(*projection.Record, projection.Event)) {
	records, _ := p.cfg.Records.From(incident, 1)
	for _, rec := range records {
		for _, e := range rec.Events {
			visit(rec, e)
		}
	}
}

// of are the restricted values of an event, in the order of its fields; only those named, if any are.
func (s *secrets) of(e projection.Event, names ...string) []secret {
	var list []secret
	for _, f := range procedure.RestrictedFields(e.Payload) {
		if f.Commitment != "" && (len(names) == 0 || slices.Contains(names, f.Field)) {
			list = append(list, s.value(e, f))
		}
	}
	return list
}

func (s *secrets) value(e projection.Event, f procedure.RestrictedField) secret {
	x := secret{restricted: restricted{Field: fieldWords(f.Field), Commitment: f.Commitment}, State: secretHidden, Event: event{s.st.Incident, e.Position}}
	x.Label, x.Foreign = s.v.field(f.Field)
	gone := s.gone[f.Commitment]
	switch refusal := procedure.MayRead(s.st, s.v.book, s.v.Person, s.v.now, e.Type, f); {
	case gone.Disclosed.Position > 0:
		x.State, x.By, x.Value, x.Shown = secretDisclosed, event{s.st.Incident, gone.Disclosed.Position}, s.disclosed[f.Commitment], true
	case gone.Redacted.Position > 0:
		x.State, x.By = secretRedacted, event{s.st.Incident, gone.Redacted.Position}
	case refusal != nil:
		said := s.v.refusal(refusal)
		x.State, x.Refused = secretRefused, &said
	case s.asked(f.Commitment):
		x.restricted = s.p.reveal(s.v, s.st.Incident, x.restricted)
		x.State = map[bool]string{true: secretShown, false: secretRefused}[x.Shown]
	}
	return x
}

// field is the name of a restricted field in words, whatever it stands in; one of a later version shows its own name.
func (v *viewer) field(name string) (label string, foreign bool) {
	if text, ok := v.words["field."+string(protoreflect.FullName(name).Name())]; ok {
		return text, false
	}
	return fieldWords(name), v.code != "en"
}

func fieldWords(field string) string {
	return strings.NewReplacer("_", " ", ".", " › ").Replace(field)
}

// reveal reads a restricted value as the viewer. A rule's no is shown in its place.
func (p *Pages) reveal(v *viewer, id string, x restricted) restricted {
	answer, err := p.cfg.Query.ReadRestricted(v.ctx, &dashboardv1.ReadRestrictedRequest{Incident: id, Commitment: x.Commitment})
	if err != nil {
		refused := v.refusal(err)
		x.Refused = &refused
		return x
	}
	x.Value, x.Shown = answer.GetValue(), true
	return x
}
