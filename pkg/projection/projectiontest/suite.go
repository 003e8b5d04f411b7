// SPDX-License-Identifier: Apache-2.0

// Package projectiontest is what every store of projections' rows must pass, and the projection that it is tried with.
package projectiontest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/fstest"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	historymemory "cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
)

// Sample is a projection with a table of each kind: one that only grows, one whose rows change, one whose rows come and go.
type Sample struct {
	version int
	heads   map[string]int64
	changes []projection.Change
}

// NewSample returns it, empty. Version 2 has another column.
func NewSample(version int) *Sample { return &Sample{version: version, heads: map[string]int64{}} }

// Definition implements projection.Tabular.
func (s *Sample) Definition() projection.Definition {
	messages := projection.Table{Name: "messages", Columns: []string{"sequence", "incident", "bytes", "record", "at", "text"}, Key: 1, AppendOnly: true}
	extra := ""
	if s.version > 1 {
		messages.Columns = append(messages.Columns, "size")
		extra = ", size bigint"
	}
	return projection.Definition{
		Name: "sample", Version: s.version,
		Tables: []projection.Table{
			messages,
			{Name: "heads", Columns: []string{"incident", "position", "odd"}, Key: 1},
			{Name: "last", Columns: []string{"incident", "position"}, Key: 2},
		},
		Migrations: fstest.MapFS{"00001_tables.sql": {Data: []byte(`-- +goose Up
CREATE TABLE messages (sequence bigint PRIMARY KEY, incident text NOT NULL, bytes bytea NOT NULL, record boolean NOT NULL, at timestamptz, text text NOT NULL` + extra + `);
CREATE TABLE heads (incident text COLLATE "C" PRIMARY KEY, position bigint NOT NULL, odd boolean NOT NULL);
CREATE TABLE last (incident text COLLATE "C", position bigint, PRIMARY KEY (incident, position));
COMMENT ON TABLE heads IS 'It''s how far each has come';
COMMENT ON COLUMN heads.position IS 'Its last event';
`)}},
	}
}

// Apply implements projection.Tabular.
func (s *Sample) Apply(batch []*projection.Judged) error {
	for _, m := range batch {
		if bytes.Equal(m.Data, []byte("cannot be folded")) {
			return errors.New("a message that cannot be folded")
		}
		row := projection.Row{int64(m.Sequence), m.Incident, m.Data, m.Record != nil, nil, "zero \x00 and \xff"}
		if m.Record != nil {
			row[4] = m.Record.Record.GetRecordedAt().AsTime()
			s.head(m)
		}
		if s.version > 1 {
			row = append(row, len(m.Data))
		}
		s.changes = append(s.changes, projection.Change{Table: "messages", Sequence: m.Sequence, Row: row})
	}
	return nil
}

func (s *Sample) head(m *projection.Judged) {
	// Ids of both cases, and of other bytes: their order must not depend on a server's language.
	for _, id := range []string{m.Incident, "X" + m.Incident, "é" + m.Incident} {
		at := int64(m.Record.Events[len(m.Record.Events)-1].Position)
		if before, ok := s.heads[id]; ok {
			s.changes = append(s.changes, projection.Change{Table: "last", Sequence: m.Sequence, Row: projection.Row{id, before}, Gone: true})
		}
		s.heads[id] = at
		s.changes = append(s.changes,
			projection.Change{Table: "heads", Sequence: m.Sequence, Row: projection.Row{id, at, at%2 == 1}},
			projection.Change{Table: "last", Sequence: m.Sequence, Row: projection.Row{id, at}})
	}
}

// TakeFacts implements projection.Streaming.
func (s *Sample) TakeFacts() []projection.Change {
	var facts, rest []projection.Change
	for _, c := range s.changes {
		if c.Table == "messages" {
			facts = append(facts, c)
		} else {
			rest = append(rest, c)
		}
	}
	s.changes = rest
	return facts
}

// Take implements projection.Tabular.
func (s *Sample) Take() []projection.Change {
	list := s.changes
	s.changes = nil
	return list
}

