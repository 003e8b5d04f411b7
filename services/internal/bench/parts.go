// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/history"
	historystore "cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/rpc"
	incidentv1 "cacert.org/emergency/proto/emergency/incident/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/demobook"
)

// rig is the whole system in this process on one folder, and a bare log with the same settings on another.
type rig struct {
	dir    string
	stop   context.CancelFunc
	done   chan error
	addr   string
	https  string
	keys   *history.Keyring
	raw    *natsd.Server
	rawJS  jetstream.JetStream
	node   *app.Node
	store  *historystore.Store
	client incidentv1.IncidentServiceClient
	conn   interface{ Close() error }

	incidents []string
}

func openRig(ctx context.Context) (*rig, error) {
	dir, err := os.MkdirTemp("", "epatch-bench-")
	if err != nil {
		return nil, err
	}
	r := &rig{dir: dir, done: make(chan error, 1)}
	if err := r.open(ctx); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rig) open(ctx context.Context) error {
	log, err := os.Create(filepath.Join(r.dir, "log"))
	if err != nil {
		return err
	}
	ctx, r.stop = context.WithCancel(ctx)
	data := filepath.Join(r.dir, "system")
	if r.node, err = app.Open(ctx, app.Settings{
		Data: data, Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", HTTPS: "127.0.0.1:0", LogFormat: "text", LogLevel: "error", LogTo: log,
	}); err != nil {
		return err
	}
	ready := make(chan app.Addresses, 1)
	go func() { r.done <- r.node.Run(ctx, func(a app.Addresses) { ready <- a }) }()
	select {
	case a := <-ready:
		r.addr, r.https = a.API, a.HTTPS
	case err := <-r.done:
		return err
	}
	if r.keys, err = history.LoadKeyring(r.node.KeyringFile()); err != nil {
		return err
	}
	profile, err := identity.Load(filepath.Join(data, "people", "carla"), identity.LoadOptions{Now: time.Now(), Dev: true})
	if err != nil {
		return err
	}
	conn, err := rpc.Dial(r.addr, rpc.ClientConfig{Identity: profile.Current})
	if err != nil {
		return err
	}
	r.conn, r.client = conn, incidentv1.NewIncidentServiceClient(conn)
	r.store = r.node.Store()
	return r.openRaw(ctx)
}

// openRaw starts the log that is the baseline: the same server, the same synced stream, nothing of ours around it.
func (r *rig) openRaw(ctx context.Context) error {
	var err error
	if r.raw, err = natsd.Start(natsd.Config{Dir: filepath.Join(r.dir, "raw"), Logger: slog.New(slog.DiscardHandler)}); err != nil {
		return err
	}
	conn, err := r.raw.Connect("bench")
	if err != nil {
		return err
	}
	if r.rawJS, err = jetstream.New(conn); err != nil {
		return err
	}
	return natsd.Provision(ctx, r.rawJS, natsd.Profile{Replicas: 1, MaxBytes: 1 << 30})
}

func (r *rig) close() {
	if r.conn != nil {
		_ = r.conn.Close() // nothing is outstanding
	}
	if r.stop != nil {
		r.stop()
	}
	if r.node != nil {
		if err := errors.Join(<-r.done, r.node.Close()); err != nil { // the folder goes anyway, but why it ended is told
			fmt.Fprintln(os.Stderr, "the measured system ended:", err)
		}
	}
	if r.raw != nil {
		_ = r.raw.Close() // the folder goes anyway
	}
	_ = os.RemoveAll(r.dir) // a temporary folder
}

// declare makes n incidents to work on.
func (r *rig) declare(ctx context.Context, n int) error {
	for len(r.incidents) < n {
		id, err := declare(ctx, r.client)
		if err != nil {
			return err
		}
		r.incidents = append(r.incidents, id)
	}
	return nil
}

