// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/natsd"
)

const incident = "e20261124.1"

// TestRestartWhileWritingAndFollowing restarts the server again and again under writers and a follower. Writers repeat
// the same bytes until they know; nothing may be lost, doubled or out of order.
func TestRestartWhileWritingAndFollowing(t *testing.T) {
	t.Parallel()
	for name, by := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			keys := historytest.NewKeys(t, "services")
			store := openStore(t, r.proxy.url(), by)
			const writers, each = 4, 30
			followed := make(chan history.Message, writers*each)
			done := make(chan error, 1)
			go func() {
				done <- store.Follow(t.Context(), history.Mark{}, func(m history.Message) error {
					followed <- m
					if len(followed) == writers*each {
						return errDone
					}
					return nil
				})
			}()
			progress := make(chan struct{}, writers*each)
			var group sync.WaitGroup
			for i := range writers {
				group.Go(func() { writeThrough(t, store, keys, i, each, progress) })
			}
			for range 3 {
				for range writers * each / 4 {
					<-progress
				}
				r.during(t, func() {}, r.start)
			}
			group.Wait()
			if err := <-done; err != errDone {
				t.Fatalf("follow ended with %v", err)
			}
			var seen []history.Message
			for range writers * each {
				seen = append(seen, <-followed)
			}
			if err := historytest.CheckIndependently(seen, keys.Public()); err != nil {
				t.Error(err)
			}
			for i, m := range seen {
				if m.Sequence != uint64(i+1) {
					t.Fatalf("message %d has sequence %d", i+1, m.Sequence)
				}
			}
			report, err := history.Verify(t.Context(), store, keys.Ring)
			if err != nil || !report.Clean() || report.Records != writers*each {
				t.Errorf("report %+v, error %v", report, err)
			}
		})
	}
}

var errDone = errors.New("done")

// writeThrough appends n records, whatever it takes. Two writers share an incident; their bytes differ, since equal ones
// would be one record.
func writeThrough(t *testing.T, store history.Store, keys *historytest.Keys, writer, n int, progress chan<- struct{}) {
	incident := fmt.Sprintf("e20261124.%d", writer/2)
	var reading *history.Reading
	for done := 0; done < n && !t.Failed(); {
		if reading == nil {
			r, err := history.Read(t.Context(), store, keys.Ring, incident)
			if errors.Is(err, history.ErrUnavailable) {
				continue
			} else if err != nil {
				t.Error(err)
				return
			}
			reading = r
		}
		signed := keys.Seal(t, historytest.Record(t, incident, "incident", reading.Chain.Head(), 1, fmt.Sprintf("%d of %d", done, writer)))
		_, err := store.Append(t.Context(), incident, reading.Last, signed, nil)
		for errors.Is(err, history.ErrUnavailable) || errors.Is(err, history.ErrUnknownOutcome) {
			_, err = store.Append(t.Context(), incident, reading.Last, signed, nil)
		}
		if err != nil && !errors.Is(err, history.ErrConflict) {
			t.Error(err)
			return
		}
		if err == nil {
			done++
			progress <- struct{}{}
		}
		reading = nil
	}
}

