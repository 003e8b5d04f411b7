// SPDX-License-Identifier: Apache-2.0

package projection

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"cacert.org/emergency/pkg/defect"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Incidents is the projection that every service needs: the folded state of each incident, and the rule book.
type Incidents struct {
	mu       sync.RWMutex
	states   map[string]*procedure.State
	book     *rulebook.Book
	declared map[procedure.RequestKey]string
	numbers  map[string]int
	parked   map[string]parked

	ids     []string        // of the states of incidents, sorted
	waiting map[string]bool // of those, the ones that may wait for somebody
	touched map[string]bool // of those, the ones that changed since waiting was looked at

	witnesses []Witness

	changes     []string // ids, in the order of their changes
	firstChange uint64   // cursor before the first of them
}

// parked is where an incident's history stopped making sense to this version. Its state is thrown away: half a fold is a lie.
type parked struct {
	from uint64
	err  error
}

// NewIncidents returns an empty projection.
func NewIncidents() *Incidents {
	return &Incidents{states: map[string]*procedure.State{}, book: &rulebook.Book{}, declared: map[procedure.RequestKey]string{}, numbers: map[string]int{}, parked: map[string]parked{}, waiting: map[string]bool{}, touched: map[string]bool{}}
}

// Name is "incidents".
func (p *Incidents) Name() string { return "incidents" }

// Version of the fold.
func (p *Incidents) Version() int { return 1 }

// Apply folds records in. An incident that cannot be folded is parked; a rule book that cannot is an error, because every
// incident needs it.
func (p *Incidents) Apply(batch []*Record) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rec := range batch {
		if err := p.applyOne(rec); err != nil {
			return err
		}
	}
	return nil
}

func (p *Incidents) applyOne(rec *Record) error {
	if rec.Incident == procedure.RuleBook {
		next := p.book
		var err error
		for _, e := range rec.Events {
			if next, err = next.With(e.Position, rec.Record.GetRecordedAt().AsTime(), e.Payload); err != nil {
				return fmt.Errorf("rule book at %d: %w", e.Position, err)
			}
		}
		p.book = next
	}
	if rec.Record.GetFirstPosition() == 1 && procedure.IsIncident(rec.Incident) {
		p.declared[procedure.RequestKey{Person: rec.Record.GetActor().GetPerson(), Command: rec.Record.GetCommand(), RequestID: rec.Record.GetRequestId()}] = rec.Incident
		prefix, n, _ := strings.Cut(rec.Incident, ".")
		if number, err := strconv.Atoi(n); err == nil {
			p.numbers[prefix+"."] = max(p.numbers[prefix+"."], number)
		}
	}
	p.changed(rec.Incident)
	if _, ok := p.parked[rec.Incident]; ok {
		return nil
	}
	s, ok := p.states[rec.Incident]
	if !ok {
		s = procedure.NewState(rec.Incident)
		p.states[rec.Incident] = s
		if i, found := slices.BinarySearch(p.ids, rec.Incident); !found && procedure.IsIncident(rec.Incident) {
			p.ids = slices.Insert(p.ids, i, rec.Incident)
		}
	}
	p.touched[rec.Incident] = true
	var unseen error
	err := defect.Contained(func() (err error) {
		unseen, err = p.fold(s, rec)
		return err
	})
	switch {
	case err == nil:
		return unseen
	case rec.Incident == procedure.RuleBook:
		return err
	}
	p.parked[rec.Incident] = parked{rec.Record.GetFirstPosition(), err}
	delete(p.states, rec.Incident)
	if i, found := slices.BinarySearch(p.ids, rec.Incident); found {
		p.ids = slices.Delete(p.ids, i, i+1)
	}
	return nil
}

// fold folds a record into its incident's state before the eyes of the witnesses. unseen is what a witness could not take in; err, and a
// panic of whomever, concern this incident alone.
func (p *Incidents) fold(s *procedure.State, rec *Record) (unseen, err error) {
	for _, w := range p.witnesses {
		if err := w.Before(s, rec); err != nil {
			unseen = errors.Join(unseen, fmt.Errorf("%s: %w", w.Name(), err))
		}
	}
	if err := s.ApplyDecoded(rec.Record, rec.Events, rec.Hash); err != nil || unseen != nil {
		return unseen, err
	}
	for _, w := range p.witnesses {
		w.After(rec)
	}
	return nil, nil
}

