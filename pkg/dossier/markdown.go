// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Value is a restricted value that the reader may see, or why it cannot be shown.
type Value struct {
	Text string `json:"text,omitempty"`
	// Why is set when there is no text to show.
	Why string `json:"not_shown,omitempty"`
}

// columns is the width that a text is wrapped to.
const columns = 80

// page is Markdown in the making.
type page struct {
	b      strings.Builder
	values map[string]Value
}

// Markdown is the dossier as text, readable as it stands at 80 columns. Positions are links to the list of events at its
// end. values are restricted values by commitment; without them only their names appear. Whatever somebody wrote into the
// history is made harmless: no markup, no control characters.
func (d *Dossier) Markdown(values map[string]Value) string {
	p := &page{values: values}
	p.head(d)
	p.title("Persons")
	for _, x := range d.Persons {
		acted := x.Person
		if len(x.Roles) > 0 {
			acted += ", acted as " + strings.Join(x.Roles, ", ")
		}
		if len(x.Held) > 0 {
			acted += "; held by the rule book: " + strings.Join(x.Held, ", ")
		}
		p.item(Sentence{Text: acted + fmt.Sprintf("; %s, the first and last:", count(len(x.Positions), "event")), Positions: ends(x.Positions)})
	}
	for _, a := range d.Answers {
		p.title(a.ID + " " + a.Question)
		for _, point := range a.Points {
			p.point(point)
		}
	}
	p.title("Steps of chapter 1")
	p.steps(d)
	p.point(d.Order)
	p.title("Obligations at " + stamp(d.AskedAt))
	for _, o := range d.Obligations {
		p.item(Sentence{Text: upperFirst(o.Sentence()), Positions: positive(o.Cause, o.By)})
	}
	if len(d.Obligations) == 0 {
		p.item(Sentence{Text: NoEvidence})
	}
	p.title("Proceedings and values")
	p.point(d.Proceedings)
	p.point(d.Values)
	p.events(d)
	return p.b.String()
}

func ends(list []uint64) []uint64 {
	if len(list) < 2 {
		return list
	}
	return []uint64{list[0], list[len(list)-1]}
}

func positive(list ...uint64) []uint64 {
	return slices.DeleteFunc(list, func(n uint64) bool { return n == 0 })
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }

func (p *page) title(text string) {
	if !strings.HasSuffix(p.b.String(), "\n\n") {
		p.line("")
	}
	p.line("## %s\n", plain(text))
}

func (p *page) head(d *Dossier) {
	what := "emergency"
	if d.Drill {
		what = "drill"
	}
	p.line("# Dossier of %s %s", what, plain(d.Incident))
	p.line("")
	p.para("", fmt.Sprintf("System %s, %s, strategy %d, policy %d. Made from the verified history up to position %d, recorded %s, and judged for %s.",
		plain(d.System), strings.ToLower(strings.ReplaceAll(d.Status, "_", " ")), d.Strategy, d.Policy, d.Position, stamp(d.RecordedAt), stamp(d.AskedAt)))
	p.line("")
	p.line("Head of the history:\n`%s`\nPolicy:\n`%s`", d.Head, d.PolicyDigest)
	p.line("")
	p.para("", `It states what the history says, each sentence with the positions of its events. It judges nothing. What the history does not hold reads "`+NoEvidence+`". `+
		"Sentences marked (as of) may read otherwise once later events are recorded; all others stay.")
}

func (p *page) point(x Point) {
	p.line("**%s**\n", plain(x.Label))
	for _, s := range x.Sentences {
		p.item(s)
	}
	p.line("")
}

// item writes one sentence with its positions and what is restricted in it.
func (p *page) item(s Sentence) {
	text := plain(s.Text)
	if s.AsOf && len(s.Positions) > 0 {
		text += " (as of)"
	}
	for _, n := range s.Positions {
		text += " " + link(n)
	}
	var hidden []string
	for _, r := range s.Restricted {
		if _, ok := p.values[r.Commitment]; !ok && !slices.Contains(hidden, fieldWords(r.Field)) {
			hidden = append(hidden, fieldWords(r.Field))
		}
	}
	if len(hidden) > 0 {
		text += plain(" (restricted: " + strings.Join(hidden, ", ") + ")")
	}
	p.para("- ", text)
	for _, r := range s.Restricted {
		if v, ok := p.values[r.Commitment]; ok {
			p.value(r, v)
		}
	}
}

func fieldWords(field string) string {
	return strings.NewReplacer("_", " ", ".", " ").Replace(field)
}

