// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"io"
	"mime/multipart"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/prefill"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc/command"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// A command's form is made from its message: every field that a person can say has an input of the kind that fits it, filled in with
// what the history knows. What has to be filled in, and how, says procedure.WrongFields.

// formField is one field of a form.
type formField struct {
	Path, ID    string
	Label, Help string
	Must        string // in the language of the rules
	Wrong       string // the same, once it was not kept
	// Kind is text, long, number, radio, select, tick, ticks, time, lines, file, known or rows.
	Kind     string
	Value    string
	Choices  []choice
	Rows     [][]formField
	Spare    [][]formField // rows that wait until the empty one before them is used
	Tall     bool          // a text of several paragraphs
	Required bool
	Rare     bool
}

// choice is one of several values.
type choice struct {
	Value, Text string
	Set         bool
}

// givenInPages tells whether a person gives a command in a page: not what services and agents give each other, not what ssh gives,
// and not what is said of the rule book, which is no emergency.
func givenInPages(c procedure.CommandInfo) bool {
	if _, err := command.Method(c.New()); err != nil || len(c.Roles) == 0 || c.RuleBook || c.Archive {
		return false
	}
	return c.Name != "Connect" && c.Name != "AbsorbDuplicate"
}

// commandNamed finds a command that is given in pages.
func commandNamed(name string) (procedure.CommandInfo, bool) {
	for _, c := range procedure.Commands() {
		if c.Name == name {
			return c, givenInPages(c)
		}
	}
	return procedure.CommandInfo{}, false
}

// manner is how a field is put to a person.
type manner int

const (
	toAsk  manner = iota
	rarely        // folded away: it has a value that does
	known         // shown where it is known, and then not asked
	never         // for services, agents and the pages themselves
)

// manners of fields, by path or by command and path. What is not here is asked.
var manners = sync.OnceValue(func() map[string]manner {
	return map[string]manner{
		"meta": never, "sha256": never, "base_tree": never, "result_tree": never, "origin": never, "head_hash": never, "evidence_root": never, "checkpoint": never, "found": never,
		"environment_tree": never, "cause": never, "MarkSession.kind": never,

		"binding": known, "veto": known, "grant": known, "slot": known, "accept.slot": known, "hand_over.slot": known, "dispute": known, "ruling": known, "direction": known,
		"path_commitment": known, "Redact.event": known, "Disclose.event": known, "commitment": known, "supersedes": known, "phase": known, "reasons.position": known, "reasons.deviation": known, "judgements.position": known, "judgements.deviation": known,
		"Document.strategy": known, "ConfirmObserver.kind": known, "WaiveControl.control": known, "DeEscalate.to": known, "StartApply.host": known,

		"accept.team": rarely, "accept.person": rarely, "accept.step": rarely, "accept.eta_minutes": rarely, "accept.second_team_reason": rarely, "accept.on_standby": rarely,
		"decline.team": rarely, "host": rarely, "by_hand": rarely, "commit": rarely, "executor": rarely, "account": rarely, "source_address": rarely, "max_minutes": rarely,
		"valid_minutes": rarely, "minutes": rarely, "debt_reason": rarely, "RecordLeadDecision.strategy": rarely, "refiles": rarely, "channels": rarely, "acted_parties": rarely,
		"sealed": rarely, "board_confirmation": rarely, "lifted": rarely, "component": rarely, "appendix": rarely, "base_commit": rarely, "author": rarely,
		"take_over_reason": rarely, "EnterUpdateCycle.bug_id": rarely, "StartApply.observer": rarely, "StartApply.no_observer_reason": rarely,
	}
})

// mannerOf is how a command's field is asked for.
func mannerOf(command, path string) manner {
	m := manners()
	path = unnumbered(path)
	for _, key := range []string{command + "." + path, path} {
		if how, ok := m[key]; ok {
			return how
		}
	}
	return toAsk
}

var numbers = regexp.MustCompile(`\.[0-9]+`)

