// SPDX-License-Identifier: Apache-2.0

package projection

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"cacert.org/emergency/pkg/history"
)

// Tabular is a projection whose outcome is rows, to be kept where more than this process reads them. The fold stays a fold:
// it has no connection, and what it folds is in memory; only the rows go to a Tables store.
type Tabular interface {
	Definition() Definition
	// Apply folds messages in, in the order of the stream, strangers' included. An error means that the fold is wrong for
	// this stream; it is not tried again.
	Apply(batch []*Judged) error
	// Take returns what changed since it was called last: for rows that change several times, once at the end.
	Take() []Change
}

// Streaming is a Tabular that hands out its rows that never change as they come, so that neither the first build of a version nor a start, at
// which most of them are stored already, needs to keep all of them until the stream is folded.
type Streaming interface {
	Tabular
	// TakeFacts returns the rows of AppendOnly tables since it or Take was called last.
	TakeFacts() []Change
}

// Definition says what a projection keeps. A change of the fold or of its tables is a new version, which is built beside
// the old one.
type Definition struct {
	Name    string
	Version int
	Tables  []Table
	// Migrations create the tables, as numbered SQL files. They name no schema: each version has one of its own.
	Migrations fs.FS
}

// ID is the name and the version, such as operators_v1.
func (d Definition) ID() string { return fmt.Sprintf("%s_v%d", d.Name, d.Version) }

// growsOnly tells whether no row ever changes: then a new version need not be folded to its end before rows are written.
func (d Definition) growsOnly() bool {
	return !slices.ContainsFunc(d.Tables, func(t Table) bool { return !t.AppendOnly })
}

// index is which of its tables one is; -1 if none.
func (d Definition) index(table string) int {
	for i := range d.Tables {
		if d.Tables[i].Name == table {
			return i
		}
	}
	return -1
}

// Table is one table. The first Key of its columns are the primary key; where a key column is a text it is ordered by its
// bytes (COLLATE "C"), so that every store dumps in the same order.
type Table struct {
	Name       string
	Columns    []string
	Key        int
	AppendOnly bool // no row is ever changed or removed
}

// Row is the values of a table's columns: string, bool, integer, []byte, time.Time (the zero time is absent) or nil.
type Row []any

// Change is a row as it is now, or, if it is Gone, the key of a row that is no more.
type Change struct {
	Table    string
	Sequence uint64 // of the message that caused it
	Row      Row
	Gone     bool
}

// Position is how far the rows of a version have come.
type Position struct {
	history.Mark
	// Complete: the whole stream was folded in once, so that readers may look at this version.
	Complete bool
}

// Step is what one transaction does to a position.
type Step struct{ From, To Position }

// Tables keeps rows of projections, and with them how far they have come. Safe for concurrent use.
type Tables interface {
	// Open prepares the tables of a definition where they are missing, and returns how far they have come.
	Open(ctx context.Context, d Definition) (Position, error)
	// Commit makes changes and moves the position in one transaction: both are there afterwards or neither. The step to
	// Complete also makes this version the one that readers look at, unless a newer one is it already.
	//
	// A *MovedError tells that the position is not Step.From, and nothing was done. After any other error it is not known
	// whether it was done: Open tells.
	Commit(ctx context.Context, d Definition, step Step, changes []Change) error
	// Build begins the first write of a version, from a position that is not complete. Its rows come in parts, but are there all at once.
	// A *MovedError tells that the position is not from.
	Build(ctx context.Context, d Definition, from Position) (Build, error)
	// Dump writes all rows, table by table in the order of their keys, one JSON array a line: the same bytes in every store.
	Dump(ctx context.Context, d Definition, w io.Writer) error
}

// Build is the first write of a version. It is for one goroutine at a time.
type Build interface {
	// Add takes rows of AppendOnly tables, in any order. After an error nothing of the build is there.
	Add(ctx context.Context, rows []Change) error
	// Commit takes the other rows, and does what Tables.Commit does. The build is over then.
	Commit(ctx context.Context, to Position, changes []Change) error
	// Close ends a build that was not committed, and nothing of it stays. After Commit it does nothing.
	Close()
}

// AtOnce is a Build that keeps all rows and then commits them, for a store that gains nothing by parts.
func AtOnce(t Tables, d Definition, from Position) Build { return &atOnce{tables: t, d: d, from: from} }

type atOnce struct {
	tables Tables
	d      Definition
	from   Position
	rows   []Change
}

func (b *atOnce) Add(_ context.Context, rows []Change) error {
	b.rows = append(b.rows, rows...)
	return nil
}

func (b *atOnce) Commit(ctx context.Context, to Position, changes []Change) error {
	return b.tables.Commit(ctx, b.d, Step{From: b.from, To: to}, append(b.rows, changes...))
}

func (b *atOnce) Close() {}

// MovedError is returned by Commit when the rows stand elsewhere: another process keeps them, too, or it is another database.
type MovedError struct {
	ID     string
	Stored Position
	Wanted Position
}

func (e *MovedError) Error() string {
	return fmt.Sprintf("%s stands at sequence %d, not at %d", e.ID, e.Stored.Sequence, e.Wanted.Sequence)
}

