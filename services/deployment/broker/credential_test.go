// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
)

// The credential: one use, proven by signature, of one form.

// Of 1,000 attempts with one credential, hundreds of them at once, one passes. Each of the others is refused and recorded.
func TestThousandAttemptsOnePasses(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	k := r.fetch()
	const attempts, together = 1000, 40
	places := make(chan struct{}, together)
	var passed, refused atomic.Int64
	var all sync.WaitGroup
	for range attempts {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			client, err := r.tryDial(k.Login, ssh.PublicKeys(k.Signer))
			if err != nil {
				t.Error(err)
				return
			}
			g := &crafted{t: t, client: client, out: newScreen(), err: newScreen()}
			if g.tryShell() {
				passed.Add(1)
				return // and stays, since its end would end the session
			}
			refused.Add(1)
			client.Close()
		})
	}
	all.Wait()
	if passed.Load() != 1 || refused.Load() != attempts-1 {
		t.Fatalf("%d passed, %d were refused", passed.Load(), refused.Load())
	}
	if n := len(events[brokertest.Consumed](r)); n != 1 {
		t.Errorf("consumed %d times", n)
	}
	recorded := events[brokertest.ConnectRefused](r)
	if len(recorded) != attempts-1 {
		t.Errorf("%d refused attempts are recorded", len(recorded))
	}
	for _, x := range recorded {
		if x.Reason != broker.ReasonConsumed || x.Fingerprint != k.Fingerprint {
			t.Fatalf("%+v", x)
		}
	}
	if s := seenBy(e).Status; s.State != broker.StateLive {
		t.Errorf("%+v", s)
	}
	t.Logf("%d attempts: %d passed, %d refused and recorded", attempts, passed.Load(), len(recorded))
}

// N23: over one connection, once.
func TestN23OneConnectionConsumesOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	k := r.fetch()
	g := r.dial(k)
	g.shell()
	e.state(broker.StateLive)
	if ok, err := g.channel.SendRequest("shell", true, nil); ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	if _, _, err := g.client.OpenChannel("session", nil); err == nil {
		t.Error("a second session channel")
	}
	must(t, g.channel.Close())
	if _, _, err := g.client.OpenChannel("session", nil); err == nil {
		t.Error("another session channel after the first")
	}
	again := r.dial(k)
	if again.tryShell() {
		t.Error("a second connection")
	}
	if n := len(events[brokertest.Consumed](r)); n != 1 {
		t.Errorf("consumed %d times", n)
	}
}

// liar offers somebody's public key and signs with another.
type liar struct {
	public ssh.PublicKey
	ssh.Signer
}

func (l liar) PublicKey() ssh.PublicKey { return l.public }

// N24: an offered key is nothing. Whoever can show a certificate and not sign for it gets nowhere; whoever offers one certificate
// and signs with another is who signed.
func TestN24AnOfferIsNoProof(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.watch()
	victim := r.fetch()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	plain, err := ssh.NewSignerFromKey(private)
	must(t, err)
	if client, err := r.tryDial(victim.Login, ssh.PublicKeys(liar{victim.Signer.PublicKey(), plain})); err == nil {
		client.Close()
		t.Fatal("logged in without the key")
	}
	other := broker.Ref{Incident: "e20261124.2", Grant: "G1"}
	r.Rules.Put(r.Grant(other))
	own, err := r.Fetch(t.Context(), other)
	must(t, err)
	offered := false
	methods := ssh.PublicKeysCallback(func() ([]ssh.Signer, error) { // offers the victim's, and signs with the own
		offered = true
		return []ssh.Signer{refusing{victim.Signer}, own.Signer}, nil
	})
	client, err := r.tryDial(own.Login, methods)
	if err == nil {
		g := &crafted{t: t, client: client, out: newScreen(), err: newScreen()}
		if g.tryShell() {
			t.Error("a session by an offered key")
		}
		client.Close()
	}
	if !offered {
		t.Error("nothing was offered")
	}
	r.untouched()
	for _, x := range events[brokertest.ConnectRefused](r) {
		t.Errorf("the victim's grant was asked for: %+v", x)
	}
}

