// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/rulebook"
	"cacert.org/emergency/pkg/service"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment/broker"
)

// The commands on a session. What gives access is recorded first and done then; what lessens it is done first, for whoever the
// rules let do it, and recorded then, with what became of it.

type grantCommand interface {
	procedure.Command
	GetGrant() string
}

func refOf(c grantCommand) broker.Ref {
	return broker.Ref{Incident: c.GetMeta().GetIncident(), Grant: c.GetGrant()}
}

// giver is the person who gives a command (G1), or the system, by its name. Who may not give it is refused by the rules, and that is recorded.
func (s *Server) giver(ctx context.Context, cmd procedure.Command) (string, error) {
	actor, err := s.Giver(ctx, cmd)
	if _, refused := rpc.RefusalOf(err); refused {
		_, err = s.Do(ctx, cmd, procedure.Facts{})
	}
	if err == nil && actor.GetPerson() == "" {
		err = s.allowed(ctx, cmd)
	}
	return cmp.Or(actor.GetPerson(), actor.GetSystemName()), err
}

// recognised is who calls, by the rule book on its true head (G1), for what is no command.
func (s *Server) recognised(ctx context.Context) (*emergencyv1.Actor, *rulebook.Book, error) {
	book, err := s.Dispatch.Book(ctx)
	if err != nil {
		return nil, nil, service.Retryable(err)
	}
	actor, no := procedure.Recognise(book, service.Caller(ctx).KeyID, s.Clock.Now())
	if no != nil {
		return nil, nil, no
	}
	return actor, book, nil
}

// person is whose connection it is, for what is a person's own.
func (s *Server) person(ctx context.Context) (string, error) {
	actor, _, err := s.recognised(ctx)
	if err == nil && actor.GetPerson() == "" {
		err = refused(procedure.PermissionDenied, procedure.ReasonRole, "4.4 Connect", "a credential is handed to a person, and the connection's key is none's", "connect with your own certificate")
	}
	return actor.GetPerson(), err
}

// allowed asks the rules whether the command would be accepted as things are, without doing anything.
func (s *Server) allowed(ctx context.Context, cmd procedure.Command) error {
	st, err := s.Dispatch.State(ctx, cmd.GetMeta().GetIncident())
	if err != nil {
		return service.Retryable(err)
	}
	book, err := s.Dispatch.Book(ctx)
	if err != nil {
		return service.Retryable(err)
	}
	_, no, err := procedure.Decide(st, cmd, procedure.Env{Owner: s.Owner, Now: s.Clock.Now(), Actor: service.Caller(ctx), Book: book, Salt: make([]byte, 32)})
	if err != nil {
		return err
	}
	if no != nil {
		_, err := s.Do(ctx, cmd, procedure.Facts{}) // decided, and recorded as refused, on the history as it is
		return err
	}
	return nil
}

func consoleFacts(x *procedure.ConsoleFacts) procedure.Facts { return procedure.Facts{Console: x} }

// counters are what the broker knows of the session.
func (s *Server) counters(ref broker.Ref) *procedure.ConsoleFacts {
	x := &procedure.ConsoleFacts{}
	if s.broker == nil {
		return x
	}
	x.RecorderReady, x.Anchored = s.broker.Ready() == nil, true
	if st, ok := s.broker.Status(ref); ok {
		x.LeaseAlive, x.OutputOffset, x.InputDiscarded = st.Present, uint64(st.Offset), uint64(st.Discarded)
		if st.State == broker.StateLive || st.State == broker.StateFrozen {
			x.RecorderReady, x.Anchored = st.Recorder, st.Anchored
		}
	}
	return x
}

// ArmWatch confirms that the watcher watches.
func (s *Server) ArmWatch(ctx context.Context, req *emergencyv1.ArmWatchRequest) (*emergencyv1.ArmWatchResponse, error) {
	if to, err := s.other(ctx, refOf(req)); to != nil || err != nil {
		return handOn(ctx, to, err, req, (*sibling).ArmWatch)
	}
	if s.broker == nil {
		return nil, s.noConsole(ctx)
	}
	person, err := s.giver(ctx, req)
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, consoleFacts(s.counters(refOf(req))))
	if err == nil {
		s.broker.Armed(refOf(req), person, c.GetRecordedAt().AsTime())
	}
	return &emergencyv1.ArmWatchResponse{Committed: c}, err
}

