// SPDX-License-Identifier: Apache-2.0

package notification

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/vault"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/notification/channel"
)

// plan says what an event makes the service do outside.
func (s *Server) plan(ctx context.Context, rec *projection.Record, e projection.Event) []effect.Effect {
	switch p := e.Payload.(type) {
	case *emergencyv1.EmergencyDeclared:
		return []effect.Effect{s.callOut(rec, e, p)}
	case *emergencyv1.CallOutIssued:
		return s.pages(rec, e, p.GetPages(), "You are called")
	case *emergencyv1.RePaged:
		return s.pages(rec, e, p.GetPages(), "You are called again")
	case *emergencyv1.CoverageGapFound:
		return s.tellGap(rec, e, p)
	case *emergencyv1.DeliveryReported:
		return s.failedPage(ctx, rec, e, p)
	case *emergencyv1.ResponderDeclined:
		return s.answeredByLink(ctx, rec, e)
	case *emergencyv1.ResponderAccepted:
		if p.GetUnconfirmed() {
			return s.tellAsked(rec, e, p.GetPerson(), p.GetSlot())
		}
		return s.answeredByLink(ctx, rec, e)
	case *emergencyv1.ResponderHandedOver:
		return s.tellAsked(rec, e, p.GetTo(), p.GetSlot())
	case *emergencyv1.StrategyEscalated:
		return s.tellStrategy(ctx, rec, e, procedure.SkippedRoles(p), escalatedText(rec, e, p))
	case *emergencyv1.StrategyDeEscalated:
		return s.tellStrategy(ctx, rec, e, nil, fmt.Sprintf("The emergency goes on by strategy %d: %s\n", p.GetTo(), p.GetReason()))
	case *emergencyv1.IncidentStoodDown:
		return s.tellCalled(ctx, rec, e, " stood down", "It was stood down: "+p.GetReason()+"\n\n")
	case *emergencyv1.IncidentMerged:
		return s.tellCalled(ctx, rec, e, " merged into "+p.GetTarget()+"; please answer there", "")
	case *emergencyv1.ObligationEscalated:
		return s.tellOwed(ctx, rec, e, p)
	}
	if list, ok := s.tellDispute(ctx, rec, e); ok {
		return list
	}
	return s.tellNext(ctx, rec, e)
}

// callOut calls all teams in the declarer's name: declaring is one act (design.md). If somebody has called them already, or
// it is refused, the refusal is in the history and there is nothing to repeat.
func (s *Server) callOut(rec *projection.Record, e projection.Event, p *emergencyv1.EmergencyDeclared) effect.Effect {
	return effect.Effect{Key: rec.ID(e) + "/call-out", Repeatable: true, Run: func(ctx context.Context) error {
		cmd := &emergencyv1.CallOutRequest{Meta: service.FollowMeta(rec, e, "call-out"), Message: inDrill(rec.Incident, "Emergency on "+p.GetSystem())}
		_, err := s.Follow(ctx, cmd, rec, e, s.OnBehalf(rec), procedure.Facts{})
		return unlessRefused(err)
	}}
}

// unlessRefused ends the tries of a follow-up that a rule refused.
func unlessRefused(err error) error {
	var refusal *procedure.Refusal
	if errors.As(err, &refusal) {
		return fmt.Errorf("%w: %w", effect.ErrGiveUp, err)
	}
	return err
}

// pages sends the pages of a round, each on its own. A page is not repeatable: a person is not called twice because a
// process was restarted; what is not known is reported as unknown, and the next round calls again.
func (s *Server) pages(rec *projection.Record, e projection.Event, list []*emergencyv1.CalledPage, greeting string) []effect.Effect {
	var effects []effect.Effect
	for _, p := range list {
		effects = append(effects, effect.Effect{
			Key:  rec.ID(e) + "/page/" + p.GetPage(),
			Lane: p.GetChannel(),
			Run: func(ctx context.Context) error {
				receipt, begun := s.send(ctx, p.GetChannel(), p.GetAddress().GetCommitment(), s.page(rec.Incident, p, greeting))
				if !begun && ctx.Err() != nil {
					return effect.ErrNotBegun // the page goes out after the next start
				}
				return s.report(ctx, rec, e, p, receipt)
			},
			Unknown: func(ctx context.Context) error {
				return s.report(ctx, rec, e, p, channel.Receipt{State: channel.Unknown, Detail: "the service was stopped while sending"})
			},
		})
	}
	return effects
}

