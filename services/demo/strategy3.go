// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// strategy3 is a repair of the live system through a watched one-time connection (procedure.md 1.3).
func (s *story) strategy3() []part {
	return append([]part{
		{"3.1      Declare, and call the teams", s.declare},
		{"3.2      Declared together: neither 1 nor 2 without seeing the live system", s.jointly},
		{"3.3      The one-time connection", s.grant},
		{"3.4-3.5  Connect under the watcher's eyes, and repair", s.session},
		{"3.6      Terminate, disable, prove it", s.shut},
		{"3.7      Document", func(ctx context.Context) error {
			return s.document(ctx, "carla", 3, "A shell injection was repaired on the live system, in a watched session.")
		}},
		{"3.8      The difference becomes a patch, is replicated and reviewed", s.enterSession},
		{"         Regular reviews and tests", func(ctx context.Context) error { return s.regularCycle(ctx, "anna") }},
	}, s.arbitration(emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3, "emergency issue handling under option 3")...)
}

func (s *story) jointly(ctx context.Context) error {
	texts := func() *emergencyv1.SignJointDeclarationRequest {
		return &emergencyv1.SignJointDeclarationRequest{
			Meta: meta(), WhyNot_1: "Nobody can say yet which of the programs is the one that leaks.", WhyNot_2: "A patch cannot be prepared without knowing what to mend.",
			WhyLive: "It happens only with the data of the live system, so it must be looked at there.",
		}
	}
	if err := s.act(ctx, "carla", "signs the critical admin's half of the joint declaration", texts()); err != nil {
		return err
	}
	return s.act(ctx, "anna", "signs the assessor's half: strategy 3", texts())
}

func (s *story) grant(ctx context.Context) error {
	if err := s.act(ctx, "clara", "permits, as critical team lead, that bert gets access", &emergencyv1.PermitAccessRequest{
		Meta: meta(), Subject: "bert", Purpose: "find and mend what leaks",
	}); err != nil {
		return err
	}
	return s.act(ctx, "carla", "installs a one-time connection for bert, acting as access engineer, and will watch it herself", &emergencyv1.GrantAccessRequest{
		Meta: meta(), Subject: "bert", Purpose: "find and mend what leaks",
	})
}

// session lets carla watch and bert work, each by the program that they would use: epatch, and the machine's own ssh.
func (s *story) session(ctx context.Context) error {
	s.acts += 2
	s.show.act(s.since(), "carla", "epatch watch-console: arms the watch, signed, and sees everything from the first byte")
	watcher, err := s.epatch(ctx, "carla", "watch-console", "--plain")
	if err != nil {
		return err
	}
	defer watcher.end()
	if err := s.awaitState(ctx, "the watch is armed", func(st *procedure.State) bool {
		g, ok := st.Grant("G1")
		return ok && g.Armed.Position > 0
	}); err != nil {
		return err
	}
	s.show.act(s.since(), "bert", "epatch connect: a fresh key, certified for one use; the stock ssh client")
	subject, err := s.epatch(ctx, "bert", "connect")
	if err != nil {
		return err
	}
	defer subject.end()
	if err := s.repairLive(ctx, subject); err != nil {
		return fmt.Errorf("%w\n   bert saw:\n%s\n   carla saw:\n%s", err, subject.said(), watcher.said())
	}
	if err := s.awaitState(ctx, "the session has ended: input shut, channels closed, processes gone, credential out", func(st *procedure.State) bool {
		g, ok := st.Grant("G1")
		return ok && g.Terminated.Position > 0
	}); err != nil {
		return err
	}
	came, err := s.w.exploit(ctx, s.w.critical())
	if err == nil && came {
		err = errors.New("the critical host is still vulnerable")
	}
	return err
}

// repairLive types what bert types, each line once the one before has been answered.
func (s *story) repairLive(ctx context.Context, subject *typist) error {
	if _, err := subject.hears(ctx, "", 0); err != nil { // the prompt; what is typed earlier is thrown away
		return err
	}
	for _, line := range []string{
		"cd " + s.w.critical(), "cat " + programFile,
		"printf '%s\\n' '#!/bin/sh' '# cert-info NAME: tells who a certificate is for.' 'name=$1' \"printf 'Certificate for %s\\\\n' \\\"\\$name\\\"\" > " + programFile,
		"cat " + programFile,
	} {
		if err := subject.do(ctx, line); err != nil {
			return err
		}
		s.show.fact(s.since(), "bert types, carla sees: "+line)
	}
	return subject.leave(ctx)
}

// shut disables the access, has it proven unusable, answers what was left and seals the record.
func (s *story) shut(ctx context.Context) error {
	g := "G1"
	if err := s.act(ctx, "carla", "disables the connection at the gateway and on the host", &emergencyv1.DisableRequest{Meta: meta(), Grant: g}); err != nil {
		return err
	}
	if err := s.act(ctx, "carla", "has the credential tried again at both: refused", &emergencyv1.ProveUnusableRequest{Meta: meta(), Grant: g}); err != nil {
		return err
	}
	left := 0
	if err := s.awaitState(ctx, "the host's agent has listed what the session left and what it changed", func(st *procedure.State) bool {
		x, ok := st.Grant(g)
		if ok {
			left = len(x.Leftovers)
		}
		return ok && x.Diff.Position > 0 && len(x.LeftoversReported) > 0
	}); err != nil {
		return err
	}
	if left > 0 {
		if err := s.act(ctx, "carla", fmt.Sprintf("answers the %d things that were listed", left), &emergencyv1.ExplainLeftoversRequest{
			Meta: meta(), Grant: g, Explanation: "looked at one by one: nothing of the session's own stays",
		}); err != nil {
			return err
		}
	}
	if err := s.act(ctx, "carla", "seals the record: the recording is checked against the history and stored", &emergencyv1.SealSessionRequest{Meta: meta(), Grant: g}); err != nil {
		return err
	}
	s.show.act(s.since(), "carla", "epatch replay-console: the recording, checked and played back, neutralised")
	replay, err := s.epatch(ctx, "carla", "replay-console", "G1", "--speed", "1000")
	if err != nil {
		return err
	}
	defer replay.end()
	if err := replay.wait(ctx); err != nil {
		return fmt.Errorf("replay: %w: %s", err, replay.said())
	}
	for _, line := range strings.Split(strings.TrimSpace(replay.said()), "\n") {
		s.show.line("| %.110s", strings.TrimRight(line, "\r"))
	}
	return nil
}

