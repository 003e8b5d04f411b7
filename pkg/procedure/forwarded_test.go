// SPDX-License-Identifier: Apache-2.0

package procedure_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/procedure"
	pt "cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// handedOn is the command as a person signed it and a service hands it on.
func handedOn(w *pt.World, who string, c procedure.Command) procedure.Command {
	w = w.Fork()
	w.Forwarding = true
	return w.Prepare(who, c)
}

// outcome is what became of a command, for comparing.
func outcome(o pt.Outcome) string {
	switch {
	case o.Err != nil:
		return "error " + o.Err.Error()
	case o.Refusal != nil:
		return "refused " + string(o.Refusal.Reason) + " " + o.Refusal.Rule
	case o.Decision.Repeated != nil:
		return "repeated"
	}
	var b strings.Builder
	for _, e := range o.Decision.Events {
		b.WriteString(e.GetType())
		for _, d := range e.GetDeviations() {
			b.WriteString(" " + d.String())
		}
		b.WriteString("\n")
	}
	return b.String()
}

// forwardedLikeDirect is G1 for what is handed on: the rules say to a person the same by either road. It tells whether they accept.
func forwardedLikeDirect(t *testing.T, w *pt.World, m pt.Move) bool {
	t.Helper()
	through := w.Fork()
	pt.HandOn()(through)
	direct, forwarded := w.Fork().TryMove(m), through.TryMove(m)
	if d, f := outcome(direct), outcome(forwarded); d != f {
		t.Errorf("%s by %s at position %d\ndirect:    %s\nforwarded: %s", procedure.CommandName(m.Command), m.Who, w.State.Position, d, f)
	}
	a := forwarded.Record.GetActor()
	if forwarded.Record != nil && (a.GetPerson() != pt.PersonOf(m.Who) || !procedure.Forwarded(a) || a.GetSystemName() != "dashboard" || a.GetKeyId() != forwarded.Record.GetApproval().GetKeyId() || a.GetRole() != direct.Record.GetActor().GetRole()) {
		t.Errorf("%s by %s is recorded as %v", procedure.CommandName(m.Command), m.Who, a)
	}
	return forwarded.Record != nil
}

