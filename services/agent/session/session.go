// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Mode says what a freeze holds.
type Mode string

// Modes.
const (
	// ModeNone: nothing is held.
	ModeNone Mode = "none"
	// ModeProcess: the processes of the session, stopped one by one and looked after.
	ModeProcess Mode = "process"
	// ModeCgroup: the control group of the session.
	ModeCgroup Mode = "cgroup"
)

// Access is what Open lets in.
type Access struct {
	Grant     string    // such as e20261124.1/G1
	PublicKey string    // one authorized_keys line without options
	Account   string    // must be the configured one
	Until     time.Time // until when the key may be used to log in
	Grace     time.Duration
	// Instance of the service that opens it and has its subject and watcher, as Link names it.
	Instance string
}

// session is one grant on this host, from its opening on.
type session struct {
	k        *Keeper
	rec      *record
	instance string             // that has it; a session does not outlive the agent that knows it
	life     context.Context    // ends with the session
	abort    context.CancelFunc // ends it
	ended    atomic.Bool        // nothing may start any more
	link     atomic.Bool        // frozen for the lost link alone

	mu       sync.Mutex
	crew     *crew
	conn     *line // of the wrapper, nil before and after
	frozen   bool
	retrying bool // an end that failed is being tried again
}

func (k *Keeper) newSession(rec *record) *session {
	s := &session{k: k, rec: rec}
	s.life, s.abort = context.WithCancel(context.Background())
	return s
}

func (s *session) over() bool           { return s.ended.Load() }
func (s *session) heldByLink() bool     { return s.link.Load() }
func (s *session) grace() time.Duration { return orElse(s.rec.Grace, s.k.cfg.Grace) }
func compare(a, b string) int           { return strings.Compare(a, b) }

// Open notes what is on the host, makes the session's control group and lets the key in, in this order, so that there is
// something to compare with before anybody can change anything. It may be repeated; with other values, or after the end of
// the session, it is refused.
func (k *Keeper) OpenAccess(ctx context.Context, a Access) error {
	if a.Account != k.cfg.Account {
		return fmt.Errorf("sessions on this host log in to account %q, not %q; change the agent's settings or the service's", k.cfg.Account, a.Account)
	}
	if _, err := (Line{Grant: a.Grant, PublicKey: a.PublicKey, Until: a.Until, Program: k.cfg.Program, Socket: k.cfg.Socket}).text(); err != nil {
		return err
	}
	rec := &record{Grant: a.Grant, Key: a.PublicKey, Until: a.Until, Grace: a.Grace, OpenedAt: k.now(), Mark: a.Grant + "/" + rand.Text()}
	s := k.newSession(rec)
	s.instance = a.Instance
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	s.mu.Lock()
	defer s.mu.Unlock()
	k.mu.Lock()
	old, down := k.sessions[a.Grant], k.down[a.Instance] != nil
	if old == nil && !down {
		k.sessions[a.Grant] = s
	}
	k.mu.Unlock()
	switch {
	case old != nil:
		return old.again(rec)
	case down:
		return errors.New("the link to the service is down: no session is opened that would be frozen at once")
	}
	err := s.prepare(ctx)
	switch {
	case s.over(): // End came meanwhile; it has looked for the key perhaps before it was there
		return errors.Join(errors.New("the access was ended while it was being opened"), err, failure(k.dropKey(a.Grant)))
	case err != nil:
		return errors.Join(err, s.discard())
	}
	return nil
}

// again answers a repeated opening.
func (s *session) again(rec *record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over():
		return fmt.Errorf("the session of %s has ended on this host and is not opened again; reconnecting needs a new grant", rec.Grant)
	case s.rec.Key != rec.Key || !s.rec.Until.Equal(rec.Until):
		return fmt.Errorf("access for %s was opened with another key or another end", rec.Grant)
	}
	return nil
}

