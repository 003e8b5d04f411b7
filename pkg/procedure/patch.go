// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"strconv"

	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Patches and their revisions (seed 1.5; procedure.md 4.3). Every later step names a binding and checks it here first.

func (r *Revision) bind() *emergencyv1.Binding {
	return &emergencyv1.Binding{Revision: r.ID, Digest: r.Binding}
}

// current returns the revision that a binding names, if it is the latest of its patch (10.16).
func (d *decision) current(b *emergencyv1.Binding) (*Revision, *Refusal) {
	r, refusal := d.bound(b)
	if refusal != nil {
		return nil, refusal
	}
	if r.Superseded != "" {
		latest := r.Superseded
		for range d.s.Revisions { // bounded, whatever the history says
			if next, ok := d.s.Revision(latest); ok && next.Superseded != "" {
				latest = next.Superseded
			}
		}
		return nil, refuse(ReasonPatchRevisionStale, "%s was replaced by %s", r.ID, latest).allow(d.row.name, latest, "look at %s and give the command for it", latest)
	}
	return r, nil
}

// bound returns the revision that a binding names, current or not.
func (d *decision) bound(b *emergencyv1.Binding) (*Revision, *Refusal) {
	r, ok := d.s.Revision(b.GetRevision())
	if !ok {
		return nil, refuse(ReasonPatch, "there is no revision %s", b.GetRevision()).allow("RegisterPatch", "", "register the patch first")
	}
	if r.Binding != b.GetDigest() {
		return nil, refuse(ReasonBindingUnknown, "%s never had the binding %s", r.ID, short(b.GetDigest())).
			allow(d.row.name, r.ID, "use the binding that the incident shows: %s", short(r.Binding))
	}
	return r, nil
}

func registerFields(f *fields, c *emergencyv1.RegisterPatchRequest) {
	f.want(digestForm.MatchString(c.GetSha256()), "sha256", "64 lower-case hex digits")
	stored := c.GetOrigin() == emergencyv1.PatchOrigin_PATCH_ORIGIN_SESSION // the difference of a session is in the artefact store already
	f.want(len(c.GetBytes()) > 0 || stored, "bytes", "the patch")
	f.want(c.GetBaseCommit() != "" && len(c.GetBaseCommit()) <= 64, "base_commit", "the commit that the patch applies to")
	f.tree("base_tree", c.GetBaseTree())
	f.tree("result_tree", c.GetResultTree())
	f.want(c.GetBaseTree() != c.GetResultTree(), "result_tree", "another tree than the base tree: the patch must change something")
	f.word("bug_id", c.GetBugId())
	f.optionalWord("author", c.GetAuthor())
}

func registerClaims(c *emergencyv1.RegisterPatchRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{claim("base_commit", c.GetBaseCommit()), claim("bug_id", c.GetBugId()), claim("author", c.GetAuthor()), claim("supersedes", c.GetSupersedes())}
}

