// SPDX-License-Identifier: Apache-2.0

//go:build !race

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

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
	epatchd, nats := testenv.Programs(t)
	repo := filepath.Join(dir, "repository.git")
	must(t, exec.CommandContext(t.Context(), "git", "init", "--quiet", "--bare", repo).Run())
	c, err := cluster.Start(t.Context(), cluster.Config{Dir: dir, Epatchd: epatchd, NATS: nats, Repository: repo, Say: t.Logf})
	t.Cleanup(func() { must(t, c.Stop()) })
	must(t, err)
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
	for _, i := range c.Instances {
		must(t, c.StartInstance(ctx, i))
	}
	third := declareIn(t, ctx, c)
	if third != second {
		t.Errorf("after a restore the next emergency is %s, want %s, which was lost", third, second)
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
