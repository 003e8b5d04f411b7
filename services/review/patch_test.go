// SPDX-License-Identifier: Apache-2.0

package review_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"cacert.org/emergency/pkg/artefacts"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// edit is a diff that replaces lines 1 to 3 of the login page by the given hunk lines.
func edit(path, at, lines string) []byte {
	return fmt.Appendf(nil, "--- a/%[1]s\n+++ b/%[1]s\n@@ -%[2]s +%[2]s @@\n%[3]s", path, at, lines)
}

func TestHostilePatches(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	good := r.mend()
	created := func(path, mode string) []byte {
		return fmt.Appendf(nil, "diff --git a/%[1]s b/%[1]s\nnew file mode %[2]s\n--- /dev/null\n+++ b/%[1]s\n@@ -0,0 +1 @@\n+x\n", path, mode)
	}
	for name, c := range map[string]struct {
		patch []byte
		words []string
	}{
		"out of the tree":        {edit("../etc/passwd", "1", "-a\n+b\n"), []string{"PATH_FORBIDDEN", "../etc/passwd", "line"}},
		"absolute":               {created("/etc/cron.d/x", "100644"), []string{"PATH_FORBIDDEN"}},
		"into git":               {created("sub/.GIT/hooks/post-update", "100755"), []string{"PATH_FORBIDDEN", "sub/.GIT/hooks/post-update"}},
		"symbolic link":          {created("www/l", "120000"), []string{"SYMLINK_REFUSED", "www/l"}},
		"submodule":              {created("sub", "160000"), []string{"sub"}},
		"set-user-id":            {created("www/x.php", "104755"), []string{"MODE_REFUSED", "www/x.php"}},
		"mode change":            {[]byte("diff --git a/tool b/tool\nold mode 100755\nnew mode 100644\n"), []string{"MODE_REFUSED", "tool"}},
		"binary":                 {[]byte("diff --git a/x b/x\nnew file mode 100644\nindex 0000000..1111111\nBinary files /dev/null and b/x differ\n"), []string{"BINARY_REFUSED"}},
		"the same file twice":    {append(edit("tool", "1", "-#!/bin/sh\n+#!/bin/bash\n"), edit("tool", "1", "-#!/bin/sh\n+#!/bin/dash\n")...), []string{"DUPLICATE_PATH", "tool"}},
		"a lying hunk header":    {edit("tool", "1,5", "-#!/bin/sh\n+#!/bin/bash\n"), []string{"PATCH_SYNTAX", "line"}},
		"prose":                  {[]byte("please change the login page\n"), []string{"PATCH_"}},
		"other content":          {edit("www/login.php", "1,2", " <?php\n-$strangers = maybe;\n+$strangers = false;\n"), []string{"BASE_MISMATCH", "www/login.php"}},
		"a hunk at an offset":    {edit("www/index.php", "17,4", " line\n line\n line\n-end\n+END\n"), []string{"BASE_MISMATCH", "www/index.php"}},
		"a file that is no file": {edit("none.php", "1", "-a\n+b\n"), []string{"BASE_MISMATCH", "none.php"}},
		"no bundle":              {[]byte("# v2 git bundle\nrubbish"), []string{"BUNDLE_REFUSED"}},
		"a forged log line":      {edit("a\x1b[2Jb\\\x7f", "1", "-a\n+b\n"), []string{"PATH_FORBIDDEN"}},
		"too large":              {append(bytes.Clone(good.GetBytes()), bytes.Repeat([]byte(" "), 1<<20)...), nil},
	} {
		c.words = append(c.words, "not acceptable")
		cmd := r.registration(c.patch, good.GetResultTree())
		got, err := r.srv.RegisterPatch(r.as("dora"), r.prepare("dora", cmd).(*emergencyv1.RegisterPatchRequest))
		refusal := r.isRefusal(name, got, err, procedure.ReasonDigest, c.words...)
		if strings.ContainsFunc(refusal.Message, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			t.Errorf("%s: the refusal could forge a line: %q", name, refusal.Message)
		}
		if len(c.patch) < 1<<20 { // the same over the wire, which carries no more
			r.refused("dora", cmd, procedure.ReasonDigest, c.words...)
		}
		if _, err := r.memory.Get(t.Context(), artefacts.Digest(c.patch)); !errors.Is(err, artefacts.ErrNotFound) {
			t.Errorf("%s: a refused patch was kept: %v", name, err)
		}
	}
	if r.count("review.PatchRegistered") != 0 {
		t.Error("something was registered")
	}
	r.do("dora", good)
}