// Parked tells from which position on an incident is not folded, and why; a nil error if it is.
func (p *Incidents) Parked(incident string) (from uint64, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	x := p.parked[incident]
	return x.from, x.err
}

// AllParked are the ids of the incidents that are not folded to their end.
func (p *Incidents) AllParked() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Sorted(maps.Keys(p.parked))
}

// Declared finds the incident that a person declared under a request id; empty if there is none.
func (p *Incidents) Declared(person, requestID string) string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.declared[procedure.RequestKey{Person: person, Command: "Declare", RequestID: requestID}]
}

// LastNumber is the highest number given to incidents with a prefix such as "e20261124."; 0 for none.
func (p *Incidents) LastNumber(prefix string) int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.numbers[prefix]
}

// Book is the rule book.
func (p *Incidents) Book() *rulebook.Book {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.book
}

// Since returns the incidents that changed after a cursor that an earlier call returned, each once and in the order of
// their last change, and the new cursor; all incidents for the cursor 0. So a follower looks only at what happened.
func (p *Incidents) Since(cursor uint64) (ids []string, next uint64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	next = p.firstChange + uint64(len(p.changes))
	if cursor < p.firstChange || cursor == 0 {
		return slices.Clone(p.ids), next
	}
	seen := map[string]bool{}
	for _, id := range slices.Backward(p.changes[cursor-p.firstChange:]) {
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	slices.Reverse(ids)
	return ids, next
}

// changesKept is how many changes Since looks back; who is further behind gets all incidents.
const changesKept = 4096

// changed notes that an incident changed.
func (p *Incidents) changed(id string) {
	if !procedure.IsIncident(id) {
		return
	}
	p.changes = append(p.changes, id)
	if len(p.changes) > 2*changesKept {
		drop := len(p.changes) - changesKept
		p.firstChange += uint64(drop)
		p.changes = slices.Clone(p.changes[drop:])
	}
}

// View calls fn with an incident's state, which fn must neither keep nor write to; false if there is no such incident. fn must
// not ask the projection anything: it holds the lock.
func (p *Incidents) View(incident string, fn func(*procedure.State)) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s, ok := p.states[incident]
	if !ok || !procedure.IsIncident(incident) {
		return false
	}
	fn(s)
	return true
}

// Each calls fn with every incident's state, in the order of declaration (by id), under the same conditions as View.
func (p *Incidents) Each(fn func(*procedure.State)) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, id := range p.ids {
		fn(p.states[id])
	}
}

// EachWaiting is Each for the incidents that may wait for somebody, which are few however many there were.
func (p *Incidents) EachWaiting(fn func(*procedure.State)) {
	p.settle()
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, id := range slices.Sorted(maps.Keys(p.waiting)) {
		fn(p.states[id])
	}
}

// settle looks which of the incidents that changed wait now.
func (p *Incidents) settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.touched {
		if s, ok := p.states[id]; ok && procedure.IsIncident(id) && procedure.Waits(s) {
			p.waiting[id] = true
		} else {
			delete(p.waiting, id)
		}
	}
	clear(p.touched)
}

// Duplicates are the open incidents of the same system that were declared within a day before (procedure.md 4.1).
func (p *Incidents) Duplicates(system string, drill bool, within func(*procedure.State) bool) []string {
	var list []string
	p.Each(func(s *procedure.State) {
		if s.Status == procedure.Open && s.Declared.System == system && s.Declared.Drill == drill && within(s) {
			list = append(list, s.Incident)
		}
	})
	return list
}

// Dump writes every state and the rule book's position as JSON lines, incidents in order.
func (p *Incidents) Dump(w io.Writer) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	enc := json.NewEncoder(w)
	for _, id := range slices.Sorted(maps.Keys(p.states)) {
		if err := enc.Encode(p.states[id]); err != nil {
			return fmt.Errorf("dump %s: %w", id, err)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(p.parked)) {
		if err := enc.Encode(map[string]any{"parked": id, "from": p.parked[id].from}); err != nil {
			return fmt.Errorf("dump %s: %w", id, err)
		}
	}
	return enc.Encode(map[string]any{"rulebook": p.book.Position, "persons": p.book.Persons(), "roles": p.roles()})
}

func (p *Incidents) roles() map[string][]emergencyv1.Role {
	all := map[string][]emergencyv1.Role{}
	at := p.states[procedure.RuleBook]
	if at == nil {
		return all
	}
	for _, person := range p.book.Persons() {
		all[person] = p.book.Roles(person, at.RecordedAt)
	}
	return all
}
