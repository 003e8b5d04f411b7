// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"cacert.org/emergency/pkg/history"
	historystore "cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/services/deployment"
)

// `epatchd SERVICE`: one service in this process, of which there may be several, with log, other services and identities as they are given.

// Cluster are the settings of a process with one service.
type Cluster struct {
	// NATS are the servers of the log; Seed the file with the seed of this service's user there, Replicas how many copies the log must have,
	// and Synced the operator's statement that every server syncs each write before it answers: a service cannot ask for it.
	NATS     []string
	Seed     string
	Replicas int
	Synced   bool
	// Identity is the folder with this service's cert.pem, key.pem and ca.pem, SigningKey the file of the Ed25519 key by which it signs records,
	// and Keyring the file that says which services' keys count.
	Identity, SigningKey, Keyring string
	// Peers are the addresses of the services by name, several instances of one separated by commas.
	Peers map[string]string
	// DemoPeople is the folder with the profiles of a demo's people, whose keys then sign in pages, and every page says so.
	DemoPeople string
}

func (n *Node) openOne(ctx context.Context) error {
	for _, step := range []func() error{
		n.openFolder,
		n.openIdentity,
		func() error { return n.connectLog(ctx) },
		n.openPeers,
		func() error { return n.openServices(ctx) },
		func() error { return n.openReader(ctx) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// openFolder locks the data folder and finds the name of this instance in it, the same after a restart.
func (n *Node) openFolder() error {
	if err := os.MkdirAll(n.set.Data, 0o700); err != nil {
		return fmt.Errorf("setting data: %w", err)
	}
	f, err := os.OpenFile(n.set.path("instance"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("setting data: %w", err)
	}
	n.lock = f
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("setting data: another process works with %s; each instance needs a folder of its own: %w", n.set.Data, err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		return fmt.Errorf("setting data: %w", err)
	}
	if n.instance = strings.TrimSpace(string(b)); n.instance != "" {
		return nil
	}
	n.instance = rand.Text()
	_, err = f.WriteString(n.instance + "\n")
	if err := errors.Join(err, f.Sync()); err != nil {
		return fmt.Errorf("setting data: keep the name of this instance: %w", err)
	}
	return nil
}

func (n *Node) openIdentity() error {
	c := n.set.Cluster
	dev := c.DemoPeople != ""
	var err error
	if err = n.follow(c.Identity, dev); err != nil {
		return fmt.Errorf("setting identity: %w", err)
	}
	if n.keys, err = history.LoadKeyring(c.Keyring); err != nil {
		return fmt.Errorf("setting keyring: %w", err)
	}
	for _, o := range n.set.owners() {
		key, err := identity.LoadSigningKey(c.SigningKey, dev)
		if err != nil {
			return fmt.Errorf("setting signing-key: %w", err)
		}
		if n.signers[o], err = history.NewSigner(key); err != nil {
			return fmt.Errorf("setting signing-key: %w", err)
		}
		listed, ok := n.keys.Lookup(n.signers[o].KeyID)
		if !ok || listed.Owner != o {
			return fmt.Errorf("setting signing-key: %s is not listed as a key of %s in %s: no reader would believe what it signs", c.SigningKey, o, filepath.Base(c.Keyring))
		}
	}
	return nil
}

func (n *Node) connectLog(ctx context.Context) error {
	c := n.set.Cluster
	var err error
	if n.js, err = natsd.Dial(natsd.Remote{Servers: c.NATS, Service: n.set.Service, Seed: c.Seed, Identity: n.identity, Logger: n.log}); err != nil {
		return err
	}
	n.expect = c.expect()
	return n.openStores(ctx, historystore.Config{Readers: natsd.Consumers(n.set.Service)})
}

// expect is what the log must be like.
func (c Cluster) expect() natsd.Expect {
	e := natsd.Expect{Replicas: c.Replicas}
	if c.Synced {
		e.Sync = natsd.SyncStated
	}
	return e
}

func (n *Node) openPeers() error {
	for _, name := range callees(n.set.Service) {
		if n.set.Cluster.Peers[name] == "" {
			return fmt.Errorf("setting peer: the %s service needs the address of %s: --peer %s=host:port", n.set.Service, name, name)
		}
	}
	for name, addr := range n.set.Cluster.Peers {
		conn, err := rpc.Dial(addr, rpc.ClientConfig{Identity: n.identity, Tracer: n.tel.Tracer, Meter: n.tel.Meter})
		if err != nil {
			return fmt.Errorf("setting peer %s: %w", name, err)
		}
		n.conns = append(n.conns, conn)
		n.peers[name] = conn
	}
	return n.openSiblings()
}

// openSiblings prepares a connection to each instance of the deployment service: a session belongs to one of them.
func (n *Node) openSiblings() error {
	all := n.set.Cluster.Peers[procedure.OwnerDeployment]
	if n.set.Service != procedure.OwnerDeployment || all == "" && n.set.Console.Listen == "" {
		return nil
	}
	if all == "" {
		return errors.New("setting peer: a deployment service with a console needs the addresses of all its instances, its own too: --peer deployment=host:port;host:port")
	}
	for _, addr := range strings.Split(all, ",") {
		addr = strings.TrimSpace(addr)
		conn, err := rpc.Dial(addr, rpc.ClientConfig{Identity: n.identity, Once: true, Tracer: n.tel.Tracer, Meter: n.tel.Meter})
		if err != nil {
			return fmt.Errorf("setting peer %s: %w", procedure.OwnerDeployment, err)
		}
		n.conns = append(n.conns, conn)
		n.siblings = append(n.siblings, deployment.Sibling{Address: addr, Conn: conn})
	}
	return nil
}
