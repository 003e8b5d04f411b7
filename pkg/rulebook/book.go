// SPDX-License-Identifier: Apache-2.0

// Package rulebook is the fold of the rule book's own history: policy versions, directory of persons, keys and role
// grants, duty rota, contacts and reachability, each as it was at a time (procedure.md 0.13, 4.6).
//
// A Book is a value: applying a record gives a new Book and leaves the old one as it was, so a decision and its replay
// see the same book. No clock, network, randomness or map order. It decides nothing; the rules are in pkg/procedure.
package rulebook

import (
	"maps"
	"slices"
	"sort"
	"time"

	"google.golang.org/protobuf/proto"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Book is the rule book after Position.
type Book struct {
	// Position is the last position of the rule book's history that is part of the book; 0 for an empty one.
	Position uint64

	recordedAt time.Time

	policies []*Policy
	grants   []grant
	keys     map[string]KeyEntry
	persons  []string
	rota     map[emergencyv1.Team]Rota
	contacts map[string][]*emergencyv1.SealedContact
	reached  map[reach]Reachability
}

type grant struct {
	person   string
	role     emergencyv1.Role
	from     time.Time
	until    time.Time // zero while it holds
	decision string
}

type reach struct{ person, channel string }

// KeyEntry is a key and when it counted.
type KeyEntry struct {
	// Key is the public key and whose it is.
	Key *emergencyv1.Key
	// AddedAt is when it was recorded.
	AddedAt time.Time
	// RevokedAt is when it was revoked; zero while it holds.
	RevokedAt time.Time
}

// Grant is a role of a person and when it counts.
type Grant struct {
	Role emergencyv1.Role
	From time.Time
	// Until is when it was taken away; zero while it holds.
	Until time.Time
	// Decision is the Board's decision id.
	Decision string
}

// Reachability is the last result of an attempt to reach a person on a channel.
type Reachability struct {
	// Reached is when the person was last reached; zero if never.
	Reached time.Time
	// Failed is when the last attempt failed; zero if none did since.
	Failed time.Time
}

// With returns the book after the events of one record. Events that are no rule book events change nothing but the position.
func (b *Book) With(lastPosition uint64, at time.Time, payloads ...proto.Message) (*Book, error) {
	n := b.clone()
	n.Position = lastPosition
	if at.After(n.recordedAt) {
		n.recordedAt = at
	}
	for _, p := range payloads {
		if err := n.apply(at, p); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// RecordedAt is when the last record that is part of the book was recorded; the zero time for an empty book.
func (b *Book) RecordedAt() time.Time {
	if b == nil {
		return time.Time{}
	}
	return b.recordedAt
}

func (b *Book) clone() *Book {
	if b == nil {
		b = &Book{}
	}
	n := &Book{
		Position: b.Position, recordedAt: b.recordedAt, policies: slices.Clone(b.policies), grants: slices.Clone(b.grants), persons: slices.Clone(b.persons),
		keys: maps.Clone(b.keys), rota: maps.Clone(b.rota), contacts: maps.Clone(b.contacts), reached: maps.Clone(b.reached),
	}
	if n.keys == nil {
		n.keys, n.rota = map[string]KeyEntry{}, map[emergencyv1.Team]Rota{}
		n.contacts, n.reached = map[string][]*emergencyv1.SealedContact{}, map[reach]Reachability{}
	}
	return n
}

func (b *Book) apply(at time.Time, payload proto.Message) error {
	switch e := payload.(type) {
	case *emergencyv1.PolicyPublished:
		p, err := ParsePolicy(e.GetPolicy())
		if err != nil {
			return err
		}
		b.policies = append(b.policies, p)
	case *emergencyv1.PersonListed:
		if !slices.Contains(b.persons, e.GetPerson()) {
			b.persons = append(b.persons, e.GetPerson())
			sort.Strings(b.persons)
		}
	case *emergencyv1.RoleGranted:
		g := e.GetGrant()
		b.grants = append(b.grants, grant{g.GetPerson(), g.GetRole(), g.GetEffectiveAt().AsTime(), time.Time{}, g.GetBoardDecision()})
	case *emergencyv1.RoleRevoked:
		for i, g := range b.grants {
			at := e.GetEffectiveAt().AsTime()
			if g.person == e.GetPerson() && g.role == e.GetRole() && (g.until.IsZero() || at.Before(g.until)) {
				b.grants[i].until = at
			}
		}
	case *emergencyv1.KeyAdded:
		b.keys[e.GetKey().GetKeyId()] = KeyEntry{Key: e.GetKey(), AddedAt: at}
	case *emergencyv1.KeyRevoked:
		if k := b.keys[e.GetKeyId()]; k.RevokedAt.IsZero() { // a second revocation never moves the first
			k.RevokedAt = at
			b.keys[e.GetKeyId()] = k
		}
	case *emergencyv1.RotaChanged:
		b.rota[e.GetTeam()] = Rota{Shifts: e.GetShifts(), ChangedAt: at, Position: b.Position}
	case *emergencyv1.ContactsChanged:
		b.contacts[e.GetPerson()] = e.GetContacts()
	case *emergencyv1.ReachabilityRecorded:
		b.recordReach(at, e)
	}
	return nil
}

func (b *Book) recordReach(at time.Time, e *emergencyv1.ReachabilityRecorded) {
	k := reach{e.GetPerson(), e.GetChannel()}
	r := b.reached[k]
	if e.GetReached() {
		r = Reachability{Reached: at}
	} else {
		r.Failed = at
	}
	b.reached[k] = r
}

// Key returns a key's entry.
func (b *Book) Key(keyID string) (KeyEntry, bool) {
	if b == nil {
		return KeyEntry{}, false
	}
	k, ok := b.keys[keyID]
	return k, ok && k.Key != nil
}

// Keys lists the key entries sorted by key id.
func (b *Book) Keys() []KeyEntry {
	if b == nil {
		return nil
	}
	list := make([]KeyEntry, 0, len(b.keys))
	for _, id := range slices.Sorted(maps.Keys(b.keys)) {
		list = append(list, b.keys[id])
	}
	return list
}

// KeysOf lists the ids of a person's keys that hold at a time, but for passkeys.
func (b *Book) KeysOf(person string, at time.Time) []string {
	var ids []string
	for _, k := range b.keysOf(person, at) {
		if k.GetPasskey() == nil {
			ids = append(ids, k.GetKeyId())
		}
	}
	return ids
}

// PasskeysOf lists a person's passkeys that hold at a time.
func (b *Book) PasskeysOf(person string, at time.Time) []*emergencyv1.Key {
	return slices.DeleteFunc(b.keysOf(person, at), func(k *emergencyv1.Key) bool { return k.GetPasskey() == nil })
}

func (b *Book) keysOf(person string, at time.Time) []*emergencyv1.Key {
	var list []*emergencyv1.Key
	for _, k := range b.Keys() {
		if person != "" && k.Key.GetPerson() == person && (k.RevokedAt.IsZero() || at.Before(k.RevokedAt)) {
			list = append(list, k.Key)
		}
	}
	return list
}

// Persons lists the persons of the directory.
func (b *Book) Persons() []string {
	if b == nil {
		return nil
	}
	return b.persons
}

// Listed tells whether the directory has the person.
func (b *Book) Listed(person string) bool { return slices.Contains(b.Persons(), person) }

// Roles lists the roles a person holds at a time, sorted. A team lead also holds the team's role (procedure.md 2.1), and
// everybody listed is a member.
func (b *Book) Roles(person string, at time.Time) []emergencyv1.Role {
	return b.rolesBy(person, func(g grant) bool { return g.at(at) })
}

// RolesFrom lists the roles a person holds at a time or will hold later, as far as it is known.
func (b *Book) RolesFrom(person string, at time.Time) []emergencyv1.Role {
	return b.rolesBy(person, func(g grant) bool { return g.after(at) })
}

// Granted tells whether a person was granted exactly this role and the grant goes on after a time.
func (b *Book) Granted(person string, role emergencyv1.Role, at time.Time) bool {
	return b != nil && slices.ContainsFunc(b.grants, func(g grant) bool { return g.person == person && g.role == role && g.after(at) })
}

// Grants lists what a person was granted, in the order in which it was.
func (b *Book) Grants(person string) []Grant {
	if b == nil {
		return nil
	}
	var list []Grant
	for _, g := range b.grants {
		if g.person == person {
			list = append(list, Grant{g.role, g.from, g.until, g.decision})
		}
	}
	return list
}

// after tells whether the grant still counts after a time.
func (g grant) after(at time.Time) bool { return g.until.IsZero() || at.Before(g.until) }

// at tells whether the grant counts at a time.
func (g grant) at(at time.Time) bool { return !at.Before(g.from) && g.after(at) }

// brings tells whether the grant's role is, or brings with it, another (procedure.md 2.1).
func (g grant) brings(role emergencyv1.Role) bool { return g.role == role || teamOf(g.role) == role }

// teamOf is the role of a team that its lead holds too; unspecified for every other role.
func teamOf(lead emergencyv1.Role) emergencyv1.Role {
	switch lead {
	case emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD:
		return emergencyv1.Role_ROLE_CRITICAL_ADMIN
	case emergencyv1.Role_ROLE_ASSESSMENT_TEAM_LEAD:
		return emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR
	default:
		return emergencyv1.Role_ROLE_UNSPECIFIED
	}
}

func (b *Book) rolesBy(person string, counts func(grant) bool) []emergencyv1.Role {
	if !b.Listed(person) {
		return nil
	}
	held := []emergencyv1.Role{emergencyv1.Role_ROLE_MEMBER}
	for _, g := range b.grants {
		if g.person != person || !counts(g) {
			continue
		}
		held = append(held, g.role)
		if team := teamOf(g.role); team != emergencyv1.Role_ROLE_UNSPECIFIED {
			held = append(held, team)
		}
	}
	slices.Sort(held)
	return slices.Compact(held)
}

// Has tells whether a person holds a role at a time.
func (b *Book) Has(person string, role emergencyv1.Role, at time.Time) bool {
	if !b.Listed(person) || role == emergencyv1.Role_ROLE_UNSPECIFIED {
		return false
	}
	return role == emergencyv1.Role_ROLE_MEMBER ||
		slices.ContainsFunc(b.grants, func(g grant) bool { return g.person == person && g.brings(role) && g.at(at) })
}

// PersonsWith lists who holds a role at a time.
func (b *Book) PersonsWith(role emergencyv1.Role, at time.Time) []string {
	var list []string
	for _, p := range b.Persons() {
		if b.Has(p, role, at) {
			list = append(list, p)
		}
	}
	return list
}

// PolicyInForce returns the policy that holds at a time, or nil.
func (b *Book) PolicyInForce(at time.Time) *Policy {
	if b == nil {
		return nil
	}
	for i := len(b.policies) - 1; i >= 0; i-- {
		if !at.Before(b.policies[i].EffectiveAt) {
			return b.policies[i]
		}
	}
	return nil
}

// LatestPolicy returns the version published last, in force or not, or nil.
func (b *Book) LatestPolicy() *Policy {
	if b == nil || len(b.policies) == 0 {
		return nil
	}
	return b.policies[len(b.policies)-1]
}

// Contacts lists a person's addresses in order of preference.
func (b *Book) Contacts(person string) []*emergencyv1.SealedContact {
	if b == nil {
		return nil
	}
	return b.contacts[person]
}

// Reachability returns the last result on a channel.
func (b *Book) Reachability(person, channel string) Reachability {
	if b == nil {
		return Reachability{}
	}
	return b.reached[reach{person, channel}]
}
