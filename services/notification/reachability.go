// SPDX-License-Identifier: Apache-2.0

package notification

import (
	"context"
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/service"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Who is reached, and on which channel, is learned from call-outs, those of drills included: whoever answers by the link of a
// page was reached on its channel, and a page that no channel could deliver did not reach anybody (procedure.md 4.6).

// reachedAgain is for how long a success is not written down again: the rule book is to say who can be reached, not to count.
const reachedAgain = 24 * time.Hour

// failedPage records that a page did not reach its person.
func (s *Server) failedPage(ctx context.Context, rec *projection.Record, e projection.Event, p *emergencyv1.DeliveryReported) []effect.Effect {
	if p.GetState() != emergencyv1.DeliveryState_DELIVERY_STATE_FAILED {
		return nil
	}
	return s.learned(ctx, rec, e, func(pg procedure.Page) bool { return pg.ID == p.GetPage() }, false)
}

// answeredByLink records that a person was reached, if the answer came by the link of a page.
func (s *Server) answeredByLink(ctx context.Context, rec *projection.Record, e projection.Event) []effect.Effect {
	request, is := strings.CutPrefix(rec.Record.GetRequestId(), linkPrefix)
	end := strings.LastIndexByte(request, '.')
	if !is || end < 0 {
		return nil
	}
	who := rec.Record.GetActor().GetPerson()
	return s.learned(ctx, rec, e, func(pg procedure.Page) bool { return linkWord(pg.ID) == request[:end] && pg.Person == who }, true)
}

func (s *Server) learned(ctx context.Context, rec *projection.Record, e projection.Event, is func(procedure.Page) bool, reached bool) []effect.Effect {
	st, ok := s.stateOf(ctx, rec)
	if !ok {
		return nil
	}
	i := slices.IndexFunc(st.Pages, is)
	if i < 0 {
		return nil
	}
	page := st.Pages[i]
	return []effect.Effect{{Key: rec.ID(e) + "/reachability", Repeatable: true, Run: func(ctx context.Context) error {
		if s.known(page.Person, page.Channel, reached) {
			return nil
		}
		meta := service.FollowMeta(rec, e, "reachability")
		meta.Incident = procedure.RuleBook
		cmd := &emergencyv1.RecordReachabilityRequest{Meta: meta, Person: page.Person, Channel: page.Channel, Reached: reached}
		_, err := s.Follow(ctx, cmd, rec, e, s.System(emergencyv1.SystemKind_SYSTEM_KIND_MAILER), procedure.Facts{})
		return unlessRefused(err)
	}}}
}

// known tells whether the rule book says it already: a channel that fails each time is written down once.
func (s *Server) known(person, channel string, reached bool) bool {
	r := s.Incidents.Book().Reachability(person, channel)
	if reached {
		return r.Failed.IsZero() && !r.Reached.IsZero() && s.Clock.Now().Sub(r.Reached) < reachedAgain
	}
	return !r.Failed.IsZero()
}
