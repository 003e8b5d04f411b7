// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/natsd"
)

const (
	// pagesOpen is how many pages the delivery is measured in, pagesMany how many are open at once when nothing may be dropped.
	pagesOpen, pagesMany = 50, 500
	// pageNotes is how many events are delivered for each of Options.Rounds, manyNotes how many to the many pages.
	pageNotes, manyNotes = 10, 20
	// pagePatience is when a page that shows nothing counts as hung.
	pagePatience = 2 * time.Minute
)

// pages measures how long after a command an open page has what shows its event, against a plain consumer of the stream, both in this
// process and by its clock; then what many open pages cost, against as many bare streams over the same TLS. A live message carries the
// new page itself, so nothing is fetched after it.
func pages(ctx context.Context, r *rig, opt Options) ([]Figure, error) {
	if err := r.declare(ctx, 1); err != nil {
		return nil, err
	}
	b, err := r.browsers(ctx)
	if err != nil {
		return nil, err
	}
	list, err := r.delivery(ctx, b, pageNotes*opt.Rounds)
	if err != nil {
		return nil, fmt.Errorf("%d pages: %w", pagesOpen, err)
	}
	many, err := r.many(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("%d pages: %w", pagesMany, err)
	}
	return append(list, many...), nil
}

// delivery measures a number of notes, one after the other.
func (r *rig) delivery(ctx context.Context, b *browsers, notes int) ([]Figure, error) {
	id := r.incidents[0]
	open, err := b.open(ctx, pagesOpen, id)
	if err != nil {
		return nil, err
	}
	defer open.close()
	subject, err := history.Subject(id)
	if err != nil {
		return nil, err
	}
	raw, err := r.node.JetStream().OrderedConsumer(ctx, natsd.Stream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}, DeliverPolicy: jetstream.DeliverNewPolicy})
	if err != nil {
		return nil, err
	}
	arrived := make(chan time.Time, notes)
	running, err := raw.Consume(func(jetstream.Msg) { arrived <- time.Now() })
	if err != nil {
		return nil, err
	}
	defer running.Stop()
	var shown, delivered, later, acked []time.Duration
	for range notes {
		position, sent, ack, err := r.timedNote(ctx, id)
		if err != nil {
			return nil, err
		}
		times, err := open.reach(ctx, position)
		if err != nil {
			return nil, err
		}
		var at time.Time
		select {
		case at = <-arrived:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		delivered = append(delivered, at.Sub(sent))
		for _, t := range times {
			shown, later, acked = append(shown, t.Sub(sent)), append(later, t.Sub(at)), append(acked, t.Sub(ack))
		}
	}
	name := fmt.Sprintf("event in %d open pages", pagesOpen)
	list := quantiles(name+" against the raw stream, since the command was sent", shown, delivered)
	list = append(list, quantiles(name+", after the raw delivery", later, nil)...)
	return append(list, quantiles(name+", after the append's acknowledgement", acked, nil)...), nil
}

// timedNote adds a note and returns its position, when it was sent and when it was acknowledged.
func (r *rig) timedNote(ctx context.Context, id string) (position uint64, sent, ack time.Time, err error) {
	sent = time.Now()
	if err = r.note(ctx, id); err != nil {
		return 0, sent, sent, err
	}
	ack = time.Now()
	reading, err := history.Read(ctx, r.store, r.keys, id)
	if err != nil {
		return 0, sent, ack, err
	}
	return reading.Chain.Head().Position, sent, ack, nil
}

