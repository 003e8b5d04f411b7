// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/publog"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	"cacert.org/emergency/services/cli/client"
)

// What is going on. These commands change nothing.

func (a *app) seeCommands() []*cobra.Command {
	return []*cobra.Command{a.inboxCmd(), a.statusCmd(), a.detailsCmd(), a.optionsCmd(), a.obligationsCmd(), a.timelineCmd(), a.watchCmd(), a.incidentsCmd(), a.logCmd(), a.whoamiCmd()}
}

func (a *app) inboxCmd() *cobra.Command {
	return leaf("inbox", "What waits for me, most urgent first", `
The first line is the one thing to do now, with the command to type.`, `
  epatch inbox`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error { return a.inbox(cmd.Context()) })
}

func (a *app) inbox(ctx context.Context) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	answer, err := c.Query().ReadInbox(ctx, &dashboardv1.ReadInboxRequest{})
	if err != nil {
		return err
	}
	if a.opt.json {
		return a.out.json(answer)
	}
	items := answer.GetItems()
	if len(items) == 0 {
		a.out.line("nothing waits for you")
		return nil
	}
	several := false
	for _, i := range items {
		several = several || i.GetIncident() != items[0].GetIncident()
	}
	a.out.line("%s %s", bold("now:"), bold(items[0].GetTitle()))
	a.item(items[0], several)
	for n, i := range items[1:] {
		if n == 0 {
			a.out.line("then:")
		}
		a.out.line("  %s", i.GetTitle())
		a.item(i, several)
	}
	return nil
}

func (a *app) item(i *dashboardv1.InboxItem, several bool) {
	line := commandLine(i.GetCommand(), i.GetSubject())
	if line != "" && several {
		line = scoped(line, i.GetIncident())
	}
	if line != "" {
		a.out.line("      %s", line)
	}
	due := i.GetIncident()
	if i.GetDueAt() != nil {
		due += ", due " + a.out.clock(i.GetDueAt())
	}
	a.out.line("      %s", dim(due))
}

func (a *app) optionsCmd() *cobra.Command {
	return a.incidentLeaf("options [INCIDENT]", "What can I do now, and why not the rest", `
From the same checks that decide. What is refused says why, and what would allow it.`, `
  epatch options
  epatch options e20261124.1 --json`,
		a.listOptions)
}

func (a *app) listOptions(ctx context.Context, id string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	answer, err := c.Query().ReadOptions(ctx, &dashboardv1.ReadOptionsRequest{Incident: id})
	if err != nil {
		return err
	}
	if a.opt.json {
		return a.out.json(answer)
	}
	var can, cannot []*dashboardv1.Option
	for _, o := range answer.GetOptions() {
		if o.GetAllowed() {
			can = append(can, o)
		} else {
			cannot = append(cannot, o)
		}
	}
	a.out.line("%s", bold("you can:"))
	for _, o := range can {
		mark := " "
		if o.GetNext() {
			mark = ">"
		}
		a.out.line("%s %-46s %s", mark, o.GetTitle(), a.typing(commandLine(o.GetCommand(), o.GetSubject())))
	}
	if len(can) == 0 {
		a.out.line("  nothing in this incident")
	}
	if len(cannot) > 0 {
		a.out.line("%s", bold("you cannot:"))
	}
	for _, o := range cannot {
		a.out.line("  %-46s %s (%s)", o.GetTitle(), o.GetReason(), o.GetRule())
		if o.GetWouldAllow() != "" {
			a.out.line("      %s", dim(o.GetWouldAllow()))
		}
	}
	a.freshness(answer.GetFreshness())
	return nil
}

// freshness says how old an answer is.
func (a *app) freshness(f *dashboardv1.Freshness) {
	a.out.line("%s", dim(fmt.Sprintf("as of position %d, recorded %s", f.GetPosition(), a.out.clock(f.GetRecordedAt()))))
}

func (a *app) timelineCmd() *cobra.Command {
	req := &dashboardv1.ReadTimelineRequest{}
	cmd := a.incidentLeaf("timeline [INCIDENT]", "What happened, in order, in words", `
Times are counted from the declaration, T0. Restricted values are not shown.`, `
  epatch timeline
  epatch timeline e20261124.1 --from 20 --to 40`,
		func(ctx context.Context, id string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			req.Incident = id
			answer, err := c.Query().ReadTimeline(ctx, req)
			if err != nil {
				return err
			}
			if a.opt.json {
				return a.out.json(answer)
			}
			a.entries(answer.GetEntries())
			a.freshness(answer.GetFreshness())
			return nil
		})
	cmd.Flags().Uint64Var(&req.From, "from", 0, "first position")
	cmd.Flags().Uint64Var(&req.To, "to", 0, "last position; the end if 0")
	return cmd
}

