// SPDX-License-Identifier: Apache-2.0

package brokertest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/pkg/timer"
	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/internal/sshdtest"
)

// Persons and place of the rig's grants.
const (
	Subject  = "sa-1"
	Watcher  = "ca-1"
	HostName = "critical-1"
)

// Ref is the rig's first grant.
var Ref = broker.Ref{Incident: "e20261124.1", Grant: "G1"}

// Limits are the policy's.
func Limits() broker.Limits {
	return broker.Limits{
		Lease: 5 * time.Second, Silence: time.Second, Grace: time.Minute, Presence: 5 * time.Minute, Max: time.Hour, Idle: 10 * time.Minute,
		Window: 64 << 10, WindowAge: 3 * time.Second, Recording: 64 << 20, Anchor: 10 * time.Second,
	}
}

// Rig is a broker before a real sshd.
type Rig struct {
	Broker *broker.Broker
	Rules  *Rules
	Host   *Host
	Sshd   *sshdtest.Server
	Clock  timer.Clock
	Dir    string
	UserCA ssh.Signer
	// Address is where the broker listens.
	Address string

	stop   context.CancelFunc
	served chan error
	once   sync.Once
}

// Config of a rig.
type Config struct {
	Dir   string
	Sshd  *sshdtest.Server
	Clock timer.Clock
	Log   *slog.Logger
	// Change may change the broker's configuration before it starts.
	Change func(*broker.Config)
}

// Start starts a broker on a loopback port. Its first grant is armed.
func Start(cfg Config) (*Rig, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ca, err1 := broker.LoadKey(filepath.Join(cfg.Dir, "user_ca"))
	hostKey, err2 := broker.LoadKey(filepath.Join(cfg.Dir, "gateway_key"))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	r := &Rig{
		Rules: NewRules(), Host: &Host{Keys: cfg.Sshd.AuthorizedKeys, Dir: cfg.Dir}, Sshd: cfg.Sshd, Clock: cfg.Clock, Dir: cfg.Dir,
		UserCA: ca, Address: listener.Addr().String(), served: make(chan error, 1),
	}
	config := broker.Config{
		Rules: r.Rules, Host: r.Host, Targets: r, Clock: cfg.Clock, Log: cfg.Log, UserCA: ca, HostKey: hostKey,
		Recordings: filepath.Join(cfg.Dir, "recordings"), Address: r.Address,
	}
	if cfg.Change != nil {
		cfg.Change(&config)
	}
	if r.Broker, err = broker.New(config); err != nil {
		listener.Close()
		return nil, err
	}
	r.Rules.Put(r.Grant(Ref))
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.served <- r.Broker.Serve(ctx, listener) }()
	return r, nil
}

// Close stops the broker.
func (r *Rig) Close() error {
	var err error
	r.once.Do(func() {
		r.stop()
		err = <-r.served
		r.Broker.Close()
	})
	return err
}

// Grant is an armed grant for the rig's target.
func (r *Rig) Grant(ref broker.Ref) broker.Grant {
	now := r.Clock.Now()
	return broker.Grant{
		Ref: ref, Subject: Subject, Watcher: Watcher, ArmedAt: now, Host: HostName, Account: r.Sshd.User,
		FirstUse: now.Add(10 * time.Minute), Limits: Limits(),
	}
}

// Target implements broker.Targets.
func (r *Rig) Target(host string) (broker.Target, error) {
	if host != HostName {
		return broker.Target{}, fmt.Errorf("host %s is not configured", host)
	}
	return broker.Target{Address: r.Sshd.Address, HostKey: r.Sshd.HostKey}, nil
}

// Key is a subject's key pair with its certificate, as files and as a signer.
type Key struct {
	broker.Credential
	// File is the private key, Known the known_hosts file.
	File, Known string
	Signer      ssh.Signer
}

// Fetch makes a key pair and has the broker sign it.
func (r *Rig) Fetch(ctx context.Context, ref broker.Ref) (Key, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, err
	}
	pub, err := ssh.NewPublicKey(public)
	if err != nil {
		return Key{}, err
	}
	cred, err := r.Broker.Credential(ctx, ref, Subject, string(ssh.MarshalAuthorizedKey(pub)), "127.0.0.1")
	if err != nil {
		return Key{}, err
	}
	return r.KeyOf(cred, private)
}

