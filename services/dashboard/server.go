// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/publog"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// ReasonBehind refuses a reading that asked for a position which did not come within the call's time.
const ReasonBehind procedure.Reason = "BEHIND"

// recognise tells who calls, by the key of the connection and the rule book (G1).
func (s *Server) recognise(ctx context.Context) (*emergencyv1.Actor, error) {
	if _, err := s.running(); err != nil {
		return nil, err
	}
	caller, _ := identity.FromContext(ctx)
	actor, refusal := procedure.Recognise(s.cfg.Incidents.Book(), caller.KeyID, s.cfg.Clock.Now())
	if refusal != nil {
		return nil, refusal
	}
	return actor, nil
}

// WhoAmI tells how the caller is recognised.
func (s *Server) WhoAmI(ctx context.Context, _ *dashboardv1.WhoAmIRequest) (*dashboardv1.WhoAmIResponse, error) {
	a, err := s.recognise(ctx)
	if err != nil {
		return nil, err
	}
	return &dashboardv1.WhoAmIResponse{
		Person: a.GetPerson(), KeyId: a.GetKeyId(), Roles: s.cfg.Incidents.Book().Roles(a.GetPerson(), s.cfg.Clock.Now()),
		System: a.GetSystem(), SystemName: a.GetSystemName(), Development: s.cfg.Development,
	}, nil
}

// ListIncidents lists incidents, newest first. The pages sent are left out: ReadIncident has them.
func (s *Server) ListIncidents(ctx context.Context, req *dashboardv1.ListIncidentsRequest) (*dashboardv1.ListIncidentsResponse, error) {
	if _, err := s.recognise(ctx); err != nil {
		return nil, err
	}
	out, now := &dashboardv1.ListIncidentsResponse{}, s.cfg.Clock.Now()
	s.cfg.Incidents.Each(func(st *procedure.State) {
		if !req.GetOpenOnly() || st.Status == procedure.Open {
			inc := incidentOf(st, now)
			inc.Pages = nil
			out.Incidents = append(out.Incidents, inc)
		}
	})
	slices.SortStableFunc(out.GetIncidents(), func(a, b *dashboardv1.Incident) int {
		if d := b.GetDeclaredAt().AsTime().Compare(a.GetDeclaredAt().AsTime()); d != 0 {
			return d
		}
		return strings.Compare(b.GetId(), a.GetId())
	})
	return out, nil
}

// ReadIncident returns an incident's state, now or as it was.
func (s *Server) ReadIncident(ctx context.Context, req *dashboardv1.ReadIncidentRequest) (*dashboardv1.ReadIncidentResponse, error) {
	if _, err := s.recognise(ctx); err != nil {
		return nil, err
	}
	if err := s.waitFor(ctx, req.GetIncident(), max(req.GetAt(), req.GetAtLeast()), req.GetAtLeast() > 0); err != nil {
		return nil, err
	}
	if req.GetAt() > 0 {
		return s.incidentAt(req.GetIncident(), req.GetAt())
	}
	out, now := &dashboardv1.ReadIncidentResponse{}, s.cfg.Clock.Now()
	if !s.cfg.Incidents.View(req.GetIncident(), func(st *procedure.State) {
		out.Incident, out.Freshness = incidentOf(st, now), s.freshness(st.Position, st.RecordedAt)
	}) {
		return nil, noIncident(req.GetIncident())
	}
	return out, nil
}

// incidentAt folds the history up to a position, and judges deadlines as they stood then.
func (s *Server) incidentAt(id string, at uint64) (*dashboardv1.ReadIncidentResponse, error) {
	st, err := s.records.StateAt(id, at)
	if err != nil {
		return nil, err
	}
	if st == nil || !procedure.IsIncident(id) {
		return nil, noIncident(id)
	}
	return &dashboardv1.ReadIncidentResponse{Incident: incidentOf(st, st.RecordedAt), Freshness: s.freshness(st.Position, st.RecordedAt)}, nil
}

// waitFor waits until a position is here, so that a caller reads its own write; or only looks whether it is.
func (s *Server) waitFor(ctx context.Context, incident string, position uint64, wait bool) error {
	r, err := s.running()
	if err != nil {
		return err
	}
	have := r.Position(incident)
	if have >= position {
		return nil
	}
	if wait {
		if r.WaitFor(ctx, incident, position) == nil {
			return nil
		}
		have = r.Position(incident)
	} else if have == 0 {
		return noIncident(incident)
	}
	return &procedure.Refusal{
		Code: procedure.Aborted, Reason: ReasonBehind, Rule: "0.4",
		Message: fmt.Sprintf("position %d of %s is not here yet; the last one here is %d", position, incident, have),
		Allow:   []procedure.Allowance{{Subject: incident, Description: "ask again in a second, or for an earlier position"}},
	}
}

