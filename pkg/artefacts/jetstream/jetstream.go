// SPDX-License-Identifier: Apache-2.0

// Package jetstream keeps artefacts in the object bucket ARTEFACTS of NATS, one object per digest.
//
// Objects are written by the bucket's client and can be read with the usual tools, but are read here chunk by chunk
// through the stream leader: the client's reader creates a consumer, which no service may (hardening 1.5), waits for its
// timeout when chunks are missing, and may be answered by a replica that is behind.
//
// What is weaker than the history: whoever holds the right to write artefacts can also replace or remove one. Reading
// finds that, and putting the bytes again mends it.
package jetstream

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"cacert.org/emergency/pkg/artefacts"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// bucket is created by natsd.Provision.
const bucket = "ARTEFACTS"

// mediaTypeKey is where the media type stands in an object's metadata, for people who look into the bucket.
const mediaTypeKey = "media-type"

// Store is an artefacts.Store in JetStream. It is as durable as the bucket: see pkg/natsd.
type Store struct {
	js      jetstream.JetStream
	objects jetstream.ObjectStore
	stream  jetstream.Stream
	limit   int64
}

var _ artefacts.Store = (*Store)(nil)

// New binds to the bucket, which must exist. The store takes artefacts of up to limit bytes.
func New(ctx context.Context, js jetstream.JetStream, limit int64) (*Store, error) {
	objects, err := js.ObjectStore(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("bind to object bucket %s: %w", bucket, err)
	}
	stream, err := js.Stream(ctx, "OBJ_"+bucket)
	if err != nil {
		return nil, fmt.Errorf("bind to object bucket %s: %w", bucket, err)
	}
	return &Store{js: js, objects: objects, stream: stream, limit: limit}, nil
}

// Put is artefacts.Store.Put.
func (s *Store) Put(ctx context.Context, r io.Reader, mediaType string) (artefacts.Ref, error) {
	data, ref, err := artefacts.Read(r, s.limit, mediaType)
	if err != nil {
		return artefacts.Ref{}, err
	}
	_, err = s.Get(ctx, ref.SHA256)
	switch {
	case err == nil:
		return ref, nil
	case !errors.Is(err, artefacts.ErrNotFound) && !errors.Is(err, artefacts.ErrCorrupt) && !errors.Is(err, artefacts.ErrTooLarge):
		return artefacts.Ref{}, err
	}
	if errors.Is(err, jetstream.ErrBadObjectMeta) {
		if err := s.dropMeta(ctx, ref.SHA256); err != nil {
			return artefacts.Ref{}, err
		}
	}
	meta := jetstream.ObjectMeta{Name: ref.SHA256, Metadata: map[string]string{mediaTypeKey: mediaType}}
	if _, err := s.objects.Put(ctx, meta, bytes.NewReader(data)); err != nil {
		return artefacts.Ref{}, fmt.Errorf("put artefact %s: %w", ref.SHA256, err)
	}
	// The object client cleans up after writers it takes for older, so only reading shows what is left.
	if _, err := s.Get(ctx, ref.SHA256); err != nil {
		return artefacts.Ref{}, fmt.Errorf("put artefact: read back: %w", err)
	}
	return ref, nil
}

// dropMeta replaces metadata that nobody can read, and over which the object client would stumble, by "deleted".
func (s *Store) dropMeta(ctx context.Context, sha256 string) error {
	msg := nats.NewMsg("$O." + bucket + ".M." + base64.URLEncoding.EncodeToString([]byte(sha256)))
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	msg.Data = []byte(`{"deleted":true}`)
	if _, err := s.js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("put artefact %s: replace its broken metadata: %w", sha256, err)
	}
	return nil
}

// Get is artefacts.Store.Get. Somebody who puts the same bytes again may take the chunks away while they are read: then
// the object has a new version, which is read instead.
func (s *Store) Get(ctx context.Context, sha256 string) ([]byte, error) {
	if err := artefacts.CheckDigest(sha256); err != nil {
		return nil, err
	}
	version := ""
	for {
		info, err := s.info(ctx, sha256)
		if err != nil {
			return nil, err
		}
		data, err := s.read(ctx, info)
		if !errors.Is(err, artefacts.ErrCorrupt) || info.NUID == version {
			return data, err
		}
		version = info.NUID
	}
}

func (s *Store) info(ctx context.Context, sha256 string) (*jetstream.ObjectInfo, error) {
	info, err := s.objects.GetInfo(ctx, sha256)
	switch {
	case errors.Is(err, jetstream.ErrObjectNotFound):
		return nil, fmt.Errorf("%w: %s", artefacts.ErrNotFound, sha256)
	case errors.Is(err, jetstream.ErrBadObjectMeta):
		return nil, fmt.Errorf("%w (%w)", corrupt(sha256, "its metadata cannot be read"), err)
	case err != nil:
		return nil, fmt.Errorf("get artefact %s: %w", sha256, err)
	case info.Size > uint64(s.limit):
		return nil, fmt.Errorf("artefact %s of %d bytes: %w of %d bytes", sha256, info.Size, artefacts.ErrTooLarge, s.limit)
	}
	info.Name = sha256 // the metadata could say anything
	return info, nil
}

// read takes an object's messages in order, never more than its stated size, and hashes them.
func (s *Store) read(ctx context.Context, info *jetstream.ObjectInfo) ([]byte, error) {
	subject := "$O." + bucket + ".C." + info.NUID
	data := make([]byte, 0, info.Size)
	for chunk, seq := uint32(0), uint64(1); chunk < info.Chunks; chunk++ {
		msg, err := s.stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, corrupt(info.Name, "part %d of %d is missing", chunk+1, info.Chunks)
		}
		if err != nil {
			return nil, fmt.Errorf("get artefact %s: part %d of %d: %w", info.Name, chunk+1, info.Chunks, err)
		}
		if uint64(len(data)+len(msg.Data)) > info.Size {
			return nil, corrupt(info.Name, "more than the %d bytes it should have", info.Size)
		}
		data = append(data, msg.Data...)
		seq = msg.Sequence + 1
	}
	if err := artefacts.Verify(info.Name, data); err != nil {
		return nil, err
	}
	return data, nil
}

func corrupt(sha256, format string, v ...any) error {
	return &artefacts.CorruptError{SHA256: sha256, Detail: fmt.Sprintf(format, v...)}
}