// TestForwarded has every command that a person gives handed on, in the states of the stories, by those who may and by those who may
// not. What is accepted is folded and verified as a reader does who believes no service (pt.World.Record).
func TestForwarded(t *testing.T) {
	t.Parallel()
	worlds := []*pt.World{pt.NewWorld(t)}
	for _, m := range slices.Concat(pt.Milestones(), pt.Milestones2(), pt.Milestones3()) {
		worlds = append(worlds, pt.Given(t, pt.Story(m)).World())
	}
	for _, steps := range append(disputeStates(),
		[]pt.Step{pt.Story(pt.Applied), pt.Does(agent, pt.ReportTree(pt.Tree("odd")))}, []pt.Step{pt.Story(pt.Registered), pt.Does("bert", pt.Veto())},
		[]pt.Step{pt.Story(pt.Verified), pt.Does("repo:git", &emergencyv1.CheckReplicationRequest{}, pt.Facts(pt.Drift("etc/odd")))},
		[]pt.Step{pt.Story(pt.Declared), pt.Does("carla", pt.CapturedAt(note(), pt.T0()))}, []pt.Step{pt.Story(pt.Frozen), pt.Does("carl", pt.Arm())},
		[]pt.Step{pt.Story(pt.OnTestServer), pt.Does("theo", pt.Test(pass))},
	) {
		worlds = append(worlds, pt.Given(t, steps...).World())
	}
	accepted, tried := map[string]bool{}, map[string]int{}
	for _, w := range worlds {
		for _, m := range pt.Moves(w.State) {
			name := procedure.CommandName(m.Command)
			if !pt.IsPerson(m.Who) || m.Command.GetMeta().GetCapturedAt() != nil {
				continue
			}
			answer := name + " " + outcome(w.Decide(m.Who, w.Prepare(m.Who, m.Command), m.Options()...))
			if tried[answer]++; tried[answer] > 1 { // each answer to each command once
				continue
			}
			if forwardedLikeDirect(t, w, m) {
				accepted[name] = true
			}
		}
	}
	book := pt.Founding().For(t)
	for _, m := range []pt.Move{
		{Who: "bea", Command: &emergencyv1.GrantRoleRequest{Grant: &emergencyv1.RoleGrant{Person: "mia", Role: roleTE, EffectiveAt: stampOf(book.Now), BoardDecision: "m1"}}},
		{Who: "bea", Command: revokeRole("theo", roleTE, book.Now)}, {Who: "clara", Command: &emergencyv1.SetRotaRequest{Team: testing_}},
		{Who: "mia", Command: &emergencyv1.SetContactsRequest{Person: "mia", Contacts: []*emergencyv1.Contact{{Channel: "mail", Address: "mia@example.org"}}}},
		{Who: "anna", Command: &emergencyv1.AddKeyRequest{Key: &emergencyv1.Key{KeyId: pt.KeyOf("anna3").ID, PublicKey: pt.KeyOf("anna3").Public, Person: "anna"}}},
		{Who: "anna", Command: &emergencyv1.RevokeKeyRequest{KeyId: pt.KeyOf("anna2").ID, Reason: "the card is lost"}},
		{Who: "bea", Command: pt.NextPolicy(book, "bruno", nil)},
		{Who: "mia", Command: pt.NextPolicy(book, "bruno", nil)},
	} {
		if forwardedLikeDirect(t, book, m) {
			accepted[procedure.CommandName(m.Command)] = true
		}
	}
	accepted["ImportArchive"] = forwardedLikeDirect(t, pt.NewArchive(t), pt.Move{Who: "casper", Command: pt.ImportArchive(pt.Archived(1))})
	for _, info := range procedure.Commands() {
		if len(info.Roles) > 0 && info.Name != "Connect" && !accepted[info.Name] {
			t.Errorf("nobody's %s was accepted as forwarded", info.Name)
		}
	}
}

// TestForwardedConnect: what the broker gives for a person is not to be had by another road.
func TestForwardedConnect(t *testing.T) {
	t.Parallel()
	given(t, pt.Story(pt.Armed), pt.HandOn()).When(pt.Connect()).By("emil").ThenRefused(procedure.ReasonRole)
}

// TestForwardedWhole flips each field of forwarded commands, those that are set and those that are not: whoever hands one on can
// change nothing of it.
func TestForwardedWhole(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		to  pt.Milestone
		who string
		c   procedure.Command
	}{
		"declaration":   {"", "carla", pt.Declare()},
		"call-out":      {pt.Declared, "carla", &emergencyv1.CallOutRequest{Teams: []emergencyv1.Team{critical}, Channels: []string{"mail", "sms"}, Message: "come"}},
		"answer":        {pt.Called, "carla", &emergencyv1.RespondRequest{Answer: &emergencyv1.RespondRequest_Accept{Accept: &emergencyv1.Acceptance{Slot: "critical/1", ContactPath: "by phone"}}}},
		"patch":         {pt.Called, "dora", pt.Register(1)},
		"review":        {pt.Registered, "anna", pt.FirstReview(approve)},
		"transfer":      {pt.Reviewed, "anna", &emergencyv1.TransferRequest{}},
		"start":         {pt.Observed, "carla", &emergencyv1.StartApplyRequest{}},
		"health":        {pt.Verified, "carla", pt.Health()},
		"report":        {pt.Replicated, "carla", nil},
		"lead decision": {pt.Documented, "clara", pt.Lead(false)},
		"grant":         {pt.Permitted, "carla", pt.GrantTo("emil", "carl")},
		"freeze":        {pt.Live, "carl", &emergencyv1.FreezeRequest{Grant: "G1"}},
		"pinned note":   {pt.Called, "carla", with(note(), func(c *emergencyv1.AnnotateLogRequest) { c.Meta = &emergencyv1.CommandMeta{} })},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := given(t, pt.HandOn()).World()
			if x.to != "" {
				pt.Story(x.to)(w)
			}
			c := x.c
			if c == nil {
				c = pt.Document(w.State)
			}
			if name == "pinned note" {
				c.GetMeta().ExpectedPosition = proto.Uint64(w.State.Position)
			}
			honest := w.Prepare(x.who, c)
			flipped := 0
			eachChange(honest, func(what string, changed procedure.Command) {
				flipped++
				out := w.Decide(x.who, changed)
				if out.Refusal == nil || out.Refusal.Reason != procedure.ReasonSignature {
					t.Errorf("%s: %s", what, outcome(out))
				}
			})
			if flipped < 8 {
				t.Errorf("only %d changes were tried", flipped)
			}
			if out := w.Decide(x.who, honest); out.Refusal != nil || out.Err != nil {
				t.Errorf("as it is: %s", outcome(out))
			}
		})
	}
}