func declare(ctx context.Context, to incidentv1.IncidentServiceClient) (incident string, err error) {
	res, err := to.Declare(ctx, &emergencyv1.DeclareRequest{
		Meta: &emergencyv1.CommandMeta{RequestId: "bench-" + rand.Text()}, System: demobook.System, Symptom: "bench", Drill: true,
		Severity: emergencyv1.Severity_SEVERITY_NORMAL, ReasonClass: emergencyv1.ReasonClass_REASON_CLASS_OTHER, Reason: "measuring the system",
	})
	return res.GetCommitted().GetIncident(), err
}

func (r *rig) note(ctx context.Context, incident string) error { return note(ctx, r.client, incident) }

func note(ctx context.Context, to incidentv1.IncidentServiceClient, incident string) error {
	_, err := to.AnnotateLog(ctx, &emergencyv1.AnnotateLogRequest{
		Meta: &emergencyv1.CommandMeta{Incident: incident, RequestId: "bench-" + rand.Text()}, Entry: 1, Text: "a note of about the length that people write at night",
	})
	return err
}

// settled waits until nothing is recorded for a second: who is called for an emergency makes records, and work, of its own.
func settled(ctx context.Context, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for last, still := uint64(0), 0; still < 10; still++ {
		s, err := js.Stream(ctx, natsd.Stream)
		if err != nil {
			return fmt.Errorf("wait until the log is still: %w", err)
		}
		if now := s.CachedInfo().State.LastSeq; now != last {
			last, still = now, 0
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until the log is still: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// clientCounts are how many people work at the same time.
func clientCounts() []int { return []int{1, 16, 64} }

// commands compares a whole command (gRPC, mTLS, decide, seal, synced append) with a bare publish of as many bytes with
// acknowledgement and the same condition, each client on an incident of its own.
func commands(ctx context.Context, r *rig, opt Options) ([]Figure, error) {
	if err := r.declare(ctx, 64); err != nil {
		return nil, err
	}
	if err := r.note(ctx, r.incidents[0]); err != nil {
		return nil, err
	}
	if err := settled(ctx, r.node.JetStream()); err != nil {
		return nil, err
	}
	size, err := recordSize(ctx, r.store, r.incidents[0])
	if err != nil {
		return nil, err
	}
	raw := rawPublish(r.rawJS, natsd.Stream, "emergency.bench-", size)
	var list []Figure
	for _, n := range clientCounts() {
		ours, base, err := sideBySide(ctx, opt, n, func(ctx context.Context, client int) error { return r.note(ctx, r.incidents[client]) }, raw)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("command end to end against raw publish, %d clients", n)
		list = append(list, figure(name, "1/s", ours.perSecond, base.perSecond),
			figure(name+", p99", "ms", ms(ours.p99), ms(base.p99)), figure(name+", allocations", "1/op", ours.allocs, base.allocs))
	}
	return list, nil
}

// rawPublish is the baseline of a command: each client publishes on a subject of its own, with acknowledgement and the expected sequence.
func rawPublish(js jetstream.JetStream, stream, prefix string, size int) func(ctx context.Context, client int) error {
	payload := make([]byte, size)
	sequences := make([]uint64, 64)
	return func(ctx context.Context, client int) error {
		for {
			msg := &nats.Msg{Subject: prefix + strconv.Itoa(client), Data: payload}
			ack, err := js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(sequences[client]), jetstream.WithExpectStream(stream))
			if err == nil {
				sequences[client] = ack.Sequence
				return nil
			}
			// A cluster acknowledges a message a moment before it forgets that it was on its way.
			var api *jetstream.APIError
			if !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequenceConstant {
				return err
			}
		}
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// recordSize is the stored size of an incident's last record.
func recordSize(ctx context.Context, store *historystore.Store, incident string) (int, error) {
	messages, err := store.Load(ctx, incident, 0)
	if err != nil || len(messages) == 0 {
		return 0, fmt.Errorf("load %s: %d messages, %w", incident, len(messages), err)
	}
	return len(messages[len(messages)-1].Data), nil
}

// loads compares reading, verifying and folding an incident with a bare consumer that fetches the same messages.
func loads(ctx context.Context, r *rig, opt Options) ([]Figure, error) {
	js := r.node.JetStream()
	var list []Figure
	for i, events := range []int{10, 100, 1000} {
		if err := r.declare(ctx, 64+i+1); err != nil {
			return nil, err
		}
		id := r.incidents[64+i]
		last, err := r.grow(ctx, id, events)
		if err != nil {
			return nil, err
		}
		subject, err := history.Subject(id)
		if err != nil {
			return nil, err
		}
		load := func(ctx context.Context, _ int) error {
			reading, err := history.Read(ctx, r.store, r.keys, id)
			if err != nil {
				return err
			}
			s := procedure.NewState(id)
			for _, e := range reading.Entries {
				if err := s.Apply(e.Record, e.Hash); err != nil {
					return err
				}
			}
			return nil
		}
		ours, base, err := sideBySide(ctx, opt, 1, load, func(ctx context.Context, _ int) error { return consume(ctx, js, subject, last) })
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("load an incident of %d events against a bare consumer", events)
		list = append(list, figure(name, "1/s", ours.perSecond, base.perSecond), figure(name+", allocations", "1/op", ours.allocs, base.allocs))
	}
	return list, nil
}

// grow adds notes until an incident has so many events, and returns its last sequence.
func (r *rig) grow(ctx context.Context, id string, events int) (uint64, error) {
	for {
		reading, err := history.Read(ctx, r.store, r.keys, id)
		if err != nil {
			return 0, err
		}
		missing := events - int(reading.Chain.Head().Position)
		if missing <= 0 {
			return reading.Last, nil
		}
		for range missing {
			if err := r.note(ctx, id); err != nil {
				return 0, err
			}
		}
	}
}

// consume reads one subject, or everything, up to a sequence with a consumer of its own, and deletes it again.
func consume(ctx context.Context, js jetstream.JetStream, filter string, last uint64) (err error) {
	c, err := js.CreateConsumer(ctx, natsd.Stream, jetstream.ConsumerConfig{FilterSubject: filter, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, js.DeleteConsumer(ctx, natsd.Stream, c.CachedInfo().Name)) }()
	it, err := c.Messages()
	if err != nil {
		return err
	}
	defer it.Stop()
	for {
		m, err := it.Next()
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Stream >= last {
			return nil
		}
	}
}

// rebuild compares folding the whole stream into the projections with a bare consumer that reads it.
func rebuild(ctx context.Context, r *rig, opt Options) ([]Figure, error) {
	if err := r.declare(ctx, 70+opt.Incidents); err != nil {
		return nil, err
	}
	var group sync.WaitGroup
	errs := make(chan error, opt.Incidents)
	for _, id := range r.incidents[70 : 70+opt.Incidents] {
		group.Go(func() {
			if _, err := r.grow(ctx, id, opt.Events); err != nil {
				errs <- err
			}
		})
	}
	group.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return nil, err
	}
	info, err := r.node.JetStream().Stream(ctx, natsd.Stream)
	if err != nil {
		return nil, err
	}
	records := info.CachedInfo().State.Msgs
	cfg := projection.Config{Store: r.store, Keys: r.keys, Log: slog.New(slog.DiscardHandler)}
	fold := func(ctx context.Context, _ int) error {
		return projection.Rebuild(ctx, cfg, r.node.FreshProjections()...)
	}
	ours, base, err := sideBySide(ctx, opt, 1, fold, func(ctx context.Context, _ int) error {
		return consume(ctx, r.node.JetStream(), natsd.Subjects, info.CachedInfo().State.LastSeq)
	})
	if err != nil {
		return nil, err
	}
	n := float64(records)
	return []Figure{
		figure(fmt.Sprintf("rebuild of all projections from %d records against a bare consumer", records), "records/s", ours.perSecond*n, base.perSecond*n),
		figure("rebuild, allocations", "1/record", ours.allocs/n, base.allocs/n),
	}, nil
}
