// SPDX-License-Identifier: Apache-2.0

package procedure

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/rulebook"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// What others check about an access before they act on it: the agent on the host, on a history that it has verified itself;
// the broker, before it certifies a key or shows a session; and every reader of a record.

// AccessGate is what the agent on a host checks before it lets the key of a session in: the one use of the credential is
// recorded and recent, two persons declared, a critical admin granted, another person than the subject watches and has just
// confirmed it, and nothing has ended it.
func AccessGate(s *State, grant, host string, book *rulebook.Book, now time.Time) *Refusal {
	d, g, refusal := onHost(s, grant, host, book, now)
	if refusal != nil {
		return refusal
	}
	if g.State != GrantWatcherReady || g.Consumed.Position == 0 {
		return d.grantState(g)
	}
	// Whoever shows an old history to an agent that never saw it gets nothing by it.
	if valid := s.Policy.Duration("grant.first_use"); now.Sub(g.Consumed.At) > valid {
		return refuse(ReasonGrantExpired, "the credential of %s was used at %s, more than %s ago; nothing is opened for it any more", grant, stamp(g.Consumed.At), valid)
	}
	return d.seenBy(g)
}

// SessionGate is what the agent checks before it lets a frozen session go on: it is live, on this host, and watched.
func SessionGate(s *State, grant, host string, book *rulebook.Book, now time.Time) *Refusal {
	d, g, refusal := onHost(s, grant, host, book, now)
	if refusal != nil {
		return refusal
	}
	if g.State != GrantLive || now.After(g.EndsBy()) {
		return d.grantState(g)
	}
	return d.seenBy(g)
}

func onHost(s *State, grant, host string, book *rulebook.Book, now time.Time) (*decision, *Grant, *Refusal) {
	d := &decision{s: s, env: Env{Owner: OwnerDeployment, Now: now, Book: book}, row: mustRow("Connect"), at: now}
	g, refusal := d.grantOf(grant)
	switch {
	case refusal != nil:
		return nil, nil, refusal
	case s.Policy == nil || s.Host() != host || g.Host != host:
		return nil, nil, refuse(ReasonDrillBoundary, "grant %s is for host %s, this is %s", grant, g.Host, host)
	}
	return d, g, d.strategy3()
}

// seenBy checks the persons, over what was recorded: whoever decided, these are different people with the right roles.
func (d *decision) seenBy(g *Grant) *Refusal {
	switch {
	case g.Subject == g.Watcher, g.Subject == g.Granter, g.Subject == g.Named:
		return subjectIsWatcher("%s is subject of %s and watches or granted it", g.Subject, g.ID)
	case d.s.permits(g, g.Subject):
		return subjectIsWatcher("%s is subject of %s and permitted it", g.Subject, g.ID)
	case !d.holds(g.Subject, sa) && !d.holds(g.Subject, se):
		return refuse(ReasonSubjectRole, "%s is neither software assessor nor software engineer", g.Subject)
	}
	d.hypothetical = true // the lease is the broker's to know
	return d.watched(g)
}

// MayFetchCredential judges whether a person may have a key certified for a grant: its subject alone, while it waits for its
// one use. It opens nothing: that is Connect's to decide.
func MayFetchCredential(s *State, grant, person string, book *rulebook.Book, now time.Time) *Refusal {
	d := &decision{s: s, env: Env{Owner: OwnerDeployment, Now: now, Book: book}, row: mustRow("Connect"), at: now, person: person}
	g, refusal := d.grantOf(grant)
	switch {
	case refusal != nil:
		return refusal
	case person != g.Subject:
		return refuse(ReasonNotSubject, "%s is for %s", g.ID, g.Subject).allow("GrantAccess", "", "a grant names the person who may connect")
	case !book.Has(person, sa, now) && !book.Has(person, se, now):
		return refuse(ReasonSubjectRole, "%s is neither software assessor nor software engineer any more", person)
	case g.Over() || g.Disabled.Position > 0:
		return d.grantState(g)
	case g.Consumed.Position > 0:
		return refuse(ReasonCredentialConsumed, "the credential of %s was used at %s", g.ID, stamp(g.Consumed.At)).allow("GrantAccess", "", "a new grant is needed; this one is for a single connection")
	case now.After(g.FirstUseUntil):
		return refuse(ReasonGrantExpired, "%s had to be used by %s", g.ID, stamp(g.FirstUseUntil)).allow("GrantAccess", "", "a new grant is needed")
	}
	return nil
}