func (s *Server) page(incident string, p *emergencyv1.CalledPage, greeting string) channel.Page {
	team := procedure.TeamWord(p.GetTeam())
	text := fmt.Sprintf("%s for the %s team.\n\nTake a slot:  epatch accept --incident %s --team %s --contact YOUR-PHONE\nOr say no:    epatch decline --incident %s\n", greeting, team, incident, team, incident)
	page := channel.Page{
		ID: incident + "/" + p.GetPage(), Incident: incident, Headline: subject(incident, ": "+team+" team"), Text: inDrill(incident, text),
		Recipient: channel.Recipient{Person: p.GetPerson()}, Urgent: true, At: s.Clock.Now(),
	}
	if s.cfg.Link != "" {
		page.Link = s.cfg.Link + s.token(incident, p.GetPage())
	}
	return page
}

// subject is the subject of a message about an incident. A drill is never to be taken for an emergency, and no text that
// somebody typed stands in it.
func subject(incident, what string) string {
	if isDrill(incident) {
		return "CAcert DRILL " + incident + what
	}
	return "CAcert emergency " + incident + what
}

// inDrill is a message's text, which says so in a drill.
func inDrill(incident, text string) string {
	if isDrill(incident) {
		return "This is a drill.\n\n" + text
	}
	return text
}

// isDrill tells a drill by its id (procedure.md 0.12).
func isDrill(incident string) bool { return strings.HasPrefix(incident, "x") }

// report records what became of a page, as the mailer. The page has gone out, so the report is tried until it is taken: also
// once more when the service is told to stop.
func (s *Server) report(ctx context.Context, rec *projection.Record, e projection.Event, p *emergencyv1.CalledPage, r channel.Receipt) error {
	cmd := &emergencyv1.ReportDeliveryRequest{
		Meta: service.FollowMeta(rec, e, "page."+p.GetPage()), Page: p.GetPage(), State: deliveryState(r.State), Detail: channel.OneLine(r.Detail, 200),
	}
	return effect.Insist(ctx, s.warn(ctx, "delivery not reported yet", rec), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportWithin)
		defer cancel()
		_, err := s.Follow(ctx, cmd, rec, e, s.System(emergencyv1.SystemKind_SYSTEM_KIND_MAILER), procedure.Facts{})
		return unlessRefused(err)
	})
}

// reportWithin bounds one try of a report.
const reportWithin = 10 * time.Second

func (s *Server) warn(ctx context.Context, what string, rec *projection.Record) func(error) {
	return func(err error) { s.Log.WarnContext(ctx, what, "incident", rec.Incident, "error", err) }
}

// stateOf is the incident as it is, however long that takes: what is planned from it would otherwise be lost. ok is false when the
// service is stopped, and for an incident that this version cannot follow: whoever waited for it would keep the others from being paged.
func (s *Server) stateOf(ctx context.Context, rec *projection.Record) (st *procedure.State, ok bool) {
	err := effect.Insist(ctx, s.warn(ctx, "nobody told yet", rec), func(ctx context.Context) (err error) {
		st, err = s.Dispatch.State(ctx, rec.Incident)
		if dispatch.Poisoned(err) {
			return fmt.Errorf("%w: %w", effect.ErrGiveUp, err)
		}
		return err
	})
	if errors.Is(err, effect.ErrGiveUp) && s.firstPoison(rec.Incident) {
		s.Log.ErrorContext(ctx, "nobody is told of this incident: this version cannot follow it", "incident", rec.Incident, "error", err)
	}
	return st, err == nil
}

// firstPoison tells whether the log was not told yet that an incident cannot be followed.
func (s *Server) firstPoison(incident string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.poisoned[incident]
	s.poisoned[incident] = true
	return first
}

func deliveryState(st channel.State) emergencyv1.DeliveryState {
	switch st {
	case channel.Sent:
		return emergencyv1.DeliveryState_DELIVERY_STATE_SENT
	case channel.Delivered:
		return emergencyv1.DeliveryState_DELIVERY_STATE_DELIVERED
	case channel.Failed:
		return emergencyv1.DeliveryState_DELIVERY_STATE_FAILED
	case channel.Unknown:
	}
	return emergencyv1.DeliveryState_DELIVERY_STATE_UNKNOWN
}

