// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

func sets(t *testing.T) map[string]*set {
	t.Helper()
	all := map[string]*set{}
	for _, code := range languages() {
		s, err := newSet(code)
		if err != nil {
			t.Fatal(err)
		}
		all[code] = s
	}
	return all
}

var verb = regexp.MustCompile(`%[a-z%]`)

// Every text is in each language, takes the same values, and is said somewhere.
func TestNoWordIsMissing(t *testing.T) {
	t.Parallel()
	all, first := sets(t), sets(t)[languages()[0]]
	said := slices.Concat(named(t), computed(), formWords(first))
	for code, s := range all {
		for _, key := range said {
			if strings.TrimSpace(s.words[key]) == "" {
				t.Errorf("%s has no text for %s", code, key)
			}
		}
		for key, text := range s.words {
			if !slices.Contains(said, key) {
				t.Errorf("%s: nobody says %s", code, key)
			}
			if other := first.words[key]; !slices.Equal(verb.FindAllString(text, -1), verb.FindAllString(other, -1)) {
				t.Errorf("%s: %s takes other values: %q and %q", code, key, text, other)
			}
		}
	}
}

// named are the keys that templates and code name whole.
func named(t *testing.T) []string {
	t.Helper()
	forms := []*regexp.Regexp{
		regexp.MustCompile(`\bt "([A-Za-z0-9._]+)"`), regexp.MustCompile(`\(nav \.Section "[a-z]+" "[a-z/]+" "([a-z.]+)"\)`), regexp.MustCompile(`say\("([A-Za-z0-9._]+[a-z0-9A-Z])"`),
		regexp.MustCompile(`Title: "([a-z.]+)"`), regexp.MustCompile(`key: +"([a-z.]+)"|, "(period\.[a-z]+)"\}`), regexp.MustCompile(`true: "(check\.[a-z]+)", false: "(check\.[a-z]+)"|true: "(check\.[a-z]+)"`),
	}
	var list []string
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("templates/*.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(files, more...) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range forms {
			for _, m := range form.FindAllStringSubmatch(string(b), -1) {
				for _, key := range m[1:] {
					if key != "" {
						list = append(list, key)
					}
				}
			}
		}
	}
	return list
}