// eachChange calls try with copies of a command, each changed in one place: a value that is set, one that is not, or a field that
// nobody knows. The approval stays as it is, and forwarded stays set; without it the command would be the service's own.
func eachChange(c procedure.Command, try func(what string, changed procedure.Command)) {
	places := placesIn(c.ProtoReflect().Descriptor(), c.ProtoReflect())
	for _, p := range places {
		n := proto.Clone(c).(procedure.Command)
		p.change(n.ProtoReflect())
		if !proto.Equal(n, c) {
			try(p.what, n)
		}
	}
}

type place struct {
	what   string
	change func(protoreflect.Message)
}

func placesIn(d protoreflect.MessageDescriptor, m protoreflect.Message) []place {
	list := []place{{"unknown field of " + string(d.Name()), func(m protoreflect.Message) {
		m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	}}}
	fields := d.Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if d.Name() == "CommandMeta" && (fd.Name() == "approval" || fd.Name() == "forwarded") {
			continue
		}
		name := string(d.Name()) + "." + string(fd.Name())
		if m.Has(fd) && fd.Name() != "meta" {
			list = append(list, place{name + " unset", func(m protoreflect.Message) { m.Clear(fd) }})
		}
		switch {
		case fd.IsList():
			list = append(list, place{name + " longer", func(m protoreflect.Message) {
				l := m.Mutable(fd).List()
				l.Append(l.NewElement())
			}})
		case fd.Message() != nil && m.Has(fd):
			for _, p := range placesIn(fd.Message(), m.Get(fd).Message()) {
				list = append(list, place{p.what, func(m protoreflect.Message) { p.change(m.Mutable(fd).Message()) }})
			}
		case fd.Message() != nil:
			list = append(list, place{name + " set", func(m protoreflect.Message) { m.Mutable(fd) }})
		default:
			list = append(list, place{name + " changed", func(m protoreflect.Message) { m.Set(fd, anotherValue(fd, m.Get(fd))) }})
		}
	}
	return list
}

// anotherValue is another value of a field.
func anotherValue(fd protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(v.String() + "x")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(append(slices.Clone(v.Bytes()), 1))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!v.Bool())
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(v.Enum() + 1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(v.Uint() + 1))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(v.Uint() + 1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(v.Int() + 1))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(v.Int() + 1)
	}
	panic("no other value of a field of kind " + fd.Kind().String())
}

