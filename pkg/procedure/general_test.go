// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"crypto"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The general rules G1 to G11 (procedure.md 4.0), in their order.

func note() *emergencyv1.AnnotateLogRequest {
	return &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "a note"}
}

func TestG1Authentication(t *testing.T) {
	t.Parallel()
	declared := history(pt.Story(pt.Declared))
	run(t, []row{
		{name: "no certificate", given: declared, when: note(), by: "nobody", refused: procedure.ReasonNoIdentity},
		{name: "unknown key", given: declared, when: note(), by: "stranger", refused: procedure.ReasonKeyUnknown},
		{name: "revoked key", given: declared, when: note(), by: "carl-revoked", refused: procedure.ReasonKeyRevoked},
		{name: "another key of the same person", given: declared, when: note(), by: "anna2", then: events("LogAnnotated")},
		{name: "identity before form", given: declared, when: &emergencyv1.AnnotateLogRequest{}, by: "stranger", refused: procedure.ReasonKeyUnknown},
	})
}

// A key that is revoked later stays good for what was done before (2.3 (d)).
func TestKeyRevokedAtNow(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Declared)).World()
	book := pt.Founding().For(t)
	book.Now = w.Now.Add(time.Hour)
	book.Do("anna", &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf("anna2").ID, Reason: "stolen in the evening"})
	w.Book = book.Book
	if out := w.Try("anna2", note()); out.Refusal != nil {
		t.Errorf("an hour before the revocation: %v", out.Refusal)
	}
	w.Now = book.Now
	if out := w.Try("anna2", note()); out.Refusal == nil || out.Refusal.Reason != procedure.ReasonKeyRevoked {
		t.Errorf("at the revocation: %v", out.Refusal)
	}
	if out := w.Try("anna", note()); out.Refusal != nil {
		t.Errorf("by the other key: %v", out.Refusal)
	}
}

// What the rule book says has happened, also for a service whose clock is a little behind it (0.6). Further behind, it is the clock that says
// when, as for everything else.
func TestClockBehindTheRuleBook(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name   string
		behind time.Duration
		change procedure.Command
		by     string
		want   procedure.Reason
	}{
		{"key revoked", time.Minute, &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf("anna2").ID, Reason: "stolen in the evening"}, "anna2", procedure.ReasonKeyRevoked},
		{"key revoked, at the tolerance", 2 * time.Minute, &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf("anna2").ID, Reason: "stolen in the evening"}, "anna2", procedure.ReasonKeyRevoked},
		{"key revoked, beyond the tolerance", 2*time.Minute + time.Second, &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf("anna2").ID, Reason: "stolen in the evening"}, "anna2", ""},
		{"role ended", time.Minute, nil, "anna", procedure.ReasonRole},
		{"role ended, beyond the tolerance", 3 * time.Minute, nil, "anna", ""},
		{"another key", time.Minute, &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf("anna2").ID, Reason: "stolen in the evening"}, "anna", ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			w := pt.Given(t, pt.Story(pt.Declared)).World()
			book := pt.Founding().For(t)
			book.Now = w.Now.Add(x.behind)
			if x.change == nil {
				book.Do("bea", revokeRole("anna", roleSA, book.Now))
			} else {
				book.Do("anna", x.change)
			}
			w.Book = book.Book
			out := w.Try(x.by, note())
			var got procedure.Reason
			if out.Refusal != nil {
				got = out.Refusal.Reason
			}
			if got != x.want {
				t.Errorf("refused for %q, want %q", got, x.want)
			}
		})
	}
}

