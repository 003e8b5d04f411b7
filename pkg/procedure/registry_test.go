// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const (
	roleCA = emergencyv1.Role_ROLE_CRITICAL_ADMIN
	roleSA = emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR
	roleTE = emergencyv1.Role_ROLE_TESTER
	roleCL = emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD
	roleAL = emergencyv1.Role_ROLE_ASSESSMENT_TEAM_LEAD
	roleAE = emergencyv1.Role_ROLE_ACCESS_ENGINEER
	roleSU = emergencyv1.Role_ROLE_SUPPORT_ENGINEER
	roleBD = emergencyv1.Role_ROLE_BOARD
)

func TestEstablish(t *testing.T) {
	t.Parallel()
	establish := func(change func(*emergencyv1.EstablishRequest)) procedure.Command {
		return with(pt.Establish(), change)
	}
	grant := func(person string, role emergencyv1.Role) procedure.Command {
		return establish(func(c *emergencyv1.EstablishRequest) {
			c.Grants = append(c.Grants, &emergencyv1.RoleGrant{Person: person, Role: role})
		})
	}
	key := func(change func(*emergencyv1.Key)) procedure.Command {
		return establish(func(c *emergencyv1.EstablishRequest) { change(c.Keys[0]) })
	}
	for _, r := range []row{
		{name: "an empty policy", when: establish(func(c *emergencyv1.EstablishRequest) { c.Policy = nil }), by: "service", refused: procedure.ReasonPolicyInvalid},
		{name: "no Board decision", when: establish(func(c *emergencyv1.EstablishRequest) { c.BoardDecision = "" }), by: "service", refused: procedure.ReasonField},
		{name: "no persons", when: establish(func(c *emergencyv1.EstablishRequest) { c.Persons, c.Grants, c.Keys = nil, nil, nil }), by: "service", refused: procedure.ReasonField},
		{name: "a role for somebody not listed", when: grant("ghost", roleTE), by: "service", refused: procedure.ReasonField},
		{name: "X1 admin and assessor", when: grant("anna", roleCA), by: "service", refused: procedure.ReasonRoleExclusivity},
		{name: "X1 through the lead", when: grant("anna", roleCL), by: "service", refused: procedure.ReasonRoleExclusivity},
		{name: "X2 access engineer and tester", when: grant("theo", roleAE), by: "service", refused: procedure.ReasonRoleExclusivity},
		{name: "X3 support and admin", when: grant("sven", roleCA), by: "service", refused: procedure.ReasonRoleExclusivity},
		{name: "X3 support and access engineer", when: grant("sven", roleAE), by: "service", refused: procedure.ReasonRoleExclusivity},
		{name: "a key twice", when: establish(func(c *emergencyv1.EstablishRequest) { c.Keys = append(c.Keys, c.Keys[0]) }), by: "service", refused: procedure.ReasonKeyExists},
		{name: "a key id of another key", when: key(func(k *emergencyv1.Key) { k.KeyId = pt.KeyOf("anna").ID }), by: "service", refused: procedure.ReasonField},
		{name: "a key of nobody", when: key(func(k *emergencyv1.Key) { k.Person = "" }), by: "service", refused: procedure.ReasonField},
		{name: "a key of a person and a system", when: key(func(k *emergencyv1.Key) { k.System = emergencyv1.SystemKind_SYSTEM_KIND_TIMER }), by: "service", refused: procedure.ReasonField},
		{name: "a key of a system without a name", when: key(func(k *emergencyv1.Key) { k.Person, k.System = "", emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT }), by: "service", refused: procedure.ReasonField},
		{name: "by a person", when: pt.Establish(), by: "bea", refused: procedure.ReasonKeyUnknown},
		{name: "by the timer", when: pt.Establish(), by: "timer", refused: procedure.ReasonRole},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.play(t, pt.GivenWorld(t, pt.NewRuleBook(t)).Counting(seen))
		})
	}
	t.Run("founds it", func(t *testing.T) {
		t.Parallel()
		out := pt.NewRuleBook(t).Do("service", pt.Establish())
		if out.Types()[0] != "arbitration.PolicyPublished" {
			t.Errorf("events %v", out.Types())
		}
	})
	runRuleBook(t, []row{
		{name: "only once", when: pt.Establish(), by: "service", refused: procedure.ReasonRuleBookExists},
		{name: "is about the rule book", when: establish(func(c *emergencyv1.EstablishRequest) { c.Meta = &emergencyv1.CommandMeta{Incident: "e20261124.1"} }), by: "service", refused: procedure.ReasonField},
	})
	t.Run("counted", func(t *testing.T) {
		t.Parallel()
		c := with(pt.Establish(), func(c *emergencyv1.EstablishRequest) { c.Grants, c.Keys, c.Persons = nil, nil, []string{"bea"} })
		pt.GivenWorld(t, pt.NewRuleBook(t)).Counting(seen).When(c).By("service").Then("PolicyPublished", "PersonListed")
	})
}

