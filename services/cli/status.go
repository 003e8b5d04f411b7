// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

func (a *app) statusCmd() *cobra.Command {
	return a.incidentLeaf("status [INCIDENT]", "Where the incident stands", `
First what waits for you, then teams, patches, deployments and what is owed. This machine reads the history too, and says so
if the server's answer is not what the history says.`, `
  epatch status
  epatch status e20261124.1 --json`,
		a.status)
}

func (a *app) status(ctx context.Context, id string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	answer, err := c.Query().ReadIncident(ctx, &dashboardv1.ReadIncidentRequest{Incident: id})
	if err != nil {
		return err
	}
	if a.opt.json {
		return a.out.json(answer)
	}
	verified, err := a.sameHistory(ctx, answer.GetIncident())
	if err != nil {
		return err
	}
	a.headline(answer.GetIncident())
	a.symptom(ctx, answer.GetIncident())
	var st *procedure.State
	if a.opt.keyring != "" {
		s, err := a.scene(ctx)
		if err != nil {
			return err
		}
		a.strategies(s.state)
		a.permissions(s.state, a.proc.Now())
		a.mine(s)
		st = s.state
	}
	a.body(answer.GetIncident(), st)
	a.freshness(answer.GetFreshness())
	a.out.line("%s", dim(verified))
	return nil
}

// sameHistory compares the head that the server answers from with the history as verified here.
func (a *app) sameHistory(ctx context.Context, i *dashboardv1.Incident) (string, error) {
	st, err := a.conn.State(ctx, i.GetId())
	if noKeyring(err) {
		return "not verified on this machine: no keyring", nil
	}
	if err != nil {
		return "", err
	}
	if st.Position == i.GetPosition() && st.HeadHash != i.GetHeadHash() {
		return "", fail(exitUnverified, "the server answers from another history than it hands out: its head at position %d is %s, the verified one %s", i.GetPosition(), short(i.GetHeadHash()), short(st.HeadHash)).
			hint("do not act on its answers; compare with others: epatch history show %s", i.GetId())
	}
	if st.Position < i.GetPosition() {
		return "", fail(exitUnverified, "the server answers for position %d, but the history verified here ends at %d", i.GetPosition(), st.Position).
			hint("what is wrong: epatch history check %s", i.GetId())
	}
	return fmt.Sprintf("history verified on this machine up to position %d, head %s", st.Position, short(st.HeadHash)), nil
}

func (a *app) headline(i *dashboardv1.Incident) {
	a.out.line("%s  %s on %s, strategy %d, severity %s", bold(i.GetId()), statusWord(i), i.GetSystem(), i.GetStrategy(), word(i.GetSeverity()))
	a.out.field("declared", "%s by %s: %s", a.out.clock(i.GetDeclaredAt()), i.GetDeclaredBy(), word(i.GetReasonClass()))
	switch {
	case i.GetMergedInto() != "":
		a.out.field("merged", "into %s", i.GetMergedInto())
	case i.GetOverallMetAt() != nil:
		a.out.field("24 hours", "%s %s", good("met"), a.out.clock(i.GetOverallMetAt()))
	case i.GetBreached():
		a.out.field("24 hours", "%s %s", bad("missed"), a.out.clock(i.GetOverallDueAt()))
	default:
		a.out.field("24 hours", "until %s", a.out.clock(i.GetOverallDueAt()))
	}
	if i.GetStep() != "" {
		a.out.field("stands at", "%s", i.GetStep())
	}
}

// symptom shows what is seen, to those who may read it: it is what everybody who was woken wants to know.
func (a *app) symptom(ctx context.Context, i *dashboardv1.Incident) {
	if i.GetSymptom().GetCommitment() == "" {
		return
	}
	v, err := a.reveal(ctx, i.GetId(), i.GetSymptom().GetCommitment())
	switch {
	case err != nil:
		a.out.field("symptom", "%s", dim("its keeper is away; later: epatch details"))
	case v.Why == "":
		a.out.field("symptom", "%s", v.Value)
	}
}

