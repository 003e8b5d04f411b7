// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Hole stands where a person has something to say that no event says. A text that still holds one is not finished.
const Hole = "[fill in"

// The sections of a draft.
const (
	sectionReasons  = "== reasons"
	sectionText     = "== text"
	sectionAppendix = "== appendix"
)

// Draft is the documentation of a strategy, drafted from the events: the timeline, a line for the reason of every deviation,
// and a text with what the events say and holes for what they do not. ParseDraft reads it back.
func Draft(in Input, strategy uint32) (string, error) {
	f, err := read(in)
	if err != nil {
		return "", err
	}
	if strategy < 1 || strategy > 3 {
		return "", fmt.Errorf("there is no strategy %d", strategy)
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# The documentation of %s, strategy %d, drafted from its events.", f.incident, strategy)
	line("# Lines that begin with # are left out. Fill in what is marked, then: epatch document --from FILE")
	line("incident: %s\nstrategy: %d\nposition: %d", f.incident, strategy, f.state.Position)
	line("#\n# The timeline, which you confirm by documenting:")
	for _, e := range f.events {
		if !noise(e) {
			line("# %5d  %s  %s: %s", e.pos, f.when(e.at), e.who(), oneLine(Words(e.payload)))
		}
	}
	line("\n%s\n# Why each departure from the rules was needed; public. A reason may go on over several lines.", sectionReasons)
	for _, d := range f.state.Deviations {
		line("# in: %s", oneLine(Words(f.at(d.Position).payload)))
		line("reason %d, %s:\n", d.Position, word(d.Deviation, "DEVIATION_"))
	}
	if len(f.state.Deviations) == 0 {
		line("# none: nothing departed from the rules")
	}
	line("\n%s\n# Public. No names: persons appear by their role.", sectionText)
	b.WriteString(f.skeleton(strategy))
	line("\n%s\n# What is only for those who take part, and for an arbitrator. May stay empty.", sectionAppendix)
	return b.String(), nil
}

// noise is what a timeline is easier to read without: reports about pages, reminders, what was made visible of obligations.
func noise(e event) bool {
	return slices.Contains([]string{
		"DeliveryReported", "StandbyCheckedIn", "DeadlineWarned", "ObligationOpened", "ObligationDueChanged", "ObligationDischarged", "ObligationEscalated",
	}, e.name) || e.name == "SessionMarked" && e.payload.(*emergencyv1.SessionMarked).GetKind() == emergencyv1.MarkKind_MARK_KIND_CHECKPOINT
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// skeleton is the public text: the facts of the steps, and holes for the rest.
func (f *fold) skeleton(strategy uint32) string {
	var b strings.Builder
	part := func(title string, lines ...string) {
		fmt.Fprintf(&b, "%s\n", title)
		for _, l := range lines {
			if l != "" {
				fmt.Fprintf(&b, "- %s\n", l)
			}
		}
	}
	part("What happened:", "declared "+stamp(f.t0)+", severity "+word(f.state.Declared.Severity, "SEVERITY_")+", "+word(f.state.Declared.ReasonClass, "REASON_CLASS_"), Hole+": what was seen, and whom it affected]")
	if strategy > 1 {
		part(fmt.Sprintf("Why strategy %d:", strategy), append(f.grounds(strategy), Hole+": why a lower strategy did not do]")...)
	}
	part("What was done:", append(f.done(strategy), Hole+": in your own words]")...)
	if strategy == 3 {
		part("What the session changed, and what it left:", append(f.traces(), Hole+": what was found, and what becomes of it]")...)
	}
	part("What is still open:", append(f.stillOpen(), Hole+": what else, or nothing]")...)
	return b.String()
}

// grounds are those that the escalation to a strategy stated, without names.
func (f *fold) grounds(strategy uint32) []string {
	var list []string
	for _, e := range f.events {
		if x, ok := e.payload.(*emergencyv1.StrategyEscalated); ok && x.GetTo() == strategy {
			list = append(list, fmt.Sprintf("%s: escalated from strategy %d%s", stamp(e.at), x.GetFrom(), groundWords(x)))
		}
	}
	return list
}

// done are the first times of the strategy's steps.
func (f *fold) done(strategy uint32) []string {
	var list []string
	for _, s := range f.steps() {
		if s.Strategy == strategy && s.FirstAt != nil && s.What != "declared" && s.What != "escalated" {
			list = append(list, fmt.Sprintf("%s: %s (step %s)", stamp(*s.FirstAt), s.What, s.Number))
		}
	}
	for _, r := range f.state.Revisions {
		list = append(list, fmt.Sprintf("patch %s, sha256 %s", r.ID, r.Artefact.GetSha256()))
	}
	return list
}

// traces are what sessions changed and left, in numbers.
func (f *fold) traces() []string {
	var list []string
	for _, e := range f.events {
		switch p := e.payload.(type) {
		case *emergencyv1.SessionDiffCaptured:
			list = append(list, fmt.Sprintf("%s: %s changed in the tree", p.GetGrant(), count(len(p.GetChangedPaths()), "path")))
		case *emergencyv1.LeftoversReported:
			list = append(list, fmt.Sprintf("%s: left on the host: %d%s", p.GetGrant(), len(p.GetItems()), leftoverWords(p.GetItems())))
		}
	}
	return list
}

func (f *fold) stillOpen() []string {
	var list []string
	for _, o := range Obligations(f.state, f.asked) {
		if o.By == 0 && !strings.HasPrefix(o.Kind, "DOCUMENT/") {
			list = append(list, fmt.Sprintf("%s, owed by %s, due %s", o.What, o.OwnerRole, stamp(o.Due)))
		}
	}
	return list
}

// Report is a documentation as it was filled in.
type Report struct {
	Incident string
	Strategy uint32
	// Position is the last one that the draft was made from.
	Position uint64
	Reasons  []*emergencyv1.DeviationReason
	Text     string
	Appendix string
}

// ParseDraft reads a draft that was filled in. It refuses one that is not finished, and says where.
func ParseDraft(text string) (*Report, error) {
	r := &Report{}
	body, section := map[string][]string{}, ""
	for n, l := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		switch {
		case strings.HasPrefix(l, "#"):
		case strings.HasPrefix(l, "== "):
			if section = strings.TrimSpace(l); !slices.Contains([]string{sectionReasons, sectionText, sectionAppendix}, section) {
				return nil, fmt.Errorf("line %d: there is no part %q; the parts are %q, %q and %q", n+1, l, sectionReasons, sectionText, sectionAppendix)
			}
		case section == "":
			if err := r.head(l); err != nil {
				return nil, fmt.Errorf("line %d: %w", n+1, err)
			}
		case section == sectionReasons:
			if err := r.reason(l); err != nil {
				return nil, fmt.Errorf("line %d: %w", n+1, err)
			}
		default:
			if strings.Contains(l, Hole) {
				return nil, fmt.Errorf("line %d is not filled in: %s", n+1, strings.TrimSpace(l))
			}
			body[section] = append(body[section], l)
		}
	}
	r.Text, r.Appendix = joined(body[sectionText]), joined(body[sectionAppendix])
	for _, x := range r.Reasons {
		if x.Reason = strings.TrimSpace(x.GetReason()); x.GetReason() == "" {
			return nil, fmt.Errorf("the deviation %s at position %d has no reason yet", word(x.GetDeviation(), "DEVIATION_"), x.GetPosition())
		}
	}
	if r.Text == "" {
		return nil, fmt.Errorf("there is no public text under %q", sectionText)
	}
	return r, nil
}

func joined(lines []string) string { return strings.TrimSpace(strings.Join(lines, "\n")) }

// head reads a line before the first section.
func (r *Report) head(l string) error {
	name, value, ok := strings.Cut(l, ":")
	value = strings.TrimSpace(value)
	switch {
	case strings.TrimSpace(l) == "":
		return nil
	case ok && name == "incident":
		r.Incident = value
		return nil
	case ok && name == "strategy":
		n, err := strconv.ParseUint(value, 10, 32)
		r.Strategy = uint32(n)
		return err
	case ok && name == "position":
		n, err := strconv.ParseUint(value, 10, 64)
		r.Position = n
		return err
	}
	return fmt.Errorf("%q is no part of a draft", l)
}

// reason reads a line below the heading of the reasons: a new one, or more of the last.
func (r *Report) reason(l string) error {
	what, text, ok := strings.Cut(l, ":")
	rest, is := strings.CutPrefix(what, "reason ")
	if !is || !ok {
		if n := len(r.Reasons); n > 0 {
			r.Reasons[n-1].Reason = strings.TrimSpace(r.Reasons[n-1].GetReason() + " " + strings.TrimSpace(l))
			return nil
		}
		if strings.TrimSpace(l) == "" {
			return nil
		}
		return fmt.Errorf("%q is the reason of nothing", l)
	}
	at, name, _ := strings.Cut(rest, ",")
	position, err := strconv.ParseUint(strings.TrimSpace(at), 10, 64)
	if err != nil {
		return fmt.Errorf("%q names no position", what)
	}
	d, known := emergencyv1.Deviation_value["DEVIATION_"+strings.ToUpper(strings.ReplaceAll(strings.TrimSpace(name), " ", "_"))]
	if !known || d == 0 {
		return fmt.Errorf("%q names no deviation", what)
	}
	r.Reasons = append(r.Reasons, &emergencyv1.DeviationReason{Position: position, Deviation: emergencyv1.Deviation(d), Reason: strings.TrimSpace(text)})
	return nil
}
