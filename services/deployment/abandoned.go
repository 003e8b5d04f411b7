// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"cacert.org/emergency/pkg/defect"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment/broker"
)

// What becomes of a session whose instance, or whose instance's knowledge, is lost. Its connections end with the process that had them;
// the host's agent freezes it when it hears nothing of that instance any more, and ends it after the grace. What is left to do is to say so in
// the history, and to end what is left on the host.

// abandoned are the grants whose credential was used, that have not ended, and whose instance is one of those that is tells.
func (s *Server) abandoned(is func(*procedure.Grant) bool) (refs []broker.Ref) {
	s.Incidents.Each(func(st *procedure.State) {
		for i := range st.Grants {
			if g := &st.Grants[i]; g.Consumed.Position > 0 && g.Terminated.Position == 0 && is(g) {
				refs = append(refs, broker.Ref{Incident: st.Incident, Grant: g.ID})
			}
		}
	})
	return refs
}

// end ends accesses of which no process has a session any more.
func (s *Server) end(ctx context.Context, why string, refs ...broker.Ref) {
	for _, ref := range refs {
		err := defect.Contained(func() error {
			g, err := (consoleRules{s, nil}).Grant(ctx, ref) // on the true head
			if err == nil && g.Over == "" {
				s.broker.Recover(ctx, why, []broker.Grant{g})
			}
			return err
		})
		if err != nil { // the others are ended
			s.Log.ErrorContext(ctx, "an access that another process left cannot be read", slog.String("grant", ref.String()), slog.Any("error", err), defect.Stack(err))
		}
	}
}

// recoverOwn ends what a former process of this instance left open: no session of this process is theirs. Where no other instances are known
// that is whatever is left open.
func (s *Server) recoverOwn(ctx context.Context) {
	s.end(ctx, "the gateway was restarted", s.abandoned(func(g *procedure.Grant) bool { return s.mine(g) || len(s.siblings) == 0 })...)
}

// lookEvery is how often an instance looks whether those that have sessions are there, by the machine's clock.
const lookEvery = 2 * time.Second

// takeOver ends what an instance left open that is gone, and does not wait until that comes back. One that is silent may run, and have the
// session; then the host's agent ends it, who hears nothing of it either. To end an access twice does no harm, so nobody has to be the only one.
func (s *Server) takeOver(ctx context.Context) error {
	if len(s.siblings) == 0 {
		return nil
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		names := map[string][]broker.Ref{}
		for _, ref := range s.abandoned(func(g *procedure.Grant) bool { return !s.mine(g) }) {
			if name, _, err := s.gateway(ctx, ref); err == nil && name != "" {
				names[name] = append(names[name], ref)
			}
		}
		for name, refs := range names {
			if _, is := s.find(ctx, name); is == gone || is == unknown {
				s.Log.WarnContext(ctx, "the instance that had sessions is gone; they are ended by this one", "instance", name, "sessions", len(refs))
				s.end(ctx, "the instance of the gateway that had the session is gone", refs...)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// retryTruth is when an instance looks once more at a session of which it could not make true what the history says, by the machine's clock.
const retryTruth = 200 * time.Millisecond

// makeTrue makes what the history says of this instance's sessions true: another may have ended or frozen one, or the clock, while this one
// did not answer or did not do it. It never opens anything. Each session is looked at by itself, so that none waits for another's host or disk.
func (s *Server) makeTrue(ctx context.Context) error {
	settled := map[broker.Ref]uint64{} // the last freeze that needs no look any more
	busy := map[broker.Ref]bool{}      // a look is under way
	missed := map[broker.Ref]bool{}    // and the history has changed since it began
	type look struct {
		ref    broker.Ref
		freeze uint64
		done   bool
	}
	looked := make(chan look)
	var looks sync.WaitGroup
	defer looks.Wait()
	for {
		changed := s.Reader.Changed()
		for _, ref := range s.broker.Refs() {
			st, ok := s.broker.Status(ref)
			if !ok || st.State == broker.StateEnded {
				delete(settled, ref)
				continue
			}
			if busy[ref] {
				missed[ref] = true
				continue
			}
			busy[ref] = true
			before := settled[ref]
			looks.Go(func() {
				freeze, done := before, false
				err := defect.Contained(func() error {
					freeze, done = s.makeOneTrue(ctx, ref, before)
					return nil
				})
				if err != nil { // a panic is this session's alone
					s.Log.ErrorContext(ctx, "what the history says of a session was not made true", slog.String("grant", ref.String()), slog.Any("error", err), defect.Stack(err))
				}
				if !done {
					select {
					case <-time.After(retryTruth):
					case <-ctx.Done():
					}
				}
				select {
				case looked <- look{ref, freeze, done}:
				case <-ctx.Done():
				}
			})
		}
		for wait := true; wait; {
			select {
			case <-ctx.Done():
				return nil
			case l := <-looked:
				settled[l.ref] = l.freeze
				wait = l.done && !missed[l.ref]
				delete(busy, l.ref)
				delete(missed, l.ref)
			case <-changed:
				wait = false
			}
		}
	}
}

// makeOneTrue returns the last freeze that needs no look any more, and whether there is nothing left to do until the history changes.
func (s *Server) makeOneTrue(ctx context.Context, ref broker.Ref, settled uint64) (uint64, bool) {
	var g procedure.Grant
	s.Incidents.View(ref.Incident, func(st *procedure.State) {
		if x, ok := st.Grant(ref.Grant); ok {
			g = *x
		}
	})
	nothing := func(context.Context, broker.Ending) error { return nil } // it is recorded
	switch {
	case g.Terminated.Position > 0:
		e, err := s.broker.Terminate(ctx, ref, broker.CauseGateway, "", "the history says that it has ended", nothing)
		if err != nil {
			s.Log.ErrorContext(ctx, "a session that has ended by the history could not be ended", "grant", ref.String(), "error", err)
			return settled, false
		}
		consoleRules{s, nil}.anchorEnd(ctx, ref, e)
	case g.Frozen.Position > settled:
		if !s.freezeAsRecorded(ctx, ref, &g) {
			return settled, false
		}
		return g.Frozen.Position, true
	}
	return settled, true
}

// freezeAsRecorded freezes a session that the history has frozen, unless it went on since. That is asked twice: who resumes
// records that first, and may do so between the question and the freeze, which is then recorded as one more. False if it has to be tried again.
func (s *Server) freezeAsRecorded(ctx context.Context, ref broker.Ref, as *procedure.Grant) bool {
	holds := func() (bool, error) {
		_, g, err := consoleHost{s}.grant(ctx, ref)
		return err == nil && g.State == procedure.GrantFrozen && g.Frozen.Position == as.Frozen.Position, err
	}
	if is, err := holds(); !is {
		return err == nil
	}
	cause := broker.CausePresence
	if as.FreezeCause == emergencyv1.SessionCause_SESSION_CAUSE_WATCHER {
		cause = broker.CauseWatcher
	}
	_, err := s.broker.Freeze(ctx, ref, cause, func(ctx context.Context, f broker.Freezing) error {
		s.Log.WarnContext(ctx, "a session was frozen by the history, and not here", "grant", ref.String())
		if is, _ := holds(); is {
			return nil
		}
		f.Cause = broker.CausePresence // by the gateway itself
		return (consoleRules{s, nil}).Freeze(ctx, ref, f)
	})
	if err == nil {
		return true
	}
	st, ok := s.broker.Status(ref)
	return !ok || st.State != broker.StateOpening && st.State != broker.StateLive // it stands still, or is over
}