func TestG2Form(t *testing.T) {
	t.Parallel()
	declared := history(pt.Story(pt.Declared))
	meta := func(m *emergencyv1.CommandMeta) procedure.Command {
		return with(note(), func(c *emergencyv1.AnnotateLogRequest) { c.Meta = m })
	}
	text := func(s string) procedure.Command {
		return with(note(), func(c *emergencyv1.AnnotateLogRequest) { c.Text = s })
	}
	bad := func(name string, c procedure.Command) row {
		return row{name: name, given: declared, when: c, by: "carla", refused: procedure.ReasonField}
	}
	run(t, []row{
		bad("request id too short", meta(&emergencyv1.CommandMeta{RequestId: "short"})),
		bad("request id too long", meta(&emergencyv1.CommandMeta{RequestId: strings.Repeat("x", 65)})),
		bad("request id of other characters", meta(&emergencyv1.CommandMeta{RequestId: "request 0001"})),
		bad("incident of another form", meta(&emergencyv1.CommandMeta{Incident: "e2026.1"})),
		bad("the rule book is no incident", meta(&emergencyv1.CommandMeta{Incident: procedure.RuleBook})),
		bad("authority too long", meta(&emergencyv1.CommandMeta{Authority: strings.Repeat("x", 201)})),
		bad("text missing", text("")),
		bad("text too long", text(strings.Repeat("x", 16<<10+1))),
		bad("control character", text("beep\a")),
		bad("delete character", text("\x7f")),
		{name: "line ends and tabs are text", given: declared, when: text("one\n\ttwo"), by: "carla", then: events("LogAnnotated")},
		{name: "the longest text", given: declared, when: text(strings.Repeat("x", 16<<10)), by: "carla", then: events("LogAnnotated")},
		bad("unknown value of an enumeration", &emergencyv1.CallOutRequest{Teams: []emergencyv1.Team{99}}),
		bad("text deep inside", pt.Answer(&emergencyv1.Acceptance{Slot: "critical/1", ContactPath: "\x00"})),
	})
	t.Run("invalid UTF-8", func(t *testing.T) { // cannot come over the wire, and is refused all the same
		t.Parallel()
		w := pt.Given(t, pt.Story(pt.Declared)).World()
		c := w.Prepare("carla", note()).(*emergencyv1.AnnotateLogRequest)
		c.Text = "\xff"
		_, refusal, err := procedure.Decide(w.State, c, w.Env("carla", procedure.OwnerIncident))
		if err == nil && (refusal == nil || refusal.Reason != procedure.ReasonField) {
			t.Errorf("got refusal %v, error %v", refusal, err)
		}
	})
}