// CheckChanges brings changes into the form in which all stores keep them, merges those of the same row, and refuses what
// does not fit the definition. The result is in the order of tables and keys. For implementations.
func CheckChanges(d Definition, changes []Change) (map[string][]Change, error) {
	out, err := CheckRows(d, changes)
	if err != nil {
		return nil, err
	}
	for _, t := range d.Tables {
		list := out[t.Name]
		byKey := func(a, b Change) int { return t.Compare(a.Row, b.Row) }
		if !slices.IsSortedFunc(list, byKey) {
			slices.SortStableFunc(list, byKey)
		}
		merged := list[:0]
		for _, c := range list {
			twice := len(merged) > 0 && byKey(merged[len(merged)-1], c) == 0
			switch {
			case t.AppendOnly && (twice || c.Gone):
				return nil, fmt.Errorf("a row of %s.%s changes: %s", d.ID(), t.Name, c.Row.key(t.Key))
			case twice:
				merged[len(merged)-1] = c // the later one
			default:
				merged = append(merged, c)
			}
		}
		if len(merged) > 0 {
			out[t.Name] = merged
		}
	}
	return out, nil
}

// CheckRows brings changes into the form in which all stores keep them, by table and otherwise as they came, and refuses what does not fit
// the definition. It does not look whether a row comes twice. For implementations.
func CheckRows(d Definition, changes []Change) (map[string][]Change, error) {
	tables, sizes := make([][]Change, len(d.Tables)), make([]int, len(d.Tables))
	for _, c := range changes {
		i := d.index(c.Table)
		if i < 0 {
			return nil, fmt.Errorf("%s has no table %q", d.ID(), c.Table)
		}
		sizes[i]++
	}
	for i, n := range sizes {
		tables[i] = make([]Change, 0, n)
	}
	for _, c := range changes {
		i := d.index(c.Table)
		t, want := d.Tables[i], len(d.Tables[i].Columns)
		if c.Gone {
			want = t.Key
		}
		if len(c.Row) != want {
			return nil, fmt.Errorf("a row of %s.%s has %d values instead of %d", d.ID(), t.Name, len(c.Row), want)
		}
		var err error
		if c.Row, err = normal(c.Row); err != nil {
			return nil, fmt.Errorf("a row of %s.%s: %w", d.ID(), t.Name, err)
		}
		tables[i] = append(tables[i], c)
	}
	out := map[string][]Change{}
	for i, list := range tables {
		if len(list) > 0 {
			out[d.Tables[i].Name] = list
		}
	}
	return out, nil
}

// key is the text of a row's key.
func (r Row) key(n int) string {
	var b strings.Builder
	for _, v := range r[:n] {
		fmt.Fprintf(&b, "%q ", fmt.Sprint(v))
	}
	return b.String()
}

// normal is a row as every store gives it back: PostgreSQL knows no zero byte in a text and no nanoseconds. A row that is so already is
// returned as it is.
func normal(r Row) (Row, error) {
	out, own := r, false
	set := func(i int, v any) {
		if !own {
			out, own = slices.Clone(r), true
		}
		out[i] = v
	}
	for i, v := range r {
		switch x := v.(type) {
		case nil, bool, int64, []byte:
		case string:
			if !plainText(x) {
				set(i, strings.ReplaceAll(strings.ToValidUTF8(x, "\uFFFD"), "\x00", "\uFFFD"))
			}
		case int:
			set(i, int64(x))
		case uint32:
			set(i, int64(x))
		case uint64:
			set(i, int64(x))
		case time.Time:
			if x.IsZero() {
				set(i, nil)
			} else if at := x.UTC().Truncate(time.Microsecond); at != x {
				set(i, at)
			}
		default:
			return nil, fmt.Errorf("value %d is a %T", i+1, v)
		}
	}
	return out, nil
}

// plainText tells whether every store gives a text back as it is.
func plainText(s string) bool {
	return strings.IndexByte(s, 0) < 0 && utf8.ValidString(s)
}

func compareRows(a, b Row) int {
	for i := range a {
		if c := compareValues(a[i], b[i]); c != 0 {
			return c
		}
	}
	return 0
}

// compareValues orders the values that a key may have; different kinds are never in one column.
func compareValues(a, b any) int {
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return cmp.Compare(x, y)
		}
	case int64:
		if y, ok := b.(int64); ok {
			return cmp.Compare(x, y)
		}
	case []byte:
		if y, ok := b.([]byte); ok {
			return bytes.Compare(x, y)
		}
	case time.Time:
		if y, ok := b.(time.Time); ok {
			return x.Compare(y)
		}
	}
	return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

// DumpRow writes one line of a dump. For implementations.
func DumpRow(w io.Writer, table string, row Row) error {
	row, err := normal(row)
	if err != nil {
		return fmt.Errorf("dump %s: %w", table, err)
	}
	line, err := json.Marshal(append([]any{table}, row...))
	if err != nil {
		return fmt.Errorf("dump %s: %w", table, err)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// Compare orders two rows by their keys.
func (t Table) Compare(a, b Row) int { return compareRows(a[:t.Key], b[:t.Key]) }
