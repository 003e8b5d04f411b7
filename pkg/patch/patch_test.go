// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/gitrepo/gittest"
	"cacert.org/emergency/pkg/gitrepo/gittree"
)

const modify = "diff --git a/x b/x\nindex 1111111..2222222 100644\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"

// git makes a diff of the path: a change of one line.
func edit(path string) string {
	return fmt.Sprintf("diff --git a/%[1]s b/%[1]s\n--- a/%[1]s\n+++ b/%[1]s\n@@ -1 +1 @@\n-a\n+b\n", path)
}

func TestParseReadsEachForm(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		opts Options
		want File
	}{
		"git modify": {text: modify, want: File{Op: Modify, OldPath: "x", NewPath: "x", OldMode: "100644", NewMode: "100644", OldBlob: "1111111", NewBlob: "2222222", Hunks: 1, Added: 1, Removed: 1, Line: 1}},
		"plain with time stamps": {text: "diff -u a/x b/x\n--- a/x\t2026-11-24 10:00:00.000000000 +0100\n+++ b/x\t2026-11-24 10:00:01.000000000 +0100\n@@ -1 +1 @@\n-a\n+b\n",
			want: File{Op: Modify, OldPath: "x", NewPath: "x", Hunks: 1, Added: 1, Removed: 1, Line: 2}},
		"plain created by epoch": {text: "--- a/n\t1970-01-01 01:00:00.000000000 +0100\n+++ b/n\t2026-11-24 10:00:01.000000000 +0100\n@@ -0,0 +1 @@\n+b\n",
			want: File{Op: Create, NewPath: "n", Hunks: 1, Added: 1, Line: 1}},
		"plain deleted": {text: "--- a/n\n+++ /dev/null\n@@ -1 +0,0 @@\n-b\n", want: File{Op: Delete, OldPath: "n", Hunks: 1, Removed: 1, Line: 1}},
		"created executable": {text: "diff --git a/n b/n\nnew file mode 100755\nindex 0000000..1234567\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+b\n",
			want: File{Op: Create, NewPath: "n", NewMode: "100755", OldBlob: "0000000", NewBlob: "1234567", Hunks: 1, Added: 1, Line: 1}},
		"created empty": {text: "diff --git a/n b/n\nnew file mode 100644\nindex 0000000..e69de29\n",
			want: File{Op: Create, NewPath: "n", NewMode: "100644", OldBlob: "0000000", NewBlob: "e69de29", Line: 1}},
		"deleted empty": {text: "diff --git a/n b/n\ndeleted file mode 100644\nindex e69de29..0000000\n",
			want: File{Op: Delete, OldPath: "n", OldMode: "100644", OldBlob: "e69de29", NewBlob: "0000000", Line: 1}},
		"pure rename, quoted": {text: "diff --git \"a/a\\tb\\303\\244\" b/new name\nsimilarity index 100%\nrename from \"a\\tb\\303\\244\"\nrename to new name\n",
			opts: Options{}, want: File{}}, // refused below: a tab is a control character
		"space in name": {text: "diff --git a/a b/c b/a b/c\n--- a/a b/c\t\n+++ b/a b/c\t\n@@ -1 +1 @@\n-a\n+b\n",
			want: File{Op: Modify, OldPath: "a b/c", NewPath: "a b/c", Hunks: 1, Added: 1, Removed: 1, Line: 1}},
		"quoted umlaut": {text: "diff --git \"a/\\303\\244\" \"b/\\303\\244\"\n--- \"a/\\303\\244\"\n+++ \"b/\\303\\244\"\n@@ -1 +1 @@\n-a\n+b\n",
			want: File{Op: Modify, OldPath: "ä", NewPath: "ä", Hunks: 1, Added: 1, Removed: 1, Line: 1}},
		"rename with change": {text: "diff --git a/o b/n\nsimilarity index 90%\nrename from o\nrename to n\nindex 1111111..2222222 100755\n--- a/o\n+++ b/n\n@@ -1 +1 @@\n-a\n+b\n",
			want: File{Op: Rename, OldPath: "o", NewPath: "n", OldMode: "100755", NewMode: "100755", OldBlob: "1111111", NewBlob: "2222222", Hunks: 1, Added: 1, Removed: 1, Line: 1}},
		"declared mode change": {text: "diff --git a/x b/x\nold mode 100644\nnew mode 100755\n", opts: Options{AllowModeChange: true},
			want: File{Op: Modify, OldPath: "x", NewPath: "x", OldMode: "100644", NewMode: "100755", Line: 1}},
		"carriage returns, no line end, empty context line": {text: "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@ heading\n\n \r\n-a\r\n\\ No newline at end of file\n+b\r\n\\ No newline at end of file\n",
			want: File{Op: Modify, OldPath: "x", NewPath: "x", Hunks: 1, Added: 1, Removed: 1, Line: 1}},
		"mail with signature": {text: "From 1234 Mon Sep 17 00:00:00 2001\nSubject: [PATCH] x\n\n---\n x | 2 +-\n\n" + modify + "-- \n2.39.5\n\n",
			want: File{Op: Modify, OldPath: "x", NewPath: "x", OldMode: "100644", NewMode: "100644", OldBlob: "1111111", NewBlob: "2222222", Hunks: 1, Added: 1, Removed: 1, Line: 7}},
	} {
		p, err := Parse([]byte(c.text), c.opts)
		if c.want == (File{}) {
			wantCode(t, name, err, CodePath)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if len(p.Files) != 1 || p.Files[0] != c.want {
			t.Errorf("%s: got %+v, want %+v", name, p.Files, c.want)
		}
	}
}

