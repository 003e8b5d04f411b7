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
	"os/exec"
	"path/filepath"
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
	"cacert.org/emergency/services/internal/cluster"
	"cacert.org/emergency/services/internal/testenv"
)

var (
	faultCount = flag.Int("faults", 10, "how many faults TestFaults injects")
	faultSeed  = flag.Uint64("faults-seed", 0, "what TestFaults chooses by; 0 takes a new one, which is told")
)

// faults are what goes wrong in an installation, and how it is mended.
type faults struct {
	t      *testing.T
	c      *cluster.Cluster
	pg     *postgrestest.Server
	random *rand.Rand
	going  func(after string)
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
	return map[string]func(){
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
			must(f.t, os.RemoveAll(s.Store))
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
			must(f.t, os.RemoveAll(s.Store))
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
	b[at] ^= 1 << f.random.IntN(8)
	f.t.Logf("flipped a bit of byte %d of %d in %s", at, len(b), path)
	must(f.t, os.WriteFile(path, b, 0o600))
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
	epatchd, nats := testenv.Programs(t)
	repo := filepath.Join(dir, "repository.git")
	must(t, exec.Command("git", "init", "--quiet", "--bare", repo).Run())
	pg := postgrestest.Own(t)
	database := pg.Database(t)
	c, err := cluster.Start(t.Context(), cluster.Config{
		Dir: dir, Epatchd: epatchd, NATS: nats, Repository: repo, Say: t.Logf, More: map[string][]string{"dashboard": {"--database", database}},
	})
	t.Cleanup(func() { must(t, c.Stop()) })
	must(t, err)

	l := &load{t: t, data: dir, changed: make(chan struct{}), connect: c.Client, limit: 50}
	var group sync.WaitGroup
	failed := make(chan error, 8)
	for _, w := range l.team() {
		group.Go(func() {
			if err := w.run(); err != nil {
				failed <- err
			}
		})
	}
	f := &faults{t: t, c: c, pg: pg, random: rand.New(rand.NewPCG(*faultSeed, 6)), going: func(after string) {
		t.Helper()
		l.mu.Lock()
		goal := len(l.acks) + 20
		l.limit = goal + 40
		l.poke()
		l.mu.Unlock()
		if !l.await(func() bool { return len(l.acks) >= goal || len(failed) > 0 }) {
			t.Fatalf("after %s no command is acknowledged any more", after)
		}
	}}
	kinds := f.kinds()
	names := slices.Sorted(maps.Keys(kinds))
	injected := map[string]int{}
	for n := range *faultCount {
		name := names[f.random.IntN(len(names))]
		if n < len(names) {
			name = names[n] // each at least once, if there are so many
		}
		injected[name]++
		kinds[name]()
		f.going(name)
	}
	l.mu.Lock()
	l.stop = true
	l.poke()
	l.mu.Unlock()
	group.Wait()
	close(failed)
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
	t.Logf("commands acknowledged %d (sent again %d), in %d histories that were checked; faults injected %d: %s; lost %d, doubled %d, reordered %d, rules broken %d",
		len(l.acks), l.again, checked, *faultCount, strings.Join(list, ", "), lost, doubled, reordered, rules)
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