// body shows the rest, each part only where there is something. The state is nil where nothing can be verified.
func (a *app) body(i *dashboardv1.Incident, st *procedure.State) {
	a.slots(i)
	a.pages(i)
	a.revisions(i)
	a.vetoes(i)
	a.deployments(i, st)
	if st != nil {
		a.grants(st)
		a.court(st)
	}
	a.owed(i)
	if len(i.GetDeviations()) > 0 {
		var list []string
		for _, d := range i.GetDeviations() {
			list = append(list, fmt.Sprintf("%s at %d", word(d.GetDeviation()), d.GetPosition()))
		}
		a.part("deviations")
		a.out.line("  %s", strings.Join(list, ", "))
	}
	a.out.line("")
}

func (a *app) part(title string) {
	a.out.line("")
	a.out.line("%s", bold(title))
}

func (a *app) slots(i *dashboardv1.Incident) {
	var rows [][]any
	for _, s := range i.GetSlots() {
		due := ""
		if s.GetDueAt() != nil {
			due = "check in by " + a.out.clock(s.GetDueAt())
		}
		if s.GetHandoverTo() != "" {
			due = strings.TrimPrefix(due+"; ", "; ") + s.GetHandoverTo() + " is asked to take over"
		}
		rows = append(rows, []any{"  " + s.GetId(), slotWord(s.GetState()), s.GetPerson(), s.GetStep(), due})
	}
	if len(rows) > 0 {
		a.part("teams")
		a.out.table([]string{"  SLOT", "STATE", "PERSON", "TO", ""}, rows)
	}
}

func slotWord(state string) any {
	w := strings.ToLower(state)
	switch procedure.SlotState(state) {
	case procedure.SlotOpen:
		return alert(w)
	case procedure.SlotStandby:
		return good(w)
	case procedure.SlotAccepted, procedure.SlotEnded:
	}
	return w
}

// pages shows only what went wrong: the rest is noise at this hour.
func (a *app) pages(i *dashboardv1.Incident) {
	var rows [][]any
	for _, p := range i.GetPages() {
		if p.GetState() == "FAILED" || p.GetState() == "UNKNOWN" {
			rows = append(rows, []any{"  " + p.GetPerson(), p.GetChannel(), alert(strings.ToLower(p.GetState())), p.GetDetail()})
		}
	}
	if len(rows) > 0 {
		a.part("calls that may not have arrived")
		a.out.table([]string{"  PERSON", "CHANNEL", "STATE", "DETAIL"}, rows)
	}
}

func (a *app) revisions(i *dashboardv1.Incident) {
	if len(i.GetRevisions()) > 0 {
		a.part("patches")
	}
	for _, r := range i.GetRevisions() {
		name := bold(r.GetId())
		if !r.GetCurrent() {
			name = dim(r.GetId() + ", replaced")
		}
		a.out.line("  %s  %s, by %s, bug %s, patch %s", name, eventWords(r.GetState()), r.GetAuthor(), r.GetBugId(), short(r.GetPatchSha256()))
		for _, c := range r.GetChecks() {
			void := ""
			if c.GetVoid() {
				void = ", void"
			}
			a.out.line("      %-14s %s, position %d%s", c.GetKind(), checkWords(c), c.GetPosition(), void)
		}
	}
}

func checkWords(c *dashboardv1.Check) string {
	result := c.GetResult()
	if c.GetKind() == "transfer" {
		result = "commit " + short(result)
	}
	if c.GetBy() == "" || c.GetBy() == result {
		return result
	}
	return result + " by " + c.GetBy()
}

func (a *app) vetoes(i *dashboardv1.Incident) {
	for _, v := range i.GetVetoes() {
		a.out.line("  %s %s against %s by %s, %s", bad("veto"), v.GetId(), v.GetRevision(), v.GetRaisedBy(), strings.ToLower(v.GetState()))
	}
}

