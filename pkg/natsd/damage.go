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

	"github.com/nats-io/nats.go"
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

// ReadAll reads every message of the histories from the server's disk and returns a *CheckError naming those that cannot
// be read. One flipped bit is found by nothing else: the server goes on counting the message, and says "not found" or
// skips it when it is read. It checks that the bytes are those stored, not what they mean: that is the readers' chain.
// It needs the right to create a consumer. To be run at night and before evidence is sealed (hardening 4).
func ReadAll(ctx context.Context, js jetstream.JetStream) error {
	info, err := streamInfo(ctx, js, Stream)
	if err != nil {
		return fmt.Errorf("read all of %s: %w", Stream, err)
	}
	if findings := stateFindings(info.State); len(findings) > 0 {
		return checkError(findings)
	}
	r := &allReader{js: js, last: info.State.LastSeq, next: 1}
	if err := r.run(ctx); err != nil {
		return fmt.Errorf("read all of %s: %w", Stream, err)
	}
	if len(r.unreadable) == 0 {
		return nil
	}
	return checkError([]Finding{{Stream, "unreadable messages", few(len(r.unreadable), r.unreadable), "0", "the disk does not give back what was stored"}})
}

// allReader takes batches from a consumer, which skips what the server cannot read, and asks for the skipped ones singly.
type allReader struct {
	js         jetstream.JetStream
	next, last uint64 // next sequence to see, last one to see
	unreadable []uint64
}

func (r *allReader) run(ctx context.Context) error {
	stream, err := r.js.Stream(ctx, Stream)
	if err != nil {
		return err
	}
	consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		InactiveThreshold: time.Minute, // if we cannot delete it below
	})
	if err != nil {
		return err
	}
	for tries := 0; r.next <= r.last; {
		seen, err := r.batch(ctx, stream, consumer)
		if errors.Is(err, nats.ErrNoResponders) && tries < 100 {
			// On a cluster the consumer may live elsewhere, and not be known here yet.
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return err
			}
			tries++
			continue
		}
		if err != nil {
			return err
		}
		if seen == 0 {
			break
		}
	}
	if err := r.ask(ctx, stream, r.last+1); err != nil {
		return err
	}
	return stream.DeleteConsumer(ctx, consumer.CachedInfo().Name)
}

func (r *allReader) batch(ctx context.Context, stream jetstream.Stream, consumer jetstream.Consumer) (seen int, err error) {
	batch, err := consumer.FetchNoWait(256)
	if err != nil {
		return 0, err
	}
	for msg := range batch.Messages() {
		meta, err := msg.Metadata()
		if err != nil {
			return 0, err
		}
		if err := r.ask(ctx, stream, min(meta.Sequence.Stream, r.last+1)); err != nil {
			return 0, err
		}
		r.next = max(r.next, meta.Sequence.Stream+1)
		seen++
	}
	return seen, batch.Error()
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

// ask reads the messages before end that the consumer skipped.
func (r *allReader) ask(ctx context.Context, stream jetstream.Stream, end uint64) error {
	for ; r.next < end; r.next++ {
		_, err := stream.GetMsg(ctx, r.next)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			r.unreadable = append(r.unreadable, r.next)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}
