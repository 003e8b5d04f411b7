// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
)

// One human with two keys is one human (issue 3, section 8.6; procedure.md 2.3). The second key is added to the directory by
// the person, connects by its own certificate and signs by itself.

// TestTwoKeysTwoReviewers: not the author and a reviewer, and not both reviewers.
func TestTwoKeysTwoReviewers(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	anna, bert := env.SecondKey("anna"), env.SecondKey("bert")

	own := env.Play(testenv.Answered)
	own.Do("anna", own.Patch.Register()) // an assessor may write patches
	own.Refused(anna, own.FirstReview(testenv.Approve), procedure.ReasonAuthorIsReviewer)
	own.Do("bert", own.FirstReview(testenv.Approve))

	s := env.Play(testenv.Tested) // anna gave the first review
	s.Refused(anna, s.SecondReview(testenv.Approve), procedure.ReasonSamePerson)
	s.Do(bert, s.SecondReview(testenv.Approve))
	s.Do("bert", s.Forward()) // the same person, by the other key
	if got := s.Revision().Second.By; got != "bert" {
		t.Errorf("the second reviewer is %s", got)
	}
	s.Skip(testenv.Forwarded).Until(testenv.Verified) // and the host's agent believes bert's second key, too
	soundHere(t, env)
}

// TestTwoKeysTwoTesters: a second test by the same person replaces the first and never adds to the quorum.
func TestTwoKeysTwoTesters(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	tina := env.SecondKey("tina")
	s := env.Play(testenv.OnTestServer)
	s.Do("tina", s.Test(testenv.Pass))
	s.Do(tina, s.Test(testenv.Pass))
	if tests := s.Revision().Tests; len(tests) != 1 || tests[0].By != "tina" {
		t.Errorf("tests: %v", tests)
	}
	s.Refused("bert", s.SecondReview(testenv.Approve), procedure.ReasonTestQuorum)
	s.Do(tina, s.Test(testenv.Fail))
	s.Do("theo", s.Test(testenv.Pass))
	s.Refused("bert", s.SecondReview(testenv.Approve), procedure.ReasonTestFailed) // tina's own pass counts no more
	s.Do("tina", s.Test(testenv.Pass))
	s.Do("bert", s.SecondReview(testenv.Approve))
}

// TestTwoKeysExecutorAndObserver: nobody observes himself.
func TestTwoKeysExecutorAndObserver(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	carla := env.SecondKey("carla")
	s := env.Play(testenv.Forwarded)
	s.Do(carla, s.Observe(emergencyv1.ObserverKind_OBSERVER_KIND_BEFORE))
	s.Do("carla", s.DryRun())
	s.Refused("carla", s.Apply(), procedure.ReasonObserverMissing)
	start := s.Apply()
	start.Observer = "carla"
	s.Refused(carla, start, procedure.ReasonSamePerson)
	untouched(t, env, demobook.Host)
}

// TestKeyRules: whose key it is, is for the directory alone to say.
func TestKeyRules(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	dir, key := env.Key("stranger")
	s := env.Play(testenv.OnTestServer)
	stranger := env.WithProfile(dir)

	note := &emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Incident: s.ID}, Entry: 1, Text: "a note"}
	_, err := stranger.Send(t.Context(), note)
	testenv.WantRefusal(t, err, procedure.ReasonKeyUnknown)

	// Nobody adds a key for somebody else, and a key is one person's.
	key.Person = "anna"
	book := func() *emergencyv1.CommandMeta { return &emergencyv1.CommandMeta{Incident: procedure.RuleBook} }
	if _, err := env.As("dora").Send(t.Context(), &emergencyv1.AddKeyRequest{Meta: book(), Key: key}); err == nil {
		t.Error("dora added a key of anna's")
	}
	second := env.SecondKey("tina")
	stolen := env.As(second).KeyID()
	directory, err := env.As("tina").Book(t.Context())
	must(t, err)
	known, ok := directory.Key(stolen)
	if !ok {
		t.Fatal("tina's second key is not in the directory")
	}
	_, err = env.As("theo").Send(t.Context(), &emergencyv1.AddKeyRequest{Meta: book(), Key: &emergencyv1.Key{KeyId: stolen, PublicKey: known.Key.GetPublicKey(), Person: "theo"}})
	testenv.WantRefusal(t, err, procedure.ReasonKeyExists)

	// A revoked key does nothing more; what it did stays.
	s.Do(second, s.Test(testenv.Pass))
	_, err = env.As("tina").Send(t.Context(), &emergencyv1.RevokeKeyRequest{Meta: book(), KeyId: stolen, Reason: "the card was lost"})
	must(t, err)
	// An accepted command may use a rule book that is a second old; a refusal never does, and renews it.
	s.Refused("dora", s.FirstReview(testenv.Approve), procedure.ReasonRole)
	_, err = s.Try(second, s.Test(testenv.Fail))
	testenv.WantRefusal(t, err, procedure.ReasonKeyRevoked)
	if tests := s.Revision().Tests; !slices.ContainsFunc(tests, func(x procedure.Test) bool { return x.By == "tina" && x.Pass }) {
		t.Errorf("tests: %v", tests)
	}
}
