// SPDX-License-Identifier: Apache-2.0

// Package natsd runs the event log: a NATS server inside this process with the durability this project needs, and
// the checks by which a service convinces itself that the log it is connected to cannot forget.
//
// Promises:
//   - Start gives a JetStream server on disk that syncs every write before it acknowledges it. It opens no port unless
//     asked, then only on loopback; it has no monitoring port and takes no signals.
//   - One folder has one server at a time, also across processes.
//   - A store that the server could not read in full is refused. The server itself would only log a warning and go on
//     without the stream, and the next start would create an empty one in its place.
//   - Provision creates what is missing and never changes what is there. Check and Guard only read.
//
// The embedded server has no users: whoever holds a connection may do everything, stream deletion included. Production
// uses an external cluster with accounts (deploy/), against which the same Check and Guard run.
package natsd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// MinServerVersion is the oldest NATS server on which the measurements behind our rules hold.
const MinServerVersion = "2.15.2"

// MaxMessage is the most bytes one message may have, headers included. One record of the history must fit.
const MaxMessage = 1 << 20

// startTimeout bounds the wait for a started server to take connections. Recovery of the store happens before.
const startTimeout = 30 * time.Second

// ErrInUse is returned by Start when another server, in this process or another, runs on the same folder.
var ErrInUse = errors.New("folder is in use by a running server")

// Config says where and how the embedded server runs.
type Config struct {
	Dir        string       // folder of the store, created if missing; needs its own file system in production
	ServerName string       // appears in logs and in the server's answers; empty means "epatchd"
	Listen     string       // host:port on loopback, port 0 for any free one; empty: no port at all
	Logger     *slog.Logger // required
}

// Server is a running embedded NATS server.
type Server struct {
	ns   *server.Server
	lock *os.File
	log  *slog.Logger

	mu    sync.Mutex // guards conns
	conns map[*nats.Conn]struct{}
}

// Start starts the server and returns when it takes connections and its store was read back in full, which takes about
// as long as reading the histories from the disk. It fails with ErrInUse or ErrStoreDamaged, or says which setting is
// wrong.
func Start(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		return nil, errors.New("start nats server: Logger is missing")
	}
	if cfg.Dir == "" {
		return nil, errors.New("start nats server: Dir is missing: name the folder of the store")
	}
	if !versionAtLeast(server.VERSION, MinServerVersion) {
		return nil, fmt.Errorf("start nats server: linked version %s is older than %s", server.VERSION, MinServerVersion)
	}
	opts, err := options(cfg)
	if err != nil {
		return nil, fmt.Errorf("start nats server: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start nats server: create folder: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("start nats server: %w", err)
	}
	s, err := run(opts, cfg.Logger)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("start nats server on %s: %w", cfg.Dir, err)
	}
	s.lock = lock
	return s, nil
}

func options(cfg Config) (*server.Options, error) {
	opts := &server.Options{
		ServerName:             cfg.ServerName,
		DontListen:             cfg.Listen == "",
		NoSigs:                 true,
		MaxPayload:             MaxMessage,
		JetStream:              true,
		StoreDir:               cfg.Dir,
		SyncAlways:             true,
		DisableJetStreamBanner: true,
	}
	if opts.ServerName == "" {
		opts.ServerName = "epatchd"
	}
	if cfg.Listen == "" {
		return opts, nil
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: %w", cfg.Listen, err)
	}
	// The embedded server has neither TLS nor users, so only this machine may reach it (hardening 1.12).
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("listen address %q: only a loopback address such as 127.0.0.1 is allowed; use an external cluster for others", cfg.Listen)
	}
	opts.Host = host
	if opts.Port, err = strconv.Atoi(port); err != nil || opts.Port < 0 || opts.Port > 65535 {
		return nil, fmt.Errorf("listen address %q: port is no number from 0 to 65535", cfg.Listen)
	}
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	return opts, nil
}

// run starts a server and takes it down again if it or its store is not what we need.
func run(opts *server.Options, log *slog.Logger) (*Server, error) {
	if err := refuseKnownDamage(opts.StoreDir); err != nil {
		return nil, err
	}
	stored, err := ExamineStore(opts.StoreDir) // while the server has not yet repaired anything
	if err != nil {
		return nil, fmt.Errorf("%w: restore the folder from a backup or the archive (docs/runbooks.md)", err)
	}
	ns, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	logger := &serverLog{log: log.With("server", opts.ServerName)}
	ns.SetLoggerV2(logger, false, false, false)
	ns.Start()
	s := &Server{ns: ns, log: log, conns: map[*nats.Conn]struct{}{}}
	err = ready(ns, logger)
	if err == nil {
		err = s.examine(context.Background(), stored)
	}
	if err == nil {
		return s, nil
	}
	ns.Shutdown()
	ns.WaitForShutdown()
	err = fmt.Errorf("%w%s", err, logger.warningsText())
	if errors.Is(err, ErrStoreDamaged) {
		err = noteDamage(opts.StoreDir, err)
	}
	return nil, err
}

