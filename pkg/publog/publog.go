// SPDX-License-Identifier: Apache-2.0

// Package publog is the public emergency log (procedure.md 5 column "Log", 8): what the world may know of an incident.
//
// Each entry is a pure function of one event and the state before it; numbering, letters and the hash chain are a fold over
// the entries in the order of the stream. So the same histories give the same bytes, and who has saved two heads of the log
// can prove that nothing between them was removed, reordered or dated back (Verify).
//
// An entry never holds a person, a contact, a host or an account: who acted appears as role and letter. Nothing is ever
// edited; a correction is a new entry that names the one it supersedes. Drills have a log of their own, and so has what was taken
// from the mailing list's archive.
//
// The package has no clock, network or randomness, and knows the rules only through pkg/procedure.
package publog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Origin tells the logs apart; it is part of every hash.
type Origin string

// The logs.
const (
	Real   Origin = "real"
	Drills Origin = "drills"
	// Archive is what was taken from the mailing list's archive of the years before this system. It is numbered and chained by
	// itself, so that a late import renumbers nothing and is never dated back into the log of what happened here.
	Archive Origin = "archive"
)

// Origins lists the logs.
func Origins() []Origin { return []Origin{Real, Drills, Archive} }

// OriginOf is the log that an id's entries are in: drills have their own prefix (procedure.md 0.12).
func OriginOf(incident string) Origin {
	switch {
	case incident == procedure.Archive:
		return Archive
	case strings.HasPrefix(incident, "x"):
		return Drills
	}
	return Real
}

// Field is one public fact of an entry.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Entry is one entry of the log (procedure.md 8.2).
type Entry struct {
	// Seq is the number, 1, 2, 3 ... without gaps.
	Seq      uint64 `json:"seq"`
	Incident string `json:"incident"`
	// Kind is the type of the event.
	Kind string `json:"kind"`
	// At is when the event was recorded; Late if it was captured offline before.
	At       time.Time `json:"at"`
	Late     bool      `json:"late"`
	Headline string    `json:"headline"`
	// Role is who acted, such as "critical-admin A" or "timer".
	Role   string  `json:"role"`
	Fields []Field `json:"fields"`
	// Commitments stand for the restricted fields of the event.
	Commitments []string `json:"commitments"`
	// EventHash is the record's hash, "#", and the event's place in the record, counted from 0.
	EventHash string `json:"event_hash"`
	// Prev is the hash of the entry before; of the first: Genesis.
	Prev string `json:"prev"`
	// Hash is SHA-256 of Canonical, lower-case hex.
	Hash string `json:"hash"`
}

// Field returns the value of a field, empty if the entry has none of that name.
func (e *Entry) Field(name string) string {
	for _, f := range e.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// Genesis is what the first entry of a log names as the hash before it.
func Genesis(o Origin) string { return hexHash([]byte("emergency-log/" + string(o))) }

// Canonical is the text that is hashed: one line a value, texts as JSON strings, so that anybody can make it again from the
// published entry with a few lines of any language.
func (e Entry) Canonical(o Origin) string {
	return string(e.appendCanonical(make([]byte, 0, 768), o)) // most are shorter
}

func (e *Entry) appendCanonical(b []byte, o Origin) []byte {
	line := func(name, value string) { b = append(append(append(append(b, name...), ' '), value...), '\n') }
	b = append(b, "epatch-log-v1\n"...)
	line("origin", string(o))
	b = append(strconv.AppendUint(append(b, "seq "...), e.Seq, 10), '\n')
	line("incident", e.Incident)
	line("kind", e.Kind)
	b = append(e.At.UTC().AppendFormat(append(b, "at "...), time.RFC3339Nano), '\n')
	b = append(strconv.AppendBool(append(b, "late "...), e.Late), '\n')
	b = append(appendQuoted(append(b, "headline "...), e.Headline), '\n')
	b = append(appendQuoted(append(b, "role "...), e.Role), '\n')
	for _, f := range e.Fields {
		b = append(appendQuoted(append(b, "field "...), f.Name), ' ')
		b = append(appendQuoted(b, f.Value), '\n')
	}
	for _, c := range e.Commitments {
		line("commitment", c)
	}
	line("event", e.EventHash)
	line("prev", e.Prev)
	return b
}

// appendQuoted adds a text as a JSON string on one line.
func appendQuoted(b []byte, s string) []byte {
	if plain(s) {
		return append(append(append(b, '"'), s...), '"')
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil { // a string can always be encoded
		return strconv.AppendQuoteToASCII(b, s)
	}
	return append(b, bytes.TrimSuffix(text.Bytes(), []byte("\n"))...)
}

// plain tells whether nothing in a text needs an escape, which is so for most.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func hexHash(b []byte) string {
	sum := sha256.Sum256(b)
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], sum[:])
	return string(text[:])
}