func wantCode(t *testing.T, name string, err error, want Code) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != want {
		t.Errorf("%s: got %v, want %s", name, err, want)
		return
	}
	if strings.ContainsAny(err.Error(), "\n\r\x1b") {
		t.Errorf("%s: the error is not one safe line: %q", name, err)
	}
}

func TestParseRefusesHostilePatches(t *testing.T) {
	t.Parallel()
	seen := map[Code]bool{}
	for name, c := range hostile() {
		_, err := Parse([]byte(c.text), c.opts)
		wantCode(t, name, err, c.want)
		seen[c.want] = true
	}
	for _, code := range []Code{CodeSyntax, CodeEmpty, CodeTooLarge, CodePath, CodeSymlink, CodeMode, CodeSubmodule, CodeBinary, CodeDuplicate, CodeCopy} {
		if !seen[code] {
			t.Errorf("no hostile patch produces %s", code)
		}
	}
}

type hostilePatch struct {
	text string
	opts Options
	want Code
}

// hostile is the table of refusals, which is also the seed of the fuzz target.
func hostile() map[string]hostilePatch {
	head := func(lines string) string { return "diff --git a/x b/x\n" + lines }
	quoted := func(name string) string {
		return fmt.Sprintf("diff --git \"a/%[1]s\" \"b/%[1]s\"\n--- \"a/%[1]s\"\n+++ \"b/%[1]s\"\n@@ -1 +1 @@\n-a\n+b\n", name)
	}
	renamed := func(to string) string {
		const from = "x"
		return fmt.Sprintf("diff --git a/%[1]s b/%[2]s\nsimilarity index 100%%\nrename from %[1]s\nrename to %[2]s\n", from, to)
	}
	hunk := func(body string) string { return head("--- a/x\n+++ b/x\n" + body) }
	table := map[string]hostilePatch{
		"nothing":                     {text: "", want: CodeEmpty},
		"prose":                       {text: "Please apply this.\n", want: CodeEmpty},
		"too large":                   {text: modify, opts: Options{MaxBytes: 20}, want: CodeTooLarge},
		"too many files":              {text: edit("a") + edit("b"), opts: Options{MaxFiles: 1}, want: CodeTooLarge},
		"too many hunks":              {text: hunk("@@ -1 +1 @@\n-a\n+b\n@@ -5 +5 @@\n-a\n+b\n"), opts: Options{MaxHunks: 1}, want: CodeTooLarge},
		"bundle":                      {text: "# v2 git bundle\n", want: CodeSyntax},
		"combined":                    {text: "diff --cc x\nindex 1,2..3\n", want: CodeSyntax},
		"no prefixes":                 {text: "diff --git x x\n--- x\n+++ x\n@@ -1 +1 @@\n-a\n+b\n", want: CodeSyntax},
		"names differ":                {text: "diff --git a/x b/y\n--- a/x\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n", want: CodeSyntax},
		"content names another":       {text: head("--- a/y\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n"), want: CodeSyntax},
		"created but exists":          {text: head("--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+b\n"), want: CodeSyntax},
		"rename names another":        {text: "diff --git a/x b/y\nrename from x\nrename to z\n", want: CodeSyntax},
		"half a rename":               {text: "diff --git a/x b/x\nrename from x\n", want: CodeSyntax},
		"half a mode change":          {text: head("new mode 100755\n"), want: CodeSyntax},
		"repeated header":             {text: head("index 1111..2222\nindex 1111..2222\n"), want: CodeSyntax},
		"created and deleted":         {text: head("new file mode 100644\ndeleted file mode 100644\n"), want: CodeSyntax},
		"unknown header":              {text: head("evil mode 100644\n"), want: CodeSyntax},
		"bad index":                   {text: head("index xyz\n"), want: CodeSyntax},
		"nothing changes":             {text: head(""), want: CodeSyntax},
		"cut before the hunks":        {text: head("new file mode 100644\nindex 0000000..1234567\n"), want: CodeSyntax},
		"cut inside a hunk":           {text: hunk("@@ -1,2 +1,2 @@\n-a\n+b"), want: CodeSyntax},
		"hunk without header":         {text: "@@ -1 +1 @@\n-a\n+b\n", want: CodeSyntax},
		"hunk without change":         {text: hunk("@@ -1 +1 @@\n a\n"), want: CodeSyntax},
		"header without hunk":         {text: hunk(""), want: CodeSyntax},
		"hidden extra lines":          {text: hunk("@@ -1 +1 @@\n-a\n+b\n+evil\n"), want: CodeSyntax},
		"hidden context":              {text: hunk("@@ -1 +1 @@\n-a\n+b\n evil\n"), want: CodeSyntax},
		"stray text after a hunk":     {text: modify + "see above\n", want: CodeSyntax},
		"too few lines":               {text: hunk("@@ -1,9 +1,9 @@\n-a\n+b\n"), want: CodeSyntax},
		"counts do not fit":           {text: hunk("@@ -1,2 +1 @@\n+b\n+c\n"), want: CodeSyntax},
		"overlapping hunks":           {text: hunk("@@ -1,2 +1,2 @@\n-a\n+b\n c\n@@ -2 +2 @@\n-c\n+d\n"), want: CodeSyntax},
		"hunks out of order":          {text: hunk("@@ -9 +9 @@\n-a\n+b\n@@ -2 +2 @@\n-c\n+d\n"), want: CodeSyntax},
		"huge line number":            {text: hunk("@@ -99999999999999999999 +1 @@\n-a\n+b\n"), want: CodeSyntax},
		"signed line number":          {text: hunk("@@ -+1 +1 @@\n-a\n+b\n"), want: CodeSyntax},
		"line zero":                   {text: hunk("@@ -0 +1 @@\n-a\n+b\n"), want: CodeSyntax},
		"misplaced no-newline remark": {text: hunk("@@ -1 +1 @@\n\\ No newline at end of file\n-a\n+b\n"), want: CodeSyntax},
		"deleted file keeps lines":    {text: "diff --git a/x b/x\ndeleted file mode 100644\n--- a/x\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n", want: CodeSyntax},
		"created file has past":       {text: "diff --git a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", want: CodeSyntax},
		"plain rename":                {text: "--- a/x\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n", want: CodeSyntax},
		"plain both missing":          {text: "--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n", want: CodeSyntax},
		"plain unclear creation":      {text: "--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+b\n", want: CodeSyntax},
		"diff left a file out":        {text: edit("x") + "Only in b: y\n", want: CodeSyntax},
		"carriage return in headers":  {text: strings.ReplaceAll(modify, "\n", "\r\n"), want: CodeSyntax},
		"bad quoting":                 {text: quoted(`a\q`), want: CodeSyntax},
		"over-long octal":             {text: quoted(`a\777`), want: CodeSyntax},
		"copy":                        {text: "diff --git a/x b/y\nsimilarity index 100%\ncopy from x\ncopy to y\n", want: CodeCopy},
		"same path twice":             {text: edit("x") + edit("x"), want: CodeDuplicate},
		"rename onto changed":         {text: edit("y") + renamed("y"), want: CodeDuplicate},
		"two renames of one":          {text: renamed("y") + renamed("z"), want: CodeDuplicate},
		"rename to itself":            {text: renamed("x"), want: CodeDuplicate},
		"file and folder":             {text: edit("x") + edit("x/y"), want: CodeDuplicate},
		"symlink created":             {text: "diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n", want: CodeSymlink},
		"symlink changed":             {text: strings.Replace(modify, "100644", "120000", 1), want: CodeSymlink},
		"symlink deleted":             {text: "diff --git a/x b/x\ndeleted file mode 120000\nindex 1111..0000\n--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", want: CodeSymlink},
		"file becomes symlink":        {text: head("old mode 100644\nnew mode 120000\n"), opts: Options{AllowModeChange: true}, want: CodeSymlink},
		"submodule":                   {text: "diff --git a/x b/x\nnew file mode 160000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+Subproject commit 1\n", want: CodeSubmodule},
		"submodule configuration":     {text: edit(".gitmodules"), want: CodeSubmodule},
		"setuid":                      {text: head("new file mode 104755\nindex 0000..e69de29\n"), want: CodeMode},
		"group writable":              {text: head("new file mode 100664\nindex 0000..e69de29\n"), want: CodeMode},
		"undeclared mode change":      {text: head("old mode 100644\nnew mode 100755\n"), want: CodeMode},
		"binary differs":              {text: head("index 1111..2222 100644\nBinary files a/x and b/x differ\n"), opts: Options{AllowBinary: true}, want: CodeBinary},
		"git binary":                  {text: head("index 1111..2222 100644\nGIT binary patch\nliteral 1\nIcmZPo000310RR91\n\n"), want: CodeBinary},
		"NUL in a line":               {text: hunk("@@ -1 +1 @@\n-a\n+b\x00\n"), want: CodeBinary},
		"binary bomb":                 {text: head("index 1111..2222 100644\nGIT binary patch\nliteral 2000000000\nIcmZPo000310RR91\n\n"), opts: Options{AllowBinary: true}, want: CodeTooLarge},
		"binary cut off":              {text: head("index 1111..2222 100644\nGIT binary patch\nliteral 1\nIcmZPo000310RR91\n"), opts: Options{AllowBinary: true}, want: CodeSyntax},
		"binary garbage":              {text: head("index 1111..2222 100644\nGIT binary patch\nliteral 1\n,,,,\n\n"), opts: Options{AllowBinary: true}, want: CodeSyntax},
	}
	for _, path := range []string{
		"/etc/passwd", "../x", "a/../../x", "a/..", "./x", "a/./b", "a//b", "a/", `a\b`, ".git/config", "a/.GIT/hooks/x", ".gIt", "git~1/config",
		"GIT~12", ".git./x", ".git /x", ".git::$INDEX_ALLOCATION/x", ".g\u200cit/x", ".gi\ufeff\u00adt/x", ".git\ufe0f/x", "a\u202eb", "a\x1bb", "a\x7fb", "a\u0085b",
		strings.Repeat("n", 256), strings.Repeat("d/", 600) + "x", "\xff\xfe",
	} {
		table["path "+path] = hostilePatch{text: edit(path), want: CodePath}
		table["rename to "+path] = hostilePatch{text: renamed(path), want: CodePath}
	}
	for _, path := range []string{`a\nb`, `a\000b`, `a\tb`, `\056git/x`, `\056\056/x`, `a\\\\b`, `\377`} {
		table["quoted "+path] = hostilePatch{text: quoted(path), want: CodePath}
	}
	return table
}

