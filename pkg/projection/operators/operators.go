// SPDX-License-Identifier: Apache-2.0

// Package operators is the projection for who queries and charts with SQL: incidents, steps, obligations, deadlines, calls,
// deployments, events, and the public emergency log. Every value comes from the rules and folds that the pages use; the SQL
// only lays it out.
package operators

import (
	"crypto/sha256"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/publog"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Definition is what is kept.
func Definition() projection.Definition {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the path is well-formed
	}
	return projection.Definition{
		Name: "operators", Version: 1, Migrations: files,
		Tables: []projection.Table{
			{Name: "incidents", Columns: []string{
				"incident", "drill", "status", "strategy", "system", "severity", "reason_class", "declared_at", "declared_by", "due_at", "met_at", "ended_at",
				"outcome", "merged_into", "policy", "position", "recorded_at",
			}, Key: 1},
			{Name: "steps", Columns: []string{"incident", "number", "strategy", "step", "what", "done_at", "position", "times", "who", "role", "due_at"}, Key: 2},
			{Name: "deadlines", Columns: []string{"incident", "deadline", "due_at", "met_at"}, Key: 2},
			{Name: "obligations", Columns: []string{
				"incident", "obligation", "kind", "owner_role", "owner", "due_at", "caused_at", "cause", "discharged_at", "discharged_by", "lifted_by", "how", "clause",
			}, Key: 2},
			{Name: "calls", Columns: []string{"incident", "page", "round", "team", "person", "channel", "sent_at", "state"}, Key: 2},
			{Name: "deployments", Columns: []string{
				"incident", "position", "revision", "host", "strategy", "executor", "observer", "state", "started_at", "applied_at", "verified_at", "ended_at",
			}, Key: 2},
			{Name: "events", Columns: []string{"incident", "position", "type", "at", "late", "strategy", "person", "role", "machine"}, Key: 2, AppendOnly: true},
			{Name: "emergency_log", Columns: []string{"origin", "entry", "incident", "kind", "at", "late", "headline", "who", "event_hash", "prev", "hash"}, Key: 2, AppendOnly: true},
			{Name: "emergency_log_fields", Columns: []string{"origin", "entry", "number", "field", "value"}, Key: 3, AppendOnly: true},
			{Name: "parked", Columns: []string{"incident", "position", "reason"}, Key: 1, AppendOnly: true},
		},
	}
}

// Fold is the projection's fold.
type Fold struct {
	trails map[string]*dossier.Trail
	logs   map[publog.Origin]*publog.Log
	parked map[string]bool

	changed map[string]uint64        // incidents that changed since Take, and the sequence that did it
	facts   []projection.Change      // rows that never change
	given   map[string]map[rowID]sum // by incident: what of its rows was handed out
}

// rowID names a row of an incident: the second part of its key is a number or a text.
type rowID struct {
	table string
	key   any
}

// sum stands for what a row says; the whole rows of all incidents would be much memory.
type sum [16]byte

// New returns an empty fold.
func New() projection.Tabular {
	f := &Fold{
		trails: map[string]*dossier.Trail{}, logs: map[publog.Origin]*publog.Log{}, parked: map[string]bool{},
		changed: map[string]uint64{}, given: map[string]map[rowID]sum{},
	}
	for _, o := range publog.Origins() {
		f.logs[o] = publog.New(o)
	}
	return f
}

// Definition implements projection.Tabular.
func (*Fold) Definition() projection.Definition { return Definition() }

// Apply implements projection.Tabular. An incident that cannot be folded is parked, and the others go on.
func (f *Fold) Apply(batch []*projection.Judged) error {
	for _, m := range batch {
		if m.Record == nil || m.Incident == procedure.RuleBook || f.parked[m.Incident] {
			continue
		}
		if err := f.record(m.Record); err != nil {
			return err
		}
	}
	for _, l := range f.logs {
		l.Forget() // its entries are rows now
	}
	return nil
}

func (f *Fold) record(rec *projection.Record) error {
	trail := f.trails[rec.Incident]
	if trail == nil {
		trail = dossier.NewTrail(rec.Incident)
		f.trails[rec.Incident] = trail
	}
	origin := publog.OriginOf(rec.Incident)
	public, unsaid := f.logs[origin].Prepare(trail.State(), rec.Record, rec.Events)
	if err := trail.Add(rec.Entry, rec.Events); err != nil { // before anything is published of what makes no sense
		f.park(rec, err)
		return nil
	}
	if unsaid != nil {
		return fmt.Errorf("public log of %s: %w", rec.Incident, unsaid)
	}
	id := any(rec.Incident) // for all its rows
	f.publish(rec.Sequence, id, origin, f.logs[origin].Publish(public, rec.Hash))
	if !procedure.IsIncident(rec.Incident) {
		return nil
	}
	actor, at := rec.Record.GetActor(), any(rec.Record.GetRecordedAt().AsTime())
	for _, e := range rec.Events {
		f.fact("events", rec.Sequence, id, int64(e.Position), e.Type, at, rec.Record.GetLate(), int64(trail.State().Strategy), actor.GetPerson(), role(actor.GetRole()), actor.GetSystemName())
	}
	f.changed[rec.Incident] = rec.Sequence
	return nil
}

// publish adds rows of what a record makes public.
func (f *Fold) publish(sequence uint64, id any, of publog.Origin, entries []publog.Entry) {
	origin := any(string(of))
	for _, e := range entries {
		number := any(int64(e.Seq))
		f.fact("emergency_log", sequence, origin, number, id, e.Kind, e.At, e.Late, e.Headline, e.Role, e.EventHash, e.Prev, e.Hash)
		for i, x := range e.Fields {
			f.fact("emergency_log_fields", sequence, origin, number, int64(i+1), x.Name, x.Value)
		}
	}
}