// decideRegister registers a revision (B1): the service recomputed everything, and nothing else counts.
func decideRegister(d *decision, c *emergencyv1.RegisterPatchRequest) *Refusal {
	if d.hypothetical {
		if _, refusal := d.superseded(c.GetSupersedes()); refusal != nil {
			return refusal
		}
		return d.mayPrepare(c)
	}
	p := d.env.Facts.Patch
	switch {
	case p == nil:
		return refuse(ReasonDigest, "the service has not computed the patch")
	case p.Artefact.GetSha256() != c.GetSha256():
		return refuse(ReasonDigest, "the bytes have SHA-256 %s, the command says %s", short(p.Artefact.GetSha256()), short(c.GetSha256())).allow("RegisterPatch", "", "send the bytes that were signed")
	case p.Problem != "":
		return refuse(ReasonDigest, "the patch is not acceptable: %s", p.Problem).allow("RegisterPatch", "", "correct the patch and register it again")
	case p.BaseTree != c.GetBaseTree():
		return refuse(ReasonBaseMismatch, "commit %s has tree %s, the command says %s", short(c.GetBaseCommit()), p.BaseTree, c.GetBaseTree()).allow("RegisterPatch", "", "make the patch against that commit")
	case p.ResultTree != c.GetResultTree():
		return refuse(ReasonResultMismatch, "the patch gives tree %s, the command says %s", p.ResultTree, c.GetResultTree()).allow("RegisterPatch", "", "register the patch whose result you looked at")
	}
	old, refusal := d.superseded(c.GetSupersedes())
	if refusal != nil {
		return refusal
	}
	if refusal := d.mayPrepare(c); refusal != nil {
		return refusal
	}
	for _, r := range d.s.Revisions {
		if r.Artefact.GetSha256() == c.GetSha256() && r.BaseTree == c.GetBaseTree() {
			return refuse(ReasonRevisionExists, "these bytes on this base are already registered as %s", r.ID)
		}
	}
	id := NextRevision(d.s, c.GetSupersedes())
	author := c.GetAuthor()
	if author == "" {
		author = d.person
	}
	if !d.env.Book.Listed(author) {
		return refuse(ReasonField, "author %s is not in the directory", author).under("X5").allow("RegisterPatch", "", "name the author as the directory does")
	}
	d.emit(&emergencyv1.PatchRegistered{
		Binding: &emergencyv1.Binding{Revision: id, Digest: BindingDigest(d.s.Incident, id, c.GetSha256(), p.BaseTree, p.ResultTree, d.s.Policy.Digest)},
		Patch:   p.Artefact, BaseCommit: c.GetBaseCommit(), BaseTree: p.BaseTree, ResultTree: p.ResultTree, Author: author,
		BugId: c.GetBugId(), Origin: originOf(c), FilesChanged: uint32(p.Files),
	})
	if old != nil {
		d.emit(&emergencyv1.PatchSuperseded{OldRevision: old.ID, NewRevision: id, Voids: d.s.voids(old)})
	}
	return nil
}

// superseded is the revision that a new one replaces. A second patch beside a current one is possible; which of the two
// goes on is then for the reviewers.
func (d *decision) superseded(id string) (*Revision, *Refusal) {
	if id == "" {
		return nil, nil
	}
	old, ok := d.s.Revision(id)
	if !ok {
		return nil, refuse(ReasonPatch, "there is no revision %s to replace", id)
	}
	if old.Superseded != "" {
		return nil, refuse(ReasonPatchRevisionStale, "%s was already replaced by %s", old.ID, old.Superseded).allow("RegisterPatch", old.Superseded, "replace %s instead", old.Superseded)
	}
	if a := d.s.ApplyOf(id); a != nil && a.Running() {
		return nil, refuse(ReasonApplyRunning, "%s is being applied on %s", id, a.Host).allow("BackOut", id, "wait for the agent's report, or back out")
	}
	return old, nil
}

// voids are the positions of everything decided on a revision: a new revision starts from nothing.
func (s *State) voids(r *Revision) []uint64 {
	var list []uint64
	for _, m := range []*Mark{markOfReview(r.First), markOfReview(r.Second)} {
		if m != nil {
			list = append(list, m.Position)
		}
	}
	if r.Transfer != nil {
		list = append(list, r.Transfer.Position)
	}
	if r.TestServer != nil {
		list = append(list, r.TestServer.Position)
	}
	for _, t := range r.Tests {
		list = append(list, t.Position)
	}
	if r.Forward != nil {
		list = append(list, r.Forward.Position)
	}
	for _, w := range s.Waivers {
		if w.Revision == r.ID {
			list = append(list, w.Position)
		}
	}
	sortPositions(list)
	return list
}

func markOfReview(r *Review) *Mark {
	if r == nil {
		return nil
	}
	return &r.Mark
}

func vetoFields(f *fields, c *emergencyv1.RaiseVetoRequest) {
	f.binding(c.GetBinding())
	f.reason(c.GetReason(), 10)
}

func vetoClaims(c *emergencyv1.RaiseVetoRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{claim("verdict", "veto"), claim("reason", c.GetReason())}
}

// decideRaiseVeto stops a revision at any time; after an apply has started it stops nothing and owes an answer (6, rule 1).
func decideRaiseVeto(d *decision, c *emergencyv1.RaiseVetoRequest) *Refusal {
	r, refusal := d.current(c.GetBinding())
	if refusal != nil {
		return refusal
	}
	if r.Author == d.person {
		return refuse(ReasonAuthorIsReviewer, "%s wrote %s", d.person, r.ID).allow("RegisterPatch", r.ID, "register a better revision, or ask %s", d.whoHas(roles(sa)))
	}
	return d.veto(r, c.GetReason())
}

