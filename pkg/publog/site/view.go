// SPDX-License-Identifier: Apache-2.0

package site

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/publog"
)

// Standing is how an incident stands.
type Standing struct {
	Status     string // in words
	Ended      bool
	Strategy   uint32
	MergedInto string
	// Due is when everything has to be done, Breached that it was not; zero if nobody said.
	Due      time.Time
	Breached bool
	Debts    []Debt
}

// Debt is an obligation; its owner is a role (procedure.md 5.5).
type Debt struct {
	Kind, Role string
	Due        time.Time
	// State is owed, overdue, met, met late or lifted.
	State string
}

// What is owed, in words.
func (d Debt) What() string { return dossier.KindWords(d.Kind) }

// DueAt is the due time, as pages show it.
func (d Debt) DueAt() string { return full(d.Due) }

// Class is for the style.
func (d Debt) Class() string {
	switch d.State {
	case "owed", "overdue":
		return d.State
	}
	return "met"
}

// incident is one incident as the public sees it.
type incident struct {
	ID                       string
	Origin                   publog.Origin
	System, Severity, Reason string
	Status, Class            string // in words, and for the style
	Strategy                 uint32
	Declared, Since          string
	Due, Outcome, TimeToFix  string
	Breached, Ended          bool
	MergedInto               string
	Debts                    []Debt
	Open, Overdue            int
	declaredAt               time.Time
	entries                  []*publog.Entry
}

// Entries are its entries, oldest first. Most pages show those of no incident, or of one.
func (i *incident) Entries() []*entry {
	list := make([]*entry, len(i.entries))
	for n, e := range i.entries {
		list[n] = viewOf(*e, i.declaredAt)
	}
	return list
}

// Last is its newest entry.
func (i *incident) Last() *entry { return viewOf(*i.entries[len(i.entries)-1], i.declaredAt) }

// Year is the year in the incident's id.
func (i *incident) Year() string { return i.ID[min(1, len(i.ID)):min(5, len(i.ID))] }

// entry is an entry, ready to be shown.
type entry struct {
	publog.Entry
	Origin                 publog.Origin
	Day, Time, Full, Since string
	Alarm                  bool
	Facts, Texts, Proof    []publog.Field
	SentAt                 time.Time // of an archived message
}

// FromArchive tells whether it was not recorded when it happened.
func (v *entry) FromArchive() bool { return !v.SentAt.IsZero() }

// Sent is when an archived message was sent, Year its year.
func (v *entry) Sent() string { return full(v.SentAt) }

// Year is the year in which an archived message was sent.
func (v *entry) Year() string { return v.SentAt.Format("2006") }

// Subject is the headline without what is said of every archived message.
func (v *entry) Subject() string { return strings.TrimPrefix(v.Headline, publog.FromArchive) }

// Gist is the beginning of what somebody wrote, for a card.
func (v *entry) Gist() string {
	for _, name := range []string{"text", "summary", "reason"} {
		if text := []rune(strings.Join(strings.Fields(v.Field(name)), " ")); len(text) > 160 {
			return string(text[:159]) + "…"
		} else if len(text) > 0 && name != "reason" || len(text) > 20 {
			return string(text)
		}
	}
	return ""
}

// viewOf makes an entry ready to be shown, of an incident that was declared at a time; zero if that is not to be counted from.
func viewOf(e publog.Entry, declared time.Time) *entry {
	v := &entry{Entry: e, Origin: publog.OriginOf(e.Incident), Day: e.At.UTC().Format("Monday, 2 January 2006"), Time: e.At.UTC().Format("15:04"), Full: full(e.At), Alarm: alarming(e)}
	if !declared.IsZero() {
		v.Since = since(e.At.Sub(declared))
	}
	if v.Origin == publog.Archive {
		if at, err := time.Parse(time.RFC3339, e.Field(publog.FieldSent)); err == nil {
			v.SentAt = at.UTC()
		}
	}
	for _, f := range e.Fields {
		switch {
		case f.Name == "obligation": // its kind says enough
			v.Proof = append(v.Proof, f)
		case len(f.Value) > 60 || strings.Contains(f.Value, "\n"):
			v.Texts = append(v.Texts, f)
		default:
			v.Facts = append(v.Facts, f)
		}
	}
	return v
}

func (i *incident) add(e *publog.Entry) {
	switch e.Kind {
	case "incident.EmergencyDeclared":
		i.System, i.Severity, i.Reason, i.Declared = e.Field("system"), e.Field("severity"), e.Field("reason"), full(e.At)
	case "incident.IncidentClosed":
		i.Outcome, i.TimeToFix = e.Field("outcome"), e.Field("time to fix")
	}
	i.entries = append(i.entries, e)
}