// unnumbered is a path without the numbers of rows.
func unnumbered(path string) string { return numbers.ReplaceAllString(path, "") }

// longTexts are the fields in which people write sentences.
func longTexts() []string {
	return []string{
		"symptom", "reason", "message", "steps", "rollback_plan", "local_test", "checks", "detail", "text", "appendix", "summary", "complaint", "relief", "parties", "facts", "logic", "why_not_1",
		"why_not_2", "why_live", "explanation", "proof", "jurisdiction", "law", "debt_reason", "take_over_reason", "no_observer_reason",
	}
}

// tallTexts are those that go on for paragraphs.
func tallTexts() []string { return []string{"complaint", "facts", "logic"} }

// formParts are the fields of a form whose parts the rules number, each part in its place: the ruling of DRP 3.1, the filing of DRP 1.4.
// A command that is not here has no parts.
var formParts = sync.OnceValue(func() map[string][][]string {
	return map[string][][]string{
		"DeliverRuling": {{"parties"}, {"facts"}, {"logic", "judgements", "reopen"}, {"directions"}, {"place"}},
		"FileDispute":   {{"claimants"}, {"respondents"}, {"complaint"}, {"relief"}},
	}
})

// inParts takes the fields that stand in numbered parts out of a form. What belongs to none comes before them.
func inParts(command string, fields []formField) (before []formField, parts [][]formField) {
	numbered := formParts()[command]
	parts = make([][]formField, len(numbered))
	for _, x := range fields {
		at := slices.IndexFunc(numbered, func(paths []string) bool { return slices.Contains(paths, x.Path) })
		if at < 0 {
			before = append(before, x)
			continue
		}
		parts[at] = append(parts[at], x)
	}
	return before, parts
}

// personFields name a person of the directory.
func personFields() []string {
	return []string{"person", "subject", "watcher", "observer", "executor", "to", "author", "candidate", "senior", "members"}
}

// spareRows is how many empty rows a list of messages has beside what is in it. Lists in which everything is known have none.
func spareRows(path string) int {
	if slices.Contains([]string{"reasons", "judgements"}, path) {
		return 0
	}
	return 3
}

// wrongFields are what a command's form does not take, but for what is found out only when a form is sent (complete).
func wrongFields(cmd procedure.Command) []procedure.WrongField {
	list := procedure.WrongFields(cmd)
	if _, patch := cmd.(*emergencyv1.RegisterPatchRequest); patch {
		list = slices.DeleteFunc(list, func(w procedure.WrongField) bool {
			return slices.Contains([]string{"sha256", "base_commit", "base_tree", "result_tree"}, w.Field)
		})
	}
	return list
}

// missingFields are what has to be filled in whatever else is chosen: a reason that one verdict needs and another does not is none.
func missingFields(cmd procedure.Command) []procedure.WrongField {
	list := wrongFields(cmd)
	all := cmd.ProtoReflect().Descriptor().Fields()
	for i := range all.Len() {
		fd := all.Get(i)
		if fd.Enum() == nil || fd.IsList() || cmd.ProtoReflect().Has(fd) {
			continue
		}
		for j := 1; j < fd.Enum().Values().Len(); j++ {
			chosen := proto.CloneOf(cmd)
			chosen.ProtoReflect().Set(fd, protoreflect.ValueOfEnum(fd.Enum().Values().Get(j).Number()))
			left := wrongFields(chosen)
			list = slices.DeleteFunc(list, func(w procedure.WrongField) bool {
				return w.Field != string(fd.Name()) && !slices.ContainsFunc(left, func(x procedure.WrongField) bool { return x.Field == w.Field })
			})
		}
	}
	return list
}

// former makes the fields of one form.
type former struct {
	v       *viewer
	st      *procedure.State
	command string
	wrong   []procedure.WrongField // of what was filled in
	missing []procedure.WrongField // of a form that nobody has filled in
	bad     map[string]string      // what could not be read, by path
	posted  url.Values             // what was typed; nil for a fresh form
}

