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

func (d Definition) table(name string) (Table, error) {
	for _, t := range d.Tables {
		if t.Name == name {
			return t, nil
		}
	}
	return Table{}, fmt.Errorf("%s has no table %q", d.ID(), name)
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
	// Dump writes all rows, table by table in the order of their keys, one JSON array a line: the same bytes in every store.
	Dump(ctx context.Context, d Definition, w io.Writer) error
}

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
	merged := map[string]map[string]Change{}
	for _, c := range changes {
		t, err := d.table(c.Table)
		if err != nil {
			return nil, err
		}
		want := len(t.Columns)
		if c.Gone {
			want = t.Key
		}
		if len(c.Row) != want {
			return nil, fmt.Errorf("a row of %s.%s has %d values instead of %d", d.ID(), t.Name, len(c.Row), want)
		}
		if c.Row, err = normal(c.Row); err != nil {
			return nil, fmt.Errorf("a row of %s.%s: %w", d.ID(), t.Name, err)
		}
		if merged[t.Name] == nil {
			merged[t.Name] = map[string]Change{}
		}
		key := c.Row.key(t.Key)
		if _, twice := merged[t.Name][key]; t.AppendOnly && (twice || c.Gone) {
			return nil, fmt.Errorf("a row of %s.%s changes: %s", d.ID(), t.Name, key)
		}
		merged[t.Name][key] = c
	}
	out := map[string][]Change{}
	for _, t := range d.Tables {
		for _, c := range merged[t.Name] {
			out[t.Name] = append(out[t.Name], c)
		}
		slices.SortFunc(out[t.Name], func(a, b Change) int { return compareRows(a.Row[:t.Key], b.Row[:t.Key]) })
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

// normal is a row as every store gives it back: PostgreSQL knows no zero byte in a text and no nanoseconds.
func normal(r Row) (Row, error) {
	out := make(Row, len(r))
	for i, v := range r {
		switch x := v.(type) {
		case nil, bool, int64, []byte:
			out[i] = x
		case string:
			out[i] = strings.ReplaceAll(strings.ToValidUTF8(x, "\uFFFD"), "\x00", "\uFFFD")
		case int:
			out[i] = int64(x)
		case uint32:
			out[i] = int64(x)
		case uint64:
			out[i] = int64(x)
		case time.Time:
			if !x.IsZero() {
				out[i] = x.UTC().Truncate(time.Microsecond)
			}
		default:
			return nil, fmt.Errorf("value %d is a %T", i+1, v)
		}
	}
	return out, nil
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
