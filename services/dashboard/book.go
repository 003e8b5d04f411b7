// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"context"
	"time"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// ReadReadiness tells who is on duty for each team, and when each was last reached.
func (s *Server) ReadReadiness(ctx context.Context, _ *dashboardv1.ReadReadinessRequest) (*dashboardv1.ReadReadinessResponse, error) {
	if _, err := s.recognise(ctx); err != nil {
		return nil, err
	}
	book, now := s.cfg.Incidents.Book(), s.cfg.Clock.Now()
	out := &dashboardv1.ReadReadinessResponse{}
	for _, team := range []emergencyv1.Team{
		emergencyv1.Team_TEAM_CRITICAL, emergencyv1.Team_TEAM_ASSESSMENT, emergencyv1.Team_TEAM_DEVELOPMENT, emergencyv1.Team_TEAM_TESTING,
	} {
		t := &dashboardv1.TeamReadiness{Team: team}
		for _, p := range book.OnDuty(team, now) {
			t.OnDuty = append(t.OnDuty, personReadiness(book, p, now))
		}
		out.Teams = append(out.Teams, t)
	}
	return out, nil
}

func personReadiness(book *rulebook.Book, person string, now time.Time) *dashboardv1.PersonReadiness {
	out := &dashboardv1.PersonReadiness{Person: person}
	var last time.Time
	for _, c := range book.Contacts(person) {
		out.Channels = append(out.Channels, c.GetChannel())
		if at := book.Reachability(person, c.GetChannel()).Reached; at.After(last) {
			last = at
		}
	}
	out.LastReachedAt, out.Stale = instant(last), now.Sub(last) > procedure.ReachedWithin
	return out
}

// ReadRuleBook returns policy, persons, roles and keys, now or as they were known at a time.
func (s *Server) ReadRuleBook(ctx context.Context, req *dashboardv1.ReadRuleBookRequest) (*dashboardv1.ReadRuleBookResponse, error) {
	if _, err := s.recognise(ctx); err != nil {
		return nil, err
	}
	book, at := s.cfg.Incidents.Book(), s.cfg.Clock.Now()
	if req.GetAt() != nil {
		at = req.GetAt().AsTime()
		var err error
		if book, err = s.records.BookAt(at); err != nil {
			return nil, err
		}
	}
	out := &dashboardv1.ReadRuleBookResponse{Position: book.Position}
	if p := book.PolicyInForce(at); p != nil {
		out.Policy, out.PolicyDigest = p.Document(), p.Digest
	}
	for _, p := range book.Persons() {
		ids := book.KeysOf(p, at)
		for _, k := range book.PasskeysOf(p, at) {
			ids = append(ids, k.GetKeyId())
		}
		out.Persons = append(out.Persons, &dashboardv1.DirectoryEntry{Person: p, Roles: book.Roles(p, at), KeyIds: ids})
	}
	for _, k := range book.Keys() {
		if k.Key.GetPerson() == "" && (k.RevokedAt.IsZero() || at.Before(k.RevokedAt)) {
			out.Systems = append(out.Systems, k.Key)
		}
	}
	return out, nil
}