// fields are those of a message, in its order.
func (f *former) fields(m protoreflect.Message, prefix string) []formField {
	var list []formField
	all := m.Descriptor().Fields()
	for i := range all.Len() {
		fd := all.Get(i)
		path := prefix + string(fd.Name())
		how := mannerOf(f.command, path)
		oneof := fd.ContainingOneof()
		if how == never || oneof != nil && !oneof.IsSynthetic() && !m.Has(fd) {
			continue
		}
		if fd.Message() != nil && !fd.IsList() && !single(fd.Message()) {
			list = append(list, f.fields(m.Get(fd).Message(), path+".")...)
			continue
		}
		x := f.field(m, fd, path)
		if how == known && x.Value == "" && x.Kind == "known" || fd.IsList() && fd.Message() != nil && len(x.Rows) == 0 {
			continue
		}
		x.Rare = how == rarely && x.Wrong == "" && !x.Required
		list = append(list, x)
	}
	return list
}

// single tells whether a message is one value.
func single(d protoreflect.MessageDescriptor) bool {
	return d.FullName() == (&emergencyv1.Binding{}).ProtoReflect().Descriptor().FullName() || d.FullName() == (&timestamppb.Timestamp{}).ProtoReflect().Descriptor().FullName()
}

func (f *former) field(m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) formField {
	x := formField{Path: path, ID: "f-" + strings.ReplaceAll(path, ".", "-"), Label: f.v.fieldWord("label", f.command, path), Help: f.v.fieldWord("help", f.command, path)}
	for _, w := range f.missing {
		if concerns(w.Field, path) {
			x.Required, x.Must = true, w.Must
		}
	}
	for _, w := range f.wrong {
		if concerns(w.Field, path) {
			x.Wrong = w.Must
		}
	}
	if said, ok := f.bad[path]; ok {
		x.Wrong = said
	}
	value := m.Get(fd)
	if fd.IsList() {
		f.list(&x, fd, value.List())
	} else {
		f.value(&x, m, fd, value)
	}
	if typed, ok := f.posted[path]; ok && len(typed) == 1 && (x.Kind == "text" || x.Kind == "long" || x.Kind == "number" || x.Kind == "time") {
		x.Value = typed[0] // also what could not be read
	}
	return x
}

// shows tells whether a field, or a row of it, says what is wrong.
func (x formField) shows(w procedure.WrongField) bool {
	if x.Wrong == w.Must && concerns(w.Field, x.Path) {
		return true
	}
	for _, row := range slices.Concat(x.Rows, x.Spare) {
		if slices.ContainsFunc(row, func(y formField) bool { return y.shows(w) }) {
			return true
		}
	}
	return false
}

// concerns tells whether what the rules say of a field is about a place of the form.
func concerns(field, path string) bool {
	path = unnumbered(path)
	return field == path || strings.HasPrefix(field, path+".") || field == "accept" && path == "accept.slot" || field == "hand_over" && path == "hand_over.to"
}

func (f *former) value(x *formField, m protoreflect.Message, fd protoreflect.FieldDescriptor, value protoreflect.Value) {
	leaf := string(fd.Name())
	shown := mannerOf(f.command, x.Path) == known
	switch {
	case fd.Message() != nil && m.Has(fd):
		switch y := value.Message().Interface().(type) {
		case *emergencyv1.Binding:
			x.Kind, x.Value = "known", y.GetRevision()
		case *timestamppb.Timestamp:
			x.Kind, x.Value = "time", y.AsTime().UTC().Format(timeForm)
		}
	case fd.Message() != nil:
		if x.Kind = "time"; shown {
			x.Kind = "known"
		}
	case fd.Enum() != nil && shown:
		x.Kind = "known"
		if value.Enum() != 0 {
			x.Value = f.v.say(enumKey(fd.Enum(), value.Enum()))
		}
	case fd.Enum() != nil:
		f.enum(x, fd.Enum(), func(n protoreflect.EnumNumber) bool { return n == value.Enum() && n != 0 })
	case fd.Kind() == protoreflect.BoolKind:
		x.Kind, x.Choices = "tick", []choice{{Value: "1", Set: value.Bool()}}
	case fd.Kind() == protoreflect.Uint32Kind, fd.Kind() == protoreflect.Uint64Kind:
		x.Kind = "number"
		if n := value.Uint(); n > 0 {
			x.Value = strconv.FormatUint(n, 10)
		}
		if shown && x.Value != "" {
			x.Kind = "known"
		}
	case fd.Kind() == protoreflect.BytesKind:
		x.Kind = "file"
	case shown && value.String() != "":
		x.Kind, x.Value = "known", value.String()
		if leaf == "commitment" {
			x.Value = f.committed(x.Value)
		}
	default:
		f.text(x, leaf, value.String())
	}
}

