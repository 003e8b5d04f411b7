// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment/broker"
)

// FetchCredential certifies the subject's fresh key for the one use.
func (s *Server) FetchCredential(ctx context.Context, req *deploymentv1.FetchCredentialRequest) (*deploymentv1.FetchCredentialResponse, error) {
	if to, err := s.other(ctx, broker.Ref{Incident: req.GetIncident(), Grant: req.GetGrant()}); to != nil || err != nil {
		return handOn(ctx, to, err, req, (*sibling).FetchCredential)
	}
	if s.broker == nil {
		return nil, s.noConsole(ctx)
	}
	person, st, err := s.onIncident(ctx, req.GetIncident())
	if err != nil {
		return nil, err
	}
	book, err := s.Dispatch.Book(ctx)
	if err != nil {
		return nil, service.Retryable(err)
	}
	if no := procedure.MayFetchCredential(st, req.GetGrant(), person, book, s.Clock.Now()); no != nil {
		return nil, no
	}
	source := rpc.AddressOf(ctx) // which the credential is bound to
	if source == "" {
		return nil, errors.New("the call's address is not known")
	}
	c, err := s.broker.Credential(ctx, broker.Ref{Incident: req.GetIncident(), Grant: req.GetGrant()}, person, req.GetPublicKey(), source)
	var no *broker.Refusal
	if errors.As(err, &no) {
		return nil, refused(procedure.FailedPrecondition, procedure.Reason(no.Reason), "4.4 Connect", no.Text, "look at the grant: epatch status")
	}
	if err != nil {
		return nil, err
	}
	return &deploymentv1.FetchCredentialResponse{
		Certificate: c.Certificate, Login: c.Login, Address: c.Address, KnownHosts: c.KnownHosts, ValidUntil: timestamppb.New(c.NotAfter),
	}, nil
}

// onIncident is the caller as a person, and the incident.
func (s *Server) onIncident(ctx context.Context, incident string) (string, *procedure.State, error) {
	person, err := s.person(ctx)
	if err != nil {
		return "", nil, err
	}
	st, err := s.Dispatch.State(ctx, incident)
	if err != nil {
		return "", nil, service.Retryable(err)
	}
	if st.Status == procedure.Absent {
		return "", nil, refused(procedure.NotFound, procedure.ReasonIncident, "G4", fmt.Sprintf("there is no incident %.40q", incident), "name an incident such as e20261124.1")
	}
	return person, st, nil
}

// Watch shows a session from its first byte.
func (s *Server) Watch(stream grpc.BidiStreamingServer[deploymentv1.WatchRequest, deploymentv1.WatchResponse]) error {
	if s.broker == nil && len(s.siblings) == 0 {
		return s.noConsole(stream.Context())
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	if _, _, err := s.recognised(ctx); err != nil { // before a stranger is waited for
		return err
	}
	first, err := stream.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return refused(procedure.InvalidArgument, procedure.ReasonField, "G2", "the first message of a watch says which session", "send a hello")
	}
	ref := broker.Ref{Incident: hello.GetIncident(), Grant: hello.GetGrant()}
	to, err := s.other(ctx, ref)
	if err != nil {
		return err
	}
	if to != nil {
		return to.watch(ctx, first, stream, cancel)
	}
	if s.broker == nil {
		return s.noConsole(ctx)
	}
	person, mode, err := s.watching(ctx, hello)
	if err != nil {
		return err
	}
	said := deploymentv1.WatchMode_WATCH_MODE_OBSERVER
	if mode == broker.ModeWatcher {
		said = deploymentv1.WatchMode_WATCH_MODE_WATCHER
	}
	w, err := s.broker.Watch(ctx, ref, person, mode)
	if err != nil {
		return consoleError("4.4 ArmWatch", err)
	}
	defer w.Close()
	if err := stream.Send(&deploymentv1.WatchResponse{Message: &deploymentv1.WatchResponse_Welcome{Welcome: &deploymentv1.WatchWelcome{
		Mode: said, RenewEveryMs: uint32(renewEvery.Milliseconds()), Columns: 80, Rows: 24,
	}}}); err != nil {
		return err
	}
	go renewals(stream, w, mode, cancel)
	return s.show(ctx, stream, w, ref)
}

