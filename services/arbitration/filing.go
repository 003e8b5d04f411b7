// SPDX-License-Identifier: Apache-2.0

package arbitration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/vault"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Letter is a mail to the arbitration forum.
type Letter struct {
	// ID is the same when the letter is sent again, so that the forum can tell a copy.
	ID string
	// Incident is what it is about.
	Incident string
	To       string
	Subject  string
	Text     string
	// Link leads to the incident; may be empty.
	Link string
	// At is when it was decided.
	At time.Time
}

// Sent says what became of a letter. It never claims more than the next hop said.
type Sent struct {
	State emergencyv1.DeliveryState
	// Detail is one line for the operator, without address or secret.
	Detail string
}

// Mailer sends letters. It tries once and returns when ctx ends. Implementations are safe for concurrent use.
type Mailer interface {
	Mail(ctx context.Context, l Letter) Sent
}

// plan: a filing goes by mail to the configured address (seed 2.4, 3.7), a request for review too.
func (s *Server) plan(_ context.Context, rec *projection.Record, e projection.Event) []effect.Effect {
	switch p := e.Payload.(type) {
	case *emergencyv1.DisputeFiled:
		return s.mail(rec, e, p.GetDispute(), func(ctx context.Context) (string, error) { return s.filingText(ctx, rec, p) })
	case *emergencyv1.ReviewRequested:
		return s.mail(rec, e, p.GetDispute(), func(ctx context.Context) (string, error) { return s.reviewText(ctx, rec, p) })
	}
	return nil
}

// giveUpAfter bounds the tries of one mail. What a server says no to for good is tried on, too: it is mostly a setting that
// somebody can mend.
const giveUpAfter = 72 * time.Hour

// mail sends a filing. It may go out twice when the service is stopped in the act or the answer is lost, under the same
// Message-ID: a copy harms nobody, a filing that never arrives does.
func (s *Server) mail(rec *projection.Record, e projection.Event, dispute string, text func(context.Context) (string, error)) []effect.Effect {
	if s.cfg.Address == "" || s.cfg.Mailer == nil {
		s.Log.Warn("a dispute is filed and not mailed: no address is configured", "incident", rec.Incident, "dispute", dispute)
		return nil
	}
	last := Sent{}
	return []effect.Effect{{Key: rec.ID(e) + "/mail", Repeatable: true, Run: func(ctx context.Context) error {
		body, err := text(ctx)
		if err != nil {
			return err
		}
		at := rec.Record.GetRecordedAt().AsTime()
		sent := s.cfg.Mailer.Mail(ctx, Letter{
			ID: rec.Incident + "/" + dispute, Incident: rec.Incident, To: s.cfg.Address, Subject: subject(rec.Incident, dispute), Text: body, Link: s.link(rec.Incident), At: at,
		})
		taken := sent.State == emergencyv1.DeliveryState_DELIVERY_STATE_SENT || sent.State == emergencyv1.DeliveryState_DELIVERY_STATE_DELIVERED
		late := s.Clock.Now().Sub(at) > giveUpAfter
		if !taken && !late {
			if sent.State != last.State {
				last = sent
				_ = s.reportFiling(ctx, rec, e, dispute, sent) // the next try reports again
			}
			return fmt.Errorf("the mail that files %s is %s: %s", dispute, sent.State, sent.Detail)
		}
		if err := s.reportFiling(ctx, rec, e, dispute, sent); err != nil {
			return err
		}
		if !taken {
			return fmt.Errorf("%w after %s: the mail that files %s: %s", effect.ErrGiveUp, giveUpAfter, dispute, sent.Detail)
		}
		s.Log.InfoContext(ctx, "dispute filed by mail", "incident", rec.Incident, "dispute", dispute)
		return nil
	}}}
}

// reportFiling records what became of the mail, as the mailer: once for each outcome.
func (s *Server) reportFiling(ctx context.Context, rec *projection.Record, e projection.Event, dispute string, sent Sent) error {
	state := sent.State
	if state == emergencyv1.DeliveryState_DELIVERY_STATE_UNSPECIFIED {
		state = emergencyv1.DeliveryState_DELIVERY_STATE_UNKNOWN
	}
	cmd := &emergencyv1.ReportFilingRequest{
		Meta: service.FollowMeta(rec, e, "mail."+strings.ToLower(strings.TrimPrefix(state.String(), "DELIVERY_STATE_"))), Dispute: dispute, State: state, Detail: clean(sent.Detail),
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_, err := s.Follow(ctx, cmd, rec, e, s.System(emergencyv1.SystemKind_SYSTEM_KIND_MAILER), procedure.Facts{})
	var refusal *procedure.Refusal
	if errors.As(err, &refusal) && refusal.Reason == procedure.ReasonRequestIDReused {
		return nil // reported under this id with another detail before
	}
	return err
}

// clean is one line of bounded length: what a mail server answers is its own.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	return s[:min(len(s), 300)]
}

