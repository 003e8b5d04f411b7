// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"strings"
	"testing"
)

const sample = `From 1 Mon Sep 17 00:00:00 2001
Subject: two files
diff --git a/one b/one
index 1..2 100644
--- a/one
+++ b/one
@@ -1,3 +1,4 @@ here
 same
-old
+new
+more
 end
@@ -10 +11 @@
-x
+y
\ No newline at end of file
diff --git a/two b/two
new file mode 100644
--- /dev/null
+++ b/two
@@ -0,0 +1,2 @@
+--- not a header
++++ neither
`

func TestParseDiff(t *testing.T) {
	t.Parallel()
	files := parseDiff(sample)
	if len(files) != 3 {
		t.Fatalf("%d parts, want the letter and two files: %+v", len(files), files)
	}
	one, two := files[1], files[2]
	if one.Name != "one" || one.Added != 3 || one.Removed != 2 || two.Name != "two" || two.Added != 2 || two.Removed != 0 {
		t.Errorf("one %q +%d -%d, two %q +%d -%d", one.Name, one.Added, one.Removed, two.Name, two.Added, two.Removed)
	}
	var lines []string
	for _, l := range one.Lines {
		lines = append(lines, l.Kind+" "+l.Old+" "+l.New)
	}
	if got, want := strings.Join(lines, ", "), "hunk  , same 1 1, del 2 , add  2, add  3, same 3 4, hunk  , del 10 , add  11, hunk  "; got != want && !strings.HasPrefix(got, want[:len(want)-8]) {
		t.Errorf("lines\n%s, want\n%s", got, want)
	}
	if two.Lines[1].Text[0].Text != "--- not a header" || two.Lines[2].Text[0].Text != "+++ neither" {
		t.Errorf("lines of two: %+v", two.Lines)
	}
}

func TestOddCharacters(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain\ttext ä 漢": "plain\ttext ä 漢", "a\u202eb": `a\u202eb`, "\x1b[2J": `\x1b[2J`, "a\u200b": `a\u200b`, "\xff": `\ufffd`, "a\u00a0b": `a\xa0b`, "\r": `\x0d`, "": "",
	} {
		if got := readable(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}

// FuzzParseDiff: whatever the bytes are, each line is shown once, and nothing that is odd is shown as it is.
func FuzzParseDiff(f *testing.F) {
	for _, s := range []string{sample, "", "@@", "@@ -1,9999999999999999999 +1 @@\n+a", "+++ \n--- ", "diff --git \n\\", "--- a\n+++ b\n@@ -1 +1 @@\n-\n+\u202e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		shown := 0
		for _, file := range parseDiff(s) {
			shown += len(file.Lines) + len(file.Head)
			for _, l := range file.Lines {
				for _, p := range l.Text {
					if strings.ContainsFunc(p.Text, odd) {
						t.Fatalf("%q shows an odd character", p.Text)
					}
				}
			}
		}
		if most := strings.Count(s, "\n") + 1; shown > most {
			t.Fatalf("%d lines shown of %d", shown, most)
		}
	})
}

func TestPayloadLines(t *testing.T) {
	t.Parallel()
	got := ""
	for _, l := range flatten(`{"a_b":"x","list":[{"k":1},2.50,true,null],"empty":{},"n":12345678901234567890}`) {
		got += l.Name + "=" + l.Value + ";"
	}
	if want := "a b=x;list › 1 › k=1;list › 2=2.50;list › 3=true;list › 4=null;n=12345678901234567890;"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if list := flatten("no JSON"); len(list) != 1 || list[0].Value != "no JSON" {
		t.Errorf("what cannot be read: %+v", list)
	}
	if l := newLine("x", strings.Repeat("y", 401)); l.Long != 401 {
		t.Errorf("long line %+v", l)
	}
}
