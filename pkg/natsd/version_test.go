// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"log/slog"
	"strings"
	"testing"
)

func TestVersionAtLeast(t *testing.T) {
	t.Parallel()
	for have, want := range map[string]bool{
		"2.15.2": true, "v2.15.2": true, "2.15.3": true, "2.16.0": true, "3.0.0": true, "2.15.10": true, "2.16.0-RC.1": true,
		"2.15.1": false, "2.9.99": false, "1.99.99": false, "": false, "2.15": false, "2.x.2": false, "2.15.2.1": false,
	} {
		if got := versionAtLeast(have, "2.15.2"); got != want {
			t.Errorf("%q at least 2.15.2: %t", have, got)
		}
	}
}

// TestRunRefusesUnsyncedServer starts a server with the default of NATS, as a wrong change of options would.
func TestRunRefusesUnsyncedServer(t *testing.T) {
	t.Parallel()
	opts, err := options(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	opts.SyncAlways = false
	s, err := run(opts, slog.New(slog.DiscardHandler))
	if err == nil {
		s.ns.Shutdown()
		t.Fatal("started")
	}
	if !strings.Contains(err.Error(), "does not sync") {
		t.Errorf("error %v", err)
	}
}

// TestOnlyTheStoreIsUnhealthy: a machine that is busy ends no process.
func TestOnlyTheStoreIsUnhealthy(t *testing.T) {
	t.Parallel()
	for answer, wrong := range map[string]bool{
		`{"status":"ok","status_code":200}`: false,
		`{"status":"error","status_code":500,"error":"failed to be ready for connections after 1ms"}`:                                 false,
		`{"status":"unavailable","status_code":503,"error":"JetStream stream '$G > EMERGENCY' write error: no space left on device"}`: true,
		`{"status":"unavailable","status_code":503,"error":"JetStream not enabled"}`:                                                  true,
		``: true,
	} {
		if err := unhealthy([]byte(answer)); wrong != (err != nil) {
			t.Errorf("%s: %v", answer, err)
		}
	}
}