func (a *app) deployments(i *dashboardv1.Incident, st *procedure.State) {
	if len(i.GetDeployments()) > 0 {
		a.part("host " + i.GetHost())
	}
	for _, d := range i.GetDeployments() {
		a.out.line("  %s  %s, executor %s, observer %s, started %s", bold(d.GetRevision()), deploymentWord(d.GetState()), d.GetExecutor(), orNobody(d.GetObserver()), a.out.clock(d.GetStartedAt()))
		if d.GetHostTree() != "" {
			a.out.line("      tree %s", d.GetHostTree())
		}
		if old := before(d, lastHealth(st, d)); d.GetHealth() != "" {
			a.out.line("      health %s%s", strings.ToLower(d.GetHealth()), old)
		}
	}
	if i.GetReplication() == "" {
		return
	}
	old := ""
	if n := len(i.GetDeployments()); n > 0 {
		old = before(i.GetDeployments()[n-1], lastComparison(st, i.GetDeployments()[n-1]))
	}
	a.out.line("  host and branch: %s%s", strings.ToLower(i.GetReplication()), old)
}

// before marks what was found before the host went back to the former tree: it says nothing of the host as it is.
func before(d *dashboardv1.Deployment, later bool) string {
	if later {
		return ""
	}
	switch procedure.ApplyState(d.GetState()) {
	case procedure.RollingBack, procedure.RolledBack:
		return ", before the roll-back"
	case procedure.BackingOut, procedure.BackedOut, procedure.BackOutUnproven:
		return ", before the back-out"
	case procedure.Applying, procedure.Applied, procedure.Verified, procedure.Mismatch, procedure.ApplyFailed:
	}
	return ""
}

// ended is where the host was proven to hold the former tree again; 0 where that is not known.
func ended(st *procedure.State, d *dashboardv1.Deployment) uint64 {
	if st == nil {
		return 0
	}
	for _, a := range st.Applies {
		if a.Position == d.GetPosition() {
			return a.Ended.Position
		}
	}
	return 0
}

// lastHealth tells whether the last health note of a deployment came after the host had gone back.
func lastHealth(st *procedure.State, d *dashboardv1.Deployment) bool {
	end := ended(st, d)
	return end > 0 && slices.ContainsFunc(st.Health, func(h procedure.Mark) bool { return h.Revision == d.GetRevision() && h.Position > end })
}

// lastComparison tells whether host and branch were compared after the host had gone back.
func lastComparison(st *procedure.State, d *dashboardv1.Deployment) bool {
	end := ended(st, d)
	return end > 0 && slices.ContainsFunc(st.Replications, func(r procedure.Replication) bool { return r.Position > end })
}

func deploymentWord(state string) styled {
	w := applyWords(procedure.ApplyState(state))
	switch procedure.ApplyState(state) {
	case procedure.Verified:
		return good(w)
	case procedure.Mismatch, procedure.ApplyFailed, procedure.BackOutUnproven:
		return bad(w)
	case procedure.Applying, procedure.Applied, procedure.BackingOut, procedure.BackedOut, procedure.RollingBack, procedure.RolledBack:
	}
	return styled(harmless(w))
}

func orNobody(person string) string {
	if person == "" {
		return "nobody"
	}
	return person
}

// owed lists what is still owed.
func (a *app) owed(i *dashboardv1.Incident) {
	var rows [][]any
	for _, o := range i.GetObligations() {
		if o.GetState() == "DISCHARGED" {
			continue
		}
		who := procedure.RoleWord(o.GetOwnerRole())
		if o.GetOwner() != "" {
			who = o.GetOwner()
		}
		due := any(a.out.clock(o.GetDueAt()))
		if o.GetState() == "OVERDUE" {
			due = bad(a.out.clock(o.GetDueAt()))
		}
		rows = append(rows, []any{"  " + o.GetKind(), who, due, a.typing(howTyped(o.GetHow()))})
	}
	if len(rows) > 0 {
		a.part("owed")
		a.out.table([]string{"  WHAT", "BY", "DUE", "HOW"}, rows)
	}
}

// howTyped is what to type to discharge an obligation.
func howTyped(how string) string {
	if line := commandLine(how, ""); line != "" {
		return line
	}
	return how
}
