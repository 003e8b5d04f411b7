// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/history"
	historystore "cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/identity/devca"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/procedure"
	vaultmemory "cacert.org/emergency/pkg/vault/memory"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
)

// generated are histories as long as wanted: each record is decided, sealed and read back by what a service decides with, but into memory,
// because a synced log would take an hour for a million of them. All incidents are drills by one person who writes notes, and the team's lead
// does what is owed.
type generated struct {
	store       *memory.Store
	keys        *history.Keyring
	dispatch    *dispatch.Dispatcher // of the incident service
	arbitration *dispatch.Dispatcher
	carla, lead procedure.Actor
	numbers     known
	at          time.Time
}

// known counts the incidents that were declared.
type known struct {
	mu   sync.Mutex
	last map[string]int
}

func (k *known) Declared(string, string) string { return "" }

func (k *known) LastNumber(prefix string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last[prefix]
}

func newGenerated(ctx context.Context, dir string) (*generated, error) {
	g := &generated{store: &memory.Store{}, numbers: known{last: map[string]int{}}, at: time.Now().Truncate(time.Second)}
	var listed []history.Key
	signers := map[string]history.Signer{}
	for _, owner := range procedure.Owners() {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		if signers[owner], err = history.NewSigner(private); err != nil {
			return nil, err
		}
		listed = append(listed, history.Key{Owner: owner, Public: public})
	}
	var err error
	if g.keys, err = history.NewKeyring(listed...); err != nil {
		return nil, err
	}
	of := func(owner string) (*dispatch.Dispatcher, error) {
		return dispatch.New(dispatch.Config{
			Owner: owner, Store: g.store, Keys: g.keys, Signer: signers[owner], Vault: vaultmemory.New(), Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return g.at },
		})
	}
	ca, err := devca.Open(filepath.Join(dir, "ca"), time.Now)
	if err != nil {
		return nil, err
	}
	people, err := demobook.Keys(ca, dir)
	if err != nil {
		return nil, err
	}
	for _, k := range people {
		switch k.GetPerson() {
		case "carla":
			g.carla = procedure.Actor{KeyID: k.GetKeyId()}
		case "clara":
			g.lead = procedure.Actor{KeyID: k.GetKeyId()}
		}
	}
	founding, err := demobook.Founding(people, g.at)
	if err != nil {
		return nil, err
	}
	if g.arbitration, err = of(procedure.OwnerArbitration); err != nil {
		return nil, err
	}
	system := procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_SERVICE, SystemName: procedure.OwnerArbitration}
	if _, err := g.arbitration.Do(ctx, founding, dispatch.Input{Actor: system}); err != nil {
		return nil, err
	}
	g.dispatch, err = of(procedure.OwnerIncident)
	return g, err
}

// declare begins an incident.
func (g *generated) declare(ctx context.Context) (string, error) {
	c, err := g.dispatch.Declare(ctx, &emergencyv1.DeclareRequest{
		Meta: &emergencyv1.CommandMeta{RequestId: "bench-" + rand.Text()}, System: demobook.System, Symptom: "bench", Drill: true,
		Severity: emergencyv1.Severity_SEVERITY_NORMAL, ReasonClass: emergencyv1.ReasonClass_REASON_CLASS_OTHER, Reason: "measuring the system",
	}, dispatch.Input{Actor: g.carla}, &g.numbers)
	if err != nil {
		return "", err
	}
	prefix, _, _ := strings.Cut(c.GetIncident(), ".")
	g.numbers.mu.Lock()
	g.numbers.last[prefix+"."]++
	g.numbers.mu.Unlock()
	return c.GetIncident(), nil
}

func (g *generated) note(ctx context.Context, incident string) error {
	_, err := g.dispatch.Do(ctx, &emergencyv1.AnnotateLogRequest{
		Meta: meta(incident), Entry: 1, Text: "a note of about the length that people write at night",
	}, dispatch.Input{Actor: g.carla})
	return err
}

func meta(incident string) *emergencyv1.CommandMeta {
	return &emergencyv1.CommandMeta{Incident: incident, RequestId: "bench-" + rand.Text()}
}