// TestForwardedBy is who may hand on what for whom.
func TestForwardedBy(t *testing.T) {
	t.Parallel()
	as := func(actor procedure.Actor) pt.Option { return pt.WithEnv(func(e *procedure.Env) { e.Actor = actor }) }
	revoked := pt.WithEnv(func(e *procedure.Env) {
		book, err := e.Book.With(e.Book.Position+1, e.Now, &emergencyv1.KeyRevoked{KeyId: pt.KeyOf(pt.Forwarder).ID})
		if err != nil {
			t.Error(err)
		}
		e.Book = book
	})
	// signed by a key over a statement that may be changed first
	signed := func(key string, change func(*emergencyv1.Statement)) func(*pt.World, procedure.Command) {
		return func(w *pt.World, c procedure.Command) {
			st, err := procedure.StatementFor(w.State, c, pt.PersonOf(key), roleCA, w.Now)
			if err != nil {
				t.Error(err)
				return
			}
			if change != nil {
				change(st)
			}
			c.GetMeta().Approval = pt.KeyOf(key).Sign(st)
		}
	}
	direct := func(w *pt.World, c procedure.Command) { // of a start that is given over the own connection
		plain := proto.Clone(c).(procedure.Command)
		plain.GetMeta().Forwarded, plain.GetMeta().Approval = false, nil
		c.GetMeta().Approval = w.Sign("carla", plain)
	}
	anna := func(st *emergencyv1.Statement) { st.Person = "anna" }
	for _, x := range []struct {
		name    string
		c       procedure.Command
		change  func(*pt.World, procedure.Command)
		with    pt.Option
		refused procedure.Reason
	}{
		{name: "by a service"},
		{name: "by another service", with: as(pt.Actor(pt.OtherService))},
		{name: "by the person's own connection", with: as(pt.Actor("carla")), refused: procedure.ReasonForwarding},
		{name: "by another person's connection", with: as(pt.Actor("anna")), refused: procedure.ReasonForwarding},
		{name: "by an agent", with: as(pt.Actor(agent)), refused: procedure.ReasonForwarding},
		{name: "by the broker", with: as(pt.Actor("gateway:carla")), refused: procedure.ReasonForwarding},
		{name: "by a part of a service", with: as(pt.Actor("service")), refused: procedure.ReasonForwarding},
		{name: "by a part of a service, for a person", with: as(procedure.Actor{System: emergencyv1.SystemKind_SYSTEM_KIND_SERVICE, Person: "carla", KeyID: pt.KeyOf("carla").ID}), refused: procedure.ReasonForwarding},
		{name: "by nobody", with: as(pt.Actor("nobody")), refused: procedure.ReasonNoIdentity},
		{name: "by a stranger", with: as(pt.Actor("stranger")), refused: procedure.ReasonKeyUnknown},
		{name: "by a service whose key is revoked", with: revoked, refused: procedure.ReasonKeyRevoked},
		{name: "unsigned", change: func(w *pt.World, c procedure.Command) { c.GetMeta().Approval, w.Unsigned = nil, true }, refused: procedure.ReasonSignature},
		{name: "signed by a second key", change: signed("carla2", nil)},
		{name: "signed by another person", change: signed("anna", nil), refused: procedure.ReasonRole},
		{name: "signed by another person in her name", change: signed("carla", anna), refused: procedure.ReasonSignature},
		{name: "signed by an agent", change: signed("host:"+pt.Host, func(st *emergencyv1.Statement) { st.Person = "" }), refused: procedure.ReasonKeyUnknown},
		{name: "signed by the service", change: signed(pt.Forwarder, func(st *emergencyv1.Statement) { st.Person = "carla" }), refused: procedure.ReasonKeyUnknown},
		{name: "signed by an unknown key", change: signed("ghost", nil), refused: procedure.ReasonKeyUnknown},
		{name: "signed by a revoked key", change: signed("carl-revoked", nil), refused: procedure.ReasonKeyRevoked},
		{name: "signed for the own connection", change: direct, refused: procedure.ReasonSignature},
		{name: "signed for another request", change: signed("carla", func(st *emergencyv1.Statement) { st.RequestId = "request-9999" }), refused: procedure.ReasonSignature},
		{name: "signed for another command", change: signed("carla", func(st *emergencyv1.Statement) { st.Command = "BackOut" }), refused: procedure.ReasonSignature},
		{name: "signed for another incident", change: signed("carla", func(st *emergencyv1.Statement) { st.Incident = "e20261123.9" }), refused: procedure.ReasonSignature},
		{name: "signed in a role that the command is not for", change: signed("carla", func(st *emergencyv1.Statement) { st.Role = roleTE }), refused: procedure.ReasonSignature},
		{name: "signed without the digest", change: signed("carla", func(st *emergencyv1.Statement) { st.Claims = st.Claims[:len(st.Claims)-1] }), refused: procedure.ReasonSignature},
		{name: "signed with more than was asked", change: signed("carla", func(st *emergencyv1.Statement) {
			st.Claims = append(st.Claims, &emergencyv1.Claim{Name: "host", Value: "other"})
		}), refused: procedure.ReasonSignature},
		{name: "of a note, signed too long ago", c: note(), change: signed("carla", func(st *emergencyv1.Statement) {
			st.SignedAt = stampOf(st.GetSignedAt().AsTime().Add(-5*time.Minute - time.Second))
		}), refused: procedure.ReasonStepUpRequired},
		{name: "of a note, signed as long ago as may be", c: note(), change: signed("carla", func(st *emergencyv1.Statement) {
			st.SignedAt = stampOf(st.GetSignedAt().AsTime().Add(-5 * time.Minute))
		})},
		{name: "of a note, signed in the future", c: note(), change: signed("carla", func(st *emergencyv1.Statement) { st.SignedAt = stampOf(st.GetSignedAt().AsTime().Add(3 * time.Minute)) }), refused: procedure.ReasonStepUpRequired},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			c := given(t, pt.Story(pt.Observed), pt.HandOn())
			command := x.c
			if command == nil {
				command = &emergencyv1.StartApplyRequest{}
			}
			command = c.World().Prepare("carla", command)
			if x.change != nil {
				x.change(c.World(), command)
			}
			var options []pt.Option
			if x.with != nil {
				options = append(options, x.with)
			}
			c = c.When(command).By("carla", options...)
			switch {
			case x.refused != "":
				c.ThenRefused(x.refused)
			case x.c != nil:
				c.Then("LogAnnotated")
			default:
				c.Then("ApplyStarted")
			}
		})
	}
}

