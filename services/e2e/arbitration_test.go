// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/cli/client"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/testenv"
	"cacert.org/emergency/services/notification/mail"
)

// forum is a real SMTP server: the arbitration forum's, and everybody else's.
type forum struct {
	addr  string
	mails chan letter
}

type letter struct {
	to   string
	head netmail.Header
	text string
}

const forumAddress = "disputes@arbitration.example"

// session is one SMTP dialogue. The first mail to the forum is put off, as greylisting servers do.
type session struct {
	*forum
	to    string
	first *bool
}

func (*session) Reset()                               {}
func (*session) Logout() error                        { return nil }
func (*session) Mail(string, *smtp.MailOptions) error { return nil }
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = to
	if to == forumAddress && *s.first {
		*s.first = false
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "greylisted, come again"}
	}
	return nil
}

func (s *session) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil || s.to != forumAddress {
		return err
	}
	m, err := netmail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		return err
	}
	text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		return err
	}
	s.mails <- letter{s.to, m.Header, strings.ReplaceAll(string(text), "\r\n", "\n")}
	return nil
}

func newForum(t *testing.T) *forum {
	t.Helper()
	f := &forum{mails: make(chan letter, 20)}
	first := true
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{forum: f, first: &first}, nil }))
	server.Domain = "localhost"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	f.addr = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return f
}

// mailing has the system send mails to the forum's server.
func (f *forum) mailing(s *app.Settings) {
	s.Channels = nil
	s.Mail = mail.Config{Server: f.addr, Security: mail.NoTLS, From: "emergency@example.org"}
	s.DisputeAddress = forumAddress
}

// next is the next mail to the forum.
func (f *forum) next(t *testing.T) letter {
	t.Helper()
	select {
	case l := <-f.mails:
		return l
	case <-time.After(testenv.Patience):
		t.Fatal("no mail came to the forum")
		return letter{}
	}
}

// court is a story with the people of arbitration.
type court struct {
	*testenv.Story
	t   *testing.T
	env *testenv.Env
}

func (c *court) dispute(n int) string {
	c.t.Helper()
	list := c.State().Disputes
	if len(list) < n {
		c.t.Fatalf("%d disputes", len(list))
	}
	return list[n-1].ID
}

func (c *court) appoint(n int, number, who string) {
	c.t.Helper()
	if c.State().Disputes[n-1].Case == "" {
		c.Do("casper", &emergencyv1.OpenCaseRequest{Dispute: c.dispute(n), CaseNumber: number})
	}
	c.Do("casper", &emergencyv1.ProposeArbitratorRequest{Dispute: c.dispute(n), Candidate: who})
	c.Do(who, &emergencyv1.RespondAppointmentRequest{Dispute: c.dispute(n), Accept: true, NoConflict: true})
}

func (c *court) preliminaries(n int) *emergencyv1.RecordPreliminariesRequest {
	c.t.Helper()
	return &emergencyv1.RecordPreliminariesRequest{Dispute: c.dispute(n), Jurisdiction: "DRP 2.1", Law: "NSW, Australia"}
}

// ruling judges everything that is attached, and orders something of somebody.
func (c *court) ruling(n int, order *emergencyv1.Order) *emergencyv1.DeliverRulingRequest {
	c.t.Helper()
	order.DueAt = timestamppb.New(c.env.Clock.Now().Add(30 * 24 * time.Hour))
	req := &emergencyv1.DeliverRulingRequest{
		Dispute: c.dispute(n), Parties: "as filed", Facts: "as the log says", Logic: "the controls were kept", Place: "Berlin", Directions: []*emergencyv1.Order{order},
	}
	for _, v := range procedure.Attached(c.State(), req.GetDispute()) {
		req.Judgements = append(req.Judgements, &emergencyv1.Judgement{Position: v.Position, Deviation: v.Deviation, Finding: emergencyv1.Finding_FINDING_JUSTIFIED})
	}
	return req
}

