// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// T0 is when the fixture's emergencies are declared.
func T0() time.Time { return time.Date(2026, 11, 24, 20, 0, 0, 0, time.UTC) }

// Founded is when the rule book was founded.
func Founded() time.Time { return T0().AddDate(0, -1, 0) }

// Founding is the rule book's own history as the fixture has it.
func Founding() *World { return founding().Fork() }

// Book is the founded rule book. A Book is a value: it is never changed, only followed by another.
func Book() *rulebook.Book { return founding().Book }

var founding = sync.OnceValue(found)

// must lets the fixture be built outside a test: what it does is always accepted, or every test fails at once.
type must struct{}

func (must) Helper() {}

func (must) Fatalf(format string, args ...any) {
	panic("proceduretest: " + fmt.Sprintf(format, args...))
}

func found() *World {
	w := NewRuleBook(must{})
	w.Do("service", Establish())
	w.Do("clara", rota(emergencyv1.Team_TEAM_CRITICAL, "carla", "carl"))
	w.Do("albert", rota(emergencyv1.Team_TEAM_ASSESSMENT, "anna", "bert", "beate"))
	w.Do("albert", rota(emergencyv1.Team_TEAM_DEVELOPMENT, "dora", "emil"))
	w.Do("albert", rota(emergencyv1.Team_TEAM_TESTING, "theo", "tina", "tom"))
	for _, p := range People() {
		if len(p.Roles) > 0 {
			w.Do(p.Name, &emergencyv1.SetContactsRequest{Person: p.Name, Contacts: []*emergencyv1.Contact{
				{Channel: "mail", Address: p.Name + "@example.org"}, {Channel: "irc", Address: p.Name}, {Channel: "sms", Address: "+49 30 " + p.Name},
			}})
		}
	}
	w.Do("bea", &emergencyv1.RevokeKeyRequest{KeyId: KeyOf("carl-revoked").ID, Reason: "lost on a train"})
	// Old data: the directory itself refuses this grant, an import may have let it in (procedure.md 2.3 (b)).
	w.Append(procedure.OwnerArbitration, "Import", &emergencyv1.RoleGranted{Grant: &emergencyv1.RoleGrant{
		Person: "xaver", Role: emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR, EffectiveAt: timestamppb.New(Founded()), BoardDecision: "m20200101.1",
	}})
	return w
}

// NewRuleBook is a rule book without a history.
func NewRuleBook(t T) *World {
	return &World{t: t, Now: Founded(), Book: &rulebook.Book{}, State: procedure.NewState(procedure.RuleBook), head: Genesis(procedure.RuleBook)}
}

// NewArchive is the archive without a history, under the fixture's founded rule book.
func NewArchive(t T) *World {
	w := Founding().For(t)
	w.Now, w.State, w.head = T0(), procedure.NewState(procedure.Archive), Genesis(procedure.Archive)
	w.Records, w.Bytes = nil, nil
	return w
}

// ImportArchive takes messages from the archive of the fixture's mailing list.
func ImportArchive(messages ...*emergencyv1.ArchivedMessage) *emergencyv1.ImportArchiveRequest {
	return &emergencyv1.ImportArchiveRequest{List: "cacert-systemlog", Messages: messages}
}

// Archived is the n-th message of that list.
func Archived(n int) *emergencyv1.ArchivedMessage {
	return &emergencyv1.ArchivedMessage{
		MessageId: fmt.Sprintf("%d@lists.example.org", n), Sha256: HashOf(fmt.Appendf(nil, "message %d", n)), Size: 1000 + uint64(n),
		SentAt: timestamppb.New(Founded().AddDate(-10, 0, n)), DatedBy: emergencyv1.DateSource_DATE_SOURCE_HEADER, Title: fmt.Sprintf("emergency patch %d", n),
	}
}

