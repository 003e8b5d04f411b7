// SPDX-License-Identifier: Apache-2.0

package arbitration_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/vault"
	restrictedv1 "cacert.org/emergency/proto/emergency/restricted/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/arbitration"
)

// post is a mail server in the test's hand.
type post struct {
	mu      sync.Mutex
	answers []emergencyv1.DeliveryState
	letters []arbitration.Letter
	taken   chan arbitration.Letter
}

func (p *post) Mail(_ context.Context, l arbitration.Letter) arbitration.Sent {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.letters = append(p.letters, l)
	state := emergencyv1.DeliveryState_DELIVERY_STATE_SENT
	if len(p.answers) > 0 {
		state, p.answers = p.answers[0], p.answers[1:]
	}
	if state == emergencyv1.DeliveryState_DELIVERY_STATE_SENT {
		p.taken <- l
	}
	return arbitration.Sent{State: state, Detail: "250 ok\r\nforged: line"}
}

func newPost(answers ...emergencyv1.DeliveryState) *post {
	return &post{answers: answers, taken: make(chan arbitration.Letter, 10)}
}

// owners is a connection to all owners in this process. Its calls can be made to fail.
type owners struct {
	server restrictedv1.RestrictedServiceServer
	before func(method string) error
	after  func(method string) error
}

func (o *owners) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	if err := o.before(method); err != nil {
		return err
	}
	var resp proto.Message
	var err error
	switch req := args.(type) {
	case *restrictedv1.RevealRequest:
		resp, err = o.server.Reveal(ctx, req)
	case *restrictedv1.EraseRequest:
		resp, err = o.server.Erase(ctx, req)
	default:
		err = fmt.Errorf("%s is not served", method)
	}
	if err != nil {
		return err
	}
	proto.Merge(reply.(proto.Message), resp)
	return o.after(method)
}

func (*owners) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("no streams here")
}

func never(string) error { return nil }

// owned connects an instance to the owners' vaults.
func owned(r *dispatchtest.Rig, o *owners) func(*instance) {
	if o.before == nil {
		o.before = never
	}
	if o.after == nil {
		o.after = never
	}
	return func(x *instance) {
		o.server = &service.Restricted{Vaults: r.Vaults, Log: r.Log, State: func(_ context.Context, id string) (*procedure.State, error) { return r.State(id), nil }}
		x.peers = map[string]grpc.ClientConnInterface{}
		for _, owner := range procedure.Owners() {
			x.peers[owner] = o
		}
	}
}

// seed plays steps and keeps what is restricted with its owners.
func seed(t *testing.T, r *dispatchtest.Rig, steps ...proceduretest.Step) *proceduretest.World {
	t.Helper()
	w := proceduretest.Given(t, steps...).World()
	for _, x := range w.State.Restricted {
		owner, _ := procedure.EventOwner(x.EventType)
		v, ok := w.Revealed[x.Commitment]
		if !ok {
			t.Fatalf("%s of %s is kept nowhere", x.Field, x.EventType)
		}
		if err := r.Vaults[owner].Put(t.Context(), x.Commitment, v.Salt, v.Value); err != nil {
			t.Fatal(err)
		}
	}
	r.Seed(w)
	return w
}

// wait waits until the incident is as wanted.
func (x *instance) wait(what string, is func(*procedure.State) bool) {
	x.t.Helper()
	for {
		changed, ok := x.reader.Changed(), false
		x.incidents.View(incident, func(s *procedure.State) { ok = is(s) })
		if ok {
			return
		}
		select {
		case <-changed:
		case <-x.t.Context().Done():
			x.t.Fatalf("never %s", what)
		}
	}
}

func as(t *testing.T, who string) context.Context {
	return identity.WithCaller(t.Context(), identity.Caller{KeyID: proceduretest.KeyOf(who).ID})
}

const concern = emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1