// refusing cannot sign.
type refusing struct{ ssh.Signer }

func (refusing) Sign(io.Reader, []byte) (*ssh.Signature, error) { return nil, errors.New("no") }

// The certificate has to have exactly the form that the gateway gives it, to come from where it was fetched, and in time. What
// is ours is recorded.
func TestCertificatesOfAnotherForm(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.watch()
	for name, change := range map[string]func(*ssh.Certificate){
		"no principal":     func(c *ssh.Certificate) { c.ValidPrincipals = nil },
		"two principals":   func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "root") },
		"other key id":     func(c *ssh.Certificate) { c.KeyId = "e20261124.9/G9" },
		"no source":        func(c *ssh.Certificate) { delete(c.CriticalOptions, "source-address") },
		"other source":     func(c *ssh.Certificate) { c.CriticalOptions["source-address"] = "192.0.2.1" },
		"no command":       func(c *ssh.Certificate) { delete(c.CriticalOptions, "force-command") },
		"unknown option":   func(c *ssh.Certificate) { c.CriticalOptions["verify-required"] = "" },
		"forwarding":       func(c *ssh.Certificate) { c.Extensions["permit-port-forwarding"] = "" },
		"no terminal":      func(c *ssh.Certificate) { c.Extensions = nil },
		"a host's":         func(c *ssh.Certificate) { c.CertType = ssh.HostCert },
		"expired":          func(c *ssh.Certificate) { c.ValidBefore = uint64(r.clock.Now().Unix()) - 1 },
		"not yet valid":    func(c *ssh.Certificate) { c.ValidAfter = uint64(r.clock.Now().Unix()) + 60 },
		"changed and bare": nil,
	} {
		t.Run(name, func(t *testing.T) {
			signer := r.forge(change)
			if client, err := r.tryDial(brokertest.Ref.Login(), ssh.PublicKeys(signer)); err == nil {
				client.Close()
				t.Error("accepted")
			}
		})
	}
	r.untouched()
	event(r, func(broker.RefusedAttempt) bool { return len(events[broker.RefusedAttempt](r)) >= 8 }) // a handshake may end after its client
}

// What was never signed by the authority, or is offered by somebody who has not its key, is written into nobody's history (N24).
func TestUnprovenIsNotRecorded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.watch()
	expired := func(c *ssh.Certificate) { c.ValidBefore = uint64(r.clock.Now().Unix()) - 1 }
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	mine, err := ssh.NewSignerFromKey(private)
	must(t, err)
	made := *r.forge(func(*ssh.Certificate) {}).PublicKey().(*ssh.Certificate)
	if made.Key, err = ssh.NewPublicKey(public); err != nil {
		t.Fatal(err)
	}
	expired(&made) // what anybody can make of a certificate that was seen, and has the key of
	invented, err := ssh.NewCertSigner(&made, mine)
	must(t, err)
	stolen := r.forge(expired)
	for name, signer := range map[string]ssh.Signer{
		"never signed": invented, "not proven": refusing{stolen}, "signed by another key": liar{stolen.PublicKey(), mine},
	} {
		if client, err := r.tryDial(brokertest.Ref.Login(), ssh.PublicKeys(signer)); err == nil {
			client.Close()
			t.Errorf("%s: logged in", name)
		}
	}
	if client, err := r.tryDial(brokertest.Ref.Login(), ssh.PublicKeys(stolen)); err == nil {
		client.Close()
		t.Error("an expired certificate is accepted")
	}
	if x := event[broker.RefusedAttempt](r, nil); !strings.Contains(x.Text, "expired") {
		t.Errorf("recorded %+v", x)
	}
	must(t, r.Close()) // which ends every handshake
	if n := len(events[broker.RefusedAttempt](r)); n != 1 {
		t.Errorf("%d are recorded, of which one was proven", n)
	}
}