// send gives a page to a channel and waits for its final receipt. begun is false if the channel never tried it.
func (s *Server) send(ctx context.Context, name, address string, p channel.Page) (receipt channel.Receipt, begun bool) {
	value, err := s.address(ctx, address)
	switch {
	case errors.Is(err, effect.ErrGiveUp):
		return channel.Receipt{State: channel.Failed, Detail: "the address is not kept any more"}, false
	case err != nil:
		return channel.Receipt{State: channel.Failed, Temporary: true, Detail: "not sent: the service was stopped before it had the address"}, false
	}
	p.Recipient.Address = string(value)
	done := make(chan channel.Outcome, 1)
	s.mu.Lock()
	s.waiting[name+"/"+p.ID] = done
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, name+"/"+p.ID)
		s.mu.Unlock()
	}()
	if receipt, taken := s.fanout.Submit(name, p); !taken {
		return receipt, false
	}
	o := <-done // the fanout gives every page that it took a final receipt, also when it is stopped
	return o.Receipt, o.Attempt > 0
}

// address reads a restricted address, however long the vault takes. It gives up on one that is not kept.
func (s *Server) address(ctx context.Context, commitment string) (value []byte, err error) {
	again := func(err error) { s.Log.WarnContext(ctx, "address not read yet", "error", err) }
	err = effect.Insist(ctx, again, func(ctx context.Context) error {
		value, _, err = s.Vault.Get(ctx, commitment)
		for _, gone := range []error{vault.ErrNotFound, vault.ErrDestroyed, vault.ErrCorrupt, vault.ErrCommitment} {
			if errors.Is(err, gone) {
				return fmt.Errorf("%w: %w", effect.ErrGiveUp, err)
			}
		}
		return err
	})
	return value, err
}

func (s *Server) outcome(o channel.Outcome) {
	if !o.Final {
		return
	}
	s.mu.Lock()
	done := s.waiting[o.Channel+"/"+o.Page.ID]
	s.mu.Unlock()
	if done != nil {
		done <- o
	}
}

// tell sends a message that is no page: nobody has to answer, and nothing is reported. It goes over the person's first
// channel that takes it.
func (s *Server) tell(key, incident, person, what, text string) effect.Effect {
	lane := ""
	if contacts := s.Incidents.Book().Contacts(person); len(contacts) > 0 {
		lane = contacts[0].GetChannel()
	}
	return effect.Effect{Key: key + "/" + person, Lane: lane, Run: func(ctx context.Context) error {
		tried := false
		for _, c := range s.Incidents.Book().Contacts(person) {
			p := channel.Page{ID: key + "/" + person, Incident: incident, Headline: subject(incident, what), Text: inDrill(incident, text), Recipient: channel.Recipient{Person: person}, At: s.Clock.Now()}
			r, begun := s.send(ctx, c.GetChannel(), c.GetAddress().GetCommitment(), p)
			if r.State != channel.Failed {
				return nil
			}
			tried = tried || begun
		}
		if !tried && ctx.Err() != nil {
			return effect.ErrNotBegun
		}
		return fmt.Errorf("%s could not be told: no channel took the message", person)
	}}
}

func (s *Server) tellCalled(ctx context.Context, rec *projection.Record, e projection.Event, what, why string) []effect.Effect {
	st, ok := s.stateOf(ctx, rec)
	if !ok {
		return nil
	}
	var list []effect.Effect
	var told []string
	for _, p := range st.Pages {
		if !slices.Contains(told, p.Person) {
			told = append(told, p.Person)
			list = append(list, s.tell(rec.ID(e), rec.Incident, p.Person, what, why+"You need do nothing more here.\n"))
		}
	}
	return list
}

