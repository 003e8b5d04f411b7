// SPDX-License-Identifier: Apache-2.0

//go:build !race

package e2e

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/projection/postgres/postgrestest"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/cluster"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// TestRestoreCluster does what docs/runbooks.md says about a backup of an installation: one server of the event log is stopped, its store
// copied, and started again while the others go on; then a store is lost, and at last all three, which are made from the copy.
func TestRestoreCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: a cluster of processes takes most of a minute; run without -short")
	}
	dir := t.TempDir()
	c := startInstallation(t, cluster.Config{Dir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	first := declareIn(t, ctx, c)

	// Backup: one server at a time may be away.
	server, copied := c.Servers[1], filepath.Join(dir, "backup")
	must(t, server.Process().Stop())
	must(t, os.CopyFS(copied, os.DirFS(server.Store)))
	second := declareIn(t, ctx, c) // acknowledged after the copy, so a restore of it all does not have it
	must(t, c.StartServer(ctx, server))
	must(t, c.AwaitHealthy(ctx))
	if second == first {
		t.Fatalf("two emergencies are both %s", first)
	}

	// One server's store is lost: it fetches everything from the others.
	must(t, server.Process().Stop())
	must(t, os.RemoveAll(server.Store))
	must(t, c.StartServer(ctx, server))
	must(t, c.AwaitHealthy(ctx))

	// All is lost: services and servers stop, and every server begins from the copy.
	for _, i := range c.Instances {
		must(t, i.Process().Stop())
	}
	for _, s := range c.Servers {
		must(t, s.Process().Stop())
	}
	for _, s := range c.Servers {
		must(t, os.RemoveAll(s.Store))
		must(t, os.CopyFS(s.Store, os.DirFS(copied)))
		must(t, c.StartServer(ctx, s))
	}
	must(t, c.AwaitHealthy(ctx))
	refused(t, ctx, c)
	forget(t, dir)
	for _, i := range c.Instances {
		must(t, c.StartInstance(ctx, i))
	}
	third := declareIn(t, ctx, c)
	if third != second {
		t.Errorf("after a restore the next emergency is %s, want %s, which was lost", third, second)
	}
}

// TestRestoreArchive: of a running installation log, archive and files are compared, by a user that can only read; a changed row of the archive
// is named. Then all three servers of the event log lose their stores, and the log is restored from the archive: every history is what it was,
// nothing goes out a second time, and the work goes on.
func TestRestoreArchive(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: a cluster of processes takes most of a minute; run without -short")
	}
	dir, address := t.TempDir(), postgrestest.Own(t).Database(t)
	c := startInstallation(t, cluster.Config{
		Dir: dir, More: map[string][]string{natsd.Reader: {"--database", address}},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	l := &load{t: t, data: dir, changed: make(chan struct{}), connect: c.Client}
	group, failed := l.start()
	reconcile := append([]string{"reconcile", "--database", address}, c.LogSettings(natsd.Reader)...)
	if said := compareLog(t, reconcile...); !strings.Contains(said, "no difference") || strings.Contains(said, "MISSING") {
		t.Errorf("under load reconcile said %s", said)
	}
	l.mu.Lock()
	l.stop = true
	l.poke()
	first := l.incidents[0]
	l.mu.Unlock()
	group.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}

	changeRow(t, address)
	said, err := tryCompare(t, reconcile...)
	if err == nil || !strings.Contains(said, "ARCHIVE_DAMAGED: sequence 3 ") || !strings.Contains(said, "DIFFERENT_BYTES: sequence 3 ") || strings.Contains(said, "sequence 4 ") {
		t.Errorf("of a changed row reconcile said %s, %v", said, err)
	}
	changeRow(t, address)
	awaitCalled(t, ctx, c, first)

	// All is lost but PostgreSQL, which has everything: nothing is written any more when that is proved.
	for _, i := range c.Instances {
		if i.Service != natsd.Reader {
			must(t, i.Process().Stop())
		}
	}
	if said := compareLog(t, reconcile...); !strings.Contains(said, "not archived yet 0") {
		t.Errorf("before the loss reconcile said %s", said)
	}
	before := heads(t, c)
	for _, i := range c.Instances {
		must(t, i.Process().Stop())
	}
	junk(t, c) // which nobody brings to the archive any more
	said, err = tryCompare(t, append(reconcile, "--wait", "1ms")...)
	if err == nil || !strings.Contains(err.Error(), "the last 1 messages are not in the archive") || !strings.Contains(said, "it is given 1ms") || !strings.Contains(said, "no difference") {
		t.Errorf("of an archive that stays behind reconcile said %s, %v", said, err)
	}
	for _, s := range c.Servers {
		must(t, s.Process().Stop())
		must(t, os.RemoveAll(s.Store))
	}
	for _, s := range c.Servers {
		must(t, c.StartServer(ctx, s))
	}
	must(t, c.Provision(ctx))
	must(t, c.AwaitHealthy(ctx))
	restore := append([]string{"restore", "--nats-synced", "--database", address}, c.LogSettings("")...)
	said = compareLog(t, restore...)
	after := heads(t, c)
	for id, head := range before {
		if after[id] != head || !strings.Contains(said, head.Hash) {
			t.Errorf("%s ends with %v, was %v; restore said %s", id, after[id], head, said)
		}
	}
	if len(before) < 2 || len(after) != len(before) {
		t.Errorf("%d histories, there were %d", len(after), len(before))
	}
	if !strings.Contains(said, "log.mark") {
		t.Errorf("restore does not say which files have to go: %s", said)
	}
	refused(t, ctx, c)
	forget(t, dir)
	for _, i := range c.Instances {
		must(t, c.StartInstance(ctx, i))
	}
	second := declareIn(t, ctx, c)
	awaitCalled(t, ctx, c, second)
	for _, act := range begun(t, c) {
		incident, rest, _ := strings.Cut(act, "/")
		word, _, _ := strings.Cut(rest, "/")
		position, err := strconv.ParseUint(word, 10, 64)
		must(t, err)
		if position <= before[incident].Position {
			t.Errorf("%s is done a second time", act)
		}
	}
}

// refused tries to start a service on a log that is not the one it has seen.
func refused(t *testing.T, ctx context.Context, c *cluster.Cluster) {
	t.Helper()
	err := c.StartInstance(ctx, c.Instances[0])
	if err == nil || !strings.Contains(err.Error(), "restore the log that was there") {
		t.Fatalf("%s starts on another log: %v", c.Instances[0].Name(), err)
	}
}

// forget is the step of the runbook by which operators say that they have decided on another log.
func forget(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "state", "*", "log.mark"))
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no process remembers anything")
	}
	for _, f := range files {
		must(t, os.Remove(f))
	}
}

