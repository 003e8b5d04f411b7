// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/pkg/timer"
)

// Config of a broker. All fields but the maxima are required.
type Config struct {
	Rules   Rules
	Host    Host
	Targets Targets
	Clock   timer.Clock
	Log     *slog.Logger
	// UserCA signs the subjects' certificates; HostKey is what the broker proves to be. Both are Ed25519 (LoadKey).
	UserCA, HostKey ssh.Signer
	// Recordings is the folder of the recordings: the broker's own, nobody else's.
	Recordings string
	// Address is host and port under which subjects reach the broker.
	Address string
	// MaxHandshakes bounds the connections that have not proven a credential yet (32 if zero); more wait outside.
	// MaxConnections bounds those that have (64); more are refused.
	MaxHandshakes, MaxConnections int
	// Dial opens a connection to a target's sshd; a plain TCP connection if nil.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

const (
	maxHandshakes  = 32
	maxConnections = 64

	// handshakeWithin is how long a client may take to prove its credential (hardening.md 1.7), shellWithin how long it may
	// then take to ask for its shell, and dialWithin how long the target may take to answer.
	handshakeWithin = 10 * time.Second
	shellWithin     = 30 * time.Second
	dialWithin      = 10 * time.Second
	// callWithin bounds one call of the rules.
	callWithin = 10 * time.Second
	// drainWithin is how long a stopping broker goes on recording what it did.
	drainWithin = 5 * time.Second
)

// Broker is the gateway. Its methods may be called from several goroutines at once.
type Broker struct {
	cfg         Config
	handshakes  chan struct{}
	connections chan struct{}

	ctx  context.Context // until the broker has stopped for good; what is recorded late runs under it
	stop context.CancelFunc
	work sync.WaitGroup

	mu       sync.Mutex
	sessions map[Ref]*session
	probes   map[uint64]bool // serials of the broker's own attempts at reuse
	revoked  map[Ref]bool    // grants that were ended here
	closed   bool
}

// New checks the configuration.
func New(cfg Config) (*Broker, error) {
	switch {
	case cfg.Rules == nil || cfg.Host == nil || cfg.Targets == nil || cfg.Clock == nil || cfg.Log == nil:
		return nil, errors.New("broker: rules, host, targets, clock or log is missing")
	case cfg.UserCA == nil || cfg.HostKey == nil:
		return nil, errors.New("broker: the authority's key or the host key is missing")
	case cfg.Recordings == "" || cfg.Address == "":
		return nil, errors.New("broker: the folder of recordings or the address is missing")
	}
	if cfg.MaxHandshakes == 0 {
		cfg.MaxHandshakes = maxHandshakes
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = maxConnections
	}
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	b := &Broker{
		cfg: cfg, handshakes: make(chan struct{}, cfg.MaxHandshakes), connections: make(chan struct{}, cfg.MaxConnections),
		sessions: map[Ref]*session{}, probes: map[uint64]bool{}, revoked: map[Ref]bool{},
	}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b, nil
}

// Close ends all sessions (GATEWAY_LOST) but those that wait for their subject, which another broker can let in; it waits a little until that is recorded, and stops. What could not be recorded is found
// by Recover at the next start.
func (b *Broker) Close() {
	b.mu.Lock()
	b.closed = true
	var open []*session
	for _, s := range b.sessions {
		open = append(open, s)
	}
	b.mu.Unlock()
	var all sync.WaitGroup
	for _, s := range open {
		all.Go(func() {
			if !s.lapse(CauseGateway, "the gateway stops") {
				s.terminate(CauseGateway, "", "the gateway stops", nil)
			}
			s.box.drain(drainWithin)
		})
	}
	all.Wait()
	b.mu.Lock()
	b.stop()
	b.mu.Unlock()
	b.work.Wait()
}

// spawn runs a part of the broker that Close waits for. Once the broker has stopped, nothing runs any more.
func (b *Broker) spawn(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() == nil {
		b.work.Go(f)
	}
}

func (b *Broker) find(ref Ref) *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions[ref]
}

// session returns the grant's session and begins one, which waits for its subject, if there is none.
func (b *Broker) session(g Grant) (*session, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errors.New("the gateway stops")
	}
	s := b.sessions[g.Ref]
	if s == nil {
		s = newSession(b, g)
		b.sessions[g.Ref] = s
		b.work.Go(func() { s.guard("loop", s.loop) })
	}
	return s, nil
}

func (b *Broker) forget(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sessions[s.grant.Ref] == s {
		delete(b.sessions, s.grant.Ref)
	}
}

// Armed tells that a person has armed the watch (again): the presence counts from then, and only that person's watching counts.
func (b *Broker) Armed(ref Ref, person string, at time.Time) {
	if s := b.find(ref); s != nil {
		s.armed(person, at)
	}
}

