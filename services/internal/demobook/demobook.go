// SPDX-License-Identifier: Apache-2.0

// Package demobook is the rule book of a demonstration: its people, machines, duties and how they are reached, and the certificates of a
// development authority for all of them.
package demobook

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Person is a person of the demo rule book.
type Person struct {
	ID    string
	Roles []emergencyv1.Role
	Team  emergencyv1.Team
}

// People are the persons of the demo rule book, in the order in which their teams are called.
func People() []Person {
	type role = emergencyv1.Role
	const (
		critical, assessment = emergencyv1.Team_TEAM_CRITICAL, emergencyv1.Team_TEAM_ASSESSMENT
		development, testing = emergencyv1.Team_TEAM_DEVELOPMENT, emergencyv1.Team_TEAM_TESTING
	)
	return []Person{
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
	System    = "webdb"
	Host      = "critical-1"
	DrillHost = "drill-1"
	Test      = "test-1"
	Release   = "refs/heads/release"
)

// Keys makes or finds the profiles of people, agents and the named services, links them below dir under the short paths that people type,
// and returns their keys for the rule book.
func Keys(ca *devca.CA, dir string, services ...string) ([]*emergencyv1.Key, error) {
	var keys []*emergencyv1.Key
	add := func(profile string, err error, link string, k *emergencyv1.Key) error {
		if err != nil {
			return err
		}
		spki, err := publicKeyOf(profile)
		if err != nil {
			return err
		}
		k.PublicKey, k.KeyId = spki, procedure.KeyID(spki)
		keys = append(keys, k)
		return linkProfile(profile, filepath.Join(dir, link))
	}
	for _, p := range People() {
		profile, err := ca.Person(p.ID)
		if err := add(profile, err, "people/"+p.ID, &emergencyv1.Key{Person: p.ID}); err != nil {
			return nil, err
		}
	}
	for _, a := range []struct {
		name string
		kind emergencyv1.SystemKind
	}{
		{Host, emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT}, {DrillHost, emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT},
		{Test, emergencyv1.SystemKind_SYSTEM_KIND_TEST_AGENT},
	} {
		profile, err := ca.System(a.name)
		if err := add(profile, err, "agents/"+a.name, &emergencyv1.Key{System: a.kind, SystemName: a.name}); err != nil {
			return nil, err
		}
	}
	for _, name := range services {
		profile, err := ca.Service(name)
		if err := add(profile, err, "services/"+name, &emergencyv1.Key{System: emergencyv1.SystemKind_SYSTEM_KIND_SERVICE, SystemName: name}); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// decision is the Board's, by which everything in this rule book is.
const decision = "demo-board-1"

// Founding is the command that writes the rule book into an empty history: policy, people and keys.
func Founding(keys []*emergencyv1.Key, now time.Time) (*emergencyv1.EstablishRequest, error) {
	policy := rulebook.DefaultPolicy()
	policy.BoardDecision, policy.EffectiveAt = decision, timestamppb.New(now)
	policy.Systems = []*emergencyv1.CriticalSystem{{System: System, Host: Host, TestEnvironment: Test, DrillHost: DrillHost, ReleaseRef: Release}}
	bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(policy)
	if err != nil {
		return nil, fmt.Errorf("encode demo policy: %w", err)
	}
	req := &emergencyv1.EstablishRequest{
		Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: "demo-founding"}, Policy: bytes, Keys: keys, BoardDecision: decision,
	}
	for _, p := range People() {
		req.Persons = append(req.Persons, p.ID)
		for _, r := range p.Roles {
			req.Grants = append(req.Grants, &emergencyv1.RoleGrant{Person: p.ID, Role: r, EffectiveAt: timestamppb.New(now), BoardDecision: decision})
		}
	}
	return req, nil
}

// Given is a command and who gives it.
type Given struct {
	Person  string
	Command procedure.Command
}

// Duties are the commands that put everybody on duty, and give everybody two addresses.
func Duties(now time.Time) []Given {
	var given []Given
	shifts := map[emergencyv1.Team][]*emergencyv1.Shift{}
	var teams []emergencyv1.Team
	for _, p := range People() {
		given = append(given, Given{p.ID, &emergencyv1.SetContactsRequest{
			Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: "demo-contacts-" + p.ID}, Person: p.ID,
			Contacts: []*emergencyv1.Contact{{Channel: "mail", Address: p.ID + "@example.org"}, {Channel: "sms", Address: "+43 1 " + p.ID}},
		}})
		if p.Team == 0 {
			continue
		}
		if len(shifts[p.Team]) == 0 {
			teams = append(teams, p.Team)
		}
		shifts[p.Team] = append(shifts[p.Team], &emergencyv1.Shift{Team: p.Team, Person: p.ID, From: timestamppb.New(now), Rank: uint32(len(shifts[p.Team]) + 1)})
	}
	for _, t := range teams {
		given = append(given, Given{"clara", &emergencyv1.SetRotaRequest{
			Meta: &emergencyv1.CommandMeta{Incident: procedure.RuleBook, RequestId: "demo-rota-" + procedure.TeamWord(t)}, Team: t, Shifts: shifts[t],
		}})
	}
	return given
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
