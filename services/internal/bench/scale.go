// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/projection/archive"
	"cacert.org/emergency/pkg/projection/operators"
	"cacert.org/emergency/pkg/projection/postgres"
	"cacert.org/emergency/pkg/projection/postgres/local"
	"cacert.org/emergency/pkg/timer"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	"cacert.org/emergency/services/dashboard"
	"cacert.org/emergency/services/dashboard/view"
)

// Records of an incident in the filled log, and of the small log that the large one is compared with.
const (
	recordsEach = 100
	smallLog    = 10_000
)

// lengths compares deciding, sealing and recording a command on long incidents with the same on short ones, in memory, where nothing waits
// for a disk. Each incident gets few commands, so that the short ones stay short.
func lengths(ctx context.Context, r *rig, opt Options) ([]Figure, error) {
	g, err := newGenerated(ctx, filepath.Join(r.dir, "lengths"))
	if err != nil {
		return nil, err
	}
	const each, incidents = 10, 60
	var figures []Figure
	took := map[int][]float64{}
	sizes := []int{10, 1000, 5000}
	for range opt.Rounds {
		for _, size := range sizes {
			ids, err := g.grow(ctx, incidents*10/max(10, size/100), size, false)
			if err != nil {
				return nil, err
			}
			runtime.GC()
			begun := time.Now()
			for range each {
				for _, id := range ids {
					if err := g.note(ctx, id); err != nil {
						return nil, err
					}
				}
			}
			took[size] = append(took[size], float64(time.Since(begun).Microseconds())/float64(each*len(ids)))
		}
	}
	for _, size := range sizes[1:] {
		figures = append(figures, ranged(fmt.Sprintf("a command on an incident of %d events against one of %d, without the log", size, sizes[0]), "us", took[size], took[sizes[0]]))
	}
	return figures, nil
}

// scale fills a log with many records and compares what is read from it.
func scale(ctx context.Context, r *rig, opt Options) ([]Figure, error) {
	g, err := newGenerated(ctx, filepath.Join(r.dir, "scale"))
	if err != nil {
		return nil, err
	}
	short, err := g.grow(ctx, 8, 30, false)
	if err != nil {
		return nil, err
	}
	if _, err := g.grow(ctx, smallLog/recordsEach, recordsEach, true); err != nil {
		return nil, err
	}
	small, err := g.fill(ctx, filepath.Join(r.dir, "scale", "small"))
	if err != nil {
		return nil, err
	}
	defer small.close()
	if _, err := g.grow(ctx, max(0, opt.Records-smallLog)/recordsEach, recordsEach, true); err != nil {
		return nil, err
	}
	large, err := g.fill(ctx, filepath.Join(r.dir, "scale", "large"))
	if err != nil {
		return nil, err
	}
	defer large.close()
	g.store, g.dispatch = nil, nil // what is in memory from here on is what a reader keeps
	var figures []Figure
	for _, measure := range []func(context.Context, *generated, *filled, *filled, []string, Options) ([]Figure, error){coldLoads, readModels, rebuildParts, tables} {
		f, err := measure(ctx, g, small, large, short, opt)
		if err != nil {
			return nil, err
		}
		figures = append(figures, f...)
	}
	return figures, nil
}