// A dispute by the public API from the filing, which reaches the forum by real mail, to the final ruling of an appeal panel.
// On the way everything is refused that somebody with a second role, a second key or a part in the incident could try.
func TestArbitration(t *testing.T) {
	t.Parallel()
	f := newForum(t)
	env := testenv.Start(t, testenv.Options{Settings: f.mailing})
	c := &court{env.Play(testenv.Verified), t, env}
	for _, p := range []string{"agnes", "alois", "achim", "adele", "ada", "axel", "theo"} {
		env.Enlist(p, emergencyv1.Role_ROLE_ARBITRATOR)
	}
	env.Enlist("doris", emergencyv1.Role_ROLE_DISPUTE_OFFICER)
	c.Do("clara", c.Decide()) // not referred although it is severe: a deviation for the ruling

	file := &emergencyv1.FileDisputeRequest{
		Concern: emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1, Claimants: []string{"carla"}, Respondents: []string{"the assessment team", "bea"},
		Complaint: "emergency issue handling under option 1", Relief: "a review of what was done",
	}
	c.Refused("carla", &emergencyv1.FileDisputeRequest{Concern: file.GetConcern(), Claimants: file.GetClaimants()}, procedure.ReasonDRPField)
	c.Do("carla", file)
	c.filed(f.next(t), file)
	again := env.SecondKey("carla")
	c.Refused(again, &emergencyv1.FileDisputeRequest{Concern: file.GetConcern(), Claimants: []string{"carla again"}, Respondents: []string{"x"}, Complaint: "y", Relief: "z"}, procedure.ReasonDisputeExists)
	c.Refused("carla", c.Close(), procedure.ReasonObligationsOpen)

	c.Do("casper", &emergencyv1.OpenCaseRequest{Dispute: c.dispute(1), CaseNumber: "a20261125.7"})
	c.Refused("casper", &emergencyv1.ProposeArbitratorRequest{Dispute: c.dispute(1), Candidate: "theo"}, procedure.ReasonConflictOfInterest) // tested the patch
	c.Refused("theo", c.ruling(1, &emergencyv1.Order{Person: "carla", Text: "nothing"}), procedure.ReasonNotCaseArbitrator)
	c.Do("casper", &emergencyv1.ProposeArbitratorRequest{Dispute: c.dispute(1), Candidate: "agnes"})
	c.Do("agnes", &emergencyv1.RespondAppointmentRequest{Dispute: c.dispute(1), Reason: "no time"})
	c.Refused("casper", &emergencyv1.CloseDeclinedRequest{Dispute: c.dispute(1)}, procedure.ReasonCandidatesLeft)
	c.appoint(1, "", "arno")
	c.Do("arno", c.preliminaries(1))
	c.Do("arno", &emergencyv1.AnnotateLogRequest{Entry: 1, Text: "I was there, too"}) // now arno has a part in it
	c.Refused("arno", c.ruling(1, &emergencyv1.Order{Person: "carla", Text: "nothing"}), procedure.ReasonConflictOfInterest)
	c.appoint(1, "", "alois")
	c.rule()
	c.appeal()
	c.end()
}

// filed checks what came to the forum, after a first try that was put off.
func (c *court) filed(l letter, file *emergencyv1.FileDisputeRequest) {
	t := c.t
	t.Helper()
	st := c.State()
	x := st.Disputes[0]
	if l.to != forumAddress || !strings.Contains(l.head.Get("Subject"), x.ID) || l.head.Get("Message-Id") == "" {
		t.Errorf("to %s: %v", l.to, l.head)
	}
	want := []string{x.ID, c.ID, file.GetComplaint(), file.GetRelief(), "carla", "the assessment team", x.EvidenceHash, "/log/" + c.ID}
	for _, v := range st.Deviations {
		want = append(want, fmt.Sprintf("position %d: ", v.Position))
	}
	for _, w := range want {
		if !strings.Contains(l.text, w) {
			t.Errorf("the filing lacks %q:\n%s", w, l.text)
		}
	}
	if len(st.Deviations) == 0 {
		t.Error("there is nothing to judge")
	}
	c.env.Await(c.ID, "the report that the filing was sent", func(*dashboardv1.Incident) bool { return c.State().Disputes[0].Mailed.Result == "sent" })
}

// rule is the ruling, its publication and its direction.
func (c *court) rule() {
	t := c.t
	t.Helper()
	order := &emergencyv1.Order{Person: "carla", Text: "write the procedure down"}
	unjudged := c.ruling(1, order)
	unjudged.Judgements = nil
	c.Refused("alois", unjudged, procedure.ReasonDeviationUnjudged)
	secret := c.ruling(1, order)
	secret.Sealed = true
	c.Refused("alois", secret, procedure.ReasonBoardDecisionMissing)
	c.Do("alois", c.ruling(1, order))
	c.Do("casper", &emergencyv1.PublishRulingRequest{Ruling: "R1", Text: "What was done was justified."})
	c.Refused("carl", &emergencyv1.ReportDirectionDoneRequest{Direction: "D1", Proof: "see the wiki"}, procedure.ReasonNotNamed)
	c.Do("carla", &emergencyv1.ReportDirectionDoneRequest{Direction: "D1", Proof: "see the wiki"})
	c.Refused("theo", &emergencyv1.ConfirmDirectionRequest{Direction: "D1"}, procedure.ReasonConflictOfInterest)
	c.Do("casper", &emergencyv1.ConfirmDirectionRequest{Direction: "D1"})
}