// TestHostileHeaders stores messages whose headers do not parse, or look like orders to a client. They are messages
// like any others: read, judged foreign, in nobody's way.
func TestHostileHeaders(t *testing.T) {
	t.Parallel()
	headers := []string{
		"NATS/1.0 409 Consumer Deleted\r\n\r\n",
		"NATS/1.0\r\nStatus: 404\r\nDescription: No Messages\r\n\r\n",
		"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
		"NATS/1.0\r\nno colon\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\n",
		"NATS/1.0 4\r\n\r\n",
	}
	for name, by := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			keys := historytest.NewKeys(t, "services")
			store := openStore(t, r.proxy.url(), func(c *jetstream.Config) {
				by(c)
				c.Timeout = 200 * time.Millisecond
			})
			w := keys.NewWriter(t, store, incident, "incident")
			w.MustAppend(t, 2)
			for _, header := range headers {
				rawPublish(t, r, "emergency.e20261124-1", header)
				if err := w.Continue(t.Context(), store); err != nil {
					t.Fatal(err)
				}
				w.MustAppend(t, 1)
			}
			rawPublish(t, r, "emergency.e20261124-1", headers[0]) // last, so that a reader who misses it has nothing to go by
			var scanned []uint64
			err := store.Scan(t.Context(), 0, func(m history.Message) error { scanned = append(scanned, m.Sequence); return nil })
			if want := 2 + 2*len(headers) + 1; err != nil || len(scanned) != want {
				t.Errorf("scanned %v (%v), want %d messages", scanned, err, want)
			}
			reading, err := history.Read(t.Context(), store, keys.Ring, incident)
			if err != nil || len(reading.Entries) != 2+len(headers) || len(reading.Foreign) != len(headers)+1 {
				t.Errorf("%d records and %d foreign (%v)", len(reading.Entries), len(reading.Foreign), err)
			}
			w = keys.NewWriter(t, store, incident, "incident")
			w.MustAppend(t, 1)
			followed := 0
			err = store.Follow(t.Context(), history.Mark{}, func(m history.Message) error {
				if followed++; m.Sequence == w.Last {
					return errDone
				}
				return nil
			})
			if err != errDone || followed != int(w.Last) {
				t.Errorf("followed %d messages of %d: %v", followed, w.Last, err)
			}
		})
	}
}

// rawPublish speaks the protocol itself: no client library would send these headers. It waits for the stream's own
// acknowledgement: the server answers a PING before the stream has stored what came ahead of it.
func rawPublish(t *testing.T, r *rig, subject, header string) {
	t.Helper()
	conn, err := net.Dial("tcp", r.target())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB stored 1\r\nHPUB %s stored %d %d\r\n%s\r\n",
		subject, len(header), len(header), header)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), `{"stream":`) {
			return
		}
		if strings.HasPrefix(lines.Text(), "-ERR") || strings.HasPrefix(lines.Text(), `{"error":`) {
			t.Fatal(lines.Text())
		}
	}
	t.Fatal("the server closed the connection")
}

