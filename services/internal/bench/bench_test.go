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