// TestForwardedNotAsTheService: without the flag it is the service's own command, whoever signed it.
func TestForwardedNotAsTheService(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Observed), pt.HandOn()).World()
	c := w.Prepare("carla", note())
	c.GetMeta().Forwarded = false
	pt.GivenWorld(t, w).Counting(seen).When(c).By(pt.Forwarder).ThenRefused(procedure.ReasonSignature) // a signature that nobody asks for
	c.GetMeta().Approval = nil
	pt.GivenWorld(t, w).Counting(seen).When(c).By(pt.Forwarder).ThenRefused(procedure.ReasonRole)
	start := w.Prepare("carla", &emergencyv1.StartApplyRequest{})
	start.GetMeta().Forwarded, w.Forwarding = false, false
	pt.GivenWorld(t, w).Counting(seen).When(start).By(pt.Forwarder).ThenRefused(procedure.ReasonSignature)
	pt.GivenWorld(t, w).Counting(seen).When(start).By("carla").ThenRefused(procedure.ReasonSignature) // nor hers, with what she signed for another road
}

// TestForwardedSafety: what makes safe is never refused for an old signature (G8); what opens an emergency is.
func TestForwardedSafety(t *testing.T) {
	t.Parallel()
	ago := func(c procedure.Command) func(*pt.World) procedure.Command {
		return func(w *pt.World) procedure.Command {
			c := w.Prepare("carl", c)
			w.Wait(4 * time.Hour)
			return c
		}
	}
	run := func(to pt.Milestone, c procedure.Command) *pt.Case {
		k := given(t, pt.HandOn())
		if to != "" {
			k.And(pt.Story(to))
		}
		return k.When(ago(c)(k.World())).By("carl")
	}
	run(pt.Live, &emergencyv1.FreezeRequest{Grant: "G1"}).Then("SessionFrozen")
	run(pt.Live, &emergencyv1.TerminateRequest{Grant: "G1"}).Then("SessionTerminated")
	run("", pt.Declare()).ThenRefused(procedure.ReasonStepUpRequired)
	run(pt.Called, note()).ThenRefused(procedure.ReasonStepUpRequired)
}

