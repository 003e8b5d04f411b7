// SPDX-License-Identifier: Apache-2.0

// Package sshdtest runs the machine's own OpenSSH server on a loopback port, with a configuration, a host key and a key file of
// its own, as the user who starts it and for that user alone: the target of tests and of the demonstration. It reads and
// changes nothing of the system's sshd. It permits more than a console needs (forwarding, sftp, environment), so that
// whatever is refused in front of it was not refused by it. Shells have a home folder of their own: what the user's start-up files
// do (and how long they take) is none of the server's, and nothing is left in the user's home.
package sshdtest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// ErrMissing is returned where OpenSSH's server is not installed; its text says how to get it.
var ErrMissing = errors.New("sshd was not found in PATH, /usr/sbin, /usr/local/sbin, /usr/lib/openssh: install OpenSSH's server " +
	"(Debian, Ubuntu: apt-get install openssh-server; Fedora: dnf install openssh-server); it need not be enabled or running")

// Find returns the path of sshd, or ErrMissing.
func Find() (string, error) {
	if path, err := exec.LookPath("sshd"); err == nil {
		return filepath.Abs(path) // it starts itself again for each connection, by an absolute path
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/lib/openssh", "/usr/libexec", "/opt/homebrew/sbin", "/sbin"} {
		path := filepath.Join(dir, "sshd")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", ErrMissing
}

// Config of a server.
type Config struct {
	// Dir is where configuration, host key, log and key file lie; only its owner should be able to read it.
	Dir string
	// AuthorizedKeys is the file of the keys that may log in; Dir/authorized_keys if empty. It need not exist yet.
	AuthorizedKeys string
}

// Server is a running sshd.
type Server struct {
	// Address is host and port on loopback.
	Address string
	// User is the only account that can log in.
	User string
	// HostKey is what the server proves to be.
	HostKey ssh.PublicKey
	// AuthorizedKeys is the file of the keys that may log in; it is read at each connection.
	AuthorizedKeys string
	// Home is the home folder of those who log in.
	Home string
	// Log is the file of what the server said.
	Log string

	child *exec.Cmd
	ended chan struct{}
	once  sync.Once
}

// startWithin is how long a busy machine may take until the server listens; tries is how many ports are tried, since another
// process may take a free one first.
const (
	startWithin = 20 * time.Second
	tries       = 5
)

// Start starts a server and returns when it accepts connections. It runs until Close.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	path, err := Find()
	if err != nil {
		return nil, err
	}
	if err := checkTerminal(); err != nil {
		return nil, err
	}
	who, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("the account of the target: %w", err)
	}
	s := &Server{User: who.Username, AuthorizedKeys: cfg.AuthorizedKeys, Home: filepath.Join(cfg.Dir, "home"), Log: filepath.Join(cfg.Dir, "sshd.log")}
	if s.AuthorizedKeys == "" {
		s.AuthorizedKeys = filepath.Join(cfg.Dir, "authorized_keys")
	}
	if err := os.MkdirAll(s.Home, 0o700); err != nil {
		return nil, fmt.Errorf("home folder of the target: %w", err)
	}
	if s.HostKey, err = newHostKey(filepath.Join(cfg.Dir, "host_key")); err != nil {
		return nil, fmt.Errorf("host key of the target: %w", err)
	}
	for range tries {
		if err = s.start(ctx, path, cfg.Dir); err == nil || ctx.Err() != nil {
			break
		}
	}
	return s, err
}

func (s *Server) start(ctx context.Context, path, dir string) error {
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	s.Address = address
	cfg := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(cfg, []byte(s.config(dir)), 0o600); err != nil {
		return err
	}
	if err := check(ctx, path, cfg); err != nil {
		return err
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	child := exec.Command(path, "-D", "-e", "-f", cfg)
	child.Stderr = log
	if err := child.Start(); err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	ended := make(chan struct{})
	go func() {
		_ = child.Wait()
		close(ended)
	}()
	s.child, s.ended, s.once = child, ended, sync.Once{}
	return s.awaitListening(ctx)
}

func (s *Server) awaitListening(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", s.Address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-s.ended:
			text, _ := os.ReadFile(s.Log)
			return fmt.Errorf("sshd ended at once: %s", bytes.TrimSpace(text))
		case <-ctx.Done():
			s.Close()
			return fmt.Errorf("sshd does not listen on %s: %w", s.Address, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// PID is the server's process; its children serve the connections.
func (s *Server) PID() int { return s.child.Process.Pid }

// Close ends the server. Connections that are open go on without it.
func (s *Server) Close() {
	s.once.Do(func() {
		_ = s.child.Process.Kill()
		<-s.ended
	})
}

// KnownHosts is the line that pins the server in a known_hosts file.
func (s *Server) KnownHosts() string {
	host, port, _ := net.SplitHostPort(s.Address)
	return fmt.Sprintf("[%s]:%s %s", host, port, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.HostKey))))
}

func (s *Server) config(dir string) string {
	host, port, _ := net.SplitHostPort(s.Address)
	lines := []string{
		"ListenAddress " + host, "Port " + port, "HostKey " + quoted(filepath.Join(dir, "host_key")), "PidFile none",
		"AuthorizedKeysFile " + quoted(s.AuthorizedKeys), "StrictModes no", "UsePAM no", "AllowUsers " + s.User,
		"PubkeyAuthentication yes", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password",
		"PermitTTY yes", "AllowTcpForwarding yes", "AllowAgentForwarding yes", "AllowStreamLocalForwarding yes", "X11Forwarding yes",
		"AcceptEnv *", "SetEnv " + quoted("HOME="+s.Home), "Subsystem sftp internal-sftp", "PrintMotd no", "PrintLastLog no", "UseDNS no",
		"MaxStartups 200", "MaxSessions 100", "LoginGraceTime 30", "LogLevel VERBOSE",
	}
	return strings.Join(lines, "\n") + "\n"
}

func quoted(path string) string { return `"` + path + `"` }

var missingFolder = regexp.MustCompile(`Missing privilege separation directory: (\S+)`)

// check has sshd read its configuration. Started by root it wants an empty folder that a package's start script would have
// made.
func check(ctx context.Context, path, cfg string) error {
	for again := false; ; again = true {
		out, err := exec.CommandContext(ctx, path, "-t", "-f", cfg).CombinedOutput()
		if err == nil {
			return nil
		}
		if m := missingFolder.FindSubmatch(out); m != nil && !again && os.Getuid() == 0 {
			if err := os.MkdirAll(string(m[1]), 0o755); err != nil {
				return fmt.Errorf("sshd wants an empty folder: %w", err)
			}
			continue
		}
		return fmt.Errorf("sshd refuses %s: %s: %w", cfg, bytes.TrimSpace(out), err)
	}
}

func newHostKey(path string) (ssh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := WriteKey(path, private); err != nil {
		return nil, err
	}
	return ssh.NewPublicKey(public)
}

// WriteKey writes a private key as OpenSSH's programs read it, for its owner's eyes only.
func WriteKey(path string, private ed25519.PrivateKey) error {
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
}

func freeAddress(ctx context.Context) (string, error) {
	var l net.ListenConfig
	listener, err := l.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("a free port for sshd: %w", err)
	}
	defer listener.Close()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)), nil
}
