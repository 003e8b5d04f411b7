// SPDX-License-Identifier: Apache-2.0

package publog

import (
	"regexp"
	"slices"
	"strings"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// veil covers persons and hosts that somebody wrote into a public text: the entry may hold neither (procedure.md 8.2, 8.4).
type veil struct{ hidden []string } // longest first, so that www1-test comes before www1

// veilOf knows everybody who has a part in the incident, and its machines.
func veilOf(s *procedure.State, rec *emergencyv1.Record) veil {
	hidden := append([]string{rec.GetActor().GetPerson(), s.Declared.By, s.Host(), s.TestEnvironment()}, s.Acted...)
	for _, p := range s.Pages {
		hidden = append(hidden, p.Person)
	}
	for _, sl := range s.Slots {
		hidden = append(hidden, sl.Person, sl.HandoverTo)
	}
	for _, r := range s.Revisions {
		hidden = append(hidden, r.Author)
	}
	slices.Sort(hidden)
	hidden = slices.Compact(hidden)
	hidden = slices.DeleteFunc(hidden, func(h string) bool { return len(h) < 2 })
	slices.SortStableFunc(hidden, func(a, b string) int { return len(b) - len(a) })
	return veil{hidden}
}

// pattern matches the hidden words that stand in a text in any case; nil for a text that holds none, which most do.
func (v veil) pattern(text string) *regexp.Regexp {
	folded := fold(text)
	var found []string
	for _, h := range v.hidden {
		if strings.Contains(folded, fold(h)) {
			found = append(found, regexp.QuoteMeta(h))
		}
	}
	if len(found) == 0 {
		return nil
	}
	return regexp.MustCompile(`(?i)(^|[^\pL\pN_.-])(` + strings.Join(found, "|") + `)($|[^\pL\pN_-])`)
}

// fold makes everything equal that (?i) takes for equal; some letters meet only in upper case.
func fold(s string) string { return strings.ToLower(strings.ToUpper(s)) }

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
