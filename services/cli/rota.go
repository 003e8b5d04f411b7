// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a hand-over by the clock of a place is planned on any machine

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/oncall"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Who is on duty (procedure.md 4.6, SetRota).

func (a *app) rotaSetCmd() *cobra.Command {
	var from, until string
	cmd := leaf("set TEAM PERSON...", "Replace the rota of a team; the team leads", `
The persons are called in this order. Everybody holds from now until it is changed, unless a span is given. What was there is
gone, also who stood in; to plan turns, or to change one week only: epatch rota plan, epatch rota override.`, `
  epatch rota set critical carla carl
  epatch rota set testing tina theo --from 2026-12-01 --until 2027-01-01`,
		cobra.MinimumNArgs(2), func(cmd *cobra.Command, args []string) error {
			team, err := parse[emergencyv1.Team]("team", args[0])
			if err != nil {
				return err
			}
			start, err := day("from", from, a.proc.Now())
			if err != nil {
				return err
			}
			end, err := day("until", until, time.Time{})
			if err != nil {
				return err
			}
			req := &emergencyv1.SetRotaRequest{Meta: bookMeta(), Team: team}
			for i, p := range args[1:] {
				s := &emergencyv1.Shift{Team: team, Person: p, From: timestamppb.New(start), Rank: uint32(i + 1)}
				if !end.IsZero() {
					s.Until = timestamppb.New(end)
				}
				req.Shifts = append(req.Shifts, s)
			}
			_, err = a.act(cmd.Context(), req, "rota of the %s team: %s", args[0], strings.Join(args[1:], ", "))
			return err
		})
	cmd.Flags().StringVar(&from, "from", "", "from when (default: now)")
	cmd.Flags().StringVar(&until, "until", "", "until when, exclusive (default: until changed)")
	cmd.ValidArgsFunction = a.completeTeamAndPersons
	return cmd
}

func (a *app) completeTeamAndPersons(c *cobra.Command, args []string, to string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return words(emergencyv1.Team(0)), noFiles
	}
	return a.completePersons(c, args, to)
}

// planOptions are the settings of a rotation.
type planOptions struct {
	from, at, zone, until string
	weeks, days, called   int
	try                   bool
}

func (a *app) rotaPlanCmd() *cobra.Command {
	var opt planOptions
	cmd := leaf("plan TEAM PERSON...", "Plan turns: several persons one after the other; the team leads", `
Hands are changed at a time of day of a place, every week unless --days says otherwise. As many are on duty at once as the
policy has slots for the team, unless --called says otherwise: whose turn it is first, then who comes next. The plan takes the
place of the rotation in its time; who stands in (epatch rota override) stays. With --try nothing is sent.`, `
  epatch rota plan critical carla carl --from 2026-12-07 --at 09:00 --zone Europe/Vienna --weeks 12
  epatch rota plan testing tina theo --from 2026-12-07 --called 1 --try`,
		cobra.MinimumNArgs(2), func(cmd *cobra.Command, args []string) error {
			return a.planRota(cmd.Context(), args[0], args[1:], opt)
		})
	f := cmd.Flags()
	f.StringVar(&opt.from, "from", "", "day of the first hand-over, YYYY-MM-DD")
	f.StringVar(&opt.at, "at", "09:00", "time of day at which hands are changed")
	f.StringVar(&opt.zone, "zone", "UTC", "place by whose clock, such as Europe/Vienna")
	f.IntVar(&opt.weeks, "weeks", 12, "how many weeks to plan")
	f.StringVar(&opt.until, "until", "", "day of the plan's end instead of --weeks, YYYY-MM-DD")
	f.IntVar(&opt.days, "days", 7, "how many days a turn lasts")
	f.IntVar(&opt.called, "called", 0, "how many are on duty at the same time (default: the policy's slots of the team)")
	f.BoolVar(&opt.try, "try", false, "show the plan and send nothing")
	cmd.ValidArgsFunction = a.completeTeamAndPersons
	return cmd
}

// span reads the plan's time, by the clock of its place.
func (o planOptions) span() (from, until time.Time, err error) {
	zone, err := time.LoadLocation(o.zone)
	if err != nil {
		return from, until, usage("--zone %q is no place that the time zone database knows", o.zone).hint("such as Europe/Vienna, or UTC")
	}
	moment := func(flag, text string) (time.Time, error) {
		t, err := time.ParseInLocation("2006-01-02 15:04", text+" "+o.at, zone)
		if err != nil {
			return t, usage("--%s %q at %q is no day such as 2026-12-07 with a time such as 09:00", flag, text, o.at)
		}
		return t, nil
	}
	if from, err = moment("from", o.from); err != nil {
		return from, until, err
	}
	if o.until == "" {
		return from, from.AddDate(0, 0, 7*o.weeks), nil
	}
	until, err = moment("until", o.until)
	return from, until, err
}