// A delta that is a few bytes long but says that it makes a file of 1 TiB.
func TestParseRefusesDeltaBomb(t *testing.T) {
	t.Parallel()
	bomb := "diff --git a/x b/x\nindex 1111..2222 100644\nGIT binary patch\ndelta 9\n" + encodeBase85(t, deflate(t, []byte{1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 1, 'x'})) + "\n"
	_, err := Parse([]byte(bomb), Options{AllowBinary: true})
	wantCode(t, "delta bomb", err, CodeTooLarge)
}

// Not parallel: allocations are counted.
func TestParseRefusesOneHundredMiB(t *testing.T) {
	big := bytes.Repeat([]byte("+"), 100<<20)
	if n := testing.AllocsPerRun(1, func() { _, _ = Parse(big, Options{}) }); n > 20 {
		t.Errorf("%v allocations before the limit was checked", n)
	}
	_, err := Parse(big, Options{})
	wantCode(t, "100 MiB", err, CodeTooLarge)
}

func TestCheckRefusesWhatWasNotDeclared(t *testing.T) {
	t.Parallel()
	p, err := Parse([]byte(modify+"diff --git a/o b/n\nsimilarity index 100%\nrename from o\nrename to n\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	did := func(path, before, after string) gittree.Change {
		return gittree.Change{Path: path, OldMode: before, NewMode: after}
	}
	good := []gittree.Change{did("n", "", "100644"), did("o", "100644", ""), did("x", "100644", "100644")}
	if err := p.Check(good); err != nil {
		t.Errorf("what was declared is refused: %v", err)
	}
	with := func(i int, c gittree.Change) []gittree.Change { s := slices.Clone(good); s[i] = c; return s }
	for name, c := range map[string]struct {
		did  []gittree.Change
		want Code
	}{
		"another path":   {append(slices.Clone(good), did("z", "100644", "100644")), CodeSyntax},
		"a path missing": {good[:2], CodeSyntax},
		"rename missing": {good[1:], CodeSyntax},
		"symlink":        {with(2, did("x", "120000", "120000")), CodeSymlink},
		"submodule":      {with(2, did("x", "160000", "160000")), CodeSubmodule},
		"mode":           {with(2, did("x", "100644", "100755")), CodeMode},
		"vanished":       {with(2, did("x", "100644", "")), CodeSyntax},
		"appeared":       {with(2, did("x", "", "100644")), CodeSyntax},
	} {
		wantCode(t, name, p.Check(c.did), c.want)
	}
}

func TestPathsBundleDigest(t *testing.T) {
	t.Parallel()
	p, err := Parse([]byte(edit("z")+"diff --git a/o b/n\nsimilarity index 100%\nrename from o\nrename to n\n"), Options{})
	if err != nil || !slices.Equal(p.Paths(), []string{"n", "o", "z"}) {
		t.Errorf("paths %v, %v", p, err)
	}
	if !IsBundle([]byte("# v3 git bundle\n@object-format=sha256\n")) || IsBundle([]byte(modify)) || IsBundle([]byte("# v9 git bundle\n")) {
		t.Error("a bundle is not told from a diff")
	}
	if got := Digest(nil); got != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("digest of nothing is %s", got)
	}
}