// many opens many pages, gives commands as fast as they go, and has every page reach the last position.
func (r *rig) many(ctx context.Context, b *browsers) ([]Figure, error) {
	id := r.incidents[0]
	bare, err := b.bare(ctx, pagesMany)
	if err != nil {
		return nil, err
	}
	before := costNow()
	open, err := b.open(ctx, pagesMany, id)
	if err != nil {
		return nil, err
	}
	defer open.close()
	cost := costNow().since(before, pagesMany)
	begun := time.Now()
	var last uint64
	for range manyNotes {
		if last, _, _, err = r.timedNote(ctx, id); err != nil {
			return nil, err
		}
	}
	commands := time.Since(begun)
	times, err := open.reach(ctx, last)
	if err != nil {
		return nil, err
	}
	slowest := slices.MaxFunc(times, time.Time.Compare).Sub(begun)
	after := costNow().since(before, pagesMany)
	name := fmt.Sprintf("%d open pages", pagesMany)
	return []Figure{
		figure(name+", that reached the last position", "pages", float64(len(times)), pagesMany),
		figure(fmt.Sprintf("%s, until all show the last of %d commands against the commands alone", name, manyNotes), "ms", ms(slowest), ms(commands)),
		figure(name+", heap in use against a bare stream", "KiB/page", cost.heap, bare.heap),
		figure(name+", heap in use after the commands", "KiB/page", after.heap, bare.heap),
		figure(name+", resident memory", "KiB/page", cost.resident, bare.resident),
		figure(name+", resident memory after the commands", "KiB/page", after.resident, bare.resident),
		figure(name+", goroutines of both ends", "1/page", cost.goroutines, bare.goroutines),
	}, nil
}

// quantiles are the median, the 90th and 99th of a hundred, and the most.
func quantiles(name string, values, baselines []time.Duration) []Figure {
	var list []Figure
	slices.Sort(values)
	slices.Sort(baselines)
	at := func(v []time.Duration, q int) float64 {
		if len(v) == 0 {
			return 0
		}
		return ms(v[min(len(v)*q/100, len(v)-1)])
	}
	for _, q := range []struct {
		name string
		of   int
	}{{"median", 50}, {"p90", 90}, {"p99", 99}, {"max", 100}} {
		list = append(list, figure(name+", "+q.name, "ms", at(values, q.of), at(baselines, q.of)))
	}
	return list
}

// cost is what the process uses.
type cost struct{ heap, resident, goroutines float64 }

func costNow() cost {
	runtime.GC()
	runtime.GC() // what has a finalizer goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return cost{float64(m.HeapInuse) / 1024, resident(), float64(runtime.NumGoroutine())}
}

// resident is the process's resident memory in KiB, 0 where the system does not say.
func resident() float64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	n, err := strconv.ParseFloat(f[1], 64)
	if err != nil {
		return 0
	}
	return n * float64(os.Getpagesize()) / 1024
}

func (c cost) since(before cost, pages float64) cost {
	return cost{(c.heap - before.heap) / pages, (c.resident - before.resident) / pages, (c.goroutines - before.goroutines) / pages}
}

// browsers make connections to the pages as one person's browsers do, each its own.
type browsers struct {
	base    string
	tls     *tls.Config
	session *http.Cookie
}

func (r *rig) browsers(ctx context.Context) (*browsers, error) {
	dir := filepath.Join(r.dir, "system", "people", "carla")
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	b := &browsers{base: "https://" + r.https, tls: &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.base+"/sign-in", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Origin", b.base)
	c := b.client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read enough
	if len(resp.Cookies()) != 1 {
		return nil, fmt.Errorf("sign in: %s", resp.Status)
	}
	b.session = resp.Cookies()[0]
	return b, nil
}

func (b *browsers) client() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: b.tls.Clone(), ForceAttemptHTTP2: true}}
}

// opened are pages that are open.
type opened struct {
	stop  context.CancelFunc
	group sync.WaitGroup
	pages []*openPage
}

// openPage is one page's stream. What it says of the incident's position is kept with the time.
type openPage struct {
	mu      sync.Mutex
	reached []arrival
	ended   error
	news    chan struct{} // has room for one: something is new
}

type arrival struct {
	position uint64
	at       time.Time
}

