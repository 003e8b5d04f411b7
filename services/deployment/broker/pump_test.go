// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/pkg/timer"
)

// nowhere is a subject's channel that takes everything.
type nowhere struct{ ssh.Channel }

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// Only the end of the target's output means that the target has ended. Output that could not be recorded does not: its session
// must not read TARGET_LOST.
func TestPumpTellsItsEndsApart(t *testing.T) {
	t.Parallel()
	b := &Broker{cfg: Config{Clock: timer.System{}, Log: slog.New(slog.DiscardHandler), Recordings: filepath.Join(t.TempDir(), "recordings")}, ctx: t.Context()}
	grant := Grant{
		Ref: Ref{Incident: "e20261124.1", Grant: "G1"}, Subject: "sa-1", Watcher: "ca-1", Host: "critical-1", Account: "root",
		Limits: Limits{Window: 1 << 20, Recording: 2 << 20, WindowAge: time.Minute},
	}
	l := &line{c: &connection{channel: nowhere{}}}

	recorded := newSession(b, grant)
	if err := recorded.createRecording(terminal{Term: "dumb", Columns: 80, Rows: 24}); err != nil {
		t.Fatal(err)
	}
	if !recorded.pump(l, strings.NewReader("all of it")) {
		t.Error("the end of the output was not seen")
	}
	if recorded.flow.offset != int64(len("all of it")) {
		t.Errorf("%d bytes are recorded", recorded.flow.offset)
	}
	if err := recorded.tape.Close(); err != nil {
		t.Fatal(err)
	}
	if recorded.pump(l, strings.NewReader("not recorded")) {
		t.Error("output that was not recorded is taken for the end of the target")
	}
}