// TestG2Signature changes one thing after another in what was signed; each must be noticed.
func TestG2Signature(t *testing.T) {
	t.Parallel()
	review := func(t *testing.T) (*pt.World, *emergencyv1.RecordFirstReviewRequest) {
		w := pt.Given(t, pt.Story(pt.Registered)).World()
		return w, w.Prepare("anna", pt.FirstReview(approve)).(*emergencyv1.RecordFirstReviewRequest)
	}
	statement := func(c procedure.Command) *emergencyv1.Statement {
		var st emergencyv1.Statement
		if err := proto.Unmarshal(c.GetMeta().GetApproval().GetPayload(), &st); err != nil {
			t.Fatal(err)
		}
		return &st
	}
	resigned := func(change func(*emergencyv1.Statement)) func(*emergencyv1.RecordFirstReviewRequest) {
		return func(c *emergencyv1.RecordFirstReviewRequest) {
			st := statement(c)
			change(st)
			c.Meta.Approval = pt.KeyOf("anna").Sign(st)
		}
	}
	for name, change := range map[string]func(*emergencyv1.RecordFirstReviewRequest){
		"no signature":       func(c *emergencyv1.RecordFirstReviewRequest) { c.Meta.Approval = nil },
		"verdict changed":    func(c *emergencyv1.RecordFirstReviewRequest) { c.Verdict = veto },
		"reason changed":     func(c *emergencyv1.RecordFirstReviewRequest) { c.Reason = "other" },
		"phase changed":      func(c *emergencyv1.RecordFirstReviewRequest) { c.Phase = emergencyv1.Phase_PHASE_AFTER },
		"request id changed": func(c *emergencyv1.RecordFirstReviewRequest) { c.Meta.RequestId = "replay-0001" },
		"signature cut": func(c *emergencyv1.RecordFirstReviewRequest) {
			c.Meta.Approval.Signature = c.Meta.Approval.Signature[1:]
		},
		"payload changed": func(c *emergencyv1.RecordFirstReviewRequest) { c.Meta.Approval.Payload[5] ^= 1 },
		"payload type of record": func(c *emergencyv1.RecordFirstReviewRequest) {
			c.Meta.Approval.PayloadType = procedure.RecordPayloadType
		},
		"another person's key": func(c *emergencyv1.RecordFirstReviewRequest) { c.Meta.Approval.KeyId = pt.KeyOf("bert").ID },
		"unknown key":          func(c *emergencyv1.RecordFirstReviewRequest) { c.Meta.Approval.KeyId = pt.KeyOf("stranger").ID },
		"signed by another":    func(c *emergencyv1.RecordFirstReviewRequest) { c.Meta.Approval = pt.KeyOf("bert").Sign(statement(c)) },
		"for another incident": resigned(func(st *emergencyv1.Statement) { st.Incident = "e20261124.2" }),
		"for another command":  resigned(func(st *emergencyv1.Statement) { st.Command = "RecordSecondReview" }),
		"for another person":   resigned(func(st *emergencyv1.Statement) { st.Person = "bert" }),
		"in another role":      resigned(func(st *emergencyv1.Statement) { st.Role = emergencyv1.Role_ROLE_TESTER }),
		"in no role":           resigned(func(st *emergencyv1.Statement) { st.Role = 0 }),
		"for another binding":  resigned(func(st *emergencyv1.Statement) { st.Binding.Digest = strings.Repeat("0", 64) }),
		"for another patch":    resigned(func(st *emergencyv1.Statement) { st.PatchSha256 = strings.Repeat("0", 64) }),
		"for another base":     resigned(func(st *emergencyv1.Statement) { st.BaseTree = pt.Tree("x") }),
		"for another result":   resigned(func(st *emergencyv1.Statement) { st.ResultTree = pt.Tree("x") }),
		"under another policy": resigned(func(st *emergencyv1.Statement) { st.PolicyDigest = "" }),
		"a claim less":         resigned(func(st *emergencyv1.Statement) { st.Claims = st.Claims[1:] }),
		"a claim more":         resigned(func(st *emergencyv1.Statement) { st.Claims = append(st.Claims, &emergencyv1.Claim{Name: "x"}) }),
		"without a time":       resigned(func(st *emergencyv1.Statement) { st.SignedAt = nil }),
		"with an unknown field": func(c *emergencyv1.RecordFirstReviewRequest) {
			c.Meta.Approval = pt.KeyOf("anna").SignBytes(procedure.StatementPayloadType, append(c.Meta.Approval.Payload, 0xa2, 0x06, 0x01, 'x'))
		},
		"no statement at all": func(c *emergencyv1.RecordFirstReviewRequest) {
			c.Meta.Approval = pt.KeyOf("anna").SignBytes(procedure.StatementPayloadType, []byte{0xff})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, c := review(t)
			change(c)
			pt.GivenWorld(t, keep(w)).Counting(seen).When(c).By("anna").ThenRefused(procedure.ReasonSignature)
		})
	}
	t.Run("unchanged", func(t *testing.T) {
		t.Parallel()
		w, c := review(t)
		pt.GivenWorld(t, w).When(c).By("anna").Then("FirstReviewRecorded")
	})
	t.Run("signed by the person's other key", func(t *testing.T) {
		t.Parallel()
		w, c := review(t)
		c.Meta.Approval = pt.KeyOf("anna2").Sign(statement(c))
		pt.GivenWorld(t, w).When(c).By("anna").Then("FirstReviewRecorded")
	})
	t.Run("signed by a revoked key", func(t *testing.T) {
		t.Parallel()
		w := pt.Given(t, pt.Story(pt.Observed)).World()
		c := w.Prepare("carl", &emergencyv1.StartApplyRequest{})
		c.GetMeta().Approval = pt.KeyOf("carl-revoked").Sign(statement(c))
		pt.GivenWorld(t, w).When(c).By("carl").ThenRefused(procedure.ReasonKeyRevoked)
	})
	t.Run("a service cannot sign for a person", func(t *testing.T) {
		t.Parallel()
		given(t, pt.Story(pt.Registered)).When(pt.FirstReview(approve)).By("reactor:anna").ThenRefused(procedure.ReasonSignature)
	})
	t.Run("a service passes on what a person signed", func(t *testing.T) {
		t.Parallel()
		w, c := review(t)
		pt.GivenWorld(t, w).When(c).By("reactor:anna").Then("FirstReviewRecorded")
	})
}

