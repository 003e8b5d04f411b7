// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Config of a keeper.
type Config struct {
	// Account is the account that sessions log in to; there is one.
	Account string
	// Shared: people and programs besides the sessions use the account, too. Its other processes are then no leftovers, and the
	// list of leftovers says that they were not looked at.
	Shared bool
	// StateDir holds the journal of the sessions, for the agent alone.
	StateDir string
	// KeyFile is the account's file of console keys: one of the AuthorizedKeysFile of the host's sshd.
	KeyFile string
	// Socket is where console shells announce themselves; the account must be able to reach it.
	Socket string
	// Program is the path of epatch-agent for the forced command; the running program if empty.
	Program string
	// From are the addresses the broker connects from; any if empty.
	From []string
	// Cgroup is the group below which each session gets its own; "" is the agent's own group, NoCgroup none.
	Cgroup string
	// Folders are looked through for changed files; /etc and the account's home if nil.
	Folders []string
	// Except are folders and files that are not: the versioned tree, the agent's own state.
	Except []string
	// Root is the root of the file system that is looked at, Proc the folder of the table of processes; for tests.
	Root, Proc string
	// Grace is for how long a session outlives the link to the service, frozen, unless its opening says otherwise.
	Grace time.Duration
	// MaxItems bounds a list of leftovers, MaxFiles the files that are looked at.
	MaxItems, MaxFiles int
}

// NoCgroup as Config.Cgroup: processes are stopped and killed one by one.
const NoCgroup = "none"

// What is taken where nothing is set.
const (
	defaultGrace    = time.Minute
	defaultMaxItems = 500
	defaultMaxFiles = 200_000
	// moreProcesses is how many processes a session may have beyond those that the account has already.
	moreProcesses = 1024
)

// linkDelay is how long the link to the service may be gone before sessions freeze: a connection that is renewed is no loss.
// With the time a freeze takes it stays below watch.freeze_within (1 s).
const linkDelay = 500 * time.Millisecond

// Keeper keeps the sessions of one host. Its methods may be called at the same time; acts on one session wait for each other,
// except that End cuts an Open short.
type Keeper struct {
	cfg   Config
	log   *slog.Logger
	now   func() time.Time
	table *table
	uid   uint32
	home  string
	keys  KeyFile
	group string // where groups are made; "" if they cannot be

	keyMu sync.Mutex // the key file is read and written by one at a time

	mu       sync.Mutex
	sessions map[string]*session
	down     map[string]*time.Timer // instances of the service whose link is down, each with what it leads to next
	closed   bool
	closing  context.Context // ends with Close
	close    context.CancelFunc
	conns    map[*net.UnixConn]bool
	waiting  int // connections that have not said for which session they are
	listener *net.UnixListener
	serving  sync.WaitGroup
}

// New checks the settings and ends what an earlier run left open: nobody has watched over those sessions meanwhile, so their
// keys are removed and their processes killed before New returns. What could not be ended is an error in the log and is tried
// again by End. now is for records alone. Close it.
func New(ctx context.Context, cfg Config, log *slog.Logger, now func() time.Time) (*Keeper, error) {
	k := &Keeper{cfg: cfg, log: log, now: now, sessions: map[string]*session{}, down: map[string]*time.Timer{}, conns: map[*net.UnixConn]bool{}}
	k.closing, k.close = context.WithCancel(context.Background())
	if err := k.complete(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("journal of sessions: %w", err)
	}
	if err := k.recover(ctx); err != nil {
		return nil, err
	}
	return k, k.listen(ctx)
}