// appeal is the review, the panel and its final ruling.
func (c *court) appeal() {
	t := c.t
	t.Helper()
	c.Do("anna", &emergencyv1.RequestReviewRequest{Ruling: "R1", Ground: emergencyv1.ReviewGround_REVIEW_GROUND_INJUSTICE, Text: "the assessors were not heard"})
	c.Do("casper", &emergencyv1.OpenCaseRequest{Dispute: c.dispute(2), CaseNumber: "a20261126.1"})
	c.Refused("casper", &emergencyv1.ProposeArbitratorRequest{Dispute: c.dispute(2), Candidate: "alois"}, procedure.ReasonSameArbitrator)
	c.appoint(2, "", "achim")
	c.Refused(c.env.SecondKey("alois"), &emergencyv1.DeliverRulingRequest{Dispute: c.dispute(2), Logic: "I was right"}, procedure.ReasonNotCaseArbitrator)
	panel := func(members ...string) *emergencyv1.FormAppealPanelRequest {
		return &emergencyv1.FormAppealPanelRequest{Dispute: c.dispute(2), Members: members, Senior: "adele"}
	}
	c.Refused("doris", panel("adele", "ada", "axel"), procedure.ReasonNotReopened)
	c.Do("achim", &emergencyv1.DeliverRulingRequest{Dispute: c.dispute(2), Logic: "they have to be heard", Reopen: true})
	c.Refused("doris", panel("adele", "ada", "achim"), procedure.ReasonPanel)
	c.Refused("doris", panel("adele", "ada", "theo"), procedure.ReasonConflictOfInterest)
	c.Do("doris", panel("adele", "ada", "axel"))
	order := &emergencyv1.Order{Role: emergencyv1.Role_ROLE_CASE_MANAGER, Text: "tell the parties"}
	c.Refused("ada", c.ruling(2, order), procedure.ReasonNotCaseArbitrator)
	c.Do("adele", c.ruling(2, order))
	c.Do("casper", &emergencyv1.ReportDirectionDoneRequest{Direction: "D2", Proof: "told them"})
	c.Refused("casper", &emergencyv1.ConfirmDirectionRequest{Direction: "D2"}, procedure.ReasonSamePerson)
	c.Refused(c.env.SecondKey("casper"), &emergencyv1.ConfirmDirectionRequest{Direction: "D2"}, procedure.ReasonSamePerson)
	c.Do("adele", &emergencyv1.ConfirmDirectionRequest{Direction: "D2"})
	if r := c.State().Rulings; len(r) != 2 || !r[1].Final || r[0].Superseded != "R2" {
		t.Errorf("rulings: %+v", r)
	}
}

// end settles what else is owed and closes; then another dispute does not open the incident again.
func (c *court) end() {
	t := c.t
	t.Helper()
	c.Do("carla", c.Health())
	c.env.Await(c.ID, "equality of host and branch", replicated)
	c.Do("carla", c.Document())
	c.Do("bea", c.Report())
	c.Do("carla", c.Close())
	c.Do("bruno", &emergencyv1.FileDisputeRequest{
		Concern: emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER, Claimants: []string{"a member"}, Respondents: []string{"all"}, Complaint: "nobody told the members", Relief: "tell us",
	})
	in := c.env.Await(c.ID, "the obligation after closing", func(in *dashboardv1.Incident) bool {
		for _, o := range in.GetObligations() {
			if o.GetKind() == "RULING" && o.GetState() == "OPEN" {
				return true
			}
		}
		return false
	})
	if in.GetStatus() != string(procedure.Closed) {
		t.Errorf("a dispute opened the incident again: %s", in.GetStatus())
	}
	said := publicHeadlines(t, c.env, c.ID)
	for _, want := range []string{"Dispute filed", "Case number assigned", "Arbitrator accepted", "Ruling", "Direction carried out", "Review requested", "Re-opened", "Appeal panel formed"} {
		if !strings.Contains(strings.Join(said, "\n"), want) {
			t.Errorf("the public log has no %q: %q", want, said)
		}
	}
	soundHere(t, c.env)
}

// publicHeadlines are what anybody reads without a certificate.
func publicHeadlines(t *testing.T, env *testenv.Env, incident string) []string {
	t.Helper()
	var list []string
	for _, e := range publicEntries(t, env, incident) {
		list = append(list, e.GetHeadline())
	}
	return list
}

