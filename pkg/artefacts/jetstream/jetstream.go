// SPDX-License-Identifier: Apache-2.0

// Package jetstream keeps artefacts in the object bucket ARTEFACTS of NATS, one object per digest.
//
// Objects have the layout of the bucket's own client and can be read with the usual tools, but are written and read here.
// The client's writer replaces metadata by rollup; a stream that allows this lets whoever writes one message take away all
// others. Here the newest metadata of a name counts, and older ones stay. The client's reader creates a consumer, which no
// service may (hardening 1.5), waits for its timeout when chunks are missing, and may be answered by a replica that is behind.
//
// What is weaker than the history: whoever holds the right to write artefacts can also hide one behind other metadata.
// Reading finds that, and putting the bytes again mends it.
package jetstream

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"cacert.org/emergency/pkg/artefacts"
	"github.com/nats-io/nats.go/jetstream"
)

// bucket is created by natsd.Provision.
const bucket = "ARTEFACTS"

// mediaTypeKey is where the media type stands in an object's metadata, for people who look into the bucket.
const mediaTypeKey = "media-type"

// chunkSize is what the object client writes, too.
const chunkSize = 128 << 10

// publishTimeout is how long a server may take to say that it has a chunk.
const publishTimeout = 5 * time.Second

// Store is an artefacts.Store in JetStream. It is as durable as the bucket: see pkg/natsd.
type Store struct {
	js      jetstream.JetStream // whose unanswered publishes end by themselves
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
	pub, err := jetstream.New(js.Conn(), jetstream.WithPublishAsyncTimeout(publishTimeout))
	if err != nil {
		return nil, fmt.Errorf("bind to object bucket %s: %w", bucket, err)
	}
	return &Store{js: pub, objects: objects, stream: stream, limit: limit}, nil
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
	if err := s.write(ctx, ref.SHA256, data, mediaType); err != nil {
		return artefacts.Ref{}, fmt.Errorf("put artefact %s: %w", ref.SHA256, err)
	}
	// Somebody else may write the same name, so only reading shows what is there.
	if _, err := s.Get(ctx, ref.SHA256); err != nil {
		return artefacts.Ref{}, fmt.Errorf("put artefact: read back: %w", err)
	}
	return ref, nil
}

// write stores a new version of an object: first its bytes, and when these are safe the metadata that names them. So metadata never
// names what is not there.
func (s *Store) write(ctx context.Context, name string, data []byte, mediaType string) error {
	version := rand.Text()
	var acks []jetstream.PubAckFuture
	for chunk := range slices.Chunk(data, chunkSize) {
		ack, err := s.js.PublishAsync("$O."+bucket+".C."+version, chunk, jetstream.WithExpectStream("OBJ_"+bucket))
		if err != nil {
			return err
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	sum := sha256.Sum256(data)
	meta, err := json.Marshal(&jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: name, Metadata: map[string]string{mediaTypeKey: mediaType}, Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunkSize}},
		Bucket:     bucket, NUID: version, Size: uint64(len(data)), Chunks: uint32(len(acks)), Digest: "SHA-256=" + base64.URLEncoding.EncodeToString(sum[:]),
	})
	if err != nil {
		return err
	}
	_, err = s.js.Publish(ctx, "$O."+bucket+".M."+base64.URLEncoding.EncodeToString([]byte(name)), meta, jetstream.WithExpectStream("OBJ_"+bucket))
	return err
}

// Get is artefacts.Store.Get. A writer of an earlier version of this program who puts the same bytes again may take the chunks away
// while they are read: then the object has a new version, which is read instead.
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
