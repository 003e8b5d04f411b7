// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"strconv"

	"cacert.org/emergency/pkg/procedure"
)

// standing is one thing that is true of an emergency at a moment, and that may be otherwise a record later.
type standing struct{ What, Value string }

// turned is a fact that a record changed; From or To is empty for one that was not there before, or is not after it.
type turned struct{ What, From, To string }

// facts are what an emergency's page says first, in its order.
func (v *viewer) facts(st *procedure.State) []standing {
	if st == nil || st.Position == 0 {
		return nil
	}
	list := []standing{{v.say("fact.status"), v.say("status." + string(st.Status))}, {v.say("strategy.word"), strconv.Itoa(int(st.Strategy))}}
	if n := v.next(st); n != nil {
		text := n.What
		for i, p := range n.Persons {
			text += map[bool]string{true: " · ", false: ", "}[i == 0] + p.Name
		}
		list = append(list, standing{v.say("fact.next"), text})
	}
	taken := 0
	for _, sl := range st.Slots {
		if sl.State == procedure.SlotAccepted || sl.State == procedure.SlotStandby {
			taken++
		}
	}
	list = append(list, standing{v.say("fact.slots"), fmt.Sprintf("%d/%d", taken, len(st.Slots))})
	for i := range st.Revisions {
		list = append(list, standing{st.Revisions[i].ID, v.say("revision." + procedure.RevisionState(st, &st.Revisions[i]))})
	}
	for i, a := range st.Applies {
		list = append(list, standing{fmt.Sprintf("%s · %s · %d", a.Revision, a.Host, i+1), v.say("apply." + string(a.State))})
	}
	for _, g := range st.Grants {
		list = append(list, standing{g.ID, v.say("grant." + string(g.State))})
	}
	for _, x := range st.Disputes {
		list = append(list, standing{x.ID, v.say("dispute." + string(x.State(st.RecordedAt)))})
	}
	open, overdue := 0, 0
	for _, o := range procedure.Debts(st) {
		if o.Open() {
			open++
		}
		if o.Overdue(st.RecordedAt) {
			overdue++
		}
	}
	return append(list, standing{v.say("fact.owed"), strconv.Itoa(open)}, standing{v.say("fact.overdue"), strconv.Itoa(overdue)}, standing{v.say("deviations.title"), strconv.Itoa(len(st.Deviations))})
}

// turns compares two moments.
func turns(before, after []standing) []turned {
	value := func(list []standing, what string) string {
		for _, f := range list {
			if f.What == what {
				return f.Value
			}
		}
		return ""
	}
	var list []turned
	for _, f := range after {
		if from := value(before, f.What); from != f.Value {
			list = append(list, turned{f.What, from, f.Value})
		}
	}
	for _, f := range before {
		if value(after, f.What) == "" {
			list = append(list, turned{f.What, f.Value, ""})
		}
	}
	return list
}