// committed says which value a commitment stands for, and how it begins.
func (f *former) committed(commitment string) string {
	for _, r := range f.st.Restricted {
		if r.Commitment == commitment {
			label, _ := f.v.field(r.Field)
			return label + " · " + short(commitment)
		}
	}
	return commitment
}

// text is a choice where the history or the directory has the values.
func (f *former) text(x *formField, leaf, value string) {
	x.Kind, x.Value = "text", value
	if slices.Contains(longTexts(), leaf) {
		x.Kind, x.Tall = "long", slices.Contains(tallTexts(), leaf)
		return
	}
	var choices []choice
	switch {
	case slices.Contains(personFields(), leaf):
		choices = f.persons(value)
	default:
		choices = f.ids(leaf, value)
	}
	if choices != nil {
		x.Kind, x.Choices = "select", choices
	}
}

// persons are all that the directory lists, with their roles. Who may is for the rules.
func (f *former) persons(set ...string) []choice {
	list := []choice{{}}
	for _, p := range f.v.book.Persons() {
		text := p
		if roles := f.v.roles(f.v.book.Roles(p, f.v.now)); roles != "" {
			text += " (" + roles + ")"
		}
		list = append(list, choice{p, text, slices.Contains(set, p)})
	}
	return list
}

// ids are the values that the history has for a field; nil if it has none of the kind.
func (f *former) ids(leaf, value string) []choice {
	var ids []string
	switch leaf {
	case "system":
		if p := f.v.book.PolicyInForce(f.v.now); p != nil {
			for _, s := range p.Systems() {
				ids = append(ids, s.GetSystem())
			}
		}
	case "slot":
		for _, s := range f.st.Slots {
			ids = append(ids, s.ID)
		}
	case "grant":
		for _, g := range f.st.Grants {
			ids = append(ids, g.ID)
		}
	case "dispute", "refiles":
		for _, d := range f.st.Disputes {
			ids = append(ids, d.ID)
		}
	case "ruling":
		for _, r := range f.st.Rulings {
			ids = append(ids, r.ID)
		}
	case "direction":
		for _, d := range f.st.Directions {
			ids = append(ids, d.ID)
		}
	case "veto":
		for _, x := range f.st.Vetoes {
			ids = append(ids, x.ID)
		}
	case "supersedes":
		for _, r := range f.st.Revisions {
			ids = append(ids, r.ID)
		}
	default:
		return nil
	}
	list := []choice{{}}
	for _, id := range ids {
		list = append(list, choice{id, id, id == value})
	}
	return list
}

// fewChoices is how many values are shown at once; of more one is chosen from a list.
const fewChoices = 6

func (f *former) enum(x *formField, d protoreflect.EnumDescriptor, set func(protoreflect.EnumNumber) bool) {
	x.Kind = "radio"
	for i := 1; i < d.Values().Len(); i++ {
		n := d.Values().Get(i).Number()
		x.Choices = append(x.Choices, choice{string(d.Values().Get(i).Name()), f.v.say(enumKey(d, n)), set(n)})
	}
	if len(x.Choices) > fewChoices || mannerOf(f.command, x.Path) == rarely {
		x.Kind, x.Choices = "select", append([]choice{{}}, x.Choices...)
	}
}