// computed are the keys that are put together from values of the rules.
func computed() []string {
	var list []string
	add := func(prefix string, values ...string) {
		for _, v := range values {
			list = append(list, prefix+v)
		}
	}
	for _, e := range []protoreflect.Enum{
		emergencyv1.Role(0), emergencyv1.SystemKind(0), emergencyv1.Team(0), emergencyv1.Severity(0), emergencyv1.ReasonClass(0), emergencyv1.ReviewVerdict(0), emergencyv1.TestResult(0),
		emergencyv1.Control(0), emergencyv1.Deviation(0), emergencyv1.ResponderStep(0), emergencyv1.ReplicationResult(0), emergencyv1.HealthResult(0), emergencyv1.DisputeConcern(0),
		emergencyv1.DirectionKind(0), emergencyv1.EscalationGround(0), emergencyv1.UnfitCode(0), emergencyv1.LeadDecision(0), emergencyv1.Outcome(0), emergencyv1.StandbyEndReason(0),
		emergencyv1.ObserverKind(0), emergencyv1.ApplyOutcome(0), emergencyv1.CycleOutcome(0), emergencyv1.Phase(0), emergencyv1.Finding(0), emergencyv1.ReviewGround(0), emergencyv1.SessionCause(0), deploymentv1.WatchMode(0),
	} {
		for i := 1; i < e.Descriptor().Values().Len(); i++ {
			list = append(list, enumKey(e.Descriptor(), e.Descriptor().Values().Get(i).Number()))
		}
	}
	for i := range (emergencyv1.DeliveryState(0)).Descriptor().Values().Len() {
		add("delivery.", strings.TrimPrefix(string((emergencyv1.DeliveryState(0)).Descriptor().Values().Get(i).Name()), "DELIVERY_STATE_"))
	}
	add("step.", dossier.StepNames()...)
	for _, c := range procedure.Commands() {
		add("command.", c.Name)
	}
	add("owner.", procedure.Owners()...)
	add("language.", languages()...)
	add("status.", string(procedure.Open), string(procedure.StoodDown), string(procedure.Merged), string(procedure.Closed))
	add("slot.", string(procedure.SlotOpen), string(procedure.SlotAccepted), string(procedure.SlotStandby), string(procedure.SlotEnded))
	add("veto.", string(procedure.VetoOpen), string(procedure.VetoWithdrawn), string(procedure.VetoOverruled))
	for _, s := range []procedure.ApplyState{
		procedure.Applying, procedure.Applied, procedure.Verified, procedure.ApplyFailed, procedure.Mismatch, procedure.BackingOut, procedure.BackedOut, procedure.BackOutUnproven,
		procedure.RollingBack, procedure.RolledBack,
	} {
		add("apply.", string(s))
	}
	add("apply.", "STARTED", "ENDED")
	for _, s := range []procedure.GrantState{
		procedure.GrantIssued, procedure.GrantWatcherReady, procedure.GrantLive, procedure.GrantFrozen, procedure.GrantExpired, procedure.GrantTerminated, procedure.GrantDisabled,
		procedure.GrantProvenUnusable, procedure.GrantStillUsable, procedure.GrantSealed,
	} {
		add("grant.", string(s))
	}
	add("recording.", "complete", "incomplete", "broken")
	add("watch.state.", "waiting", "opening", "live", "frozen", "terminated", "other")
	add("watch.part.", "subject", "watcher", "observer")
	add("grant.mark.", "issued", "armed", "opened", "frozen", "resumed", "expired", "terminated", "disabled", "proven", "usable", "sealed")
	for _, s := range []procedure.DisputeState{
		procedure.DisputeFiled, procedure.DisputeCaseOpened, procedure.DisputeAwaiting, procedure.DisputeProposed, procedure.DisputeAccepted, procedure.DisputePreliminaries, procedure.DisputeRuled,
		procedure.DisputeClosedDeclined, procedure.DisputeJoined, procedure.DisputeRefiled, procedure.DisputeNotReopened, procedure.DisputeReopened, procedure.DisputePanel, procedure.DisputeFinalRuled,
	} {
		add("dispute.", string(s))
	}
	add("revision.", "Registered", "Review1Approved", "Transferred", "OnTestServer", "Tested", "Review2Approved", "Forwarded", "DryRunClean", "Superseded", "Applying", "Applied", "Verified", "ApplyFailed",
		"Mismatch", "BackingOut", "BackedOut", "BackOutUnproven", "RollingBack", "RolledBack", "InCycle", "Blessed", "Changed", "Reverted")
	add("check.", "first", "transfer", "server", "test", "second", "forward", "waiver", "dryrun", "observer")
	add("answer.", "none", "declined", "ended")
	add("asked.", "waiting", "accepted", "declined", "silent")
	add("direction.", "open", "reported", "done", "void", "overdue")
	add("dossier.question.", dossier.QuestionIDs()...)
	add("dossier.label.", dossier.PointLabels()...)
	add("field.", restrictedNames()...)
	add("debt.state.", "open", "overdue", "met", "late", "lifted")
	add("debt.", debtKinds()...)
	add("stop.state.", "done", "current", "next", "later")
	add("stop.", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7", "1.8", "1.9", "2", "2.2", "2.3", "2.4", "2.5", "2.6", "3.2", "3.3", "3.4", "3.6", "3.7", "3.8", "3.9")
	add("", "act.title", "statement.title", "statement.old", "refused.title")
	add("signed.", "revision", "binding", "patch", "base", "result", "policy", "request")
	add("policy.", "other", "s1", "team", "callout", "standby", "unreachable", "watch", "session")
	for _, way := range []string{"ago.", "in."} {
		add(way, "second", "seconds", "minutes", "hours", "days")
	}
	return list
}

// restrictedNames are the names of all restricted fields that there are.
func restrictedNames() []string {
	var list []string
	restricted := new(emergencyv1.Restricted).ProtoReflect().Descriptor()
	protoregistry.GlobalFiles.RangeFilesByPackage(restricted.ParentFile().Package(), func(f protoreflect.FileDescriptor) bool {
		for i := range f.Messages().Len() {
			fields := f.Messages().Get(i).Fields()
			for j := range fields.Len() {
				if fd := fields.Get(j); fd.Message() == restricted && !slices.Contains(list, string(fd.Name())) {
					list = append(list, string(fd.Name()))
				}
			}
		}
		return true
	})
	return list
}

// debtKinds are those of procedure.md 7.
func debtKinds() []string {
	return []string{
		"LEAD_DECISION", "BOARD_SUMMARY", "DOCUMENT/S1", "DOCUMENT/S2", "DOCUMENT/S3", "DISPUTE/S2", "DISPUTE/S3", "DISPUTE/REFERRED", "CASE_OPEN", "RULING", "DIRECTION", "HEALTH", "REPLICATE",
		"EXPLAIN_DRIFT", "ENTER_CYCLE", "REGULAR_REVIEW", "TEST_DEBT", "OBSERVER_DEBT", "EXPLAIN_MISMATCH", "BACKOUT_PROOF", "POST_APPLY_VETO", "DISABLE_ACCESS", "PROVE_UNUSABLE", "SEAL_SESSION",
		"EXPLAIN_LEFTOVERS", "OFFLINE_RECONCILE",
	}
}

func at(code string, t *testing.T) *viewer {
	return &viewer{set: sets(t)[code], now: time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC), book: &rulebook.Book{}}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	en, de := at("en", t), at("de", t)
	for _, c := range []struct {
		d              time.Duration
		english, other string
	}{
		{0, "0 seconds ago", "vor 0 Sekunden"}, {-time.Second, "in 1 second", "in 1 Sekunde"}, {time.Second, "1 second ago", "vor 1 Sekunde"}, {119 * time.Second, "119 seconds ago", "vor 119 Sekunden"},
		{2 * time.Minute, "2 minutes ago", "vor 2 Minuten"}, {119 * time.Minute, "119 minutes ago", "vor 119 Minuten"}, {-23*time.Hour - time.Minute, "in 23 hours", "in 23 Stunden"},
		{48 * time.Hour, "2 days ago", "vor 2 Tagen"}, {400 * 24 * time.Hour, "400 days ago", "vor 400 Tagen"},
	} {
		if got := en.ago(en.now.Add(-c.d)); got != c.english {
			t.Errorf("%s: %q, want %q", c.d, got, c.english)
		}
		if got := de.ago(de.now.Add(-c.d)); got != c.other {
			t.Errorf("%s: %q, want %q", c.d, got, c.other)
		}
	}
	if w := en.when(en.now.Add(-time.Hour)); w.Text != "02:00:00 UTC" {
		t.Errorf("today: %q", w.Text)
	}
	if w := en.when(en.now.Add(-4 * time.Hour)); w.Text != "2026-11-23 23:00 UTC" || w.left(en.now) != "+4:00:00" {
		t.Errorf("yesterday: %q, %q", w.Text, w.left(en.now))
	}
	if en.when(time.Time{}) != nil {
		t.Error("a time that is not known is shown")
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	s := newSessions(func() time.Time { return now })
	first := s.begin("key", true)
	if x, ok := s.use(first); !ok || x.key != "key" || !x.certificate {
		t.Fatalf("%+v %t", x, ok)
	}
	if _, ok := s.use(""); ok {
		t.Error("no session is one")
	}
	ids := map[string]bool{first: true}
	for range sessionsKept {
		now = now.Add(time.Millisecond)
		ids[s.begin("key", false)] = true
	}
	if len(ids) != sessionsKept+1 || s.count() != sessionsKept {
		t.Errorf("%d ids, %d kept", len(ids), s.count())
	}
	if _, ok := s.use(first); ok {
		t.Error("the one unused longest did not make room")
	}
	now = now.Add(sessionIdle + time.Second)
	if n := s.count(); n != 0 {
		t.Errorf("%d sessions are kept unused", n)
	}
}