// coldLoads compares reading and folding an incident of 30 records in the large log and in the small one.
func coldLoads(ctx context.Context, g *generated, small, large *filled, ids []string, opt Options) ([]Figure, error) {
	load := func(f *filled) func(context.Context, int) error {
		n := 0
		return func(ctx context.Context, _ int) error {
			n++
			id := ids[n%len(ids)]
			keys, err := history.NewKeyring(g.keys.Keys()...) // one that remembers no signature
			if err != nil {
				return err
			}
			reading, err := history.Read(ctx, f.store, keys, id)
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
	}
	in, out, err := sideBySide(ctx, opt, 1, load(large), load(small))
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("cold load of an incident of 30 records in a log of %d against one of %d", large.last, small.last)
	return []Figure{figure(name, "ms", 1000/in.perSecond, 1000/out.perSecond)}, nil
}

// readModels folds the large log into all that a dashboard keeps, and asks it.
func readModels(ctx context.Context, g *generated, _, large *filled, ids []string, opt Options) ([]Figure, error) {
	read := func(ctx context.Context, _ int) error { return consume(ctx, large.js, natsd.Subjects, large.last) }
	n := float64(large.last)
	known, err := history.OpenVerified(filepath.Join(large.dir, "verified"))
	if err != nil {
		return nil, err
	}
	catchUp := func(ctx context.Context, keys *history.Keyring, projections ...projection.Projection) (*projection.Runner, error) {
		runner, err := projection.New(projection.Config{Store: large.store, Keys: keys, Log: slog.New(slog.DiscardHandler), Projections: projections, Verified: known})
		if err != nil {
			return nil, err
		}
		return runner, runner.CatchUp(ctx)
	}
	var desk *dashboard.Server
	var runner *projection.Runner
	start := func(ctx context.Context, _ int) error {
		keys, err := history.NewKeyring(g.keys.Keys()...) // one that remembers no signature
		if err != nil {
			return err
		}
		incidents := projection.NewIncidents()
		if desk, err = dashboard.New(dashboard.Config{Clock: timer.System{}, Log: slog.New(slog.DiscardHandler), Store: large.store, Keys: keys, Incidents: incidents}); err != nil {
			return err
		}
		runner, err = catchUp(ctx, keys, append([]projection.Projection{incidents}, desk.Projections()...)...)
		return err
	}
	alone := func(ctx context.Context, _ int) error {
		keys, err := history.NewKeyring(g.keys.Keys()...)
		if err != nil {
			return err
		}
		_, err = catchUp(ctx, keys, projection.NewIncidents())
		return err
	}
	before := heap()
	begun := time.Now()
	if err := start(ctx, 0); err != nil {
		return nil, err
	}
	first := n / time.Since(begun).Seconds()
	kept := float64(heap()-before) / n
	again, raw, err := sideBySide(ctx, Options{Slice: opt.Slice, Rounds: opt.Rounds}, 1, start, read)
	if err != nil {
		return nil, err
	}
	service, rawAgain, err := sideBySide(ctx, Options{Slice: opt.Slice, Rounds: opt.Rounds}, 1, alone, read)
	if err != nil {
		return nil, err
	}
	scan, rawScan, err := sideBySide(ctx, Options{Slice: opt.Slice, Rounds: opt.Rounds}, 1, func(ctx context.Context, _ int) error {
		return large.store.Scan(ctx, 0, func(history.Message) error { return nil })
	}, read)
	if err != nil {
		return nil, err
	}
	of := func(what string) string {
		return fmt.Sprintf("%s from %d records against a bare consumer", what, large.last)
	}
	desktop := of("start of a dashboard: all read models")
	figures := []Figure{
		figure(desktop+", first", "records/s", first, raw.perSecond*n), figure(desktop+", next", "records/s", again.perSecond*n, raw.perSecond*n),
		figure(of("start of a service: the incidents alone")+", next", "records/s", service.perSecond*n, rawAgain.perSecond*n),
		figure(of("the log read, and nothing made of it"), "records/s", scan.perSecond*n, rawScan.perSecond*n),
		figure("memory of all read models", "bytes/record", kept, 0),
	}
	desk.Follow(runner)
	asks := map[string]func(context.Context, int) error{
		"inbox of a person": func(ctx context.Context, _ int) error {
			_, err := desk.ReadInbox(identity.WithCaller(ctx, identity.Caller{KeyID: g.carla.KeyID}), &dashboardv1.ReadInboxRequest{})
			return err
		},
		"an incident's state": func(ctx context.Context, _ int) error {
			_, err := desk.ReadIncident(identity.WithCaller(ctx, identity.Caller{KeyID: g.carla.KeyID}), &dashboardv1.ReadIncidentRequest{Incident: ids[0]})
			return err
		},
		"page of the public log": func(ctx context.Context, _ int) error { return ask(ctx, desk.Handler(), "/log/drills") },
		"search in it":           func(ctx context.Context, _ int) error { return ask(ctx, desk.Handler(), "/log/search?q=night") },
	}
	for _, name := range []string{"inbox of a person", "an incident's state", "page of the public log", "search in it"} {
		s, err := turn(ctx, 1, opt.Slice, asks[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		figures = append(figures, figure(fmt.Sprintf("%s, of %d records in %d incidents", name, large.last, large.last/recordsEach), "us", 1e6/s.perSecond, 0))
	}
	return figures, nil
}

func ask(ctx context.Context, h http.Handler, path string) error {
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	if rec.Code != http.StatusOK {
		return fmt.Errorf("%s: %d", path, rec.Code)
	}
	return nil
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// rebuildParts measures what a rebuild does with a record, part by part and with no log to wait for: each line is the time of one more part, so the
// parts add up. Signatures were verified before.
func rebuildParts(ctx context.Context, g *generated, _, large *filled, _ []string, opt Options) ([]Figure, error) {
	store := &memory.Store{}
	last := map[string]uint64{}
	err := large.store.Scan(ctx, 0, func(m history.Message) (err error) {
		last[m.Incident], err = store.Append(ctx, m.Incident, last[m.Incident], m.Data, m.Header)
		return err
	})
	if err != nil {
		return nil, err
	}
	known, err := history.OpenVerified(filepath.Join(large.dir, "verified"))
	if err != nil {
		return nil, err
	}
	n := float64(large.last)
	var figures []Figure
	for _, x := range []struct {
		name string
		run  func(context.Context, *history.Keyring) error
	}{
		{"verified and decoded", func(ctx context.Context, keys *history.Keyring) error {
			return projection.Rebuild(ctx, projection.Config{Store: store, Keys: keys, Log: slog.New(slog.DiscardHandler), Verified: known}, view.NewRecords())
		}},
		{"and folded into the incidents", func(ctx context.Context, keys *history.Keyring) error {
			return projection.Rebuild(ctx, projection.Config{Store: store, Keys: keys, Log: slog.New(slog.DiscardHandler), Verified: known}, projection.NewIncidents())
		}},
		{"and into the public log", func(ctx context.Context, keys *history.Keyring) error {
			return projection.Rebuild(ctx, projection.Config{Store: store, Keys: keys, Log: slog.New(slog.DiscardHandler), Verified: known}, view.NewLog())
		}},
		{"and made into the operators' rows", func(ctx context.Context, keys *history.Keyring) error {
			k, err := projection.NewKeeper(projection.KeeperConfig{Store: store, Keys: keys, Tables: nowhere{}, New: operators.New, Log: slog.New(slog.DiscardHandler), Verified: known})
			if err != nil {
				return err
			}
			return k.CatchUp(ctx)
		}},
	} {
		var took, processor []float64
		for range opt.Rounds {
			keys, err := history.NewKeyring(g.keys.Keys()...)
			if err != nil {
				return nil, err
			}
			runtime.GC()
			before, begun := processorTime(), time.Now()
			if err := x.run(ctx, keys); err != nil {
				return nil, err
			}
			took = append(took, float64(time.Since(begun).Microseconds())/n)
			processor = append(processor, float64((processorTime()-before).Microseconds())/n)
		}
		figures = append(figures, ranged("a record of a rebuild, "+x.name+": time against processor time", "us", took, processor))
	}
	return figures, nil
}

// nowhere is a store that throws rows away.
type nowhere struct{ projection.Tables }

func (nowhere) Open(context.Context, projection.Definition) (projection.Position, error) {
	return projection.Position{}, nil
}

func (n nowhere) Build(_ context.Context, d projection.Definition, from projection.Position) (projection.Build, error) {
	return nowhereBuild{d}, nil
}

type nowhereBuild struct{ d projection.Definition }

func (b nowhereBuild) Add(_ context.Context, rows []projection.Change) error {
	_, err := projection.CheckRows(b.d, rows)
	return err
}

func (b nowhereBuild) Commit(_ context.Context, _ projection.Position, changes []projection.Change) error {
	_, err := projection.CheckChanges(b.d, changes)
	return err
}

func (nowhereBuild) Close() {}

// processorTime is what this process has used of all processors.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tables builds each projection that is kept in PostgreSQL from nothing, with the signatures verified before as in a service that has run, and
// compares that with a plain COPY of the messages and with a bare consumer.
func tables(ctx context.Context, g *generated, _, large *filled, _ []string, opt Options) (figures []Figure, err error) {
	folds := []struct {
		name    string
		fold    func() projection.Tabular
		rebuilt []float64
	}{{name: "the operators' tables", fold: operators.New}, {name: "the archive", fold: archive.New}}
	if !local.Found() {
		return []Figure{{Name: "rebuild in PostgreSQL", Note: "there is no PostgreSQL on this machine; on Debian: apt-get install -y postgresql"}}, nil
	}
	pg, err := local.New()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pg.End()) }()
	known, err := history.OpenVerified(filepath.Join(large.dir, "verified"))
	if err != nil {
		return nil, err
	}
	var copied, raw []float64
	n := float64(large.last)
	timed := func(to *[]float64, run func() error) error {
		runtime.GC()
		begun := time.Now()
		if err := run(); err != nil {
			return err
		}
		*to = append(*to, n/time.Since(begun).Seconds())
		return nil
	}
	for i := range opt.Rounds {
		url, err := pg.NewDatabase(ctx, fmt.Sprintf("bench%d", i))
		if err != nil {
			return nil, err
		}
		if err := timed(&copied, func() error { return copyRaw(ctx, url, large) }); err != nil {
			return nil, err
		}
		for j := range folds {
			if err := timed(&folds[j].rebuilt, func() error { return rebuildTables(ctx, url, g, large, known, folds[j].fold) }); err != nil {
				return nil, err
			}
		}
		if err := timed(&raw, func() error { return consume(ctx, large.js, natsd.Subjects, large.last) }); err != nil {
			return nil, err
		}
	}
	for _, f := range folds {
		of := fmt.Sprintf("rebuild of %s in PostgreSQL from %d records against ", f.name, large.last)
		figures = append(figures, ranged(of+"a COPY of the messages", "records/s", f.rebuilt, copied), ranged(of+"a bare consumer", "records/s", f.rebuilt, raw))
	}
	return figures, nil
}

func rebuildTables(ctx context.Context, url string, g *generated, large *filled, known *history.Verified, fold func() projection.Tabular) error {
	t, err := postgres.New(ctx, postgres.Config{URL: url})
	if err != nil {
		return err
	}
	defer t.Close()
	keys, err := history.NewKeyring(g.keys.Keys()...)
	if err != nil {
		return err
	}
	k, err := projection.NewKeeper(projection.KeeperConfig{Store: large.store, Keys: keys, Tables: t, New: fold, Log: slog.New(slog.DiscardHandler), Verified: known})
	if err != nil {
		return err
	}
	return k.CatchUp(ctx)
}

// copyRaw copies every message into a table that has nothing but its bytes.
func copyRaw(ctx context.Context, url string, large *filled) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // everything was copied, or the error is told
	if _, err := conn.Exec(ctx, "CREATE TABLE raw (sequence bigint PRIMARY KEY, incident text NOT NULL, bytes bytea NOT NULL)"); err != nil {
		return err
	}
	messages := make(chan history.Message, 4096)
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer close(messages)
		ended <- large.store.Scan(ctx, 0, func(m history.Message) error {
			select {
			case messages <- m:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"raw"}, []string{"sequence", "incident", "bytes"}, pgx.CopyFromFunc(func() ([]any, error) {
		m, ok := <-messages
		if !ok {
			return nil, nil
		}
		return []any{int64(m.Sequence), m.Incident, m.Data}, nil
	}))
	if err != nil {
		return err
	}
	if err := <-ended; err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