// entries writes a timeline. Reports about pages that say the same are put together: there may be dozens of them.
func (a *app) entries(list []*dashboardv1.TimelineEntry) {
	for i := 0; i < len(list); {
		n := 1
		for i+n < len(list) && sameReport(list[i], list[i+n]) {
			n++
		}
		a.entry(list[i], list[i+n-1], n)
		i += n
	}
}

// pageReport is the type of event of which there is one for each page.
const pageReport = procedure.OwnerNotification + ".DeliveryReported"

func sameReport(x, y *dashboardv1.TimelineEntry) bool {
	_, one, _ := strings.Cut(x.GetText(), ": ")
	_, other, _ := strings.Cut(y.GetText(), ": ")
	return x.GetType() == pageReport && y.GetType() == pageReport && one == other
}

func (a *app) entry(e, last *dashboardv1.TimelineEntry, n int) {
	at := e.GetRecordedAt().AsTime().In(a.out.local).Format("2006-01-02 15:04:05 MST")
	position, text := fmt.Sprint(e.GetPosition()), e.GetText()
	if n > 1 {
		position = fmt.Sprintf("%d-%d", e.GetPosition(), last.GetPosition())
		_, what, _ := strings.Cut(text, ": ")
		text = fmt.Sprintf("%d pages: %s", n, what)
	}
	if text == "" {
		text = e.GetType()
	}
	a.out.line("%6s  %s  %s  %s%s", position, at, sinceStart(e.GetSinceDeclaredMs()), text, by(e))
	for _, d := range e.GetDeviations() {
		a.out.line("        %s %s", alert("deviation:"), word(d))
	}
}

// sinceStart is the time since T0 as +h:mm:ss.
func sinceStart(ms int64) string {
	s := ms / 1000
	return fmt.Sprintf("T0+%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// by names who did it, where the words do not.
func by(e *dashboardv1.TimelineEntry) string {
	who := e.GetActor().GetPerson()
	if who == "" {
		who = e.GetActor().GetSystemName()
	}
	if who == "" || strings.Contains(e.GetText(), who) {
		return ""
	}
	return "  [" + who + "]"
}

func (a *app) watchCmd() *cobra.Command {
	return a.incidentLeaf("watch [INCIDENT]", "See what happens, while it happens", `
Shows the present state, then each event when it is recorded. Ends with Ctrl-C.`, `
  epatch watch
  epatch watch e20261124.1 --json`,
		a.watch)
}

func (a *app) watch(ctx context.Context, id string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	w := &watcher{app: a, client: c, incident: id}
	err = c.Watch(ctx, id, func(m *dashboardv1.WatchIncidentResponse) error {
		if a.opt.json {
			return a.out.json(m)
		}
		return w.show(ctx, m)
	})
	if ctx.Err() != nil {
		return nil // Ctrl-C is how it ends
	}
	return err
}

// watcher remembers what was shown already.
type watcher struct {
	app      *app
	client   *client.Client
	incident string
	shown    uint64
	step     string
}

func (w *watcher) show(ctx context.Context, m *dashboardv1.WatchIncidentResponse) error {
	position, entries := m.GetFreshness().GetPosition(), m.GetEntries()
	if w.shown == 0 {
		w.app.headline(m.GetIncident())
	} else if len(entries) == 0 && position > w.shown { // the connection was lost for a while
		missed, err := w.client.Query().ReadTimeline(ctx, &dashboardv1.ReadTimelineRequest{Incident: w.incident, From: w.shown + 1, To: position})
		if err != nil {
			return err
		}
		entries = missed.GetEntries()
	}
	w.app.entries(entries)
	if now := m.GetIncident().GetStep(); now != w.step && w.shown > 0 {
		w.app.out.line("      %s %s", bold("stands at"), now)
	}
	w.shown, w.step = position, m.GetIncident().GetStep()
	return nil
}

func (a *app) incidentsCmd() *cobra.Command {
	var all bool
	cmd := leaf("incidents", "List the open incidents", `
With --all also those that are over, newest first.`, `
  epatch incidents
  epatch incidents --all`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			answer, err := c.Query().ListIncidents(cmd.Context(), &dashboardv1.ListIncidentsRequest{OpenOnly: !all})
			if err != nil {
				return err
			}
			if a.opt.json {
				return a.out.json(answer)
			}
			var rows [][]any
			for _, i := range answer.GetIncidents() {
				rows = append(rows, []any{i.GetId(), statusWord(i), i.GetSystem(), word(i.GetSeverity()), a.out.clock(i.GetDeclaredAt()), i.GetStep()})
			}
			if len(rows) == 0 {
				a.out.line("no incident is open")
			}
			a.out.table([]string{"INCIDENT", "STATUS", "SYSTEM", "SEVERITY", "DECLARED", "STANDS AT"}, rows)
			return nil
		})
	cmd.Flags().BoolVar(&all, "all", false, "also those that are over")
	return cmd
}

func statusWord(i *dashboardv1.Incident) string {
	w := strings.ReplaceAll(strings.ToLower(i.GetStatus()), "_", " ")
	if i.GetDrill() {
		w += ", drill"
	}
	return w
}

func (a *app) logCmd() *cobra.Command {
	req := &dashboardv1.ReadLogRequest{}
	cmd := leaf("log [INCIDENT]", "Read the public emergency log; needs no identity", `
Persons appear as role and letter. Each entry carries the hash of the one before it; over the whole log the chain is computed
again here, and one that was changed ends with exit code 6. Write down the head: whoever has two can prove what lay between.`, `
  epatch log
  epatch log e20261124.1
  epatch log --drills --json`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			req.Incident = strings.Join(args, "")
			c, err := a.dial()
			if err != nil {
				return err
			}
			answer, err := c.Query().ReadLog(cmd.Context(), req)
			if err != nil {
				return err
			}
			if a.opt.json {
				return a.out.json(answer)
			}
			for _, e := range answer.GetEntries() {
				a.logEntry(e)
			}
			if len(answer.GetEntries()) == 0 {
				a.out.line("the log has no entry for this")
			}
			if req.GetIncident() != "" {
				return nil // a part of a chain proves nothing
			}
			return a.logChain(req, answer.GetEntries())
		})
	cmd.Flags().BoolVar(&req.Drills, "drills", false, "drills instead of real incidents")
	cmd.Flags().BoolVar(&req.Archive, "archive", false, "what was taken from the mailing list's archive")
	cmd.MarkFlagsMutuallyExclusive("drills", "archive")
	cmd.AddCommand(a.logCheckCmd(), a.logExportCmd(), a.importMboxCmd())
	return cmd
}

