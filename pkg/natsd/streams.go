// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Names of what Provision creates. A key-value bucket B is the stream KV_B, an object bucket the stream OBJ_B.
const (
	Stream       = "EMERGENCY"   // the histories, one subject per incident
	Subjects     = "emergency.*" // the only subjects of Stream: one token per incident, so no dot in it
	EffectBucket = "EFFECTS"     // key-value: ledger of timers and effects, outside the history because it is overwritten
	ObjectBucket = "ARTEFACTS"   // objects: content-addressed bytes (pkg/artefacts)
)

// noDedup is the shortest window in which the server looks for equal message ids; it cannot be switched off. We set no
// ids (hardening 1.4), and a short window keeps a foreign writer from filling the server's memory with his.
const noDedup = 100 * time.Millisecond

// Owners returns the services that own restricted fields, each with a bucket of its own.
func Owners() []string {
	return []string{"incident", "notification", "review", "deployment", "arbitration"}
}

// RestrictedBucket is the key-value bucket of an owner's restricted values (procedure 0.8, pkg/vault).
func RestrictedBucket(owner string) string { return "RESTRICTED_" + owner }

// Profile sizes what Provision creates.
type Profile struct {
	Replicas      int   // copies of each stream: 1 embedded, 3 in production
	MaxBytes      int64 // of the histories; full means that new records are refused, nothing is dropped
	ArtefactBytes int64 // of the artefacts; zero means as MaxBytes
	BucketBytes   int64 // of each key-value bucket; zero means as MaxBytes
	Consumers     bool  // for services in processes of their own; the embedded log's one process makes its own
}

// EffectKey is a key of the ledger of effects: of what one owner intends, or how far an owner has come ("mark"), or which of its instances
// acts ("lease"). Each owner's user may write its own keys alone.
func EffectKey(kind, owner string) string {
	if kind == "effect" {
		return kind + "." + owner
	}
	return kind + "." + base64.RawURLEncoding.EncodeToString([]byte(owner))
}

// instances is how many instances of a service find their consumers. A process that starts while another ends needs one more.
const instances = 3

// readings are how many readings of the histories go on in an instance at once: of the reader, its projections, and the keepers of what is in
// PostgreSQL.
func readings(service string) int {
	if service == Reader {
		return 3
	}
	return 1
}

// Consumers are the names of the consumers of the histories that one service's instances read by: no service may create one, and reading
// record by record through questions is slow.
func Consumers(service string) []string {
	var names []string
	for i := range instances * readings(service) {
		names = append(names, fmt.Sprintf("%s-%d", service, i+1))
	}
	return names
}

// consumer is what each of them is. Where it stands is worth nothing: whoever takes it says from where it reads, and checks what comes. So it
// lies in the memory of one server.
func consumer(name string) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: name, Description: "Emergency patches: an instance of a service reads the histories by it.",
		DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1,
	}
}

// Provision creates the stream, the buckets and the consumers that do not exist yet. It changes none that exists, but that
// buckets of earlier versions lose the right to forget (earlier): other differing settings come back as *CheckError, and a
// person decides. The caller needs the rights to create streams, which no running service of a production system has
// (hardening 1.5).
func Provision(ctx context.Context, js jetstream.JetStream, p Profile) error {
	if p.Replicas < 1 || p.MaxBytes <= 0 || p.ArtefactBytes < 0 || p.BucketBytes < 0 {
		return fmt.Errorf("provision: profile %+v: Replicas and MaxBytes must be positive, no size negative", p)
	}
	var findings []Finding
	for _, want := range p.streams() {
		_, err := js.CreateStream(ctx, want)
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return fmt.Errorf("provision: create stream %s: %w", want.Name, err)
		}
		found, err := tighten(ctx, js, want)
		if err != nil {
			return fmt.Errorf("provision: %w", err)
		}
		findings = append(findings, found.findings...)
	}
	if p.Consumers {
		for _, s := range Services() {
			for _, name := range Consumers(s) {
				_, err := js.CreateConsumer(ctx, Stream, consumer(name))
				if errors.Is(err, jetstream.ErrConsumerExists) {
					findings = append(findings, Finding{Stream, "consumer " + name, "another one", "as this version makes it", "instances would read without it, slowly; delete it, then provision again"})
				} else if err != nil {
					return fmt.Errorf("provision: create consumer %s: %w", name, err)
				}
			}
		}
	}
	return checkError(findings)
}

