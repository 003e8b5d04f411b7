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
type veil struct{ pattern *regexp.Regexp }

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
	if len(hidden) == 0 {
		return veil{}
	}
	slices.SortStableFunc(hidden, func(a, b string) int { return len(b) - len(a) }) // www1-test before www1
	for i, h := range hidden {
		hidden[i] = regexp.QuoteMeta(h)
	}
	return veil{regexp.MustCompile(`(?i)(^|[^\pL\pN_.-])(` + strings.Join(hidden, "|") + `)($|[^\pL\pN_-])`)}
}

const covered = "[not public]"

// over covers whole words; it runs twice because two names may share the space between them.
func (v veil) over(text string) string {
	if v.pattern == nil {
		return text
	}
	for range 2 {
		text = v.pattern.ReplaceAllString(text, "${1}"+covered+"${3}")
	}
	return text
}
