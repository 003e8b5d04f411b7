// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
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

// mayGoOn tells why a caller may not: the key is revoked.
func (n *Node) mayGoOn(c identity.Caller) error {
	if _, refusal := procedure.Recognise(n.incidents.Book(), c.KeyID, n.set.Clock.Now()); refusal != nil && refusal.Reason == procedure.ReasonKeyRevoked {
		return refusal
	}
	return nil
}

// sibling tells whether a caller is another instance of the one service of this process, which may say whose call it hands on: the rule book
// lists its key for the same service as this process's own. Nobody is where all services are in one process, or several share a name.
func (n *Node) sibling(c identity.Caller) bool {
	if len(n.siblings) == 0 {
		return false
	}
	book, now := n.incidents.Book(), n.set.Clock.Now()
	self, no := procedure.Recognise(book, n.identity().KeyID, now)
	if no != nil || self.GetSystem() != emergencyv1.SystemKind_SYSTEM_KIND_SERVICE {
		return false
	}
	other, no := procedure.Recognise(book, c.KeyID, now)
	return no == nil && other.GetSystem() == self.GetSystem() && other.GetSystemName() == self.GetSystemName()
}

// watchBook makes a change of the rule book count at once: for commands, and for whoever has something open.
func (n *Node) watchBook(ctx context.Context) error {
	for position := uint64(0); ; {
		changed := n.reader.Changed()
		if now := n.incidents.Book().Position; now != position {
			position = now
			for _, s := range n.services {
				s.RuleBookChanged()
			}
			n.standing.Recheck()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
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

// whoIs tells the limiter who a caller is: a person, with whichever key, or a system by its name. Services are exempt, since their calls are
// other people's; whose key is unknown or revoked counts by address.
func (n *Node) whoIs(c identity.Caller) (name string, exempt bool) {
	a, refusal := procedure.Recognise(n.incidents.Book(), c.KeyID, n.set.Clock.Now())
	switch {
	case refusal != nil:
		return "", false
	case a.GetPerson() != "":
		return "person " + a.GetPerson(), false
	}
	return a.GetSystem().String() + " " + a.GetSystemName(), a.GetSystem() == emergencyv1.SystemKind_SYSTEM_KIND_SERVICE
}

// limited serves pages to those who do not make too many calls, and ends what is open of those who may not go on.
func (n *Node) limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, certified := identity.FromTLS(r.TLS)
		var tooMany *rpc.RateError
		if err := n.limiter.Admit(c, certified, rpc.HostOf(r.RemoteAddr)); errors.As(err, &tooMany) {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(tooMany.After.Seconds()))))
			http.Error(w, tooMany.Message+": "+tooMany.Allow[0].Description, http.StatusTooManyRequests)
			return
		}
		if certified {
			ctx, leave := n.standing.Enter(r.Context(), c)
			defer leave()
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}