// What git makes, this package reads, and with the same paths and modes that git reads from it.
func TestParseAgreesWithGit(t *testing.T) {
	t.Parallel()
	r := gittest.New(t, gittree.SHA1)
	lines := strings.Repeat("line\n", 40)
	r.Write("keep me.txt", lines+"last", 0o644)
	r.Write("crlf.txt", strings.ReplaceAll(lines, "\n", "\r\n"), 0o644)
	r.Write("old/ünï.php", lines, 0o755)
	r.Write("gone", "x\n", 0o644)
	r.Write("empty", "", 0o644)
	r.Write("became-dir", "x\n", 0o644)
	r.Write("bin", "\x00\x01"+strings.Repeat("abc", 500), 0o644)
	base := r.Commit("one")
	r.Write("keep me.txt", "first\n"+lines+"last\n", 0o644)
	r.Write("crlf.txt", strings.ReplaceAll(lines, "\n", "\r\n")+"more\r\n", 0o644)
	r.Git("mv", "old/ünï.php", "new name.php")
	r.Git("rm", "-q", "gone", "became-dir")
	r.Write("became-dir/inner", "y\n", 0o644)
	r.Write("tool", "#!/bin/sh\n", 0o755)
	r.Write("empty", "no more\n", 0o644)
	r.Write("new-empty", "", 0o644)
	r.Write("bin", "\x00\x02"+strings.Repeat("abc", 500), 0o644)
	head := r.Commit("two\n\n--- a\n+++ b\n- not a patch")

	want := strings.Split(strings.TrimRight(r.Git("diff", "--name-only", "--no-renames", "-z", base, head), "\x00"), "\x00")
	for name, args := range map[string][]string{
		"diff":         {"diff", "--binary", base, head},
		"no renames":   {"diff", "--binary", "--no-renames", "--full-index", base, head},
		"format-patch": {"format-patch", "--binary", "--stdout", base},
	} {
		text := []byte(r.Git(args...))
		p, err := Parse(text, Options{AllowBinary: true})
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
			continue
		}
		if !slices.Equal(p.Paths(), want) {
			t.Errorf("%s: paths %q, git says %q", name, p.Paths(), want)
		}
		if _, err := Parse(text, Options{}); err == nil {
			t.Errorf("%s: binary content passes undeclared", name)
		}
		for cut := range text[:len(text)-20] { // every truncation is refused or still names only known paths
			if part, err := Parse(text[:cut], Options{AllowBinary: true}); err == nil {
				for _, path := range part.Paths() {
					if !slices.Contains(want, path) {
						t.Fatalf("%s cut at %d makes up %q", name, cut, path)
					}
				}
			}
		}
	}
}
