// SPDX-License-Identifier: Apache-2.0

package notification_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	artefacts "cacert.org/emergency/pkg/artefacts/memory"
	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/effect"
	ledger "cacert.org/emergency/pkg/effect/memory"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/service"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/notification"
	"cacert.org/emergency/services/notification/channel"
)

const incident = "e20261124.1"

// way is a channel in the hand of a test: it keeps what it was given and answers as it is told to.
type way struct {
	name   string
	answer func(context.Context, channel.Page) channel.Receipt

	mu   sync.Mutex
	got  []channel.Page
	news chan struct{}
}

func newWay(name string, answer func(context.Context, channel.Page) channel.Receipt) *way {
	return &way{name: name, answer: answer, news: make(chan struct{})}
}

func (w *way) Name() string { return w.name }

func (w *way) Send(ctx context.Context, p channel.Page) channel.Receipt {
	w.mu.Lock()
	w.got = append(w.got, p)
	close(w.news)
	w.news = make(chan struct{})
	w.mu.Unlock()
	return w.answer(ctx, p)
}

func takes(context.Context, channel.Page) channel.Receipt {
	return channel.Receipt{State: channel.Sent}
}

func refuses(context.Context, channel.Page) channel.Receipt {
	return channel.Receipt{State: channel.Failed, Detail: "550 no such user"}
}

func hangs(ctx context.Context, _ channel.Page) channel.Receipt {
	<-ctx.Done()
	return channel.Receipt{State: channel.Unknown, Detail: "no answer"}
}

// pages are what it was given, by what a person sees of it.
func (w *way) pages(fits func(channel.Page) bool) []channel.Page {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.got), func(p channel.Page) bool { return !fits(p) })
}

// await waits until as many fitting pages came.
func (w *way) await(t *testing.T, n int, fits func(channel.Page) bool) []channel.Page {
	t.Helper()
	for {
		w.mu.Lock()
		news := w.news
		w.mu.Unlock()
		if got := w.pages(fits); len(got) >= n {
			return got
		}
		select {
		case <-news:
		case <-t.Context().Done():
			t.Fatalf("%s: %d fitting messages, want %d", w.name, len(w.pages(fits)), n)
		}
	}
}

func urgent(p channel.Page) bool { return p.Urgent }

// about are messages whose headline says something.
func about(what string) func(channel.Page) bool {
	return func(p channel.Page) bool { return !p.Urgent && strings.Contains(p.Headline, what) }
}

// rig is the notification service with its clock, its channels and the other owners' dispatchers in the test's hand.
type rig struct {
	*dispatchtest.Rig
	t         *testing.T
	ledger    effect.Ledger
	ways      []*way
	server    *notification.Server
	incidents *projection.Incidents
	reader    *projection.Runner
	stop      func()
}

// newRig founds the rule book with contacts whose addresses are in the vault, and starts nothing.
func newRig(t *testing.T, ways ...*way) *rig {
	t.Helper()
	x := &rig{Rig: dispatchtest.Memory(t), t: t, ledger: ledger.New(), ways: ways}
	d := x.Dispatcher(procedure.OwnerNotification)
	for _, p := range proceduretest.People() {
		if len(p.Roles) == 0 {
			continue
		}
		var contacts []*emergencyv1.Contact
		for _, w := range ways {
			contacts = append(contacts, &emergencyv1.Contact{Channel: w.name, Address: p.Name + "@" + w.name})
		}
		x.must(x.Do(d, procedure.RuleBook, p.Name, &emergencyv1.SetContactsRequest{Person: p.Name, Contacts: contacts}))
	}
	return x
}

func (x *rig) must(_ *emergencyv1.Committed, err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// start runs the service on what is there; it may be stopped and started again.
func (x *rig) start() {
	x.t.Helper()
	x.incidents = projection.NewIncidents()
	var err error
	x.reader, err = projection.New(projection.Config{Store: x.Store, Keys: x.Keys.Ring, Log: x.Log, Projections: []projection.Projection{x.incidents}})
	if err != nil {
		x.t.Fatal(err)
	}
	if err := x.reader.CatchUp(x.t.Context()); err != nil {
		x.t.Fatal(err)
	}
	cfg := notification.Config{Link: "https://emergency.example/r/", LinkKey: []byte("0123456789abcdef")}
	for _, w := range x.ways {
		cfg.Channels = append(cfg.Channels, w)
	}
	x.server, err = notification.New(service.Deps{
		Owner: procedure.OwnerNotification, Instance: "test", Clock: x.Clock, Log: x.Log, Store: x.Store, Keys: x.Keys.Ring, Signer: x.Keys.Signer(x.t, procedure.OwnerNotification),
		Artefacts: artefacts.New(0), Vault: x.Vaults[procedure.OwnerNotification], Ledger: x.ledger, Incidents: x.incidents, Reader: x.reader,
	}, cfg)
	if err != nil {
		x.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(x.t.Context())
	var group sync.WaitGroup
	for _, run := range []func(context.Context) error{x.reader.Run, x.server.Run} {
		group.Go(func() {
			if err := run(ctx); err != nil {
				x.t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	x.stop = sync.OnceFunc(func() {
		cancel()
		for running := true; running; { // a channel that hangs is given its time to drain, on this clock
			x.Clock.Advance(time.Second)
			select {
			case <-done:
				running = false
			case <-time.After(time.Millisecond):
			}
		}
	})
	x.t.Cleanup(x.stop)
}

// until waits until the incident is as wanted.
func (x *rig) until(what string, wanted func(*procedure.State) bool) {
	x.t.Helper()
	for {
		changed, ok := x.reader.Changed(), false
		x.incidents.View(incident, func(s *procedure.State) { ok = wanted(s) })
		if ok {
			return
		}
		select {
		case <-changed:
		case <-x.t.Context().Done():
			x.t.Fatalf("never: %s", what)
		}
	}
}

func (x *rig) declare(who string) {
	x.t.Helper()
	c := proceduretest.Declare()
	c.Meta = &emergencyv1.CommandMeta{RequestId: x.RequestID()}
	x.must(x.Dispatcher(procedure.OwnerIncident).Declare(x.t.Context(), c, dispatch.Input{Actor: proceduretest.Actor(who)}, projection.NewIncidents()))
}

// reported are the deliveries as the history has them, page by page; "-" for a page of which nothing is known yet.
func (x *rig) reported() map[string]string {
	list := map[string]string{}
	for _, p := range x.State(incident).Pages {
		list[p.Person+" "+p.Channel+" "+fmt.Sprint(p.Round)] = strings.ToLower(strings.TrimPrefix(p.State.String(), "DELIVERY_STATE_"))
	}
	return list
}

// allReported tells whether every page on a channel has a state.
func allReported(name string) func(*procedure.State) bool {
	return func(s *procedure.State) bool {
		n := 0
		for _, p := range s.Pages {
			if p.Channel == name {
				n++
				if p.State == emergencyv1.DeliveryState_DELIVERY_STATE_UNSPECIFIED {
					return false
				}
			}
		}
		return n > 0
	}
}

// Do gives a command as a client does: again, if others wrote to the incident each time it was decided. The service reports every
// page meanwhile.
func (x *rig) Do(d *dispatch.Dispatcher, incident, who string, c procedure.Command) (*emergencyv1.Committed, error) {
	x.t.Helper()
	for {
		done, err := x.Rig.Do(d, incident, who, c)
		var no *procedure.Refusal
		if !errors.As(err, &no) || !no.Passing() || x.t.Context().Err() != nil {
			return done, err
		}
	}
}