// Status returns how a session stands; false if the broker has none for the grant.
func (b *Broker) Status(ref Ref) (Status, bool) {
	s := b.find(ref)
	if s == nil {
		return Status{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status(b.cfg.Clock.Now()), true
}

// Freeze freezes the session: the gate is shut before anything else is done, the processes then. record, if not nil, is called
// once to record it (the command of the person who wants it); if that leaves it unknown whether it was stored, the broker
// records the freeze by itself until it is. A session that is not live stays as it is, and is not recorded.
func (b *Broker) Freeze(ctx context.Context, ref Ref, cause Cause, record func(context.Context, Freezing) error) (Freezing, error) {
	s := b.find(ref)
	if s == nil {
		return Freezing{}, refused(ReasonGrantState, "the gateway has no session of grant %s", ref)
	}
	f := s.freeze(cause)
	if f == nil {
		return Freezing{}, refused(ReasonGrantState, "the session of grant %s is not live", ref)
	}
	return f.finish(ctx, record)
}

// Resume lets a frozen session go on: record is called once to record it, if the session is frozen, and its error is returned. Then the
// processes are thawed and the gate opens, unless the watcher, the recorder or the log is not there, in which case the session stays frozen and
// that is recorded again. A freeze that comes meanwhile, from before record is called, is one more: the session stays frozen by that.
func (b *Broker) Resume(ctx context.Context, ref Ref, by, reason string, record func(context.Context) error) error {
	s := b.find(ref)
	if s == nil {
		return refused(ReasonGrantState, "the gateway has no session of grant %s", ref)
	}
	return s.resume(ctx, by, reason, record)
}

// Terminate ends the grant's session, or makes sure that none can begin: in any state, with or without a session here. The
// effects are independent and each reports for itself. record is as for Freeze. Ended before: the first ending is returned.
func (b *Broker) Terminate(ctx context.Context, ref Ref, cause Cause, by, text string, record func(context.Context, Ending) error) (Ending, error) {
	s := b.find(ref)
	if s == nil {
		grant, err := b.cfg.Rules.Grant(ctx, ref)
		if err != nil {
			return Ending{}, fmt.Errorf("grant %s: %w", ref, err)
		}
		if s, err = b.session(grant); err != nil {
			return Ending{}, err
		}
	}
	return s.terminate(cause, by, text, kept(ctx, record)), nil
}

// kept lets a record be made in the caller's name although the caller has gone meanwhile: its context has the caller's values and
// the gateway's time.
func kept(ctx context.Context, record func(context.Context, Ending) error) func(context.Context, Ending) error {
	if record == nil {
		return nil
	}
	return func(within context.Context, e Ending) error {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		defer context.AfterFunc(within, func() { cancel(context.Cause(within)) })()
		return record(ctx, e)
	}
}

// Disable makes the end hold: it ends what is not ended yet and repeats what an end does at the gateway and on the host.
func (b *Broker) Disable(ctx context.Context, ref Ref, by string) ([]Effect, error) {
	if _, err := b.Terminate(ctx, ref, CauseDisabled, by, "disabled", nil); err != nil {
		return nil, err
	}
	s := b.find(ref)
	if s == nil {
		return nil, refused(ReasonGrantState, "the gateway has no session of grant %s", ref)
	}
	s.box.drain(recordFirst) // the end itself, with all that it did; else what follows would be recorded as one that did less
	return s.effects(ctx, map[string]func(context.Context) error{EffectCredential: s.revoke, EffectHost: s.endHost}), nil
}

// Extend raises limits, after that was recorded: of the session's length, and of the recording's size.
func (b *Broker) Extend(ref Ref, by string, longer time.Duration, larger int64) error {
	s := b.find(ref)
	if s == nil {
		return refused(ReasonGrantState, "the gateway has no session of grant %s", ref)
	}
	return s.extend(by, longer, larger)
}

// Note puts a watcher's remark into the recording and before everybody who watches.
func (b *Broker) Note(ref Ref, by, text string) error {
	s := b.find(ref)
	if s == nil {
		return refused(ReasonGrantState, "the gateway has no session of grant %s", ref)
	}
	return s.note(by, text)
}

// Refs are the grants of which the broker has a session, also one that has ended and of which its end is not proven.
func (b *Broker) Refs() []Ref {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.sessions))
}

// Recover ends grants that the history says are consumed or live and of which this broker knows no session: it was another
// process that had them, and their connections died with it (GATEWAY_LOST). text says what became of that one.
func (b *Broker) Recover(ctx context.Context, text string, grants []Grant) []Ending {
	var ended []Ending
	for _, g := range grants {
		if b.find(g.Ref) != nil {
			continue
		}
		s, err := b.session(g)
		if err != nil {
			b.cfg.Log.ErrorContext(ctx, "a grant that another process left cannot be ended", "grant", g.Ref.String(), "error", err)
			continue
		}
		ended = append(ended, s.terminate(CauseGateway, "", text, nil))
	}
	return ended
}
