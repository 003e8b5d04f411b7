// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// fields collects the first thing that is wrong with a command's form (G2), or everything for a form that is being filled in.
type fields struct {
	refusal *Refusal
	all     bool
	wrong   []WrongField
}

// want refuses with the field's name and what it must be, unless ok.
func (f *fields) want(ok bool, field, must string, args ...any) {
	if ok || f.refusal != nil {
		return
	}
	if f.all {
		f.wrong = append(f.wrong, WrongField{field, fmt.Sprintf(must, args...)})
		return
	}
	f.refusal = refuse(ReasonField, "field %s must be %s", field, fmt.Sprintf(must, args...)).allow("", field, "correct %s", field)
}

// listLimit bounds every list of a command.
const listLimit = 10_000

// values bounds every text and list of a message, refuses control characters other than line ends and tabs, and values of
// an enumeration that this version does not know. In the order of the fields, so that the answer is always the same.
func (f *fields) values(m protoreflect.Message) {
	list := m.Descriptor().Fields()
	for i := 0; i < list.Len() && f.refusal == nil; i++ {
		fd := list.Get(i)
		if !m.Has(fd) {
			continue
		}
		if !fd.IsList() {
			f.value(fd, m.Get(fd))
			continue
		}
		entries := m.Get(fd).List()
		f.want(entries.Len() <= listLimit, string(fd.Name()), "at most %d entries", listLimit)
		for j := 0; j < entries.Len() && f.refusal == nil; j++ {
			f.value(fd, entries.Get(j))
		}
	}
}

func (f *fields) value(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch {
	case fd.Kind() == protoreflect.StringKind:
		f.text(string(fd.Name()), v.String())
	case fd.Enum() != nil:
		f.want(fd.Enum().Values().ByNumber(v.Enum()) != nil, string(fd.Name()), "a value that this version knows")
	case fd.Message() != nil:
		f.values(v.Message())
	}
}

func (f *fields) text(name, s string) {
	f.want(len(s) <= textLimit, name, "at most %d bytes", textLimit)
	f.want(utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }), name, "text without control characters")
}

func (f *fields) binding(b *emergencyv1.Binding) {
	f.want(b.GetRevision() != "", "binding.revision", "a revision such as P1r1")
	f.want(digestForm.MatchString(b.GetDigest()), "binding.digest", "64 lower-case hex digits")
}

func (f *fields) reason(s string, least int) { f.said("reason", s, least) }

func (f *fields) said(name, s string, least int) {
	f.want(utf8.RuneCountInString(strings.TrimSpace(s)) >= least, name, "at least %d characters", least)
}

func (f *fields) word(name, s string) { f.want(wordForm.MatchString(s), name, "a short word") }

func (f *fields) optionalWord(name, s string) {
	f.want(s == "" || wordForm.MatchString(s), name, "a short word, or empty")
}

func (f *fields) tree(name, s string) {
	f.want(treeForm.MatchString(s), name, "a git tree id, sha1: or sha256: and lower-case hex")
}

// another names the persons who hold one of the roles, but for whoever was refused.
func (d *decision) another(list ...emergencyv1.Role) string {
	var names []string
	for _, r := range list {
		for _, p := range d.env.Book.PersonsWith(r, d.env.Now) {
			if p != d.person && !slices.Contains(names, p) {
				names = append(names, p)
			}
		}
	}
	if len(names) == 0 {
		return "another " + roleList(list) + " (there is no other now)"
	}
	return "another " + roleList(list) + ": " + strings.Join(names, ", ")
}

// whoHas names the persons who hold one of the roles, for the reader of a refusal.
func (d *decision) whoHas(list []emergencyv1.Role) string {
	var names []string
	for _, r := range list {
		for _, p := range d.env.Book.PersonsWith(r, d.env.Now) {
			if !slices.Contains(names, p) {
				names = append(names, p)
			}
		}
	}
	if len(names) == 0 {
		return roleList(list) + " (nobody holds that role now)"
	}
	return roleList(list) + ": " + strings.Join(names, ", ")
}

func roleWord(r emergencyv1.Role) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_")), "_", " ")
}

// RoleWord is a role in words, such as "critical admin".
func RoleWord(r emergencyv1.Role) string { return roleWord(r) }

func roleList(list []emergencyv1.Role) string {
	words := make([]string, len(list))
	for i, r := range list {
		words[i] = roleWord(r)
	}
	if len(words) == 0 {
		return "the system itself"
	}
	return strings.Join(words, " or ")
}

func systemWord(k emergencyv1.SystemKind) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(k.String(), "SYSTEM_KIND_")), "_", " ")
}

func controlWord(c emergencyv1.Control) string {
	return "the " + strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(c.String(), "CONTROL_")), "_", " ")
}

func deviationWord(v emergencyv1.Deviation) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(v.String(), "DEVIATION_")), "_", " ")
}

func teamWord(t emergencyv1.Team) string {
	return strings.ToLower(strings.TrimPrefix(t.String(), "TEAM_"))
}

// TeamWord is a team in words, such as "critical".
func TeamWord(t emergencyv1.Team) string { return teamWord(t) }

func statusWord(s Status) string { return strings.ReplaceAll(strings.ToLower(string(s)), "_", " ") }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

func short(id string) string { return id[:min(12, len(id))] }
