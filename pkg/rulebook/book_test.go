// SPDX-License-Identifier: Apache-2.0

package rulebook_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const (
	roleCA = emergencyv1.Role_ROLE_CRITICAL_ADMIN
	roleSA = emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR
	roleCL = emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD
	roleAL = emergencyv1.Role_ROLE_ASSESSMENT_TEAM_LEAD
	roleTE = emergencyv1.Role_ROLE_TESTER
	member = emergencyv1.Role_ROLE_MEMBER
)

var t0 = time.Date(2026, 11, 24, 20, 0, 0, 0, time.UTC)

func stamp(after time.Duration) *timestamppb.Timestamp { return timestamppb.New(t0.Add(after)) }

// fold gives a book after events, each recorded a second after the one before, beginning at t0.
func fold(t *testing.T, b *rulebook.Book, payloads ...proto.Message) *rulebook.Book {
	t.Helper()
	for _, p := range payloads {
		position := uint64(0)
		if b != nil {
			position = b.Position
		}
		n, err := b.With(position+1, t0.Add(time.Duration(position)*time.Second), p)
		if err != nil {
			t.Fatal(err)
		}
		b = n
	}
	return b
}

func grant(person string, role emergencyv1.Role, from time.Duration) proto.Message {
	return &emergencyv1.RoleGranted{Grant: &emergencyv1.RoleGrant{Person: person, Role: role, EffectiveAt: stamp(from)}}
}

func revoke(person string, role emergencyv1.Role, from time.Duration) proto.Message {
	return &emergencyv1.RoleRevoked{Person: person, Role: role, EffectiveAt: stamp(from)}
}

func listed(person string) proto.Message { return &emergencyv1.PersonListed{Person: person} }

func TestRoles(t *testing.T) {
	t.Parallel()
	hour := time.Hour
	for _, x := range []struct {
		name   string
		events []proto.Message
		at     time.Duration
		want   []emergencyv1.Role
	}{
		{"not listed", []proto.Message{grant("anna", roleSA, 0)}, hour, nil},
		{"listed", []proto.Message{listed("anna")}, hour, []emergencyv1.Role{member}},
		{"before it holds", []proto.Message{listed("anna"), grant("anna", roleSA, hour)}, hour - 1, []emergencyv1.Role{member}},
		{"from when it holds", []proto.Message{listed("anna"), grant("anna", roleSA, hour)}, hour, []emergencyv1.Role{roleSA, member}},
		{"before it ends", []proto.Message{listed("anna"), grant("anna", roleSA, 0), revoke("anna", roleSA, hour)}, hour - 1, []emergencyv1.Role{roleSA, member}},
		{"when it ends", []proto.Message{listed("anna"), grant("anna", roleSA, 0), revoke("anna", roleSA, hour)}, hour, []emergencyv1.Role{member}},
		{"an earlier end counts", []proto.Message{listed("anna"), grant("anna", roleSA, 0), revoke("anna", roleSA, 2*hour), revoke("anna", roleSA, hour)}, hour, []emergencyv1.Role{member}},
		{"a later end does not", []proto.Message{listed("anna"), grant("anna", roleSA, 0), revoke("anna", roleSA, hour), revoke("anna", roleSA, 2*hour)}, hour, []emergencyv1.Role{member}},
		{"granted again", []proto.Message{listed("anna"), grant("anna", roleSA, 0), revoke("anna", roleSA, hour), grant("anna", roleSA, 2*hour)}, 2 * hour, []emergencyv1.Role{roleSA, member}},
		{"another's end", []proto.Message{listed("anna"), listed("bert"), grant("anna", roleSA, 0), revoke("bert", roleSA, 0)}, hour, []emergencyv1.Role{roleSA, member}},
		{"a lead is of the team", []proto.Message{listed("anna"), grant("anna", roleAL, 0)}, hour, []emergencyv1.Role{roleSA, roleAL, member}},
		{"a critical lead too", []proto.Message{listed("anna"), grant("anna", roleCL, 0)}, hour, []emergencyv1.Role{roleCA, roleCL, member}},
		{"no lead, no team", []proto.Message{listed("anna"), grant("anna", roleCL, 0), revoke("anna", roleCL, hour)}, hour, []emergencyv1.Role{member}},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			b := fold(t, nil, x.events...)
			if got := b.Roles("anna", t0.Add(x.at)); !slices.Equal(got, x.want) {
				t.Errorf("roles %v, want %v", got, x.want)
			}
			for _, r := range []emergencyv1.Role{roleCA, roleSA, roleTE, roleCL, roleAL, member} {
				if b.Has("anna", r, t0.Add(x.at)) != slices.Contains(x.want, r) {
					t.Errorf("Has(%s) differs from Roles", r)
				}
				if slices.Contains(b.PersonsWith(r, t0.Add(x.at)), "anna") != slices.Contains(x.want, r) {
					t.Errorf("PersonsWith(%s) differs from Roles", r)
				}
			}
		})
	}
	t.Run("from a time on", func(t *testing.T) {
		t.Parallel()
		b := fold(t, nil, listed("anna"), grant("anna", roleTE, 0), revoke("anna", roleTE, hour), grant("anna", roleSA, 5*hour))
		for at, want := range map[time.Duration][]emergencyv1.Role{0: {roleSA, roleTE, member}, hour: {roleSA, member}, 9 * hour: {roleSA, member}} {
			if got := b.RolesFrom("anna", t0.Add(at)); !slices.Equal(got, want) {
				t.Errorf("from %s: %v, want %v", at, got, want)
			}
		}
		if b.Granted("anna", roleTE, t0.Add(hour)) || !b.Granted("anna", roleTE, t0) || !b.Granted("anna", roleSA, t0) || b.Granted("anna", roleAL, t0) {
			t.Error("Granted")
		}
	})
}