// TestExclusivity is 2.3 (b): every command under one of the exclusive roles, whatever else the person holds.
func TestExclusivity(t *testing.T) {
	t.Parallel()
	grants := func(person string, roles ...emergencyv1.Role) pt.Step {
		return func(w *pt.World) {
			for _, r := range roles {
				w.Append(procedure.OwnerArbitration, "Import", &emergencyv1.RoleGranted{Grant: &emergencyv1.RoleGrant{Person: person, Role: r, EffectiveAt: stampOf(pt.Founded()), BoardDecision: "m1"}})
			}
		}
	}
	server, declared := pt.Story(pt.OnTestServer), pt.Story(pt.Declared)
	run(t, []row{
		{name: "X2 a tester is access engineer", given: history(server, book(grants("theo", roleAE))), when: pt.Test(pass), by: "theo", refused: procedure.ReasonRoleExclusivity},
		{name: "X2 even with two further roles", given: history(server, book(grants("vera", roleAE))), when: pt.Test(pass), by: "vera", refused: procedure.ReasonRoleExclusivity},
		{name: "X1 through the lead", given: history(declared, book(grants("clara", roleSA))), when: note(), by: "clara", refused: procedure.ReasonRoleExclusivity},
		{name: "X3 support and admin", given: history(declared, book(grants("sven", roleCA))), when: note(), by: "sven", refused: procedure.ReasonRoleExclusivity},
		{name: "a role that is not one of them", given: history(server, book(grants("xaver", roleTE))), when: pt.Test(pass), by: "xaver", then: events("TestReported")},
		{name: "assessor and tester do not exclude each other", given: history(server), when: pt.Test(pass), by: "vera", then: events("TestReported")},
		{name: "every listed person is a member", given: history(declared), when: note(), by: "axel", refused: procedure.ReasonRole},
	})
	for _, x := range []struct {
		roles    []emergencyv1.Role
		conflict bool
	}{
		{nil, false}, {[]emergencyv1.Role{roleCA, roleBD, roleTE}, false}, {[]emergencyv1.Role{roleSA, roleTE, roleSU}, false},
		{[]emergencyv1.Role{emergencyv1.Role_ROLE_MEMBER, roleAE}, false}, {[]emergencyv1.Role{roleTE, roleSA, roleAL, roleCL}, true}, {[]emergencyv1.Role{roleSU, roleTE, roleCL}, true},
	} {
		if _, _, got := procedure.Exclusive(x.roles); got != x.conflict {
			t.Errorf("%v: conflict %v", x.roles, got)
		}
	}
}