// alarming entries stand out: what chapter 5 prints in bold, what failed and what is late.
func alarming(e publog.Entry) bool {
	switch e.Kind {
	case "deployment.DeployMismatch", "deployment.PatchApplyFailed", "deployment.BackOutUnproven", "review.VetoRaised", "incident.DeadlineBreached",
		"arbitration.ObligationOverdue", "arbitration.ObligationEscalated", "notification.CoverageGapFound", "notification.SlotReopened",
		"incident.StrategyEscalated", "deployment.AccessGrantIssued", "deployment.SessionFrozen", "deployment.CredentialStillUsable",
		"arbitration.DisputeClosedDeclined":
		return true
	}
	return strings.HasSuffix(e.Headline, ": fail") || strings.HasSuffix(e.Headline, ": veto") || strings.HasPrefix(e.Headline, "Replication: drift")
}

// stand adds how the incident stands: as its entries say, or as is known better.
func (i *incident) stand(cfg Config) {
	var st Standing
	known := false
	if cfg.Standing != nil {
		st, known = cfg.Standing(i.ID)
	}
	if !known {
		st = standingOf(i.entries)
	}
	i.Status, i.Ended, i.Strategy, i.MergedInto, i.Breached, i.Debts = st.Status, st.Ended, st.Strategy, st.MergedInto, st.Breached, st.Debts
	i.Class = "open"
	if i.Ended {
		i.Class = "ended"
	}
	if !st.Due.IsZero() {
		i.Due = full(st.Due)
	}
	if !cfg.Now.IsZero() {
		i.Since = age(cfg.Now.Sub(i.declaredAt))
	}
	for _, d := range i.Debts {
		switch d.Class() {
		case "owed":
			i.Open++
		case "overdue":
			i.Open, i.Overdue = i.Open+1, i.Overdue+1
		}
	}
}

// standingOf is how an incident stands from nothing but its entries.
func standingOf(entries []*publog.Entry) Standing {
	st := Standing{Status: "open", Strategy: 1}
	var debts []*debt
	for _, e := range entries {
		switch e.Kind {
		case "incident.IncidentStoodDown":
			st.Status, st.Ended = "stood down", true
		case "incident.IncidentMerged":
			st.Status, st.Ended, st.MergedInto = "merged", true, e.Field("merged into")
		case "incident.IncidentClosed":
			st.Status, st.Ended = "closed", true
		case "incident.StrategyEscalated":
			if n, err := strconv.ParseUint(strings.TrimPrefix(e.Headline, "Escalated to strategy "), 10, 32); err == nil {
				st.Strategy = uint32(n)
			}
		case "incident.StrategyDeEscalated":
			if n, err := strconv.ParseUint(e.Field("to strategy"), 10, 32); err == nil {
				st.Strategy = uint32(n)
			}
		case "incident.DeadlineBreached":
			st.Breached, st.Due = true, parsed(e.Field("due"))
		default:
			debts = owed(debts, e)
		}
	}
	for _, d := range debts {
		st.Debts = append(st.Debts, d.Debt)
	}
	return st
}

// debt is an obligation while entries about it are read.
type debt struct {
	Debt
	id string
}

// owed is the list of obligations after one more entry.
func owed(list []*debt, e *publog.Entry) []*debt {
	id := e.Field("obligation")
	if id == "" {
		return list
	}
	i := slices.IndexFunc(list, func(d *debt) bool { return d.id == id })
	if i < 0 {
		list = append(list, &debt{Debt{Kind: e.Field("kind"), Role: e.Field("owed by"), State: "owed"}, id})
		i = len(list) - 1
	}
	d := list[i]
	switch e.Kind {
	case "arbitration.ObligationOpened", "arbitration.ObligationDueChanged":
		d.Role, d.Due, d.State = e.Field("owed by"), parsed(e.Field("due")), "owed"
	case "arbitration.ObligationOverdue", "arbitration.ObligationEscalated":
		d.State = "overdue"
	case "arbitration.ObligationDischarged":
		switch {
		case e.Field("lifted by") != "":
			d.State = "lifted"
		case e.Field("late by") != "":
			d.State = "met late"
		default:
			d.State = "met"
		}
	}
	return list
}

const stampForm = "2006-01-02 15:04 UTC"

// parsed reads a time as entries write it; zero if it is none.
func parsed(s string) time.Time {
	t, err := time.Parse(stampForm, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

func full(t time.Time) string { return t.UTC().Format(stampForm) }

// since is a time after the declaration, such as +1:05.
func since(d time.Duration) string {
	d = d.Truncate(time.Minute)
	switch {
	case d < time.Minute:
		return "start"
	case d < 48*time.Hour:
		return fmt.Sprintf("+%d:%02d h", int(d.Hours()), int(d.Minutes())%60)
	}
	return "+" + strconv.Itoa(int(d.Hours())/24) + " days"
}

// age is how long ago something was, in words.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute ago"
	case d < 2*time.Minute:
		return "a minute ago"
	case d < time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 2*time.Hour:
		return "an hour ago"
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours())/24)
}