// enterSession registers what the session left as a patch, which is then replicated by itself.
func (s *story) enterSession(ctx context.Context) error {
	st, err := s.people["bert"].State(ctx, s.incident)
	if err != nil {
		return err
	}
	g, _ := st.Grant("G1")
	if g.Diff.Patch == nil {
		return fmt.Errorf("the session left no patch: %s", g.Diff.Problem)
	}
	if err := s.act(ctx, "bert", fmt.Sprintf("registers what the session left (sha256 %.12s) as a patch", g.Diff.Patch.GetSha256()), &emergencyv1.RegisterPatchRequest{
		Meta: meta(), Origin: emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION, Sha256: g.Diff.Patch.GetSha256(), BaseCommit: g.Diff.BaseCommit,
		BaseTree: g.BeforeTree, ResultTree: g.Diff.AfterTree, Author: "bert", BugId: "1042",
	}); err != nil {
		return err
	}
	return s.awaitState(ctx, "host and release branch hold the same tree", func(st *procedure.State) bool {
		n := len(st.Replications)
		return n > 0 && st.Replications[n-1].Kind == emergencyv1.ReplicationResult_REPLICATION_RESULT_EQUAL
	})
}

// typist is a program of a person's, as it runs in that person's terminal.
type typist struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan error
	log  *os.File

	mu   sync.Mutex
	out  []byte
	news chan struct{}
}

// epatch starts the command line program as a person.
func (s *story) epatch(_ context.Context, who string, args ...string) (*typist, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	t := &typist{done: make(chan error, 1), news: make(chan struct{}, 1)}
	t.cmd = exec.Command(filepath.Join(filepath.Dir(self), "epatch"), append([]string{"--as", who, "--incident", s.incident}, args...)...)
	t.cmd.Env = append(os.Environ(), "EPATCH_DATA="+s.w.data, "EPATCH_SERVER="+s.sys.api, "TERM=xterm", "NO_COLOR=1")
	for name, addr := range s.sys.servers {
		t.cmd.Env = append(t.cmd.Env, "EPATCH_SERVER_"+strings.ToUpper(name)+"="+addr)
	}
	if t.log, err = os.Create(s.w.path("logs", who+"-"+args[0]+".log")); err != nil {
		return nil, err
	}
	if t.in, err = t.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	t.cmd.Stdout, t.cmd.Stderr = t, t.log
	if err := t.cmd.Start(); err != nil {
		return nil, fmt.Errorf("epatch %s: %w", args[0], err)
	}
	go func() { t.done <- t.cmd.Wait() }()
	return t, nil
}

// Write takes what the program says.
func (t *typist) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.out = append(t.out, p...)
	t.mu.Unlock()
	select {
	case t.news <- struct{}{}:
	default:
	}
	return t.log.Write(p)
}

// hears waits until the program has said something since the place, and returns the place after it.
func (t *typist) hears(ctx context.Context, what string, from int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		t.mu.Lock()
		at, all := strings.Index(string(t.out[from:]), what), len(t.out)
		t.mu.Unlock()
		if at >= 0 && all > from {
			return from + at + len(what), nil
		}
		select {
		case <-t.news:
		case err := <-t.done:
			t.done <- err
			return 0, fmt.Errorf("the connection ended before it said %q", what)
		case <-ctx.Done():
			return 0, fmt.Errorf("it did not say %q", what)
		}
	}
}

// do types a line and waits until the shell has answered it: with what it computed, which nobody has typed.
func (t *typist) do(ctx context.Context, line string) error {
	t.mu.Lock()
	from := len(t.out)
	t.mu.Unlock()
	if _, err := io.WriteString(t.in, line+"; echo done-$((6*7))\n"); err != nil {
		return fmt.Errorf("type: %w", err)
	}
	_, err := t.hears(ctx, "done-42", from)
	return err
}

// leave ends the shell.
func (t *typist) leave(ctx context.Context) error {
	if _, err := io.WriteString(t.in, "exit\n"); err != nil {
		return fmt.Errorf("type: %w", err)
	}
	return t.wait(ctx)
}

func (t *typist) wait(ctx context.Context) error {
	select {
	case err := <-t.done:
		t.done <- err
		return err
	case <-time.After(time.Minute):
		return errors.New("it did not end")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// said is all that the program has said.
func (t *typist) said() string {
	b, err := os.ReadFile(t.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// end ends the program if it still runs.
func (t *typist) end() {
	_ = t.in.Close()
	select {
	case err := <-t.done:
		t.done <- err
	case <-time.After(5 * time.Second):
		_ = t.cmd.Process.Kill()
		<-t.done
	}
	_ = t.log.Close()
}