// last are the last records of an incident that is over: nobody owes anything or is waited for.
func (g *generated) last() []func(context.Context, string) error {
	why := "measuring the system is over"
	return []func(context.Context, string) error{
		func(ctx context.Context, incident string) error {
			_, err := g.dispatch.Do(ctx, &emergencyv1.StandDownRequest{Meta: meta(incident), Reason: why}, dispatch.Input{Actor: g.carla})
			return err
		},
		func(ctx context.Context, incident string) error {
			approve := emergencyv1.LeadDecision_LEAD_DECISION_APPROVE
			_, err := g.dispatch.Do(ctx, &emergencyv1.RecordLeadDecisionRequest{Meta: meta(incident), Decision: approve, Reason: why}, dispatch.Input{Actor: g.lead})
			return err
		},
		func(ctx context.Context, incident string) error {
			from, until := timestamppb.New(g.at.Add(-time.Hour)), timestamppb.New(g.at.Add(time.Hour))
			_, err := g.arbitration.Do(ctx, &emergencyv1.RecordBoardSummaryRequest{Meta: meta(incident), From: from, Until: until, BoardReference: "bench"}, dispatch.Input{Actor: g.lead})
			return err
		},
		func(ctx context.Context, incident string) error {
			_, err := g.dispatch.Do(ctx, &emergencyv1.CloseRequest{Meta: meta(incident), Outcome: emergencyv1.Outcome_OUTCOME_NOT_NEEDED, Summary: why}, dispatch.Input{Actor: g.carla})
			return err
		},
	}
}

// stillOpen is how many of the incidents that are grown at a time are not over, where the others are.
const stillOpen = 10

// grow makes incidents of so many records each, and returns their ids. Where all are to be over but a few, the last records say so.
func (g *generated) grow(ctx context.Context, incidents, records int, over bool) ([]string, error) {
	var ids []string
	for range incidents {
		id, err := g.declare(ctx)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	next := make(chan int, len(ids))
	for i := range ids {
		next <- i
	}
	close(next)
	last := g.last()
	workers := runtime.GOMAXPROCS(0)
	failed := make(chan error, workers)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := range next {
				for n := range records - 1 {
					give := g.note
					if k := n - (records - 1 - len(last)); over && i >= stillOpen && k >= 0 {
						give = last[k]
					}
					if err := give(ctx, ids[i]); err != nil {
						failed <- err
						return
					}
				}
			}
		})
	}
	group.Wait()
	close(failed)
	return ids, <-failed
}

// filled is a log with generated histories in it, which no test of durability would pass: what is measured on it is reading.
type filled struct {
	server *server.Server
	js     jetstream.JetStream
	store  *historystore.Store
	last   uint64
	dir    string
}

func (g *generated) fill(ctx context.Context, dir string) (*filled, error) {
	ns, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: dir, JetStreamMaxStore: 64 << 30, NoSigs: true, NoLog: true})
	if err != nil {
		return nil, err
	}
	ns.Start()
	if !ns.ReadyForConnections(10 * time.Second) {
		return nil, errors.New("the server to read from does not start")
	}
	f := &filled{server: ns, dir: dir}
	if err := f.fill(ctx, g.store); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *filled) fill(ctx context.Context, from history.Store) error {
	conn, err := nats.Connect("", nats.InProcessServer(f.server), nats.ReconnectBufSize(-1))
	if err != nil {
		return err
	}
	if f.js, err = jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(4096)); err != nil {
		return err
	}
	if err := natsd.Provision(ctx, f.js, natsd.Profile{Replicas: 1, MaxBytes: 16 << 30, ArtefactBytes: 1 << 20, BucketBytes: 1 << 20}); err != nil {
		return err
	}
	var acks []jetstream.PubAckFuture
	settle := func() error {
		for _, a := range acks {
			select {
			case ack := <-a.Ok():
				f.last = ack.Sequence
			case err := <-a.Err():
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		acks = acks[:0]
		return nil
	}
	err = from.Scan(ctx, 0, func(m history.Message) error {
		subject, err := history.Subject(m.Incident)
		if err != nil {
			return err
		}
		a, err := f.js.PublishAsync(subject, m.Data)
		if err != nil {
			return err
		}
		if acks = append(acks, a); len(acks) < 4096 {
			return nil
		}
		return settle()
	})
	if err := errors.Join(err, settle()); err != nil {
		return fmt.Errorf("fill a log: %w", err)
	}
	f.store, err = historystore.New(ctx, historystore.Config{JS: f.js, Logger: slog.New(slog.DiscardHandler), Consumers: true})
	return err
}

func (f *filled) close() {
	if f.js != nil {
		f.js.Conn().Close()
	}
	f.server.Shutdown()
	f.server.WaitForShutdown()
}
