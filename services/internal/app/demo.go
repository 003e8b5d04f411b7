// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// DemoPerson is a person of the demo rule book.
type DemoPerson struct {
	ID    string
	Roles []emergencyv1.Role
	Team  emergencyv1.Team
}

// DemoPeople are the persons of the demo rule book, in the order in which their teams are called.
func DemoPeople() []DemoPerson {
	type role = emergencyv1.Role
	const (
		critical, assessment = emergencyv1.Team_TEAM_CRITICAL, emergencyv1.Team_TEAM_ASSESSMENT
		development, testing = emergencyv1.Team_TEAM_DEVELOPMENT, emergencyv1.Team_TEAM_TESTING
	)
	return []DemoPerson{
		{"carla", []role{emergencyv1.Role_ROLE_CRITICAL_ADMIN}, critical},
		{"carl", []role{emergencyv1.Role_ROLE_CRITICAL_ADMIN}, critical},
		{"clara", []role{emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD}, 0},
		{"anna", []role{emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR}, assessment},
		{"bert", []role{emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR}, assessment},
		{"albert", []role{emergencyv1.Role_ROLE_ASSESSMENT_TEAM_LEAD}, 0},
		{"dora", []role{emergencyv1.Role_ROLE_SOFTWARE_DEVELOPER}, development},
		{"emil", []role{emergencyv1.Role_ROLE_SOFTWARE_ENGINEER}, 0},
		{"tina", []role{emergencyv1.Role_ROLE_TESTER}, testing},
		{"theo", []role{emergencyv1.Role_ROLE_TESTER}, testing},
		{"bea", []role{emergencyv1.Role_ROLE_BOARD}, 0},
		{"bruno", []role{emergencyv1.Role_ROLE_BOARD}, 0},
		{"casper", []role{emergencyv1.Role_ROLE_CASE_MANAGER}, 0},
		{"arno", []role{emergencyv1.Role_ROLE_ARBITRATOR}, 0},
	}
}

// The demo's system and its machines.
const (
	DemoSystem    = "webdb"
	DemoHost      = "critical-1"
	DemoDrillHost = "drill-1"
	DemoTest      = "test-1"
	DemoRelease   = "refs/heads/release"
)

// demoKeys makes the demo's certificates and returns their keys for the rule book.
func (n *Node) demoKeys(ca *devca.CA) ([]*emergencyv1.Key, error) {
	var keys []*emergencyv1.Key
	add := func(dir, link string, k *emergencyv1.Key) error {
		spki, err := publicKeyOf(dir)
		if err != nil {
			return err
		}
		k.PublicKey, k.KeyId = spki, procedure.KeyID(spki)
		keys = append(keys, k)
		return linkProfile(dir, n.set.path(link))
	}
	for _, p := range DemoPeople() {
		dir, err := ca.Person(p.ID)
		if err != nil {
			return nil, err
		}
		if err := add(dir, "people/"+p.ID, &emergencyv1.Key{Person: p.ID}); err != nil {
			return nil, err
		}
	}
	for _, s := range []struct {
		name string
		kind emergencyv1.SystemKind
	}{
		{DemoHost, emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT}, {DemoDrillHost, emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT},
		{DemoTest, emergencyv1.SystemKind_SYSTEM_KIND_TEST_AGENT},
	} {
		dir, err := ca.System(s.name)
		if err != nil {
			return nil, err
		}
		if err := add(dir, "agents/"+s.name, &emergencyv1.Key{System: s.kind, SystemName: s.name}); err != nil {
			return nil, err
		}
	}
	dir, err := ca.Service("epatchd")
	if err != nil {
		return nil, err
	}
	return keys, add(dir, "services/epatchd", &emergencyv1.Key{System: emergencyv1.SystemKind_SYSTEM_KIND_SERVICE, SystemName: "epatchd"})
}

func publicKeyOf(dir string) ([]byte, error) {
	path := filepath.Join(dir, identity.CertFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert.RawSubjectPublicKeyInfo, nil
}

// linkProfile makes a profile folder reachable under a short path that people type.
func linkProfile(dir, link string) error {
	if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
		return fmt.Errorf("profile folder: %w", err)
	}
	target, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("profile folder: %w", err)
	}
	if old, err := os.Readlink(link); err == nil && old == target {
		return nil
	}
	if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("profile folder: %w", err)
	}
	if err := os.Symlink(target, link); err != nil {
		return fmt.Errorf("profile folder: %w", err)
	}
	return nil
}