func TestNothingInTheRequestIsBelieved(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	lie := func(change func(*emergencyv1.RegisterPatchRequest)) *emergencyv1.RegisterPatchRequest {
		c := r.mend()
		change(c)
		return c
	}
	other := r.work.Tree(r.change("tool", "other\n"))
	r.refused("dora", lie(func(c *emergencyv1.RegisterPatchRequest) { c.ResultTree = other }), procedure.ReasonResultMismatch, other)
	r.refused("dora", lie(func(c *emergencyv1.RegisterPatchRequest) { c.BaseTree = other }), procedure.ReasonBaseMismatch, other)
	r.refused("dora", lie(func(c *emergencyv1.RegisterPatchRequest) { c.BaseCommit = strings.Repeat("1", 40) }), procedure.ReasonDigest, "BASE_UNKNOWN")
	// A branch moves and a short id may become ambiguous; the history names the base for ever.
	for _, name := range []string{"release", "refs/heads/release", r.base[:12]} {
		r.refused("dora", lie(func(c *emergencyv1.RegisterPatchRequest) { c.BaseCommit = name }), procedure.ReasonDigest, "ARGUMENT "+name, r.base)
	}
	r.refused("dora", lie(func(c *emergencyv1.RegisterPatchRequest) { c.BaseCommit = "--upload-pack=/bin/false" }), procedure.ReasonDigest, "ARGUMENT")
	r.refused("dora", lie(func(c *emergencyv1.RegisterPatchRequest) { c.Author = "nobody-at-all" }), procedure.ReasonField, "nobody-at-all")
	// One byte on the way, after it was signed.
	cmd := r.prepare("dora", r.mend()).(*emergencyv1.RegisterPatchRequest)
	cmd.Bytes[len(cmd.GetBytes())-2] ^= 1
	c, err := r.send("dora", cmd)
	r.isRefusal("one byte", c, err, procedure.ReasonDigest, artefacts.Digest(cmd.GetBytes())[:12], cmd.GetSha256()[:12])
	if _, err := r.memory.Get(t.Context(), artefacts.Digest(cmd.GetBytes())); !errors.Is(err, artefacts.ErrNotFound) {
		t.Errorf("changed bytes were kept: %v", err)
	}
	// The same bytes with another digest than the one that was signed.
	cmd = r.prepare("dora", r.mend()).(*emergencyv1.RegisterPatchRequest)
	cmd.Sha256 = artefacts.Digest(nil)
	c, err = r.send("dora", cmd)
	r.isRefusal("another digest", c, err, procedure.ReasonSignature)
	r.do("dora", r.mend())
}

func TestStrangersCauseNoWork(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	cmd := r.mend()
	r.must(os.Rename(r.remote, r.remote+".away")) // whoever asks the repository now is told to come again
	for who, reason := range map[string]procedure.Reason{"mia": procedure.ReasonRole, "carla": procedure.ReasonRole, "stranger": procedure.ReasonKeyUnknown} {
		r.refused(who, cmd, reason)
	}
	r.isAway(r.srv.RegisterPatch(r.as("dora"), r.prepare("dora", cmd).(*emergencyv1.RegisterPatchRequest)))
	if _, err := r.memory.Get(t.Context(), cmd.GetSha256()); !errors.Is(err, artefacts.ErrNotFound) {
		t.Errorf("the patch was kept: %v", err)
	}
}

// isAway checks that a caller is told to come again.
func (r *rig) isAway(got any, err error) {
	r.t.Helper()
	var un rpc.Unavailable
	if !errors.As(err, &un) || !un.Temporary() {
		r.t.Errorf("got %v, %v, want to be told to come again", got, err)
	}
}

func TestRepeatedWhileTheRepositoryIsAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	cmd := r.prepare("dora", r.mend())
	first, err := r.send("dora", cmd)
	r.must(err)
	r.must(os.Rename(r.remote, r.remote+".away"))
	r.restart(true)
	again, err := r.send("dora", cmd)
	if err != nil || !again.GetRepeated() || again.GetRecordHash() != first.GetRecordHash() {
		t.Errorf("the repeated command got %v, %v, want %v", again, err, first)
	}
	if r.count("review.PatchRegistered") != 1 {
		t.Errorf("events %q", r.events())
	}
}

func TestBaseThatCameLater(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	r.do("dora", r.mend()) // the clone is filled
	r.work.Write("later.php", "later\n", 0o644)
	r.base = r.work.Commit("later")
	r.work.Git("push", "--quiet", r.remote, "main:release")
	r.do("dora", r.register(r.change("later.php", "mended\n")))
	if rev := r.revision("P2r1"); rev.BaseCommit != r.base || rev.BaseTree != r.work.Tree(r.base) {
		t.Errorf("registered on %s, %s", rev.BaseCommit, rev.BaseTree)
	}
}