// MayWatch judges whether a person may see a session, and whether as the one who counts: its watcher. Other critical admins
// and arbitrators look on. Never the subject, who sees the session anyway.
func MayWatch(s *State, grant, person string, book *rulebook.Book, now time.Time) (watcher bool, _ *Refusal) {
	d := &decision{s: s, env: Env{Owner: OwnerDeployment, Now: now, Book: book}, row: mustRow("ArmWatch"), at: now, person: person}
	g, refusal := d.grantOf(grant)
	switch {
	case refusal != nil:
		return false, refusal
	case person == g.Subject:
		return false, subjectIsWatcher("%s is the subject of %s and cannot watch it", person, g.ID).allow("ArmWatch", g.ID, "%s", d.another(ca))
	case book.Has(person, ca, now):
		return person == g.Watcher, nil
	case book.Has(person, ar, now):
		return false, nil
	}
	return false, refuse(ReasonRole, "sessions are watched by critical admins and arbitrators").under("2.1, OB").allow("", "", "ask %s", d.whoHas(roles(ca, ar)))
}

// verifyConsole checks what the i-th event of a record says of an access against the state before it, for a reader who
// believes no service.
func (s *State) verifyConsole(rec *emergencyv1.Record, i int, payload proto.Message, book *rulebook.Book) error {
	if s.Policy == nil {
		return nil
	}
	at := rec.GetRecordedAt().AsTime()
	if row := mustRow(rec.GetCommand()); row.live && rec.GetLate() {
		return fmt.Errorf("%s is recorded to have happened while the system was away", row.name)
	}
	marked := func(must bool, v emergencyv1.Deviation) error {
		if must && !slices.Contains(rec.GetEvents()[i].GetDeviations(), v) {
			return fmt.Errorf("the deviation %q is not recorded", deviationWord(v))
		}
		return nil
	}
	switch e := payload.(type) {
	case *emergencyv1.AccessPermitted:
		return s.atMost("a permission", e.GetValidUntil().AsTime().Sub(at), "lead_permission.valid")
	case *emergencyv1.AccessGrantIssued:
		return errors.Join(s.verifyGrant(rec, e, book),
			marked(e.GetPermission() == 0, emergencyv1.Deviation_DEVIATION_NO_LEAD_PERMISSION),
			marked(!book.Has(e.GetSubject(), sa, at), emergencyv1.Deviation_DEVIATION_SUBJECT_NOT_ASSESSOR))
	case *emergencyv1.RoleAssumed:
		return marked(true, emergencyv1.Deviation_DEVIATION_ROLE_ASSUMPTION)
	case *emergencyv1.WatchArmed:
		if g, ok := s.Grant(e.GetGrant()); !ok || g.Subject == e.GetWatcher() {
			return fmt.Errorf("%s is recorded to watch %s, where the subject cannot", e.GetWatcher(), e.GetGrant())
		}
	case *emergencyv1.CredentialConsumed:
		return s.verifyUse(rec, e)
	case *emergencyv1.ConnectionOpened:
		return marked(!e.GetAgent(), emergencyv1.Deviation_DEVIATION_FREEZE_NOT_AVAILABLE)
	case *emergencyv1.SessionExtended:
		return s.atMost("an extension", time.Duration(e.GetMinutes())*time.Minute, "session.extension")
	case *emergencyv1.SessionResumed:
		if g, ok := s.Grant(e.GetGrant()); !ok || g.State != GrantFrozen || rec.GetActor().GetPerson() != g.Watcher || g.Armed.Position < g.Frozen.Position {
			return fmt.Errorf("%s goes on without its watcher", e.GetGrant())
		}
	case *emergencyv1.RecordingPlayed:
		return s.verifyPlayed(rec.GetActor(), e, book, at)
	}
	return nil
}

// verifyPlayed: who plays a recording is the actor, or whom a service names, and may see it.
func (s *State) verifyPlayed(by *emergencyv1.Actor, e *emergencyv1.RecordingPlayed, book *rulebook.Book, at time.Time) error {
	if by.GetPerson() != e.GetPerson() && (by.GetPerson() != "" || by.GetSystem() != emergencyv1.SystemKind_SYSTEM_KIND_SERVICE) {
		return fmt.Errorf("PlayRecording by %s is recorded as %s's", by.GetPerson(), e.GetPerson())
	}
	if refusal := MayRead(s, book, e.GetPerson(), at, RecordingEvent, RecordingField()); refusal != nil {
		return fmt.Errorf("the recording of %s is recorded to be played for %s: %w", e.GetGrant(), e.GetPerson(), refusal)
	}
	return nil
}

