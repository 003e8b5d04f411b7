// SPDX-License-Identifier: Apache-2.0

// Package pkg_test holds the import directions of style.md section 2, so that they are kept without any linter installed.
package pkg_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "cacert.org/emergency/"

// groups are the import directions: a group may import itself and the groups before it. A package that is not here has no
// place yet, which is a failure: put it where it belongs.
var groups = [][]string{
	{"proto/emergency/v1"},
	{"pkg/rulebook"},
	{"pkg/procedure"},
	{"pkg/history", "pkg/bundle", "pkg/publog", "pkg/dossier", "pkg/prefill", "pkg/recording"},
	{"pkg/verify"},
	{"proto/emergency", "pkg/artefacts", "pkg/natsd", "pkg/identity", "pkg/telemetry", "pkg/config", "pkg/vault", "pkg/patch", "pkg/mailarchive", "pkg/gitrepo", "pkg/worktree", "pkg/oncall", "pkg/version", "pkg/defect"},
	{"pkg/dispatch", "pkg/projection", "pkg/effect", "pkg/timer", "pkg/rpc", "pkg/service"},
	{
		"services/incident", "services/notification", "services/review", "services/deployment", "services/arbitration",
		"services/dashboard", "services/cli", "services/agent",
	},
	{"services/internal", "services/demo", "services/e2e", "services/cmd"},
}

// pure is the last group that links no grpc, no event log and no database: an offline verifier needs no more.
const pure = 4

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// list asks go for our packages of both modules, without tests.
func list(t *testing.T) []goPackage {
	t.Helper()
	var found []goPackage
	for _, dir := range []string{".", "../services"} {
		cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Imports,Deps", "./...")
		cmd.Dir = dir
		var problems bytes.Buffer
		cmd.Stderr = &problems
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list in %s: %v: %s", dir, err, problems.String())
		}
		n := len(found)
		for d := json.NewDecoder(bytes.NewReader(out)); ; {
			var p goPackage
			if err := d.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(p.ImportPath, module) {
				p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
				found = append(found, p)
			}
		}
		if len(found) == n {
			t.Fatalf("go list finds nothing in %s", dir)
		}
	}
	return found
}

// below tells whether a package is another or lies in its folder.
func below(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

func group(path string) int {
	return slices.IndexFunc(groups, func(g []string) bool {
		return slices.ContainsFunc(g, func(folder string) bool { return below(path, folder) })
	})
}

// helper tells whether a package only helps tests; such a one may use what it tests with.
func helper(path string) bool {
	return strings.HasSuffix(path, "test") || strings.HasSuffix(path, "testenv")
}

func TestImportDirections(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if p.ImportPath == "pkg" {
			continue // this test
		}
		from := group(p.ImportPath)
		if from < 0 {
			t.Errorf("%s has no place in the import directions (style.md 2)", p.ImportPath)
			continue
		}
		for _, i := range p.Imports {
			checkImport(t, p.ImportPath, i)
			to := strings.TrimPrefix(i, module)
			if to == i {
				continue
			}
			if group(to) > from && !helper(p.ImportPath) {
				t.Errorf("%s imports %s, which lies to its right", p.ImportPath, to)
			}
			if helper(to) && !helper(p.ImportPath) && !below(p.ImportPath, "services/internal") && p.ImportPath != "services/demo" { // it has a host to log in to, too
				t.Errorf("%s imports %s, which is for tests", p.ImportPath, to)
			}
			if a, b := serviceOf(p.ImportPath), serviceOf(to); a != "" && b != "" && a != b && !helper(p.ImportPath) {
				t.Errorf("%s imports %s: no service imports another", p.ImportPath, to)
			}
		}
		if from <= pure && !backend(p.ImportPath) && !helper(p.ImportPath) {
			checkPure(t, p)
		}
	}
}

// serviceOf is the program a package belongs to. The demo plays a person and uses the client as one.
func serviceOf(path string) string {
	rest, ok := strings.CutPrefix(path, "services/")
	name, _, _ := strings.Cut(rest, "/")
	if !ok || slices.Contains([]string{"internal", "e2e", "cmd", "demo"}, name) {
		return ""
	}
	return name
}

// backend tells whether a package is an implementation that lies beside its contract.
func backend(path string) bool {
	return strings.HasSuffix(path, "/jetstream") || strings.HasSuffix(path, "/postgres")
}

func checkPure(t *testing.T, p goPackage) {
	t.Helper()
	for _, d := range p.Deps {
		for _, heavy := range []string{"google.golang.org/grpc", "github.com/nats-io", "github.com/jackc", "database/sql", "go.opentelemetry.io"} {
			if below(d, heavy) {
				t.Errorf("%s depends on %s; up to verify nothing needs grpc, NATS or a database", p.ImportPath, d)
			}
		}
	}
}

// surroundings are what the rules must not see: clock and tickers come as values, randomness too.
var surroundings = []string{"context", "os", "net", "sync", "math/rand", "crypto/rand", "log", "io/fs", "syscall", "runtime", "plugin"}

func checkImport(t *testing.T, from, to string) {
	t.Helper()
	if from == "pkg/procedure" || from == "pkg/rulebook" {
		if to != "net/netip" && slices.ContainsFunc(surroundings, func(s string) bool { return below(to, s) }) { // addresses as values
			t.Errorf("%s imports %s; the rules have no surroundings", from, to)
		}
		standard := !strings.Contains(strings.Split(to, "/")[0], ".")
		ours := to == module+"proto/emergency/v1" || to == module+"pkg/rulebook"
		if !standard && !ours && !below(to, "google.golang.org/protobuf") {
			t.Errorf("%s imports %s; the rules need the standard library and our messages alone", from, to)
		}
	}
	sdk := below(to, "go.opentelemetry.io/otel/sdk") || below(to, "go.opentelemetry.io/otel/exporters")
	if sdk && !below(from, "pkg/telemetry") && !helper(from) {
		t.Errorf("%s imports %s; only telemetry has the SDK, others use its API", from, to)
	}
}

// TestNoClock: the rules are told the time; they never look (0.1).
func TestNoClock(t *testing.T) {
	t.Parallel()
	looks := map[string][]string{"time": {"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer", "Sleep"}, "timestamppb": {"Now"}}
	files := 0
	for _, dir := range []string{"procedure", "rulebook"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			files++
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := sel.X.(*ast.Ident); ok && slices.Contains(looks[x.Name], sel.Sel.Name) {
						t.Errorf("%s asks %s.%s", name, x.Name, sel.Sel.Name)
					}
				}
				return true
			})
		}
	}
	if files < 20 {
		t.Fatalf("only %d files looked at", files)
	}
}
