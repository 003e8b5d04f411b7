// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metricsql"
	"go.yaml.in/yaml/v3"
)

// alertRules are those of deploy/prometheus.
type alertRules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr string
			Labels      map[string]string
			Annotations map[string]string
		}
	}
}

// TestAlarmsAndDashboards: what alarms and dashboards ask for is told by the system, as docs/metrics.md lists it; each alarm says what to do.
func TestAlarmsAndDashboards(t *testing.T) {
	t.Parallel()
	known := documentedMetrics(t)
	var rules alertRules
	text, err := os.ReadFile("../../deploy/prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("../../deploy/prometheus/rules_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	runbooks, err := os.ReadFile("../../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	seen, alarms := map[string]bool{}, 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			alarms++
			query(t, "alarm "+r.Alert, r.Expr, known, seen)
			if s := r.Labels["severity"]; s != "page" && s != "ticket" || r.Annotations["summary"] == "" || r.Annotations["action"] == "" {
				t.Errorf("alarm %s lacks severity, summary or action: %v %v", r.Alert, r.Labels, r.Annotations)
			}
			if _, heading, ok := strings.Cut(r.Annotations["action"], "docs/runbooks.md, "); ok && !strings.Contains(string(runbooks), "\n## "+heading+"\n") {
				t.Errorf("alarm %s leads to %q, which is not in docs/runbooks.md", r.Alert, heading)
			}
			for _, expected := range []string{"alertname: " + r.Alert + ", exp_alerts: []", "alertname: " + r.Alert + "\n        exp_alerts:"} {
				if !strings.Contains(string(tests), expected) {
					t.Errorf("alarm %s is not both seen to fire and seen to be silent: no %q in rules_test.yml", r.Alert, expected)
				}
			}
		}
	}
	if alarms == 0 {
		t.Fatal("no alarm was read")
	}
	boards, err := filepath.Glob("../../deploy/grafana/dashboards/*.json")
	if err != nil || len(boards) == 0 {
		t.Fatalf("no dashboard: %v", err)
	}
	for _, path := range boards {
		dashboard(t, path, known, seen)
	}
	for name := range known {
		if !seen[name] {
			t.Errorf("%s is on no dashboard and in no alarm", name)
		}
	}
}

func dashboard(t *testing.T, path string, known map[string]string, seen map[string]bool) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		UID, Title string
		Panels     []struct {
			Title      string
			Datasource struct{ UID string }
			Targets    []struct {
				Expr       string
				Datasource struct{ UID string }
			}
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if board.UID+".json" != filepath.Base(path) || board.Title == "" || len(board.Panels) == 0 {
		t.Errorf("%s: dashboard %q has no panel, no title, or another name", path, board.UID)
	}
	source, err := os.ReadFile("../../deploy/grafana/provisioning/datasources/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("%s: panel %s asks nothing", path, p.Title)
		}
		for _, target := range p.Targets {
			query(t, board.UID+", "+p.Title, target.Expr, known, seen)
			if !strings.Contains(string(source), "uid: "+target.Datasource.UID+"\n") {
				t.Errorf("%s, %s: no data source %q is provisioned", path, p.Title, target.Datasource.UID)
			}
		}
	}
}

var parts = regexp.MustCompile(`_(bucket|sum|count)$`)

// query checks that a query parses and names what the system tells.
func query(t *testing.T, where, text string, known map[string]string, seen map[string]bool) {
	t.Helper()
	expr, err := metricsql.Parse(text)
	if err != nil {
		t.Errorf("%s: %q: %v", where, text, err)
		return
	}
	metricsql.VisitAll(expr, func(e metricsql.Expr) {
		m, ok := e.(*metricsql.MetricExpr)
		if !ok {
			return
		}
		for _, filters := range m.LabelFilterss {
			for _, f := range filters {
				if f.Label != "__name__" || f.Value == "up" { // Prometheus tells up itself
					continue
				}
				name := f.Value
				if known[name] == "" && known[parts.ReplaceAllString(name, "")] == "histogram" {
					name = parts.ReplaceAllString(name, "")
				}
				seen[name] = true
				if known[name] == "" {
					t.Errorf("%s asks for %s, which nobody tells", where, f.Value)
				}
			}
		}
	})
}

// TestAlarmsFire runs the rules' own tests by Prometheus's tool: each alarm fires when it must and is silent when it must.
func TestAlarmsFire(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		tool, err = filepath.Abs("../../.bin/promtool")
		if err == nil {
			_, err = os.Stat(tool)
		}
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("promtool is not there: make promtool")
		}
		t.Skip("promtool is not there: make promtool fetches it from Debian's package prometheus")
	}
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}, {"check", "config", "--syntax-only", "prometheus.yml"}} {
		cmd := exec.CommandContext(t.Context(), tool, args...)
		cmd.Dir = "../../deploy/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
