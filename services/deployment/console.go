// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sync/errgroup"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/services/deployment/broker"
)

// ConsoleConfig is how subjects reach the watched console and how it reaches the hosts. The zero value is no console: then
// no access is granted (strategy 3 is not available here).
type ConsoleConfig struct {
	// Listen is host and port of the SSH broker, Address those under which subjects reach it; Listen if empty.
	Listen, Address string
	// Targets is the address of each host's sshd, host to host:port, and KnownHosts the file that pins their keys.
	Targets    map[string]string
	KnownHosts string
	// Recording is how many bytes a session's recording may have until its watcher has to extend or end the session; the most that
	// is allowed (64 MiB) if zero.
	Recording int64
}

func (c ConsoleConfig) check(a AccessConfig) error {
	switch {
	case c.Listen == "":
		return nil
	case len(c.Targets) == 0:
		return errors.New("deployment: the console has no targets; name the address of each host's sshd")
	case c.KnownHosts == "":
		return errors.New("deployment: the console has no file of known hosts; sessions open only on hosts whose key is pinned")
	case a.Account == "":
		return errors.New("deployment: the console has no account to log in to")
	case c.Recording != 0 && (c.Recording < recording.MinLimit || c.Recording > recordSize):
		return fmt.Errorf("deployment: a recording of %d bytes: allowed are %d to %d", c.Recording, recording.MinLimit, recordSize)
	}
	return nil
}

// targets are the configured hosts with their pinned keys.
type targets map[string]broker.Target

// Target implements broker.Targets.
func (t targets) Target(host string) (broker.Target, error) {
	target, ok := t[host]
	if !ok {
		return target, fmt.Errorf("no sshd is configured for host %s", host)
	}
	return target, nil
}

// loadTargets reads the pinned key of each target: the first one in the file that is for its address.
func loadTargets(c ConsoleConfig) (targets, error) {
	data, err := os.ReadFile(c.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("deployment: known hosts of the console: %w", err)
	}
	list := targets{}
	for host, address := range c.Targets {
		name := knownhosts.Normalize(address)
		for rest := data; len(rest) > 0 && list[host].HostKey == nil; {
			marker, names, key, _, next, err := ssh.ParseKnownHosts(rest)
			if err != nil {
				break // the end of the file
			}
			rest = next
			for _, n := range names {
				if marker == "" && n == name {
					list[host] = broker.Target{Address: address, HostKey: key}
				}
			}
		}
		if list[host].HostKey == nil {
			return nil, fmt.Errorf("deployment: %s pins no key for %s (%s); add the line that `ssh-keyscan` gives, after comparing it with the host's own", c.KnownHosts, address, host)
		}
	}
	return list, nil
}

// openConsole builds the broker; nil if none is configured.
func (s *Server) openConsole(cfg Config) error {
	c := cfg.Console
	if c.Listen == "" {
		return nil
	}
	if s.recordSize = c.Recording; s.recordSize == 0 {
		s.recordSize = recordSize
	}
	list, err := loadTargets(c)
	if err != nil {
		return err
	}
	dir := filepath.Join(cfg.StateDir, "console")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("deployment: folder of the console: %w", err)
	}
	hostKey, err := broker.LoadKey(filepath.Join(dir, "host_key"))
	if err != nil {
		return fmt.Errorf("deployment: %w", err)
	}
	authority, err := broker.LoadKey(filepath.Join(dir, "user_ca"))
	if err != nil {
		return fmt.Errorf("deployment: %w", err)
	}
	address := c.Address
	if address == "" {
		address = c.Listen
	}
	if s.consoleListener, err = net.Listen("tcp", c.Listen); err != nil { // early, so that port 0 can be told to subjects
		return fmt.Errorf("deployment: setting console-listen: %w", err)
	}
	if _, port, _ := net.SplitHostPort(address); port == "0" {
		address = s.consoleListener.Addr().String()
	}
	s.broker, err = broker.New(broker.Config{
		Rules: consoleRules{s, list}, Host: consoleHost{s}, Targets: list, Clock: s.Clock, Log: s.Log, UserCA: authority, HostKey: hostKey,
		Recordings: s.access.Recordings, Address: address,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("deployment: %w", err), s.consoleListener.Close())
	}
	return nil
}

// serveConsole ends what a former process left open, then lets subjects in until ctx ends.
func (s *Server) serveConsole(ctx context.Context) error {
	if s.broker == nil {
		return nil
	}
	defer s.broker.Close()
	s.recoverOwn(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.makeTrue(ctx) })
	group.Go(func() error { return s.takeOver(ctx) })
	group.Go(func() error {
		if err := s.broker.Serve(ctx, s.consoleListener); err != nil && ctx.Err() == nil {
			return fmt.Errorf("console: %w", err)
		}
		return nil
	})
	return group.Wait()
}

// noConsole says to whoever is in the rule book that strategy 3 is not to be had here.
func (s *Server) noConsole(ctx context.Context) error {
	book, err := s.Dispatch.Book(ctx)
	if err != nil {
		return service.Retryable(err)
	}
	if _, refusal := procedure.Recognise(book, service.Caller(ctx).KeyID, s.Clock.Now()); refusal != nil {
		return refusal
	}
	return refused(procedure.FailedPrecondition, procedure.ReasonRecorderNotReady, "4.4", "this deployment service has no console", "its operator sets console-listen and the hosts' sshd")
}
