// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"cacert.org/emergency/pkg/timer"
	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
	"cacert.org/emergency/services/internal/sshdtest"
)

const (
	consoleName = "watched console against plain ssh"
	// consoleTurns is how many turns each side has for each of Options.Rounds: one turn is short.
	consoleTurns = 3
)

// console compares a watched session with a plain ssh to the same sshd, both with the stock client: how much output comes, as fast as it
// can and at 10 MB/s, and how long the echo of a key takes. The broker, and a watcher who sees and acknowledges everything at once,
// run in this process. Where there is no sshd it says so.
func console(ctx context.Context, r *rig, opt Options) ([]Figure, error) {
	c, err := openConsole(ctx, filepath.Join(r.dir, "console"))
	if errors.Is(err, sshdtest.ErrMissing) || errors.Is(err, sshdtest.ErrNoTerminal) || errors.Is(err, exec.ErrNotFound) {
		return []Figure{{Name: consoleName, Note: err.Error()}}, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = c.Close() // measured, and the folder goes anyway
		c.Sshd.Close()
	}()
	load := brokertest.Load{Output: 16 << 20, Paced: brokertest.PacedRate, Keys: 300}
	var watched, plain turns
	for i := range consoleTurns * opt.Rounds {
		p, err := c.Plain(ctx, load)
		if err != nil {
			return nil, fmt.Errorf("plain ssh: %w", err)
		}
		w, err := c.Watched(ctx, broker.Ref{Incident: "x20261124.1", Grant: fmt.Sprintf("G%d", i+1)}, load)
		if err != nil {
			return nil, fmt.Errorf("watched console: %w", err)
		}
		plain.add(p)
		watched.add(w)
	}
	return []Figure{
		ranged(consoleName+", output", "MB/s", watched.output, plain.output),
		ranged(consoleName+", output of 10 MB/s", "MB/s", watched.paced, plain.paced),
		ranged(consoleName+", echo of a key, median", "us", watched.echo, plain.echo),
		ranged(consoleName+", echo of a key, p99", "us", watched.slow, plain.slow),
	}, nil
}

// turns are the measures of one side.
type turns struct{ output, paced, echo, slow []float64 }

func (t *turns) add(m brokertest.Measured) {
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	t.output, t.paced = append(t.output, m.Output/1e6), append(t.paced, m.Paced/1e6)
	t.echo, t.slow = append(t.echo, us(m.Echo)), append(t.slow, us(m.Slow))
}

// openConsole starts an sshd and a broker before it.
func openConsole(ctx context.Context, dir string) (*brokertest.Rig, error) {
	if _, err := exec.LookPath("ssh"); err != nil {
		return nil, fmt.Errorf("OpenSSH's client: %w", err)
	}
	target := filepath.Join(dir, "target")
	if err := os.MkdirAll(target, 0o700); err != nil {
		return nil, err
	}
	sshd, err := sshdtest.Start(ctx, sshdtest.Config{Dir: target})
	if err != nil {
		return nil, err
	}
	c, err := brokertest.Start(brokertest.Config{Dir: dir, Sshd: sshd, Clock: timer.System{}, Log: brokertest.Discard()})
	if err != nil {
		sshd.Close()
	}
	return c, err
}