func (f *former) list(x *formField, fd protoreflect.FieldDescriptor, value protoreflect.List) {
	leaf := string(fd.Name())
	switch {
	case fd.Message() != nil:
		f.rows(x, value)
	case fd.Enum() != nil:
		f.enum(x, fd.Enum(), func(n protoreflect.EnumNumber) bool {
			for i := range value.Len() {
				if value.Get(i).Enum() == n {
					return true
				}
			}
			return false
		})
		x.Kind = "ticks"
	default:
		var texts []string
		for i := range value.Len() {
			texts = append(texts, value.Get(i).String())
		}
		if slices.Contains(personFields(), leaf) {
			x.Kind, x.Choices = "ticks", f.persons(texts...)[1:]
			return
		}
		x.Kind, x.Value = "lines", strings.Join(texts, "\n")
	}
}

func (f *former) rows(x *formField, value protoreflect.List) {
	x.Kind = "rows"
	empty := value.NewElement().Message()
	for i := range value.Len() + spareRows(x.Path) {
		m := empty
		if i < value.Len() {
			m = value.Get(i).Message()
		}
		row := f.fields(m, fmt.Sprintf("%s.%d.", x.Path, i))
		for j := range row {
			row[j].Label = fmt.Sprintf("%s %d: %s", x.Label, i+1, row[j].Label)
			row[j].Required = row[j].Required && i < value.Len()
			if i > 0 {
				row[j].Help = "" // the row before says it
			}
		}
		if i > value.Len() {
			x.Spare = append(x.Spare, row)
			continue
		}
		x.Rows = append(x.Rows, row)
	}
}

// fieldWord is the label of a field, or what helps to fill it in: that of the command, or else what holds for every command.
func (s *set) fieldWord(kind, command, path string) string {
	return s.say(s.fieldKey(kind, command, path))
}

func (s *set) fieldKey(kind, command, path string) string {
	path = unnumbered(path)
	leaf := path[strings.LastIndexByte(path, '.')+1:]
	for _, key := range []string{kind + "." + command + "." + path, kind + "." + path} {
		if _, ok := s.words[key]; ok {
			return key
		}
	}
	return kind + "." + leaf
}

// timeForm is how browsers write a time to the minute; here in UTC.
const timeForm = "2006-01-02T15:04"

// reader puts what was typed into a command.
type reader struct {
	command string
	form    url.Values
	files   map[string][]*multipart.FileHeader
	bad     map[string]string
}

// read fills the fields that are asked for. What is known stays as it was filled in.
func (r *reader) read(m protoreflect.Message, prefix string) {
	all := m.Descriptor().Fields()
	for i := range all.Len() {
		fd := all.Get(i)
		path := prefix + string(fd.Name())
		how := mannerOf(r.command, path)
		oneof := fd.ContainingOneof()
		if how == never || oneof != nil && !oneof.IsSynthetic() && !m.Has(fd) {
			continue
		}
		switch {
		case fd.Message() != nil && !fd.IsList() && !single(fd.Message()):
			r.read(m.Mutable(fd).Message(), path+".")
		case how == known && !r.form.Has(path):
		case fd.IsList():
			r.list(m, fd, path)
		default:
			r.value(m, fd, path)
		}
	}
}

