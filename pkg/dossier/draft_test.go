// SPDX-License-Identifier: Apache-2.0

package dossier_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"cacert.org/emergency/pkg/dossier"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// deviating is a story with a deviation in it.
func deviating(t pt.T) *pt.World {
	w := pt.NewWorld(t)
	pt.Story(pt.OnTestServer)(w)
	w.Do("theo", pt.Test(emergencyv1.TestResult_TEST_RESULT_PASS))
	w.Do("albert", pt.Waive(emergencyv1.Control_CONTROL_TEST_QUORUM))
	pt.From(pt.Tested, pt.Replicated)(w)
	return w
}

// filled fills in every hole and reason.
func filled(draft string) string {
	draft = regexp.MustCompile(`\[fill in[^\n]*`).ReplaceAllString(draft, "as it was")
	return regexp.MustCompile(`(?m)^(reason [^:]*:)$`).ReplaceAllString(draft, "$1 nobody else\n   was awake")
}

// A draft that was filled in becomes a documentation that the rules accept.
func TestDraftBecomesDocumentation(t *testing.T) {
	t.Parallel()
	w := deviating(t)
	draft, err := dossier.Draft(dossier.Input{Entries: entries(w)}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"incident: e20261124.1\nstrategy: 1\n", ": carla deploys P1r1 on www1", "\nreason ", ", test quorum waived:\n", "- patch P1r1, sha256 ", "deploy verified (step 1.9)", "the team lead's decision, owed by"} {
		if !strings.Contains(draft, want) {
			t.Errorf("%q is not in\n%s", want, draft)
		}
	}
	if _, err := dossier.ParseDraft(draft); err == nil || !strings.Contains(err.Error(), "not filled in") {
		t.Errorf("an unfinished draft: %v", err)
	}
	r, err := dossier.ParseDraft(filled(draft))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Reasons) != len(w.State.Deviations) || r.Reasons[0].GetReason() != "nobody else was awake" || r.Strategy != 1 || r.Position != w.State.Position || strings.Contains(r.Text, "#") || r.Appendix != "" {
		t.Errorf("%+v", r)
	}
	for _, p := range pt.People() {
		if regexp.MustCompile(`\b` + p.Name + `\b`).MatchString(r.Text) {
			t.Errorf("the public text names %s", p.Name)
		}
	}
	w.Do("carla", &emergencyv1.DocumentRequest{Strategy: r.Strategy, TimelineConfirmed: true, Reasons: r.Reasons, Text: r.Text, Appendix: r.Appendix})
}

func TestDamagedDrafts(t *testing.T) {
	t.Parallel()
	draft, err := dossier.Draft(dossier.Input{Entries: entries(deviating(t))}, 1)
	if err != nil {
		t.Fatal(err)
	}
	good := filled(draft)
	for want, damaged := range map[string]string{
		"has no reason yet":     regexp.MustCompile(`nobody else\n   was awake`).ReplaceAllString(good, ""),
		"names no deviation":    strings.ReplaceAll(good, "test quorum waived:", "something:"),
		"names no position":     regexp.MustCompile(`reason \d+`).ReplaceAllString(good, "reason x"),
		"is no part of a draft": "hello\n" + good,
		"there is no public":    good[:strings.Index(good, "== text")],
		"is the reason of":      strings.Replace(good, "== reasons", "== reasons\nbecause", 1),
		"there is no part":      strings.Replace(good, "== appendix", "== apendix", 1),
		"invalid syntax":        strings.Replace(good, "strategy: 1", "strategy: one", 1),
	} {
		if _, err := dossier.ParseDraft(damaged); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if _, err := dossier.Draft(dossier.Input{Entries: entries(deviating(t))}, 4); err == nil {
		t.Error("a draft of strategy 4")
	}
}

// Whatever happened, the draft can be made for every strategy, and what was filled in is read back.
func TestDraftsOfRandomHistories(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := pt.Random(rt, 4, nil)
		if len(w.Records) == 0 {
			return
		}
		for strategy := uint32(1); strategy <= 3; strategy++ {
			draft, err := dossier.Draft(dossier.Input{Entries: entries(w)}, strategy)
			if err != nil {
				rt.Fatal(err)
			}
			r, err := dossier.ParseDraft(filled(draft))
			if err != nil {
				rt.Fatalf("%v\n%s", err, filled(draft))
			}
			if len(r.Reasons) != len(w.State.Deviations) {
				rt.Fatalf("%d reasons for %d deviations", len(r.Reasons), len(w.State.Deviations))
			}
		}
	})
}
