// SPDX-License-Identifier: Apache-2.0

package brokertest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/internal/sshdtest"
)

// Load is what is asked of a shell while it is measured.
type Load struct {
	// Output is how many bytes it writes as fast as it can, Paced how many it writes at PacedRate.
	Output, Paced int64
	// Keys is how many are typed, one by one.
	Keys int
}

// PacedRate is how many bytes a second a program writes that is not as fast as it can be.
const PacedRate = 10_000_000

// Measured is what a stock client sees of a shell.
type Measured struct {
	// Output is bytes of output a second, Paced the same of a program that writes no more than PacedRate; Echo the time from a key to
	// its echo, in the middle and at the 99th percentile.
	Output, Paced float64
	Echo, Slow    time.Duration
}

// Plain measures a stock client that is connected to the rig's sshd directly.
func (r *Rig) Plain(ctx context.Context, load Load) (Measured, error) {
	cmd, err := r.plainCommand(ctx)
	if err != nil {
		return Measured{}, err
	}
	return measure(cmd, load)
}

// Watched measures one through the broker, with a watcher who sees everything at once, in a session of its own.
func (r *Rig) Watched(ctx context.Context, ref broker.Ref, load Load) (Measured, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := r.Grant(ref)
	g.Recording = 4*(load.Output+load.Paced) + 16<<20
	r.Rules.Put(g)
	w, err := r.Broker.Watch(ctx, ref, Watcher, broker.ModeWatcher)
	if err != nil {
		return Measured{}, err
	}
	defer w.Close()
	go glance(ctx, w)
	if err := w.Renew(false); err != nil {
		return Measured{}, err
	}
	k, err := r.Fetch(ctx, ref)
	if err != nil {
		return Measured{}, err
	}
	m, err := measure(r.Command(ctx, k, "-tt"), load)
	_, ended := r.Broker.Terminate(context.WithoutCancel(ctx), ref, broker.CauseKilled, Watcher, "measured", nil)
	return m, errors.Join(err, ended)
}

// glance acknowledges everything and keeps nothing.
func glance(ctx context.Context, w *broker.Watcher) {
	renewed := time.Now()
	for {
		next, cancel := context.WithTimeout(ctx, renewEvery)
		e, err := w.Next(next)
		cancel()
		if ctx.Err() != nil || errors.Is(err, io.EOF) {
			return
		}
		if n := len(e.Frames); n > 0 {
			_ = w.Ack(e.Frames[n-1].Offset)
		}
		if now := time.Now(); now.Sub(renewed) >= renewEvery || err != nil {
			renewed = now
			_ = w.Renew(false)
		}
	}
}

func (r *Rig) plainCommand(ctx context.Context) (*exec.Cmd, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	pub, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(r.Dir, "plain-")
	if err != nil {
		return nil, err
	}
	key, known := filepath.Join(dir, "id"), filepath.Join(dir, "known_hosts")
	line := `restrict,pty,command="PS1='here> ' exec /bin/sh -i" ` + string(ssh.MarshalAuthorizedKey(pub))
	err = errors.Join(sshdtest.WriteKey(key, private), os.WriteFile(known, []byte(r.Sshd.KnownHosts()+"\n"), 0o600),
		os.WriteFile(r.Sshd.AuthorizedKeys, []byte(line), 0o600))
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(r.Sshd.Address)
	if err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, "ssh", "-tt", "-F", "none", "-i", key, "-o", "UserKnownHostsFile="+known, "-o", "IdentitiesOnly=yes",
		"-o", "BatchMode=yes", "-o", "IdentityAgent=none", "-p", port, r.Sshd.User+"@"+host), nil
}

// measure runs a client to its end.
func measure(cmd *exec.Cmd, load Load) (m Measured, err error) {
	cmd.Env = append(os.Environ(), "TERM=vt100", "LC_ALL=C")
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := errors.Join(err1, err2); err != nil {
		return m, err
	}
	if err := cmd.Start(); err != nil {
		return m, err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
		}
	}()
	t := teletype{stdin, stdout, make([]byte, 64<<10)}
	if err := t.await("here> "); err != nil {
		return m, err
	}
	if m.Echo, m.Slow, err = t.echo(load.Keys); err != nil {
		return m, fmt.Errorf("echo: %w", err)
	}
	if m.Output, err = t.output(load.Output, fmt.Sprintf(`head -c %d /dev/zero | tr '\0' x`, load.Output)); err != nil {
		return m, fmt.Errorf("output: %w", err)
	}
	if m.Paced, err = t.output(load.Paced, paced(load.Paced)); err != nil {
		return m, fmt.Errorf("paced output: %w", err)
	}
	return m, nil
}

// teletype is somebody at a client.
type teletype struct {
	in  io.Writer
	out io.Reader
	buf []byte
}

// await reads until text was shown.
func (t teletype) await(text string) error {
	var tail []byte
	for {
		n, err := t.out.Read(t.buf)
		tail = append(tail, t.buf[:n]...)
		if bytes.Contains(tail, []byte(text)) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%q was not shown: %w", text, err)
		}
		tail = append(tail[:0], tail[max(0, len(tail)-len(text)):]...)
	}
}

// echo types keys, each when the one before was shown.
func (t teletype) echo(keys int) (middle, slow time.Duration, err error) {
	var all []time.Duration
	for i := range keys {
		key := string(rune('a' + i%26))
		began := time.Now()
		if _, err := io.WriteString(t.in, key); err != nil {
			return 0, 0, err
		}
		if err := t.await(key); err != nil {
			return 0, 0, err
		}
		all = append(all, time.Since(began))
		if i%60 == 59 { // a new line, before the terminal has to wrap it
			if _, err := io.WriteString(t.in, "\x15"); err != nil {
				return 0, 0, err
			}
		}
	}
	if _, err := io.WriteString(t.in, "\x15\n"); err != nil || len(all) == 0 {
		return 0, 0, err
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100], t.await("here> ")
}

// paced writes so many bytes, a tenth of PacedRate in a tenth of a second.
func paced(n int64) string {
	const part = PacedRate / 10
	return fmt.Sprintf(`sh -c 'i=0; while [ $i -lt %d ]; do sleep 0.1 & head -c %d /dev/zero | tr "\0" x; wait; i=$((i+1)); done'`, n/part, part)
}

// output has the target write n bytes by a command, and returns how many came a second.
func (t teletype) output(n int64, command string) (float64, error) {
	if n == 0 {
		return 0, nil
	}
	began := time.Now()
	if _, err := io.WriteString(t.in, command+"; echo end-$((1+1))\n"); err != nil {
		return 0, err
	}
	if err := t.await("end-2\r\nhere> "); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(began).Seconds(), nil
}
