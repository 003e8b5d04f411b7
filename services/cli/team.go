// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Teams: call-out, answers and standby (procedure.md 4.2).

func (a *app) teamCommands() []*cobra.Command {
	return []*cobra.Command{a.callOutCmd(), a.acceptCmd(), a.declineCmd(), a.handOverCmd(), a.checkInCmd(), a.endStandbyCmd()}
}

func (a *app) callOutCmd() *cobra.Command {
	req := &emergencyv1.CallOutRequest{}
	var teams []string
	cmd := leaf("call-out [MESSAGE]", "Call the teams once more (seed 1.2)", `
A declaration calls all teams by itself. This opens a new round, over all channels, to all teams or to those named.`, `
  epatch call-out
  epatch call-out --team testing "two testers are needed until 06:00"`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) (err error) {
			if req.Meta, err = a.meta(cmd.Context()); err != nil {
				return err
			}
			req.Message = strings.Join(args, " ")
			for _, t := range teams {
				team, err := parse[emergencyv1.Team]("team", t)
				if err != nil {
					return err
				}
				req.Teams = append(req.Teams, team)
			}
			who := "all teams"
			if len(teams) > 0 {
				who = strings.Join(teams, ", ")
			}
			_, err = a.act(cmd.Context(), req, "%s called; see who answers: epatch watch", who)
			return err
		})
	cmd.Flags().StringSliceVar(&teams, "team", nil, "team; all if none is named")
	cmd.Flags().StringSliceVar(&req.Channels, "channel", nil, "channel, at least two; all if none is named")
	complete(cmd, "team", words(emergencyv1.Team(0))...)
	return cmd
}

func (a *app) acceptCmd() *cobra.Command {
	req := &emergencyv1.Acceptance{}
	var team, step string
	cmd := leaf("accept", "Take a slot and begin to stand by (seed 1.3)", `
Takes the open slot that fits you best, unless you name slot or team, and starts your standby at once. You are reached as the
rule book says, unless you name another way. With --eta your standby starts later, with your first check-in.`, `
  epatch accept
  epatch accept --slot critical/2 --contact "+43 660 1234567"
  epatch accept --eta 40 --contact "on the train, text only"`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) (err error) {
			if req.Team, err = maybe[emergencyv1.Team]("team", team); err != nil {
				return err
			}
			if req.Step, err = maybe[emergencyv1.ResponderStep]("step", step); err != nil {
				return err
			}
			return a.accept(cmd.Context(), req)
		})
	f := cmd.Flags()
	f.StringVar(&req.Slot, "slot", "", "slot, such as critical/1")
	f.StringVar(&team, "team", "", "team: critical, assessment, development or testing")
	f.StringVar(&step, "step", "", "what you will do, if not what the slot is for")
	f.StringVar(&req.ContactPath, "contact", "", "how you are reached tonight; restricted (default: as the rule book says)")
	f.StringVar(&req.Person, "for", "", "a team mate whom you answer for; that person has to check in")
	f.Uint32Var(&req.EtaMinutes, "eta", 0, "minutes until you are ready; standby starts with your check-in then")
	f.StringVar(&req.SecondTeamReason, "second-team", "", "why you serve a second team (SP 9.1.2)")
	complete(cmd, "team", words(emergencyv1.Team(0))...)
	complete(cmd, "step", words(emergencyv1.ResponderStep(0))...)
	_ = cmd.RegisterFlagCompletionFunc("slot", a.completeSlots) // fails only for a flag that does not exist
	return cmd
}

// maybe parses a word that may be missing.
func maybe[E protoreflect.Enum](what, text string) (E, error) {
	var none E
	if text == "" {
		return none, nil
	}
	return parse[E](what, text)
}

func (a *app) accept(ctx context.Context, req *emergencyv1.Acceptance) error {
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	if req.Slot == "" && req.Team == 0 {
		if req.Slot, err = a.fittingSlot(s); err != nil {
			return err
		}
	}
	if req.ContactPath == "" {
		if req.ContactPath, err = s.listedContact(req.Person); err != nil {
			return err
		}
	}
	req.OnStandby = req.EtaMinutes == 0 && (req.Person == "" || req.Person == s.person)
	cmd := &emergencyv1.RespondRequest{Meta: s.meta, Answer: &emergencyv1.RespondRequest_Accept{Accept: req}}
	where := req.Slot
	if where == "" {
		where = "a slot of the " + procedure.TeamWord(req.Team) + " team"
	}
	who, sequel := "you hold "+where, "on standby"
	if !req.OnStandby {
		sequel = "check in when ready: epatch check-in"
	}
	if req.Person != "" && req.Person != s.person {
		who, sequel = req.Person+" is named for "+where, req.Person+" has to confirm: epatch check-in"
	}
	if _, err := a.act(ctx, cmd, "%s, %s", who, sequel); err != nil {
		return err
	}
	if req.OnStandby && !a.opt.json {
		a.out.line("%s", a.typing("      check in every "+span(s.state.Policy.Duration("standby.checkin"))+" until your step is done: epatch check-in"))
	}
	a.then(ctx, s.state.Incident)
	return nil
}

// fittingSlot is the first open slot that the person may take, those that wait for the person first.
func (a *app) fittingSlot(s *scene) (string, error) {
	var first string
	var refusal *procedure.Refusal
	for _, o := range s.options(a.proc.Now()) {
		switch {
		case o.Command != "Respond":
		case o.Refusal != nil:
			if refusal == nil {
				refusal = o.Refusal
			}
		case o.Next:
			return o.Subject, nil
		case first == "":
			first = o.Subject
		}
	}
	switch {
	case first != "":
		return first, nil
	case refusal != nil:
		return "", refusal
	}
	return "", fail(exitRefused, "no slot of %s is open", s.state.Incident).hint("who holds them: epatch status")
}