// Stream is a log that a test writes.
type Stream struct {
	TB    testing.TB
	Store *historymemory.Store
	Keys  *historytest.Keys

	writers map[string]*historytest.Writer
}

// NewStream returns an empty one.
func NewStream(tb testing.TB) *Stream {
	tb.Helper()
	return &Stream{TB: tb, Store: &historymemory.Store{}, Keys: historytest.NewKeys(tb, "services"), writers: map[string]*historytest.Writer{}}
}

// Write appends n records, in turn to three incidents, and a stranger's message.
func (s *Stream) Write(n int) {
	s.TB.Helper()
	for i := range n {
		id := fmt.Sprintf("e20261124.%d", i%3+1)
		if s.writers[id] == nil {
			s.writers[id] = s.Keys.NewWriter(s.TB, s.Store, id, procedure.OwnerIncident)
		}
		s.writers[id].MustAppend(s.TB, 1)
	}
	s.Store.Publish("emergency.Nothing_Of_Ours", []byte("junk"))
}

// Keeper of a sample on tables; change may be nil.
func (s *Stream) Keeper(tables projection.Tables, version int, change func(*projection.KeeperConfig)) *projection.Keeper {
	s.TB.Helper()
	cfg := projection.KeeperConfig{
		Store: s.Store, Keys: s.Keys.Ring, Tables: tables, New: func() projection.Tabular { return NewSample(version) }, Log: s.Log(), Batch: 4,
		Pause: func(ctx context.Context, _ int) error { return ctx.Err() },
	}
	if change != nil {
		change(&cfg)
	}
	k, err := projection.NewKeeper(cfg)
	if err != nil {
		s.TB.Fatal(err)
	}
	return k
}

// CatchUp runs a keeper to the end of the log.
func (s *Stream) CatchUp(k *projection.Keeper) {
	s.TB.Helper()
	if err := k.CatchUp(s.TB.Context()); err != nil {
		s.TB.Fatal(err)
	}
}

// Dump is everything that tables have of a definition.
func Dump(tb testing.TB, tables projection.Tables, d projection.Definition) string {
	tb.Helper()
	var b bytes.Buffer
	if err := tables.Dump(tb.Context(), d, &b); err != nil {
		tb.Fatal(err)
	}
	return b.String()
}

// Same compares two dumps and shows the first difference.
func Same(tb testing.TB, got, want string) {
	tb.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			from := max(0, i-60)
			tb.Fatalf("kept rows differ at byte %d: %.200q, want %.200q", i, got[from:], want[from:])
		}
	}
	if len(got) != len(want) || len(got) == 0 {
		tb.Fatalf("%d bytes of rows, want %d and some", len(got), len(want))
	}
}

// faulty is a store of which one commit fails, before or after it was done.
type faulty struct {
	projection.Tables
	mu     sync.Mutex
	before int // commits to fail before they are done
	after  int // commits to do and to answer with an error
	adds   int // parts of a build to take and to answer with an error
	asked  []projection.Step
}

var errCut = errors.New("the connection was cut")

func (f *faulty) Commit(ctx context.Context, d projection.Definition, step projection.Step, changes []projection.Change) error {
	return f.try(step, func() error { return f.Tables.Commit(ctx, d, step, changes) })
}

func (f *faulty) Build(ctx context.Context, d projection.Definition, from projection.Position) (projection.Build, error) {
	b, err := f.Tables.Build(ctx, d, from)
	if err != nil {
		return nil, err
	}
	return &hooked{b, func(to projection.Position, commit func() error) error {
		return f.try(projection.Step{From: from, To: to}, commit)
	}, &f.adds}, nil
}

// hooked is a build whose commit goes through a test's hands.
type hooked struct {
	projection.Build
	hook func(to projection.Position, commit func() error) error
	adds *int
}

func (h *hooked) Add(ctx context.Context, rows []projection.Change) error {
	err := h.Build.Add(ctx, rows)
	if err == nil && *h.adds > 0 {
		*h.adds--
		return errCut
	}
	return err
}