func (s *session) prepare(ctx context.Context) error {
	before, err := s.k.look(ctx)
	if err != nil {
		return fmt.Errorf("what is on the host before the session: %w", err)
	}
	s.crew = s.k.newCrew(s.rec, before.Processes)
	if s.k.group != "" {
		name := "epatch-console-" + strings.ReplaceAll(s.rec.Mark, "/", "-")
		if s.crew.group, err = makeCgroup(s.k.group, name, moreProcesses); err != nil {
			s.k.log.WarnContext(ctx, "a session gets no control group: its processes are stopped and killed one by one", "grant", s.rec.Grant, "error", err)
		} else {
			s.rec.Cgroup = s.crew.group.dir
		}
	}
	if err := s.k.saveBefore(s.rec.Grant, before); err != nil {
		return err
	}
	if err := s.k.save(s.rec); err != nil { // before the key: what is let in must be known after a crash
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.k.keyMu.Lock()
	defer s.k.keyMu.Unlock()
	return s.k.keys.Install(Line{
		Grant: s.rec.Grant, PublicKey: s.rec.Key, Until: s.rec.Until, From: s.k.cfg.From, Program: s.k.cfg.Program, Socket: s.k.cfg.Socket,
	})
}

func (k *Keeper) newCrew(rec *record, before []ident) *crew {
	c := &crew{
		table: k.table, self: os.Getpid(), mark: variable + "=" + rec.Mark,
		before: map[ident]bool{}, known: map[ident]bool{}, held: map[ident]bool{},
	}
	for _, id := range before {
		c.before[id] = true
	}
	return c
}

// discard takes back an opening that did not succeed, so that it may be tried again. s.mu is held.
func (s *session) discard() error {
	s.ended.Store(true)
	errs := []error{failure(s.k.dropKey(s.rec.Grant)), s.k.forget(s.rec.Grant)}
	if s.crew != nil && s.crew.group != nil {
		errs = append(errs, s.crew.group.remove())
	}
	s.k.mu.Lock()
	delete(s.k.sessions, s.rec.Grant)
	s.k.mu.Unlock()
	return errors.Join(errs...)
}

// serve speaks with one console shell until it or its connection ends.
func (k *Keeper) serve(l *line) {
	s, err := k.admit(l)
	k.entered()
	if err != nil {
		k.log.Warn("a console shell is refused", "error", err)
		_ = l.send(message{Refused: err.Error()}) // it may be gone
		return
	}
	k.log.Info("console shell", "grant", s.rec.Grant, "pid", s.rec.Wrapper.PID, "mode", string(s.mode()))
	why := "the console shell is gone"
	for {
		m, err := l.receive()
		if err != nil {
			break
		}
		if m.Ended {
			why = shellEnded
			break
		}
	}
	if s.over() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	if err := s.end(ctx, why).Err(); err != nil {
		k.log.Error("a session whose shell is gone could not be ended", "grant", s.rec.Grant, "error", err)
	}
}

// admit lets a console shell's process into its session: by the kernel's word about who is at the other end.
func (k *Keeper) admit(l *line) (*session, error) {
	pid, uid, err := peer(l.conn)
	if err != nil {
		return nil, err
	}
	if uid != k.uid {
		return nil, fmt.Errorf("this is user %d and not the account of console sessions", uid)
	}
	if err := l.conn.SetDeadline(time.Now().Add(helloWithin)); err != nil {
		return nil, err
	}
	m, err := l.receive()
	if err != nil || m.Hello == nil {
		return nil, errors.New("a hello was expected")
	}
	s, err := k.find(m.Hello.Grant)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over():
		return nil, errors.New("the session has ended; reconnecting needs a new grant")
	case s.frozen:
		return nil, errors.New("the session is frozen")
	case s.rec.Wrapper != (ident{}):
		return nil, errors.New("the session has a shell already, and gets no second one")
	}
	if err := s.adopt(pid); err != nil {
		return nil, err
	}
	if err := errors.Join(l.conn.SetDeadline(time.Time{}), l.send(message{Start: &start{Mark: s.rec.Mark, Processes: k.processes() + moreProcesses}})); err != nil {
		return nil, err
	}
	s.conn = l
	return s, nil
}

// adopt makes a process the root of the session. s.mu is held.
func (s *session) adopt(pid int) error {
	p, err := s.k.table.read(pid)
	if err != nil {
		return fmt.Errorf("the console shell cannot be seen: %w", err)
	}
	if s.crew.before[p.ident] {
		return errors.New("this process is older than the session")
	}
	all, err := s.k.table.all()
	if err != nil {
		return err
	}
	above := ancestors(all, p.parent)
	for _, a := range all {
		if above[a.PID] { // sshd and what it runs the forced command with: not the subject's, and they end with the wrapper
			s.crew.before[a.ident] = true
		}
	}
	if g := s.crew.group; g != nil {
		if err := g.add(pid); err != nil { // said loudly, and the processes are then stopped and killed one by one
			s.k.log.Warn("the console shell cannot be moved into its control group", "grant", s.rec.Grant, "error", err)
			s.crew.group, s.rec.Cgroup = nil, ""
			_ = g.remove()
		}
	}
	s.crew.root, s.crew.terminal = p.ident, p.terminal
	s.rec.Wrapper, s.rec.Terminal = p.ident, p.terminal
	if err := s.k.save(s.rec); err != nil {
		return err
	}
	s.k.serving.Go(s.lookOut)
	return nil
}

// processes is how many threads the account has.
func (k *Keeper) processes() uint64 {
	all, err := k.table.all()
	if err != nil {
		return 0
	}
	var n uint64
	for _, p := range all {
		if uid, threads, err := k.table.user(p.PID); err == nil && uid == k.uid {
			n += threads
		}
	}
	return n
}

// How often the processes are looked at: often enough that what the wrapper leaves behind when somebody kills it is known.
const (
	lookEvery       = 250 * time.Millisecond
	lookEveryFrozen = 100 * time.Millisecond
)