// earlier is what versions before this one made of a stream, if they made another: a bucket in which rollup was allowed, so
// that one message to a key of the writer's own took away everybody's.
func earlier(want jetstream.StreamConfig) (jetstream.StreamConfig, bool) {
	made := want.Name == "KV_"+EffectBucket || want.Name == "OBJ_"+ObjectBucket
	want.AllowRollup, want.DenyPurge = true, false
	return want, made
}

// tighten looks at a stream, and makes one that is exactly as an earlier version made it as this one does.
func tighten(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (seen, error) {
	found, err := look(ctx, js, want)
	old, made := earlier(want)
	if err != nil || !made || len(found.findings) == 0 || len(configFindings(found.info.Config, old)) > 0 {
		return found, err
	}
	cfg := found.info.Config
	cfg.AllowRollup, cfg.DenyPurge = want.AllowRollup, want.DenyPurge
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		return seen{}, fmt.Errorf("take the rollup of earlier versions from stream %s: %w", want.Name, err)
	}
	return look(ctx, js, want)
}

func (p Profile) streams() []jetstream.StreamConfig {
	if p.ArtefactBytes == 0 {
		p.ArtefactBytes = p.MaxBytes
	}
	if p.BucketBytes == 0 {
		p.BucketBytes = p.MaxBytes
	}
	history, objects, effects := historyStream(), objectStream(), bucketStream(EffectBucket)
	history.MaxBytes, objects.MaxBytes, effects.MaxBytes = p.MaxBytes, p.ArtefactBytes, p.BucketBytes
	all := []jetstream.StreamConfig{history, objects, effects}
	for _, owner := range Owners() {
		restricted := restrictedStream(owner)
		restricted.MaxBytes = p.BucketBytes
		all = append(all, restricted)
	}
	for i := range all {
		all[i].Replicas = p.Replicas
	}
	return all
}

// base is what all streams have in common: on disk, nothing expires, full means refused, and reads go to the leader.
// A direct read may be answered by a replica that is behind: a value just written is missing, one just destroyed is
// still there.
func base(name string, subjects ...string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              name,
		Subjects:          subjects,
		Storage:           jetstream.FileStorage,
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardNew,
		MaxAge:            0,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxMsgSize:        -1,
		Duplicates:        noDedup,
		AllowDirect:       false,
	}
}

// historyStream is hardening section 4: a stream that cannot forget, short of deleting it.
func historyStream() jetstream.StreamConfig {
	cfg := base(Stream, Subjects)
	cfg.Description = "Emergency patches: the histories. Never change or delete."
	cfg.MaxMsgSize = MaxMessage
	cfg.DenyDelete, cfg.DenyPurge = true, true
	return cfg
}

// objectStream has the layout of an object bucket, so that the usual tools can read it. These write by rollup, which is
// not allowed here: pkg/artefacts/jetstream writes without.
func objectStream() jetstream.StreamConfig {
	cfg := base("OBJ_"+ObjectBucket, "$O."+ObjectBucket+".C.>", "$O."+ObjectBucket+".M.>")
	cfg.Description = "Emergency patches: artefacts by SHA-256."
	cfg.DenyDelete, cfg.DenyPurge = true, true
	return cfg
}

// bucketStream allows no rollup: a writer with one key of his own could take away all keys of all others by the header
// Nats-Rollup: all, which no permission on subjects stops. The server ties rollup to purging, so that is denied, too.
func bucketStream(bucket string) jetstream.StreamConfig {
	cfg := base("KV_"+bucket, "$KV."+bucket+".>")
	cfg.Description = "Emergency patches: " + bucket
	cfg.MaxMsgsPerSubject = 1
	cfg.DenyDelete, cfg.DenyPurge = true, true
	return cfg
}

// restrictedStream allows deletes: only a secure delete by sequence overwrites the bytes on disk. For that the value must
// still be there when the marker of its destruction follows it on the subject, so there is room for both. Purge and rollup
// would remove a value and leave its bytes in the file.
func restrictedStream(owner string) jetstream.StreamConfig {
	cfg := bucketStream(RestrictedBucket(owner))
	cfg.MaxMsgsPerSubject = 2
	cfg.DenyDelete = false
	return cfg
}

// wanted returns the settings a stream must have, sizes and replicas aside.
func wanted(stream string) (jetstream.StreamConfig, bool) {
	for _, cfg := range (Profile{}).streams() {
		if cfg.Name == stream {
			return cfg, true
		}
	}
	return jetstream.StreamConfig{}, false
}
