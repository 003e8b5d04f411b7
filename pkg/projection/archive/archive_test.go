// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/artefacts"
	artefactsmemory "cacert.org/emergency/pkg/artefacts/memory"
	"cacert.org/emergency/pkg/history"
	historymemory "cacert.org/emergency/pkg/history/memory"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/projection/archive"
	"cacert.org/emergency/pkg/projection/memory"
	"cacert.org/emergency/pkg/projection/postgres"
	"cacert.org/emergency/pkg/projection/postgres/postgrestest"
	"cacert.org/emergency/pkg/projection/projectiontest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// store is what the archive is in.
type store interface {
	projection.Tables
	archive.Reader
}

func inPostgres(t *testing.T) store {
	t.Helper()
	tables, err := postgres.New(t.Context(), postgres.Config{URL: postgrestest.Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tables.Close)
	return tables
}

func keep(t *testing.T, s *projectiontest.Stream, tables projection.Tables) {
	t.Helper()
	s.CatchUp(s.Keeper(tables, 1, func(c *projection.KeeperConfig) { c.New, c.Batch = archive.New, 5 }))
}

// Every frozen history is archived alike in memory and in PostgreSQL, and an empty log that is restored from the archive is
// the same, message by message.
func TestRestore(t *testing.T) {
	t.Parallel()
	projectiontest.EachFrozen(t, func(t *testing.T, s *projectiontest.Stream) {
		fresh, kept := &memory.Tables{}, inPostgres(t)
		keep(t, s, fresh)
		keep(t, s, kept)
		projectiontest.Same(t, projectiontest.Dump(t, kept, archive.Definition()), projectiontest.Dump(t, fresh, archive.Definition()))
		to := &historymemory.Store{}
		got, err := archive.Restore(t.Context(), kept, s.Keys.Ring, to)
		if err != nil {
			t.Fatal(err)
		}
		want, err := history.Verify(t.Context(), s.Store, s.Keys.Ring)
		if err != nil {
			t.Fatal(err)
		}
		if !got.SameSequences || got.Foreign == 0 || got.Messages != want.Messages || got.LeftOut != 0 || len(got.Heads) != 2 {
			t.Errorf("restored %+v", got)
		}
		for id, head := range want.Heads {
			if got.Heads[id] != head {
				t.Errorf("%s: head %v, want %v", id, got.Heads[id], head)
			}
		}
		if a, b := messages(t, s.Store), messages(t, to); !slices.Equal(a, b) || len(a) == 0 {
			t.Errorf("%d messages were restored as %d others", len(a), len(b))
		}
		// Whoever kept a mark of the old log goes on with the new one.
		s.Store = to
		keep(t, s, kept)
		again, err := archive.Restore(t.Context(), kept, s.Keys.Ring, to)
		if err != nil || again.Before != got.Messages || again.Messages != got.Messages || again.Last != got.Last {
			t.Errorf("into a log that has it all: %+v, %v", again, err)
		}
	})
}

// A log that has what the archive begins with is gone on with, whether a restore was interrupted or an old copy was put back. One that has
// anything else is left as it is.
func TestRestoreGoesOn(t *testing.T) {
	t.Parallel()
	s := projectiontest.NewStream(t)
	s.Write(9) // and a stranger's
	s.Write(9)
	kept := &memory.Tables{}
	keep(t, s, kept)
	all := messages(t, s.Store)
	for cut := range len(all) {
		to := &historymemory.Store{}
		copied := 0
		err := s.Store.Scan(t.Context(), 0, func(m history.Message) error {
			if copied++; copied > cut {
				return errEnough
			}
			subject, err := history.Subject(m.Incident)
			if err != nil {
				subject = "emergency.Nothing_Of_Ours"
			}
			to.Publish(subject, m.Data)
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
		got, err := archive.Restore(t.Context(), kept, s.Keys.Ring, to)
		if err != nil || got.Before != uint64(cut) || got.Before+uint64(len(all)-cut) != got.Messages+got.LeftOut {
			t.Errorf("after %d messages: %+v, %v", cut, got, err)
		}
	}
	for name, spoil := range map[string]func(*historymemory.Store){
		"another message": func(to *historymemory.Store) { to.Publish("emergency.e20261124-1", []byte("junk")) },
		"more than the archive has": func(to *historymemory.Store) {
			if _, err := archive.Restore(t.Context(), kept, s.Keys.Ring, to); err != nil {
				t.Fatal(err)
			}
			to.Publish("emergency.e20261124-1", []byte("junk"))
		},
	} {
		to := &historymemory.Store{}
		spoil(to)
		before := messages(t, to)
		if _, err := archive.Restore(t.Context(), kept, s.Keys.Ring, to); !errors.Is(err, archive.ErrNotEmpty) || !slices.Equal(before, messages(t, to)) {
			t.Errorf("%s: %v, and %d messages are %d", name, err, len(before), len(messages(t, to)))
		}
	}
}

var errEnough = errors.New("enough")

func messages(t *testing.T, from history.Store) []string {
	t.Helper()
	var list []string
	err := from.Scan(t.Context(), 0, func(m history.Message) error {
		list = append(list, m.Incident+" "+string(m.Data)+" "+m.Header["traceparent"])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// What is on a subject that names no incident is left out, and that is said.
func TestRestoreLeavesOut(t *testing.T) {
	t.Parallel()
	s := projectiontest.NewStream(t)
	s.Write(3)
	s.Write(3)
	kept := &memory.Tables{}
	keep(t, s, kept)
	got, err := archive.Restore(t.Context(), kept, s.Keys.Ring, &historymemory.Store{})
	if err != nil || got.SameSequences || got.LeftOut != 2 || got.Messages != 6 {
		t.Errorf("%+v, %v", got, err)
	}
}

// changed is an archive of which some rows read otherwise.
type changed struct {
	archive.Reader
	change func(table string, row projection.Row) projection.Row // nil: the row is not there
}

func (c changed) Each(ctx context.Context, d projection.Definition, table string, fn func(projection.Row) error) error {
	return c.Reader.Each(ctx, d, table, func(row projection.Row) error {
		if row = c.change(table, slices.Clone(row)); row == nil {
			return nil
		}
		return fn(row)
	})
}

func at(sequence int64, change func(projection.Row) projection.Row) func(string, projection.Row) projection.Row {
	return func(table string, row projection.Row) projection.Row {
		if table == "messages" && row[0] == sequence {
			return change(row)
		}
		return row
	}
}

func flipped(data []byte) []byte {
	data = bytes.Clone(data)
	data[len(data)/2] ^= 1
	return data
}

// An archive that is not whole restores nothing.
func TestRestoreRefusesDamage(t *testing.T) {
	t.Parallel()
	s := projectiontest.NewStream(t)
	s.Write(9)
	kept := &memory.Tables{}
	keep(t, s, kept)
	for name, c := range map[string]struct {
		change func(string, projection.Row) projection.Row
		want   string
	}{
		"a row that is missing": {at(3, func(projection.Row) projection.Row { return nil }), "sequences 3 to 3 are missing"},
		"the last one missing":  {at(10, func(projection.Row) projection.Row { return nil }), "has read to 10"},
		"a flipped bit":         {at(2, func(r projection.Row) projection.Row { r[2] = flipped(r[2].([]byte)); return r }), "digest"},
		"a forged row": {at(4, func(r projection.Row) projection.Row {
			r[2] = flipped(r[2].([]byte))
			r[3] = artefacts.Digest(r[2].([]byte))
			return r
		}), "continue"},
	} {
		to := &historymemory.Store{}
		_, err := archive.Restore(t.Context(), changed{kept, c.change}, s.Keys.Ring, to)
		var damaged *archive.DamagedError
		if !errors.As(err, &damaged) || !strings.Contains(strings.Join(damaged.Problems, "\n"), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(messages(t, to)); n != 0 {
			t.Errorf("%s: %d messages were written", name, n)
		}
	}
}

// Reconcile names each kind of difference, and nothing where there is none.
func TestReconcile(t *testing.T) {
	t.Parallel()
	projectiontest.EachFrozen(t, func(t *testing.T, s *projectiontest.Stream) {
		kept := inPostgres(t)
		keep(t, s, kept)
		files := filesOf(t, kept)
		run := func(log history.Store, from archive.Reader, files artefacts.Store) *archive.Reconciliation {
			t.Helper()
			r, err := archive.Reconcile(t.Context(), archive.Sources{Log: log, Keys: s.Keys.Ring, Archive: from, Artefacts: files})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		clean := run(s.Store, kept, files)
		if len(clean.Differences) > 0 || clean.Behind != 0 || clean.InStream != clean.InArchive || clean.InStream == 0 || clean.Artefacts == 0 || !clean.Log.Sound() {
			t.Fatalf("nothing is wrong, and found is %+v", clean)
		}
		only := func(r *archive.Reconciliation, kind archive.Kind, sequence uint64) {
			t.Helper()
			if len(r.Differences) != 1 || r.Differences[0].Kind != kind || r.Differences[0].Sequence != sequence {
				t.Errorf("want one %s at %d, found %v", kind, sequence, r.Differences)
			}
		}
		only(run(s.Store, changed{kept, at(3, func(projection.Row) projection.Row { return nil })}, files), archive.MissingInArchive, 3)
		only(run(s.Store, changed{kept, at(3, func(r projection.Row) projection.Row { r[1] = "e1"; return r })}, files), archive.DifferentBytes, 3)
		damaged := run(s.Store, changed{kept, at(5, func(r projection.Row) projection.Row { r[2] = flipped(r[2].([]byte)); return r })}, files)
		if len(damaged.Differences) != 2 || damaged.Differences[0].Kind != archive.ArchiveDamaged || damaged.Differences[1].Kind != archive.DifferentBytes {
			t.Errorf("a flipped bit in the archive: %v", damaged.Differences)
		}
		for _, hide := range []string{"missing", "wrong"} {
			f := &holed{Store: files, how: hide}
			r := run(s.Store, kept, f)
			want := map[string]archive.Kind{"missing": archive.ArtefactMissing, "wrong": archive.ArtefactWrong}[hide]
			if len(r.Differences) == 0 || r.Differences[0].Kind != want || r.Differences[0].Position == 0 || r.Differences[0].Incident == "" {
				t.Errorf("an artefact that is %s: %v", hide, r.Differences)
			}
		}
		last := clean.Log.LastSequence
		log := s.Truncated(last).Store
		log.Damage(func(sequence uint64, data []byte) ([]byte, bool) {
			if sequence == 4 {
				data = flipped(data)
			}
			return data, sequence < last
		})
		r := run(log, kept, files)
		if len(r.Differences) != 2 || r.Differences[0].Kind != archive.DifferentBytes || r.Differences[0].Sequence != 4 ||
			r.Differences[1].Kind != archive.MissingInStream || r.Differences[1].Sequence != last {
			t.Errorf("a log with a flipped bit and without its end: %v", r.Differences)
		}
		s.Store.Publish("emergency.e20261124-1", []byte("new"))
		if r := run(s.Store, kept, files); len(r.Differences) != 0 || r.Behind != 1 {
			t.Errorf("what the archive has yet to read: %d, %v", r.Behind, r.Differences)
		}
	})
}

// What arrives while log and archive are compared is no difference, and the archive is given time to read what the log had before.
func TestReconcileWhileItGoesOn(t *testing.T) {
	t.Parallel()
	s := projectiontest.NewStream(t)
	s.Write(6) // and a stranger's message with each Write
	kept := &memory.Tables{}
	keep(t, s, kept)
	s.Write(3) // which the archive reads only when it is waited for
	var told []uint64
	late := errors.New("it takes too long")
	sources := archive.Sources{Log: s.Store, Keys: s.Keys.Ring, Archive: kept, Artefacts: artefactsmemory.New(artefacts.DefaultLimit)}
	sources.Pause = func(_ context.Context, behind uint64) error {
		told = append(told, behind)
		return late
	}
	check := func(from archive.Sources, behind uint64) {
		t.Helper()
		r, err := archive.Reconcile(t.Context(), from)
		if err != nil || len(r.Differences) != 0 || r.Behind != behind || r.InStream != 11 || r.InArchive != 11-behind {
			t.Errorf("%+v, %v", r, err)
		}
	}
	check(sources, 4)
	sources.Pause = func(_ context.Context, behind uint64) error {
		told = append(told, behind)
		s.Write(3) // and there is more by then
		keep(t, s, kept)
		return nil
	}
	check(sources, 0)
	if !slices.Equal(told, []uint64{4, 4}) {
		t.Errorf("the archive was waited for when it was behind %v", told)
	}
	// What the archive had before the log was read must be in the log, though it is behind the log's end.
	s.Store.Damage(func(sequence uint64, data []byte) ([]byte, bool) { return data, sequence < 15 })
	sources.Pause = nil
	r, err := archive.Reconcile(t.Context(), sources)
	if err != nil || len(r.Differences) != 1 || r.Differences[0].Kind != archive.MissingInStream || r.Differences[0].Sequence != 15 {
		t.Errorf("%+v, %v", r, err)
	}
}

// known has bytes for the digests that frozen histories name; whose bytes are not in the repository.
type known struct{ sizes map[string]int64 }

func filesOf(t *testing.T, from archive.Reader) *known {
	t.Helper()
	k := &known{map[string]int64{}}
	err := from.Each(t.Context(), archive.Definition(), "artefacts", func(row projection.Row) error {
		k.sizes[row[3].(string)] = row[4].(int64)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *known) Put(context.Context, io.Reader, string) (artefacts.Ref, error) {
	return artefacts.Ref{}, errors.New("nothing is put here")
}

func (k *known) Get(_ context.Context, sha256 string) ([]byte, error) {
	size, ok := k.sizes[sha256]
	if !ok {
		return nil, artefacts.ErrNotFound
	}
	return make([]byte, size), nil
}

// holed is a store without its artefacts, or with others.
type holed struct {
	artefacts.Store
	how string
}

func (h *holed) Get(_ context.Context, sha256 string) ([]byte, error) {
	if h.how == "wrong" {
		return nil, artefacts.Verify(sha256, []byte("others"))
	}
	return nil, artefacts.ErrNotFound
}

// A real store that lost a file, or has another one, is noticed by what it answers.
func TestReconcileRealArtefacts(t *testing.T) {
	t.Parallel()
	s := projectiontest.NewStream(t)
	s.Write(2)
	kept := &memory.Tables{}
	keep(t, s, kept)
	files := artefactsmemory.New(artefacts.DefaultLimit)
	ref, err := files.Put(t.Context(), strings.NewReader("a patch"), "text/x-diff")
	if err != nil {
		t.Fatal(err)
	}
	row := projection.Row{"e20261124.1", int64(1), int64(1), ref.SHA256, ref.Size, ref.MediaType, int64(1)}
	from := added{kept, row}
	check := func(want ...archive.Kind) {
		t.Helper()
		r, err := archive.Reconcile(t.Context(), archive.Sources{Log: s.Store, Keys: s.Keys.Ring, Archive: from, Artefacts: files})
		if err != nil {
			t.Fatal(err)
		}
		var got []archive.Kind
		for _, d := range r.Differences {
			got = append(got, d.Kind)
		}
		if !slices.Equal(got, want) {
			t.Errorf("found %v, want %v", r.Differences, want)
		}
	}
	check()
	files.Replace(ref.SHA256, []byte("b patch"))
	check(archive.ArtefactWrong)
	from.row[3] = artefacts.Digest([]byte("never stored"))
	check(archive.ArtefactMissing)
}

// added is an archive with one artefact more.
type added struct {
	archive.Reader
	row projection.Row
}

func (a added) Each(ctx context.Context, d projection.Definition, table string, fn func(projection.Row) error) error {
	if err := a.Reader.Each(ctx, d, table, fn); err != nil || table != "artefacts" {
		return err
	}
	return fn(a.row)
}