// watching is who watches, and as what: who calls, or whom a service names that shows the session to somebody. Through a service
// nobody counts as the watcher without an own signature, which is taken once.
func (s *Server) watching(ctx context.Context, hello *deploymentv1.WatchHello) (string, broker.Mode, error) {
	caller, book, err := s.recognised(ctx)
	if err != nil {
		return "", "", err
	}
	person, through := caller.GetPerson(), caller.GetSystem() == emergencyv1.SystemKind_SYSTEM_KIND_SERVICE
	switch {
	case through:
		person = hello.GetPerson()
	case person == "" || hello.GetPerson() != "" && hello.GetPerson() != person:
		return "", "", refused(procedure.PermissionDenied, procedure.ReasonRole, "2.1, OB", "only a service watches for somebody else", "connect with your own certificate, and name nobody")
	}
	st, err := s.Dispatch.State(ctx, hello.GetIncident())
	if err != nil {
		return "", "", service.Retryable(err)
	}
	if st.Status == procedure.Absent {
		return "", "", refused(procedure.NotFound, procedure.ReasonIncident, "G4", fmt.Sprintf("there is no incident %.40q", hello.GetIncident()), "name an incident such as e20261124.1")
	}
	watcher, no := procedure.MayWatch(st, hello.GetGrant(), person, book, s.Clock.Now())
	if no != nil {
		return "", "", no
	}
	if !watcher || hello.GetObserve() {
		return person, broker.ModeObserver, nil
	}
	if through {
		id, until, no := procedure.MayWatchThrough(st, hello.GetGrant(), person, hello.GetApproval(), book, s.Clock.Now())
		if no != nil {
			return "", "", no
		}
		if !s.watches.take(person+" "+id, until, s.Clock.Now()) {
			return "", "", refused(procedure.FailedPrecondition, procedure.ReasonSignature, "4.4 ArmWatch", "that signature has opened a watch before", "sign again; each watch needs a signature of its own")
		}
	}
	return person, broker.ModeWatcher, nil
}

// taken are the signatures that have opened a watch, for as long as they would count. A restart forgets them, and has ended each
// session by then.
type taken struct {
	mu  sync.Mutex
	ids map[string]time.Time
}

// take returns false for what was taken before.
func (t *taken) take(id string, until, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ids == nil {
		t.ids = map[string]time.Time{}
	}
	for old, end := range t.ids {
		if now.After(end) {
			delete(t.ids, old)
		}
	}
	if _, twice := t.ids[id]; twice {
		return false
	}
	t.ids[id] = until
	return true
}

// consoleError is the broker's refusal as a rule's, under the clause of what was wanted.
func consoleError(clause string, err error) error {
	var no *broker.Refusal
	if errors.As(err, &no) {
		return refused(procedure.FailedPrecondition, procedure.Reason(no.Reason), clause, no.Text, "look at the grant: epatch status")
	}
	return err
}

// renewals takes the client's signs of life until it goes.
func renewals(stream grpc.BidiStreamingServer[deploymentv1.WatchRequest, deploymentv1.WatchResponse], w *broker.Watcher, mode broker.Mode, end context.CancelCauseFunc) {
	for {
		m, err := stream.Recv()
		if err != nil {
			end(err)
			return
		}
		r := m.GetRenewal()
		if r == nil {
			end(refused(procedure.InvalidArgument, procedure.ReasonField, "G2", "after the hello a watch sends renewals", "send a renewal"))
			return
		}
		err = w.Ack(int64(r.GetRendered()))
		if err == nil && mode == broker.ModeWatcher {
			err = w.Renew(r.GetHidden())
		}
		if over(err) {
			continue // which the stream itself is about to tell, with the rest of the session
		}
		if err != nil {
			end(consoleError("4.4 ArmWatch", err))
			return
		}
	}
}

// over is whether an error says that the session has ended.
func over(err error) bool {
	var no *broker.Refusal
	return errors.As(err, &no) && no.Reason == broker.ReasonGrantState
}