func (h *hooked) Commit(ctx context.Context, to projection.Position, changes []projection.Change) error {
	return h.hook(to, func() error { return h.Build.Commit(ctx, to, changes) })
}

func (f *faulty) try(step projection.Step, commit func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, step)
	if f.before > 0 {
		f.before--
		return errCut
	}
	err := commit()
	if err == nil && f.after > 0 {
		f.after--
		return errCut
	}
	return err
}

// Suite runs the tests. open returns an empty store of rows, shown the version of the sample that readers look at.
func Suite(t *testing.T, open func(testing.TB) (tables projection.Tables, shown func() int)) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *Stream, projection.Tables, func() int){
		"batches, and the same dump": batches, "resumes from its own position": resumes, "a failed commit leaves nothing": failedCommit,
		"an unknown outcome is read again": unknownOutcome, "a build that is cut": buildCut, "another process": anotherProcess, "two processes": twoProcesses, "a log that was rolled back": rolledBack,
		"a version beside the old one": versions, "a fold that cannot": cannotFold, "refuses": refuses, "an empty log": emptyLog, "follows": follows,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tables, shown := open(t)
			test(t, NewStream(t), tables, shown)
		})
	}
}

// fresh is what a fold from nothing keeps, in a store that the test trusts by its own reading of the log.
func (s *Stream) fresh(version int, tables projection.Tables) string {
	s.TB.Helper()
	s.CatchUp(s.Keeper(tables, version, func(c *projection.KeeperConfig) { c.Batch = 1 << 20 }))
	return Dump(s.TB, tables, NewSample(version).Definition())
}

// expected is the dump by the simplest reading of the log.
func (s *Stream) expected(version int) string {
	s.TB.Helper()
	return s.fresh(version, &plain{})
}

func batches(t *testing.T, s *Stream, tables projection.Tables, shown func() int) {
	f := &faulty{Tables: tables}
	s.Write(11)
	k := s.Keeper(f, 1, nil)
	s.CatchUp(k)
	if len(f.asked) != 1 || shown() != 1 {
		t.Errorf("a first build took %d transactions, and version %d is shown", len(f.asked), shown())
	}
	s.Write(10)
	k = s.Keeper(f, 1, nil)
	s.CatchUp(k)
	if n := len(f.asked) - 1; n != 3 {
		t.Errorf("11 messages in %d transactions, want 3 batches of at most 4", n)
	}
	for i, step := range f.asked[1:] {
		if step.From != f.asked[i].To {
			t.Errorf("step %d starts at %v, the one before ended at %v", i+1, step.From, f.asked[i].To)
		}
	}
	if st := k.Status(); st.Kept != 23 || st.Folded != 23 || !st.Complete || st.Trouble != "" {
		t.Errorf("status %+v", st)
	}
	Same(t, Dump(t, tables, NewSample(1).Definition()), s.expected(1))
}

func resumes(t *testing.T, s *Stream, tables projection.Tables, _ func() int) {
	for _, n := range []int{1, 3, 7, 12} {
		s.Write(n)
		f := &faulty{Tables: tables}
		s.CatchUp(s.Keeper(f, 1, nil))
		if len(f.asked) == 0 {
			t.Error("nothing was committed")
		}
		again := &faulty{Tables: tables}
		s.CatchUp(s.Keeper(again, 1, nil))
		if len(again.asked) != 0 {
			t.Errorf("nothing new, and %d transactions", len(again.asked))
		}
		Same(t, Dump(t, tables, NewSample(1).Definition()), s.expected(1))
	}
}