func (s *State) atMost(what string, d time.Duration, key string) error {
	if limit := s.Policy.Duration(key); d > limit {
		return fmt.Errorf("%s of %s is more than the policy's %s", what, d, limit)
	}
	return nil
}

// verifyGrant: under strategy 3, to another person than watcher and granter, within the policy, and with the lead's permission
// or the proof that no lead could be reached.
func (s *State) verifyGrant(rec *emergencyv1.Record, e *emergencyv1.AccessGrantIssued, book *rulebook.Book) error {
	at, id := rec.GetRecordedAt().AsTime(), e.GetGrant()
	switch p := e.GetPermission(); {
	case s.Strategy != 3:
		return fmt.Errorf("%s is granted under strategy %d", id, s.Strategy)
	case e.GetSubject() == e.GetWatcher() || e.GetSubject() == rec.GetActor().GetPerson():
		return fmt.Errorf("%s is granted to %s, who watches or grants it", id, e.GetSubject())
	case s.OpenGrant() != nil:
		return fmt.Errorf("%s is granted while %s is not proven unusable", id, s.OpenGrant().ID)
	case p == 0:
		d := &decision{s: s, env: Env{Now: at, Book: book}, at: at}
		if missing := d.leadReachable(); missing != "" {
			return fmt.Errorf("%s is granted without a permission, and %s", id, missing)
		}
	case !slices.ContainsFunc(s.Permissions, func(x Permission) bool {
		return x.Position == p && x.Subject == e.GetSubject() && !at.After(x.ValidUntil)
	}):
		return fmt.Errorf("%s names a permission that is none of %s, or no longer valid", id, e.GetSubject())
	}
	return errors.Join(s.atMost("a first use", e.GetFirstUseUntil().AsTime().Sub(at), "grant.first_use"),
		s.atMost("a session", time.Duration(e.GetMaxMinutes())*time.Minute, "session.max"))
}

// verifyUse: once, by the subject, in time.
func (s *State) verifyUse(rec *emergencyv1.Record, e *emergencyv1.CredentialConsumed) error {
	g, ok := s.Grant(e.GetGrant())
	switch {
	case !ok || !g.unused():
		return fmt.Errorf("the credential of %s is used, and it was not there to be used", e.GetGrant())
	case rec.GetActor().GetPerson() != g.Subject:
		return fmt.Errorf("the credential of %s is used by %s, it is for %s", g.ID, rec.GetActor().GetPerson(), g.Subject)
	case rec.GetRecordedAt().AsTime().After(g.FirstUseUntil):
		return fmt.Errorf("the credential of %s is used after %s", g.ID, stamp(g.FirstUseUntil))
	}
	return nil
}

// underCommand lists the commands under which an event of the console may be recorded; nil for any other event.
func underCommand(payload proto.Message) []string {
	switch payload.(type) {
	case *emergencyv1.AccessPermitted:
		return []string{"PermitAccess"}
	case *emergencyv1.AccessGrantIssued, *emergencyv1.RoleAssumed:
		return []string{"GrantAccess"}
	case *emergencyv1.WatchArmed:
		return []string{"ArmWatch"}
	case *emergencyv1.CredentialConsumed:
		return []string{"Connect"}
	case *emergencyv1.ConnectionOpened:
		return []string{"ReportConnection"}
	case *emergencyv1.SessionResumed:
		return []string{"Resume"}
	case *emergencyv1.SessionExtended:
		return []string{"ExtendSession"}
	case *emergencyv1.RecordingPlayed:
		return []string{"PlayRecording"}
	}
	return nil
}

// expectConsole compares the claims that an event of the console repeats.
func expectConsole(payload proto.Message, is, isOrEmpty func(name, value string) error) error {
	switch e := payload.(type) {
	case *emergencyv1.AccessPermitted:
		return is("subject", e.GetSubject())
	case *emergencyv1.AccessGrantIssued:
		for _, c := range [][2]string{{"watcher", e.GetWatcher()}, {"host", e.GetHost()}, {"max_minutes", minutesText(e.GetMaxMinutes())}} {
			if err := isOrEmpty(c[0], c[1]); err != nil {
				return err
			}
		}
		return is("subject", e.GetSubject())
	case *emergencyv1.WatchArmed:
		return is("grant", e.GetGrant())
	}
	return nil
}