// keep stops World from signing again what a test took away.
func keep(w *pt.World) *pt.World { w.Unsigned = true; return w }

// TestG2NeedlessApproval: what needs no signature carries none into the record, neither a good one nor junk. In a page, where it is
// needed, it counts.
func TestG2NeedlessApproval(t *testing.T) {
	t.Parallel()
	note := func(a *emergencyv1.Approval) procedure.Command {
		return &emergencyv1.AnnotateLogRequest{Meta: &emergencyv1.CommandMeta{Approval: a}, Entry: 1, Text: "a note"}
	}
	w := pt.Given(t, pt.Story(pt.Declared)).World()
	for name, a := range map[string]*emergencyv1.Approval{
		"junk":        {PayloadType: procedure.StatementPayloadType, Payload: []byte("junk"), KeyId: pt.KeyOf("carla").ID, Signature: []byte("junk")},
		"empty":       {},
		"well signed": pt.KeyOf("carla").Sign(&emergencyv1.Statement{Incident: w.State.Incident, Command: "AnnotateLog", Person: "carla", SignedAt: stampOf(w.Now)}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := pt.Given(t, pt.Story(pt.Declared)).Counting(seen).When(note(a)).By("carla").ThenRefused(procedure.ReasonSignature)
			if len(r.Allow) != 1 || !strings.Contains(r.Allow[0].Description, "without the approval") {
				t.Errorf("what to do: %+v", r.Allow)
			}
		})
	}
	pt.Given(t, pt.Story(pt.Declared)).Counting(seen).When(note(nil)).By("carla").Then("LogAnnotated")
}

// A record's signature counts where it is verified, and nowhere else.
func TestSignatureCounts(t *testing.T) {
	t.Parallel()
	forwarded := &emergencyv1.Actor{Person: "carla", System: emergencyv1.SystemKind_SYSTEM_KIND_SERVICE, SystemName: "dashboard", KeyId: "k"}
	refused := []*emergencyv1.Event{{Type: "review.CommandRefused"}}
	for _, x := range []struct {
		name string
		rec  *emergencyv1.Record
		want bool
	}{
		{"needed", &emergencyv1.Record{Command: "RecordFirstReview"}, true},
		{"not needed", &emergencyv1.Record{Command: "AnnotateLog"}, false},
		{"handed on", &emergencyv1.Record{Command: "AnnotateLog", Actor: forwarded}, true},
		{"captured", &emergencyv1.Record{Command: "AnnotateLog", Late: true}, true},
		{"refused", &emergencyv1.Record{Command: "RecordFirstReview", Events: refused}, false},
		{"refused, handed on", &emergencyv1.Record{Command: "RecordFirstReview", Events: refused, Actor: forwarded}, true},
		{"unknown", &emergencyv1.Record{Command: "Nothing"}, false},
	} {
		x.rec.Approval = &emergencyv1.Approval{}
		if got := procedure.SignatureCounts(x.rec); got != x.want {
			t.Errorf("%s: %v", x.name, got)
		}
	}
}