// open opens pages, two in three the incident, the others home, and waits until each shows something.
func (b *browsers) open(ctx context.Context, n int, id string) (*opened, error) {
	at := regexp.MustCompile(`As of position ([0-9]+) of ` + regexp.QuoteMeta(id))
	return b.connect(ctx, n, func(i int) string {
		if i%3 == 2 {
			return b.base + "/home?live=1"
		}
		return b.base + "/incidents/" + id + "?live=1"
	}, at)
}

func (b *browsers) connect(ctx context.Context, n int, address func(int) string, at *regexp.Regexp) (*opened, error) {
	ctx, stop := context.WithCancel(ctx)
	o := &opened{stop: stop}
	for i := range n {
		p := &openPage{news: make(chan struct{}, 1)}
		o.pages = append(o.pages, p)
		o.group.Go(func() { p.end(p.follow(ctx, b, address(i), at)) })
		if i%20 == 19 { // a person does not open all at once
			if _, err := o.reach(ctx, 1); err != nil {
				o.close()
				return nil, err
			}
		}
	}
	if _, err := o.reach(ctx, 1); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *opened) close() {
	o.stop()
	o.group.Wait()
}

// reach waits until every page has shown a position, and returns when each first did. A page whose stream has ended is an error.
func (o *opened) reach(ctx context.Context, position uint64) ([]time.Time, error) {
	ctx, stop := context.WithTimeout(ctx, pagePatience)
	defer stop()
	var times []time.Time
	for i, p := range o.pages {
		t, err := p.reach(ctx, position)
		if err != nil {
			return nil, fmt.Errorf("page %d of %d at position %d: %w", i+1, len(o.pages), position, err)
		}
		times = append(times, t)
	}
	return times, nil
}

func (p *openPage) reach(ctx context.Context, position uint64) (time.Time, error) {
	for {
		p.mu.Lock()
		i := slices.IndexFunc(p.reached, func(a arrival) bool { return a.position >= position })
		var at time.Time
		if i >= 0 {
			at, p.reached = p.reached[i].at, p.reached[i:]
		}
		ended := p.ended
		p.mu.Unlock()
		switch {
		case ended != nil:
			return at, ended
		case i >= 0:
			return at, nil
		}
		select {
		case <-p.news:
		case <-ctx.Done():
			return at, ctx.Err()
		}
	}
}

func (p *openPage) tell() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

func (p *openPage) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = cmp.Or(err, errors.New("the server ended the stream"))
	p.tell()
}

// follow reads a page's stream to its end. A message counts when its last byte is here.
func (p *openPage) follow(ctx context.Context, b *browsers, address string, at *regexp.Regexp) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.AddCookie(b.session)
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Accept-Language", "en")
	c := b.client()
	defer c.CloseIdleConnections()
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // told to stop
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", address, resp.Status)
	}
	in := bufio.NewReader(resp.Body)
	var position uint64
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			err = nil // what is looked for is in a short line
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if m := at.FindSubmatch(line); m != nil {
			if position, err = strconv.ParseUint(string(m[1]), 10, 64); err != nil {
				return err
			}
		}
		if len(bytes.TrimSpace(line)) == 0 && position > 0 {
			p.mu.Lock()
			p.reached = append(p.reached, arrival{position, time.Now()})
			p.mu.Unlock()
			p.tell()
			position = 0
		}
	}
}

// bare is what as many streams cost that a bare server holds open over the same TLS, both ends of them.
func (b *browsers) bare(ctx context.Context, n int) (cost, error) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, "data: As of position 1\n\n") // a client that is gone is told by the context
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	other := &browsers{base: srv.URL, session: b.session, tls: b.tls.Clone()}
	other.tls.RootCAs, other.tls.ServerName = x509.NewCertPool(), "example.com"
	other.tls.RootCAs.AddCert(srv.Certificate())
	before := costNow()
	open, err := other.connect(ctx, n, func(int) string { return srv.URL }, regexp.MustCompile(`As of position ([0-9]+)`))
	if err != nil {
		return cost{}, err
	}
	defer open.close()
	return costNow().since(before, float64(n)), nil
}
