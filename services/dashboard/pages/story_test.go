// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/timer"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// hour is a system in which an emergency went on for most of an hour, with a first revision that was replaced after its review.
type hour struct {
	*testenv.Env
	clock *timer.Manual
	story *testenv.Story
}

// anHour plays it until the deployment is verified.
func anHour(t *testing.T) *hour {
	t.Helper()
	h := &hour{clock: timer.NewManual(time.Now())}
	h.Env = testenv.Start(t, testenv.Options{Clock: h.clock})
	h.story = h.Story()
	right := h.story.Patch
	h.story.Patch = h.Repo.Diff(map[string]string{testenv.Program: strings.Replace(testenv.Repaired, "%s", "<%s>", 1)})
	for _, step := range []testenv.Step{testenv.Called, testenv.Answered, testenv.Registered, testenv.Reviewed} {
		h.story.Until(step)
		h.clock.Advance(4 * time.Minute)
	}
	h.Await(h.story.ID, "the test server's confirmation", func(in *dashboardIncident) bool { return testenv.Has(in, "test server") })
	h.story.Patch = right
	again := right.Register()
	again.Supersedes = "P1r1"
	h.story.Do("dora", again)
	h.story.Skip(testenv.Registered)
	for step := testenv.Reviewed; step <= testenv.Verified; step++ {
		h.clock.Advance(3 * time.Minute)
		h.story.Until(step)
	}
	return h
}

// What somebody could write who means harm: markup, an end of an attribute, text that turns around, invisible text, and text without
// an end.
const (
	markup = `"><script>window.pwned=1</script><img src=x onerror="window.pwned=2"><svg onload=window.pwned=3>'</textarea></title>{{.}}`
	turned = "abc\u202egnp-exe\u202c\u200b\u2066x"
)

var endless = strings.Repeat("W", 700)

// hostile plays an emergency in which every text that people can write is of that kind.
func hostile(env *testenv.Env) *testenv.Story {
	s := env.Story()
	s.ID = s.Do("carl", &emergencyv1.DeclareRequest{
		System: demobook.System, Component: markup, Symptom: markup + turned + endless, Severity: emergencyv1.Severity_SEVERITY_NORMAL,
		ReasonClass: emergencyv1.ReasonClass_REASON_CLASS_OTHER, Reason: markup + endless, Drill: true,
	}).GetIncident()
	s.Drill = true
	s.Skip(testenv.Declared).Until(testenv.Called)
	s.Patch = env.Repo.Diff(map[string]string{
		testenv.Program: testenv.Repaired + "# " + markup + "\n# " + turned + "\n# " + endless + "\n", "www/<img src=x onerror=alert(1)>.html": markup + "\n",
	})
	s.Do("anna", testenv.Accept(emergencyv1.ResponderStep_RESPONDER_STEP_FIRST_REVIEW, markup+endless))
	s.Do("dora", s.Patch.Register())
	review := s.FirstReview(testenv.Changes)
	review.Reason = markup + turned + endless
	s.Do("anna", review)
	for _, text := range []string{markup, turned, endless, "several\nlines\n\n" + markup} {
		s.Do("carl", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: text})
	}
	return s
}
