// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"time"

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
		g, err := (consoleRules{s, nil}).Grant(ctx, ref) // on the true head
		switch {
		case err != nil:
			s.Log.ErrorContext(ctx, "an access that another process left cannot be read", "grant", ref.String(), "error", err)
		case g.Over == "":
			s.broker.Recover(ctx, why, []broker.Grant{g})
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

// makeTrue makes what the history says of this instance's sessions true: another may have ended or frozen one, or the clock, while this one
// did not answer or did not do it. It never opens anything.
func (s *Server) makeTrue(ctx context.Context) error {
	frozen := map[broker.Ref]uint64{} // the last freeze that was looked at
	for {
		changed := s.Reader.Changed()
		for _, ref := range s.broker.Refs() {
			if st, ok := s.broker.Status(ref); ok && st.State != broker.StateEnded {
				s.makeOneTrue(ctx, ref, frozen)
			} else {
				delete(frozen, ref)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (s *Server) makeOneTrue(ctx context.Context, ref broker.Ref, frozen map[broker.Ref]uint64) {
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
			return
		}
		consoleRules{s, nil}.anchorEnd(ctx, ref, e)
	case g.Frozen.Position > frozen[ref]:
		frozen[ref] = g.Frozen.Position
		s.freezeAsRecorded(ctx, ref, &g)
	}
}

// freezeAsRecorded freezes a session that the history has frozen, unless it went on since. That is asked twice: who resumes
// records that first, and may do so between the question and the freeze, which is then recorded as one more.
func (s *Server) freezeAsRecorded(ctx context.Context, ref broker.Ref, as *procedure.Grant) {
	holds := func() bool {
		_, g, err := consoleHost{s}.grant(ctx, ref)
		return err == nil && g.State == procedure.GrantFrozen && g.Frozen.Position == as.Frozen.Position
	}
	if st, ok := s.broker.Status(ref); !ok || st.State != broker.StateLive || !holds() {
		return
	}
	s.Log.WarnContext(ctx, "a session is frozen by the history, and was not here", "grant", ref.String())
	cause := broker.CausePresence
	if as.FreezeCause == emergencyv1.SessionCause_SESSION_CAUSE_WATCHER {
		cause = broker.CauseWatcher
	}
	_, err := s.broker.Freeze(ctx, ref, cause, func(ctx context.Context, f broker.Freezing) error {
		if holds() {
			return nil
		}
		f.Cause = broker.CausePresence // by the gateway itself
		return (consoleRules{s, nil}).Freeze(ctx, ref, f)
	})
	if err != nil {
		s.Log.WarnContext(ctx, "a session could not be frozen as the history says", "grant", ref.String(), "error", err)
	}
}
