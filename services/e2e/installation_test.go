// SPDX-License-Identifier: Apache-2.0

//go:build !race

package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"

	"cacert.org/emergency/services/internal/cluster"
	"cacert.org/emergency/services/internal/testenv"
)

// startInstallation starts one of processes in cfg.Dir, with an empty repository, and stops it at the end of the test.
func startInstallation(t *testing.T, cfg cluster.Config) *cluster.Cluster {
	t.Helper()
	cfg.Epatchd, cfg.NATS = testenv.Programs(t)
	cfg.Repository, cfg.Say = filepath.Join(cfg.Dir, "repository.git"), t.Logf
	must(t, exec.CommandContext(t.Context(), "git", "init", "--quiet", "--bare", cfg.Repository).Run())
	c, err := cluster.Start(t.Context(), cfg)
	t.Cleanup(func() { must(t, c.Stop()) })
	must(t, err)
	return c
}
