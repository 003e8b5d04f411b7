// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto"
	"fmt"
	"path/filepath"
	"slices"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
)

// foundDemo writes the demo rule book into an empty history: policy, people, keys, rota and contacts.
func (n *Node) foundDemo(ctx context.Context, keys []*emergencyv1.Key) error {
	if n.incidents.Book().Position > 0 {
		return nil
	}
	now := n.set.Clock.Now()
	req, err := demobook.Founding(keys, now)
	if err != nil {
		return err
	}
	if _, err := n.arbitration.Establish(ctx, req); err != nil {
		return fmt.Errorf("found the demo rule book: %w", err)
	}
	ids := map[string]string{}
	for _, k := range keys {
		ids[k.GetPerson()] = k.GetKeyId()
	}
	for _, g := range demobook.Duties(now) { // by their people's keys, which this process has made
		if _, err := n.notification.Dispatch.Do(ctx, g.Command, dispatch.Input{Actor: procedure.Actor{KeyID: ids[g.Person]}}); err != nil {
			return fmt.Errorf("demo rule book: %s by %s: %w", procedure.CommandName(g.Command), g.Person, err)
		}
	}
	return nil
}

// demoSigner is the key of a demo person, which this process has made and keeps in the person's profile folder.
func (n *Node) demoSigner(person string) (crypto.Signer, error) {
	if !slices.ContainsFunc(demobook.People(), func(p demobook.Person) bool { return p.ID == person }) {
		return nil, fmt.Errorf("%q is no person of the demo", person)
	}
	people := n.set.Cluster.DemoPeople
	if people == "" {
		people = n.set.path("people")
	}
	return identity.LoadKey(filepath.Join(people, person, identity.KeyFile), true)
}
