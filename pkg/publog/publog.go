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
func (e Entry) Field(name string) string {
	for _, f := range e.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// Genesis is what the first entry of a log names as the hash before it.
func Genesis(o Origin) string { return hexHash("emergency-log/" + string(o)) }

// Canonical is the text that is hashed: one line a value, texts as JSON strings, so that anybody can make it again from the
// published entry with a few lines of any language.
func (e Entry) Canonical(o Origin) string {
	var b strings.Builder
	b.Grow(768) // most are shorter
	line := func(name string, values ...string) {
		b.WriteString(name)
		for _, v := range values {
			b.WriteByte(' ')
			b.WriteString(v)
		}
		b.WriteByte('\n')
	}
	b.WriteString("epatch-log-v1\n")
	line("origin", string(o))
	line("seq", strconv.FormatUint(e.Seq, 10))
	line("incident", e.Incident)
	line("kind", e.Kind)
	line("at", e.At.UTC().Format(time.RFC3339Nano))
	line("late", strconv.FormatBool(e.Late))
	line("headline", quote(e.Headline))
	line("role", quote(e.Role))
	for _, f := range e.Fields {
		line("field", quote(f.Name), quote(f.Value))
	}
	for _, c := range e.Commitments {
		line("commitment", c)
	}
	line("event", e.EventHash)
	line("prev", e.Prev)
	return b.String()
}

// quote writes a text as a JSON string on one line.
func quote(s string) string {
	if plain(s) {
		return `"` + s + `"`
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil { // a string can always be encoded
		return strconv.QuoteToASCII(s)
	}
	return strings.TrimSuffix(b.String(), "\n")
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

func hexHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// Log is one log: a fold over records. It is not safe for concurrent use; entries once given out never change.
type Log struct {
	origin  Origin
	entries []Entry
	letters map[string]map[string]string // incident, person: letter
	about   map[eventID]uint64           // entry of an event
	types   map[eventID]string           // type of an event, whether it has an entry or not
	latest  map[string]uint64            // last entry about a thing, by incident and name: what a correction supersedes
	said    map[string]bool              // what is said only once
	waiting map[string]tally             // by incident and dispute
	named   map[string][]string          // persons and machines that an incident has named, sorted
}

// tally counts who was asked to arbitrate a dispute.
type tally struct{ asked, declined int }

type eventID struct {
	incident string
	position uint64
}

// New returns an empty log.
func New(o Origin) *Log {
	return &Log{
		origin: o, letters: map[string]map[string]string{}, about: map[eventID]uint64{}, types: map[eventID]string{}, latest: map[string]uint64{},
		said: map[string]bool{}, waiting: map[string]tally{}, named: map[string][]string{},
	}
}

// Origin says which log it is.
func (l *Log) Origin() Origin { return l.origin }

// Entries are the entries so far, oldest first. They are shared: never write to them.
func (l *Log) Entries() []Entry { return l.entries[:len(l.entries):len(l.entries)] }

// Head is the hash of the last entry.
func (l *Log) Head() string {
	if len(l.entries) == 0 {
		return Genesis(l.origin)
	}
	return l.entries[len(l.entries)-1].Hash
}

// Add publishes what a record makes public, and returns those entries. before is the state before the record; hash is the
// record's.
func (l *Log) Add(before *procedure.State, rec *emergencyv1.Record, hash string) ([]Entry, error) {
	first := len(l.entries)
	for i, event := range rec.GetEvents() {
		l.types[eventID{rec.GetIncident(), rec.GetFirstPosition() + uint64(i)}] = event.GetType()
		d, err := draftOf(before, rec, i, l.named[rec.GetIncident()])
		if err != nil {
			return nil, err
		}
		l.learn(d)
		if !l.complete(d) {
			continue
		}
		e := d.entry()
		e.EventHash = hash + "#" + strconv.Itoa(i)
		l.publish(e, d)
	}
	return l.entries[first:len(l.entries):len(l.entries)], nil
}

// learn keeps whom an event names, so that no later text can.
func (l *Log) learn(d *draft) {
	known := l.named[d.rec.GetIncident()]
	before := len(known)
	for _, n := range append(slices.Clip(d.names()), d.rec.GetActor().GetPerson()) {
		if i, ok := slices.BinarySearch(known, n); !ok && n != "" {
			known = slices.Insert(known, i, n)
		}
	}
	if len(known) > before {
		l.named[d.rec.GetIncident()] = known
	}
}

// complete adds to a draft what only the log knows; false if there is nothing to publish.
func (l *Log) complete(d *draft) bool {
	key := d.rec.GetIncident() + " "
	if d.headline == "" || d.once != "" && l.said[key+d.once] {
		return false
	}
	if d.once != "" {
		l.said[key+d.once] = true
	}
	if d.dispute != "" {
		n := l.waiting[key+d.dispute]
		n.asked, n.declined = n.asked+d.asked, n.declined+d.declined
		l.waiting[key+d.dispute] = n
		d.headline += fmt.Sprintf(": %d asked, %d declined", n.asked, n.declined)
	}
	if d.opened != nil {
		d.discloses(l.types[eventID{d.rec.GetIncident(), d.opened.GetEvent()}])
	}
	return true
}

func (l *Log) publish(e Entry, d *draft) {
	e.Seq, e.Prev = uint64(len(l.entries))+1, l.Head()
	if person := d.person(); person != "" {
		e.Role += " " + l.letter(e.Incident, person)
	}
	l.refer(&e)
	if d.about != "" {
		key := e.Incident + " " + d.about
		if old, ok := l.latest[key]; ok && d.corrects {
			e.Fields = append(e.Fields, Field{fieldSupersedes, strconv.FormatUint(old, 10)})
		}
		l.latest[key] = e.Seq
	}
	e.Hash = hexHash(e.Canonical(l.origin))
	l.entries = append(l.entries, e)
	l.about[eventID{e.Incident, d.position()}] = e.Seq
}

// letter names a person within an incident: A, B ... Z, AA ... in the order of first appearance, whatever the role, since
// identity is the person (procedure.md 2.3).
func (l *Log) letter(incident, person string) string {
	known := l.letters[incident]
	if known == nil {
		known = map[string]string{}
		l.letters[incident] = known
	}
	if known[person] == "" {
		known[person] = letterOf(len(known))
	}
	return known[person]
}

func letterOf(n int) string {
	s := ""
	for ; n >= 0; n = n/26 - 1 {
		s = string(rune('A'+n%26)) + s
	}
	return s
}

// refer turns the position that an entry is about into the number of that entry, if there is one.
func (l *Log) refer(e *Entry) {
	for i, f := range e.Fields {
		if f.Name != fieldOnPosition {
			continue
		}
		position, _ := strconv.ParseUint(f.Value, 10, 64)
		if seq, ok := l.about[eventID{e.Incident, position}]; ok {
			e.Fields[i] = Field{fieldOnEntry, strconv.FormatUint(seq, 10)}
		}
	}
}
