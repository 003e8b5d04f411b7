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

// ruleBookView is the rule book: policy, people, duty, systems.
type ruleBookView struct {
	Position uint64
	Number   uint32
	Digest   string
	Decision string
	Since    *when
	Groups   []valueGroup
	Systems  []*emergencyv1.CriticalSystem
	Teams    []readyTeam
	People   []listed
	Machines []machine
}

// valueGroup is a part of the policy's numbers.
type valueGroup struct {
	Name   string
	Values []value
}

// value is one number of the policy; Key is its name there.
type value struct{ Key, Text string }

// listed is a person of the directory.
type listed struct {
	*person
	Roles    string
	Keys     []string
	Channels []reached
	Duty     []string
}

// reached tells when a person was last reached on a channel.
type reached struct {
	Channel string
	At      *when
	Failed  *when
}

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
	if d.Teams, err = p.readiness(v); err != nil {
		return nil, err
	}
	for _, x := range answer.GetPersons() {
		d.People = append(d.People, v.listed(x))
	}
	for _, k := range answer.GetSystems() {
		d.Machines = append(d.Machines, machine{k.GetSystemName(), v.enum(k.GetSystem()), k.GetKeyId()})
	}
	return &content{Title: "rulebook.title", Section: "rulebook", Template: "rulebook", Data: d}, nil
}

func (v *viewer) listed(x *dashboardv1.DirectoryEntry) listed {
	out := listed{person: v.person(x.GetPerson()), Roles: v.roles(x.GetRoles()), Keys: x.GetKeyIds()}
	for _, c := range v.book.Contacts(x.GetPerson()) {
		r := v.book.Reachability(x.GetPerson(), c.GetChannel())
		out.Channels = append(out.Channels, reached{c.GetChannel(), v.when(r.Reached), v.when(r.Failed)})
	}
	for _, t := range []emergencyv1.Team{
		emergencyv1.Team_TEAM_CRITICAL, emergencyv1.Team_TEAM_ASSESSMENT, emergencyv1.Team_TEAM_DEVELOPMENT, emergencyv1.Team_TEAM_TESTING,
	} {
		if slices.Contains(v.book.OnDuty(t, v.now), x.GetPerson()) {
			out.Duty = append(out.Duty, v.enum(t))
		}
	}
	return out
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

// systemView is what the process knows of itself.
type systemView struct {
	Process
	Owners    []owner
	Foreign   int
	Applied   uint64
	Lag       uint64
	Parked    []parked
	Failing   []failing
	Incidents int
	Events    uint64
	Sessions  int
}

// owner is one of the services and how many records have effects of it that are not finished.
type owner struct {
	Name    string
	Waiting int
}

// parked is an incident that a projection could not fold.
type parked struct {
	Event event
	Why   string
}

// failing is a page that did not arrive, in an emergency that is open.
type failing struct {
	call
	Person *person
}

func (p *Pages) system(v *viewer, _ *http.Request) (*content, error) {
	reader, err := p.cfg.Reader()
	if err != nil {
		return nil, err
	}
	d := systemView{Process: p.cfg.Process(v.ctx), Foreign: reader.Foreign(), Applied: reader.Mark().Sequence, Sessions: p.sessions.count()}
	if d.Stored > d.Applied {
		d.Lag = d.Stored - d.Applied
	}
	for _, name := range procedure.Owners() {
		d.Owners = append(d.Owners, owner{name, d.Waiting[name]})
	}
	var ids []string
	p.cfg.Incidents.Each(func(st *procedure.State) {
		ids = append(ids, st.Incident)
		d.Incidents, d.Events = d.Incidents+1, d.Events+st.Position
		if st.Status == procedure.Open {
			d.Failing = append(d.Failing, v.failing(st)...)
		}
	})
	for _, id := range ids {
		if from, err := p.cfg.Incidents.Parked(id); err != nil {
			d.Parked = append(d.Parked, parked{event{id, from}, err.Error()})
		}
	}
	return &content{Title: "system.title", Section: "system", Template: "system", Data: d}, nil
}

// failing are the pages that failed, or of which nothing is known.
func (v *viewer) failing(st *procedure.State) []failing {
	var list []failing
	for _, pg := range st.Pages {
		state := strings.TrimPrefix(pg.State.String(), "DELIVERY_STATE_")
		if state == "FAILED" || state == "UNKNOWN" {
			list = append(list, failing{call{Channel: pg.Channel, Badge: v.badge(bad, "delivery", state), Detail: pg.Detail, Event: event{st.Incident, pg.Position}, At: v.when(pg.SentAt)}, v.person(pg.Person)})
		}
	}
	return list
}
