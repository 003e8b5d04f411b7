// SPDX-License-Identifier: Apache-2.0

package app_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/natsd/natsdtest"
)

// TestFailedWriteEndsTheNode: after a failed write the embedded log acknowledges nothing more, and a process that stayed would look well
// (hardening 2).
func TestFailedWriteEndsTheNode(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := start(t, data)
	ready := func() (int, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.addrs.HTTP+"/readyz", nil)
		must(t, err)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err
		}
		return res.StatusCode, res.Body.Close()
	}
	if code, err := ready(); err != nil || code != http.StatusOK {
		t.Fatalf("a node that runs: %d, %v", code, err)
	}
	natsdtest.Full(t, filepath.Join(data, "nats", "jetstream", "$G", "streams", "KV_RESTRICTED_arbitration", "msgs", "1.blk"))
	must(t, s.JetStream().Conn().Publish("$KV.RESTRICTED_arbitration.x", []byte("x")))
	if err := s.end(t); err == nil || !strings.Contains(err.Error(), "takes no more writes") || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("the node ended with %v", err)
	}
	if code, err := ready(); err == nil && code == http.StatusOK {
		t.Error("it says that it is ready")
	}
}
