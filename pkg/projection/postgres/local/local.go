// SPDX-License-Identifier: Apache-2.0

// Package local starts a throw-away PostgreSQL from the machine's packages, for a cluster on one machine, for measuring and for tests. It
// listens on loopback alone, trusts everybody there, and does not sync: it is for data that can be had again.
package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a PostgreSQL that runs.
type Server struct {
	url  string // of the database postgres
	bin  string
	dir  string
	port int
	cred *syscall.Credential // to run as, where this process is root, which PostgreSQL refuses
}

// ErrNone is returned where there is no PostgreSQL to start; it says how to get one.
var ErrNone = errors.New("no PostgreSQL was found. One of:\n" +
	"  EPATCH_TEST_PG_BIN names the folder of initdb and postgres (else pg_config --bindir and /usr/lib/postgresql/*/bin are looked at);\n" +
	"  Debian: apt-get install -y postgresql")

// Found tells whether New would find PostgreSQL's programs.
func Found() bool {
	_, err := programs()
	return err == nil
}

// New makes a server in a folder of its own and starts it; End ends it and removes what it had. The error is ErrNone where there is none.
func New() (*Server, error) {
	s := &Server{}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.End())
	}
	return s, nil
}

// End stops the server and removes its folder. A nil server has ended.
func (s *Server) End() error {
	if s == nil || s.dir == "" {
		return nil
	}
	err := s.Stop("immediate")
	_ = os.RemoveAll(s.dir) // a temporary folder
	return err
}

// programs finds the folder of initdb and postgres.
func programs() (string, error) {
	var list []string
	if dir := os.Getenv("EPATCH_TEST_PG_BIN"); dir != "" {
		list = append(list, dir)
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		list = append(list, strings.TrimSpace(string(out)))
	}
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	slices.Reverse(debian)
	for _, dir := range append(list, debian...) {
		if executable(filepath.Join(dir, "initdb")) && executable(filepath.Join(dir, "postgres")) && executable(filepath.Join(dir, "pg_ctl")) {
			return dir, nil
		}
	}
	return "", ErrNone
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir() && info.Mode()&0o111 != 0
}

func (s *Server) start() (err error) {
	if s.bin, err = programs(); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "epatch-postgres-"); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := s.asNobody(); err != nil {
			return err
		}
	}
	if err := s.run("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"); err != nil {
		return err
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.port = lis.Addr().(*net.TCPAddr).Port
	if err := lis.Close(); err != nil {
		return err
	}
	s.url = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", s.port)
	return s.Start()
}

func (s *Server) asNobody() error {
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return fmt.Errorf("PostgreSQL does not run as root, and there is no user nobody: %w", err)
	}
	uid, _ := strconv.Atoi(nobody.Uid) // numbers on every Unix
	gid, _ := strconv.Atoi(nobody.Gid)
	s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(s.dir, uid, gid)
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) run(name string, args ...string) error {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	if s.cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	}
	// A file, not a pipe: the server outlives pg_ctl, and would keep a pipe open.
	out, err := os.CreateTemp(s.dir, name)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name()) // only to say more
		log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		return fmt.Errorf("%s: %w: %s %s", name, err, bytes.TrimSpace(said), bytes.TrimSpace(log))
	}
	return nil
}

// Start starts a server that was stopped, and waits until it answers.
func (s *Server) Start() error {
	options := fmt.Sprintf("-p %d -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c max_connections=60 -c shared_buffers=32MB", s.port)
	return s.run("pg_ctl", "-D", s.data(), "-l", filepath.Join(s.dir, "log"), "-w", "-t", "60", "-o", options, "start")
}

// Stop stops the server in pg_ctl's mode: smart, fast, or immediate, which is as good as a crash.
func (s *Server) Stop(mode string) error {
	return s.run("pg_ctl", "-D", s.data(), "-w", "-t", "60", "-m", mode, "stop")
}

// Addr is the server's host and port, such as to put a proxy before it.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// NewDatabase makes an empty database and returns its URL.
func (s *Server) NewDatabase(ctx context.Context, name string) (string, error) {
	return NewDatabase(ctx, s.url, name)
}

// NewDatabase makes an empty database on the server of a URL, and returns the new one's.
func NewDatabase(ctx context.Context, server, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+name)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return "", err
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	u.Path = "/" + name
	return u.String(), nil
}