func TestGrantRole(t *testing.T) {
	t.Parallel()
	grant := func(person string, role emergencyv1.Role, change func(*emergencyv1.RoleGrant)) procedure.Command {
		g := &emergencyv1.RoleGrant{Person: person, Role: role, EffectiveAt: stampOf(pt.Founded()), BoardDecision: "m20261101.1"}
		if change != nil {
			change(g)
		}
		return &emergencyv1.GrantRoleRequest{Grant: g}
	}
	at := func(d time.Duration) func(*emergencyv1.RoleGrant) {
		return func(g *emergencyv1.RoleGrant) { g.EffectiveAt = stampOf(pt.Founded().Add(d)) }
	}
	holds := func(person string, role emergencyv1.Role, after time.Duration, want bool) func(*testing.T, *pt.World) {
		return func(t *testing.T, w *pt.World) {
			t.Helper()
			if got := w.Book.Has(person, role, pt.Founded().Add(after)); got != want {
				t.Errorf("%s holds %s after %s: %v", person, role, after, got)
			}
		}
	}
	hour := time.Hour
	runRuleBook(t, []row{
		{name: "to somebody listed", when: grant("mia", roleTE, nil), by: "bea", then: events("RoleGranted"), check: holds("mia", roleTE, 0, true)},
		{name: "to somebody new", when: grant("nina", roleTE, nil), by: "bea", then: events("PersonListed", "RoleGranted"), check: holds("nina", roleTE, 0, true)},
		{name: "from later on", when: grant("mia", roleTE, at(hour)), by: "bea", then: events("RoleGranted"), check: func(t *testing.T, w *pt.World) {
			holds("mia", roleTE, hour-1, false)(t, w)
			holds("mia", roleTE, hour, true)(t, w)
		}},
		{name: "the lead is of the team", when: grant("mia", roleCL, nil), by: "bea", then: events("RoleGranted"), check: holds("mia", roleCA, 0, true)},
		{name: "by a lead", when: grant("mia", roleTE, nil), by: "clara", refused: procedure.ReasonRole},
		{name: "X4 no Board decision", when: grant("mia", roleTE, func(g *emergencyv1.RoleGrant) { g.BoardDecision = "" }), by: "bea", refused: procedure.ReasonBoardDecisionMissing},
		{name: "back-dated", when: grant("mia", roleTE, at(-hour)), by: "bea", refused: procedure.ReasonField},
		{name: "by a clock a little behind", when: grant("mia", roleTE, at(-2*time.Minute)), by: "bea", then: events("RoleGranted")},
		{name: "X1", when: grant("anna", roleCA, nil), by: "bea", refused: procedure.ReasonRoleExclusivity},
		{name: "X1 from later on", when: grant("anna", roleCA, at(hour)), by: "bea", refused: procedure.ReasonRoleExclusivity},
		{name: "X1 with a role that only begins later", given: history(pt.Does("bea", grant("mia", roleSA, at(hour)))), when: grant("mia", roleCA, nil), by: "bea", refused: procedure.ReasonRoleExclusivity},
		{name: "X1 with a role that has ended by then", given: history(pt.Does("bea", revokeRole("anna", roleSA, pt.Founded().Add(hour)))), when: grant("anna", roleCA, at(hour)), by: "bea", then: events("RoleGranted")},
		{name: "X1 with a role that ends after", given: history(pt.Does("bea", revokeRole("anna", roleSA, pt.Founded().Add(hour)))), when: grant("anna", roleCA, at(hour-1)), by: "bea", refused: procedure.ReasonRoleExclusivity},
		{name: "X3", when: grant("sven", roleCA, nil), by: "bea", refused: procedure.ReasonRoleExclusivity},
		{name: "member is not granted", when: grant("mia", emergencyv1.Role_ROLE_MEMBER, nil), by: "bea", refused: procedure.ReasonField},
		{name: "no date", when: grant("mia", roleTE, func(g *emergencyv1.RoleGrant) { g.EffectiveAt = nil }), by: "bea", refused: procedure.ReasonField},
		{name: "nobody", when: grant("", roleTE, nil), by: "bea", refused: procedure.ReasonField},

		{name: "revoked", when: revokeRole("anna", roleSA, pt.Founded().Add(hour)), by: "bea", then: events("RoleRevoked"), check: func(t *testing.T, w *pt.World) {
			holds("anna", roleSA, hour-1, true)(t, w)
			holds("anna", roleSA, hour, false)(t, w)
		}},
		{name: "revoked earlier after all", given: history(pt.Does("bea", revokeRole("anna", roleSA, pt.Founded().Add(hour)))), when: revokeRole("anna", roleSA, pt.Founded()), by: "bea", then: events("RoleRevoked"), check: holds("anna", roleSA, 0, false)},
		{name: "revoked, ended already", given: history(pt.Does("bea", revokeRole("anna", roleSA, pt.Founded()))), when: revokeRole("anna", roleSA, pt.Founded().Add(hour)), by: "bea", refused: procedure.ReasonField},
		{name: "revoked, never held", when: revokeRole("mia", roleSA, pt.Founded()), by: "bea", refused: procedure.ReasonField},
		{name: "revoked, comes with the lead's", when: revokeRole("clara", roleCA, pt.Founded()), by: "bea", refused: procedure.ReasonField},
		{name: "revoked without a Board decision", when: with(revokeRole("anna", roleSA, pt.Founded()).(*emergencyv1.RevokeRoleRequest), func(c *emergencyv1.RevokeRoleRequest) { c.BoardDecision = "" }), by: "bea", refused: procedure.ReasonBoardDecisionMissing},
		{name: "revoked back-dated", when: revokeRole("anna", roleSA, pt.Founded().Add(-hour)), by: "bea", refused: procedure.ReasonField},
	})
}