// lookOut remembers who belongs to the session, and keeps stopped what was stopped one by one: a process that is no member,
// such as a timed job of the subject, could continue it.
func (s *session) lookOut() {
	for told := ""; s.life.Err() == nil; {
		s.mu.Lock()
		pause, err := lookEvery, error(nil)
		if s.frozen {
			pause = lookEveryFrozen
			_, err = s.hold(s.life)
		} else {
			_, err = s.crew.find()
		}
		s.mu.Unlock()
		if err != nil && s.life.Err() == nil && err.Error() != told {
			told = err.Error()
			s.k.log.Error("the processes of a session", "grant", s.rec.Grant, "error", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.life.Done():
			timer.Stop()
		}
	}
}

func (s *session) mode() Mode {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.modeNow()
}

func (s *session) modeNow() Mode {
	if s.crew.group != nil {
		return ModeCgroup
	}
	return ModeProcess
}

// freezeWithin is how long a freeze may take until it says that it does not hold. It usually takes some milliseconds
// (watch.freeze_within wants a second); that a busy machine froze late is worth more to know than that it had not in time.
const freezeWithin = 3 * time.Second

// hold stops everything: the group, if there is one, and whatever belongs to the session and is outside of it. s.mu is held.
func (s *session) hold(ctx context.Context) (Mode, error) {
	ctx, cancel := context.WithTimeout(ctx, freezeWithin)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)() // an end does not wait for a freeze
	mode := s.modeNow()
	if mode == ModeProcess {
		return mode, s.crew.stop(ctx, nil)
	}
	if err := s.crew.group.freeze(ctx, true); err != nil {
		err = fmt.Errorf("the control group does not freeze: %w", err)
		rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), freezeWithin)
		defer cancel()
		if stop := s.crew.stop(rest, nil); stop != nil {
			return ModeNone, errors.Join(err, stop)
		}
		s.k.log.Warn("stopped one by one", "grant", s.rec.Grant, "error", err)
		return ModeProcess, nil
	}
	return mode, s.outside(ctx)
}

// outside stops members that have left the control group, as root can. s.mu is held.
func (s *session) outside(ctx context.Context) error {
	in, err := s.crew.group.members()
	if err != nil {
		return err
	}
	return s.crew.stop(ctx, in)
}

// Freeze stops the processes of a session and returns when they are seen to stand still. It is never refused for a session
// that is open, and may be repeated. Mode says what holds them.
func (k *Keeper) Freeze(ctx context.Context, grant string) (Mode, error) {
	s, err := k.find(grant)
	if err != nil {
		return ModeNone, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link.Store(false)
	return s.freeze(ctx)
}

func (s *session) freeze(ctx context.Context) (Mode, error) {
	if s.over() || s.crew == nil {
		return ModeNone, fmt.Errorf("the session of %s has ended on this host", s.rec.Grant)
	}
	s.frozen = true // whatever becomes of it now: no shell starts any more, and the look-out tries on
	return s.hold(ctx)
}

// Thaw lets the processes of a session go on. Whether they may is the caller's to know.
func (k *Keeper) Thaw(ctx context.Context, grant string) (Mode, error) {
	s, err := k.find(grant)
	if err != nil {
		return ModeNone, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over() || s.crew == nil {
		return ModeNone, fmt.Errorf("the session of %s has ended on this host", grant)
	}
	return s.thaw(ctx)
}

// Release lets a session go on that Held lists. One that was frozen otherwise meanwhile stays so.
func (k *Keeper) Release(ctx context.Context, grant string) (Mode, error) {
	s, err := k.find(grant)
	if err != nil {
		return ModeNone, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.link.Load() || s.over() {
		return ModeNone, fmt.Errorf("the session of %s is not frozen for the lost link", grant)
	}
	return s.thaw(ctx)
}

// thaw lets the processes go on. s.mu is held.
func (s *session) thaw(ctx context.Context) (Mode, error) {
	if s.k.isDown(s.instance) {
		return ModeNone, errors.New("the link to the service is down")
	}
	ctx, cancel := context.WithTimeout(ctx, freezeWithin)
	defer cancel()
	s.frozen = false
	s.link.Store(false)
	err := s.crew.cont()
	if g := s.crew.group; g != nil {
		err = errors.Join(err, g.freeze(ctx, false))
	}
	if err != nil {
		s.frozen = true
		return ModeNone, err
	}
	return s.modeNow(), nil
}

// unlinked freezes, or ends, a session whose service has been away for some time.
func (s *session) unlinked(since time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	if since >= s.grace() {
		if err := s.end(ctx, whyNoLink).Err(); err != nil {
			s.k.log.ErrorContext(ctx, "a session without a link could not be ended", "grant", s.rec.Grant, "error", err)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over() || s.frozen || s.crew == nil {
		return
	}
	s.k.mu.Lock()
	down := s.k.down[s.instance] != nil
	if down {
		s.link.Store(true) // seen by Held once the link is back, if this was decided before
	}
	s.k.mu.Unlock()
	if !down {
		return
	}
	mode, err := s.freeze(ctx)
	s.k.log.WarnContext(ctx, "the link to the service is lost: frozen", "grant", s.rec.Grant, "mode", string(mode), "error", err)
}