// A filing goes to the configured address with all that the forum needs, again until it is taken; what became of it is in the
// history, once for each outcome; and a restart sends nothing twice that was taken.
func TestFilingByMail(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	seed(t, r, proceduretest.Story(proceduretest.Verified), proceduretest.Does("clara", proceduretest.Lead(false)))
	failed := emergencyv1.DeliveryState_DELIVERY_STATE_FAILED
	p := newPost(failed, failed, emergencyv1.DeliveryState_DELIVERY_STATE_UNKNOWN)
	mailed := func(x *instance) {
		x.cfg = arbitration.Config{Address: "disputes@example.org", Mailer: p, Link: "https://emergency.example/log/"}
	}
	x := startOn(t, r, r.Clock, mailed)
	req := x.Prepare(r.State(incident), nil, "carla", proceduretest.FileDispute(concern)).(*emergencyv1.FileDisputeRequest)
	resp, err := x.server.FileDispute(as(t, "carla"), req)
	if err != nil {
		t.Fatal(err)
	}
	l := <-p.taken
	x.wait("reported as sent", func(s *procedure.State) bool { return len(s.Disputes) == 1 && s.Disputes[0].Mailed.Result == "sent" })
	st := r.State(incident)
	dispute := st.Disputes[0]
	if l.To != "disputes@example.org" || l.ID != incident+"/"+dispute.ID || l.Link != "https://emergency.example/log/"+incident || !strings.Contains(l.Subject, dispute.ID) {
		t.Errorf("%+v", l)
	}
	for _, part := range []string{
		"critical admin team", "software assessment team", req.GetComplaint(), req.GetRelief(), dispute.EvidenceHash, "emergency issue handling under option 1",
	} {
		if !strings.Contains(l.Text, part) {
			t.Errorf("the letter lacks %q:\n%s", part, l.Text)
		}
	}
	for _, v := range dispute.Deviations {
		if !strings.Contains(l.Text, fmt.Sprintf("position %d: ", v.Position)) {
			t.Errorf("the letter lacks the deviation at %d", v.Position)
		}
	}
	if len(dispute.Deviations) == 0 {
		t.Error("nothing is attached")
	}
	var outcomes []string
	for _, e := range r.Entries(incident) {
		for _, ev := range e.Record.GetEvents() {
			if m, err := procedure.DecodeEvent(ev); err == nil {
				if f, ok := m.(*emergencyv1.FilingReported); ok {
					outcomes = append(outcomes, f.GetState().String())
					if strings.ContainsAny(f.GetDetail(), "\r\n") {
						t.Errorf("detail %q", f.GetDetail())
					}
				}
			}
		}
	}
	if want := []string{"DELIVERY_STATE_FAILED", "DELIVERY_STATE_UNKNOWN", "DELIVERY_STATE_SENT"}; !slices.Equal(outcomes, want) {
		t.Errorf("reported %v, want %v", outcomes, want)
	}
	x.stop()
	y := startOn(t, r, r.Clock, mailed, func(y *instance) { y.ledger = x.ledger })
	again, err := y.server.FileDispute(as(t, "carla"), req)
	if err != nil || !again.GetCommitted().GetRepeated() || again.GetCommitted().GetRecordHash() != resp.GetCommitted().GetRecordHash() {
		t.Errorf("%v, %v", again, err)
	}
	y.settle()
	y.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.letters) != 4 {
		t.Errorf("%d letters", len(p.letters))
	}
	for _, other := range p.letters {
		if other.ID != l.ID || other.Text != l.Text {
			t.Error("a repeated letter is another one")
		}
	}
	r.Check()
}

// Without an address nothing is mailed, and the filing stands.
func TestNoAddress(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	seed(t, r, proceduretest.Story(proceduretest.Verified))
	x := start(t, r)
	req := x.Prepare(r.State(incident), nil, "mia", proceduretest.FileDispute(concern)).(*emergencyv1.FileDisputeRequest)
	if _, err := x.server.FileDispute(as(t, "mia"), req); err != nil {
		t.Fatal(err)
	}
	x.settle()
	if s := r.State(incident); len(s.Disputes) != 1 || s.Disputes[0].Mailed.Position > 0 {
		t.Errorf("%+v", s.Disputes)
	}
	_, err := arbitration.New(service.Deps{}, arbitration.Config{Address: "disputes@example.org"})
	if err == nil {
		t.Error("an address without a mailer is accepted")
	}
}

// Numbers of disputes count over all incidents of the day.
func TestDisputeNumbers(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	seed(t, r, proceduretest.Story(proceduretest.Verified), proceduretest.Does("carla", proceduretest.FileDispute(concern)), proceduretest.Does("carl", proceduretest.FileDispute(concern)))
	other := proceduretest.NewIncident(t, "e20261124.2")
	other.Now = r.Clock.Now()
	other.Do("carla", proceduretest.Declare())
	r.Seed(other)
	x := build(t, r, r.Clock)
	c := proceduretest.FileDispute(emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER)
	req := x.Prepare(r.State("e20261124.2"), nil, "anna", c).(*emergencyv1.FileDisputeRequest)
	if _, err := x.server.FileDispute(as(t, "anna"), req); err != nil {
		t.Fatal(err)
	}
	if got := r.State("e20261124.2").Disputes[0].ID; !strings.HasSuffix(got, ".3") {
		t.Errorf("the third dispute of the day is %s", got)
	}
}