func TestKeys(t *testing.T) {
	t.Parallel()
	keyFor := func(name, person string) *emergencyv1.AddKeyRequest {
		return &emergencyv1.AddKeyRequest{Key: &emergencyv1.Key{KeyId: pt.KeyOf(name).ID, PublicKey: pt.KeyOf(name).Public, Person: person}}
	}
	machine := with(keyFor("host:new", ""), func(c *emergencyv1.AddKeyRequest) {
		c.Key.System, c.Key.SystemName = emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT, "new"
	})
	revoke := func(name string) *emergencyv1.RevokeKeyRequest {
		return &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf(name).ID, Reason: "lost in the train"}
	}
	gone := pt.Does("anna", revoke("anna2"))
	runRuleBook(t, []row{
		{name: "one's own", when: keyFor("new", "anna"), by: "anna", then: events("KeyAdded"), check: func(t *testing.T, w *pt.World) {
			if n := len(w.Book.KeysOf("anna", w.Now)); n != 3 {
				t.Errorf("anna has %d keys", n)
			}
		}},
		{name: "another's", when: keyFor("new", "bert"), by: "anna", refused: procedure.ReasonRole},
		{name: "another's, by the Board", when: keyFor("new", "bert"), by: "bea", then: events("KeyAdded")},
		{name: "a machine's", when: machine, by: "anna", refused: procedure.ReasonRole},
		{name: "a machine's, by the Board", when: machine, by: "bea", then: events("KeyAdded")},
		{name: "of somebody not listed", when: keyFor("new", "ghost"), by: "bea", refused: procedure.ReasonField},
		{name: "that another has", when: keyFor("bert", "anna"), by: "anna", refused: procedure.ReasonKeyExists},
		{name: "that one has", when: keyFor("anna2", "anna"), by: "anna", refused: procedure.ReasonKeyExists},
		{name: "that was revoked", given: history(gone), when: keyFor("anna2", "anna"), by: "anna", refused: procedure.ReasonKeyExists},
		{name: "under another id", when: with(keyFor("new", "anna"), func(c *emergencyv1.AddKeyRequest) { c.Key.KeyId = pt.KeyOf("bert").ID }), by: "anna", refused: procedure.ReasonField},
		{name: "no key", when: &emergencyv1.AddKeyRequest{}, by: "anna", refused: procedure.ReasonField},

		{name: "revoked by its person", when: revoke("anna2"), by: "anna", then: events("KeyRevoked")},
		{name: "revoked by the Board", when: revoke("anna2"), by: "bea", then: events("KeyRevoked")},
		{name: "revoked by another", when: revoke("anna2"), by: "bert", refused: procedure.ReasonRole},
		{name: "revoked twice", given: history(gone, pt.Waits(time.Hour)), when: revoke("anna2"), by: "bea", refused: procedure.ReasonKeyRevoked},
		{name: "revoked, unknown", when: revoke("ghost"), by: "bea", refused: procedure.ReasonKeyUnknown},
		{name: "revoked without a reason", when: &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf("anna2").ID}, by: "anna", refused: procedure.ReasonField},
	})
}