func TestKeys(t *testing.T) {
	t.Parallel()
	added := func(id, person string) proto.Message {
		return &emergencyv1.KeyAdded{Key: &emergencyv1.Key{KeyId: id, Person: person}}
	}
	b := fold(t, nil, added("k2", "anna"), added("k1", "anna"), added("k3", "bert"), &emergencyv1.KeyRevoked{KeyId: "k1"})
	if _, ok := b.Key("k9"); ok {
		t.Error("an unknown key is known")
	}
	at := t0.Add(3 * time.Second)
	k, ok := b.Key("k1")
	if !ok || !k.RevokedAt.Equal(at) || !k.AddedAt.Equal(t0.Add(time.Second)) {
		t.Errorf("%+v", k)
	}
	if got := b.KeysOf("anna", at.Add(-1)); !slices.Equal(got, []string{"k1", "k2"}) {
		t.Errorf("before the revocation: %v", got)
	}
	if got := b.KeysOf("anna", at); !slices.Equal(got, []string{"k2"}) {
		t.Errorf("at the revocation: %v", got)
	}
	later := fold(t, b, &emergencyv1.KeyRevoked{KeyId: "k1"}, &emergencyv1.KeyRevoked{KeyId: "k9"})
	if again, _ := later.Key("k1"); !again.RevokedAt.Equal(at) {
		t.Errorf("a second revocation moved it to %s", again.RevokedAt)
	}
	if _, ok := later.Key("k9"); ok {
		t.Error("revoking an unknown key made it known")
	}
	if n := len(b.Keys()); n != 3 {
		t.Errorf("%d keys", n)
	}
}

func TestOnDuty(t *testing.T) {
	t.Parallel()
	critical := emergencyv1.Team_TEAM_CRITICAL
	shift := func(person string, rank uint32, from, until time.Duration) *emergencyv1.Shift {
		s := &emergencyv1.Shift{Team: critical, Person: person, Rank: rank, From: stamp(from)}
		if until > 0 {
			s.Until = stamp(until)
		}
		return s
	}
	hour := time.Hour
	b := fold(t, nil, &emergencyv1.RotaChanged{Team: critical, Shifts: []*emergencyv1.Shift{shift("carla", 2, 0, 2*hour), shift("carl", 1, hour, 0), shift("carla", 3, 0, 0)}})
	for at, want := range map[time.Duration][]string{-1: nil, 0: {"carla"}, hour - 1: {"carla"}, hour: {"carl", "carla"}, 3 * hour: {"carl", "carla"}} {
		if got := b.OnDuty(critical, t0.Add(at)); !slices.Equal(got, want) {
			t.Errorf("at %s: %v, want %v", at, got, want)
		}
	}
	if got := fold(t, b, &emergencyv1.RotaChanged{Team: critical}).OnDuty(critical, t0.Add(hour)); len(got) > 0 {
		t.Errorf("an empty rota has %v", got)
	}
}

