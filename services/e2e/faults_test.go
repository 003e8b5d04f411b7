// SPDX-License-Identifier: Apache-2.0

//go:build !race

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/projection/postgres/postgrestest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/cluster"
	"cacert.org/emergency/services/internal/testenv"
)

var (
	faultCount = flag.Int("faults", 8, "how many faults TestFaults injects, of kinds that chance chooses; each kind once before one comes again")
	faultSeed  = flag.Uint64("faults-seed", 0, "what TestFaults chooses by; 0 takes a new one, which is told")
	faultOnly  = flag.String("faults-only", "", "TestFaults chooses among the kinds whose names this regular expression finds; empty for all")
)

// faults are what goes wrong in an installation, and how it is mended.
type faults struct {
	t      *testing.T
	c      *cluster.Cluster
	pg     *postgrestest.Server
	l      *load
	random *rand.Rand
	going  func(after string)
	disks  bool // the servers' stores are file systems of their own
	clocks map[*cluster.Instance]*testenv.SteppedClock

	mu    sync.Mutex      // guards wrong and ahead
	wrong bool            // a clock is
	right time.Time       // since when none is
	ahead map[string]bool // incidents with a record of the future
	fresh int             // how often new incidents were declared
}

func (f *faults) instance() *cluster.Instance {
	return f.c.Instances[f.random.IntN(len(f.c.Instances))]
}
func (f *faults) server() *cluster.Server { return f.c.Servers[f.random.IntN(len(f.c.Servers))] }

func (f *faults) healthy() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), testenv.Patience)
	defer cancel()
	must(f.t, f.c.AwaitHealthy(ctx))
}

// kinds are the faults by name. While one holds that the log or most of a service outlives, commands must go on; after each they do.
func (f *faults) kinds() map[string]func() {
	signal := func(what string, p interface{ Signal(syscall.Signal) error }) {
		must(f.t, p.Signal(syscall.SIGSTOP))
		f.going(what + " stood still")
		must(f.t, p.Signal(syscall.SIGCONT))
	}
	kinds := map[string]func(){
		"a service killed": func() {
			i := f.instance()
			must(f.t, i.Process().Kill())
			f.going(i.Service + " was killed")
			must(f.t, f.c.StartInstance(f.t.Context(), i))
		},
		"all services killed": func() {
			for _, i := range f.c.Instances {
				must(f.t, i.Process().Kill())
			}
			for _, i := range f.c.Instances {
				must(f.t, f.c.StartInstance(f.t.Context(), i))
			}
		},
		"a service stopped for a while": func() { i := f.instance(); signal(i.Service, i.Process()) },
		"a server of the log killed": func() {
			s := f.server()
			must(f.t, s.Process().Kill())
			f.going(s.Name + " was killed")
			must(f.t, f.c.StartServer(f.t.Context(), s))
			f.healthy()
		},
		"a server of the log without its disk": func() { // as operators do with one whose files are damaged (docs/runbooks.md): empty it, let it catch up
			s := f.server()
			must(f.t, s.Process().Kill())
			f.empty(s.Store)
			f.going(s.Name + " lost its disk")
			must(f.t, f.c.StartServer(f.t.Context(), s))
			f.healthy()
		},
		"a bit of a server's files flipped": func() { // it is found before the server may lead, and remedied as the runbook says
			s := f.server()
			must(f.t, s.Process().Kill())
			f.flip(s.Store)
			f.going(s.Name + " was damaged")
			if err := f.c.StartServer(f.t.Context(), s); !errors.Is(err, natsd.ErrStoreDamaged) {
				f.t.Fatalf("%s started on a damaged store: %v", s.Name, err)
			}
			f.empty(s.Store)
			must(f.t, f.c.StartServer(f.t.Context(), s))
			f.healthy()
		},
		"a bit flipped under a running server": func() { // the nightly reading of its disk finds it
			s := f.server()
			f.flip(s.Store)
			if _, err := natsd.ExamineRunning(f.t.Context(), s.Store); !errors.Is(err, natsd.ErrStoreDamaged) {
				f.t.Fatalf("the store of %s is damaged, and reading it says %v", s.Name, err)
			}
			must(f.t, s.Process().Kill())
			f.going(s.Name + " was damaged")
			f.empty(s.Store)
			must(f.t, f.c.StartServer(f.t.Context(), s))
			f.healthy()
		},
		"a server of the log stopped for a while": func() { s := f.server(); signal(s.Name, s.Process()); f.healthy() },
		"all servers of the log killed": func() {
			for _, s := range f.c.Servers {
				must(f.t, s.Process().Kill())
			}
			for _, s := range f.c.Servers {
				must(f.t, f.c.StartServer(f.t.Context(), s))
			}
			f.healthy()
		},
		"PostgreSQL killed": func() {
			must(f.t, f.pg.Stop("immediate"))
			f.going("PostgreSQL was killed")
			must(f.t, f.pg.Start())
		},
	}
	maps.Copy(kinds, f.partitions())
	maps.Copy(kinds, f.clockSteps())
	if f.disks {
		maps.Copy(kinds, f.fullDisks())
	}
	return kinds
}