// Log is one log: a fold over records. It is not safe for concurrent use; entries once given out never change.
type Log struct {
	origin  Origin
	entries []Entry
	before  uint64             // entries that were forgotten
	head    string             // hash of the last entry
	threads map[string]*thread // by incident
	text    []byte             // of the last entry, as it is hashed
}

// thread is what the log knows of an incident.
type thread struct {
	letters map[string]string // by person
	events  []said            // position n is events[n-1]
	latest  map[string]uint64 // last entry about a thing, by name: what a correction supersedes
	once    map[string]bool   // what is said only once
	waiting map[string]tally  // by dispute
	named   []string          // persons and machines that it has named, sorted; copied when it grows
}

// said is an event's type, and the number of its entry; 0 if it has none.
type said struct {
	kind  string
	entry uint64
}

// tally counts who was asked to arbitrate a dispute.
type tally struct{ asked, declined int }

// New returns an empty log.
func New(o Origin) *Log { return &Log{origin: o, head: Genesis(o), threads: map[string]*thread{}} }

// Origin says which log it is.
func (l *Log) Origin() Origin { return l.origin }

// Entries are the entries so far, oldest first, without those that were forgotten. They are shared: never write to them.
func (l *Log) Entries() []Entry { return l.entries[:len(l.entries):len(l.entries)] }

// Forget lets go of the entries so far, for who has put them elsewhere. Numbers and hashes go on from them.
func (l *Log) Forget() { l.before, l.entries = l.before+uint64(len(l.entries)), nil }

// Head is the hash of the last entry.
func (l *Log) Head() string { return l.head }

// Add publishes what a record makes public, and returns those entries. before is the state before the record; hash is the
// record's.
func (l *Log) Add(before *procedure.State, rec *emergencyv1.Record, hash string) ([]Entry, error) {
	events, err := procedure.DecodeRecord(rec)
	if err != nil {
		return nil, err
	}
	p, err := l.Prepare(before, rec, events)
	if err != nil {
		return nil, err
	}
	return l.Publish(p, hash), nil
}

// Prepared is what a record makes public, before it is published.
type Prepared struct {
	rec    *emergencyv1.Record
	drafts []*draft
	named  []string // persons and machines that the incident has named, this record's included
}

// Prepare is the first half of Add: it looks at the state before the record, which may be folded on afterwards, and publishes nothing.
// events are the record's, by procedure.DecodeRecord. The next call must be that of Publish, if the record turns out to be one.
func (l *Log) Prepare(before *procedure.State, rec *emergencyv1.Record, events []procedure.Event) (*Prepared, error) {
	p := &Prepared{rec: rec, drafts: make([]*draft, 0, len(events))}
	t := l.threads[rec.GetIncident()]
	if t != nil {
		p.named = t.named
	}
	for i, e := range events {
		d, err := draftOf(before, rec, i, e.Payload, p.named)
		if err != nil {
			return nil, err
		}
		p.learn(d)
		if d.opened != nil && d.headline != "" {
			d.discloses(typeAt(t, events[:i+1], d.opened.GetEvent()))
		}
		p.drafts = append(p.drafts, d)
	}
	return p, nil
}

// typeAt is the type of an event that the incident has, or that is one of those.
func typeAt(t *thread, events []procedure.Event, position uint64) string {
	for _, e := range events {
		if e.Position == position {
			return e.Type
		}
	}
	if t == nil || position == 0 || position > uint64(len(t.events)) {
		return ""
	}
	return t.events[position-1].kind
}

