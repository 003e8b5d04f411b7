// SPDX-License-Identifier: Apache-2.0

package publog

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// veil covers persons and hosts that somebody wrote into a public text: the entry may hold neither (procedure.md 8.2, 8.4).
type veil struct{ d *draft }

func (d *draft) veil() veil { return veil{d} }

// hides calls fn with everybody who has a part in the incident, and its machines: in any order, some of them twice or empty.
func (v veil) hides(fn func(string)) {
	s, rec := v.d.before, v.d.rec
	for _, h := range []string{rec.GetActor().GetPerson(), s.Declared.By, s.Host(), s.TestEnvironment()} {
		fn(h)
	}
	for _, list := range [][]string{s.Acted, v.d.named, v.d.names()} {
		for _, h := range list {
			fn(h)
		}
	}
	for i := range s.Pages {
		fn(s.Pages[i].Person)
	}
	for i := range s.Slots {
		fn(s.Slots[i].Person)
		fn(s.Slots[i].HandoverTo)
	}
	for i := range s.Revisions {
		fn(s.Revisions[i].Author)
	}
}

// names are the persons and machines that the event names.
func (d *draft) names() []string {
	if d.namedHere == nil {
		d.namedHere = namesOf(d.payload.ProtoReflect(), []string{})
	}
	return d.namedHere
}

// naming are the fields of events that hold a person's id or the name of a machine.
func naming(field string) bool {
	switch field {
	case "person", "subject", "watcher", "executor", "observer", "author", "reviewer", "tester", "raised_by", "to", "from",
		"filed_by", "case_manager", "candidate", "arbitrator", "members", "senior", "requested_by", "real_actor",
		"host", "environment":
		return true
	}
	return false
}

// namesOf lists the persons and machines that a message names, wherever in it.
func namesOf(m protoreflect.Message, list []string) []string {
	for fields, i := m.Descriptor().Fields(), 0; i < fields.Len(); i++ {
		fd := fields.Get(i)
		text := fd.Kind() == protoreflect.StringKind && naming(string(fd.Name()))
		if !text && fd.Message() == nil || !m.Has(fd) {
			continue
		}
		switch v := m.Get(fd); {
		case fd.IsList():
			for i := range v.List().Len() {
				if text {
					list = append(list, v.List().Get(i).String())
				} else {
					list = namesOf(v.List().Get(i).Message(), list)
				}
			}
		case text:
			list = append(list, v.String())
		default: // events have no map fields (style 3)
			list = namesOf(v.Message(), list)
		}
	}
	return list
}

// pattern matches the hidden words that stand in a text in any case; nil for a text that holds none, which most do.
func (v veil) pattern(text string) *regexp.Regexp {
	folded := fold(text)
	var found []string
	v.hides(func(h string) {
		if len(h) > 1 && strings.Contains(folded, fold(h)) {
			found = append(found, h)
		}
	})
	if len(found) == 0 {
		return nil
	}
	slices.Sort(found)
	found = slices.Compact(found)
	slices.SortStableFunc(found, func(a, b string) int { return len(b) - len(a) }) // so that www1-test comes before www1
	for i, h := range found {
		found[i] = regexp.QuoteMeta(h)
	}
	return regexp.MustCompile(`(?i)(^|[^\pL\pN_.-])(` + strings.Join(found, "|") + `)($|[^\pL\pN_-])`)
}

// fold makes everything equal that (?i) takes for equal; some letters meet only in upper case.
func fold(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return strings.ToLower(strings.ToUpper(s))
		}
	}
	return strings.ToLower(s)
}

const covered = "[not public]"

// over covers whole words; it runs twice because two names may share the space between them.
func (v veil) over(text string) string {
	pattern := v.pattern(text)
	if pattern == nil {
		return text
	}
	for range 2 {
		text = pattern.ReplaceAllString(text, "${1}"+covered+"${3}")
	}
	return text
}