// listedContact names the ways by which the rule book reaches a person; the addresses themselves are kept sealed.
func (s *scene) listedContact(person string) (string, error) {
	if person == "" {
		person = s.person
	}
	contact := s.known().Contact(person)
	if contact == "" {
		return "", usage("the rule book has no address of %s; say how %s is reached with --contact", person, person).hint("for the next time: epatch contacts set mail=... sms=...")
	}
	return contact, nil
}

func (a *app) declineCmd() *cobra.Command {
	req := &emergencyv1.Declination{}
	var team string
	cmd := leaf("decline [REASON]", "Say that you will not take part, so that others are called", `
The reason is restricted.`, `
  epatch decline "on a plane until 09:00"`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) (err error) {
			if req.Team, err = maybe[emergencyv1.Team]("team", team); err != nil {
				return err
			}
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			held := s.state.Held(s.person)
			req.Reason = strings.Join(args, " ")
			if _, err = a.act(cmd.Context(), &emergencyv1.RespondRequest{Meta: s.meta, Answer: &emergencyv1.RespondRequest_Decline{Decline: req}}, "declined; you are not called for this any more"); err != nil {
				return err
			}
			a.gaveUp(cmd.Context(), s, held)
			return nil
		})
	cmd.Flags().StringVar(&team, "team", "", "team that you were called for, if more than one")
	complete(cmd, "team", words(emergencyv1.Team(0))...)
	return cmd
}

// gaveUp says which of the slots that a person held are open again; without an answer nothing is said, as the act is recorded.
func (a *app) gaveUp(ctx context.Context, s *scene, held []*procedure.Slot) {
	if a.opt.json || len(held) == 0 {
		return
	}
	st, err := s.client.State(ctx, s.state.Incident)
	if err != nil {
		return
	}
	for _, h := range held {
		if now, ok := st.Slot(h.ID); ok && now.Person != s.person {
			a.out.line("      you gave up %s, which is open again", h.ID)
		}
	}
}

func (a *app) handOverCmd() *cobra.Command {
	req := &emergencyv1.Handover{}
	cmd := leaf("hand-over PERSON", "Ask somebody to take over your slot", `
You keep the slot until that person checks in.`, `
  epatch hand-over carl
  epatch hand-over carl --slot critical/1 --contact "+43 660 7654321"`,
		cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			if req.Slot, err = s.ownSlot(req.Slot); err != nil {
				return err
			}
			req.To = args[0]
			if req.ContactPath == "" {
				if req.ContactPath, err = s.listedContact(req.To); err != nil {
					return err
				}
			}
			_, err = a.act(cmd.Context(), &emergencyv1.RespondRequest{Meta: s.meta, Answer: &emergencyv1.RespondRequest_HandOver{HandOver: req}},
				"%s is asked to take over %s; you keep it until %s checks in", req.To, req.Slot, req.To)
			return err
		})
	cmd.Flags().StringVar(&req.Slot, "slot", "", "slot (default: the only one you hold)")
	cmd.Flags().StringVar(&req.ContactPath, "contact", "", "how that person is reached; restricted (default: as the rule book says)")
	_ = cmd.RegisterFlagCompletionFunc("slot", a.completeSlots) // fails only for a flag that does not exist
	cmd.ValidArgsFunction = a.completePersons
	return cmd
}

// ownSlot is the slot that was named, or the only one that the person holds.
func (s *scene) ownSlot(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	held := s.state.Held(s.person)
	if len(held) == 1 {
		return held[0].ID, nil
	}
	if len(held) == 0 {
		return "", fail(exitRefused, "you hold no slot of %s", s.state.Incident).hint("take one: epatch accept")
	}
	err := fail(exitRefused, "you hold %d slots of %s", len(held), s.state.Incident)
	for _, h := range held {
		err = err.hint("name it: %s", h.ID)
	}
	return "", err
}

func (a *app) checkInCmd() *cobra.Command {
	cmd := leaf("check-in [SLOT]", "Say that you are here; the first one starts your standby (seed 1.4)", `
A missed check-in opens the slot again, so that somebody else is called.`, `
  epatch check-in`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			meta, err := a.meta(cmd.Context())
			if err != nil {
				return err
			}
			req := &emergencyv1.CheckInRequest{Meta: meta, Slot: strings.Join(args, "")}
			if _, err := a.act(cmd.Context(), req, "checked in"); err != nil {
				return err
			}
			a.then(cmd.Context(), meta.GetIncident())
			return nil
		})
	cmd.ValidArgsFunction = a.completeSlots
	return cmd
}

func (a *app) endStandbyCmd() *cobra.Command {
	var released bool
	cmd := leaf("end-standby [SLOT]", "End your standby when your step is done", `
With --released the slot opens again, for somebody else.`, `
  epatch end-standby
  epatch end-standby testing/2 --released`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			s, err := a.scene(cmd.Context())
			if err != nil {
				return err
			}
			slot, err := s.ownSlot(strings.Join(args, ""))
			if err != nil {
				return err
			}
			req := &emergencyv1.EndStandbyRequest{Meta: s.meta, Slot: slot, Reason: emergencyv1.StandbyEndReason_STANDBY_END_REASON_STEP_DONE}
			done := "standby ended, step done; thank you"
			if released {
				req.Reason, done = emergencyv1.StandbyEndReason_STANDBY_END_REASON_RELEASED, "released; the slot is open again"
			}
			_, err = a.act(cmd.Context(), req, "%s", done)
			return err
		})
	cmd.Flags().BoolVar(&released, "released", false, "the step is not done; somebody else is needed")
	cmd.ValidArgsFunction = a.completeSlots
	return cmd
}