func noIncident(id string) *procedure.Refusal {
	return &procedure.Refusal{
		Code: procedure.NotFound, Reason: procedure.ReasonIncident, Rule: "G4", Message: fmt.Sprintf("there is no incident %.80q", id),
		Allow: []procedure.Allowance{{Description: "list the incidents and name one of them"}},
	}
}

func (s *Server) freshness(position uint64, recorded time.Time) *dashboardv1.Freshness {
	return &dashboardv1.Freshness{Position: position, RecordedAt: timestamppb.New(recorded), AnsweredAt: timestamppb.New(s.cfg.Clock.Now())}
}

// ReadTimeline returns what happened, in words.
func (s *Server) ReadTimeline(ctx context.Context, req *dashboardv1.ReadTimelineRequest) (*dashboardv1.ReadTimelineResponse, error) {
	if _, err := s.recognise(ctx); err != nil {
		return nil, err
	}
	last := s.timeline.Last(req.GetIncident())
	if last == 0 {
		return nil, noIncident(req.GetIncident())
	}
	end, _, err := s.timeline.Entries(req.GetIncident(), last, last)
	if err != nil {
		return nil, err
	}
	first, to := max(req.GetFrom(), 1), req.GetTo()
	if to == 0 || to > last {
		to = last
	}
	out := &dashboardv1.ReadTimelineResponse{Freshness: s.freshness(last, end[0].GetRecordedAt().AsTime())}
	if first <= to {
		if out.Entries, _, err = s.timeline.Entries(req.GetIncident(), first, to); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ReadOptions tells what the caller can do now, and why the rest is refused.
func (s *Server) ReadOptions(ctx context.Context, req *dashboardv1.ReadOptionsRequest) (*dashboardv1.ReadOptionsResponse, error) {
	a, err := s.recognise(ctx)
	if err != nil {
		return nil, err
	}
	var st *procedure.State
	if !s.cfg.Incidents.View(req.GetIncident(), func(live *procedure.State) { st = live.Clone() }) {
		return nil, noIncident(req.GetIncident())
	}
	out := &dashboardv1.ReadOptionsResponse{Freshness: s.freshness(st.Position, st.RecordedAt)}
	for _, o := range procedure.Options(st, s.env(a)) {
		out.Options = append(out.Options, optionOf(o))
	}
	return out, nil
}

func (s *Server) env(a *emergencyv1.Actor) procedure.Env {
	return procedure.Env{Now: s.cfg.Clock.Now(), Actor: procedure.Actor{KeyID: a.GetKeyId()}, Book: s.cfg.Incidents.Book()}
}

func optionOf(o procedure.Option) *dashboardv1.Option {
	out := &dashboardv1.Option{Command: o.Command, Subject: o.Subject, Allowed: o.Refusal == nil, Who: o.Who, Title: o.Title, Next: o.Next}
	if o.Refusal == nil {
		return out
	}
	out.Reason, out.Rule = string(o.Refusal.Reason), o.Refusal.Rule
	ways := make([]string, len(o.Refusal.Allow))
	for i, w := range o.Refusal.Allow {
		ways[i] = w.Description
	}
	out.WouldAllow = strings.Join(ways, "; or ")
	if out.GetWouldAllow() == "" {
		out.WouldAllow = o.Refusal.Message
	}
	return out
}

// ReadLog returns the public emergency log. The one RPC that needs no identity.
func (s *Server) ReadLog(_ context.Context, req *dashboardv1.ReadLogRequest) (*dashboardv1.ReadLogResponse, error) {
	if _, err := s.running(); err != nil {
		return nil, err
	}
	out := &dashboardv1.ReadLogResponse{Development: s.cfg.Development}
	for _, e := range s.log.Entries(originAsked(req)) {
		if req.GetIncident() == "" || req.GetIncident() == e.Incident {
			out.Entries = append(out.Entries, logEntryOf(e))
		}
	}
	return out, nil
}

// originAsked is the log that a request names, or that its incident is in.
func originAsked(req *dashboardv1.ReadLogRequest) publog.Origin {
	switch {
	case req.GetArchive():
		return publog.Archive
	case req.GetDrills():
		return publog.Drills
	}
	return publog.OriginOf(req.GetIncident())
}

func logEntryOf(e publog.Entry) *dashboardv1.LogEntry {
	out := &dashboardv1.LogEntry{
		Seq: e.Seq, Incident: e.Incident, Kind: e.Kind, At: timestamppb.New(e.At), Late: e.Late, Headline: e.Headline, Role: e.Role,
		Commitments: e.Commitments, EventHash: e.EventHash, Prev: e.Prev, Hash: e.Hash,
	}
	for _, f := range e.Fields {
		out.Fields = append(out.Fields, &dashboardv1.LogField{Name: f.Name, Value: f.Value})
	}
	return out
}
