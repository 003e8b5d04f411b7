// SPDX-License-Identifier: Apache-2.0

package dossier_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// entries are a world's history as a reader has verified it.
func entries(w *pt.World) []history.Entry {
	var list []history.Entry
	for i, rec := range w.Records {
		list = append(list, history.Entry{Record: rec, Hash: pt.HashOf(w.Bytes[i])})
	}
	return list
}

// frozen is the incident of a frozen history.
func frozen(t *testing.T, name string) []history.Entry {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []history.Entry
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		kind, rest, _ := strings.Cut(lines.Text(), ": ")
		switch kind {
		case "title", "expect":
		case "history":
			list = nil // the incident comes last
			_ = rest
		default:
			b, err := base64.StdEncoding.DecodeString(lines.Text())
			if err != nil {
				t.Fatal(err)
			}
			rec := new(emergencyv1.Record)
			if err := proto.Unmarshal(b, rec); err != nil {
				t.Fatal(err)
			}
			list = append(list, history.Entry{Record: rec, Hash: pt.HashOf(b)})
		}
	}
	if err := lines.Err(); err != nil || len(list) == 0 {
		t.Fatalf("%s: %d records, %v", name, len(list), err)
	}
	return list
}

func frozenFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../procedure/testdata/*-v*.txt")
	if err != nil || len(files) < 2 {
		t.Fatalf("frozen histories: %v, %v", files, err)
	}
	return files
}

func made(t pt.T, in dossier.Input) *dossier.Dossier {
	t.Helper()
	d, err := dossier.New(in)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return d
}

// What the dossier of each frozen history says does not change unless somebody changes it. A new frozen history gets its golden
// file by go test -run Golden -update; look at what it says.
func TestGolden(t *testing.T) {
	t.Parallel()
	if *update {
		for _, file := range frozenFiles(t) {
			golden := filepath.Join("testdata", strings.TrimSuffix(filepath.Base(file), ".txt")+".md")
			if err := os.WriteFile(golden, []byte(goldenText(t, file)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, file := range frozenFiles(t) {
		golden := filepath.Join("testdata", strings.TrimSuffix(filepath.Base(file), ".txt")+".md")
		t.Run(filepath.Base(golden), func(t *testing.T) {
			t.Parallel()
			got := goldenText(t, file)
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s differs; what it says now:\n%s", golden, got)
			}
			if long := tooLong(got); long != "" {
				t.Errorf("longer than 80 columns: %q", long)
			}
		})
	}
}

func goldenText(t *testing.T, file string) string {
	t.Helper()
	return made(t, dossier.Input{Entries: frozen(t, file), Book: pt.Book()}).Markdown(nil)
}

func tooLong(text string) string {
	for _, l := range strings.Split(text, "\n") {
		if utf8.RuneCountInString(l) > 80 && strings.Contains(strings.TrimSpace(l), " ") && !strings.HasPrefix(l, "## ") {
			return l
		}
	}
	return ""
}

// check is what holds for every dossier.
func check(t pt.T, d *dossier.Dossier) {
	t.Helper()
	for _, s := range d.Sentences() {
		if len(s.Positions) == 0 && s.Text != dossier.NoEvidence {
			t.Fatalf("a sentence without positions: %q", s.Text)
		}
		if s.Text == dossier.NoEvidence && (len(s.Positions) > 0 || !s.AsOf) {
			t.Fatalf("no evidence with positions %v, or not as of", s.Positions)
		}
		for _, p := range s.Positions {
			if p == 0 || p > d.Position {
				t.Fatalf("%q names position %d; the last is %d", s.Text, p, d.Position)
			}
		}
		if lower := strings.ToLower(s.Text); strings.Contains(lower, "authoris") || strings.Contains(lower, "%!") || strings.Contains(lower, "unspecified") {
			t.Fatalf("%q: says what only an arbitrator can, or is broken", s.Text)
		}
	}
	for _, a := range d.Answers {
		for _, p := range a.Points {
			if len(p.Sentences) == 0 {
				t.Fatalf("%s, %s: not even no evidence", a.ID, p.Label)
			}
		}
	}
	for _, o := range d.Obligations {
		if o.What == "" || o.What == strings.ToLower(strings.ReplaceAll(o.Kind, "_", " ")) {
			t.Fatalf("obligation %s has no words: %q", o.Kind, o.What)
		}
	}
	text := d.Markdown(nil)
	if long := tooLong(text); long != "" {
		t.Fatalf("longer than 80 columns: %q", long)
	}
	if _, err := json.Marshal(d); err != nil {
		t.Fatalf("%v", err)
	}
}

// stays checks that what an earlier dossier says without "as of" is said by a later one too, in the same place.
func stays(t pt.T, earlier, later *dossier.Dossier) {
	t.Helper()
	for i, a := range earlier.Answers {
		for j, p := range a.Points {
			same(t, a.ID+", "+p.Label, p, later.Answers[i].Points[j])
		}
	}
	same(t, "order", earlier.Order, later.Order)
	same(t, "proceedings", earlier.Proceedings, later.Proceedings)
	same(t, "values", earlier.Values, later.Values)
}

func same(t pt.T, where string, earlier, later dossier.Point) {
	t.Helper()
	for _, s := range earlier.Sentences {
		found := slices.ContainsFunc(later.Sentences, func(x dossier.Sentence) bool { return x.Text == s.Text && slices.Equal(x.Positions, s.Positions) })
		if !s.AsOf && !found {
			t.Fatalf("%s: %q %v is no longer said later, and not marked as of", where, s.Text, s.Positions)
		}
	}
}

// Every frozen history, at every position.
func TestEveryPosition(t *testing.T) {
	t.Parallel()
	for _, file := range frozenFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			list := frozen(t, file)
			var before *dossier.Dossier
			for _, e := range list {
				for n := range e.Record.GetEvents() {
					in := dossier.Input{Entries: list, Book: pt.Book(), Position: e.Record.GetFirstPosition() + uint64(n)}
					d := made(t, in)
					check(t, d)
					if before != nil {
						stays(t, before, d)
					}
					before = d
				}
			}
			if _, err := dossier.New(dossier.Input{Entries: list, Position: before.Position + 1}); err == nil {
				t.Error("a position beyond the end was answered for")
			}
		})
	}
	if _, err := dossier.New(dossier.Input{}); err == nil {
		t.Error("no history was answered for")
	}
}

// Whatever is tried, in any order: every sentence has its events, nothing restricted is in it, and later events take nothing
// back; a dossier for a position does not know what came after.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := pt.Random(rt, 5, nil)
		if len(w.Records) == 0 {
			return
		}
		list := entries(w)
		cut := rapid.IntRange(1, len(list)).Draw(rt, "cut")
		part := dossier.Input{Entries: list[:cut], Book: w.Book}
		whole := dossier.Input{Entries: list, Book: w.Book}
		earlier, later := made(rt, part), made(rt, whole)
		check(rt, earlier)
		check(rt, later)
		stays(rt, earlier, later)
		asked := dossier.Input{Entries: list, Book: w.Book, Position: earlier.Position}
		if made(rt, asked).Markdown(nil) != earlier.Markdown(nil) {
			rt.Fatal("the dossier for a position knows what came after it")
		}
		text, gone := later.Markdown(nil), disclosed(rt, w)
		for commitment, v := range w.Sealed {
			if coincidence := strings.HasPrefix(v, "emergency issue handling"); len(v) > 8 && !coincidence && !gone[commitment] && strings.Contains(text, v) {
				rt.Fatalf("the restricted value %q is in it", v)
			}
		}
	})
}

func disclosed(t pt.T, w *pt.World) map[string]bool {
	t.Helper()
	list := map[string]bool{}
	for _, rec := range w.Records {
		for _, e := range rec.GetEvents() {
			payload, err := procedure.DecodeEvent(e)
			if err != nil {
				t.Fatalf("%v", err)
			}
			if d, ok := payload.(*emergencyv1.FieldDisclosed); ok {
				list[d.GetCommitment()] = true
			}
		}
	}
	return list
}

// pointOf finds a part of an answer.
func pointOf(t *testing.T, d *dossier.Dossier, id, label string) dossier.Point {
	t.Helper()
	for _, a := range d.Answers {
		for _, p := range a.Points {
			if a.ID == id && p.Label == label {
				return p
			}
		}
	}
	t.Fatalf("no point %s, %s", id, label)
	return dossier.Point{}
}

func says(t *testing.T, p dossier.Point, wants ...string) {
	t.Helper()
	var text []string
	for _, s := range p.Sentences {
		text = append(text, s.Text)
	}
	for _, want := range wants {
		if !strings.Contains(strings.Join(text, "\n"), want) {
			t.Errorf("%s does not say %q:\n%s", p.Label, want, strings.Join(text, "\n"))
		}
	}
}

// The questions, on a story that everybody knows.
func TestAnswers(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Replicated)).World()
	d := made(t, dossier.Input{Entries: entries(w), Book: w.Book})
	says(t, pointOf(t, d, "D1", "Deployment"), "carla (critical admin): carla deploys P1r1 on www1, observed by carl; ground named: ")
	says(t, pointOf(t, d, "D1", "Replication"), "an act of carla, pushed by ")
	says(t, pointOf(t, d, "D1", "Escalation"), dossier.NoEvidence)
	says(t, pointOf(t, d, "D2", "Declaration"), "Emergency declared: www, severity high")
	says(t, pointOf(t, d, "D3", "Owed"), "The documentation of strategy 1 (DOCUMENT/S1/", "owed by critical team lead since", ", open.")
	says(t, pointOf(t, d, "Q1", "Who was called, and who came"), "Team testing: ", "taken by: theo testing/1, tina testing/2")
	says(t, pointOf(t, d, "Q3", "Reviews and tests"), "second review of P1r1; author dora, first reviewer anna, tester theo, tester tina, second reviewer bert: different persons.")
	says(t, pointOf(t, d, "Q3", "Deployment"), "executor carla, observer carl: different persons.")
	says(t, pointOf(t, d, "Q5", "Times between them"), dossier.NoEvidence)
	if at := pointOf(t, d, "D2", "Declaration").Sentences[0].Restricted; len(at) != 3 || at[0].Field != "component" || at[0].Commitment == "" {
		t.Errorf("what is restricted in the declaration: %+v", at)
	}
	late := made(t, dossier.Input{Entries: entries(w), Asked: pt.T0().Add(48 * time.Hour)})
	says(t, pointOf(t, late, "D3", "Owed"), "overdue by 1 d 0 h.")
}

// Restricted values appear only where they are brought along, and nothing that is written in one becomes markup.
func TestValues(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Declared)).World()
	d := made(t, dossier.Input{Entries: entries(w)})
	if text := d.Markdown(nil); !strings.Contains(text, "(restricted: component, symptom,") || strings.Contains(text, "strangers") {
		t.Errorf("without values:\n%s", text)
	}
	evil := "# heading\n- list <script> [1] *x* _y_ `z` \x1b[31m \u202e & &amp;\n1. one " + strings.Repeat("- word # ", 30)
	text := d.Markdown(map[string]dossier.Value{w.State.Declared.Symptom: {Text: evil}, w.State.Declared.Reason: {Why: "not for you"}})
	for _, want := range []string{"symptom, restricted:", `\<script>`, `\[1\]`, `\*x\*`, `\_y\_`, `(U+001B)`, `(U+202E)`, `\&amp;`, "reason, restricted, not shown: not for you", "(restricted: component)"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	for _, l := range strings.Split(text, "\n") {
		if strings.ContainsAny(l, "\x1b\u202e") || strings.HasPrefix(strings.TrimPrefix(l, "    > "), "- word") {
			t.Errorf("harmful: %q", l)
		}
	}
}

// A person with two parts in one act is named as such.
func TestTwoParts(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Observed)).World()
	b := &emergencyv1.Binding{Revision: "P1r1", Digest: w.State.Current().Binding}
	w.Append(procedure.OwnerDeployment, "StartApply", &emergencyv1.ApplyStarted{Binding: b, Host: "www1", Executor: "anna", Observer: "anna"})
	w.Append(procedure.OwnerDeployment, "StartApply", &emergencyv1.ApplyStarted{Binding: b, Host: "www1", Executor: "carla"})
	d := made(t, dossier.Input{Entries: entries(w)})
	says(t, pointOf(t, d, "Q3", "Deployment"), "executor anna, observer anna: anna is first reviewer and executor and observer.", "executor carla, observer nobody: different persons.")
}

// Work before its turn shows.
func TestOrder(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Registered)).World()
	b := &emergencyv1.Binding{Revision: "P1r1", Digest: w.State.Current().Binding}
	w.Append(procedure.OwnerReview, "Forward", &emergencyv1.PatchForwarded{Binding: b, To: "carla"})
	w.Append(procedure.OwnerReview, "RecordFirstReview", &emergencyv1.FirstReviewRecorded{Binding: b, Reviewer: "anna"})
	d := made(t, dossier.Input{Entries: entries(w)})
	says(t, d.Order, "Step 1.8, forwarded, was first done before step 1.6, first review.")
}