// TestForwardedCaptured: what was captured offline is handed in by its person alone.
func TestForwardedCaptured(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Called), pt.HandOn()).World()
	c := pt.CapturedAt(note(), w.State.RecordedAt)
	c.Meta.Incident, c.Meta.RequestId = w.State.Incident, "captured-1"
	st, err := procedure.StatementFor(w.State, c, "carla", roleCA, w.State.RecordedAt)
	if err != nil {
		t.Fatal(err)
	}
	c.Meta.Forwarded = true
	if _, err := procedure.StatementFor(w.State, c, "carla", roleCA, w.State.RecordedAt); err == nil {
		t.Error("a statement for what was captured and is forwarded")
	}
	digest, err := procedure.RequestDigest(c)
	if err != nil {
		t.Fatal(err)
	}
	st.Claims[len(st.Claims)-1].Value = digest
	c.Meta.Approval = pt.KeyOf("carla").Sign(st)
	pt.GivenWorld(t, w).Counting(seen).When(c).By("carla").ThenRefused(procedure.ReasonField)
}

// TestForwardedTwice is G3: a person's request id is the person's, whichever service hands the command on.
func TestForwardedTwice(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Called), pt.HandOn()).World()
	c := w.Prepare("carla", note())
	first := w.Do("carla", c)
	w.Wait(time.Hour) // the signature is old by now, and what was done was done
	for _, service := range []string{pt.Forwarder, pt.OtherService} {
		again := w.Decide("carla", c, pt.WithEnv(func(e *procedure.Env) { e.Actor = pt.Actor(service) }))
		if again.Decision == nil || again.Decision.Repeated == nil || again.Decision.Repeated.First != first.Record.GetFirstPosition() {
			t.Errorf("again through %s: %s", service, outcome(again))
		}
	}
	reused := note()
	reused.Text, reused.Meta = "what I would rather have noted", &emergencyv1.CommandMeta{RequestId: c.GetMeta().GetRequestId()}
	pt.GivenWorld(t, w).Counting(seen).When(reused).By("carla").ThenRefused(procedure.ReasonRequestIDReused)
	other := note()
	other.Meta = &emergencyv1.CommandMeta{RequestId: c.GetMeta().GetRequestId()}
	if out := w.Try("clara", other); out.Record == nil { // another person's ids are others
		t.Errorf("clara's own request: %s", outcome(out))
	}
}

// TestForwardedRecordsAreVerified: no owner can record an act as handed on that the person did not sign, or not like this, or not
// then, also not one that nobody signs otherwise.
func TestForwardedRecordsAreVerified(t *testing.T) {
	t.Parallel()
	approvalOf := func(t *testing.T, w *pt.World, who string, c procedure.Command) *emergencyv1.Approval {
		t.Helper()
		return handedOn(w, who, c).GetMeta().GetApproval()
	}
	for name, x := range map[string]struct {
		to pt.Milestone
		c  procedure.Command
	}{"signed by few": {pt.Called, note()}, "signed always": {pt.Observed, &emergencyv1.StartApplyRequest{}}} {
		w := given(t, pt.Story(x.to), pt.HandOn()).World()
		pinned := proto.Clone(x.c).(procedure.Command)
		pinned.ProtoReflect().Set(pinned.ProtoReflect().Descriptor().Fields().ByName("meta"), protoreflect.ValueOfMessage((&emergencyv1.CommandMeta{ExpectedPosition: proto.Uint64(w.State.Position)}).ProtoReflect()))
		c := w.Prepare("carla", pinned)
		before := w.State
		rec := w.Fork().Record(c, w.Decide("carla", c).Decision)
		if err := procedure.VerifyRecord(before, rec, w.Book); err != nil {
			t.Fatal(err)
		}
		for forgery, forge := range map[string]func(*emergencyv1.Record){
			"no approval":                    func(r *emergencyv1.Record) { r.Approval = nil },
			"approval of another command":    func(r *emergencyv1.Record) { r.Approval = approvalOf(t, w, "carla", pt.StandDown()) },
			"approval of the same elsewhere": func(r *emergencyv1.Record) { r.Approval = approvalOf(t, w, "carla", x.c) },
			"approval by another person":     func(r *emergencyv1.Record) { r.Approval = approvalOf(t, w, "carl", x.c) },
			"signature cut":                  func(r *emergencyv1.Record) { r.Approval.Signature = r.Approval.Signature[1:] },
			"another digest":                 func(r *emergencyv1.Record) { r.RequestDigest = strings.Repeat("0", 64) },
			"no digest":                      func(r *emergencyv1.Record) { r.RequestDigest = "" },
			"another request":                func(r *emergencyv1.Record) { r.RequestId = "request-9999" },
			"another person":                 func(r *emergencyv1.Record) { r.Actor.Person = "carl" },
			"another role":                   func(r *emergencyv1.Record) { r.Actor.Role = roleSA },
			"another key":                    func(r *emergencyv1.Record) { r.Actor.KeyId = pt.KeyOf("carla2").ID },
			"kept back": func(r *emergencyv1.Record) {
				r.RecordedAt = stampOf(r.GetRecordedAt().AsTime().Add(5*time.Minute + time.Second))
				r.OccurredAt = r.RecordedAt
			},
			"ahead of its signature": func(r *emergencyv1.Record) {
				r.RecordedAt = stampOf(r.GetRecordedAt().AsTime().Add(-3 * time.Minute))
				r.OccurredAt = r.RecordedAt
			},
			"at another position": func(r *emergencyv1.Record) { r.FirstPosition += 2 },
			"as captured offline": func(r *emergencyv1.Record) { r.Late = true },
		} {
			forged := proto.CloneOf(rec)
			forge(forged)
			if err := procedure.VerifyRecord(before, forged, w.Book); err == nil {
				t.Errorf("%s, %s: believed", name, forgery)
			}
		}
	}
}