func publicEntries(t *testing.T, env *testenv.Env, incident string) []*dashboardv1.LogEntry {
	t.Helper()
	public, err := client.Dial(client.Config{Server: "localhost:1", Roots: env.Data("people", "carla", "ca.pem"), Dialer: env.Dial})
	must(t, err)
	defer func() { must(t, public.Close()) }()
	res, err := public.Query().ReadLog(t.Context(), &dashboardv1.ReadLogRequest{Incident: incident})
	must(t, err)
	return res.GetEntries()
}

// A redaction destroys value and salt for good, over a restart too, and the log shows its ground; what is due is disclosed by
// itself, and anybody can check it against the commitment in the history.
func TestRedactionAndDisclosure(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Replicated)
	const reason = "anybody can read the configuration" // of the declaration
	if files := holding(t, env.Data("nats"), reason); len(files) == 0 {
		t.Fatal("the value is in no file, so nothing would be shown")
	}
	declared := s.State().Declared
	s.Refused("carla", &emergencyv1.RedactRequest{Event: 1, Commitment: declared.Reason, Ground: "it tells too much", Clause: "SP 5.6"}, procedure.ReasonRole)
	s.Refused("clara", &emergencyv1.RedactRequest{Event: 1, Commitment: "severity", Ground: "it tells too much", Clause: "SP 5.6"}, procedure.ReasonExistence)
	s.Do("clara", &emergencyv1.RedactRequest{Event: 1, Commitment: declared.Reason, Ground: "it tells too much", Clause: "SP 5.6"})
	env.AwaitEvent(s.ID, "arbitration.RedactionCompleted", 0)
	if files := holding(t, env.Data("nats"), reason); len(files) > 0 {
		t.Errorf("the redacted value is still in %v", files)
	}
	env.Restart()
	if files := holding(t, env.Data("nats"), reason); len(files) > 0 {
		t.Errorf("the redacted value is back in %v", files)
	}
	_, err := env.As("clara").Query().ReadRestricted(soon(t), &dashboardv1.ReadRestrictedRequest{Incident: s.ID, Commitment: declared.Reason})
	testenv.WantRefusal(t, err, procedure.ReasonEntry)
	s.Refused("clara", &emergencyv1.DiscloseRequest{Event: 1, Commitment: declared.Reason}, procedure.ReasonValueGone)
	s.Refused("clara", &emergencyv1.RedactRequest{Event: 1, Commitment: declared.Reason, Ground: "it tells too much", Clause: "SP 5.6"}, procedure.ReasonRedacted)
	s.Do("clara", &emergencyv1.DiscloseRequest{Event: 1, Commitment: declared.Component})
	env.Await(s.ID, "disclosure of the symptom", func(*dashboardv1.Incident) bool { return disclosures(t, env, s.ID)[declared.Symptom] != "" })
	opened := disclosures(t, env, s.ID)
	if opened[declared.Symptom] != "cert-info runs what its caller says" || opened[declared.Component] != testenv.Program || opened[declared.Reason] != "" {
		t.Errorf("disclosed: %q", opened)
	}
	text := ""
	for _, e := range publicEntries(t, env, s.ID) {
		text += e.GetHeadline()
		for _, f := range e.GetFields() {
			text += " " + f.GetName() + "=" + f.GetValue()
		}
		text += "\n"
	}
	for _, want := range []string{"Field redacted", "ground=it tells too much", "clause=SP 5.6", "commitment=" + declared.Reason, "Disclosed"} {
		if !strings.Contains(text, want) {
			t.Errorf("the public log has no %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, reason) {
		t.Error("the public log tells what was redacted")
	}
	soundHere(t, env)
}

// disclosures are the disclosed values by commitment, each checked against it.
func disclosures(t *testing.T, env *testenv.Env, incident string) map[string]string {
	t.Helper()
	list := map[string]string{}
	must(t, env.As("clara").Records(soon(t), incident, func(signed *emergencyv1.SignedRecord) error {
		for _, e := range eventsOf(t, signed) {
			if f, ok := e.(*emergencyv1.FieldDisclosed); ok {
				if procedure.Commit(f.GetSalt(), f.GetValue()) != f.GetCommitment() {
					t.Errorf("%s at %d does not open its commitment", f.GetField(), f.GetEvent())
				}
				list[f.GetCommitment()] = string(f.GetValue())
			}
		}
		return nil
	}))
	return list
}

// holding are the files below a folder that hold a text.
func holding(t *testing.T, dir, text string) []string {
	t.Helper()
	var list []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go while the log works
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(text)) {
			list = append(list, path)
		}
		return nil
	}))
	return list
}
