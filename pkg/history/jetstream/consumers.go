// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// few is how many messages are got rather than consumed, where a consumer has to be found first.
const few = 32

// findTime is how long a reader is looked for: what is read waits meanwhile.
const findTime = 500 * time.Millisecond

var (
	errNoReader = errors.New("none of the consumers made for this service is free")
	errUnusable = errors.New("the consumers made for this service cannot be used (docs/upgrade.md)")
)

// consumerLevel is how loud it is said that a consumer does not serve. That none is free, or that two have taken the same, is everyday while
// instances start and end.
func (s *Store) consumerLevel(err error) slog.Level {
	if !s.cfg.Consumers && (errors.Is(err, errNoReader) || errors.Is(err, errSkipped)) {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// mayConsume tells whether a consumer is worth a try for so many sequences.
func (s *Store) mayConsume(filter string, sequences uint64) bool {
	return s.cfg.Consumers || len(s.cfg.Readers) > 0 && filter == everything && sequences > few
}

// consumer is one that delivers from a sequence on, and what to call when it is not needed any more.
func (s *Store) consumer(ctx context.Context, filter string, from uint64) (jetstream.Consumer, func(), error) {
	if !s.cfg.Consumers {
		return s.reader(ctx, from)
	}
	consumer, err := s.newConsumer(ctx, filter, from)
	if err != nil {
		return nil, nil, fmt.Errorf("create consumer: %w", err)
	}
	return consumer, func() { s.drop(consumer) }, nil
}

func (s *Store) newConsumer(ctx context.Context, filter string, from uint64) (consumer jetstream.Consumer, err error) {
	err = s.once(ctx, func(ctx context.Context) (err error) {
		consumer, err = s.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
			FilterSubject:     filter,
			DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
			OptStartSeq:       from,
			AckPolicy:         jetstream.AckNonePolicy,
			InactiveThreshold: 10 * time.Second, // for one that drop could not delete
			MemoryStorage:     true,
			Replicas:          1,
		})
		return err
	})
	return consumer, err
}

// drop deletes a consumer, or leaves that to the server.
func (s *Store) drop(consumer jetstream.Consumer) {
	if !s.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Timeout)
	defer cancel()
	_ = s.stream.DeleteConsumer(ctx, consumer.CachedInfo().Name)
}

// reader takes one of the consumers made for this service that nobody pulls from, and sets it to a sequence. Two that take the same at the
// same moment notice by the gaps in what they get, and both look for another.
func (s *Store) reader(ctx context.Context, from uint64) (jetstream.Consumer, func(), error) {
	limited, cancel := context.WithTimeoutCause(ctx, findTime, errNoAnswer)
	defer cancel()
	last := errNoReader
	for _, i := range rand.Perm(len(s.cfg.Readers)) { //nolint:gosec // so that two instances rarely ask for the same
		name := s.cfg.Readers[i]
		if _, taken := s.taken.LoadOrStore(name, true); taken {
			continue
		}
		consumer, err := s.set(limited, name, from)
		if err == nil {
			return consumer, func() { s.taken.Delete(name) }, nil
		}
		s.taken.Delete(name)
		if !errors.Is(err, errNoReader) {
			last = fmt.Errorf("%w: %s: %w", errUnusable, name, err)
		}
		if limited.Err() != nil {
			break
		}
	}
	return nil, nil, last
}

// set moves a consumer that nobody uses to a sequence.
func (s *Store) set(ctx context.Context, name string, from uint64) (consumer jetstream.Consumer, err error) {
	err = s.once(ctx, func(ctx context.Context) (err error) {
		if consumer, err = s.stream.Consumer(ctx, name); err != nil {
			return err
		}
		if consumer.CachedInfo().NumWaiting > 0 {
			return errNoReader
		}
		_, err = s.cfg.JS.ResetConsumerToSequence(ctx, Stream, name, from)
		return err
	})
	return consumer, err
}
