// SPDX-License-Identifier: Apache-2.0

// Package jetstream is a vault in NATS: one key-value bucket per owner, RESTRICTED_<owner>, one key per commitment.
//
// Destroying is not the purge of the key-value client, which leaves the bytes in the file until the server happens to
// rewrite it. First a marker is written over the value, then the value's message is deleted "securely": the server writes
// the file anew with random bytes in its place. So the marker is never missing, and an interrupted Destroy can be finished.
//
// What is gone when Destroy returns: the value and salt from the stream and from the files of its store, on a bucket with
// one replica. What may remain, and is for the operator to destroy or let age:
//   - On a bucket with three replicas, the cluster's own log of the stream (the folder of its raft group) keeps the original
//     message until the servers compact it. Where we measured, a server did so when it was stopped in good order while others
//     ran, and not when it was stopped as the last. The other replicas erase a moment after the leader.
//   - Blocks of the disk that the file no longer uses, until they are written again: keep the store on an encrypted disk.
//   - Snapshots, backups and swapped memory made before.
//
// With encryption of the store by NATS itself (jetstream key), the server does not overwrite: do not use it for these.
package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cacert.org/emergency/pkg/vault"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The marker is that of a key-value purge, so that the usual tools show the key as gone.
const (
	operation = "KV-Operation"
	purged    = "PURGE"
)

// tries bounds how often an operation looks again because somebody else is changing the key; with the pauses between them
// that is about half a second.
const tries = 12

// Store is the vault.Store of one owner. It is as durable as the bucket: see pkg/natsd.
type Store struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	name   string // of the stream
	prefix string // of the subjects
}

var _ vault.Store = (*Store)(nil)

// New binds to the owner's bucket, which natsd.Provision creates. The owner's credentials allow it to write to the
// bucket's subjects, to get messages and to delete them, and nobody else's do.
func New(ctx context.Context, js jetstream.JetStream, owner string) (*Store, error) {
	name := "KV_RESTRICTED_" + owner
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("bind to the vault of %s: stream %s: %w", owner, name, err)
	}
	return &Store{js: js, stream: stream, name: name, prefix: "$KV.RESTRICTED_" + owner + "."}, nil
}

// Put is vault.Store.Put.
func (s *Store) Put(ctx context.Context, commitment string, salt, value []byte) error {
	sealed, err := vault.Seal(commitment, salt, value)
	if err != nil {
		return err
	}
	msg := nats.NewMsg(s.prefix + commitment)
	msg.Data = sealed
	for try := range tries {
		if _, err = s.publish(ctx, msg, 0); !conflict(err) {
			break
		}
		// Something is there already: the same value, or the marker that it was destroyed. On a cluster it may still be
		// on its way there, and nobody can read it yet.
		if _, _, err = s.Get(ctx, commitment); !errors.Is(err, vault.ErrNotFound) {
			break
		}
		if err := pause(ctx, try); err != nil {
			return wrap("put", commitment, err)
		}
	}
	return wrap("put", commitment, err)
}

// publish writes if the key's last message is still the expected one; zero means that there is none.
func (s *Store) publish(ctx context.Context, msg *nats.Msg, expected uint64) (uint64, error) {
	ack, err := s.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(s.name), jetstream.WithExpectLastSequencePerSubject(expected))
	if err != nil {
		return 0, err
	}
	if ack.Duplicate || ack.Sequence <= expected {
		return 0, fmt.Errorf("the server did not store it: %+v", *ack)
	}
	return ack.Sequence, nil
}

// Get is vault.Store.Get.
func (s *Store) Get(ctx context.Context, commitment string) (value, salt []byte, err error) {
	if err := vault.CheckCommitment(commitment); err != nil {
		return nil, nil, err
	}
	msg, err := s.last(ctx, commitment)
	if err != nil {
		return nil, nil, err
	}
	if isMarker(msg) {
		return nil, nil, fmt.Errorf("%w: %s", vault.ErrDestroyed, commitment)
	}
	return vault.Open(commitment, msg.Data)
}

func (s *Store) last(ctx context.Context, commitment string) (*jetstream.RawStreamMsg, error) {
	msg, err := s.stream.GetLastMsgForSubject(ctx, s.prefix+commitment)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, fmt.Errorf("%w: %s", vault.ErrNotFound, commitment)
	}
	if err != nil {
		return nil, fmt.Errorf("get restricted value %s: %w", commitment, err)
	}
	return msg, nil
}

// Destroy is vault.Store.Destroy.
func (s *Store) Destroy(ctx context.Context, commitment string) error {
	if err := vault.CheckCommitment(commitment); err != nil {
		return err
	}
	marker, err := s.mark(ctx, commitment)
	if err != nil {
		return err
	}
	return wrap("destroy", commitment, s.erase(ctx, s.prefix+commitment, marker))
}

// mark writes the marker, unless it is there, and returns its sequence.
func (s *Store) mark(ctx context.Context, commitment string) (uint64, error) {
	for try := range tries {
		msg, err := s.last(ctx, commitment)
		if err != nil {
			return 0, err
		}
		if isMarker(msg) {
			return msg.Sequence, nil
		}
		marker := nats.NewMsg(s.prefix + commitment)
		marker.Header.Set(operation, purged)
		seq, err := s.publish(ctx, marker, msg.Sequence)
		if !conflict(err) {
			return seq, wrap("destroy", commitment, err)
		}
		if err := pause(ctx, try); err != nil {
			return 0, wrap("destroy", commitment, err)
		}
	}
	return 0, fmt.Errorf("destroy restricted value %s: somebody else keeps writing it", commitment)
}

// erase overwrites all messages of the subject before the marker. A delete that fails may have been somebody else's
// success, so what counts is that none is left.
func (s *Store) erase(ctx context.Context, subject string, marker uint64) error {
	var failed error
	for range tries {
		msg, err := s.stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(subject))
		if err != nil {
			return err
		}
		if msg.Sequence >= marker {
			return nil
		}
		failed = s.stream.SecureDeleteMsg(ctx, msg.Sequence)
	}
	return fmt.Errorf("messages before the marker are left: %w", failed)
}

// pause waits 5 to 50 milliseconds, for a write that is under way on a cluster (hardening 6.5).
func pause(ctx context.Context, try int) error {
	timer := time.NewTimer(min(5*time.Millisecond<<try, 50*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func isMarker(msg *jetstream.RawStreamMsg) bool { return msg.Header.Get(operation) != "" }

// conflict knows both codes of a lost condition: of one server and of a cluster.
func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

func wrap(step, commitment string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s restricted value %s: %w", step, commitment, err)
}