// Freeze freezes a session at once.
func (s *Server) Freeze(ctx context.Context, req *emergencyv1.FreezeRequest) (*emergencyv1.FreezeResponse, error) {
	res, absent, err := lessen(ctx, s, refOf(req), freezeElsewhere, req, (*sibling).Freeze)
	if res != nil || err != nil {
		return res, err
	}
	if s.broker == nil {
		return nil, s.noConsole(ctx)
	}
	if err := s.allowed(ctx, req); err != nil {
		return nil, err
	}
	if absent != nil {
		return s.freezeWithout(ctx, req)
	}
	var c *emergencyv1.Committed
	_, err = s.broker.Freeze(ctx, refOf(req), broker.CauseWatcher, func(ctx context.Context, f broker.Freezing) (err error) {
		c, err = s.Do(ctx, req, consoleFacts(consoleRules{s, nil}.frozen(refOf(req), f)))
		return told(err)
	})
	c, err = s.untold(ctx, req, c, err)
	return &emergencyv1.FreezeResponse{Committed: c}, err
}

// untold gives a command that the broker had no reason to record to the rules all the same, whose answer it then is.
func (s *Server) untold(ctx context.Context, cmd procedure.Command, c *emergencyv1.Committed, err error) (*emergencyv1.Committed, error) {
	if err == nil && c != nil {
		return c, nil
	}
	again, refusal := s.Do(ctx, cmd, consoleFacts(&procedure.ConsoleFacts{}))
	if refusal != nil || again != nil {
		return again, refusal
	}
	return nil, err
}

// Resume ends a freeze.
func (s *Server) Resume(ctx context.Context, req *emergencyv1.ResumeRequest) (*emergencyv1.ResumeResponse, error) {
	if to, err := s.other(ctx, refOf(req)); to != nil || err != nil {
		return handOn(ctx, to, err, req, (*sibling).Resume)
	}
	if s.broker == nil {
		return nil, s.noConsole(ctx)
	}
	person, err := s.giver(ctx, req)
	if err != nil {
		return nil, err
	}
	var c *emergencyv1.Committed
	asked := false
	give := func(ctx context.Context) (err error) {
		asked = true
		c, err = s.Do(ctx, req, consoleFacts(s.counters(refOf(req))))
		return err
	}
	err = s.broker.Resume(ctx, refOf(req), person, "resumed by the watcher", give)
	if !asked { // nothing is frozen here: what the rules say of it comes first
		if refusal := give(ctx); refusal != nil {
			err = refusal
		}
	}
	return &emergencyv1.ResumeResponse{Committed: c}, consoleError("4.4 Resume", err)
}

// MarkSession marks a place in a session.
func (s *Server) MarkSession(ctx context.Context, req *emergencyv1.MarkSessionRequest) (*emergencyv1.MarkSessionResponse, error) {
	if to, err := s.other(ctx, refOf(req)); to != nil || err != nil {
		return handOn(ctx, to, err, req, (*sibling).MarkSession)
	}
	if s.broker == nil {
		return nil, s.noConsole(ctx)
	}
	person, err := s.giver(ctx, req)
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, consoleFacts(s.counters(refOf(req))))
	if err == nil {
		if err := s.broker.Note(refOf(req), person, req.GetText()); err != nil {
			s.Log.WarnContext(ctx, "a mark is in the history and not in the recording", "grant", refOf(req).String(), "error", err)
		}
	}
	return &emergencyv1.MarkSessionResponse{Committed: c}, err
}

// ExtendSession extends a session once.
func (s *Server) ExtendSession(ctx context.Context, req *emergencyv1.ExtendSessionRequest) (*emergencyv1.ExtendSessionResponse, error) {
	if to, err := s.other(ctx, refOf(req)); to != nil || err != nil {
		return handOn(ctx, to, err, req, (*sibling).ExtendSession)
	}
	if s.broker == nil {
		return nil, s.noConsole(ctx)
	}
	person, err := s.giver(ctx, req)
	if err != nil {
		return nil, err
	}
	c, err := s.Do(ctx, req, procedure.Facts{})
	if err != nil {
		return nil, err
	}
	st, err := s.Dispatch.State(ctx, req.GetMeta().GetIncident())
	if err != nil {
		return nil, service.Retryable(err)
	}
	if g, ok := st.Grant(req.GetGrant()); ok {
		err = consoleError("4.4 ExtendSession", s.broker.Extend(refOf(req), person, g.Extension, s.recordSize))
	}
	return &emergencyv1.ExtendSessionResponse{Committed: c}, err
}

