// SPDX-License-Identifier: Apache-2.0

package rulebook

import (
	"crypto/sha256"
	_ "embed" // the default numbers are a document, not code
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"time"

	"google.golang.org/protobuf/proto"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

//go:embed default_policy.json
var defaultPolicy []byte

// Policy is one version of the policy document: the numbers of procedure.md chapter 3 and the systems it is for.
// It is immutable.
type Policy struct {
	// Number rises by one with each version.
	Number uint32
	// Digest is SHA-256 of Bytes, lower-case hex.
	Digest string
	// Bytes are the document as published; final.
	Bytes []byte
	// PreviousDigest chains the versions.
	PreviousDigest string
	// BoardDecision is the Board's decision id.
	BoardDecision string
	// EffectiveAt is from when the version holds.
	EffectiveAt time.Time

	values  map[string]int64
	systems []*emergencyv1.CriticalSystem
}

// ParsePolicy reads a policy document. It refuses one that lacks a number the rules need, or has one they do not know:
// a rule must never meet a zero that nobody decided.
func ParsePolicy(b []byte) (*Policy, error) {
	var doc emergencyv1.Policy
	if err := proto.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("decode policy: %w", err)
	}
	if doc.GetNumber() == 0 {
		return nil, fmt.Errorf("policy has no number")
	}
	if len(doc.ProtoReflect().GetUnknown()) > 0 {
		return nil, fmt.Errorf("policy has fields that this version does not know")
	}
	sum := sha256.Sum256(b)
	p := &Policy{
		Number: doc.GetNumber(), Digest: hex.EncodeToString(sum[:]), Bytes: append([]byte(nil), b...),
		PreviousDigest: doc.GetPreviousDigest(), BoardDecision: doc.GetBoardDecision(),
		EffectiveAt: doc.GetEffectiveAt().AsTime(), values: map[string]int64{}, systems: doc.GetSystems(),
	}
	for _, v := range doc.GetValues() {
		if _, known := defaults()[v.GetKey()]; !known {
			return nil, fmt.Errorf("policy has an unknown key %q", v.GetKey())
		}
		if _, twice := p.values[v.GetKey()]; twice {
			return nil, fmt.Errorf("policy has key %q twice", v.GetKey())
		}
		if v.GetValue() < 0 || v.GetValue() > 1<<31 {
			return nil, fmt.Errorf("policy value of %q is %d, it must be between 0 and 2^31", v.GetKey(), v.GetValue())
		}
		p.values[v.GetKey()] = v.GetValue()
	}
	for key := range defaults() {
		if _, ok := p.values[key]; !ok {
			return nil, fmt.Errorf("policy lacks key %q", key)
		}
	}
	for _, check := range []func() error{p.checkCounts, p.checkSystems} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// checkCounts refuses numbers under which a control would not exist, or that this version of the rules cannot keep.
func (p *Policy) checkCounts() error {
	for _, c := range []struct {
		key         string
		least, most int64
		why         string
	}{
		{"review.quorum", 2, 2, "the procedure has a first and a second review"},
		{"joint.persons", 2, 2, "one critical admin and one assessor"},
		{"test.min_after_waiver", 1, p.values["test.quorum"], "never without any test (10.3)"},
		{"callout.channels_min", 1, 10, "pages go somewhere"},
	} {
		if v := p.values[c.key]; v < c.least || v > c.most {
			return fmt.Errorf("policy value of %q is %d, it must be between %d and %d: %s", c.key, v, c.least, c.most, c.why)
		}
	}
	return nil
}

func (p *Policy) checkSystems() error {
	seen := map[string]bool{}
	for _, s := range p.systems {
		if s.GetSystem() == "" || s.GetHost() == "" || s.GetTestEnvironment() == "" || s.GetReleaseRef() == "" {
			return fmt.Errorf("policy names system %q without host, test environment or release branch", s.GetSystem())
		}
		if s.GetDrillHost() == s.GetHost() {
			return fmt.Errorf("policy gives system %q its real host as drill host", s.GetSystem())
		}
		if seen[s.GetSystem()] {
			return fmt.Errorf("policy names system %q twice", s.GetSystem())
		}
		seen[s.GetSystem()] = true
	}
	return nil
}

// Duration returns a time of the policy.
func (p *Policy) Duration(key string) time.Duration {
	return time.Duration(p.values[key]) * time.Second
}

// Count returns a count of the policy.
func (p *Policy) Count(key string) int { return int(p.values[key]) }

// System returns the entry of a system; ok is false for one the policy does not name.
func (p *Policy) System(name string) (*emergencyv1.CriticalSystem, bool) {
	for _, s := range p.systems {
		if s.GetSystem() == name {
			return s, true
		}
	}
	return nil, false
}

// Systems lists the systems the procedure is for.
func (p *Policy) Systems() []*emergencyv1.CriticalSystem { return p.systems }

// Values lists the numbers, sorted by key.
func (p *Policy) Values() []*emergencyv1.PolicyValue {
	list := make([]*emergencyv1.PolicyValue, 0, len(p.values))
	for k, v := range p.values {
		list = append(list, &emergencyv1.PolicyValue{Key: k, Value: v})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Key < list[j].Key })
	return list
}

// Document returns the policy as a message, for reading.
func (p *Policy) Document() *emergencyv1.Policy {
	var doc emergencyv1.Policy
	_ = proto.Unmarshal(p.Bytes, &doc) // decoded once already by ParsePolicy
	return &doc
}

// DefaultPolicy returns the document with the numbers of procedure.md, for a first rule book.
func DefaultPolicy() *emergencyv1.Policy {
	doc := &emergencyv1.Policy{Number: 1}
	for k, v := range defaults() {
		doc.Values = append(doc.Values, &emergencyv1.PolicyValue{Key: k, Value: v})
	}
	sort.Slice(doc.Values, func(i, j int) bool { return doc.Values[i].Key < doc.Values[j].Key })
	return doc
}

func defaults() map[string]int64 { return defaultValues }

var defaultValues = mustDefaults()

// mustDefaults decodes the embedded document; a build whose document does not decode cannot run at all.
func mustDefaults() map[string]int64 {
	var doc struct {
		Number uint32           `json:"number"`
		Values map[string]int64 `json:"values"`
	}
	if err := json.Unmarshal(defaultPolicy, &doc); err != nil {
		panic("embedded default policy: " + err.Error())
	}
	return doc.Values
}