func TestBundle(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	first := r.change("www/login.php", "<?php\n$strangers = false;\n")
	r.work.Git("checkout", "--quiet", "-B", "fix", first)
	r.work.Write("www/new.php", "new\n", 0o644)
	head := r.work.Commit("second commit")
	r.work.Git("checkout", "--quiet", "main")
	file := filepath.Join(t.TempDir(), "bundle")
	r.work.Git("bundle", "create", "--quiet", file, "fix", "^"+r.base)
	bundle, err := os.ReadFile(file)
	r.must(err)

	flipped := slices.Clone(bundle)
	flipped[len(flipped)-30] ^= 1
	r.refused("dora", r.registration(flipped, r.work.Tree(head)), procedure.ReasonDigest, "BUNDLE_REFUSED")
	r.work.Git("branch", "-f", "second", first)
	r.work.Git("bundle", "create", "--quiet", file, "fix", "second", "^"+r.base)
	two, err := os.ReadFile(file)
	r.must(err)
	r.refused("dora", r.registration(two, r.work.Tree(head)), procedure.ReasonDigest, "BUNDLE_REFUSED", "exactly one")

	r.do("dora", r.registration(bundle, r.work.Tree(head)))
	p, err := r.read("carla", "P1r1")
	r.must(err)
	if !bytes.Equal(p.GetBytes(), bundle) || bytes.Equal(p.GetDiff(), bundle) || p.GetSha256() != artefacts.Digest(bundle) {
		t.Errorf("read %d and %d bytes under %s", len(p.GetBytes()), len(p.GetDiff()), p.GetSha256())
	}
	if tree, err := applied(r, p.GetDiff()); err != nil || tree != r.work.Tree(head) {
		t.Errorf("the diff gives %s, %v, want %s", tree, err, r.work.Tree(head))
	}
	r.do("anna", &emergencyv1.RecordFirstReviewRequest{Verdict: approve})
	r.wait("on the test server", onTestServer("P1r1"))
	if n := r.bare("rev-list", "--count", r.base+".."+r.ref("P1r1")); n != "1" {
		t.Errorf("%s commits were pushed, reviewed was their difference", n)
	}
}

// TestConcurrentRegistrations sends sixteen different patches at once. What each person signed names the revision that would
// be next, so whoever comes second signs again, as a client does.
func TestConcurrentRegistrations(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	var patches []*emergencyv1.RegisterPatchRequest
	for i := range 16 {
		patches = append(patches, r.register(r.change("www/login.php", fmt.Sprintf("<?php\n$strangers = %d;\n", i))))
	}
	people := []string{"dora", "emil", "anna", "bert"}
	var group sync.WaitGroup
	for i, p := range patches {
		group.Go(func() {
			who := people[i%len(people)]
			for {
				_, err := r.send(who, r.prepare(who, p))
				if err == nil {
					return
				}
				refusal, ok := rpc.RefusalOf(err)
				if !ok || refusal.Reason != procedure.ReasonSignature && refusal.Reason != procedure.ReasonConcurrentModification {
					t.Errorf("patch %d: %v", i, err)
					return
				}
			}
		})
	}
	group.Wait()
	got := map[string]string{}
	for i, rev := range r.state().Revisions {
		if rev.ID != fmt.Sprintf("P%dr1", i+1) {
			t.Errorf("revision %d is %s", i+1, rev.ID)
		}
		got[rev.Artefact.GetSha256()] = rev.ResultTree
	}
	for i, p := range patches {
		if got[p.GetSha256()] != p.GetResultTree() {
			t.Errorf("patch %d was registered with %q, want %s", i, got[p.GetSha256()], p.GetResultTree())
		}
	}
}

func TestTheSameRegistrationSixteenTimesAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, settings{})
	cmd := r.prepare("dora", r.mend())
	hashes := make([]string, 16)
	var group sync.WaitGroup
	for i := range hashes {
		group.Go(func() {
			c, err := r.send("dora", cmd)
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
			hashes[i] = c.GetRecordHash()
		})
	}
	group.Wait()
	slices.Sort(hashes)
	if len(slices.Compact(hashes)) != 1 || r.count("review.PatchRegistered") != 1 {
		t.Errorf("results %q, events %q", hashes, r.events())
	}
	// The same bytes under another request id are one registration too.
	r.refused("dora", r.mend(), procedure.ReasonRevisionExists, "P1r1")
}