// park puts an incident aside. Its rows stay as they were at the last record that made sense.
func (f *Fold) park(rec *projection.Record, err error) {
	f.parked[rec.Incident] = true
	delete(f.trails, rec.Incident)
	delete(f.changed, rec.Incident)
	f.fact("parked", rec.Sequence, rec.Incident, rec.Record.GetFirstPosition(), err.Error())
}

func (f *Fold) fact(table string, sequence uint64, row ...any) {
	f.facts = append(f.facts, projection.Change{Table: table, Sequence: sequence, Row: row})
}

// TakeFacts implements projection.Streaming.
func (f *Fold) TakeFacts() []projection.Change {
	list := f.facts
	f.facts = make([]projection.Change, 0, len(list)+len(list)/8) // about as many come next
	return list
}

// Take implements projection.Tabular: the rows of every incident that changed, as far as they differ from what was taken before.
func (f *Fold) Take() []projection.Change {
	list := f.TakeFacts()
	for _, id := range slices.Sorted(maps.Keys(f.changed)) {
		list = append(list, f.differences(id, f.changed[id])...)
	}
	clear(f.changed)
	return list
}

func (f *Fold) differences(id string, sequence uint64) []projection.Change {
	var list []projection.Change
	old, now := f.given[id], map[rowID]sum{}
	for _, c := range f.rows(id) {
		key := rowID{table: c.Table}
		if c.Table != "incidents" { // of which each has one
			key.key = c.Row[1]
		}
		if now[key] = digest(c.Row); now[key] != old[key] {
			c.Sequence = sequence
			list = append(list, c)
		}
	}
	for key := range old { // in any order: a store sorts
		if _, ok := now[key]; !ok {
			list = append(list, projection.Change{Table: key.table, Sequence: sequence, Row: projection.Row{id, key.key}, Gone: true})
		}
	}
	f.given[id] = now
	return list
}

func digest(row projection.Row) sum {
	b, err := json.Marshal(row)
	if err != nil {
		panic(err) // texts, numbers, times
	}
	full := sha256.Sum256(b)
	return sum(full[:16])
}

// rows are all rows of an incident that may change.
func (f *Fold) rows(id string) []projection.Change {
	var list []projection.Change
	add := func(table string, row ...any) { list = append(list, projection.Change{Table: table, Row: row}) }
	trail := f.trails[id]
	s := trail.State()
	incidentRow(s, add)
	for i, st := range trail.Steps() {
		row := []any{id, i + 1, st.Strategy, st.Number, st.What, nil, nil, len(st.Positions), strings.Join(st.Who, ", "), "", nil}
		if len(st.Positions) > 0 {
			row[5], row[6], row[9] = *st.FirstAt, st.Positions[0], role(trail.Actor(st.Positions[0]).GetRole())
		}
		if st.Target != nil {
			row[10] = *st.Target
		}
		add("steps", row...)
	}
	for _, d := range procedure.Deadlines(s) {
		add("deadlines", id, d.Key, d.Due, d.MetAt)
	}
	for _, o := range procedure.Debts(s) {
		add("obligations", id, o.ID, o.Kind, role(o.OwnerRole), o.Owner, o.Due, o.CausedAt, o.Cause, o.ByAt, number(o.By), o.LiftedBy, o.How, o.Clause)
	}
	for _, p := range s.Pages {
		state := word(p.State.String(), "DELIVERY_STATE_")
		if p.State == emergencyv1.DeliveryState_DELIVERY_STATE_UNSPECIFIED {
			state = "PENDING"
		}
		add("calls", id, p.ID, p.Round, procedure.TeamWord(p.Team), p.Person, p.Channel, p.SentAt, state)
	}
	for _, a := range s.Applies {
		add("deployments", id, a.Position, a.Revision, a.Host, a.Strategy, a.Executor, a.Observer, string(a.State), a.StartedAt, a.Applied.At, a.Verified.At, a.Ended.At)
	}
	return list
}

func incidentRow(s *procedure.State, add func(string, ...any)) {
	row := []any{
		s.Incident, s.Declared.Drill, string(s.Status), s.Strategy, s.Declared.System, word(s.Declared.Severity.String(), "SEVERITY_"),
		word(s.Declared.ReasonClass.String(), "REASON_CLASS_"), s.Declared.At, s.Declared.By, nil, procedure.OverallMetAt(s), s.EndedAt,
		word(s.Outcome.String(), "OUTCOME_"), s.MergedInto, nil, s.Position, s.RecordedAt,
	}
	for _, d := range procedure.Deadlines(s) {
		if d.Key == "overall" {
			row[9] = d.Due
		}
	}
	if s.Policy != nil {
		row[14] = s.Policy.Number
	}
	add("incidents", row...)
}

// number is a position, absent where there is none.
func number(n uint64) any {
	if n == 0 {
		return nil
	}
	return n
}

func role(r emergencyv1.Role) string {
	if r == emergencyv1.Role_ROLE_UNSPECIFIED {
		return ""
	}
	return procedure.RoleWord(r)
}

// word is an enum's value without its prefix, empty if it is not said.
func word(value, prefix string) string {
	if value = strings.TrimPrefix(value, prefix); value == "UNSPECIFIED" {
		return ""
	}
	return value
}
