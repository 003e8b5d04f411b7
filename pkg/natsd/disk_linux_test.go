// SPDX-License-Identifier: Apache-2.0

package natsd_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/natsd/natsdtest"
)

// TestNotReadyAfterFailedWrite: a server whose disk fails goes on running and says nothing by itself.
func TestNotReadyAfterFailedWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	js := connect(t, s)
	must(t, natsd.Provision(t.Context(), js, small))
	must(t, s.Ready(t.Context()))
	publish(t, js, "emergency.e20261124-1", 1)
	must(t, s.Ready(t.Context()))
	natsdtest.Full(t, filepath.Join(dir, "jetstream", "$G", "streams", natsd.Stream, "msgs", "1.blk"))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // it does not answer
	defer cancel()
	if _, err := js.Publish(ctx, "emergency.e20261124-1", []byte("x")); err == nil {
		t.Fatal("a failed write is acknowledged")
	}
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), natsd.Stream) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("after a failed write: %v", err)
	}
}