func TestStorageFull(t *testing.T) {
	t.Parallel()
	r := &rig{dir: t.TempDir()}
	r.start(t)
	t.Cleanup(func() { r.stop() })
	if err := natsd.Provision(t.Context(), connect(t, r.url), natsd.Profile{Replicas: 1, MaxBytes: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	keys := historytest.NewKeys(t, "services")
	store := openStore(t, r.url, nil)
	w := keys.NewWriter(t, store, incident, "incident")
	w.MustAppend(t, 1)
	rec := historytest.Record(t, incident, "incident", w.Chain.Head(), 1, "large")
	rec.Authority = strings.Repeat("x", 64<<10)
	if _, err := w.Append(t.Context(), keys.Seal(t, rec)); !errors.Is(err, history.ErrStorageFull) {
		t.Errorf("error is %v, want ErrStorageFull", err)
	}
	w.MustAppend(t, 1)
}

func TestStreamDeleted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := historytest.NewKeys(t, "services")
	store := openStore(t, r.url, nil)
	w := keys.NewWriter(t, store, incident, "incident")
	w.MustAppend(t, 1)
	if err := connect(t, r.url).DeleteStream(t.Context(), jetstream.Stream); err != nil {
		t.Fatal(err)
	}
	_, err := store.Load(t.Context(), incident, 0)
	if !errors.Is(err, history.ErrWrongLog) {
		t.Errorf("load: %v, want ErrWrongLog", err)
	}
	err = store.Follow(t.Context(), history.Mark{}, func(history.Message) error { return nil })
	if !errors.Is(err, history.ErrWrongLog) {
		t.Errorf("follow: %v, want ErrWrongLog", err)
	}
	if _, err := w.Append(t.Context(), w.Next(t, "x")); !errors.Is(err, history.ErrUnavailable) {
		t.Errorf("append: %v, want ErrUnavailable: nobody is there to take it", err)
	}
	_, err = jetstream.New(t.Context(), jetstream.Config{JS: connect(t, r.url), Logger: testLog(t)})
	if !errors.Is(err, history.ErrWrongLog) {
		t.Errorf("open: %v, want ErrWrongLog", err)
	}
}

// TestConnectionClosed: an embedded server takes its connections with it.
func TestConnectionClosed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := historytest.NewKeys(t, "services")
	js := connect(t, r.url)
	store, err := jetstream.New(t.Context(), jetstream.Config{JS: js, Logger: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	w := keys.NewWriter(t, store, incident, "incident")
	js.Conn().Close()
	if _, err := store.Append(t.Context(), incident, 0, w.Next(t, "x"), nil); !errors.Is(err, history.ErrUnavailable) {
		t.Errorf("append: %v, want ErrUnavailable", err)
	}
	if _, err := store.Incidents(t.Context()); !errors.Is(err, history.ErrUnavailable) {
		t.Errorf("incidents: %v, want ErrUnavailable", err)
	}
	err = store.Follow(t.Context(), history.Mark{}, func(history.Message) error { return nil })
	if !errors.Is(err, history.ErrUnavailable) {
		t.Errorf("follow: %v, want ErrUnavailable", err)
	}
}

// TestLongRead reads more than one window of the stream.
func TestLongRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	js := connect(t, r.url)
	const n = 2500
	for range n {
		if _, err := js.PublishAsync("emergency.e20261124-1", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	for name, by := range ways() {
		store := openStore(t, r.url, by)
		next := uint64(1)
		inOrder := func(m history.Message) error {
			if m.Sequence != next {
				return fmt.Errorf("sequence %d, want %d", m.Sequence, next)
			}
			if next++; next > n {
				return errDone
			}
			return nil
		}
		if err := store.Scan(t.Context(), 0, inOrder); err != errDone {
			t.Errorf("%s: scan: %v", name, err)
		}
		next = 1
		if err := store.Follow(t.Context(), history.Mark{}, inOrder); err != errDone {
			t.Errorf("%s: follow: %v", name, err)
		}
		messages, err := store.Load(t.Context(), incident, 0)
		if err != nil || len(messages) != n || messages[n-1].Sequence != n {
			t.Errorf("%s: loaded %d (%v)", name, len(messages), err)
		}
	}
}

// TestReadersAreShared: two stores follow by the one consumer that there is, and somebody with the same rights moves it about and takes what it
// delivers. Each store still delivers every message once and in order: by the consumer while it serves, else by questions.
func TestReadersAreShared(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := historytest.NewKeys(t, "services")
	name := natsd.Consumers("incident")[0]
	const records = 200
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	thief := connect(t, r.url)
	group.Go(func() {
		for ctx.Err() == nil {
			if _, err := thief.ResetConsumerToSequence(ctx, natsd.Stream, name, 1); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			c, err := thief.Consumer(ctx, natsd.Stream, name)
			if err != nil {
				continue // the test is over
			}
			batch, err := c.FetchNoWait(3)
			if err != nil {
				continue
			}
			for range batch.Messages() { // taken, and told to nobody
			}
		}
	})
	var followers sync.WaitGroup
	for range 2 {
		store := openStore(t, r.url, func(c *jetstream.Config) { c.Readers = []string{name} })
		followers.Go(func() {
			var next uint64 = 1
			err := store.Follow(ctx, history.Mark{}, func(m history.Message) error {
				if m.Sequence != next {
					t.Errorf("message %d was delivered, want %d", m.Sequence, next)
				}
				if next++; m.Sequence == records {
					return errDone
				}
				return nil
			})
			if err != errDone {
				t.Errorf("follow ended with %v before message %d", err, next)
			}
		})
	}
	keys.NewWriter(t, openStore(t, r.url, nil), incident, "incident").MustAppend(t, records)
	followers.Wait()
	stop()
	group.Wait()
}