func (r *reader) value(m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) {
	text := strings.ReplaceAll(strings.TrimSpace(r.form.Get(path)), "\r\n", "\n")
	switch {
	case fd.Kind() == protoreflect.BytesKind:
		if data := r.file(path); data != nil {
			m.Set(fd, protoreflect.ValueOfBytes(data))
		}
	case text == "":
		m.Clear(fd)
	case fd.Message() != nil:
		at, err := time.Parse(timeForm, text)
		if err != nil {
			r.bad[path] = "a time such as 2026-11-24T03:00, in UTC"
			return
		}
		m.Set(fd, protoreflect.ValueOfMessage(timestamppb.New(at).ProtoReflect()))
	case fd.Enum() != nil:
		v := fd.Enum().Values().ByName(protoreflect.Name(text))
		if v == nil {
			r.bad[path] = "one of the values"
			return
		}
		m.Set(fd, protoreflect.ValueOfEnum(v.Number()))
	case fd.Kind() == protoreflect.BoolKind:
		m.Set(fd, protoreflect.ValueOfBool(true))
	case fd.Kind() == protoreflect.Uint32Kind, fd.Kind() == protoreflect.Uint64Kind:
		n, err := strconv.ParseUint(text, 10, map[protoreflect.Kind]int{protoreflect.Uint32Kind: 32, protoreflect.Uint64Kind: 64}[fd.Kind()])
		switch {
		case err != nil:
			r.bad[path] = "a whole number"
		case fd.Kind() == protoreflect.Uint32Kind:
			m.Set(fd, protoreflect.ValueOfUint32(uint32(n)))
		default:
			m.Set(fd, protoreflect.ValueOfUint64(n))
		}
	case fd.Kind() == protoreflect.StringKind:
		m.Set(fd, protoreflect.ValueOfString(text))
	}
}

func (r *reader) file(path string) []byte {
	if len(r.files[path]) == 0 {
		return nil
	}
	f, err := r.files[path][0].Open()
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(f)
	if err != nil {
		return nil
	}
	return data
}

func (r *reader) list(m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) {
	if fd.Message() != nil {
		r.rows(m, fd, path)
		return
	}
	var texts []string
	for _, text := range r.form[path] {
		for l := range strings.Lines(text) {
			if l = strings.TrimSpace(l); l != "" {
				texts = append(texts, l)
			}
		}
	}
	m.Clear(fd)
	list := m.Mutable(fd).List()
	for _, text := range texts {
		if fd.Enum() == nil {
			list.Append(protoreflect.ValueOfString(text))
			continue
		}
		if v := fd.Enum().Values().ByName(protoreflect.Name(text)); v != nil {
			list.Append(protoreflect.ValueOfEnum(v.Number()))
		} else {
			r.bad[path] = "some of the values"
		}
	}
}

// rows reads the rows that are known, and those that somebody has filled in.
func (r *reader) rows(m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) {
	list := m.Mutable(fd).List()
	for i := range list.Len() {
		r.read(list.Get(i).Message(), fmt.Sprintf("%s.%d.", path, i))
	}
	for i := list.Len(); i < maxRows; i++ {
		row := list.NewElement()
		if r.read(row.Message(), fmt.Sprintf("%s.%d.", path, i)); proto.Size(row.Message().Interface()) > 0 {
			list.Append(row)
		}
	}
}

// maxRows is more than any list of a form has.
const maxRows = 64

// variants are the kinds of answer that a command with several can be; nil for a command that is one thing.
func variants(c procedure.Command) []string {
	oneofs := c.ProtoReflect().Descriptor().Oneofs()
	var list []string
	for i := range oneofs.Len() {
		if o := oneofs.Get(i); !o.IsSynthetic() {
			for j := range o.Fields().Len() {
				list = append(list, string(o.Fields().Get(j).Name()))
			}
		}
	}
	return list
}

// begin makes a command about a subject, of a kind if it has several, with all that is known.
func (p *Pages) begin(v *viewer, st *procedure.State, info procedure.CommandInfo, subject, variant string) procedure.Command {
	cmd := info.New()
	m := cmd.ProtoReflect()
	if slices.Contains(variants(cmd), variant) {
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(variant))
		m.Set(fd, m.NewField(fd))
	}
	command.Meta(cmd, "").Incident = st.Incident
	prefill.Known{State: st, Book: v.book, Person: v.Person, Now: v.now}.Fill(cmd, subject)
	return cmd
}
