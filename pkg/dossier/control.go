// SPDX-License-Identifier: Apache-2.0

package dossier

import (
	"fmt"
	"strings"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// part is somebody's part in an act; where says the event that gave it.
type part struct {
	role, person string
	where        uint64
}

// apart says who had which part, and whether somebody had two: the fact on which dual control is judged. Identity is the
// person, whatever the key (procedure.md 2.3).
func apart(parts []part) string {
	var words, twice []string
	roles := map[string][]string{}
	for _, p := range parts {
		who := p.person
		if who == "" {
			who = "nobody"
		} else {
			roles[p.person] = append(roles[p.person], p.role)
		}
		words = append(words, p.role+" "+who)
	}
	for _, p := range parts {
		if list := roles[p.person]; len(list) > 1 && list[0] == p.role {
			twice = append(twice, fmt.Sprintf("%s is %s", p.person, strings.Join(list, " and ")))
			roles[p.person] = nil
		}
	}
	switch {
	case len(twice) > 0:
		return strings.Join(words, ", ") + ": " + strings.Join(twice, "; ")
	case len(roles) > 1:
		return strings.Join(words, ", ") + ": different persons"
	case len(roles) == 1:
		return strings.Join(words, ", ") + ": one person alone"
	}
	return strings.Join(words, ", ")
}

func positionsOf(parts []part, more ...uint64) []uint64 {
	for _, p := range parts {
		more = append(more, p.where)
	}
	return more
}

// said builds the sentence about one act and the parts in it.
func (f *fold) said(e event, what string, parts []part) Sentence {
	return Sentence{Text: fmt.Sprintf("%s: %s; %s.", f.when(e.at), what, apart(parts)), Positions: f.existing(positionsOf(parts, e.pos)...)}
}

// work keeps who had which part in a revision, as the history goes on.
type work map[string][]part

func (w work) add(revision, role, person string, e event) {
	for i, p := range w[revision] {
		if p.role == role && p.person == person {
			w[revision][i].where = e.pos
			return
		}
	}
	w[revision] = append(w[revision], part{role, person, e.pos})
}

// with is the parts so far and one more, in a list of its own.
func (w work) with(revision string, more ...part) []part {
	return append(append([]part{}, w[revision]...), more...)
}

// note keeps what an event says about who worked on a revision.
func (w work) note(e event) {
	switch p := e.payload.(type) {
	case *emergencyv1.PatchRegistered:
		w.add(p.GetBinding().GetRevision(), "author", p.GetAuthor(), e)
	case *emergencyv1.FirstReviewRecorded:
		w.add(p.GetBinding().GetRevision(), "first reviewer"+phaseWords(p.GetPhase()), p.GetReviewer(), e)
	case *emergencyv1.SecondReviewRecorded:
		w.add(p.GetBinding().GetRevision(), "second reviewer"+phaseWords(p.GetPhase()), p.GetReviewer(), e)
	case *emergencyv1.TestReported:
		w.add(p.GetBinding().GetRevision(), "tester", p.GetTester(), e)
	}
}

func phaseWords(p emergencyv1.Phase) string {
	return either(p == emergencyv1.Phase_PHASE_AFTER, " after deployment", "")
}

// reviewControl says at each review and test who had which part in the revision until then.
func (f *fold) reviewControl() []Sentence {
	w, list := work{}, []Sentence(nil)
	for _, e := range f.events {
		w.note(e)
		var revision, what string
		switch p := e.payload.(type) {
		case *emergencyv1.FirstReviewRecorded:
			revision, what = p.GetBinding().GetRevision(), "first review of "
		case *emergencyv1.SecondReviewRecorded:
			revision, what = p.GetBinding().GetRevision(), "second review of "
		case *emergencyv1.TestReported:
			revision, what = p.GetBinding().GetRevision(), "test of "
		default:
			continue
		}
		list = append(list, f.said(e, what+revision, w[revision]))
	}
	return list
}

// jointControl says who signed a joint declaration, and in which role.
func (f *fold) jointControl() []Sentence {
	var list []Sentence
	for _, e := range f.events {
		esc, ok := e.payload.(*emergencyv1.StrategyEscalated)
		if !ok || len(esc.GetSignatures()) == 0 {
			continue
		}
		var parts []part
		for _, pos := range esc.GetSignatures() {
			if half, ok := f.at(pos).payload.(*emergencyv1.JointDeclarationSigned); ok {
				parts = append(parts, part{procedure.RoleWord(half.GetHalf()), half.GetPerson(), pos})
			}
		}
		list = append(list, f.said(e, "joint declaration that led to strategy 3", parts))
	}
	return list
}

// deployControl says at each act on the host who executed, who observed, and who had worked on the revision.
func (f *fold) deployControl() []Sentence {
	w, list := work{}, []Sentence(nil)
	for _, e := range f.events {
		w.note(e)
		switch p := e.payload.(type) {
		case *emergencyv1.ApplyStarted:
			r := p.GetBinding().GetRevision()
			list = append(list, f.said(e, "deployment of "+r, w.with(r, part{"executor", p.GetExecutor(), e.pos}, part{"observer", p.GetObserver(), e.pos})))
		case *emergencyv1.RollBackStarted:
			r := p.GetBinding().GetRevision()
			list = append(list, f.said(e, "roll-back of "+r, w.with(r, part{"executor", p.GetExecutor(), e.pos}, part{"observer", p.GetObserver(), e.pos})))
		}
	}
	return list
}

// accessControl says at each grant, and whenever the watch was armed, who had access, who watched and who granted.
func (f *fold) accessControl() []Sentence {
	grants, list := map[string][]part{}, []Sentence(nil)
	for _, e := range f.events {
		switch p := e.payload.(type) {
		case *emergencyv1.AccessGrantIssued:
			parts := []part{{"subject", p.GetSubject(), e.pos}}
			if permit := f.at(p.GetPermission()); permit.name == "AccessPermitted" {
				parts = append(parts, part{"permitted by", permit.rec.GetActor().GetPerson(), permit.pos})
			} else {
				parts = append(parts, part{"permitted by", "", e.pos})
			}
			grants[p.GetGrant()] = append([]part{}, parts[0])
			list = append(list, f.said(e, "grant "+p.GetGrant(), append(parts, part{"named watcher", p.GetWatcher(), e.pos})))
			list = append(list, f.said(e, "grant "+p.GetGrant(), []part{parts[0], {"granted by", e.rec.GetActor().GetPerson(), e.pos}}))
		case *emergencyv1.WatchArmed:
			if !p.GetRenewed() {
				list = append(list, f.said(e, "watch of "+p.GetGrant()+" armed", append(append([]part{}, grants[p.GetGrant()]...), part{"watcher", p.GetWatcher(), e.pos})))
			}
		}
	}
	return list
}