func (k *Keeper) complete() error {
	c := &k.cfg
	account, err := user.Lookup(c.Account)
	if err != nil {
		return fmt.Errorf("account of console sessions: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return fmt.Errorf("account of console sessions: user id %q", account.Uid)
	}
	k.uid, k.home = uint32(uid), account.HomeDir
	if c.Program == "" {
		if c.Program, err = os.Executable(); err != nil {
			return err
		}
	}
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if c.Root == "" {
		c.Root = "/"
	}
	if c.Folders == nil {
		c.Folders = []string{"/etc", k.home}
	}
	c.Except = append(slices.Clone(c.Except), c.StateDir)
	c.Grace, c.MaxItems, c.MaxFiles = orElse(c.Grace, defaultGrace), orElse(c.MaxItems, defaultMaxItems), orElse(c.MaxFiles, defaultMaxFiles)
	foreign := k.uid != uint32(os.Geteuid())
	if foreign && os.Geteuid() != 0 {
		return fmt.Errorf("account of console sessions: the agent runs as user %d and could neither stop nor kill a process of %s; run it as root or as %s", os.Geteuid(), c.Account, c.Account)
	}
	k.table, k.keys = &table{c.Proc}, KeyFile{Path: c.KeyFile, Shared: foreign}
	for _, path := range []string{c.Program, c.Socket, c.KeyFile} {
		if _, err := shellWord(path); err != nil {
			return err
		}
	}
	k.findGroup()
	return nil
}

func orElse[T comparable](v, other T) T {
	var zero T
	if v == zero {
		return other
	}
	return v
}

// findGroup finds out by trying whether groups can be made.
func (k *Keeper) findGroup() {
	if k.cfg.Cgroup == NoCgroup {
		return
	}
	parent, err := k.cfg.Cgroup, error(nil)
	if parent == "" {
		parent, err = findCgroup(k.cfg.Proc)
	}
	var probe *cgroup
	if err == nil {
		probe, err = makeCgroup(parent, "epatch-probe-"+strconv.Itoa(os.Getpid()), moreProcesses)
	}
	if err == nil {
		err = probe.remove()
	}
	if err != nil {
		k.log.Warn("sessions get no control group: their processes are stopped and killed one by one", "error", err)
		return
	}
	k.group = parent
}

// Mode is what a freeze holds on this host.
func (k *Keeper) Mode() Mode {
	if k.group != "" {
		return ModeCgroup
	}
	return ModeProcess
}

// maxSocket is how long the path of a unix socket may be, in bytes.
const maxSocket = 107

// listen opens the socket for console shells.
func (k *Keeper) listen(ctx context.Context) error {
	path := k.cfg.Socket
	if len(path) > maxSocket {
		return fmt.Errorf("socket of console shells: %s is longer than the %d bytes that the system takes; choose a shorter folder", path, maxSocket)
	}
	folder, mode := fs.FileMode(0o700), fs.FileMode(0o600)
	if k.keys.Shared { // whoever may open it is still asked who they are
		folder, mode = 0o755, 0o666
	}
	if err := os.MkdirAll(filepath.Dir(path), folder); err != nil {
		return fmt.Errorf("socket of console shells: %w", err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil { // an earlier agent's; the lock of the state folder says that it is gone
			return fmt.Errorf("socket of console shells: %w", err)
		}
	}
	var conf net.ListenConfig
	l, err := conf.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("socket of console shells: %w", err)
	}
	k.listener = l.(*net.UnixListener)
	if err := os.Chmod(path, mode); err != nil {
		return errors.Join(err, l.Close())
	}
	k.serving.Go(k.accept)
	return nil
}

// accept serves console shells until the socket is closed.
func (k *Keeper) accept() {
	for {
		conn, err := k.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			k.log.Error("socket of console shells", "error", err)
			time.Sleep(linkDelay) // out of descriptors, most likely; the shells wait
			continue
		}
		if !k.enter() {
			k.log.Warn("a console shell is refused", "error", errCrowded)
			_ = newLine(conn).send(message{Refused: errCrowded.Error()}) // it may be gone; so little the socket takes at once
			_ = conn.Close()
			continue
		}
		k.serving.Go(func() {
			k.note(conn, true)
			defer k.note(conn, false)
			k.serve(newLine(conn))
		})
	}
}

// maxWaiting bounds the connections that have not said for which session they are. A session has one of those that have, so that a subject
// cannot take the descriptors that freezing and killing need.
const maxWaiting = 32

var errCrowded = fmt.Errorf("%d connections wait for their hello already; try again in %s", maxWaiting, helloWithin)