// junk is a message of a stranger, who has a credential of the event log.
func junk(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	js, err := c.Log()
	must(t, err)
	defer js.Conn().Close()
	_, err = js.Publish(t.Context(), "emergency.e20261124-1", []byte("junk"))
	must(t, err)
}

// changeRow flips a bit of an archived message, and back.
func changeRow(t *testing.T, address string) {
	t.Helper()
	if n := ask[int64](t, address, `WITH changed AS (UPDATE archive_v1.messages SET bytes = set_bit(bytes, 99, 1 - get_bit(bytes, 99)) WHERE sequence = 3 RETURNING 1) SELECT count(*) FROM changed`); n != 1 {
		t.Fatalf("%d rows were changed", n)
	}
}

// heads are the ends of all histories, which are proved whole.
func heads(t *testing.T, c *cluster.Cluster) map[string]history.Head {
	t.Helper()
	js, err := c.Log()
	must(t, err)
	defer js.Conn().Close()
	store, err := jetstream.New(t.Context(), jetstream.Config{JS: js, Logger: slog.New(slog.DiscardHandler), Consumers: true})
	must(t, err)
	keys, err := history.LoadKeyring(c.Keyring())
	must(t, err)
	report, err := history.Verify(t.Context(), store, keys)
	must(t, err)
	if !report.Clean() {
		t.Errorf("the log is not whole: %v", report.Findings)
	}
	return report.Heads
}

// begun are the acts on the outside that services have begun since the servers have an empty ledger, by the event that caused each.
func begun(t *testing.T, c *cluster.Cluster) []string {
	t.Helper()
	js, err := c.Log()
	must(t, err)
	defer js.Conn().Close()
	ledger, err := js.KeyValue(t.Context(), natsd.EffectBucket)
	must(t, err)
	keys, err := ledger.Keys(t.Context())
	must(t, err)
	var list []string
	for _, key := range keys {
		if parts := strings.Split(key, "."); parts[0] == "effect" {
			name, err := base64.RawURLEncoding.DecodeString(parts[2])
			must(t, err)
			list = append(list, string(name))
		}
	}
	return list
}

// awaitCalled waits until it is known of every call about an incident what became of it.
func awaitCalled(t *testing.T, ctx context.Context, c *cluster.Cluster, incident string) {
	t.Helper()
	carla, err := c.Client("carla")
	must(t, err)
	defer func() { must(t, carla.Close()) }()
	errCalled := errors.New("called")
	for !errors.Is(err, errCalled) {
		err = carla.Watch(ctx, incident, func(m *dashboardv1.WatchIncidentResponse) error {
			if testenv.Paged(m.GetIncident()) {
				return errCalled
			}
			return nil
		})
		if err == nil || !errors.Is(err, errCalled) && status.Code(err) != codes.NotFound { // which an instance says that is a moment behind
			t.Fatalf("the calls about %s: %v", incident, err)
		}
	}
}

// declareIn declares an emergency as carla and returns its id.
func declareIn(t *testing.T, ctx context.Context, c *cluster.Cluster) string {
	t.Helper()
	carla, err := c.Client("carla")
	must(t, err)
	defer func() { must(t, carla.Close()) }()
	committed, err := carla.Send(ctx, &emergencyv1.DeclareRequest{
		Meta: &emergencyv1.CommandMeta{}, System: demobook.System, Symptom: "login answers 500", Severity: emergencyv1.Severity_SEVERITY_HIGH,
		ReasonClass: emergencyv1.ReasonClass_REASON_CLASS_OUTAGE, Reason: "no member can log in",
	})
	must(t, err)
	return committed.GetIncident()
}
