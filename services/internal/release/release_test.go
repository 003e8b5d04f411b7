// SPDX-License-Identifier: Apache-2.0

package release_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"

	"cacert.org/emergency/services/internal/release"
)

// TestRelease makes a release of what is committed, for this platform with one program, and looks at all of it. Make itself compares two builds
// from two places.
func TestRelease(t *testing.T) {
	out := t.TempDir()
	root, err := exec.CommandContext(t.Context(), "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Fatal(err)
	}
	err = release.Make(t.Context(), release.Config{
		Source: strings.TrimSpace(string(root)), Commit: "HEAD", Out: out, Warm: true, Say: t.Logf,
		Platforms: []release.Platform{{OS: runtime.GOOS, Arch: runtime.GOARCH, Programs: []string{"epatchd"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	archives, err := filepath.Glob(filepath.Join(out, "epatch-v*-"+runtime.GOOS+"-"+runtime.GOARCH+".tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("archives %v, %v", archives, err)
	}
	checkSums(t, out, filepath.Base(archives[0]))
	top := strings.TrimSuffix(filepath.Base(archives[0]), ".tar.gz")
	files := unpack(t, archives[0])
	for _, name := range []string{"LICENSE", "README.md", "docs/installation.md", "licences/README.md", "licences/std/LICENSE", "licences/htmx.org/htmx.LICENSE", "licences/google.golang.org/grpc/LICENSE"} {
		if len(files[top+"/"+name]) == 0 {
			t.Errorf("no %s in the archive", name)
		}
	}
	program := files[top+"/bin/epatchd"]
	checkProgram(t, program, strings.TrimSuffix(strings.TrimPrefix(top, "epatch-"), "-"+runtime.GOOS+"-"+runtime.GOARCH))
	checkBOM(t, files[top+"/sbom.cdx.json"], program)
	for _, path := range []string{strings.TrimSpace(string(root)) + "/services", filepath.Join(os.TempDir(), "release")} { // where it was built
		if bytes.Contains(program, []byte(path)) {
			t.Errorf("the program names the folder %s", path)
		}
	}
	if err := release.Make(t.Context(), release.Config{Out: out}); err == nil {
		t.Error("a second release was written over the first")
	}
}

func checkSums(t *testing.T, dir, archive string) {
	t.Helper()
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, archive))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if line := hex.EncodeToString(sum[:]) + "  " + archive + "\n"; !strings.Contains(string(sums), line) {
		t.Errorf("no line %q in\n%s", line, sums)
	}
	if n := strings.Count(string(sums), "\n"); n != 2 {
		t.Errorf("%d files have checksums, want the archive and its bill of materials", n)
	}
}

// unpack reads an archive, and checks that nothing in it depends on who packed it.
func unpack(t *testing.T, archive string) map[string][]byte {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if !zip.ModTime.IsZero() || zip.Name != "" {
		t.Errorf("the archive has a time or a name of its own: %v %q", zip.ModTime, zip.Name)
	}
	files, names := map[string][]byte{}, []string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || !h.AccessTime.IsZero() {
			t.Errorf("%s has an owner or a time of reading", h.Name)
		}
		if want := int64(0o644); h.Mode != want && (h.Mode != 0o755 || !strings.Contains(h.Name, "/bin/") && !strings.Contains(h.Name, "/deploy/")) {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	if !slices.IsSorted(names) {
		t.Errorf("the archive is not sorted: %v", names)
	}
	return files
}

// checkProgram runs what was packed.
func checkProgram(t *testing.T, program []byte, version string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "epatchd")
	if err := os.WriteFile(path, program, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, "--version").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	commit, err := exec.CommandContext(context.WithoutCancel(t.Context()), "git", "rev-parse", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "epatchd version " + version + ", commit " + strings.TrimSpace(string(commit)) + ", " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
	if string(out) != want {
		t.Errorf("--version: %q, want %q", out, want)
	}
}

func checkBOM(t *testing.T, data, program []byte) {
	t.Helper()
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(data), cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	found := map[string]cyclonedx.Component{}
	for _, c := range *bom.Components {
		found[c.Name] = c
		if c.Type == cyclonedx.ComponentTypeLibrary && (c.Licenses == nil || len(*c.Licenses) == 0 || c.Version == "" || c.PackageURL == "") {
			t.Errorf("%s lacks licence, version or package URL", c.Name)
		}
	}
	for _, name := range []string{"std", "github.com/nats-io/nats-server/v2", "google.golang.org/grpc", "htmx.org", "@xterm/xterm"} {
		if _, ok := found[name]; !ok {
			t.Errorf("the bill of materials lacks %s", name)
		}
	}
	sum := sha256.Sum256(program)
	if c := found["bin/epatchd"]; c.Hashes == nil || (*c.Hashes)[0].Value != hex.EncodeToString(sum[:]) {
		t.Errorf("the program's digest is not in the bill of materials")
	}
}
