// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/services/internal/app"
)

// TestUpgrade opens the whole data folder of every recorded version with this one: an emergency that is over and one that is in the middle.
// Folders are added with each release and never edited (docs/upgrade.md).
func TestUpgrade(t *testing.T) {
	t.Parallel()
	folders, err := filepath.Glob("testdata/data-v*.tar.gz")
	if err != nil || len(folders) == 0 {
		t.Fatalf("no recorded folder: %v", err)
	}
	for _, recorded := range folders {
		t.Run(strings.TrimSuffix(filepath.Base(recorded), ".tar.gz"), func(t *testing.T) {
			t.Parallel()
			upgrade(t, recorded)
		})
	}
}

func upgrade(t *testing.T, recorded string) {
	data := t.TempDir()
	unpack(t, recorded, data)
	var old struct {
		Incident string `json:"incident"` // over
		Head     string `json:"head_hash"`
		Position uint64 `json:"position"`
	}
	b, err := os.ReadFile(filepath.Join(data, "demo.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &old); err != nil {
		t.Fatal(err)
	}
	open := strings.TrimSuffix(old.Incident, "1") + "2"
	settings := func(set *app.Settings) { set.Data, set.LogTo = data, io.Discard }
	x := startInstalled(t, settings)

	if hash := hashAt(readHistory(t, x, old.Incident), old.Position); hash != old.Head {
		t.Errorf("%s has %s at position %d, want %s as it was recorded", old.Incident, hash, old.Position, old.Head)
	}
	want(t, "the check of all histories", x.epatch("carla", "history", "check"), old.Incident, open, "rulebook")
	want(t, "the one that is over", x.epatch("carla", "status", old.Incident), "closed", "webdb")
	want(t, "the open one", x.epatch("carla", "status", open), "open on webdb", "mail queue stands still", "by carla: outage") // who stood by when it was recorded does not any more
	want(t, "the public log", x.epatch("carla", "log"), old.Incident, open)
	want(t, "the replay of the one that is over", x.epatch("carla", "replay", old.Incident), old.Incident)

	before := readHistory(t, x, open).Chain.Head()
	x.epatch("bert", "accept", "--incident", open)
	if after := readHistory(t, x, open).Chain.Head(); after.Position <= before.Position {
		t.Errorf("%s ends at %d after a command, as before it", open, after.Position)
	}
	x.epatch("carla", "stand-down", "played for the test of upgrades", "--incident", open)
	want(t, "after standing down", x.epatch("carla", "status", open), "stood down")
	second := x.epatch("carla", "declare", "a new emergency on old data", "--reason", "the test of upgrades", "--class", "outage")
	want(t, "a new emergency", second, "emergency e")

	x.stopped()
	x = startInstalled(t, settings)
	want(t, "the check after a restart", x.epatch("carla", "history", "check"), old.Incident, open, "rulebook")
	if hash := hashAt(readHistory(t, x, old.Incident), old.Position); hash != old.Head {
		t.Errorf("%s has %s at position %d after a restart", old.Incident, hash, old.Position)
	}
}

// readHistory reads and verifies an incident.
func readHistory(t *testing.T, x *installed, incident string) *history.Reading {
	t.Helper()
	keys, err := history.LoadKeyring(x.node.KeyringFile())
	if err != nil {
		t.Fatal(err)
	}
	r, err := history.Read(t.Context(), x.node.Store(), keys, incident)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// hashAt is the hash of the record that ends at a position.
func hashAt(r *history.Reading, position uint64) string {
	for _, e := range r.Entries {
		if e.Record.GetFirstPosition()+uint64(len(e.Record.GetEvents())) == position+1 {
			return e.Hash
		}
	}
	return "none"
}

func want(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, text)
		}
	}
}

func unpack(t *testing.T, archive, to string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(to, filepath.FromSlash(h.Name))
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o700)
		case tar.TypeReg:
			var data []byte
			if data, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, data, os.FileMode(h.Mode&0o777))
			}
		default:
			t.Fatalf("%s is neither folder nor file", h.Name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
