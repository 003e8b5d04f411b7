// SPDX-License-Identifier: Apache-2.0

package notification

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/service"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// A change of strategy (procedure.md 1.2, 1.3, 4.1): everybody called, everybody who answered and everybody whose step is skipped is
// told on which ground; whoever holds a slot is told what it is for now; the slots that opened are paged.

func escalatedText(rec *projection.Record, e projection.Event, p *emergencyv1.StrategyEscalated) string {
	skipped := "nothing that was not done already"
	if list := p.GetSkippedControls(); len(list) > 0 {
		skipped = strings.ReplaceAll(strings.Join(list, ", "), "_", " ")
	}
	return fmt.Sprintf("The emergency goes on by strategy %d: %s.\nBy %s. Skipped: %s.\nThe reason in words:  epatch details %d --incident %s\n",
		p.GetTo(), procedure.GroundWords(p), rec.Record.GetActor().GetPerson(), skipped, e.Position, rec.Incident)
}

func (s *Server) tellStrategy(ctx context.Context, rec *projection.Record, e projection.Event, skipped []emergencyv1.Role, text string) []effect.Effect {
	st, ok := s.stateOf(ctx, rec)
	if !ok {
		return nil
	}
	var list []effect.Effect
	for _, person := range s.concerned(st, skipped) {
		part := "You need do nothing more here, unless you are called again.\n"
		for _, sl := range st.Held(person) {
			part = fmt.Sprintf("You hold %s, which is there to %s now.\n", sl.ID, procedure.StepWord(sl.Step))
		}
		list = append(list, s.tell(rec.ID(e), rec.Incident, person, fmt.Sprintf(": strategy %d", st.Strategy), text+"\n"+part))
	}
	list = append(list, s.callOpen(rec, e, st)...)
	return append(list, s.nextSteps(rec, st)...)
}

// concerned are who was called or has answered, and who holds a role whose step is skipped.
func (s *Server) concerned(st *procedure.State, skipped []emergencyv1.Role) []string {
	var people []string
	add := func(person string) {
		if person != "" && !slices.Contains(people, person) {
			people = append(people, person)
		}
	}
	for _, p := range st.Pages {
		add(p.Person)
	}
	for _, a := range st.Answered {
		add(a.Person)
	}
	book, now := s.Incidents.Book(), s.Clock.Now()
	for _, role := range skipped {
		for _, person := range book.PersonsWith(role, now) {
			add(person)
		}
	}
	return people
}

// callOpen calls the teams of which a slot is open under the new strategy, in the name of whoever changed it; the next page would
// be minutes away, or nobody was called yet.
func (s *Server) callOpen(rec *projection.Record, e projection.Event, st *procedure.State) []effect.Effect {
	var teams []emergencyv1.Team
	for _, sl := range st.Slots {
		if sl.State == procedure.SlotOpen && !slices.Contains(teams, sl.Team) {
			teams = append(teams, sl.Team)
		}
	}
	if len(teams) == 0 || st.Status != procedure.Open {
		return nil
	}
	return []effect.Effect{{Key: rec.ID(e) + "/call-out", Repeatable: true, Run: func(ctx context.Context) error {
		cmd := &emergencyv1.CallOutRequest{
			Meta: service.FollowMeta(rec, e, "call-out"), Teams: teams, Message: inDrill(rec.Incident, fmt.Sprintf("Emergency on %s, by strategy %d", st.Declared.System, st.Strategy)),
		}
		_, err := s.Follow(ctx, cmd, rec, e, s.OnBehalf(rec), procedure.Facts{})
		return unlessRefused(err)
	}}}
}