func TestPublishPolicy(t *testing.T) {
	t.Parallel()
	next := func(second string, change func(*emergencyv1.Policy)) func(*testing.T) procedure.Command {
		return func(t *testing.T) procedure.Command { return pt.NextPolicy(pt.Founding().For(t), second, change) }
	}
	value := func(key string, v int64) func(*emergencyv1.Policy) {
		return func(p *emergencyv1.Policy) {
			for _, x := range p.Values {
				if x.Key == key {
					x.Value = v
				}
			}
		}
	}
	forged := func(change func(*emergencyv1.PublishPolicyRequest)) func(*testing.T) procedure.Command {
		return func(t *testing.T) procedure.Command {
			c := pt.NextPolicy(pt.Founding().For(t), "bruno", nil)
			change(c)
			return c
		}
	}
	for _, x := range []struct {
		name    string
		cmd     func(*testing.T) procedure.Command
		by      string
		refused procedure.Reason
	}{
		{"two of the Board", next("bruno", nil), "bea", ""},
		{"one of the Board and the critical lead", next("clara", nil), "bea", ""},
		{"the critical lead first", next("bea", nil), "clara", procedure.ReasonRole},
		{"one person twice", next("bea", nil), "bea", procedure.ReasonSamePerson},
		{"an admin second", next("carla", nil), "bea", procedure.ReasonRole},
		{"no second", forged(func(c *emergencyv1.PublishPolicyRequest) { c.Second = nil }), "bea", procedure.ReasonField},
		{"second by an unknown key", forged(func(c *emergencyv1.PublishPolicyRequest) { c.Second.KeyId = pt.KeyOf("ghost").ID }), "bea", procedure.ReasonSignature},
		{"second by a revoked key", forged(func(c *emergencyv1.PublishPolicyRequest) { c.Second.KeyId = pt.KeyOf("carl-revoked").ID }), "bea", procedure.ReasonSignature},
		{"second cut", forged(func(c *emergencyv1.PublishPolicyRequest) { c.Second.Signature = c.Second.Signature[1:] }), "bea", procedure.ReasonSignature},
		{"second over another policy", func(t *testing.T) procedure.Command {
			w := pt.Founding().For(t)
			c, o := pt.NextPolicy(w, "bruno", nil), pt.NextPolicy(w, "bruno", value("overall", 3600))
			c.Second = o.Second
			return c
		}, "bea", procedure.ReasonSignature},
		{"second as another role", func(t *testing.T) procedure.Command {
			w := pt.Founding().For(t)
			c := pt.NextPolicy(w, "bruno", nil)
			var st emergencyv1.Statement
			if err := proto.Unmarshal(c.Second.Payload, &st); err != nil {
				t.Fatal(err)
			}
			st.Role = roleCL
			c.Second = pt.KeyOf("bruno").Sign(&st)
			return c
		}, "bea", procedure.ReasonSignature},
		{"the same number", next("bruno", func(p *emergencyv1.Policy) { p.Number-- }), "bea", procedure.ReasonPolicyRollback},
		{"a number left out", next("bruno", func(p *emergencyv1.Policy) { p.Number++ }), "bea", procedure.ReasonPolicyRollback},
		{"another version before", next("bruno", func(p *emergencyv1.Policy) { p.PreviousDigest = strings.Repeat("0", 64) }), "bea", procedure.ReasonPolicyRollback},
		{"no Board decision", next("bruno", func(p *emergencyv1.Policy) { p.BoardDecision = "" }), "bea", procedure.ReasonBoardDecisionMissing},
		{"no test quorum", next("bruno", value("test.quorum", 0)), "bea", procedure.ReasonPolicyInvalid},
		{"no tests at all after a waiver", next("bruno", value("test.min_after_waiver", 0)), "bea", procedure.ReasonPolicyInvalid},
		{"three reviews, which no rule could keep", next("bruno", value("review.quorum", 3)), "bea", procedure.ReasonPolicyInvalid},
		{"a key that is not known", next("bruno", func(p *emergencyv1.Policy) { p.Values[0].Key = "colour" }), "bea", procedure.ReasonPolicyInvalid},
		{"no document", forged(func(c *emergencyv1.PublishPolicyRequest) { c.Policy = nil }), "bea", procedure.ReasonField},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			c := givenRuleBook(t).When(x.cmd(t)).By(x.by)
			if x.refused != "" {
				c.ThenRefused(x.refused)
				return
			}
			w := c.Then("PolicyPublished")
			if p := w.Book.LatestPolicy(); p.Number != 2 || w.Book.PolicyInForce(w.Now) != p {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestRotaAndContacts(t *testing.T) {
	t.Parallel()
	shift := func(person string, change func(*emergencyv1.SetRotaRequest)) procedure.Command {
		c := &emergencyv1.SetRotaRequest{Team: critical, Shifts: []*emergencyv1.Shift{{Team: critical, Person: person, From: stampOf(pt.Founded()), Until: stampOf(pt.Founded().Add(time.Hour))}}}
		if change != nil {
			change(c)
		}
		return c
	}
	planned := func(person string, on uint64) procedure.Command {
		return shift(person, func(c *emergencyv1.SetRotaRequest) { c.PlannedOn = &on })
	}
	address := func(person string) procedure.Command {
		return &emergencyv1.SetContactsRequest{Person: person, Contacts: []*emergencyv1.Contact{{Channel: "sms", Address: "+49 170 1"}}}
	}
	reached := &emergencyv1.RecordReachabilityRequest{Person: "carla", Channel: "sms", Reached: true}
	runRuleBook(t, []row{
		{name: "rota by a lead", when: shift("carla", nil), by: "clara", then: events("RotaChanged"), check: func(t *testing.T, w *pt.World) {
			if on := w.Book.OnDuty(critical, pt.Founded().Add(time.Hour-1)); !slices.Equal(on, []string{"carla"}) {
				t.Errorf("on duty %v", on)
			}
			if on := w.Book.OnDuty(critical, pt.Founded().Add(time.Hour)); len(on) > 0 {
				t.Errorf("on duty at the end of the shift %v", on)
			}
		}},
		{name: "rota by an admin", when: shift("carla", nil), by: "carla", refused: procedure.ReasonRole},
		{name: "rota with somebody of another team", when: shift("theo", nil), by: "clara", refused: procedure.ReasonNotTeamMember},
		{name: "rota that ends before it begins", when: shift("carla", func(c *emergencyv1.SetRotaRequest) { c.Shifts[0].Until = c.Shifts[0].From }), by: "clara", refused: procedure.ReasonField},
		{name: "rota of two teams", when: shift("carla", func(c *emergencyv1.SetRotaRequest) { c.Team = testing_ }), by: "clara", refused: procedure.ReasonField},
		{name: "rota planned on what is there", when: planned("carla", 1000), by: "clara", then: events("RotaChanged"), check: func(t *testing.T, w *pt.World) {
			if r := w.Book.Rota(critical); r.Position != w.Book.Position || r.Position == 0 {
				t.Errorf("set at position %d of %d", r.Position, w.Book.Position)
			}
		}},
		{name: "rota of no team", when: &emergencyv1.SetRotaRequest{}, by: "clara", refused: procedure.ReasonField},
		{name: "contacts, one's own", when: address("theo"), by: "theo", then: events("ContactsChanged"), check: func(t *testing.T, w *pt.World) {
			for _, b := range w.Bytes {
				if strings.Contains(string(b), "+49 170 1") {
					t.Error("an address is in the history")
				}
			}
			if c := w.Book.Contacts("theo"); len(c) != 1 || w.Sealed[c[0].GetAddress().GetCommitment()] != "+49 170 1" {
				t.Errorf("%v", c)
			}
		}},
		{name: "contacts, another's", when: address("tina"), by: "theo", refused: procedure.ReasonRole},
		{name: "contacts, another's by a lead", when: address("tina"), by: "albert", then: events("ContactsChanged")},
		{name: "contacts, no address", when: with(address("theo").(*emergencyv1.SetContactsRequest), func(c *emergencyv1.SetContactsRequest) { c.Contacts[0].Address = "" }), by: "theo", refused: procedure.ReasonField},
		{name: "reached", when: reached, by: "mailer", then: events("ReachabilityRecorded"), check: func(t *testing.T, w *pt.World) {
			if r := w.Book.Reachability("carla", "sms"); !r.Reached.Equal(w.Now) || !r.Failed.IsZero() {
				t.Errorf("%+v", r)
			}
		}},
		{name: "reached, by a person", when: reached, by: "carla", refused: procedure.ReasonRole},
		{name: "reached, nobody", when: &emergencyv1.RecordReachabilityRequest{}, by: "mailer", refused: procedure.ReasonField},
	})
}

// TestRotaOfTwoLeads: of two changes that were planned on the same rota the second is refused, whoever makes it; another team's rota
// and the rest of the rule book do not matter.
func TestRotaOfTwoLeads(t *testing.T) {
	t.Parallel()
	w := givenRuleBook(t).World()
	read := w.Book.Position
	rota := func(team emergencyv1.Team, person string, on *uint64) procedure.Command {
		return &emergencyv1.SetRotaRequest{Team: team, PlannedOn: on, Shifts: []*emergencyv1.Shift{{Team: team, Person: person, From: stampOf(pt.Founded())}}}
	}
	w.Do("albert", rota(testing_, "theo", &read))
	w.Do("clara", rota(critical, "carla", &read))
	out := w.Try("albert", rota(critical, "carl", &read))
	if out.Refusal == nil || out.Refusal.Reason != procedure.ReasonPositionMismatch || out.Refusal.Rule != "4.6 SetRota" || len(out.Refusal.Allow) == 0 {
		t.Fatalf("%+v", out.Refusal)
	}
	if on := w.Book.OnDuty(critical, w.Now); !slices.Equal(on, []string{"carla"}) {
		t.Errorf("on duty %v", on)
	}
	now := w.Book.Position
	w.Do("albert", rota(critical, "carl", &now))
	w.Do("clara", rota(critical, "carla", nil)) // as it is, whatever it was
}