func (a *app) planRota(ctx context.Context, teamWord string, persons []string, opt planOptions) error {
	team, err := parse[emergencyv1.Team]("team", teamWord)
	if err != nil {
		return err
	}
	r := oncall.Rotation{Team: team, Persons: persons, Days: opt.days, Called: opt.called}
	if r.From, r.Until, err = opt.span(); err != nil {
		return err
	}
	book, err := a.book(ctx)
	if err != nil {
		return err
	}
	if r.Called == 0 {
		r.Called = min(len(persons), a.slotsOf(book, team))
	}
	turns, err := r.Shifts()
	if err != nil {
		return usage("%v", err)
	}
	now := a.proc.Now()
	shifts := oncall.Lay(oncall.Current(book.Rota(team).Shifts, now), turns, r.From, r.Until)
	if !a.opt.json {
		a.duties(rulebook.Duties(shifts, later(now, r.From), r.Until), r.From.Location())
	}
	if opt.try {
		a.errs.line("nothing was sent; without --try it is")
		return nil
	}
	_, err = a.act(ctx, &emergencyv1.SetRotaRequest{Meta: bookMeta(), Team: team, Shifts: shifts, PlannedOn: &book.Position}, "rota of the %s team: %s until %s",
		teamWord, plural(len(turns)/r.Called, "turn", "turns"), r.Until.Format(time.DateOnly))
	return err
}

func (a *app) book(ctx context.Context) (*rulebook.Book, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	return c.Book(ctx)
}

// slotsOf is how many places a team has under strategy 1, at least one.
func (a *app) slotsOf(book *rulebook.Book, team emergencyv1.Team) int {
	p := book.PolicyInForce(a.proc.Now())
	if p == nil {
		return 1
	}
	return max(1, p.Count("team."+procedure.TeamWord(team)+".slots.s1"))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (a *app) rotaOverrideCmd() *cobra.Command {
	var from, until string
	var back bool
	cmd := leaf("override TEAM PERSON... --from TIME --until TIME", "Let others stand in for the rotation for a while; the team leads", `
The persons are called in this order while it lasts, and nobody else; then the rotation goes on. With --take-back the rotation
has its place again in that time.`, `
  epatch rota override critical clara --from 2026-12-24T00:00:00Z --until 2026-12-27T00:00:00Z
  epatch rota override critical --take-back --from 2026-12-24 --until 2026-12-27`,
		cobra.MinimumNArgs(1), func(cmd *cobra.Command, args []string) error {
			team, err := parse[emergencyv1.Team]("team", args[0])
			if err != nil {
				return err
			}
			if back != (len(args) == 1) {
				return usage("name who stands in, or --take-back and nobody").hint("who is on duty when: epatch rota show %s", args[0])
			}
			now := a.proc.Now()
			start, err := day("from", from, now)
			if err != nil {
				return err
			}
			end, err := day("until", until, time.Time{})
			if err != nil {
				return err
			}
			if !start.Before(end) {
				return usage("say until when, after %s: --until 2026-12-27T09:00:00Z", start.UTC().Format(time.RFC3339))
			}
			book, err := a.book(cmd.Context())
			if err != nil {
				return err
			}
			shifts := oncall.StandIn(oncall.Current(book.Rota(team).Shifts, now), team, args[1:], start, end)
			done := strings.Join(args[1:], ", ") + " in the place of the rotation"
			if back {
				done = "the rotation has its place again"
			}
			_, err = a.act(cmd.Context(), &emergencyv1.SetRotaRequest{Meta: bookMeta(), Team: team, Shifts: shifts, PlannedOn: &book.Position}, "%s team: %s, %s to %s",
				args[0], done, a.out.clock(timestamppb.New(start)), a.out.clock(timestamppb.New(end)))
			return err
		})
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "from when: a day, or a time in RFC 3339 (default: now)")
	f.StringVar(&until, "until", "", "until when, exclusive")
	f.BoolVar(&back, "take-back", false, "nobody stands in any more in that time")
	cmd.ValidArgsFunction = a.completeTeamAndPersons
	return cmd
}