func TestReachability(t *testing.T) {
	t.Parallel()
	report := func(reached bool) proto.Message {
		return &emergencyv1.ReachabilityRecorded{Person: "carla", Channel: "sms", Reached: reached}
	}
	b := fold(t, nil, report(true), report(false))
	if r := b.Reachability("carla", "sms"); !r.Reached.Equal(t0) || !r.Failed.Equal(t0.Add(time.Second)) {
		t.Errorf("%+v", r)
	}
	if r := fold(t, b, report(true)).Reachability("carla", "sms"); !r.Failed.IsZero() {
		t.Errorf("reached again: %+v", r)
	}
	if r := b.Reachability("carla", "irc"); !r.Reached.IsZero() {
		t.Errorf("%+v", r)
	}
}

// TestBookIsAValue: following a book leaves it as it was, whatever comes, and two followers know nothing of each other.
func TestBookIsAValue(t *testing.T) {
	t.Parallel()
	key := func(id string) proto.Message {
		return &emergencyv1.KeyAdded{Key: &emergencyv1.Key{KeyId: id, Person: "anna"}}
	}
	b := fold(t, nil, listed("mia"), listed("anna"), grant("anna", roleSA, 0), key("k1"), &emergencyv1.PolicyPublished{Policy: policy(t, nil)},
		&emergencyv1.RotaChanged{Team: 1, Shifts: []*emergencyv1.Shift{{Team: 1, Person: "anna", From: stamp(0)}}},
		&emergencyv1.ContactsChanged{Person: "anna", Contacts: []*emergencyv1.SealedContact{{Channel: "sms"}}}, &emergencyv1.ReachabilityRecorded{Person: "anna", Channel: "sms"})
	look := func(b *rulebook.Book) string {
		at := t0.Add(time.Hour)
		return fmt.Sprint(b.Position, b.Persons(), b.Roles("anna", at), b.KeysOf("anna", at), b.LatestPolicy().Number, b.OnDuty(1, at), len(b.Contacts("anna")), b.Reachability("anna", "sms"))
	}
	before := look(b)
	for i, change := range []proto.Message{
		listed("bert"), grant("anna", roleTE, 0), revoke("anna", roleSA, 0), key("k2"), &emergencyv1.KeyRevoked{KeyId: "k1"},
		&emergencyv1.PolicyPublished{Policy: policy(t, func(p *emergencyv1.Policy) { p.Number = 2 })}, &emergencyv1.RotaChanged{Team: 1},
		&emergencyv1.ContactsChanged{Person: "anna"}, &emergencyv1.ReachabilityRecorded{Person: "anna", Channel: "sms", Reached: true},
	} {
		n := fold(t, b, change)
		if look(n) == before {
			t.Errorf("change %d changes nothing", i)
		}
		if got := look(b); got != before {
			t.Errorf("change %d: the book before it is now %s, was %s", i, got, before)
		}
	}
}

// TestNoBook: without a rule book nobody is anybody, and nothing panics.
func TestNoBook(t *testing.T) {
	t.Parallel()
	var b *rulebook.Book
	if _, ok := b.Key("k"); ok || b.Keys() != nil || b.KeysOf("anna", t0) != nil || b.Persons() != nil || b.Listed("anna") || b.Roles("anna", t0) != nil ||
		b.RolesFrom("anna", t0) != nil || b.Granted("anna", roleSA, t0) || b.Has("anna", member, t0) || b.PersonsWith(member, t0) != nil || b.PolicyInForce(t0) != nil ||
		b.LatestPolicy() != nil || b.OnDuty(1, t0) != nil || b.Contacts("anna") != nil || !b.Reachability("anna", "sms").Reached.IsZero() {
		t.Error("a rule book that is not there says something")
	}
}

// TestForeignEvents change the position alone.
func TestForeignEvents(t *testing.T) {
	t.Parallel()
	b, err := (&rulebook.Book{}).With(7, t0, &emergencyv1.CommandRefused{Command: "GrantRole"})
	if err != nil || b.Position != 7 || len(b.Persons()) > 0 {
		t.Errorf("%+v, %v", b, err)
	}
	if _, err := b.With(8, t0, &emergencyv1.PolicyPublished{Policy: []byte{0xff}}); err == nil {
		t.Error("a policy that does not decode is taken")
	}
}
