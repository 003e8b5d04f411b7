// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"log/slog"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
)

// However many records a service shows that are no part of the history, the agent remembers a few of them and how many there were.
func TestSkippedIsBounded(t *testing.T) {
	t.Parallel()
	f := &follower{keys: historytest.NewKeys(t, "services").Ring, log: slog.New(slog.DiscardHandler)}
	out, chain := &shown{}, history.NewChain("e20261124.1", f.keys)
	const strange = 1000
	for range strange {
		if err := f.accept(t.Context(), out, chain, []byte("junk")); err != nil {
			t.Fatal(err)
		}
	}
	if len(out.skipped) != skippedKept || out.more != strange-skippedKept {
		t.Errorf("%d are kept, %d counted", len(out.skipped), out.more)
	}
	if hint := (&verified{skipped: out.skipped, more: out.more}).hint(); !strings.HasSuffix(hint, "; and 980 more") {
		t.Errorf("said %q", hint)
	}
}
