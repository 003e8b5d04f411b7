// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The figure of several turns is their median, with the least and the most, whatever their order.
func TestRanged(t *testing.T) {
	t.Parallel()
	f := ranged("x", "us", []float64{9, 1, 4}, []float64{2, 8, 1})
	if f.Value != 4 || f.Baseline != 2 || f.Ratio != 2 || !slices.Equal(f.Range, []float64{1, 9}) || !slices.Equal(f.BaselineRange, []float64{1, 8}) {
		t.Errorf("%+v", f)
	}
}

// What could not be measured is said, and no figure stands in its place.
func TestNotMeasuredIsSaid(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no ssh
	figures, err := console(t.Context(), &rig{dir: filepath.Join(t.TempDir(), "x")}, Options{Rounds: 1})
	if err != nil || len(figures) != 1 || figures[0].Value != 0 {
		t.Fatalf("%+v, %v", figures, err)
	}
	var out strings.Builder
	if err := printTable(&out, figures); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.Contains(text, "\nnot measured: "+consoleName+": OpenSSH's client: ") {
		t.Error(text)
	}
}

// Five hundred pages are open on one dashboard while commands come as fast as they go: each shows the last position, and none is hung up.
// The figures are for make bench; here only that there are some.
func TestFiveHundredPages(t *testing.T) {
	t.Parallel()
	r, err := openRig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := r.declare(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	b, err := r.browsers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	figures, err := r.many(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if f := figures[0]; f.Value != pagesMany || f.Baseline != pagesMany {
		t.Errorf("%+v", f)
	}
	for _, f := range figures {
		t.Logf("%s: %.1f against %.1f %s", f.Name, f.Value, f.Baseline, f.Unit)
	}
}

// A page whose stream ends is told, also if it had shown enough before.
func TestEndedPageIsTold(t *testing.T) {
	t.Parallel()
	p := &openPage{news: make(chan struct{}, 1), reached: []arrival{{3, time.Now()}}}
	if _, err := p.reach(t.Context(), 3); err != nil {
		t.Error(err)
	}
	p.end(nil)
	if _, err := p.reach(t.Context(), 3); err == nil {
		t.Error("an ended stream is taken for an open page")
	}
}