func TestVerifySignatureKinds(t *testing.T) {
	t.Parallel()
	payload := []byte("payload")
	for _, bits := range []int{1024, 2048} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatalf("RSA key of %d bits: %v", bits, err)
		}
		public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(procedure.PAE("type", payload))
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		err = procedure.VerifySignature(public, "type", payload, signature)
		if ok := err == nil; ok != (bits >= 2048) {
			t.Errorf("RSA of %d bits: %v", bits, err)
		}
	}
	for _, name := range []string{"anna", "bert"} { // ECDSA, Ed25519
		a := pt.KeyOf(name).SignBytes("type", payload)
		if err := procedure.VerifySignature(pt.KeyOf(name).Public, "type", payload, a.GetSignature()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for what, err := range map[string]error{
			"other type":    procedure.VerifySignature(pt.KeyOf(name).Public, "typf", payload, a.GetSignature()),
			"other payload": procedure.VerifySignature(pt.KeyOf(name).Public, "type", []byte("payloae"), a.GetSignature()),
			"other key":     procedure.VerifySignature(pt.KeyOf("carla").Public, "type", payload, a.GetSignature()),
			"no key":        procedure.VerifySignature(nil, "type", payload, a.GetSignature()),
			"no signature":  procedure.VerifySignature(pt.KeyOf(name).Public, "type", payload, nil),
		} {
			if err == nil {
				t.Errorf("%s, %s: verifies", name, what)
			}
		}
	}
}

func TestG3Repetition(t *testing.T) {
	t.Parallel()
	id := &emergencyv1.CommandMeta{RequestId: "the-same-id"}
	first := with(note(), func(c *emergencyv1.AnnotateLogRequest) { c.Meta = id })
	noted := pt.Does("carla", first)
	other := with(first, func(c *emergencyv1.AnnotateLogRequest) { c.Text = "another note" })

	t.Run("same body: the first result, however late", func(t *testing.T) {
		t.Parallel()
		c := given(t, pt.Story(pt.Settled), noted)
		position := c.World().State.Position
		c.And(pt.Does("carla", pt.Close()), pt.Waits(1000*time.Hour))
		r := c.When(first).By("carla").ThenRepeated()
		if r.First != position || r.Last != position || len(r.Types) != 1 || r.Hash == "" {
			t.Errorf("got %+v, want the note at %d", r, position)
		}
	})
	t.Run("by the person's other key", func(t *testing.T) {
		t.Parallel()
		given(t, pt.Story(pt.Declared), pt.Does("anna", first)).When(first).By("anna2").ThenRepeated()
	})
	t.Run("pinned position and signature do not count", func(t *testing.T) {
		t.Parallel()
		pinned := with(first, func(c *emergencyv1.AnnotateLogRequest) { c.Meta.ExpectedPosition = proto.Uint64(1) })
		given(t, pt.Story(pt.Declared), noted).When(pinned).By("carla").ThenRepeated()
	})
	run(t, []row{
		{name: "other body", given: history(pt.Story(pt.Declared), noted), when: other, by: "carla", refused: procedure.ReasonRequestIDReused},
		{name: "another person's id is another id", given: history(pt.Story(pt.Declared), noted), when: other, by: "carl", then: events("LogAnnotated")},
		{name: "another command's id is another id", given: history(pt.Story(pt.Declared), noted), by: "carla", then: events("IncidentStoodDown"),
			when: with(pt.StandDown(), func(c *emergencyv1.StandDownRequest) { c.Meta = id })},
		{name: "a refused command may be sent again", given: history(pt.Story(pt.Declared), refusedNote("carla", id)), when: other, by: "carla", then: events("LogAnnotated")},
	})
	t.Run("what was signed then still stands", func(t *testing.T) { // the next revision would have another number
		t.Parallel()
		w := pt.Given(t, pt.Story(pt.Declared)).World()
		c := w.Prepare("dora", pt.Register(1))
		w.Do("dora", c)
		pt.GivenWorld(t, w.Wait(time.Hour)).Counting(seen).When(c).By("dora").ThenRepeated()
	})
	t.Run("a declaration", func(t *testing.T) {
		t.Parallel()
		w := pt.NewWorld(t)
		c := w.Prepare("carla", pt.Declare())
		w.Do("carla", c)
		pt.GivenWorld(t, w).When(c).By("carla").ThenRepeated()
		pt.GivenWorld(t, w).Counting(seen).When(pt.Declare()).By("carla").ThenRefused(procedure.ReasonIncidentState)
	})
}