// logChain computes numbers and hashes again from what the entries say.
func (a *app) logChain(req *dashboardv1.ReadLogRequest, list []*dashboardv1.LogEntry) error {
	origin := publog.Real
	switch {
	case req.GetDrills():
		origin = publog.Drills
	case req.GetArchive():
		origin = publog.Archive
	}
	entries := logEntries(list)
	if err := publog.Verify(origin, entries); err != nil {
		return fail(exitUnverified, "%v", err).hint("%s", keepEvidence)
	}
	if n := len(entries); n > 0 {
		a.out.line("%s", dim(fmt.Sprintf("chain computed again here: in order; head %s", entries[n-1].Hash)))
	}
	return nil
}

func (a *app) logEntry(e *dashboardv1.LogEntry) {
	late := ""
	if e.GetLate() {
		late = ", recorded late"
	}
	a.out.line("%4d  %s  %s  %s", e.GetSeq(), e.GetAt().AsTime().In(a.out.local).Format("2006-01-02 15:04:05 MST"), e.GetIncident(), bold(e.GetHeadline()))
	var fields []string
	for _, f := range e.GetFields() {
		fields = append(fields, f.GetName()+" "+f.GetValue())
	}
	if e.GetRole() != "" {
		fields = append([]string{e.GetRole() + late}, fields...)
	}
	if len(fields) > 0 {
		a.out.line("      %s", strings.Join(fields, "; "))
	}
}

func (a *app) whoamiCmd() *cobra.Command {
	return leaf("whoami", "How the system recognises me, and which roles I hold", `
By the key in your certificate.`, `
  epatch whoami`,
		cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			me, err := c.Query().WhoAmI(cmd.Context(), &dashboardv1.WhoAmIRequest{})
			if err != nil {
				return err
			}
			if a.opt.json {
				return a.out.json(me)
			}
			roles := rolesWords(me.GetRoles())
			if roles == "" {
				roles = "no role"
			}
			name := me.GetPerson()
			if name == "" {
				name = me.GetSystemName() + " (" + word(me.GetSystem()) + ")"
			}
			a.out.line("%s: %s", bold(name), roles)
			a.out.line("key %s, at %s", me.GetKeyId(), a.opt.server)
			if me.GetDevelopment() {
				a.out.line("%s development authority and demo people: nothing here is real", alert("note:"))
			}
			return nil
		})
}
