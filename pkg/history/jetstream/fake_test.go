// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/jetstream"
)

// fake answers like a server whose every answer the test chooses. An empty answer is silence.
type fake struct {
	mu       sync.Mutex
	acks     []string // to publishes; the last one stays
	get      string   // to MSG.GET
	publishs int
	headers  nats.Header // of the last publish
	hold     int         // publishes that must be there before the first is answered
	held     []*nats.Msg
}

func (f *fake) published() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.publishs
}

const (
	fakeInfo = `{"config":{"name":"EMERGENCY","subjects":["emergency.*"],"allow_direct":%t},"state":{"last_seq":7}}`
	notFound = `{"error":{"code":404,"err_code":10037,"description":"no message found"}}`
)

func apiError(code int) string {
	return fmt.Sprintf(`{"error":{"code":400,"err_code":%d,"description":"chosen by the test"}}`, code)
}

// newFake runs a plain server whose JetStream is the fake.
func newFake(t *testing.T, f *fake, allowDirect bool) natsjs.JetStream {
	t.Helper()
	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.ReconnectBufSize(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	answer := func(subject string, with func(*nats.Msg) string) {
		_, err := nc.Subscribe(subject, func(m *nats.Msg) {
			if body := with(m); body != "" {
				if err := m.Respond([]byte(body)); err != nil {
					t.Error(err)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	answer("PREFIX.STREAM.INFO.EMERGENCY", func(*nats.Msg) string { return fmt.Sprintf(fakeInfo, allowDirect) })
	answer("PREFIX.STREAM.MSG.GET.EMERGENCY", func(*nats.Msg) string { return f.get })
	answer("emergency.*", func(m *nats.Msg) string {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.publishs++
		f.headers = m.Header
		if f.held = append(f.held, m); f.publishs < f.hold {
			return ""
		}
		ack := f.acks[0]
		for _, earlier := range f.held[:len(f.held)-1] {
			if err := earlier.Respond([]byte(ack)); err != nil && ack != "" {
				t.Error(err)
			}
		}
		f.held = nil
		if len(f.acks) > 1 {
			f.acks = f.acks[1:]
		}
		return ack
	})
	js, err := natsjs.NewWithAPIPrefix(nc, "PREFIX")
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// TestAppendJudgesAnswers goes through the answers that a server can give to an append after sequence 5.
func TestAppendJudgesAnswers(t *testing.T) {
	t.Parallel()
	const tries, good = 3, `{"stream":"EMERGENCY","seq":6}`
	mine := `{"message":{"subject":"emergency.e1","seq":6,"data":"bWluZQ=="}}`
	other := `{"message":{"subject":"emergency.e1","seq":6,"data":"b3RoZXI="}}`
	for name, tc := range map[string]struct {
		acks  []string
		get   string
		want  error
		tries int // 0: not judged
	}{
		"stored":                        {[]string{good}, notFound, nil, 1},
		"acknowledged by another":       {[]string{`{"stream":"OTHER","seq":6}`}, notFound, history.ErrWrongLog, 1},
		"acknowledged an earlier one":   {[]string{`{"stream":"EMERGENCY","seq":5}`}, notFound, history.ErrWrongLog, 1},
		"acknowledged as a duplicate":   {[]string{`{"stream":"EMERGENCY","seq":6,"duplicate":true}`}, notFound, history.ErrWrongLog, 1},
		"stream missing":                {[]string{apiError(10059)}, notFound, history.ErrWrongLog, 1},
		"stream sealed":                 {[]string{apiError(10109)}, notFound, history.ErrWrongLog, 1},
		"stream is another":             {[]string{apiError(10060)}, notFound, history.ErrWrongLog, 1},
		"message exceeds maximum":       {[]string{apiError(10054)}, notFound, history.ErrTooLarge, 1},
		"no room in the stream":         {[]string{`{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}`}, notFound, history.ErrStorageFull, 1},
		"storage failed":                {[]string{apiError(10077)}, notFound, history.ErrUnknownOutcome, tries}, // there, and not at the others
		"storage exceeded":              {[]string{apiError(10047)}, notFound, history.ErrStorageFull, 1},
		"storage failed, was stored":    {[]string{apiError(10077)}, mine, nil, 1},
		"10071, other":                  {[]string{apiError(10071)}, other, history.ErrConflict, 1},
		"10071, mine":                   {[]string{apiError(10071)}, mine, nil, 1},
		"10071, nothing":                {[]string{apiError(10071)}, notFound, history.ErrRolledBack, tries},
		"10164, other":                  {[]string{apiError(10164)}, other, history.ErrConflict, 1},
		"10164, mine":                   {[]string{apiError(10164)}, mine, nil, 1},
		"10164, nothing, then stored":   {[]string{apiError(10164), apiError(10164), good}, notFound, nil, 3},
		"10164, nothing for ever":       {[]string{apiError(10164)}, notFound, history.ErrUnavailable, tries},
		"too many requests, stored":     {[]string{apiError(10167), good}, notFound, nil, 2},
		"silence, mine":                 {[]string{""}, mine, nil, 1},
		"silence, other":                {[]string{""}, other, history.ErrConflict, 1},
		"silence, nothing, then stored": {[]string{"", good}, notFound, nil, 2},
		"silence for ever":              {[]string{""}, notFound, history.ErrUnknownOutcome, tries},
		"silence everywhere":            {[]string{""}, "", history.ErrUnknownOutcome, tries},
		"silence, then storage failed":  {[]string{"", apiError(10077)}, notFound, history.ErrUnknownOutcome, tries},
		"no acknowledgement at all":     {[]string{"OK"}, notFound, history.ErrUnknownOutcome, tries},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{acks: tc.acks, get: tc.get}
			store, err := jetstream.New(t.Context(), jetstream.Config{JS: newFake(t, f, false), Logger: testLog(t),
				Timeout: 100 * time.Millisecond, Tries: tries})
			if err != nil {
				t.Fatal(err)
			}
			sequence, err := store.Append(t.Context(), "e1", 5, []byte("mine"), map[string]string{"traceparent": "x"})
			if !errors.Is(err, tc.want) || (err == nil) != (sequence == 6) {
				t.Errorf("sequence %d, error %v; want %v", sequence, err, tc.want)
			}
			if unknown := errors.Is(err, history.ErrUnknownOutcome); unknown && tc.want != history.ErrUnknownOutcome {
				t.Errorf("the outcome is known, the error is %v", err)
			}
			if got := f.published(); got != tc.tries {
				t.Errorf("published %d times, want %d", got, tc.tries)
			}
			if got := f.headers; got.Get("Nats-Expected-Stream") != "EMERGENCY" || got.Get("Nats-Expected-Last-Subject-Sequence") != "5" ||
				got.Get("Traceparent") == "x" || got.Get("traceparent") != "x" || len(got) != 3 {
				t.Errorf("headers are %v", got)
			}
		})
	}
}

// TestAppendsOverlap: no append is answered before all have been sent.
func TestAppendsOverlap(t *testing.T) {
	t.Parallel()
	const n = 32
	f := &fake{acks: []string{`{"stream":"EMERGENCY","seq":6}`}, hold: n, get: notFound}
	store, err := jetstream.New(t.Context(), jetstream.Config{JS: newFake(t, f, false), Logger: testLog(t), Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			if _, err := store.Append(t.Context(), fmt.Sprintf("e%d", i), 5, []byte("mine"), nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := f.published(); got != n {
		t.Errorf("published %d times, want %d", got, n)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	log := testLog(t)
	_, err := jetstream.New(t.Context(), jetstream.Config{Logger: log})
	wantError(t, err, "JS and Logger are required")
	_, err = jetstream.New(t.Context(), jetstream.Config{JS: newFake(t, &fake{}, true), Logger: log})
	wantError(t, err, "allows direct reads")
	if !errors.Is(err, history.ErrWrongLog) {
		t.Errorf("%v is not ErrWrongLog", err)
	}
	r := newRig(t)
	nc, err := nats.Connect(r.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = jetstream.New(t.Context(), jetstream.Config{JS: js, Logger: log})
	wantError(t, err, "ReconnectBufSize(-1)")
	_, err = jetstream.New(t.Context(), jetstream.Config{JS: js, Logger: log, Tries: -1})
	wantError(t, err, "must not be negative")
}

func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error is %v, want one that says %q", err, text)
	}
}

// TestAnotherServerIsAsked: a server that keeps its connections and brings no answer of the log any more is left for another one: whether it
// is silent, or says that it sees no leader, by an error or by the state of its own copy.
func TestAnotherServerIsAsked(t *testing.T) {
	t.Parallel()
	const away = `{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`
	whole := map[string]string{
		"PREFIX.STREAM.INFO.EMERGENCY":    `{"config":{"name":"EMERGENCY"},"state":{"last_seq":7},"cluster":{"leader":"two"}}`,
		"PREFIX.STREAM.MSG.GET.EMERGENCY": notFound, "emergency.*": `{"stream":"EMERGENCY","seq":6}`,
	}
	for name, cut := range map[string]map[string]string{
		"silent": {},
		"sees no leader": {
			"PREFIX.STREAM.INFO.EMERGENCY":    `{"config":{"name":"EMERGENCY"},"state":{"last_seq":3},"cluster":{"name":"c"}}`,
			"PREFIX.STREAM.MSG.GET.EMERGENCY": away,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var isCut atomic.Bool
			nc, err := nats.Connect(answering(t, "one", func(subject string) string {
				if isCut.Load() {
					return cut[subject]
				}
				return whole[subject]
			})+","+answering(t, "two", func(subject string) string { return whole[subject] }),
				nats.DontRandomize(), nats.ReconnectBufSize(-1), nats.MaxReconnects(-1))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(nc.Close)
			js, err := natsjs.NewWithAPIPrefix(nc, "PREFIX")
			if err != nil {
				t.Fatal(err)
			}
			store, err := jetstream.New(t.Context(), jetstream.Config{JS: js, Logger: testLog(t), Timeout: 50 * time.Millisecond, Silence: 100 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if last, err := store.LastSequence(t.Context()); err != nil || last != 7 || nc.ConnectedServerName() != "one" {
				t.Fatalf("%d by %s: %v", last, nc.ConnectedServerName(), err)
			}
			isCut.Store(true)
			for last := uint64(0); last == 0; {
				last, err = store.LastSequence(t.Context())
				if err != nil && !errors.Is(err, history.ErrUnavailable) || err == nil && last != 7 {
					t.Fatalf("%d (%v)", last, err)
				}
			}
			if _, err := store.Append(t.Context(), "e1", 5, []byte("mine"), nil); err != nil || nc.ConnectedServerName() != "two" {
				t.Errorf("by %s: %v", nc.ConnectedServerName(), err)
			}
		})
	}
}

// answering is a server at which somebody answers; what is empty is not answered. It returns its address.
func answering(t *testing.T, name string, body func(subject string) string) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{ServerName: name, Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	for _, subject := range []string{"PREFIX.STREAM.INFO.EMERGENCY", "PREFIX.STREAM.MSG.GET.EMERGENCY", "emergency.*"} {
		_, err := nc.Subscribe(subject, func(m *nats.Msg) {
			if body := body(subject); body != "" {
				if err := m.Respond([]byte(body)); err != nil {
					t.Error(err)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return s.ClientURL()
}