// refusedNote records the refusal of a note, as a service does.
func refusedNote(who string, meta *emergencyv1.CommandMeta) pt.Step {
	return func(w *pt.World) {
		c := w.Prepare(who, with(note(), func(c *emergencyv1.AnnotateLogRequest) { c.Meta, c.Entry = meta, 99 }))
		out := w.Try(who, c)
		w.AppendRefusal(who, c, out.Refusal)
	}
}

func TestG4Exists(t *testing.T) {
	t.Parallel()
	run(t, []row{
		{name: "no incident", when: note(), by: "carla", refused: procedure.ReasonIncident},
		{name: "no incident comes before no role", when: note(), by: "mia", refused: procedure.ReasonIncident},
	})
}

func TestG5Role(t *testing.T) {
	t.Parallel()
	c := given(t, pt.Story(pt.Declared)).When(pt.StandDown()).By("theo")
	r := c.ThenRefused(procedure.ReasonRole)
	if len(r.Allow) == 0 || !strings.Contains(r.Allow[0].Description, "carla") {
		t.Errorf("the refusal does not say who could: %+v", r)
	}
	run(t, []row{
		{name: "role after form", given: history(pt.Story(pt.Declared)), when: &emergencyv1.StandDownRequest{}, by: "theo", refused: procedure.ReasonField},
		{name: "role before state", given: history(pt.Story(pt.ClosedDown)), when: pt.StandDown(), by: "theo", refused: procedure.ReasonRole},
	})
}

func TestG7State(t *testing.T) {
	t.Parallel()
	merged := func(w *pt.World) {
		w.Append(procedure.OwnerIncident, "MergeInto", &emergencyv1.IncidentMerged{Target: "e20261123.1", Reason: "the same"})
	}
	stoodDown := pt.Does("carla", pt.StandDown())
	run(t, []row{
		{name: "closed takes no call-out", given: history(pt.Story(pt.ClosedDown)), when: &emergencyv1.CallOutRequest{}, by: "carla", refused: procedure.ReasonIncidentState},
		{name: "closed takes a note", given: history(pt.Story(pt.ClosedDown)), when: note(), by: "carla", then: events("LogAnnotated")},
		{name: "closed is not closed again", given: history(pt.Story(pt.ClosedDown)), when: pt.Close(), by: "carla", refused: procedure.ReasonIncidentState},
		{name: "stood down takes no patch", given: history(pt.Story(pt.Declared), stoodDown), when: pt.Register(1), by: "dora", refused: procedure.ReasonIncidentState},
		{name: "stood down takes no review of what was registered", given: history(pt.Story(pt.Registered), stoodDown), when: pt.FirstReview(approve), by: "anna", refused: procedure.ReasonIncidentState},
		{name: "stood down takes the lead's decision", given: history(pt.Story(pt.Declared), stoodDown), when: pt.Lead(false), by: "clara", then: events("LeadDecisionRecorded")},
		{name: "merged takes nothing", given: history(pt.Story(pt.Declared), merged), when: note(), by: "carla", refused: procedure.ReasonIncidentState},
		{name: "merged takes not even a tick", given: history(pt.Story(pt.Declared), merged), when: &emergencyv1.TickRequest{}, by: "timer", refused: procedure.ReasonIncidentState},
	})
}