func (a *app) rotaShowCmd() *cobra.Command {
	var person, calendar string
	var weeks int
	cmd := leaf("show [TEAM...]", "Who is on duty when, and when nobody is", `
From now on, for four weeks unless --weeks says otherwise. With --ics it becomes a file that calendar programs read (iCalendar,
RFC 5545), half a year ahead; - is standard output. Make it again when the rota has changed: events keep their ids.`, `
  epatch rota show critical --weeks 8
  epatch rota show --ics on-duty.ics
  epatch rota show critical testing --person carla --ics - > carla.ics`,
		cobra.ArbitraryArgs, func(cmd *cobra.Command, args []string) error {
			teams, err := teamsOf(args)
			if err != nil {
				return err
			}
			if weeks < 1 || weeks > 53 {
				return usage("--weeks %d: it goes from 1 to 53", weeks)
			}
			book, err := a.book(cmd.Context())
			if err != nil {
				return err
			}
			if calendar != "" {
				return a.writeCalendar(calendar, oncall.Calendar{Book: book, Teams: teams, Word: procedure.TeamWord, Person: person, Now: a.proc.Now()})
			}
			return a.showRota(book, teams, person, weeks)
		})
	f := cmd.Flags()
	f.IntVar(&weeks, "weeks", 4, "how many weeks")
	f.StringVar(&person, "person", "", "only this person's duties")
	f.StringVar(&calendar, "ics", "", "write a calendar to this file; never overwritten; - is standard output")
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words(emergencyv1.Team(0)), noFiles
	}
	_ = cmd.RegisterFlagCompletionFunc("person", a.completePersons) // fails only for a flag that does not exist
	return cmd
}

// teamsOf are the teams that were named, or all.
func teamsOf(args []string) ([]emergencyv1.Team, error) {
	if len(args) == 0 {
		args = words(emergencyv1.Team(0))
	}
	var list []emergencyv1.Team
	for _, arg := range args {
		team, err := parse[emergencyv1.Team]("team", arg)
		if err != nil {
			return nil, err
		}
		list = append(list, team)
	}
	return list, nil
}

// shownDuty is a span for --json.
type shownDuty struct {
	Team     string    `json:"team"`
	From     time.Time `json:"from"`
	Until    time.Time `json:"until"`
	Persons  []string  `json:"persons"`
	Override bool      `json:"override"`
}

func (a *app) showRota(book *rulebook.Book, teams []emergencyv1.Team, person string, weeks int) error {
	now := a.proc.Now()
	all := []shownDuty{}
	for _, team := range teams {
		var list []rulebook.Duty
		for _, d := range book.Duties(team, now, now.AddDate(0, 0, 7*weeks)) {
			if person == "" || slices.Contains(d.Persons, person) {
				list = append(list, d)
				all = append(all, shownDuty{procedure.TeamWord(team), d.From.UTC(), d.Until.UTC(), append([]string{}, d.Persons...), d.Override})
			}
		}
		if a.opt.json || len(list) == 0 {
			continue
		}
		a.part(procedure.TeamWord(team) + " team")
		a.duties(list, a.out.local)
	}
	if a.opt.json {
		return a.out.jsonValue(all)
	}
	return nil
}

// duties writes spans, and what is wrong with them.
func (a *app) duties(list []rulebook.Duty, zone *time.Location) {
	const layout = "Mon 2006-01-02 15:04 MST"
	var rows [][]any
	for _, d := range list {
		var who any = strings.Join(d.Persons, ", ")
		mark := ""
		switch {
		case d.Gap():
			who = bad("NOBODY")
		case d.Override:
			mark = "stands in"
		}
		rows = append(rows, []any{d.From.In(zone).Format(layout), d.Until.In(zone).Format(layout), who, mark})
	}
	a.out.table([]string{"FROM", "UNTIL", "ON DUTY, IN THE ORDER OF CALLING", ""}, rows)
	if gaps := oncall.Gaps(list); len(gaps) > 0 {
		a.out.line("%s", alert(plural(len(gaps), "gap: nobody would be called", "gaps: nobody would be called")))
	}
}

func (a *app) writeCalendar(file string, c oncall.Calendar) error {
	raw, err := c.ICS()
	if err != nil {
		return err
	}
	if file == "-" {
		_, err := a.proc.Stdout.Write(raw) // as it is: a calendar has its own line ends
		if err != nil {
			return fmt.Errorf("write the calendar: %w", err)
		}
		return nil
	}
	return a.document(file, func() (string, error) { return string(raw), nil })
}
