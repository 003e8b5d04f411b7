// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The names of the fixture's systems and machines.
const (
	// System is the critical system that the fixture's emergencies are about.
	System = "www"
	// OtherSystem has no drill host.
	OtherSystem = "mail"
	// Host, DrillHost and TestServer are the agents of System.
	Host       = "www1"
	DrillHost  = "www1-drill"
	TestServer = "www1-test"
	// OtherHost is the host of OtherSystem.
	OtherHost = "mail1"
)

// Person is somebody in the fixture's directory.
type Person struct {
	Name  string
	Roles []emergencyv1.Role
}

// People are the fixture's persons. Xaver holds two roles that exclude each other, as old data may.
func People() []Person {
	r := func(list ...emergencyv1.Role) []emergencyv1.Role { return list }
	ca, sa, te := emergencyv1.Role_ROLE_CRITICAL_ADMIN, emergencyv1.Role_ROLE_SOFTWARE_ASSESSOR, emergencyv1.Role_ROLE_TESTER
	return []Person{
		{"carla", r(ca)}, {"carl", r(ca)}, {"clara", r(emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD)},
		{"anna", r(sa)}, {"bert", r(sa)}, {"beate", r(sa)}, {"albert", r(emergencyv1.Role_ROLE_ASSESSMENT_TEAM_LEAD)},
		{"dora", r(emergencyv1.Role_ROLE_SOFTWARE_DEVELOPER)}, {"emil", r(emergencyv1.Role_ROLE_SOFTWARE_ENGINEER)},
		{"theo", r(te)}, {"tina", r(te)}, {"tom", r(te)},
		{"bea", r(emergencyv1.Role_ROLE_BOARD)}, {"bruno", r(emergencyv1.Role_ROLE_BOARD)},
		{"casper", r(emergencyv1.Role_ROLE_CASE_MANAGER)}, {"arno", r(emergencyv1.Role_ROLE_ARBITRATOR)},
		{"agnes", r(emergencyv1.Role_ROLE_ARBITRATOR)}, {"achim", r(emergencyv1.Role_ROLE_ARBITRATOR)}, {"adele", r(emergencyv1.Role_ROLE_ARBITRATOR)}, {"alois", r(emergencyv1.Role_ROLE_ARBITRATOR)},
		{"doris", r(emergencyv1.Role_ROLE_DISPUTE_OFFICER)}, {"sven", r(emergencyv1.Role_ROLE_SUPPORT_ENGINEER)},
		{"axel", r(emergencyv1.Role_ROLE_ACCESS_ENGINEER)}, {"mia", nil},
		{"xaver", r(ca, sa)},
		// both may review and test: X8 counts the person, not the role
		{"vera", r(sa, te)}, {"viktor", r(sa, te)},
	}
}

// RolesOf are the roles granted to a person of the fixture.
func RolesOf(person string) []emergencyv1.Role {
	for _, p := range People() {
		if p.Name == person {
			return p.Roles
		}
	}
	return nil
}

// secondKeys are further keys of one person: the name of the key, and whose it is.
func secondKeys() [][2]string {
	return [][2]string{{"anna2", "anna"}, {"carla2", "carla"}, {"theo2", "theo"}, {"carl-revoked", "carl"}}
}

// PersonOf is whose key a name stands for: "anna2" is a second key of anna.
func PersonOf(key string) string {
	for _, k := range secondKeys() {
		if k[0] == key {
			return k[1]
		}
	}
	return key
}

// Key is a key of the fixture.
type Key struct {
	ID     string
	Public []byte // SubjectPublicKeyInfo
	Signer crypto.Signer
}

// edKeys are the names whose keys are Ed25519; all others are ECDSA P-256.
func edKeys() []string { return []string{"bert", "theo", "anna2", "clara"} }

// KeyOf is the key of a name, always the same.
func KeyOf(name string) Key {
	if k, ok := known()[name]; ok {
		return k
	}
	return deriveKey(name)
}