// forge makes a certificate signed by the gateway's authority after a change; without one, a certificate whose signature does
// not fit.
func (r *rig) forge(change func(*ssh.Certificate)) ssh.Signer {
	r.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(r.t, err)
	key, err := ssh.NewPublicKey(public)
	must(r.t, err)
	cred, err := r.Broker.Credential(r.t.Context(), brokertest.Ref, brokertest.Subject, string(ssh.MarshalAuthorizedKey(key)), "127.0.0.1")
	must(r.t, err)
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(cred.Certificate))
	must(r.t, err)
	cert := parsed.(*ssh.Certificate)
	if change == nil {
		cert.Serial++
	} else {
		change(cert)
		must(r.t, cert.SignCert(rand.Reader, r.UserCA))
	}
	plain, err := ssh.NewSignerFromKey(private)
	must(r.t, err)
	signer, err := ssh.NewCertSigner(cert, plain)
	must(r.t, err)
	return signer
}

// A stock client is told in words why its credential is not taken.
func TestStockClientIsToldWhy(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.watch()
	k := r.fetch()
	r.clock.Advance(10*time.Minute + time.Second)
	if text := r.ssh(k).ends(); !strings.Contains(text, "has expired") {
		t.Error(text)
	}
	x := event[broker.RefusedAttempt](r, nil)
	if x.What != "login" || x.Source != "127.0.0.1" {
		t.Errorf("%+v", x)
	}
}

// Passwords, plain keys, other people's authorities: nothing else opens the door.
func TestOnlyCertificatesAreAccepted(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.watch()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	plain, err := ssh.NewSignerFromKey(private)
	must(t, err)
	r2 := newRig(t, nil) // another gateway's authority
	for name, auth := range map[string][]ssh.AuthMethod{
		"none":        nil,
		"password":    {ssh.Password("")},
		"interactive": {ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) { return nil, nil })},
		"plain key":   {ssh.PublicKeys(plain)},
		"foreign":     {ssh.PublicKeys(r2.fetch().Signer)},
	} {
		if client, err := r.tryDial(brokertest.Ref.Login(), auth...); err == nil {
			client.Close()
			t.Errorf("%s: logged in", name)
		}
	}
	r.untouched()
}

func TestWhoGetsACredential(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	public, _, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	key, err := ssh.NewPublicKey(public)
	must(t, err)
	line := string(ssh.MarshalAuthorizedKey(key))
	g := r.Grant(brokertest.Ref)
	g.Source = "192.0.2.7"
	r.Rules.Put(g)
	for _, x := range []struct{ person, key, source, reason string }{
		{brokertest.Watcher, line, g.Source, broker.ReasonNotSubject},
		{brokertest.Subject, line, "192.0.2.8", broker.ReasonSource},
		{brokertest.Subject, "ssh-rsa AAAA", g.Source, broker.ReasonKey},
		{brokertest.Subject, "", g.Source, broker.ReasonKey},
	} {
		_, err := r.Broker.Credential(t.Context(), brokertest.Ref, x.person, x.key, x.source)
		refusedBy(t, err, x.reason)
	}
	cred, err := r.Broker.Credential(t.Context(), brokertest.Ref, brokertest.Subject, line, g.Source)
	must(t, err)
	if cred.NotAfter != g.FirstUse || !strings.Contains(cred.KnownHosts, "ssh-ed25519") {
		t.Errorf("%+v", cred)
	}
	must(t, r.Rules.Terminate(t.Context(), brokertest.Ref, broker.Ending{}))
	_, err = r.Broker.Credential(t.Context(), brokertest.Ref, brokertest.Subject, line, g.Source)
	refusedBy(t, err, broker.ReasonGrantState)
	r.Rules.SetDown(true)
	if _, err := r.Broker.Credential(context.Background(), brokertest.Ref, brokertest.Subject, line, g.Source); err == nil {
		t.Error("a credential while the log is down")
	}
}

// A key file that others may read is refused, as other secrets are: who could read it once may have it still.
func TestKeyFileIsPrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "user_ca")
	_, err := broker.LoadKey(path) // made
	must(t, err)
	_, err = broker.LoadKey(path)
	must(t, err)
	must(t, os.Chmod(path, 0o640))
	if _, err := broker.LoadKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("read by others, too: %v", err)
	}
}
