// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/dashboard/view"
)

// WatchIncident sends the state whenever it changes, beginning with the present one. What happened while the client was slow
// comes in one message; without a change the present state comes again after Config.KeepAlive, so that a client knows that it
// still hears.
func (s *Server) WatchIncident(req *dashboardv1.WatchIncidentRequest, stream grpc.ServerStreamingServer[dashboardv1.WatchIncidentResponse]) error {
	ctx, sent := stream.Context(), uint64(0)
	for {
		reader, err := s.running()
		if err != nil {
			return err
		}
		changed := reader.Changed() // before looking, so that nothing that comes meanwhile is missed
		msg, err := s.watched(ctx, req.GetIncident(), sent)
		if err != nil {
			return err
		}
		if msg != nil {
			if err := stream.Send(msg); err != nil {
				return err
			}
			sent = msg.GetFreshness().GetPosition()
		}
		if err := s.pause(ctx, reader, changed, req.GetIncident(), sent); err != nil {
			return err
		}
	}
}

// watched is the next message: nil while the timeline does not reach as far as the state, which the next change tells.
// The caller is recognised each time, so a revoked key ends the stream.
func (s *Server) watched(ctx context.Context, id string, sent uint64) (*dashboardv1.WatchIncidentResponse, error) {
	if _, err := s.recognise(ctx); err != nil {
		return nil, err
	}
	out, now := &dashboardv1.WatchIncidentResponse{}, s.cfg.Clock.Now()
	if !s.cfg.Incidents.View(id, func(st *procedure.State) {
		out.Incident, out.Freshness = incidentOf(st, now), s.freshness(st.Position, st.RecordedAt)
	}) {
		return nil, noIncident(id)
	}
	if position := out.GetFreshness().GetPosition(); sent > 0 && sent < position {
		entries, _, err := s.timeline.Entries(id, sent+1, position)
		if err != nil {
			return nil, err
		}
		if uint64(len(entries)) < position-sent {
			return nil, nil
		}
		out.Entries = entries
	}
	return out, nil
}

// pause waits until the incident has changed, or for the keepalive.
func (s *Server) pause(ctx context.Context, reader *projection.Runner, changed <-chan struct{}, id string, sent uint64) error {
	alarm, stop := s.cfg.Clock.Alarm(s.cfg.Clock.Now().Add(s.cfg.KeepAlive))
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-alarm:
			return nil
		case <-changed:
		}
		changed = reader.Changed()
		if reader.Position(id) > sent {
			return nil
		}
	}
}

// ReadHistory sends an incident's records as they are stored, in order and without a gap, and what is appended later if the
// client stays.
func (s *Server) ReadHistory(req *dashboardv1.ReadHistoryRequest, stream grpc.ServerStreamingServer[dashboardv1.ReadHistoryResponse]) error {
	ctx, next := stream.Context(), req.GetFrom()
	for {
		if _, err := s.recognise(ctx); err != nil {
			return err
		}
		reader, err := s.running()
		if err != nil {
			return err
		}
		changed := reader.Changed()
		records, ok := s.records.Stored(req.GetIncident(), next)
		if !ok {
			return noIncident(req.GetIncident())
		}
		for _, rec := range records {
			if err := sendRecord(stream, rec); err != nil {
				return fmt.Errorf("stored record of %s up to %d: %w", req.GetIncident(), rec.Last, err)
			}
			next = rec.Last + 1
		}
		if !req.GetFollow() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// sendRecord only opens the envelope, which nobody signs; the record in it stays the bytes it is.
func sendRecord(stream grpc.ServerStreamingServer[dashboardv1.ReadHistoryResponse], rec view.Stored) error {
	signed := new(emergencyv1.SignedRecord)
	if err := proto.Unmarshal(rec.Signed, signed); err != nil {
		return err
	}
	return stream.Send(&dashboardv1.ReadHistoryResponse{Record: signed})
}

// dumpChunk is how many bytes of a dump go into one message.
const dumpChunk = 64 << 10

// DumpProjection sends a projection as text; after a rebuild from nothing, beside the running one, if asked.
func (s *Server) DumpProjection(req *dashboardv1.DumpProjectionRequest, stream grpc.ServerStreamingServer[dashboardv1.DumpProjectionResponse]) error {
	ctx := stream.Context()
	if _, err := s.recognise(ctx); err != nil {
		return err
	}
	running, fresh := s.all()
	list, err := named(running, req.GetName())
	if err != nil {
		return err
	}
	if req.GetRebuild() {
		if list, err = named(fresh, req.GetName()); err != nil {
			return err
		}
		if err := s.rebuilt(ctx, list); err != nil {
			return err
		}
	}
	// Into memory first: a projection that is being dumped takes no records, and the client may be slow.
	var b bytes.Buffer
	for _, p := range list {
		if err := dump(&b, p); err != nil {
			return err
		}
	}
	for chunk := range slices.Chunk(b.Bytes(), dumpChunk) {
		if err := stream.Send(&dashboardv1.DumpProjectionResponse{Chunk: chunk}); err != nil {
			return err
		}
	}
	return nil
}

func dump(w io.Writer, p projection.Projection) error {
	if _, err := fmt.Fprintf(w, "projection %s version %d\n", p.Name(), p.Version()); err != nil {
		return fmt.Errorf("dump %s: %w", p.Name(), err)
	}
	return p.Dump(w)
}

// named picks a projection by name, all if the name is empty.
func named(all []projection.Projection, name string) ([]projection.Projection, error) {
	if name == "" {
		return all, nil
	}
	names := make([]string, len(all))
	for i, p := range all {
		if p.Name() == name {
			return []projection.Projection{p}, nil
		}
		names[i] = p.Name()
	}
	return nil, &procedure.Refusal{
		Code: procedure.InvalidArgument, Reason: procedure.ReasonField, Rule: "G2", Message: fmt.Sprintf("there is no projection %.80q", name),
		Allow: []procedure.Allowance{{Subject: "name", Description: "name one of " + strings.Join(names, ", ") + ", or none for all"}},
	}
}

// rebuilt fills fresh projections from the store. One at a time: reading everything is the most expensive thing there is here.
func (s *Server) rebuilt(ctx context.Context, fresh []projection.Projection) error {
	select {
	case s.rebuild <- struct{}{}:
		defer func() { <-s.rebuild }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return projection.Rebuild(ctx, projection.Config{Store: s.cfg.Store, Keys: s.cfg.Keys, Log: s.cfg.Log}, fresh...)
}
