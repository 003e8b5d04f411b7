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

// Proof is what happened when the broker tried to use an ended grant again, from both sides.
type Proof struct {
	At time.Time
	// Gateway is the attempt with a certificate of the grant at the broker's own port, Host that with the broker's key at the
	// target's sshd.
	Gateway, Host Trial
}

// Trial is one attempt at reuse.
type Trial struct {
	// Tried is whether the attempt came as far as an answer; Refused whether the answer was no. An attempt that did not reach the
	// other side proves nothing.
	Tried, Refused bool
	// Answer is what the other side said, or why it was not reached.
	Answer string
}

var errProbeAccepted = errors.New("the credential of an ended grant was accepted")

func (b *Broker) isProbe(serial uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.probes[serial]
}

// Prove tries both credentials of a grant that has been disabled: with a fresh certificate, which is worth as much as the
// subject's, and with the very key that the broker used on the target. Should the gateway accept, no target is opened.
func (b *Broker) Prove(ctx context.Context, ref Ref) (Proof, error) {
	grant, err := b.cfg.Rules.Grant(ctx, ref)
	if err != nil {
		return Proof{}, fmt.Errorf("grant %s: %w", ref, err)
	}
	p := Proof{At: b.cfg.Clock.Now()}
	p.Gateway = b.tryGateway(ctx, grant)
	p.Host = b.tryHost(ctx, grant)
	if s := b.find(ref); s != nil && p.Gateway.Refused && p.Host.Refused {
		b.forget(s)
	}
	return p, nil
}

// tryGateway connects as the subject would, through the network and the whole of the gateway.
func (b *Broker) tryGateway(ctx context.Context, g Grant) Trial {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Trial{Answer: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	conn, err := dialTCP(ctx, b.cfg.Address)
	if err != nil {
		return Trial{Answer: "the gateway was not reached: " + err.Error()}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	g.FirstUse = b.cfg.Clock.Now().Add(time.Minute) // or the certificate's age alone would be what is refused
	signer, serial, err := b.probe(g, public, private, host(conn.LocalAddr()))
	if err != nil {
		return Trial{Answer: err.Error()}
	}
	defer b.forgetProbe(serial)
	return knock(conn, g.Login(), signer, b.cfg.HostKey.PublicKey())
}

func (b *Broker) probe(g Grant, public ed25519.PublicKey, private ed25519.PrivateKey, source string) (ssh.Signer, uint64, error) {
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, 0, err
	}
	cred, err := b.mint(g, key, source, b.cfg.Clock.Now())
	if err != nil {
		return nil, 0, err
	}
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(cred.Certificate))
	if err != nil {
		return nil, 0, err
	}
	plain, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, 0, err
	}
	cert, ok := parsed.(*ssh.Certificate)
	if !ok {
		return nil, 0, errors.New("the credential is no certificate")
	}
	signer, err := ssh.NewCertSigner(cert, plain)
	if err != nil {
		return nil, 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probes[cred.Serial] = true
	return signer, cred.Serial, nil
}

func (b *Broker) forgetProbe(serial uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.probes, serial)
}

// knock asks for a console as a stock client does, and reports the answer.
func knock(conn net.Conn, login string, signer ssh.Signer, hostKey ssh.PublicKey) Trial {
	c, channels, requests, err := ssh.NewClientConn(conn, conn.RemoteAddr().String(), &ssh.ClientConfig{
		User: login, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(hostKey),
	})
	if err != nil {
		no := strings.Contains(err.Error(), "unable to authenticate")
		return Trial{Tried: no, Refused: no, Answer: oneLine(err.Error(), 500)}
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	channel, answers, err := client.OpenChannel("session", nil)
	if err != nil {
		return Trial{Tried: true, Refused: true, Answer: oneLine(err.Error(), 500)}
	}
	go ssh.DiscardRequests(answers)
	for _, r := range []struct {
		name    string
		payload []byte
	}{{"pty-req", ssh.Marshal(terminal{Term: "dumb", Columns: 80, Rows: 24})}, {"shell", nil}} {
		ok, err := channel.SendRequest(r.name, true, r.payload)
		if err != nil {
			return Trial{Answer: oneLine(err.Error(), 500)}
		}
		if !ok {
			text, _ := io.ReadAll(io.LimitReader(channel.Stderr(), 4096))
			return Trial{Tried: true, Refused: true, Answer: oneLine(strings.TrimSpace(string(text)), 500)}
		}
	}
	return Trial{Tried: true, Answer: "the gateway accepts a credential of the grant"}
}

// tryHost logs in to the target with the key of the session. A gateway that does not have it, because another one had the session and
// is lost, offers the public half that the history names: whether the target takes it, it says before it wants a signature.
func (b *Broker) tryHost(ctx context.Context, g Grant) Trial {
	var a *access
	if s := b.find(g.Ref); s != nil {
		s.mu.Lock()
		a = s.access
		s.mu.Unlock()
	}
	switch {
	case a != nil:
	case !g.Consumed:
		return Trial{Tried: true, Refused: true, Answer: "no key for the target was ever made"}
	case g.TargetKey == nil:
		return Trial{Answer: "the gateway that had the key for the target does not run any more, and nobody knows the key: that its line is gone is for the host's agent to prove"}
	default:
		target, err := b.cfg.Targets.Target(g.Host)
		if err != nil {
			return Trial{Answer: oneLine(err.Error(), 500)}
		}
		a = newAccess(g, target, time.Time{}, offer{g.TargetKey})
	}
	client, err := b.dial(ctx, a)
	if errors.Is(err, errTargetRefused) {
		return Trial{Tried: true, Refused: true, Answer: oneLine(err.Error(), 500)}
	}
	if errors.Is(err, errOfferTaken) {
		return Trial{Tried: true, Answer: "the target's sshd takes the key"}
	}
	if err != nil {
		return Trial{Answer: oneLine(err.Error(), 500)}
	}
	client.Close()
	return Trial{Tried: true, Answer: "the target's sshd accepts the key"}
}