// TestG7Table holds the commands that an ended incident takes against the list of G7 and of chapter 7's "discharged by".
func TestG7Table(t *testing.T) {
	t.Parallel()
	ended := map[string]string{
		"AnnotateLog": "G7", "Tick": "G7", "Document": "arbitration", "RecordBoardSummary": "arbitration", "SyncObligations": "arbitration",
		"RecordLeadDecision": "discharges LEAD_DECISION", "RecordHealth": "discharges HEALTH", "CheckReplication": "discharges REPLICATE",
		"PushReplication": "brings about what CheckReplication finds", "ExplainDrift": "discharges EXPLAIN_DRIFT",
		"ConfirmObserver": "discharges OBSERVER_DEBT", "WithdrawVeto": "discharges POST_APPLY_VETO", "OverruleVeto": "discharges POST_APPLY_VETO",
		"EnterUpdateCycle": "discharges ENTER_CYCLE", "ConcludeUpdateCycle": "discharges REGULAR_REVIEW", "ConfirmLateRecord": "discharges OFFLINE_RECONCILE",
		"RecordFirstReview": "phase after", "Transfer": "phase after", "ConfirmTestServer": "phase after", "ReportTest": "phase after", "RecordSecondReview": "phase after",
		"Terminate": "nobody is ever kept from ending an access", "Disable": "discharges DISABLE_ACCESS", "ProveUnusable": "discharges PROVE_UNUSABLE",
		"SealSession": "discharges SEAL_SESSION", "ExplainLeftovers": "discharges EXPLAIN_LEFTOVERS", "ReportLeftovers": "sealing needs it",
		"CaptureSessionDiff": "sealing needs it", "PlayRecording": "reading, and no act in the procedure",
		"ReportDelivery": "pages that were under way when the incident ended are evidence still",
	}
	for _, name := range []string{
		"FileDispute", "ReportFiling", "OpenCase", "ProposeArbitrator", "RespondAppointment", "CloseDeclined", "RecordPreliminaries", "DeliverRuling", "PublishRuling",
		"ReportDirectionDone", "ConfirmDirection", "RequestReview", "FormAppealPanel", "Redact", "ReportRedaction", "Disclose",
	} {
		ended[name] = "arbitration"
	}
	for _, c := range procedure.Commands() {
		if _, want := ended[c.Name]; want != c.AfterEnd {
			t.Errorf("%s after the end: procedure.md says %v, the table says %v", c.Name, want, c.AfterEnd)
		}
	}
}

func TestG8StepUp(t *testing.T) {
	t.Parallel()
	steppedUp := map[string]bool{"RecordFirstReview": true, "RecordSecondReview": true, "Forward": true, "StartApply": true, "RollBack": true, "SignJointDeclaration": true, "DeliverRuling": true, "Redact": true,
		"PermitAccess": true, "GrantAccess": true, "ArmWatch": true}
	for _, c := range procedure.Commands() {
		if c.StepUp != steppedUp[c.Name] {
			t.Errorf("%s: step-up %v, G8 says %v", c.Name, c.StepUp, steppedUp[c.Name])
		}
	}
	for _, x := range []struct {
		name string
		age  time.Duration
		ok   bool
	}{
		{"exactly as old as allowed", 5 * time.Minute, true}, {"older", 5*time.Minute + time.Nanosecond, false},
		{"from a clock a little ahead", -2 * time.Minute, true}, {"from the future", -2*time.Minute - time.Nanosecond, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			w := pt.Given(t, pt.Story(pt.Registered)).World()
			now := w.Now
			w.Now = now.Add(-x.age)
			c := w.Prepare("anna", pt.FirstReview(approve))
			w.Now = now
			k := pt.GivenWorld(t, w).Counting(seen).When(c).By("anna")
			if x.ok {
				k.Then("FirstReviewRecorded")
			} else {
				k.ThenRefused(procedure.ReasonStepUpRequired)
			}
		})
	}
	t.Run("never for a back-out", func(t *testing.T) {
		t.Parallel()
		given(t, pt.Story(pt.Applying), pt.Does("host:"+pt.Host, pt.ReportApply(false))).When(pt.BackOut()).By("carla").Then("BackOutStarted")
	})
}

