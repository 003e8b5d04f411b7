// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Enlist has the Board take somebody new into the directory, or give somebody there a further role, and returns the name by
// which As takes the person.
func (e *Env) Enlist(person string, role emergencyv1.Role) string {
	e.t.Helper()
	bea := e.As("bea")
	send := func(cmd procedure.Command) {
		e.t.Helper()
		setMeta(cmd, &emergencyv1.CommandMeta{Incident: procedure.RuleBook})
		_, err := bea.Send(e.t.Context(), cmd)
		must(e.t, err)
	}
	book, err := bea.Book(e.t.Context())
	must(e.t, err)
	listed := book.Listed(person)
	send(&emergencyv1.GrantRoleRequest{Grant: &emergencyv1.RoleGrant{Person: person, Role: role, EffectiveAt: timestamppb.New(e.Clock.Now()), BoardDecision: "m20261124.12"}})
	if listed {
		return person
	}
	dir, key := e.Key(person)
	key.Person = person
	send(&emergencyv1.AddKeyRequest{Key: key})
	e.keys[person] = dir
	return person
}