// show sends what happens, and how the session stands at least each second.
func (s *Server) show(ctx context.Context, stream grpc.BidiStreamingServer[deploymentv1.WatchRequest, deploymentv1.WatchResponse], w *broker.Watcher, ref broker.Ref) error {
	events, failed := make(chan broker.Event), make(chan error, 1)
	go func() {
		for {
			e, err := w.Next(ctx)
			if err != nil {
				failed <- err
				return
			}
			select {
			case events <- e:
			case <-ctx.Done():
				failed <- context.Cause(ctx)
				return
			}
		}
	}()
	v := &view{stream: stream, s: s, ref: ref}
	for {
		beat, stop := s.Clock.Alarm(s.Clock.Now().Add(tellEvery))
		var err error
		select {
		case e := <-events:
			err = v.tell(ctx, e)
		case err = <-failed:
			stop()
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			if errors.Is(err, io.EOF) { // of the session, or the client has said that no more comes from it
				return nil
			}
			return consoleError("4.4 ArmWatch", err)
		case <-beat:
			err = v.state(ctx)
		}
		stop()
		if err != nil {
			return err
		}
	}
}

// view is what one client has been told.
type view struct {
	stream grpc.BidiStreamingServer[deploymentv1.WatchRequest, deploymentv1.WatchResponse]
	s      *Server
	ref    broker.Ref
	began  time.Time
	frames uint64
	status broker.Status
	roster []broker.Person
}

func (v *view) tell(ctx context.Context, e broker.Event) error {
	for _, f := range e.Frames {
		if err := v.frame(f); err != nil {
			return err
		}
	}
	if e.Roster != nil {
		v.roster = e.Roster
	}
	if e.Status != nil {
		v.status = *e.Status
	}
	if e.Status == nil && e.Roster == nil && e.Ending == nil {
		return nil
	}
	return v.state(ctx)
}

// frame sends a frame of the recording; acknowledgements are of no interest to who gave them.
func (v *view) frame(f broker.Frame) error {
	v.frames++
	if v.began.IsZero() {
		v.began = f.At
	}
	out := &deploymentv1.WatchFrame{Frame: v.frames, AtMs: f.At.Sub(v.began).Milliseconds(), OutputOffset: uint64(f.Offset)}
	switch b := f.Body.(type) {
	case recording.Output:
		out.Kind, out.Data = deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_OUTPUT, b.Data
	case recording.Input:
		out.Kind, out.Data = deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_INPUT, []byte(b.Text)
	case recording.Typed:
		out.Kind, out.Notice = deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_INPUT, recording.Describe(b)
	case recording.Resize:
		out.Kind, out.Columns, out.Rows = deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_RESIZE, uint32(b.Cols), uint32(b.Rows)
	case recording.Ack:
		return nil
	default:
		out.Kind, out.Notice = deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_NOTICE, recording.Describe(b)
	}
	return v.stream.Send(&deploymentv1.WatchResponse{Message: &deploymentv1.WatchResponse_Frame{Frame: out}})
}

// state sends how the session stands.
func (v *view) state(ctx context.Context) error {
	if st, ok := v.s.broker.Status(v.ref); ok {
		v.status = st
	}
	out := &deploymentv1.WatchState{
		State: stateName(v.status), Cause: causeOf(v.status.Cause), InputOpen: v.status.State == broker.StateLive && v.status.Present && !v.status.Silent, InputDiscarded: uint64(v.status.Discarded),
	}
	if st, err := v.s.Dispatch.State(ctx, v.ref.Incident); err == nil {
		if g, ok := st.Grant(v.ref.Grant); ok {
			if g.Armed.Position > 0 {
				out.PresenceUntil = timestamppb.New(st.PresenceUntil(g))
			}
			out.EndsAt = timestamppb.New(g.EndsBy())
			out.Persons = append(out.Persons, &deploymentv1.WatchPerson{Person: g.Subject, Part: "subject"})
		}
	}
	if v.status.State == broker.StateFrozen {
		out.GraceUntil = timestamppb.New(v.status.Ends)
	}
	for _, p := range v.roster {
		out.Persons = append(out.Persons, &deploymentv1.WatchPerson{Person: p.ID, Part: string(p.Mode)})
	}
	return v.stream.Send(&deploymentv1.WatchResponse{Message: &deploymentv1.WatchResponse_State{State: out}})
}