func ready(ns *server.Server, logger *serverLog) error {
	if msg := logger.fatal(); msg != "" {
		return errors.New(msg)
	}
	if !ns.ReadyForConnections(startTimeout) {
		return fmt.Errorf("not ready for connections after %s", startTimeout)
	}
	if !ns.JetStreamEnabled() {
		return errors.New("the server runs without JetStream")
	}
	if cfg := ns.JetStreamConfig(); !cfg.SyncAlways {
		return errors.New("the server does not sync every write")
	}
	return nil
}

// Connect opens a connection inside the process, named for the logs. While the server is gone nothing is buffered: a
// publish fails at once, so that its caller knows (hardening 6.8). Close closes it, if the caller has not.
func (s *Server) Connect(name string) (*nats.Conn, error) {
	options := []nats.Option{nats.InProcessServer(s.ns), nats.Name(name), nats.ClosedHandler(s.forget)}
	nc, err := nats.Connect("", append(options, watched(s.log.With("connection", name))...)...)
	if err != nil {
		return nil, fmt.Errorf("connect %s to the embedded nats server: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		nc.Close()
		return nil, fmt.Errorf("connect %s to the embedded nats server: it is closed", name)
	}
	s.conns[nc] = struct{}{}
	return nc, nil
}

func (s *Server) forget(nc *nats.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, nc)
}

// ClientURL is where other processes of this machine connect. Empty if the server opened no port.
func (s *Server) ClientURL() string {
	if s.ns.Addr() == nil {
		return ""
	}
	return s.ns.ClientURL()
}

// Sync tells Check that the server itself was asked. Always SyncVerified: Start refuses anything else.
func (s *Server) Sync() Sync { return SyncVerified }

// Ready reports whether the log takes writes. After a failed write or sync the server answers nothing more on that stream, and after some
// it switches JetStream off; both for as long as it runs. Then only a restart on a healthy disk helps.
func (s *Server) Ready(ctx context.Context) error {
	if !s.ns.Running() {
		return errors.New("nats server is not running")
	}
	if !s.ns.JetStreamEnabled() {
		return errors.New("nats server switched JetStream off: check the disk of the store and restart")
	}
	return s.health(ctx)
}

// health asks the server's health check, which is the only one that tells of the failed writes of a stream.
func (s *Server) health(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.HealthzPath, nil)
	if err != nil {
		return err
	}
	var a answer
	s.ns.HandleHealthz(&a, r)
	return unhealthy(a.Bytes())
}

// unhealthy reads the answer of the health check. Only what it says of the store lasts: a process that stood still for a millisecond just then
// is told "not ready for connections" (status "error"), and that is nothing to end for.
func unhealthy(answer []byte) error {
	var said struct{ Status, Error string }
	if err := json.Unmarshal(answer, &said); err != nil {
		return fmt.Errorf("nats server: its health: %w", err)
	}
	if said.Status != "unavailable" {
		return nil
	}
	return fmt.Errorf("nats server is %s (%s): check the disk of the store and restart", said.Status, said.Error)
}

// answer is what the health check writes; no port is needed for it.
type answer struct {
	bytes.Buffer
	header http.Header
}

func (a *answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

func (*answer) WriteHeader(int) {} // the body says it, too

// Close closes the connections, stops the server, waits until the store is written and gives the folder free.
func (s *Server) Close() error {
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for nc := range conns {
		nc.Close()
	}
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
	if err := s.lock.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close nats server: release folder: %w", err)
	}
	return nil
}

// versionAtLeast compares dotted versions; a suffix such as -RC.1 counts as the release it precedes.
func versionAtLeast(have, want string) bool {
	h, ok := versionNumbers(have)
	w, _ := versionNumbers(want)
	if !ok {
		return false
	}
	for i := range h {
		if h[i] != w[i] {
			return h[i] > w[i]
		}
	}
	return true
}

func versionNumbers(v string) (n [3]int, ok bool) {
	v, _, _ = strings.Cut(strings.TrimPrefix(v, "v"), "-")
	parts := strings.Split(v, ".")
	if len(parts) != len(n) {
		return n, false
	}
	for i, part := range parts {
		var err error
		if n[i], err = strconv.Atoi(part); err != nil {
			return n, false
		}
	}
	return n, true
}