// KeyOf writes a credential and its private key as a client wants them.
func (r *Rig) KeyOf(cred broker.Credential, private ed25519.PrivateKey) (Key, error) {
	dir, err := os.MkdirTemp(r.Dir, "subject-")
	if err != nil {
		return Key{}, err
	}
	k := Key{Credential: cred, File: filepath.Join(dir, "id"), Known: filepath.Join(dir, "known_hosts")}
	plain, err1 := ssh.NewSignerFromKey(private)
	parsed, _, _, _, err2 := ssh.ParseAuthorizedKey([]byte(cred.Certificate))
	if err := errors.Join(err1, err2); err != nil {
		return Key{}, err
	}
	if cert, ok := parsed.(*ssh.Certificate); ok {
		if k.Signer, err = ssh.NewCertSigner(cert, plain); err != nil {
			return Key{}, err
		}
	}
	return k, errors.Join(sshdtest.WriteKey(k.File, private), os.WriteFile(k.File+"-cert.pub", []byte(cred.Certificate), 0o600),
		os.WriteFile(k.Known, []byte(cred.KnownHosts), 0o600))
}

// Args are the arguments of a stock client, without the login, so that scp and sftp take them as well.
func (r *Rig) Args(k Key) []string {
	_, port := r.Broker.HostPort()
	return []string{
		"-F", "none", "-i", k.File, "-o", "CertificateFile=" + k.File + "-cert.pub", "-o", "UserKnownHostsFile=" + k.Known,
		"-o", "GlobalKnownHostsFile=none", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "IdentityAgent=none",
		"-o", fmt.Sprintf("Port=%d", port),
	}
}

// Login is user and host as a client wants them.
func (r *Rig) Login(k Key) string {
	host, _ := r.Broker.HostPort()
	return k.Login + "@" + host
}

// Command is the stock ssh client with a terminal, to which extra arguments may be given.
func (r *Rig) Command(ctx context.Context, k Key, extra ...string) *exec.Cmd {
	args := append(append(r.Args(k), extra...), r.Login(k))
	return exec.CommandContext(ctx, "ssh", args...)
}

// Eyes is a watcher who sees and acknowledges everything at once.
type Eyes struct {
	*broker.Watcher
	mu      sync.Mutex
	output  strings.Builder
	frames  []broker.Frame
	status  broker.Status
	roster  []broker.Person
	ending  *broker.Ending
	changed chan struct{}
	blind   bool
	over    chan struct{}
}

// Open begins to watch, with a first sign of life. The stream is read until it ends; further signs of life are the caller's.
func (r *Rig) Open(ctx context.Context, ref broker.Ref, person string, mode broker.Mode) (*Eyes, error) {
	w, err := r.Broker.Watch(ctx, ref, person, mode)
	if err != nil {
		return nil, err
	}
	e := &Eyes{Watcher: w, changed: make(chan struct{}), over: make(chan struct{})}
	if err := w.Renew(false); err != nil {
		return nil, err
	}
	go e.read(context.WithoutCancel(ctx))
	return e, nil
}

// renewEvery is how often a watcher's client gives a sign of life.
const renewEvery = 250 * time.Millisecond

// KeepAlive renews the lease, as a watcher's client does, by the machine's clock until ctx ends.
func (e *Eyes) KeepAlive(ctx context.Context) {
	go func() {
		for ctx.Err() == nil {
			if e.Renew(false) != nil {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(renewEvery):
			}
		}
	}()
}

func (e *Eyes) read(ctx context.Context) {
	defer close(e.over)
	for {
		event, err := e.Next(ctx)
		if err != nil {
			return
		}
		e.note(event)
	}
}

func (e *Eyes) note(event broker.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range event.Frames {
		e.frames = append(e.frames, f)
		if out, ok := outputOf(f); ok {
			e.output.Write(out)
		}
		if !e.blind {
			_ = e.Ack(f.Offset)
		}
	}
	if event.Status != nil {
		e.status = *event.Status
	}
	if event.Roster != nil {
		e.roster = event.Roster
	}
	if event.Ending != nil {
		e.ending = event.Ending
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

// Blind stops acknowledging what is shown.
func (e *Eyes) Blind() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.blind = true
}

// Seen is what a watcher has before its eyes.
type Seen struct {
	Output string
	Frames []broker.Frame
	Status broker.Status
	Roster []broker.Person
	Ending *broker.Ending
}

// Seen returns what was seen so far, and a channel that is closed when more is.
func (e *Eyes) Seen() (Seen, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Seen{e.output.String(), e.frames, e.status, e.roster, e.ending}, e.changed
}

// Discard is a log that nobody reads.
func Discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func outputOf(f broker.Frame) ([]byte, bool) {
	out, ok := f.Body.(recording.Output)
	return out.Data, ok
}