// empty removes everything in a folder, which may be a file system of its own.
func (f *faults) empty(dir string) {
	f.t.Helper()
	entries, err := os.ReadDir(dir)
	must(f.t, err)
	for _, e := range entries {
		must(f.t, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
}

// probe gives one command, once, and returns what it was answered with.
func (f *faults) probe() error {
	f.t.Helper()
	c, err := f.c.ClientWith("clara", time.Nanosecond)
	must(f.t, err)
	defer func() { must(f.t, c.Close()) }()
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second) // as long as the load's
	defer cancel()
	f.l.mu.Lock()
	incident := f.l.incidents[0]
	f.l.mu.Unlock()
	_, err = c.Send(ctx, &emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Incident: incident}, Entry: 1, Text: "is anybody there"})
	return err
}

// standstill is a time in which no quorum of the log is reachable: whatever is given in it is told to come again, and nothing of it is
// acknowledged before it ends.
func (f *faults) standstill(what string) (end func()) {
	f.t.Helper()
	begun := time.Now()
	err := f.probe()
	if err == nil {
		f.t.Fatalf("%s, and a command was acknowledged", what)
	}
	if said := err.Error(); !strings.Contains(said, "again with the same request_id") && !strings.Contains(said, "a second call with the same request_id") {
		f.t.Errorf("%s, and a command is answered with %v, not that it may be sent again", what, err)
	}
	f.t.Logf("%s: %v", what, err)
	return func() {
		f.t.Helper()
		ended := time.Now()
		f.l.mu.Lock()
		defer f.l.mu.Unlock()
		for _, a := range f.l.acks {
			if a.given.After(begun) && a.answered.Before(ended) {
				f.t.Errorf("%s, and %s %s by %s was acknowledged", what, a.command, a.request, a.person)
			}
		}
	}
}

// flip changes one bit of the histories in a store, anywhere but in what may still be half-written.
func (f *faults) flip(store string) {
	f.t.Helper()
	blocks, err := filepath.Glob(filepath.Join(store, "jetstream", "*", "streams", natsd.Stream, "msgs", "*.blk"))
	must(f.t, err)
	if len(blocks) == 0 {
		f.t.Fatalf("no histories in %s", store)
	}
	path := blocks[f.random.IntN(len(blocks))]
	b, err := os.ReadFile(path)
	must(f.t, err)
	if len(b) < 1000 {
		f.t.Fatalf("%s has %d bytes", path, len(b))
	}
	at := f.random.IntN(len(b) - 500)
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(f.t, err)
	defer file.Close()
	_, err = file.WriteAt([]byte{b[at] ^ 1<<f.random.IntN(8)}, int64(at)) // nothing else: a server may be writing to it
	must(f.t, errors.Join(err, file.Sync()))
	f.t.Logf("flipped a bit of byte %d of %d in %s", at, len(b), path)
}

