// SPDX-License-Identifier: Apache-2.0

package arbitration

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"cacert.org/emergency/pkg/defect"
	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	restrictedv1 "cacert.org/emergency/proto/emergency/restricted/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// reactor does what follows from the state of an incident by itself: it makes obligations visible, has redacted values deleted
// and discloses what has become due. It keeps nothing that matters: after a start it looks at every incident once, and each
// of its commands has a request id that follows from what it is about, so that doing it again is recognised.
type reactor struct {
	*Server
	// next is when something of an incident becomes due.
	next map[string]time.Time
	// gone are values that their owners do not keep; asking again would only be refused again.
	gone map[string]bool
}

// react follows all incidents until ctx ends.
func (s *Server) react(ctx context.Context) error {
	r := &reactor{Server: s, next: map[string]time.Time{}, gone: map[string]bool{}}
	var cursor uint64
	var again []string
	for ctx.Err() == nil {
		changed := s.Reader.Changed()
		var ids []string
		ids, cursor = s.Incidents.Since(cursor)
		ids, again = append(append(ids, again...), r.due()...), nil
		for _, id := range ids {
			err := defect.Contained(func() error { return r.look(ctx, id) }) // a panic is this incident's alone
			if err != nil && ctx.Err() == nil {
				again = append(again, id)
				s.Log.WarnContext(ctx, "what follows from an incident is not all done yet", slog.String("incident", id), slog.Any("error", err), defect.Stack(err))
			}
		}
		alarm, stop := s.Clock.Alarm(r.wake(len(again) > 0))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-alarm:
		}
		stop()
	}
	return nil
}

const (
	// retryAfter is how long after a failure an incident is looked at again.
	retryAfter = 2 * time.Second
	// idle is how long it sleeps when nothing is to become due.
	idle = 24 * time.Hour
)

// due are the incidents of which something has become due.
func (r *reactor) due() []string {
	var list []string
	now := r.Clock.Now()
	for id, at := range r.next {
		if now.After(at) {
			list = append(list, id)
		}
	}
	return list
}

// wake is when to look again if nothing happens.
func (r *reactor) wake(failed bool) time.Time {
	at := r.Clock.Now().Add(idle)
	if failed {
		at = r.Clock.Now().Add(retryAfter)
	}
	for _, next := range r.next {
		if next = next.Add(time.Millisecond); next.Before(at) { // due is what has passed (0.5)
			at = next
		}
	}
	return at
}

// look does what one incident needs now.
func (r *reactor) look(ctx context.Context, id string) error {
	var sync bool
	var position uint64
	var redactions []procedure.RestrictedAt
	var disclosures []procedure.DueDisclosure
	r.Incidents.View(id, func(st *procedure.State) {
		sync, position = procedure.NeedsSync(st), st.Position
		redactions, disclosures = procedure.PendingRedactions(st), procedure.DueDisclosures(st)
	})
	if sync {
		cmd := &emergencyv1.SyncObligationsRequest{Meta: &emergencyv1.CommandMeta{Incident: id, RequestId: fmt.Sprintf("obligations.sync.%d", position)}}
		if err := r.give(ctx, cmd, procedure.Facts{}); err != nil {
			return err
		}
	}
	for _, x := range redactions {
		if err := r.erase(ctx, id, x); err != nil {
			return err
		}
	}
	return r.disclose(ctx, id, disclosures)
}

func (r *reactor) give(ctx context.Context, cmd procedure.Command, facts procedure.Facts) error {
	_, err := r.Dispatch.Do(ctx, cmd, dispatch.Input{Actor: r.System(emergencyv1.SystemKind_SYSTEM_KIND_REACTOR), Facts: facts})
	return err
}

// erase has the owner delete a value, which it does after its own reading of the order, and then reports it (8.5). A crash in
// between only means that it is asked again.
func (r *reactor) erase(ctx context.Context, id string, x procedure.RestrictedAt) error {
	if r.gone[x.Commitment] {
		return nil
	}
	client, owner, err := r.ownerOf(x)
	if err != nil {
		return err
	}
	_, err = client.Erase(ctx, &restrictedv1.EraseRequest{Owner: owner, Incident: id, Redaction: x.Redacted.Position, Commitment: x.Commitment})
	if refusal, ok := rpc.RefusalOf(err); ok && (refusal.Code == procedure.NotFound || refusal.Code == procedure.FailedPrecondition) {
		r.gone[x.Commitment] = true
		r.Log.ErrorContext(ctx, "a redaction cannot be completed", "incident", id, "redaction", x.Redacted.Position, "commitment", x.Commitment, "error", refusal)
		return nil
	}
	if err != nil {
		return fmt.Errorf("redaction %d: %w", x.Redacted.Position, err)
	}
	return r.give(ctx, &emergencyv1.ReportRedactionRequest{
		Meta:      &emergencyv1.CommandMeta{Incident: id, RequestId: fmt.Sprintf("redaction.%d", x.Redacted.Position)},
		Redaction: x.Redacted.Position,
	}, procedure.Facts{})
}

// disclose publishes what has become due and remembers when the next value does.
func (r *reactor) disclose(ctx context.Context, id string, list []procedure.DueDisclosure) error {
	delete(r.next, id)
	for _, x := range list {
		if r.gone[x.Commitment] {
			continue
		}
		if !r.Clock.Now().After(x.Due) {
			r.next[id] = x.Due
			return nil
		}
		value, err := r.valueOf(ctx, x.RestrictedAt)
		if err != nil {
			return err
		}
		if value == nil {
			r.gone[x.Commitment] = true
			r.Log.ErrorContext(ctx, "a value that is to be disclosed is not kept any more", "incident", id, "event", x.Position, "field", x.Field, "commitment", x.Commitment)
			continue
		}
		cmd := &emergencyv1.DiscloseRequest{
			Meta:  &emergencyv1.CommandMeta{Incident: id, RequestId: fmt.Sprintf("disclose.%d.%.16s", x.Position, x.Commitment)},
			Event: x.Position, Commitment: x.Commitment,
		}
		if err := r.give(ctx, cmd, procedure.Facts{Revealed: value}); err != nil {
			return err
		}
	}
	return nil
}
