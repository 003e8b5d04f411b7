// SPDX-License-Identifier: Apache-2.0

package recording_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/recording"
)

func config(dir, name string) recording.Config {
	return recording.Config{Dir: dir, Name: name, Header: header, Limit: 1 << 20, Now: clock(time.Millisecond), Salt: salt()}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "recordings")
	w, err := recording.Create(config(dir, "G1.cast"))
	must(t, err)
	path := filepath.Join(dir, "G1.cast")
	for p, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, path: 0o600} {
		if info, err := os.Lstat(p); err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v", p, info.Mode(), err)
		}
	}
	data, err := os.ReadFile(path)
	must(t, err)
	if rep := verify(t, data); rep.State != recording.Incomplete || rep.Header.Incident != header.Incident || rep.FirstBad != 1 {
		t.Errorf("a new recording is %+v", rep)
	}
	output(t, w, "before it is shown")
	if data, err = os.ReadFile(path); err != nil || !strings.Contains(string(data), "before it is shown") {
		t.Errorf("output is not in the file when the call returns: %v", err)
	}
	seal, err := w.End("logout")
	must(t, err)
	data, err = os.ReadFile(path)
	must(t, err)
	if rep := verify(t, data, seal.Checkpoint); rep.State != recording.Complete || rep.SHA256 != seal.SHA256 || rep.Size != seal.Bytes {
		t.Errorf("%+v", rep)
	}
}

// TestPlanted is N22: nothing that others have put in the way is used.
func TestPlanted(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		plant func(t *testing.T, dir string)
		want  string
	}{
		"file": {func(t *testing.T, dir string) { must(t, os.WriteFile(filepath.Join(dir, "x"), []byte("old"), 0o600)) }, "already there"},
		"link to a file": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "target"), []byte("old"), 0o600))
			must(t, os.Symlink("target", filepath.Join(dir, "x")))
		}, "already there"},
		"link to nothing": {func(t *testing.T, dir string) { must(t, os.Symlink("nothing", filepath.Join(dir, "x"))) }, "already there"},
		"link out":        {func(t *testing.T, dir string) { must(t, os.Symlink("/nowhere/x", filepath.Join(dir, "x"))) }, "already there"},
		"hard link": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "target"), []byte("old"), 0o600))
			must(t, os.Link(filepath.Join(dir, "target"), filepath.Join(dir, "x")))
		}, "already there"},
		"folder open to others": {func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o750)) }, "chmod 700"},
		"folder is a link": {func(t *testing.T, dir string) {
			must(t, os.Rename(dir, dir+"2"))
			must(t, os.Symlink(dir+"2", dir))
		}, "no folder"},
		"folder is a file": {func(t *testing.T, dir string) {
			must(t, os.Remove(dir))
			must(t, os.WriteFile(dir, nil, 0o600))
		}, "no folder"},
		"parent missing": {func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Dir(dir))) }, "make the folder"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "parent", "recordings")
			must(t, os.MkdirAll(dir, 0o700))
			test.plant(t, dir)
			if _, err := recording.Create(config(dir, "x")); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error is %v, want %q", err, test.want)
			}
			if old, err := os.ReadFile(filepath.Join(dir, "target")); err == nil && string(old) != "old" {
				t.Errorf("the target of the link was written: %q", old)
			}
		})
	}
}

// TestForeignFolder needs root to give a folder away; as another user a folder of root is foreign.
func TestForeignFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o700))
	if os.Geteuid() == 0 {
		must(t, os.Chown(dir, 12345, -1))
	} else {
		dir = "/"
	}
	if _, err := recording.Create(config(dir, "x")); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Fatalf("a folder of another user: %v", err)
	}
}

func TestWrongConfig(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*recording.Config){
		"no clock":      func(c *recording.Config) { c.Now = nil },
		"no salt":       func(c *recording.Config) { c.Salt = nil },
		"no limit":      func(c *recording.Config) { c.Limit = 0 },
		"no name":       func(c *recording.Config) { c.Name = "" },
		"no folder":     func(c *recording.Config) { c.Dir = "" },
		"name out":      func(c *recording.Config) { c.Name = "../x" },
		"name deep":     func(c *recording.Config) { c.Name = "a/x" },
		"no subject":    func(c *recording.Config) { c.Header.Subject = "" },
		"slash":         func(c *recording.Config) { c.Header.Incident = "a/b" },
		"control":       func(c *recording.Config) { c.Header.Host = "a\x1b" },
		"terminal type": func(c *recording.Config) { c.Header.Term = strings.Repeat("x", 65) },
		"no columns":    func(c *recording.Config) { c.Header.Cols = 0 },
		"many rows":     func(c *recording.Config) { c.Header.Rows = 70000 },
		"year":          func(c *recording.Config) { c.Now = func() time.Time { return time.Time{} } },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			must(t, os.Chmod(dir, 0o700))
			cfg := config(dir, "x")
			change(&cfg)
			if _, err := recording.Create(cfg); err == nil {
				t.Fatal("it was accepted")
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("it left %v, %v", left, err)
			}
		})
	}
}