// TestFaults: an installation under load, whose processes are killed and stopped at random. An independent checker finds that the answers of
// each incident are those of one log; every acknowledged command is stored once, and the archive in PostgreSQL has every message once (issue
// 6, section 5).
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: faults in a cluster of processes take minutes; run without -short")
	}
	if *faultSeed == 0 {
		*faultSeed = uint64(time.Now().UnixNano())
	}
	t.Logf("chosen by -faults-seed %d", *faultSeed)
	dir := t.TempDir()
	pg := postgrestest.Own(t)
	database := pg.Database(t)
	disks := smallDisks(t, filepath.Join(dir, "nats"))
	clocks := map[*cluster.Instance]*testenv.SteppedClock{}
	var making sync.Mutex
	c := startInstallation(t, cluster.Config{
		Dir: dir, More: map[string][]string{"dashboard": {"--database", database}}, Links: true,
		Founded: time.Now().Add(-24 * time.Hour), // roles are held by a clock that is behind, too
		Environ: func(i *cluster.Instance) []string {
			making.Lock()
			defer making.Unlock()
			if clocks[i] == nil {
				clocks[i] = testenv.NewSteppedClock(dir, i.Name())
			}
			return []string{clocks[i].Env()}
		},
	})

	l := &load{t: t, data: dir, changed: make(chan struct{}), connect: c.Client, limit: 50}
	f := &faults{t: t, c: c, pg: pg, l: l, disks: disks, clocks: clocks, ahead: map[string]bool{}, random: rand.New(rand.NewPCG(*faultSeed, 6))}
	l.excused = f.excused
	group, failed := l.start()
	f.going = func(after string) {
		t.Helper()
		goal := l.more() + 20
		if !l.await(func() bool { return len(l.acks) >= goal || len(failed) > 0 }) {
			t.Fatalf("after %s no command is acknowledged any more", after)
		}
		select {
		case err := <-failed:
			t.Fatalf("after %s: %v", after, err)
		default:
		}
	}
	kinds := f.kinds()
	only := regexp.MustCompile(*faultOnly)
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(kinds)), func(name string) bool { return !only.MatchString(name) })
	f.random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	if len(names) == 0 {
		t.Fatalf("-faults-only %q finds no kind of fault", *faultOnly)
	}
	injected := map[string]int{}
	for n := range *faultCount {
		name := names[f.random.IntN(len(names))]
		if n < len(names) {
			name = names[n] // each once before one comes again
		}
		injected[name]++
		begun := time.Now()
		kinds[name]()
		f.going(name)
		t.Logf("%d: %s, %s", n+1, name, time.Since(begun).Round(time.Millisecond))
	}
	l.mu.Lock()
	l.stop = true
	l.poke()
	l.mu.Unlock()
	group.Wait()
	close(failed)
	f.noWayAround()
	rules := 0
	for err := range failed {
		rules++
		t.Error(err)
	}
	js, err := c.Log()
	must(t, err)
	defer js.Conn().Close()
	store, err := jetstream.New(t.Context(), jetstream.Config{JS: js, Logger: slog.New(slog.DiscardHandler), Consumers: true})
	must(t, err)
	lost, doubled := l.checkStore(t, store)
	timely(t, store, injected[minuteBehind] > 0)
	checked, reordered, unknown := linearizable(l.acks)
	if reordered > 0 || unknown > 0 {
		t.Errorf("the answers of %d incidents are not those of one log; of %d the checker could not tell", reordered, unknown)
	}
	stream, err := js.Stream(t.Context(), natsd.Stream)
	must(t, err)
	archived(t, database, stream.CachedInfo().State.LastSeq)
	var list []string
	for _, name := range slices.Sorted(maps.Keys(injected)) {
		list = append(list, fmt.Sprintf("%d %s", injected[name], name))
	}
	t.Logf("commands acknowledged %d (sent again %d), refused as a clock was wrong %d, in %d histories that were checked; faults injected %d: %s; lost %d, doubled %d, reordered %d, rules broken %d",
		len(l.acks), l.again, l.refused, checked, *faultCount, strings.Join(list, ", "), lost, doubled, reordered, rules)
}

// archived waits until the archive has read to a sequence, and finds every message in it once.
func archived(t *testing.T, database string, last uint64) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	for end := time.Now().Add(testenv.Patience); ; time.Sleep(100 * time.Millisecond) {
		var kept int64
		must(t, conn.QueryRow(t.Context(), `SELECT coalesce(max(sequence), 0) FROM archive.messages`).Scan(&kept))
		if uint64(kept) >= last {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the archive has come to %d of %d", kept, last)
		}
	}
	var rows, distinct int64
	must(t, conn.QueryRow(t.Context(), `SELECT count(*), count(DISTINCT sequence) FROM archive.messages WHERE sequence <= $1`, int64(last)).Scan(&rows, &distinct))
	if uint64(rows) != last || uint64(distinct) != last {
		t.Errorf("the archive has %d rows of %d messages for %d in the log", rows, distinct, last)
	}
}
