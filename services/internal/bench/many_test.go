// SPDX-License-Identifier: Apache-2.0

//go:build !race

// With the race detector the drawing of five hundred pages at every command takes a small machine minutes; what draws them is tested with it
// elsewhere.

package bench

import "testing"

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
