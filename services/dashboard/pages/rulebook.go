// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// ruleBookView is the rule book without its people: policy and systems.
type ruleBookView struct {
	Position uint64
	Number   uint32
	Digest   string
	Decision string
	Since    *when
	Groups   []valueGroup
	Systems  []*emergencyv1.CriticalSystem
	Machines []machine
	Typed    []typedCommand
}

// typedCommand is a command that no page has a form for: who gives it, and what to type.
type typedCommand struct{ Name, Roles, Line string }

// valueGroup is a part of the policy's numbers.
type valueGroup struct {
	Name   string
	Values []value
}

// value is one number of the policy; Key is its name there.
type value struct{ Key, Text string }

// machine is a system with a key.
type machine struct{ Name, Kind, Key string }

func (p *Pages) ruleBook(v *viewer, _ *http.Request) (*content, error) {
	answer, err := p.cfg.Query.ReadRuleBook(v.ctx, &dashboardv1.ReadRuleBookRequest{})
	if err != nil {
		return nil, err
	}
	d := ruleBookView{
		Position: answer.GetPosition(), Number: answer.GetPolicy().GetNumber(), Digest: answer.GetPolicyDigest(), Decision: answer.GetPolicy().GetBoardDecision(),
		Since: v.moment(answer.GetPolicy().GetEffectiveAt()), Groups: v.values(answer.GetPolicy().GetValues()), Systems: answer.GetPolicy().GetSystems(),
	}
	for _, k := range answer.GetSystems() {
		d.Machines = append(d.Machines, machine{k.GetSystemName(), v.enum(k.GetSystem()), k.GetKeyId()})
	}
	for _, c := range procedure.Commands() {
		if line := p.cfg.Typed(c.Name, "", ""); line != "" && !givenInPages(c) {
			d.Typed = append(d.Typed, typedCommand{v.command(c.Name, ""), v.roles(c.Roles), line})
		}
	}
	return &content{Title: "rulebook.title", Section: "rulebook", Template: "rulebook", Data: d}, nil
}

// values groups the policy's numbers by the first word of their keys; single ones are together.
func (v *viewer) values(list []*emergencyv1.PolicyValue) []valueGroup {
	var groups []valueGroup
	for _, x := range list {
		name := "other"
		if first, _, has := strings.Cut(x.GetKey(), "."); has && slices.Contains([]string{"s1", "team", "callout", "standby", "unreachable", "watch", "session"}, first) {
			name = first
		}
		i := slices.IndexFunc(groups, func(g valueGroup) bool { return g.Name == v.say("policy."+name) })
		if i < 0 {
			groups = append(groups, valueGroup{Name: v.say("policy." + name)})
			i = len(groups) - 1
		}
		groups[i].Values = append(groups[i].Values, value{x.GetKey(), v.number(x)})
	}
	return groups
}

// counts are the keys of the policy whose values are no times.
func isCount(key string) bool {
	return strings.Contains(key, ".slots.") || slices.Contains([]string{
		"review.quorum", "test.quorum", "test.min_after_waiver", "joint.persons", "callout.channels_min", "unreachable.min_rounds", "unreachable.min_channels",
	}, key)
}

func (v *viewer) number(x *emergencyv1.PolicyValue) string {
	if isCount(x.GetKey()) {
		return v.say("count.plain", x.GetValue())
	}
	return v.period(time.Duration(x.GetValue()) * time.Second)
}

// period is a time of the policy in its largest whole unit.
func (v *viewer) period(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		key  string
	}{{24 * time.Hour, "period.days"}, {time.Hour, "period.hours"}, {time.Minute, "period.minutes"}, {time.Second, "period.seconds"}} {
		if d >= u.unit && d%u.unit == 0 && (u.unit != 24*time.Hour || d > u.unit) {
			return v.say(u.key, int64(d/u.unit))
		}
	}
	return v.took(d)
}