// tellGap tells at once who called and who leads that nobody is on duty for a team (procedure.md 4.2).
func (s *Server) tellGap(rec *projection.Record, e projection.Event, p *emergencyv1.CoverageGapFound) []effect.Effect {
	team := procedure.TeamWord(p.GetTeam())
	lead := emergencyv1.Role_ROLE_ASSESSMENT_TEAM_LEAD // who leads the teams that have no lead of their own, too
	if p.GetTeam() == emergencyv1.Team_TEAM_CRITICAL {
		lead = emergencyv1.Role_ROLE_CRITICAL_TEAM_LEAD
	}
	people := []string{rec.Record.GetActor().GetPerson()}
	for _, person := range s.Incidents.Book().PersonsWith(lead, s.Clock.Now()) {
		if !slices.Contains(people, person) {
			people = append(people, person)
		}
	}
	var list []effect.Effect
	for _, person := range people {
		if person != "" {
			list = append(list, s.tell(rec.ID(e), rec.Incident, person, ": nobody is on duty for the "+team+" team",
				fmt.Sprintf("Find somebody of the team, who can then take a slot:  epatch accept --incident %s --team %s --contact PHONE\n", rec.Incident, team)))
		}
	}
	return list
}

// tellAsked tells a person whom somebody else named for a slot; it is the person's by checking in.
func (s *Server) tellAsked(rec *projection.Record, e projection.Event, person, slot string) []effect.Effect {
	return []effect.Effect{s.tell(rec.ID(e), rec.Incident, person, ": you are asked to take "+slot,
		fmt.Sprintf("Take it by checking in:  epatch check-in %s --incident %s\n", slot, rec.Incident))}
}

// tellOwed tells the owner of an obligation and the roles of the ladder's rung (SP 5.3.3).
func (s *Server) tellOwed(ctx context.Context, rec *projection.Record, e projection.Event, p *emergencyv1.ObligationEscalated) []effect.Effect {
	st, ok := s.stateOf(ctx, rec)
	if !ok {
		return nil
	}
	book, now := s.Incidents.Book(), s.Clock.Now()
	var people []string
	for _, role := range p.GetTold() {
		holders := book.PersonsWith(role, now)
		for _, o := range st.Obligations {
			if o.ID == p.GetId() && o.OwnerRole == role && slices.Contains(holders, o.Owner) {
				holders = []string{o.Owner} // one of them owes it, the others of the role do not
			}
		}
		for _, person := range holders {
			if !slices.Contains(people, person) {
				people = append(people, person)
			}
		}
	}
	kind, _, _ := strings.Cut(p.GetId(), "/")
	var list []effect.Effect
	for _, person := range people {
		list = append(list, s.tell(rec.ID(e), rec.Incident, person, ": "+kind+" is owed", "See what it is:  epatch status --incident "+rec.Incident+"\n"))
	}
	return list
}

// tellNext tells the persons whom a step now waits for, each once for each step.
func (s *Server) tellNext(ctx context.Context, rec *projection.Record, e projection.Event) []effect.Effect {
	owner, _, _ := strings.Cut(e.Type, ".")
	if owner != procedure.OwnerReview && owner != procedure.OwnerDeployment || strings.HasSuffix(e.Type, ".CommandRefused") {
		return nil
	}
	st, ok := s.stateOf(ctx, rec)
	if !ok {
		return nil
	}
	return s.nextSteps(rec, st)
}

func (s *Server) nextSteps(rec *projection.Record, st *procedure.State) []effect.Effect {
	var list []effect.Effect
	for _, step := range procedure.NextSteps(st) {
		if step.Command == "" || !strings.Contains(step.Number, ".") {
			continue // an agent's or service's, or not a step of chapter 1: the ladder tells of what is owed
		}
		for _, person := range step.Persons {
			if person == "" || slices.Contains(step.Not, person) {
				continue
			}
			key := fmt.Sprintf("%s/next/%s/%s", rec.Incident, step.Command, step.Subject)
			if !strings.HasPrefix(step.Number, "1.") {
				key += "/" + step.Number // the same command is another step under another strategy
			}
			due := ""
			if !step.Due.IsZero() {
				due = ", due " + step.Due.UTC().Format("2006-01-02 15:04 MST")
			}
			text := fmt.Sprintf("It is your turn: %s (step %s)%s.\n\nSee it:  epatch status --incident %s\n", step.Title, step.Number, due, rec.Incident)
			list = append(list, s.tell(key, rec.Incident, person, ": "+step.Title, text))
		}
	}
	return list
}
