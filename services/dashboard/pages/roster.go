// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"time"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// rosterView is who is in the directory, what each may do, and how each is reached.
type rosterView struct {
	Members  []member
	Warnings int
}

// member is a person of the directory.
type member struct {
	*person
	Roles    []heldRole
	Duty     []string
	Warnings []string
	Keys     []heldKey
	Channels []reached
	Onrota   bool
	Stale    bool
	Reached  *when
}

// heldRole is a role with its dates; Ended or not yet begun roles are shown too, as they were granted.
type heldRole struct {
	Name, Decision string
	Since, Until   *when
	Coming, Ended  bool
}

// heldKey is a key and when it counted.
type heldKey struct {
	ID, Kind string
	Since    *when
	Revoked  *when
}

// reached tells whether a person has an address on a channel, and when the person was last reached there. The address itself
// is shown to those who ask for it and may read it.
type reached struct {
	Channel string
	At      *when
	Failed  *when
	Address restricted
}

// teams are those that are called, in the order of the procedure.
func teams() []emergencyv1.Team {
	return []emergencyv1.Team{emergencyv1.Team_TEAM_CRITICAL, emergencyv1.Team_TEAM_ASSESSMENT, emergencyv1.Team_TEAM_DEVELOPMENT, emergencyv1.Team_TEAM_TESTING}
}

// roster shows the people. A POST asks for one address; the query API writes down who looked.
func (p *Pages) roster(v *viewer, r *http.Request) (*content, error) {
	wanted := ""
	if r.Method == http.MethodPost {
		wanted = r.PostFormValue("commitment")
	}
	d := rosterView{}
	for _, name := range v.book.Persons() {
		m := p.member(v, name, wanted)
		if len(m.Warnings) > 0 {
			d.Warnings++
		}
		d.Members = append(d.Members, m)
	}
	return &content{Title: "roster.title", Section: "rulebook", Template: "roster", Data: d, Still: wanted != ""}, nil
}

func (p *Pages) member(v *viewer, name, wanted string) member {
	m := member{person: v.person(name), Roles: v.heldRoles(name)}
	for _, k := range v.book.Keys() {
		if k.Key.GetPerson() == name {
			m.Keys = append(m.Keys, v.heldKey(k))
		}
	}
	var last time.Time
	for _, c := range v.book.Contacts(name) {
		r := v.book.Reachability(name, c.GetChannel())
		x := reached{Channel: c.GetChannel(), At: v.when(r.Reached), Failed: v.when(r.Failed), Address: restricted{Field: c.GetChannel(), Commitment: c.GetAddress().GetCommitment()}}
		if wanted != "" && wanted == x.Address.Commitment {
			x.Address = p.reveal(v, procedure.RuleBook, x.Address)
		}
		m.Channels = append(m.Channels, x)
		if r.Reached.After(last) {
			last = r.Reached
		}
	}
	m.Reached, m.Stale = v.when(last), v.now.Sub(last) > procedure.ReachedWithin
	onRota := v.onRota(name)
	m.Onrota = len(onRota) > 0
	for _, t := range onRota {
		if slices.Contains(v.book.OnDuty(t, v.now), name) {
			m.Duty = append(m.Duty, v.enum(t))
		}
	}
	m.Warnings = v.warnings(name, onRota)
	return m
}

func (v *viewer) heldRoles(name string) []heldRole {
	var list []heldRole
	for _, g := range v.book.Grants(name) {
		if g.Role != emergencyv1.Role_ROLE_MEMBER {
			list = append(list, heldRole{
				Name: v.enum(g.Role), Decision: g.Decision, Since: v.when(g.From), Until: v.when(g.Until), Coming: v.now.Before(g.From),
				Ended: !g.Until.IsZero() && !v.now.Before(g.Until),
			})
		}
	}
	return list
}

func (v *viewer) heldKey(k rulebook.KeyEntry) heldKey {
	return heldKey{ID: short(k.Key.GetKeyId()), Kind: keyKind(k.Key.GetPublicKey()), Since: v.when(k.AddedAt), Revoked: v.when(k.RevokedAt)}
}

// keyKind names what a public key is, as its standard does; it is the same word in every language.
func keyKind(spki []byte) string {
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return ""
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return ""
}

// onRota are the teams for which a person is, or will be, on duty.
func (v *viewer) onRota(name string) []emergencyv1.Team {
	var list []emergencyv1.Team
	for _, t := range teams() {
		if slices.ContainsFunc(v.book.Rota(t).Shifts, func(s *emergencyv1.Shift) bool {
			return s.GetPerson() == name && (s.GetUntil() == nil || v.now.Before(s.GetUntil().AsTime()))
		}) {
			list = append(list, t)
		}
	}
	return list
}

// warnings are what stands against a person's part in an emergency: by the rules, or because a call would not arrive.
func (v *viewer) warnings(name string, onRota []emergencyv1.Team) []string {
	var list []string
	if a, b, conflict := procedure.Exclusive(v.book.RolesFrom(name, v.now)); conflict {
		list = append(list, v.say("roster.exclusive", v.enum(a), v.enum(b)))
	}
	if len(v.book.KeysOf(name, v.now)) == 0 && len(v.book.RolesFrom(name, v.now)) > 1 {
		list = append(list, v.say("roster.keyless"))
	}
	if len(onRota) == 0 {
		return list
	}
	if len(onRota) > 1 {
		list = append(list, v.say("roster.twoteams"))
	}
	if policy := v.book.PolicyInForce(v.now); policy != nil {
		if n, least := len(v.book.Contacts(name)), policy.Count("callout.channels_min"); n < least {
			list = append(list, v.say("roster.fewpaths", n, least))
		}
	}
	return list
}
