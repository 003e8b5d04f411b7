// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrStoreDamaged is returned by Start when the store holds something the server could not read back. It is returned
// again until a person removes the file damageFile: the server repairs a store by forgetting the unreadable part, so that
// a second start would look healthy and give the lost sequence numbers out again.
var ErrStoreDamaged = errors.New("store is damaged")

const damageFile = "epatch.damaged"

// refuseKnownDamage fails if an earlier start found damage.
func refuseKnownDamage(dir string) error {
	path := filepath.Join(dir, damageFile)
	what, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the note of earlier damage: %w", err)
	}
	return fmt.Errorf("%w: found by an earlier start: %s: restore the folder from a backup or judge the damage, then remove %s",
		ErrStoreDamaged, strings.TrimSpace(string(what)), path)
}

// noteDamage writes what was found where the next start looks first.
func noteDamage(dir string, found error) error {
	path := filepath.Join(dir, damageFile)
	if err := os.WriteFile(path, []byte(found.Error()+"\n"), 0o600); err != nil {
		return errors.Join(found, fmt.Errorf("note the damage for the next start: %w", err))
	}
	return found
}

// examine compares what the server says it recovered with what lay on the disk before it started: it repairs by forgetting, and
// says no more than a warning in its log.
func (s *Server) examine(ctx context.Context, stored []StoredStream) error {
	nc, err := s.Connect("store check")
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	for _, on := range stored {
		info, err := streamInfo(ctx, js, on.Name)
		if err != nil {
			return fmt.Errorf("%w: stream %s lies on disk but the server does not have it: %w", ErrStoreDamaged, on.Name, err)
		}
		state := info.State
		if lost := state.Lost; lost != nil {
			if len(lost.Msgs) > 0 || lost.Bytes != uint64(on.HalfWritten) {
				return fmt.Errorf("%w: stream %s lost messages %s (%d bytes)", ErrStoreDamaged, on.Name, few(len(lost.Msgs), lost.Msgs), lost.Bytes)
			}
			s.log.Warn("cut off a half-written record: this process or the machine stopped in the middle of a write",
				"stream", on.Name, "bytes", lost.Bytes, "last_seq", state.LastSeq)
		}
		if on.Name != Stream {
			continue
		}
		if state.Msgs != on.Messages || state.LastSeq != on.Last {
			return fmt.Errorf("%w: stream %s has %d messages to sequence %d on disk, the server recovered %d to %d",
				ErrStoreDamaged, on.Name, on.Messages, on.Last, state.Msgs, state.LastSeq)
		}
		if findings := stateFindings(state); len(findings) > 0 {
			return fmt.Errorf("%w: %w", ErrStoreDamaged, checkError(findings))
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