func failedCommit(t *testing.T, s *Stream, tables projection.Tables, _ func() int) {
	d := NewSample(1).Definition()
	s.Write(6)
	s.CatchUp(s.Keeper(tables, 1, nil))
	before := Dump(t, tables, d)
	at, err := tables.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	to := projection.Position{Mark: history.Mark{Sequence: 99, Hash: "x"}, Complete: true}
	twice := projection.Change{Table: "messages", Sequence: 99, Row: projection.Row{uint64(1), "", []byte{}, false, nil, ""}}
	good := projection.Change{Table: "heads", Sequence: 99, Row: projection.Row{"another", 1, true}}
	if err := tables.Commit(t.Context(), d, projection.Step{From: at, To: to}, []projection.Change{good, twice}); err == nil {
		t.Error("a row that is there was added again")
	}
	Same(t, Dump(t, tables, d), before)
	if now, err := tables.Open(t.Context(), d); err != nil || now != at {
		t.Errorf("position %v, %v after a failed commit", now, err)
	}
	s.Write(6)
	f := &faulty{Tables: tables, before: 2}
	s.CatchUp(s.Keeper(f, 1, nil))
	Same(t, Dump(t, tables, d), s.expected(1))
}

// buildCut: of a build that is cut in the middle nothing stays, and it begins again.
func buildCut(t *testing.T, s *Stream, tables projection.Tables, _ func() int) {
	s.Write(9)
	f := &faulty{Tables: tables, adds: 2}
	s.CatchUp(s.Keeper(f, 1, nil))
	if f.adds != 0 || len(f.asked) != 1 {
		t.Errorf("%d parts were not cut, and %d commits", f.adds, len(f.asked))
	}
	Same(t, Dump(t, tables, NewSample(1).Definition()), s.expected(1))
	at, err := tables.Open(t.Context(), NewSample(2).Definition())
	if err != nil {
		t.Fatal(err)
	}
	b, err := tables.Build(t.Context(), NewSample(2).Definition(), at)
	if err != nil {
		t.Fatal(err)
	}
	for _, rows := range [][]projection.Change{
		{{Table: "messages", Sequence: 1, Row: projection.Row{1, "", []byte{}, false, nil, "", 0}}}, {{Table: "messages", Sequence: 1, Row: projection.Row{1, ""}}},
	} {
		if err := b.Add(t.Context(), rows); err != nil {
			break
		}
	}
	b.Close()
	s.CatchUp(s.Keeper(tables, 2, nil))
	Same(t, Dump(t, tables, NewSample(2).Definition()), s.expected(2))
}

func unknownOutcome(t *testing.T, s *Stream, tables projection.Tables, _ func() int) {
	for range 3 { // the first build, and batches after it
		s.Write(9)
		f := &faulty{Tables: tables, after: 2}
		s.CatchUp(s.Keeper(f, 1, nil))
		seen := map[uint64]bool{}
		for _, step := range f.asked {
			if seen[step.To.Sequence] {
				t.Errorf("the step to %d was done and tried again", step.To.Sequence)
			}
			seen[step.To.Sequence] = true
		}
		Same(t, Dump(t, tables, NewSample(1).Definition()), s.expected(1))
	}
}

// meddling lets another process keep the same rows before this one's first commit.
type meddling struct {
	projection.Tables
	once func()
	sync.Once
}

func (m *meddling) Commit(ctx context.Context, d projection.Definition, step projection.Step, changes []projection.Change) error {
	m.Do(m.once)
	return m.Tables.Commit(ctx, d, step, changes)
}

func (m *meddling) Build(ctx context.Context, d projection.Definition, from projection.Position) (projection.Build, error) {
	b, err := m.Tables.Build(ctx, d, from)
	if err != nil {
		return nil, err
	}
	return &hooked{b, func(_ projection.Position, commit func() error) error { m.Do(m.once); return commit() }, new(int)}, nil
}

func anotherProcess(t *testing.T, s *Stream, tables projection.Tables, _ func() int) {
	s.Write(5)
	s.CatchUp(s.Keeper(tables, 1, nil))
	for _, batch := range []int{1, 3, 100} { // the other one goes less far than this one's commit, or further
		s.Write(7)
		m := &meddling{Tables: tables, once: func() {
			s.CatchUp(s.Keeper(tables, 1, func(c *projection.KeeperConfig) { c.Batch = batch }))
			s.Write(4)
		}}
		s.CatchUp(s.Keeper(m, 1, nil))
		s.CatchUp(s.Keeper(tables, 1, nil))
		Same(t, Dump(t, tables, NewSample(1).Definition()), s.expected(1))
	}
}