// TestG9TimeRule is procedure.md 0.6.
func TestG9TimeRule(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name  string
		shift time.Duration
		skew  time.Duration
		ok    bool
	}{
		{"later", time.Second, 0, true}, {"the same moment", 0, 0, true},
		{"a little back", -time.Second, time.Second, true}, {"exactly the tolerance", -2 * time.Minute, 2 * time.Minute, true},
		{"more than the tolerance", -2*time.Minute - time.Nanosecond, 0, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			w := pt.Given(t, pt.Story(pt.Registered)).World()
			last := w.State.RecordedAt
			w.Now = last.Add(x.shift)
			c := pt.GivenWorld(t, w).Counting(seen).When(note()).By("anna")
			if !x.ok {
				c.ThenRefused(procedure.ReasonClockSkew)
				return
			}
			w = c.Then("LogAnnotated")
			if want := last.Add(max(0, x.shift)); !w.State.RecordedAt.Equal(want) {
				t.Errorf("recorded at %s, want %s", w.State.RecordedAt, want)
			}
			if got := w.Records[len(w.Records)-1].GetSkewMs(); got != x.skew.Milliseconds() {
				t.Errorf("skew %d ms, want %d", got, x.skew.Milliseconds())
			}
		})
	}
}

func TestG10Pinned(t *testing.T) {
	t.Parallel()
	at := func(p uint64) procedure.Command {
		return with(note(), func(c *emergencyv1.AnnotateLogRequest) { c.Meta = &emergencyv1.CommandMeta{ExpectedPosition: &p} })
	}
	run(t, []row{
		{name: "still there", given: history(pt.Story(pt.Declared)), when: at(1), by: "carla", then: events("LogAnnotated")},
		{name: "gone on", given: history(pt.Story(pt.Called)), when: at(1), by: "carla", refused: procedure.ReasonPositionMismatch},
		{name: "zero is a position too", given: history(pt.Story(pt.Declared)), when: at(0), by: "carla", refused: procedure.ReasonPositionMismatch},
	})
}

// TestDecideDefects are mistakes of a service, not of a person: errors, and never an answer.
func TestDecideDefects(t *testing.T) {
	t.Parallel()
	w := pt.Given(t, pt.Story(pt.Declared)).World()
	for name, out := range map[string]pt.Outcome{
		"another service's command": w.Decide("carla", w.Prepare("carla", note()), pt.Owner(procedure.OwnerReview)),
		"a value to keep, no salt":  w.Decide("clara", w.Prepare("clara", pt.Lead(true)), pt.WithEnv(func(e *procedure.Env) { e.Salt = []byte("short") })),
	} {
		if out.Err == nil {
			t.Errorf("%s: %+v", name, out)
		}
	}
	if _, err := procedure.RefusedEvent(procedure.OwnerIncident, notACommand{&emergencyv1.Statement{}}, &procedure.Refusal{}, 0); err == nil {
		t.Error("a message that is no command has a refusal event")
	}
	if _, _, err := procedure.Decide(w.State, notACommand{&emergencyv1.Statement{}}, w.Env("carla", procedure.OwnerIncident)); err == nil {
		t.Error("a message that is no command is decided")
	}
	// without a rule book nobody is known, and nothing panics
	env := w.Env("carla", procedure.OwnerIncident)
	env.Book = nil
	_, refusal, err := procedure.Decide(w.State, w.Prepare("carla", note()), env)
	if err != nil || refusal == nil || refusal.Reason != procedure.ReasonKeyUnknown {
		t.Errorf("no rule book: %v, %v", refusal, err)
	}
	env.Actor = pt.Actor("reactor:carla")
	_, refusal, err = procedure.Decide(w.State, w.Prepare("carla", note()), env)
	if err != nil || refusal == nil || refusal.Reason != procedure.ReasonRole {
		t.Errorf("no rule book, on behalf: %v, %v", refusal, err)
	}
}

// notACommand has the right methods and is in no table.
type notACommand struct{ *emergencyv1.Statement }

func (notACommand) GetMeta() *emergencyv1.CommandMeta { return nil }