func (d *decision) veto(r *Revision, reason string) *Refusal {
	for _, v := range d.s.OpenVetoes(r.ID) {
		if v.By == d.person {
			return refuse(ReasonVetoExists, "%s already has the open veto %s on %s", d.person, v.ID, r.ID)
		}
	}
	d.emit(&emergencyv1.VetoRaised{
		Veto: "V" + strconv.Itoa(len(d.s.Vetoes)+1), Binding: r.bind(), RaisedBy: d.person, Reason: d.seal(reason), AfterApplyStarted: d.s.ApplyOf(r.ID) != nil,
	})
	return nil
}

// noVeto refuses while a veto on the revision is open.
func (d *decision) noVeto(r *Revision) *Refusal {
	open := d.s.OpenVetoes(r.ID)
	if len(open) == 0 {
		return nil
	}
	refusal := refuse(ReasonVetoOpen, "%s is stopped by veto %s of %s", r.ID, open[0].ID, open[0].By)
	for _, v := range open {
		refusal.allow("WithdrawVeto", v.ID, "%s withdraws it", v.By).
			allow("OverruleVeto", v.ID, "overrule it, as a deviation; ask %s", d.whoHas(roles(al)))
	}
	return refusal.allow("RegisterPatch", r.ID, "a new revision answers it")
}

func (d *decision) openVeto(id string) (*Veto, *Refusal) {
	for i := range d.s.Vetoes {
		v := &d.s.Vetoes[i]
		if v.ID != id {
			continue
		}
		if v.State != VetoOpen {
			return nil, refuse(ReasonVetoClosed, "veto %s is %s", id, statusWord(Status(v.State)))
		}
		return v, nil
	}
	return nil, refuse(ReasonVetoUnknown, "there is no veto %s", id)
}

func withdrawFields(f *fields, c *emergencyv1.WithdrawVetoRequest) {
	f.word("veto", c.GetVeto())
	f.reason(c.GetReason(), 10)
}

func withdrawClaims(c *emergencyv1.WithdrawVetoRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{claim("veto", c.GetVeto()), claim("reason", c.GetReason())}
}

func decideWithdrawVeto(d *decision, c *emergencyv1.WithdrawVetoRequest) *Refusal {
	v, refusal := d.vetoOf(c.GetVeto())
	if refusal != nil {
		return refusal
	}
	if v.By != d.person {
		return refuse(ReasonNotVetoOwner, "veto %s was raised by %s", v.ID, v.By).allow("OverruleVeto", v.ID, "ask %s", d.whoHas(roles(al)))
	}
	if _, refusal := d.openVeto(v.ID); refusal != nil {
		return refusal
	}
	d.emit(&emergencyv1.VetoWithdrawn{Veto: v.ID, Reason: d.seal(c.GetReason())})
	return nil
}

func (d *decision) vetoOf(id string) (*Veto, *Refusal) {
	for i := range d.s.Vetoes {
		if d.s.Vetoes[i].ID == id {
			return &d.s.Vetoes[i], nil
		}
	}
	return nil, refuse(ReasonVetoUnknown, "there is no veto %s", id)
}

func overruleFields(f *fields, c *emergencyv1.OverruleVetoRequest) {
	f.word("veto", c.GetVeto())
	f.reason(c.GetReason(), 40)
}

func overruleClaims(c *emergencyv1.OverruleVetoRequest) []*emergencyv1.Claim {
	return []*emergencyv1.Claim{claim("veto", c.GetVeto()), claim("reason", c.GetReason())}
}

// decideOverruleVeto ends a veto against its owner's will; a deviation that only an arbitrator can judge (SP 7.4).
func decideOverruleVeto(d *decision, c *emergencyv1.OverruleVetoRequest) *Refusal {
	v, refusal := d.openVeto(c.GetVeto())
	if refusal != nil {
		return refusal
	}
	r, _ := d.s.Revision(v.Revision)
	if v.By == d.person || r != nil && (r.Author == d.person || r.By == d.person) {
		return refuse(ReasonSeparationOfDuty, "%s wrote or registered the patch, or raised the veto", d.person).under("4.3 OverruleVeto").
			allow("OverruleVeto", v.ID, "%s", d.another(al))
	}
	d.emit(&emergencyv1.VetoOverruled{Veto: v.ID, Reason: d.seal(c.GetReason())}, emergencyv1.Deviation_DEVIATION_VETO_OVERRULED)
	return nil
}