func (k *Keeper) enter() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.waiting == maxWaiting {
		return false
	}
	k.waiting++
	return true
}

func (k *Keeper) entered() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.waiting--
}

// note knows the connections, so that Close can end them.
func (k *Keeper) note(conn *net.UnixConn, open bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if open {
		k.conns[conn] = true
	} else if k.conns[conn] {
		delete(k.conns, conn)
		_ = conn.Close() // nobody is left to be told
	}
}

// Close ends every session that is open, and the socket.
func (k *Keeper) Close() error {
	k.mu.Lock()
	list := k.open()
	k.closed = true
	k.close()
	for _, next := range k.down {
		next.Stop()
	}
	k.mu.Unlock()
	var errs []error
	if k.listener != nil {
		errs = append(errs, k.listener.Close())
	}
	for _, s := range list {
		ctx, cancel := context.WithTimeout(context.Background(), endWithin)
		errs = append(errs, s.end(ctx, whyStopped).Err())
		cancel()
	}
	k.mu.Lock()
	for conn := range k.conns {
		delete(k.conns, conn)
		if err := conn.Close(); !errors.Is(err, net.ErrClosed) { // the end of its session may have hung up just now
			errs = append(errs, err)
		}
	}
	k.mu.Unlock()
	k.serving.Wait()
	return errors.Join(errs...)
}

// open lists the sessions that have not ended, in order. k.mu is held.
func (k *Keeper) open() []*session {
	var list []*session
	for _, s := range k.sessions {
		if !s.over() {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *session) int { return compare(a.rec.Grant, b.rec.Grant) })
	return list
}

// Open lists the grants whose sessions have not ended.
func (k *Keeper) Open() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []string
	for _, s := range k.open() {
		list = append(list, s.rec.Grant)
	}
	return list
}

// Held lists the grants whose sessions are frozen because the link to the instance that opened them was lost, and for nothing else. When
// the link is back and the history says that they are live, Release lets them go on.
func (k *Keeper) Held(instance string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []string
	for _, s := range k.open() {
		if s.instance == instance && s.heldByLink() {
			list = append(list, s.rec.Grant)
		}
	}
	return list
}

// Link tells whether the agent is attached to an instance of the service. The sessions that it opened are frozen within a second after the
// link was lost, and ended when it stays away for longer than their grace: another instance does not have their subjects and watchers.
func (k *Keeper) Link(instance string, up bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := k.down[instance]
	if (next != nil) == !up || k.closed {
		return
	}
	if up {
		next.Stop()
		delete(k.down, instance)
		return
	}
	k.down[instance] = time.AfterFunc(linkDelay, func() { k.unlinked(instance, linkDelay) })
}

// isDown is whether the link to an instance is down.
func (k *Keeper) isDown(instance string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.down[instance] != nil
}

// unlinked freezes what an instance has opened, and ends what has been without it for longer than its grace.
func (k *Keeper) unlinked(instance string, since time.Duration) {
	k.mu.Lock()
	if k.down[instance] == nil || k.closed {
		k.mu.Unlock()
		return
	}
	k.serving.Add(1)
	defer k.serving.Done()
	list := slices.DeleteFunc(k.open(), func(s *session) bool { return s.instance != instance })
	next := defaultGrace // a session may be opened meanwhile only by that instance; so nothing is missed
	for _, s := range list {
		if s.grace() > since {
			next = min(next, s.grace()-since)
		}
	}
	k.down[instance] = time.AfterFunc(next, func() { k.unlinked(instance, since+next) })
	k.mu.Unlock()
	var each sync.WaitGroup
	for _, s := range list {
		each.Go(func() { s.unlinked(since) })
	}
	each.Wait()
}

// find returns a session of this host.
func (k *Keeper) find(grant string) (*session, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.sessions[grant]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("%w: %.40q", ErrUnknown, grant)
}

// ErrUnknown is returned for a grant for which no access was opened on this host.
var ErrUnknown = errors.New("no access was opened on this host for this grant")