// Policy is the default policy with the fixture's systems.
func Policy() *emergencyv1.Policy {
	doc := rulebook.DefaultPolicy()
	doc.BoardDecision, doc.EffectiveAt = "m20261001.1", timestamppb.New(Founded())
	doc.Systems = []*emergencyv1.CriticalSystem{
		{System: System, Host: Host, TestEnvironment: TestServer, DrillHost: DrillHost, ReleaseRef: "refs/heads/release"},
		{System: OtherSystem, Host: OtherHost, TestEnvironment: "mail1-test", ReleaseRef: "refs/heads/release"},
	}
	return doc
}

// PolicyBytes encodes a policy as it is published.
func PolicyBytes(doc *emergencyv1.Policy) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(doc)
	if err != nil {
		panic(err) // a policy of valid text can be encoded
	}
	return b
}

// Establish founds the fixture's rule book: everybody of People but for xaver's second role, and all keys.
func Establish() *emergencyv1.EstablishRequest {
	c := &emergencyv1.EstablishRequest{Policy: PolicyBytes(Policy()), BoardDecision: "m20261001.1"}
	for _, p := range People() {
		c.Persons = append(c.Persons, p.Name)
		c.Keys = append(c.Keys, personKey(p.Name))
		for _, r := range p.Roles {
			if p.Name == "xaver" && r != emergencyv1.Role_ROLE_CRITICAL_ADMIN {
				continue
			}
			c.Grants = append(c.Grants, &emergencyv1.RoleGrant{Person: p.Name, Role: r, EffectiveAt: timestamppb.New(Founded())})
		}
	}
	for _, k := range secondKeys() {
		c.Keys = append(c.Keys, personKey(k[0]))
	}
	for _, a := range agents() {
		_, machine, _ := strings.Cut(a.name, ":")
		c.Keys = append(c.Keys, &emergencyv1.Key{KeyId: KeyOf(a.name).ID, PublicKey: KeyOf(a.name).Public, System: a.kind, SystemName: machine})
	}
	return c
}

func personKey(name string) *emergencyv1.Key {
	return &emergencyv1.Key{KeyId: KeyOf(name).ID, PublicKey: KeyOf(name).Public, Person: PersonOf(name)}
}

func rota(team emergencyv1.Team, persons ...string) *emergencyv1.SetRotaRequest {
	c := &emergencyv1.SetRotaRequest{Team: team}
	for i, p := range persons {
		c.Shifts = append(c.Shifts, &emergencyv1.Shift{Team: team, Person: p, From: timestamppb.New(Founded()), Rank: uint32(i + 1)})
	}
	return c
}

// Genesis is what the first record of a history names as the hash before it (procedure.md 0.7).
func Genesis(incident string) string {
	sum := sha256.Sum256([]byte("emergency/" + incident))
	return hex.EncodeToString(sum[:])
}

// NextPolicy is the version of the policy that follows the latest one, changed and signed by a second person. Whoever gives
// the command signs it too.
func NextPolicy(w *World, second string, change func(*emergencyv1.Policy)) *emergencyv1.PublishPolicyRequest {
	last := w.Book.LatestPolicy()
	doc := last.Document()
	doc.Number, doc.PreviousDigest, doc.BoardDecision = last.Number+1, last.Digest, "m20261115.2"
	doc.EffectiveAt = timestamppb.New(w.Now)
	if change != nil {
		change(doc)
	}
	c := &emergencyv1.PublishPolicyRequest{Policy: PolicyBytes(doc)}
	w.serial++
	c.Meta = &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: fmt.Sprintf("policy-%04d", w.serial)}
	c.Second = w.SecondSignature(second, c)
	return c
}

// SecondSignature is another person's approval of the same policy, in a role that may give it.
func (w *World) SecondSignature(who string, c *emergencyv1.PublishPolicyRequest) *emergencyv1.Approval {
	role := emergencyv1.Role_ROLE_BOARD
	if w.Book.Has(PersonOf(who), emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD, w.Now) {
		role = emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD
	}
	st, err := procedure.StatementFor(w.State, c, PersonOf(who), role, w.Now)
	if err != nil {
		w.t.Fatalf("statement: %v", err)
	}
	return KeyOf(who).Sign(st)
}
