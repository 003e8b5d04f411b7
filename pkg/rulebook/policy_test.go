// SPDX-License-Identifier: Apache-2.0

package rulebook_test

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// policy encodes the default policy with one system, changed.
func policy(t testing.TB, change func(*emergencyv1.Policy)) []byte {
	t.Helper()
	doc := rulebook.DefaultPolicy()
	doc.EffectiveAt = stamp(0)
	doc.Systems = []*emergencyv1.CriticalSystem{{System: "www", Host: "www1", TestEnvironment: "www1-test", DrillHost: "www1-drill", ReleaseRef: "refs/heads/release"}}
	if change != nil {
		change(doc)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func set(key string, value int64) func(*emergencyv1.Policy) {
	return func(p *emergencyv1.Policy) {
		for _, v := range p.Values {
			if v.Key == key {
				v.Value = value
			}
		}
	}
}

// TestDefaultPolicy holds the document against chapter 3 of procedure.md, literally.
func TestDefaultPolicy(t *testing.T) {
	t.Parallel()
	p, err := rulebook.ParsePolicy(policy(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	const minute, hour, day = time.Minute, time.Hour, 24 * time.Hour
	for key, want := range map[string]time.Duration{
		"overall": day, "publish": 5 * minute, "s1.callout": 15 * minute, "s1.slots": 2 * hour, "s1.patch": 6 * hour, "s1.review1": 9 * hour, "s1.tests": 16 * hour,
		"s1.review2": 20 * hour, "s1.deploy": day, "s1.document": day, "callout.channel_fallback": time.Minute, "callout.repage": 10 * minute, "callout.ack_expiry": hour,
		"standby.checkin": hour, "standby.grace": 15 * minute, "unreachable.min_time": hour, "joint.window": 30 * minute, "lead_permission.valid": 2 * hour, "lead_unreachable.min_time": 30 * minute,
		"grant.first_use": 10 * minute, "session.max": hour, "session.extension": 30 * minute, "watch.lease": 5 * time.Second, "watch.freeze_within": time.Second, "watch.grace": minute,
		"session.idle": 10 * minute, "watch.presence": 5 * minute, "disable": 15 * minute, "prove_unusable": 30 * minute, "seal": day, "health": 30 * minute, "mismatch": 4 * hour,
		"post_apply_veto": 4 * hour, "backout_proof": 4 * hour, "lead_decision": day, "document": day, "dispute": day, "obligation.fallback": 3 * day, "replicate": day, "enter_cycle": 3 * day,
		"regular_review": 14 * day, "explain_drift": 3 * day, "explain_leftovers": day, "observer_debt": 7 * day, "test_debt": 7 * day, "case_open": 7 * day, "appointment": 14 * day,
		"ruling": 90 * day, "board_summary": 30 * day, "disclose": 14 * day, "refer_dispute": day, "waive_observer.min_open": 15 * minute, "dry_run.valid": 2 * hour, "step_up.valid": 5 * minute,
		"clock.tolerance": 2 * minute,
	} {
		if got := p.Duration(key); got != want {
			t.Errorf("%s is %s, procedure.md says %s", key, got, want)
		}
	}
	for key, want := range map[string]int{
		"team.critical.slots.s1": 2, "team.critical.slots.s2": 2, "team.critical.slots.s3": 1, "team.assessment.slots.s1": 2, "team.assessment.slots.s2": 1, "team.assessment.slots.s3": 1,
		"team.development.slots.s1": 1, "team.development.slots.s2": 0, "team.testing.slots.s1": 2, "team.testing.slots.s2": 0, "review.quorum": 2, "test.quorum": 2, "test.min_after_waiver": 1,
		"joint.persons": 2, "callout.channels_min": 2, "unreachable.min_rounds": 3, "unreachable.min_channels": 2,
	} {
		if got := p.Count(key); got != want {
			t.Errorf("%s is %d, procedure.md says %d", key, got, want)
		}
	}
	if !slices.IsSortedFunc(p.Values(), func(a, b *emergencyv1.PolicyValue) int { return strings.Compare(a.Key, b.Key) }) {
		t.Error("values are not in order")
	}
}

func TestParsePolicy(t *testing.T) {
	t.Parallel()
	b := policy(t, nil)
	p, err := rulebook.ParsePolicy(b)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	if p.Digest != hex.EncodeToString(sum[:]) || p.Number != 1 || !p.EffectiveAt.Equal(t0) {
		t.Errorf("%+v", p)
	}
	b[0] ^= 1 // the caller's own
	if again, err := rulebook.ParsePolicy(p.Bytes); err != nil || again.Digest != p.Digest {
		t.Errorf("the policy changed with the bytes it was read from: %v", err)
	}
	if s, ok := p.System("www"); !ok || s.GetHost() != "www1" || len(p.Systems()) != 1 {
		t.Errorf("%v", s)
	}
	if _, ok := p.System("mail"); ok {
		t.Error("an unknown system is known")
	}
	if !proto.Equal(p.Document().GetSystems()[0], p.Systems()[0]) {
		t.Error("the document differs")
	}
	system := func(change func(*emergencyv1.CriticalSystem)) func(*emergencyv1.Policy) {
		return func(p *emergencyv1.Policy) { change(p.Systems[0]) }
	}
	for name, change := range map[string]func(*emergencyv1.Policy){
		"no number":               func(p *emergencyv1.Policy) { p.Number = 0 },
		"a key less":              func(p *emergencyv1.Policy) { p.Values = p.Values[1:] },
		"a key twice":             func(p *emergencyv1.Policy) { p.Values = append(p.Values, p.Values[0]) },
		"an unknown key":          func(p *emergencyv1.Policy) { p.Values[0].Key = "colour" },
		"a negative value":        set("overall", -1),
		"a value beyond reason":   set("overall", math.MaxInt64),
		"no test quorum":          set("test.quorum", 0),
		"no test after a waiver":  set("test.min_after_waiver", 0),
		"more after than before":  set("test.min_after_waiver", 3),
		"one reviewer":            set("review.quorum", 1),
		"three reviewers":         set("review.quorum", 3),
		"one joint person":        set("joint.persons", 1),
		"no channel":              set("callout.channels_min", 0),
		"a system without a name": system(func(s *emergencyv1.CriticalSystem) { s.System = "" }),
		"a system without a host": system(func(s *emergencyv1.CriticalSystem) { s.Host = "" }),
		"no test environment":     system(func(s *emergencyv1.CriticalSystem) { s.TestEnvironment = "" }),
		"no release branch":       system(func(s *emergencyv1.CriticalSystem) { s.ReleaseRef = "" }),
		"drills on the real host": system(func(s *emergencyv1.CriticalSystem) { s.DrillHost = s.Host }),
		"a system twice":          func(p *emergencyv1.Policy) { p.Systems = append(p.Systems, p.Systems[0]) },
	} {
		if p, err := rulebook.ParsePolicy(policy(t, change)); err == nil {
			t.Errorf("%s: taken: %+v", name, p)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "no message": {0xff}, "an unknown field": append(policy(t, nil), 0xa2, 0x06, 0x01, 'x')} {
		if _, err := rulebook.ParsePolicy(b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestPolicyInForce(t *testing.T) {
	t.Parallel()
	version := func(number uint32, from time.Duration) proto.Message {
		return &emergencyv1.PolicyPublished{Policy: policy(t, func(p *emergencyv1.Policy) { p.Number, p.EffectiveAt = number, stamp(from) })}
	}
	b := fold(t, nil, version(1, time.Hour), version(2, 2*time.Hour))
	for at, want := range map[time.Duration]uint32{0: 0, time.Hour - 1: 0, time.Hour: 1, 2*time.Hour - 1: 1, 2 * time.Hour: 2} {
		got := uint32(0)
		if p := b.PolicyInForce(t0.Add(at)); p != nil {
			got = p.Number
		}
		if got != want {
			t.Errorf("at %s version %d holds, want %d", at, got, want)
		}
	}
	if b.LatestPolicy().Number != 2 {
		t.Error("the latest is not the latest")
	}
}

// FuzzParsePolicy: any bytes are a policy or an error, and a policy can be asked.
func FuzzParsePolicy(f *testing.F) {
	f.Add(policy(f, nil))
	f.Add(policy(f, set("test.quorum", 0)))
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := rulebook.ParsePolicy(b)
		if err != nil {
			return
		}
		for _, v := range p.Values() {
			if p.Duration(v.GetKey()) < 0 || p.Count(v.GetKey()) < 0 {
				t.Errorf("%v", v)
			}
		}
		if p.Count("test.quorum") < 1 || p.Count("test.min_after_waiver") < 1 {
			t.Errorf("a control is switched off: %v", p.Values())
		}
	})
}