// foundDemo writes the demo rule book into an empty history: policy, people, keys, rota and contacts.
func (n *Node) foundDemo(ctx context.Context, keys []*emergencyv1.Key) error {
	if n.incidents.Book().Position > 0 {
		return nil
	}
	const decision = "demo-board-1"
	now := n.set.Clock.Now()
	policy := rulebook.DefaultPolicy()
	policy.BoardDecision, policy.EffectiveAt = decision, timestamppb.New(now)
	policy.Systems = []*emergencyv1.CriticalSystem{{System: DemoSystem, Host: DemoHost, TestEnvironment: DemoTest, DrillHost: DemoDrillHost, ReleaseRef: DemoRelease}}
	bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(policy)
	if err != nil {
		return fmt.Errorf("encode demo policy: %w", err)
	}
	req := &emergencyv1.EstablishRequest{
		Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: "demo-founding"}, Policy: bytes, Keys: keys, BoardDecision: decision,
	}
	for _, p := range DemoPeople() {
		req.Persons = append(req.Persons, p.ID)
		for _, r := range p.Roles {
			req.Grants = append(req.Grants, &emergencyv1.RoleGrant{Person: p.ID, Role: r, EffectiveAt: timestamppb.New(now), BoardDecision: decision})
		}
	}
	if _, err := n.arbitration.Establish(ctx, req); err != nil {
		return fmt.Errorf("found the demo rule book: %w", err)
	}
	return n.demoRota(ctx, now)
}

// demoRota puts everybody on duty, and gives everybody two addresses.
func (n *Node) demoRota(ctx context.Context, now time.Time) error {
	shifts := map[emergencyv1.Team][]*emergencyv1.Shift{}
	var teams []emergencyv1.Team
	for _, p := range DemoPeople() {
		contacts := &emergencyv1.SetContactsRequest{
			Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: "demo-contacts-" + p.ID}, Person: p.ID,
			Contacts: []*emergencyv1.Contact{{Channel: "mail", Address: p.ID + "@example.org"}, {Channel: "sms", Address: "+43 1 " + p.ID}},
		}
		if err := n.asPerson(ctx, p.ID, contacts); err != nil {
			return err
		}
		if p.Team == 0 {
			continue
		}
		if len(shifts[p.Team]) == 0 {
			teams = append(teams, p.Team)
		}
		shifts[p.Team] = append(shifts[p.Team], &emergencyv1.Shift{Team: p.Team, Person: p.ID, From: timestamppb.New(now), Rank: uint32(len(shifts[p.Team]) + 1)})
	}
	for _, t := range teams {
		rota := &emergencyv1.SetRotaRequest{
			Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: "demo-rota-" + procedure.TeamWord(t)}, Team: t, Shifts: shifts[t],
		}
		if err := n.asPerson(ctx, "clara", rota); err != nil {
			return err
		}
	}
	return nil
}

// asPerson gives a command of the demo's set-up as one of its people, whose keys this process has made.
func (n *Node) asPerson(ctx context.Context, person string, cmd procedure.Command) error {
	spki, err := publicKeyOf(n.set.path("people", person))
	if err != nil {
		return err
	}
	_, err = n.notification.Dispatch.Do(ctx, cmd, dispatch.Input{Actor: procedure.Actor{KeyID: procedure.KeyID(spki)}})
	if err != nil {
		return fmt.Errorf("demo rule book: %s by %s: %w", procedure.CommandName(cmd), person, err)
	}
	return nil
}

// demoSigner is the key of a demo person, which this process has made and keeps in the person's profile folder.
func (n *Node) demoSigner(person string) (crypto.Signer, error) {
	if !slices.ContainsFunc(DemoPeople(), func(p DemoPerson) bool { return p.ID == person }) {
		return nil, fmt.Errorf("%q is no person of the demo", person)
	}
	people := n.set.Cluster.DemoPeople
	if people == "" {
		people = n.set.path("people")
	}
	return identity.LoadKey(filepath.Join(people, person, identity.KeyFile), true)
}