// TestForwardedRefusals: that a person's command was refused is the person's only if the person gave it.
func TestForwardedRefusals(t *testing.T) {
	t.Parallel()
	w := given(t, pt.Story(pt.Called), pt.HandOn()).World()
	c := w.Prepare("theo", note())
	out := w.Decide("theo", c)
	if out.Refusal == nil || !out.Refusal.Recorded() {
		t.Fatal(outcome(out))
	}
	event, err := procedure.RefusedEvent(procedure.OwnerIncident, c, out.Refusal, 0)
	if err != nil {
		t.Fatal(err)
	}
	actor, refusal := procedure.ActorOf(c, procedure.Env{Now: w.Now, Actor: pt.Actor(pt.Forwarder), Book: w.Book})
	if refusal != nil || actor.GetPerson() != "theo" || !procedure.Forwarded(actor) {
		t.Fatalf("%v, %v", actor, refusal)
	}
	digest, err := procedure.RequestDigest(c)
	if err != nil {
		t.Fatal(err)
	}
	rec := &emergencyv1.Record{
		Incident: w.State.Incident, FirstPosition: w.State.Position + 1, Owner: procedure.OwnerIncident, Command: "AnnotateLog", RequestId: c.GetMeta().GetRequestId(), RequestDigest: digest,
		Actor: actor, RecordedAt: stampOf(w.Now), Approval: c.GetMeta().GetApproval(), Events: []*emergencyv1.Event{event},
	}
	if err := procedure.VerifyRecord(w.State, rec, w.Book); err != nil {
		t.Error(err)
	}
	for name, forge := range map[string]func(*emergencyv1.Record){
		"unsigned":        func(r *emergencyv1.Record) { r.Approval = nil },
		"another person":  func(r *emergencyv1.Record) { r.Actor.Person = "tina" },
		"another request": func(r *emergencyv1.Record) { r.RequestId = "request-9999" },
		"another command": func(r *emergencyv1.Record) { r.Command = "StandDown" },
		"another digest":  func(r *emergencyv1.Record) { r.RequestDigest = strings.Repeat("0", 64) },
	} {
		forged := proto.CloneOf(rec)
		forge(forged)
		if err := procedure.VerifyRecord(w.State, forged, w.Book); err == nil {
			t.Errorf("%s: believed", name)
		}
	}
}
