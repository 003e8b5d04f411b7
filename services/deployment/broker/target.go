// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// access is the broker's own credential for the target: made when the subject's is consumed, and its private half only in memory.
type access struct {
	Access
	signer ssh.Signer
	target Target
}

// newTargetKey makes the key of one session.
func newTargetKey() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(private)
}

func newAccess(g Grant, target Target, until time.Time, signer ssh.Signer) *access {
	return &access{Access: Access{Grant: g, Key: signer.PublicKey(), Until: until}, signer: signer, target: target}
}

// offer is a key of which only the public half is known: enough to ask a server whether it would take it.
type offer struct{ key ssh.PublicKey }

// errOfferTaken means that a server would take a key, if somebody had its private half.
var errOfferTaken = errors.New("the server takes the key")

// PublicKey is the key.
func (o offer) PublicKey() ssh.PublicKey { return o.key }

// Sign is reached when a server takes the key.
func (o offer) Sign(io.Reader, []byte) (*ssh.Signature, error) { return nil, errOfferTaken }

// errTargetRefused is returned where the target's sshd was reached, proved its host key, and did not accept the key.
var errTargetRefused = errors.New("the target's sshd does not accept the key")

// dialTCP opens a connection that notices within half a minute if the other side is gone.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialWithin, KeepAliveConfig: keepAlive()}
	return d.DialContext(ctx, "tcp", address)
}

func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}
}

// dial logs in to the target.
func (b *Broker) dial(ctx context.Context, a *access) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	conn, err := b.cfg.Dial(ctx, a.target.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", a.Host, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	c, channels, requests, err := ssh.NewClientConn(conn, a.target.Address, &ssh.ClientConfig{
		User: a.Account, Auth: []ssh.AuthMethod{ssh.PublicKeys(a.signer)},
		HostKeyCallback: ssh.FixedHostKey(a.target.HostKey), HostKeyAlgorithms: hostKeyAlgorithms(a.target.HostKey),
		ClientVersion: "SSH-2.0-epatch",
	})
	if !stop() {
		return nil, fmt.Errorf("log in to %s: %w", a.Host, context.Cause(ctx))
	}
	switch {
	case err != nil && strings.Contains(err.Error(), "unable to authenticate"): // the library has no type for it
		return nil, fmt.Errorf("log in to %s as %s: %w", a.Host, a.Account, errTargetRefused)
	case err != nil:
		conn.Close()
		return nil, fmt.Errorf("log in to %s as %s: %w", a.Host, a.Account, err)
	}
	// The client answers all requests and openings of channels by the target with a refusal.
	return ssh.NewClient(c, channels, requests), nil
}

// hostKeyAlgorithms lets the target prove the key that is pinned, and no other.
func hostKeyAlgorithms(key ssh.PublicKey) []string {
	if key.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{key.Type()}
}

// byHand is how often the target is tried while an administrator installs the key by hand.
const byHand = 2 * time.Second

// reach logs in to the target. Without an agent somebody has to install the key first: until then it is tried again, as long as
// the watcher is there, and those who watch see which line it is.
func (s *session) reach(ctx context.Context, a *access, agent bool) (*ssh.Client, error) {
	for {
		client, err := s.b.dial(ctx, a)
		if agent || !errors.Is(err, errTargetRefused) {
			return client, err
		}
		s.mu.Lock()
		now := s.b.cfg.Clock.Now()
		gone := s.absent(now)
		if s.state == StateOpening && s.text == "" {
			s.text = "install this line by hand as " + a.Account + "'s key on " + a.Host + ": " + a.Line()
			s.notify()
		}
		s.mu.Unlock()
		if gone != "" || now.After(a.FirstUse) {
			return nil, fmt.Errorf("nobody installed the key in time: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(byHand):
		}
	}
}