// twoProcesses keep the same rows all the time, as two instances of a service do. Whoever comes second to a commit is in no trouble.
func twoProcesses(t *testing.T, s *Stream, tables projection.Tables, _ func() int) {
	s.Write(5)
	s.CatchUp(s.Keeper(tables, 1, nil))
	ctx, stop := context.WithCancel(t.Context())
	changed := make(chan projection.KeeperStatus)
	var both sync.WaitGroup
	for range 2 {
		k := s.Keeper(tables, 1, func(c *projection.KeeperConfig) {
			c.Changed = func(st projection.KeeperStatus) {
				if st.Trouble != "" {
					t.Errorf("trouble: %s", st.Trouble)
				}
				select {
				case changed <- st:
				case <-ctx.Done():
				}
			}
		})
		both.Go(func() {
			if err := k.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for range 20 {
		s.Write(2)
		last := uint64(0)
		if err := s.Store.Scan(ctx, 0, func(m history.Message) error { last = m.Sequence; return nil }); err != nil {
			t.Fatal(err)
		}
		for st := range changed {
			if st.Kept == last {
				break
			}
		}
	}
	stop()
	both.Wait()
	Same(t, Dump(t, tables, NewSample(1).Definition()), s.expected(1))
}

func rolledBack(t *testing.T, s *Stream, tables projection.Tables, _ func() int) {
	d := NewSample(1).Definition()
	s.Write(8)
	s.CatchUp(s.Keeper(tables, 1, nil))
	before := Dump(t, tables, d)
	wants := func(what string) {
		t.Helper()
		err := s.Keeper(tables, 1, nil).CatchUp(t.Context())
		var back *projection.LogRolledBackError
		if !errors.As(err, &back) || !errors.Is(err, history.ErrRolledBack) || back.At.Sequence != 9 {
			t.Errorf("%s: %v", what, err)
		}
		if run := s.Keeper(tables, 1, nil).Run(t.Context()); !errors.As(run, &back) {
			t.Errorf("%s, running: %v", what, run)
		}
		Same(t, Dump(t, tables, d), before)
	}
	s.Store.Damage(func(sequence uint64, data []byte) ([]byte, bool) { return data, sequence < 9 })
	wants("a lost tail")
	s.Store.Publish("emergency.e20261124-1", []byte("at the same sequence"))
	wants("a sequence that was given out again")
	s.Store.Publish("emergency.e20261124-1", []byte("and further"))
	wants("a log that has gone on")
}

func versions(t *testing.T, s *Stream, tables projection.Tables, shown func() int) {
	s.Write(9)
	s.CatchUp(s.Keeper(tables, 1, nil))
	old := Dump(t, tables, NewSample(1).Definition())
	m := &meddling{Tables: tables, once: func() { // what the new one has folded is not written yet
		if shown() != 1 {
			t.Errorf("version %d is shown before the new one is complete", shown())
		}
		Same(t, Dump(t, tables, NewSample(1).Definition()), old)
	}}
	s.CatchUp(s.Keeper(m, 2, nil))
	if shown() != 2 {
		t.Errorf("version %d is shown after the swap", shown())
	}
	Same(t, Dump(t, tables, NewSample(2).Definition()), s.expected(2))
	s.Write(4) // an old process goes on with the old version
	s.CatchUp(s.Keeper(tables, 1, nil))
	Same(t, Dump(t, tables, NewSample(1).Definition()), s.expected(1))
	if shown() != 2 {
		t.Errorf("version %d is shown after an old process wrote", shown())
	}
	// A version that is older than what is shown is completed late, and does not come back.
	s.CatchUp(s.Keeper(tables, 3, nil))
	s.CatchUp(s.Keeper(tables, 2, nil))
	if shown() != 3 {
		t.Errorf("version %d is shown", shown())
	}
}

func cannotFold(t *testing.T, s *Stream, tables projection.Tables, _ func() int) {
	s.Write(3)
	s.CatchUp(s.Keeper(tables, 1, nil))
	before := Dump(t, tables, NewSample(1).Definition())
	s.Store.Publish("emergency.e20261124-1", []byte("cannot be folded"))
	err := s.Keeper(tables, 1, nil).CatchUp(t.Context())
	var fold *projection.FoldError
	if !errors.As(err, &fold) {
		t.Errorf("got %v", err)
	}
	Same(t, Dump(t, tables, NewSample(1).Definition()), before)
}

func refuses(t *testing.T, _ *Stream, tables projection.Tables, _ func() int) {
	d := NewSample(1).Definition()
	at, err := tables.Open(t.Context(), d)
	if err != nil || at != (projection.Position{}) {
		t.Fatal(at, err)
	}
	to := projection.Position{Mark: history.Mark{Sequence: 1, Hash: "x"}}
	row := projection.Row{uint64(1), "", []byte{}, false, nil, ""}
	for name, changes := range map[string][]projection.Change{
		"an unknown table":     {{Table: "nothing", Row: row}},
		"a short row":          {{Table: "heads", Row: projection.Row{"x"}}},
		"an odd value":         {{Table: "heads", Row: projection.Row{"x", 1.5, true}}},
		"a fact that is gone":  {{Table: "messages", Row: projection.Row{1}, Gone: true}},
		"a fact told twice":    {{Table: "messages", Row: row}, {Table: "messages", Row: row}},
		"a key that is no key": {{Table: "last", Row: projection.Row{"x"}, Gone: true}},
	} {
		if err := tables.Commit(t.Context(), d, projection.Step{To: to}, changes); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	from := projection.Position{Mark: history.Mark{Sequence: 7, Hash: "y"}}
	var moved *projection.MovedError
	if err := tables.Commit(t.Context(), d, projection.Step{From: from, To: to}, nil); !errors.As(err, &moved) || moved.Stored != at {
		t.Errorf("a step from elsewhere: %v", err)
	}
	if now, err := tables.Open(t.Context(), d); err != nil || now != at {
		t.Errorf("position %v, %v", now, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tables.Commit(ended, d, projection.Step{To: to}, nil); err == nil {
		t.Error("a commit whose time is over")
	}
}

func emptyLog(t *testing.T, s *Stream, tables projection.Tables, shown func() int) {
	s.CatchUp(s.Keeper(tables, 1, nil))
	if at, err := tables.Open(t.Context(), NewSample(1).Definition()); err != nil || !at.Complete || at.Sequence != 0 || shown() != 1 {
		t.Errorf("position %v, %v, version %d is shown", at, err, shown())
	}
	s.Write(5)
	s.CatchUp(s.Keeper(tables, 1, nil))
	Same(t, Dump(t, tables, NewSample(1).Definition()), s.expected(1))
}

func follows(t *testing.T, s *Stream, tables projection.Tables, _ func() int) {
	s.Write(4)
	kept := make(chan uint64, 1000)
	k := s.Keeper(tables, 1, func(c *projection.KeeperConfig) {
		c.Changed = func(st projection.KeeperStatus) { kept <- st.Kept }
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	for _, n := range []int{1, 30} {
		s.Write(n)
		want := uint64(0)
		if err := s.Store.Scan(t.Context(), 0, func(m history.Message) error { want = m.Sequence; return nil }); err != nil {
			t.Fatal(err)
		}
		for at := uint64(0); at < want; {
			select {
			case at = <-kept:
			case err := <-ended:
				t.Fatal(err)
			}
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	Same(t, Dump(t, tables, NewSample(1).Definition()), s.expected(1))
}

// Log writes to the test's output.
func (s *Stream) Log() *slog.Logger { return slog.New(slog.NewTextHandler(s.TB.Output(), nil)) }
