// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"time"

	"cacert.org/emergency/pkg/identity"
)

// follow makes a profile folder this process's identity. Every new connection, as a server and as a client, to services and to the event
// log, asks it for certificate, key and authorities, so that what is renewed on disk needs no restart.
func (n *Node) follow(dir string, dev bool) error {
	f, err := identity.Follow(dir, identity.FollowOptions{Now: n.set.Clock.Now, Dev: dev, Refused: func(err error) {
		n.log.Error("identity", "error", err)
		n.tel.Metrics.ProfileNotTaken(context.Background())
	}})
	if err != nil {
		return err
	}
	n.identity = f.Current
	return nil
}

// identityEvery is how often the files are looked at where nobody connects meanwhile, so that a wrong one is told of at once and not by
// the next caller.
const identityEvery = 2 * time.Second

// watchIdentity tells operators when the certificate ends, and of files that cannot be used.
func (n *Node) watchIdentity(ctx context.Context) error {
	for {
		n.tel.Metrics.Certificate(ctx, n.identity().Certificate.Leaf.NotAfter)
		alarm, stop := n.set.Clock.Alarm(n.set.Clock.Now().Add(identityEvery))
		select {
		case <-ctx.Done():
			stop()
			return nil
		case <-alarm:
		}
	}
}