// Who is named as a party in restricted text neither manages nor judges; the service reads the names, the rules refuse (X14).
func TestNamedParties(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	c := proceduretest.FileDispute(concern)
	c.Respondents = []string{"the software assessors", "Casper"}
	seed(t, r, proceduretest.Story(proceduretest.Verified), proceduretest.Does("carla", c))
	x := build(t, r, r.Clock)
	open := &emergencyv1.OpenCaseRequest{Dispute: r.State(incident).Disputes[0].ID, CaseNumber: "a20261125.1"}
	req := x.Prepare(r.State(incident), nil, "casper", open).(*emergencyv1.OpenCaseRequest)
	_, err := x.server.OpenCase(as(t, "casper"), req)
	refused(t, err, procedure.ReasonConflictOfInterest)
}

// A redaction destroys value and salt with the owner and is reported once: also when the service ends between any two of these,
// and when several instances do it.
func TestRedaction(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(o *owners){
		"no crash":                 func(*owners) {},
		"the owner is away":        func(o *owners) { o.before = failFor(2) },
		"the answer is lost":       func(o *owners) { o.after = failFor(1) },
		"the owner comes back":     func(o *owners) { o.before, o.after = failFor(1), failFor(1) },
		"away for many attempts":   func(o *owners) { o.before = failFor(5) },
		"the answer is lost often": func(o *owners) { o.after = failFor(4) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := dispatchtest.Memory(t)
			w := seed(t, r, proceduretest.Story(proceduretest.Verified))
			symptom := w.State.Declared.Symptom
			o := &owners{}
			crash(o)
			clock := &watched{Manual: r.Clock, alarms: make(chan time.Time, 1000)}
			go retries(t, clock)
			a := startOn(t, r, clock, owned(r, o))
			b := startOn(t, r, clock, owned(r, &owners{}))
			req := a.Prepare(r.State(incident), nil, "clara", proceduretest.Redact(1, symptom)).(*emergencyv1.RedactRequest)
			if _, err := a.server.Redact(as(t, "clara"), req); err != nil {
				t.Fatal(err)
			}
			a.wait("completed", func(s *procedure.State) bool {
				return len(procedure.PendingRedactions(s)) == 0 && slices.ContainsFunc(s.Restricted, func(x procedure.RestrictedAt) bool { return x.Erased.Position > 0 })
			})
			a.stop()
			b.stop()
			if _, _, err := r.Vaults[procedure.OwnerIncident].Get(t.Context(), symptom); !errors.Is(err, vault.ErrDestroyed) {
				t.Errorf("the value is still there: %v", err)
			}
			if _, _, err := r.Vaults[procedure.OwnerIncident].Get(t.Context(), w.State.Declared.Reason); err != nil {
				t.Errorf("another value is gone, too: %v", err)
			}
			completed := 0
			for _, e := range r.Entries(incident) {
				for _, ev := range e.Record.GetEvents() {
					if proceduretest.ShortType(ev.GetType()) == "RedactionCompleted" {
						completed++
					}
				}
			}
			if completed != 1 {
				t.Errorf("completed %d times", completed)
			}
			r.Check()
		})
	}
}

// failFor fails the first calls of Erase.
func failFor(n int) func(string) error {
	var mu sync.Mutex
	return func(method string) error {
		mu.Lock()
		defer mu.Unlock()
		if n > 0 && strings.HasSuffix(method, "/Erase") {
			n--
			return errors.New("connection lost")
		}
		return nil
	}
}

// retries lets the time pass that a service waits before it tries again.
func retries(t *testing.T, clock *watched) {
	for {
		select {
		case at := <-clock.alarms:
			if at.Sub(clock.Now()) <= 2*time.Second && at.After(clock.Now()) {
				clock.Set(at)
			}
		case <-t.Context().Done():
			return
		}
	}
}