// Publish is the second half of Add.
func (l *Log) Publish(p *Prepared, hash string) []Entry {
	first, id := len(l.entries), p.rec.GetIncident()
	t := l.threads[id]
	if t == nil {
		t = &thread{letters: map[string]string{}, latest: map[string]uint64{}, once: map[string]bool{}, waiting: map[string]tally{}}
		l.threads[id] = t
	}
	for n := p.rec.GetFirstPosition() + uint64(len(p.drafts)) - 1; uint64(len(t.events)) < n; {
		t.events = append(t.events, said{})
	}
	t.named = p.named
	for i, d := range p.drafts {
		event := p.rec.GetEvents()[i]
		t.events[d.position()-1].kind = event.GetType()
		if !t.complete(d) {
			continue
		}
		e := d.entry()
		e.EventHash = hash + "#" + strconv.Itoa(i)
		l.publish(t, e, d)
	}
	return l.entries[first:len(l.entries):len(l.entries)]
}

// learn keeps whom an event names, so that no later text can.
func (p *Prepared) learn(d *draft) {
	add := func(n string) {
		if i, ok := slices.BinarySearch(p.named, n); !ok && n != "" {
			p.named = slices.Insert(slices.Clip(p.named), i, n)
		}
	}
	for _, n := range d.names() {
		add(n)
	}
	add(d.rec.GetActor().GetPerson())
}

// complete adds to a draft what only the log knows; false if there is nothing to publish.
func (t *thread) complete(d *draft) bool {
	if d.headline == "" || d.once != "" && t.once[d.once] {
		return false
	}
	if d.once != "" {
		t.once[d.once] = true
	}
	if d.dispute != "" {
		n := t.waiting[d.dispute]
		n.asked, n.declined = n.asked+d.asked, n.declined+d.declined
		t.waiting[d.dispute] = n
		d.headline += fmt.Sprintf(": %d asked, %d declined", n.asked, n.declined)
	}
	return true
}

func (l *Log) publish(t *thread, e Entry, d *draft) {
	e.Seq, e.Prev = l.before+uint64(len(l.entries))+1, l.head
	if person := d.person(); person != "" {
		e.Role += " " + t.letter(person)
	}
	t.refer(&e)
	if d.about != "" {
		if old, ok := t.latest[d.about]; ok && d.corrects {
			e.Fields = append(e.Fields, Field{fieldSupersedes, strconv.FormatUint(old, 10)})
		}
		t.latest[d.about] = e.Seq
	}
	l.text = e.appendCanonical(l.text[:0], l.origin)
	e.Hash = hexHash(l.text)
	l.head = e.Hash
	if len(l.entries) == cap(l.entries) {
		l.entries = slices.Grow(l.entries, 64+len(l.entries)/2) // a longer log is copied less often than append would
	}
	l.entries = append(l.entries, e)
	t.events[d.position()-1].entry = e.Seq
}

// letter names a person within an incident: A, B ... Z, AA ... in the order of first appearance, whatever the role, since
// identity is the person (procedure.md 2.3).
func (t *thread) letter(person string) string {
	if t.letters[person] == "" {
		t.letters[person] = letterOf(len(t.letters))
	}
	return t.letters[person]
}

func letterOf(n int) string {
	s := ""
	for ; n >= 0; n = n/26 - 1 {
		s = string(rune('A'+n%26)) + s
	}
	return s
}

// refer turns the position that an entry is about into the number of that entry, if there is one.
func (t *thread) refer(e *Entry) {
	for i, f := range e.Fields {
		if f.Name != fieldOnPosition {
			continue
		}
		position, _ := strconv.ParseUint(f.Value, 10, 64)
		if position == 0 || position > uint64(len(t.events)) {
			continue
		}
		if seq := t.events[position-1].entry; seq != 0 {
			e.Fields[i] = Field{fieldOnEntry, strconv.FormatUint(seq, 10)}
		}
	}
}
