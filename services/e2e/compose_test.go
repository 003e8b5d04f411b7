// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"

	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/cluster"
)

// installation is the folder of what is an installation's own; in the test it does not exist.
const installation = "/installation-of-the-test"

// composed is docker-compose.yml as Docker reads it, by the library of its specification, with a profile.
func composed(t *testing.T, profile string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"../../docker-compose.yml"}, cli.WithProfiles([]string{profile}), cli.WithEnv([]string{"EPATCH_INSTALLATION=" + installation}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

var pinned = regexp.MustCompile(`^[a-z0-9./-]+:v?[0-9]+\.[0-9]+(\.[0-9]+)?(-[a-z0-9]+)?$`)

// TestCompose: the file is one that Docker takes; it starts what a cluster is made of, with images of a named version, files that are
// there, no port to the world, and settings that the programs know.
func TestCompose(t *testing.T) {
	t.Parallel()
	project := composed(t, "installation")
	var want []string
	for _, s := range cluster.Services() {
		want = append(want, s+"-1", s+"-2")
	}
	want = append(want, "nats-1", "nats-2", "nats-3", "postgres", "collector", "prometheus", "grafana", "mail")
	slices.Sort(want)
	if got := project.ServiceNames(); !slices.Equal(got, want) {
		t.Errorf("the installation is %v, want %v", got, want)
	}
	if got := composed(t, "simple").ServiceNames(); !slices.Equal(got, []string{"epatchd"}) {
		t.Errorf("the simple form is %v", got)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(servicesOf(project), servicesOf(composed(t, "simple"))...) {
		checkContainer(t, root, s)
	}
	for _, server := range []string{"nats-1", "nats-2", "nats-3"} {
		if run := strings.Join(project.Services[server].Entrypoint, " "); !strings.Contains(run, "epatchd nats examine /var/lib/nats && exec nats-server") {
			t.Errorf("%s does not examine its store before each start: %s", server, run)
		}
	}
	for name, secret := range project.Secrets {
		if !strings.HasPrefix(secret.File, installation+"/") {
			t.Errorf("secret %s is in %s, not in the installation's own folder", name, secret.File)
		}
	}
	scraped, err := os.ReadFile("../../deploy/prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range cluster.Services() {
		for _, instance := range []string{s + "-1", s + "-2"} {
			if !strings.Contains(string(scraped), `"`+instance+`:7444"`) {
				t.Errorf("Prometheus does not ask %s", instance)
			}
			known(t, s, project.Services[instance])
		}
	}
}

func servicesOf(p *types.Project) (list []types.ServiceConfig) {
	for _, s := range p.Services {
		list = append(list, s)
	}
	return list
}

func checkContainer(t *testing.T, root string, s types.ServiceConfig) {
	t.Helper()
	if s.Build == nil && !pinned.MatchString(s.Image) {
		t.Errorf("%s: image %q is not pinned to a version", s.Name, s.Image)
	}
	if s.Build != nil {
		if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	for _, p := range s.Ports {
		if p.HostIP != "127.0.0.1" {
			t.Errorf("%s publishes %s to the world", s.Name, p.Published)
		}
	}
	if s.Name != "collector" && (s.HealthCheck == nil || len(s.HealthCheck.Test) == 0) { // the collector's image has no program to ask with
		t.Errorf("%s has no health check", s.Name)
	}
	if s.Privileged || s.NetworkMode == "host" || s.Restart == "" {
		t.Errorf("%s is privileged, in the machine's network, or not restarted", s.Name)
	}
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind || strings.HasPrefix(v.Source, installation+"/") {
			continue
		}
		if rel, err := filepath.Rel(root, v.Source); err != nil || strings.HasPrefix(rel, "..") {
			t.Errorf("%s mounts %s, which is neither of the repository nor of the installation", s.Name, v.Source)
		} else if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
			t.Errorf("%s mounts %s: not there, or not read-only: %v", s.Name, rel, err)
		}
	}
}

// known checks the settings of a service's container by the program's own flags.
func known(t *testing.T, service string, s types.ServiceConfig) {
	t.Helper()
	cmd, _, err := app.Command(nil).Find(s.Command[:1])
	if err != nil || cmd.Name() != service {
		t.Fatalf("%s runs %v", s.Name, s.Command)
	}
	for name := range s.Environment {
		setting, ours := strings.CutPrefix(name, "EPATCH_")
		if flag := strings.ReplaceAll(strings.ToLower(setting), "_", "-"); ours && cmd.Flags().Lookup(flag) == nil {
			t.Errorf("%s: the %s service has no setting %s", s.Name, service, flag)
		}
	}
	peers := map[string]bool{}
	for _, peer := range strings.Split(*s.Environment["EPATCH_PEER"], ",") {
		name, addrs, _ := strings.Cut(peer, "=")
		peers[name] = addrs == name+"-1:7443;"+name+"-2:7443"
	}
	for _, other := range cluster.Services() {
		if !peers[other] {
			t.Errorf("%s does not know both instances of %s", s.Name, other)
		}
	}
}

// TestProvisioned: what Grafana and the collector are given is in the form they read, and leads to files and services that exist.
func TestProvisioned(t *testing.T) {
	t.Parallel()
	for path, words := range map[string][]string{
		"grafana/provisioning/datasources/prometheus.yml": {"http://prometheus:9090"},
		"grafana/provisioning/dashboards/epatch.yml":      {"/etc/grafana/dashboards"},
		"otel/collector.yml":                              {"0.0.0.0:4317"},
	} {
		text, err := os.ReadFile("../../deploy/" + path)
		if err != nil {
			t.Fatal(err)
		}
		var content map[string]any
		if err := yaml.Unmarshal(text, &content); err != nil || len(content) == 0 {
			t.Errorf("%s: %v", path, err)
		}
		want(t, path, string(text), words...)
	}
}