// An owner believes no one: what was not ordered in the history is not erased.
func TestEraseOnlyWhatWasOrdered(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	w := seed(t, r, proceduretest.Story(proceduretest.Verified), func(w *proceduretest.World) { w.Do("clara", proceduretest.Redact(1, w.State.Declared.Symptom)) })
	o := &owners{}
	x := build(t, r, r.Clock, owned(r, o))
	_ = x
	at, symptom, reason := w.State.Position, w.State.Declared.Symptom, w.State.Declared.Reason
	for name, req := range map[string]*restrictedv1.EraseRequest{
		"another field":    {Owner: "incident", Incident: incident, Redaction: at, Commitment: reason},
		"another position": {Owner: "incident", Incident: incident, Redaction: at - 1, Commitment: symptom},
		"no position":      {Owner: "incident", Incident: incident, Commitment: symptom},
		"another owner":    {Owner: "review", Incident: incident, Redaction: at, Commitment: symptom},
		"another incident": {Owner: "incident", Incident: "e20261124.2", Redaction: at, Commitment: symptom},
	} {
		_, err := o.server.Erase(t.Context(), req)
		var refusal *procedure.Refusal
		if !errors.As(err, &refusal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []string{symptom, reason} {
		if _, _, err := r.Vaults["incident"].Get(t.Context(), c); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	}
	good := &restrictedv1.EraseRequest{Owner: "incident", Incident: incident, Redaction: at, Commitment: symptom}
	for range 2 {
		if _, err := o.server.Erase(t.Context(), good); err != nil {
			t.Error(err)
		}
	}
}

// What has become due is disclosed by itself, once, with a salt that anybody can check; not a moment before, and not what is
// lost.
func TestDueDisclosure(t *testing.T) {
	t.Parallel()
	dispatchtest.OnBoth(t, func(t *testing.T, r *dispatchtest.Rig) {
		w := seed(t, r, proceduretest.Story(proceduretest.Healthy))
		list := procedure.DueDisclosures(w.State)
		lost := list[len(list)-1]
		owner, _ := procedure.EventOwner(lost.EventType)
		if err := r.Vaults[owner].Destroy(t.Context(), lost.Commitment); err != nil {
			t.Fatal(err)
		}
		o, twin := &owners{}, &owners{}
		x, y := startOn(t, r, r.Clock, owned(r, o)), startOn(t, r, r.Clock, owned(r, twin))
		r.Clock.Set(list[0].Due)
		x.settle()
		if n := disclosed(r); n != 0 {
			t.Fatalf("%d are disclosed at the due time itself", n)
		}
		r.Clock.Advance(time.Second)
		x.wait("disclosed", func(s *procedure.State) bool { return len(procedure.DueDisclosures(s)) == 1 })
		x.settle()
		y.settle()
		x.stop()
		y.stop()
		if n := disclosed(r); n != len(list)-1 {
			t.Errorf("%d of %d are disclosed", n, len(list)-1)
		}
		for _, e := range r.Entries(incident) {
			for _, ev := range e.Record.GetEvents() {
				m, err := procedure.DecodeEvent(ev)
				if err != nil {
					t.Fatal(err)
				}
				if f, ok := m.(*emergencyv1.FieldDisclosed); ok && procedure.Commit(f.GetSalt(), f.GetValue()) != f.GetCommitment() {
					t.Errorf("%s at %d cannot be checked", f.GetField(), f.GetEvent())
				}
			}
		}
		r.Check()
	})
}

func disclosed(r *dispatchtest.Rig) int {
	n := 0
	for _, x := range r.State(incident).Restricted {
		if x.Disclosed.Position > 0 {
			n++
		}
	}
	return n
}

// A person discloses through the owner; what the owner does not keep any more is refused and no error.
func TestDiscloseByHand(t *testing.T) {
	t.Parallel()
	r := dispatchtest.Memory(t)
	w := seed(t, r, proceduretest.Story(proceduretest.Verified))
	away := errors.New("connection lost")
	o := &owners{}
	x := build(t, r, r.Clock, owned(r, o))
	give := func(commitment string) error {
		req := x.Prepare(r.State(incident), nil, "clara", &emergencyv1.DiscloseRequest{Event: 1, Commitment: commitment}).(*emergencyv1.DiscloseRequest)
		_, err := x.server.Disclose(as(t, "clara"), req)
		return err
	}
	o.before = func(string) error { return away }
	var again interface{ Temporary() bool }
	if err := give(w.State.Declared.Component); !errors.As(err, &again) {
		t.Errorf("the owner is away: %v", err)
	}
	o.before = never
	if err := give(w.State.Declared.Component); err != nil {
		t.Error(err)
	}
	if err := r.Vaults["incident"].Destroy(t.Context(), w.State.Declared.Reason); err != nil {
		t.Fatal(err)
	}
	refused(t, give(w.State.Declared.Reason), procedure.ReasonValueGone)
	refused(t, give(proceduretest.Genesis("nothing")), procedure.ReasonEntry)
}