// Terminate ends a session at once.
func (s *Server) Terminate(ctx context.Context, req *emergencyv1.TerminateRequest) (*emergencyv1.TerminateResponse, error) {
	res, absent, err := lessen(ctx, s, refOf(req), endElsewhere, req, (*sibling).Terminate)
	if res != nil || err != nil {
		return res, err
	}
	if s.broker == nil {
		return nil, s.noConsole(ctx)
	}
	if err := s.allowed(ctx, req); err != nil {
		return nil, err
	}
	by, _ := s.giver(ctx, req) // or the host's agent
	var c *emergencyv1.Committed
	e, err := s.broker.Terminate(ctx, refOf(req), broker.CauseKilled, by, "", func(ctx context.Context, e broker.Ending) (err error) {
		if c, err = s.Do(ctx, req, consoleFacts(absent.ending(e))); err == nil {
			consoleRules{s, nil}.anchorEnd(ctx, broker.Ref{Incident: req.GetMeta().GetIncident(), Grant: req.GetGrant()}, e)
		}
		return told(err)
	})
	if err == nil && c == nil { // recorded before: the first result
		c, err = s.Do(ctx, req, consoleFacts(absent.ending(e)))
	}
	return &emergencyv1.TerminateResponse{Committed: c}, err
}

// Disable disables the credential at the gateway and on the host, and ends what has not ended.
func (s *Server) Disable(ctx context.Context, req *emergencyv1.DisableRequest) (*emergencyv1.DisableResponse, error) {
	res, absent, err := lessen(ctx, s, refOf(req), endElsewhere, req, (*sibling).Disable)
	if res != nil || err != nil {
		return res, err
	}
	if s.broker == nil {
		return nil, s.noConsole(ctx)
	}
	if err := s.allowed(ctx, req); err != nil {
		return nil, err
	}
	by, err := s.giver(ctx, req)
	if err != nil {
		return nil, err
	}
	effects, err := s.broker.Disable(ctx, refOf(req), by)
	if err != nil {
		s.Log.WarnContext(ctx, "not everything of an access could be disabled", "grant", refOf(req).String(), "error", err)
	}
	e := broker.Ending{Effects: effects}
	x := absent.ending(e)
	x.Gateway, x.HostEnd = endStep(e, "gateway_credential", broker.EffectCredential), endStep(e, "host_credential", broker.EffectHost)
	c, err := s.Do(ctx, req, consoleFacts(x))
	return &emergencyv1.DisableResponse{Committed: c}, err
}

// ProveUnusable has the broker try the disabled credential again, at its own door and at the host's.
func (s *Server) ProveUnusable(ctx context.Context, req *emergencyv1.ProveUnusableRequest) (*emergencyv1.ProveUnusableResponse, error) {
	if to, err := s.other(ctx, refOf(req)); to != nil || err != nil {
		return handOn(ctx, to, err, req, (*sibling).ProveUnusable)
	}
	if s.broker == nil {
		return nil, s.noConsole(ctx)
	}
	if err := s.allowed(ctx, req); err != nil {
		return nil, err
	}
	proof, err := s.broker.Prove(ctx, refOf(req))
	if err != nil {
		return nil, service.Away("the credential could not be tried: %w", err)
	}
	c, err := s.Do(ctx, req, consoleFacts(&procedure.ConsoleFacts{Attempts: attempts(proof)}))
	return &emergencyv1.ProveUnusableResponse{Committed: c}, err
}

// attempts are the trials that got an answer; one without proves nothing.
func attempts(p broker.Proof) []*emergencyv1.ReuseAttempt {
	var list []*emergencyv1.ReuseAttempt
	for _, t := range []struct {
		at    string
		trial broker.Trial
	}{{"gateway", p.Gateway}, {"host", p.Host}} {
		if t.trial.Tried {
			list = append(list, &emergencyv1.ReuseAttempt{At: t.at, AttemptedAt: timestamppb.New(p.At), Refused: t.trial.Refused, Detail: clipped(t.trial.Answer, 500)})
		}
	}
	return list
}

// stateName is a grant's state in the words of the API.
func stateName(st broker.Status) string {
	switch st.State {
	case broker.StateWaiting, broker.StateOpening, broker.StateLive, broker.StateFrozen:
		return string(st.State)
	case broker.StateEnded:
		return "terminated"
	}
	return fmt.Sprintf("unknown (%s)", st.State)
}

// renewEvery is how often a watcher's client is asked for a sign of life: several times in watch.freeze_within, after which input
// stops. tellEvery is how often those who watch are told how the session stands, if nothing else happens.
const (
	renewEvery = 250 * time.Millisecond
	tellEvery  = time.Second
)