// known only spares deriving the fixture's keys again and again; it is never written to.
var known = sync.OnceValue(func() map[string]Key {
	list := map[string]Key{}
	for _, p := range People() {
		list[p.Name] = deriveKey(p.Name)
	}
	for _, k := range secondKeys() {
		list[k[0]] = deriveKey(k[0])
	}
	for _, a := range agents() {
		list[a.name] = deriveKey(a.name)
	}
	return list
})

func deriveKey(name string) Key {
	seed := sha256.Sum256([]byte("proceduretest key of " + name))
	var signer crypto.Signer = ed25519.NewKeyFromSeed(seed[:])
	if !slices.Contains(edKeys(), name) {
		for {
			k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
			if err == nil {
				signer = k
				break
			}
			seed = sha256.Sum256(seed[:]) // not below the curve's order: once in 2^32
		}
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		panic(err) // both kinds of key can be encoded
	}
	return Key{ID: procedure.KeyID(public), Public: public, Signer: signer}
}

// Sign signs a statement, without randomness.
func (k Key) Sign(st *emergencyv1.Statement) *emergencyv1.Approval {
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(st)
	if err != nil {
		panic(err) // a statement of valid text can be encoded
	}
	return k.SignBytes(procedure.StatementPayloadType, payload)
}

// SignBytes signs any bytes under any payload type.
func (k Key) SignBytes(payloadType string, payload []byte) *emergencyv1.Approval {
	message, hash := procedure.PAE(payloadType, payload), crypto.Hash(0)
	if _, ed := k.Signer.(ed25519.PrivateKey); !ed {
		sum := sha256.Sum256(message)
		message, hash = sum[:], crypto.SHA256
	}
	signature, err := k.Signer.Sign(nil, message, hash)
	if err != nil {
		panic(err) // neither kind of key fails to sign
	}
	return &emergencyv1.Approval{PayloadType: payloadType, Payload: payload, KeyId: k.ID, Signature: signature}
}

// Actor is who a name stands for:
//
//	anna, anna2       a person by one of the person's keys
//	nobody, stranger  no certificate, and a key that the rule book does not have
//	host:NAME, test:NAME, repo:NAME   an agent by its key
//	timer, mailer, reactor, service   a service's own part, without a key
//	service:NAME      a service by the key of its connection, in a world after HandOn
//	gateway, gateway:emil   the broker of consoles, by itself and for the person whose key it has verified
//	reactor:anna      a service that follows up on anna's earlier command
func Actor(name string) procedure.Actor {
	kind, rest, _ := strings.Cut(name, ":")
	switch kind {
	case "nobody":
		return procedure.Actor{}
	case "timer":
		return procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_TIMER, SystemName: "timer"}
	case "mailer":
		return procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_MAILER, SystemName: "mailer"}
	case "service":
		if rest != "" {
			break
		}
		return procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_SERVICE, SystemName: "service"}
	case "gateway":
		return procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_CONSOLE_GATEWAY, SystemName: procedure.OwnerDeployment, Person: rest}
	case "reactor":
		return procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_REACTOR, SystemName: "reactor", Person: rest}
	}
	return procedure.Actor{KeyID: KeyOf(name).ID}
}

// IsPerson tells whether a name stands for a person who gives commands with a key.
func IsPerson(name string) bool {
	a := Actor(name)
	return a.KeyID != "" && !strings.Contains(name, ":")
}

// agents are the machines that have keys.
func agents() []struct {
	name string
	kind emergencyv1.SystemKind
} {
	type agent = struct {
		name string
		kind emergencyv1.SystemKind
	}
	host, test, repo := emergencyv1.SystemKind_SYSTEM_KIND_HOST_AGENT, emergencyv1.SystemKind_SYSTEM_KIND_TEST_AGENT, emergencyv1.SystemKind_SYSTEM_KIND_REPO_AGENT
	return []agent{{"host:" + Host, host}, {"host:" + DrillHost, host}, {"host:" + OtherHost, host}, {"test:" + TestServer, test}, {"test:elsewhere", test}, {"repo:git", repo}}
}

// Short is a digest as people read it; for messages of tests.
func Short(digest string) string { return fmt.Sprintf("%.12s", digest) }