func subject(incident, dispute string) string {
	if strings.HasPrefix(incident, "x") {
		return "DRILL: dispute " + dispute + " in " + incident
	}
	return "Dispute " + dispute + " in emergency " + incident
}

func (s *Server) link(incident string) string {
	if s.cfg.Link == "" {
		return ""
	}
	return s.cfg.Link + incident
}

// filingText is the filing as the forum gets it (DRP 1.4): the four fields, what the evidence ends with, and every deviation.
func (s *Server) filingText(ctx context.Context, rec *projection.Record, p *emergencyv1.DisputeFiled) (string, error) {
	values := map[string]string{}
	for name, r := range map[string]*emergencyv1.Restricted{"claimants": p.GetClaimants(), "respondents": p.GetRespondents(), "complaint": p.GetComplaint()} {
		v, err := s.readable(ctx, r)
		if err != nil {
			return "", err
		}
		values[name] = v
	}
	var b strings.Builder
	if strings.HasPrefix(rec.Incident, "x") {
		b.WriteString("This is a drill.\n\n")
	}
	fmt.Fprintf(&b, "Dispute:     %s\nIncident:    %s\nConcerns:    %s\nFiled at:    %s\n", p.GetDispute(), rec.Incident, concernWord(p.GetConcern()), rec.Record.GetRecordedAt().AsTime().UTC().Format(time.RFC3339))
	if p.GetRefiles() != "" {
		fmt.Fprintf(&b, "Files again: %s\n", p.GetRefiles())
	}
	fmt.Fprintf(&b, "\nClaimants:\n%s\n\nRespondents:\n%s\n\nComplaint:\n%s\n\nRelief:\n%s\n", indent(values["claimants"]), indent(values["respondents"]), indent(values["complaint"]), indent(p.GetRelief()))
	fmt.Fprintf(&b, "\nEvidence root: record %s, up to position %d\n\nDeviations that a ruling has to judge: %d\n", p.GetHeadHash(), p.GetEvidencePosition(), len(p.GetDeviations()))
	for _, v := range p.GetDeviations() {
		fmt.Fprintf(&b, "  position %d: %s\n", v.GetPosition(), word(v.GetDeviation().String(), "DEVIATION_"))
	}
	return b.String(), nil
}

func (s *Server) reviewText(ctx context.Context, rec *projection.Record, p *emergencyv1.ReviewRequested) (string, error) {
	why, err := s.readable(ctx, p.GetText())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("Dispute:  %s, a request to review ruling %s\nIncident: %s\nGround:   %s\n\n%s\n", p.GetDispute(), p.GetRuling(), rec.Incident, word(p.GetGround().String(), "REVIEW_GROUND_"), indent(why)), nil
}

func concernWord(c emergencyv1.DisputeConcern) string {
	switch c {
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_1, emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_2, emergencyv1.DisputeConcern_DISPUTE_CONCERN_STRATEGY_3:
		return fmt.Sprintf("emergency issue handling under option %d", c)
	case emergencyv1.DisputeConcern_DISPUTE_CONCERN_ACCESS, emergencyv1.DisputeConcern_DISPUTE_CONCERN_OTHER, emergencyv1.DisputeConcern_DISPUTE_CONCERN_REVIEW,
		emergencyv1.DisputeConcern_DISPUTE_CONCERN_UNSPECIFIED:
	}
	return word(c.String(), "DISPUTE_CONCERN_")
}

// readable is a value of this service; one that was redacted meanwhile says so.
func (s *Server) readable(ctx context.Context, r *emergencyv1.Restricted) (string, error) {
	if r.GetCommitment() == "" {
		return "(none)", nil
	}
	value, _, err := s.Vault.Get(ctx, r.GetCommitment())
	if errors.Is(err, vault.ErrDestroyed) || errors.Is(err, vault.ErrNotFound) {
		return "(not kept any more)", nil
	}
	return string(value), err
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

func word(value, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(value, prefix)), "_", " ")
}