func (p *page) value(r Restricted, v Value) {
	if v.Why != "" {
		p.para("  - ", plain(fieldWords(r.Field)+", restricted, not shown: "+v.Why))
		return
	}
	p.para("  - ", plain(fieldWords(r.Field)+", restricted:"))
	for _, l := range strings.Split(v.Text, "\n") {
		p.para("    > ", plain(l))
	}
}

// events lists what the sentences refer to.
func (p *page) events(d *Dossier) {
	p.title("Events")
	for _, e := range d.Events {
		p.para("- ", fmt.Sprintf(`<a id="p%d"></a>%d %s %s. %s`, e.Position, e.Position, e.At.Format("2006-01-02 15:04:05 UTC"), e.Type, plain(e.Text)))
	}
	p.line("")
	for _, e := range d.Events {
		p.line("[%d]: #p%d", e.Position, e.Position)
	}
}

func link(n uint64) string { return "[" + strconv.FormatUint(n, 10) + "]" }

// steps is the table of chapter 1. Columns are as wide as they must be, and its lines fit 80 columns by leaving out
// positions between the first and the last.
func (p *page) steps(d *Dossier) {
	short := strings.NewReplacer("met late by", "late", "overdue by", "overdue")
	table := [][]string{{"Step", "", "First", "Due", "State", "Who", "Events"}}
	start := time.Time{}
	for _, s := range d.Steps {
		if s.FirstAt != nil && start.IsZero() {
			start = *s.FirstAt
		}
	}
	for _, s := range d.Steps {
		var at []string
		for _, n := range ends(s.Positions) {
			at = append(at, link(n))
		}
		table = append(table, []string{s.Number, s.What, offset(s.FirstAt, start), offset(s.Target, start), short.Replace(s.State), plain(few(s.Who)), strings.Join(at, " ")})
	}
	p.line("Times are hours and minutes after the declaration.\n")
	p.table(table)
}

// few names the first, as far as there is room; the list of events names all.
func few(list []string) string {
	if len(list) == 0 {
		return ""
	}
	more := ""
	if len(list) > 1 {
		more = fmt.Sprintf(" +%d", len(list)-1)
	}
	name := []rune(list[0])
	const room = 9
	if over := len(name) + len(more) - room; over > 0 && over < len(name) {
		name = append(name[:len(name)-over-1], '…')
	}
	return string(name) + more
}

// offset is how long after the declaration, such as +1:05.
func offset(at *time.Time, start time.Time) string {
	if at == nil {
		return ""
	}
	d := at.Sub(start)
	return fmt.Sprintf("+%d:%02d", int(d.Hours()), int(d.Minutes())%60)
}

func (p *page) table(rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for n, r := range rows {
		line := "|"
		for i, cell := range r {
			line += cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)) + "|"
		}
		p.line("%s", line)
		if n == 0 {
			line = "|"
			for _, w := range width {
				line += strings.Repeat("-", max(w, 1)) + "|"
			}
			p.line("%s", line)
		}
	}
	p.line("")
}

// para writes a text with something before its first line, wrapped; what follows is set in by as much.
func (p *page) para(before, text string) {
	inset := strings.Repeat(" ", len(before))
	if strings.HasSuffix(before, "> ") {
		inset = before
	}
	line, started := before, false
	for _, w := range strings.Fields(text) {
		if started && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(w) > columns {
			p.line("%s", line)
			line, started = inset, false
			w = escapeStart(w)
		}
		if started {
			line += " "
		}
		line, started = line+w, true
	}
	p.line("%s", strings.TrimRight(line, " "))
}

// escapeStart keeps a word that begins a line from being a heading, a list or a quotation.
func escapeStart(w string) string {
	if strings.ContainsAny(w[:1], "#+-=>~") {
		return `\` + w
	}
	digits := strings.TrimLeft(w, "0123456789")
	if digits != w && (digits == "." || digits == ")") {
		return w[:len(w)-1] + `\` + digits
	}
	return w
}

// plain takes markup and control characters out of a text that somebody wrote.
func plain(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError, unicode.IsControl(r), unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co):
			fmt.Fprintf(&b, "(U+%04X)", r)
		case strings.ContainsRune("\\`*[]<|", r), r == '_' && !insideWord(s, i), r == '&' && strings.Contains(s[i:], ";"):
			b.WriteString(`\` + string(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func insideWord(s string, i int) bool {
	before, _ := utf8.DecodeLastRuneInString(s[:i])
	after, _ := utf8.DecodeRuneInString(s[i+1:])
	wordy := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' }
	return wordy(before) && wordy(after)
}
