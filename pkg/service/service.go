// SPDX-License-Identifier: Apache-2.0

// Package service is what every service is made of: a dispatcher for its commands, a timer for its due times, a runner for
// its effects, and the restricted values it keeps. A service adds its handlers, its plan of effects and nothing else.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/artefacts"
	"cacert.org/emergency/pkg/dispatch"
	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/timer"
	"cacert.org/emergency/pkg/vault"
	restrictedv1 "cacert.org/emergency/proto/emergency/restricted/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Deps is what a service is given. All fields are required but Meter, EffectMeter and Tracer.
type Deps struct {
	// Owner is which service it is, Instance which of its instances, the same after a restart.
	Owner    string
	Instance string

	Clock timer.Clock
	Log   *slog.Logger

	// The histories, who may write what, and by which key this service signs.
	Store  history.Store
	Keys   *history.Keyring
	Signer history.Signer

	Artefacts artefacts.Store
	Vault     vault.Store
	Ledger    effect.Ledger

	// Incidents is the folded state of all incidents as this process has read them, and Reader what feeds it.
	Incidents *projection.Incidents
	Reader    *projection.Runner

	// Peers are connections to the services by owner name; "dashboard" is the query service.
	Peers map[string]grpc.ClientConnInterface

	Meter       dispatch.Meter
	EffectMeter effect.Meter
	Tracer      trace.Tracer
}

func (d Deps) check() error {
	if d.Owner == "" || d.Instance == "" || d.Clock == nil || d.Log == nil || d.Store == nil || d.Keys == nil || d.Artefacts == nil || d.Vault == nil ||
		d.Ledger == nil || d.Incidents == nil || d.Reader == nil {
		return fmt.Errorf("service %q: a dependency is missing", d.Owner)
	}
	return nil
}

// Service is one service's share of the work.
type Service struct {
	Deps
	Dispatch *dispatch.Dispatcher
	effects  atomic.Pointer[effect.Runner] // while Run runs
}

// Waiting is how many records have effects of this service that are not finished.
func (s *Service) Waiting() int {
	if r := s.effects.Load(); r != nil {
		return r.Waiting()
	}
	return 0
}

// Trouble lists the effects that fail, the oldest first.
func (s *Service) Trouble() []effect.Trouble {
	if r := s.effects.Load(); r != nil {
		return r.Trouble()
	}
	return nil
}

// New builds it.
func New(d Deps) (*Service, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	disp, err := dispatch.New(dispatch.Config{
		Owner: d.Owner, Store: d.Store, Keys: d.Keys, Signer: d.Signer, Vault: d.Vault, Now: d.Clock.Now, Log: d.Log, Meter: d.Meter,
	})
	if err != nil {
		return nil, err
	}
	return &Service{Deps: d, Dispatch: disp}, nil
}

// Run runs timer and effects until ctx ends. plan may be nil for a service that does nothing outside.
func (s *Service) Run(ctx context.Context, plan effect.Planner) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return timer.Run(ctx, timer.Config{Owner: s.Owner, Clock: s.Clock, Incidents: s.Incidents, Changed: s.Reader.Changed, Dispatch: s.Dispatch, Log: s.Log})
	})
	if plan != nil {
		runner, err := effect.New(effect.Config{Owner: s.Owner, Instance: s.Instance, Source: s.Reader, Ledger: s.Ledger, Plan: plan, Log: s.Log, Meter: s.EffectMeter, Tracer: s.Tracer})
		if err != nil {
			return err
		}
		s.effects.Store(runner)
		group.Go(func() error { return runner.Run(ctx) })
	}
	return group.Wait()
}

// Do decides a command as it came: a person's or agent's as the caller of the connection, or one that a service hands on.
func (s *Service) Do(ctx context.Context, cmd procedure.Command, facts procedure.Facts) (*emergencyv1.Committed, error) {
	c, err := s.Dispatch.Do(ctx, cmd, dispatch.Input{Actor: Caller(ctx), Facts: facts})
	return c, Retryable(err)
}

// State is an incident as the service itself reads it, on the true head.
func (s *Service) State(ctx context.Context, incident string) (*procedure.State, error) {
	return s.Dispatch.State(ctx, incident)
}

// RuleBookChanged makes the next command be decided by the rule book as it is then.
func (s *Service) RuleBookChanged() { s.Dispatch.RuleBookChanged() }

// Follow decides a command that the service gives by itself because of an event: as the event's person where follow-up is
// that person's own, as the named system otherwise. Its request id comes from the event, so a restart repeats and never
// doubles; the caller sets it with FollowMeta.
func (s *Service) Follow(ctx context.Context, cmd procedure.Command, cause *projection.Record, e projection.Event, actor procedure.Actor, facts procedure.Facts) (*emergencyv1.Committed, error) {
	root := cause.Record.GetCorrelationId()
	if root == "" {
		root = cause.ID(e)
	}
	for {
		c, err := s.Dispatch.Do(ctx, cmd, dispatch.Input{Actor: actor, Facts: facts, Causation: cause.ID(e), Correlation: root})
		var no *procedure.Refusal
		if errors.As(err, &no) && no.Passing() && ctx.Err() == nil {
			continue // it is no rule's no, and what follows an event must not be lost for it
		}
		return c, Retryable(err)
	}
}

// FollowMeta is the common part of a command that follows an event: its request id is derived from the event and from what
// is done, so doing it again is recognised.
func FollowMeta(rec *projection.Record, e projection.Event, what string) *emergencyv1.CommandMeta {
	return &emergencyv1.CommandMeta{Incident: rec.Incident, RequestId: fmt.Sprintf("%s.%d.%s", rec.Incident, e.Position, what)}
}

// OnBehalf is the actor of a follow-up of a person's own command: the person, in the hands of the named service.
func (s *Service) OnBehalf(rec *projection.Record) procedure.Actor {
	a := rec.Record.GetActor()
	return procedure.Actor{Person: a.GetPerson(), KeyID: a.GetKeyId(), System: emergencyv1.SystemKind_SYSTEM_KIND_REACTOR, SystemName: s.Owner}
}

// System is the actor of what a service does as one of its own parts.
func (s *Service) System(kind emergencyv1.SystemKind) procedure.Actor {
	return procedure.Actor{System: kind, SystemName: s.Owner}
}

// Caller is the actor of the connection: a key, which the rule book resolves.
func Caller(ctx context.Context) procedure.Actor {
	c, _ := identity.FromContext(ctx)
	return procedure.Actor{KeyID: c.KeyID}
}

// Giver is who gives a command, by the rule book: whose connection it is, or who signed what a service hands on (G1). The error is a
// refusal if it is nobody, or the rule book cannot be reached.
func (s *Service) Giver(ctx context.Context, cmd procedure.Command) (*emergencyv1.Actor, error) {
	book, err := s.Dispatch.Book(ctx)
	if err != nil {
		return nil, Retryable(err)
	}
	actor, refusal := procedure.ActorOf(cmd, procedure.Env{Now: s.Clock.Now(), Actor: Caller(ctx), Book: book})
	if refusal != nil {
		return nil, refusal
	}
	return actor, nil
}

// unavailable tells the caller to come again: nothing was refused.
type unavailable struct{ error }

// Temporary is true: the same command may be sent again.
func (unavailable) Temporary() bool { return true }

// RetryAfter is when.
func (unavailable) RetryAfter() time.Duration { return time.Second }

// Unwrap returns the cause.
func (u unavailable) Unwrap() error { return u.error }

// Retryable marks the errors after which the same command may be sent again.
func Retryable(err error) error {
	if errors.Is(err, history.ErrUnavailable) || errors.Is(err, history.ErrUnknownOutcome) || errors.Is(err, history.ErrStorageFull) {
		return unavailable{err}
	}
	return err
}

// Away is the error of a part outside that cannot be reached now.
func Away(format string, args ...any) error { return unavailable{fmt.Errorf(format, args...)} }

// Restricted serves the values that owners in this process keep outside the histories.
type Restricted struct {
	restrictedv1.UnimplementedRestrictedServiceServer
	Vaults map[string]vault.Store
	// State is an incident as the owner itself reads it, on the true head.
	State func(ctx context.Context, incident string) (*procedure.State, error)
	Log   *slog.Logger
}

// Reveal returns the value behind a commitment, and writes the access log line that procedure.md 9 asks for.
func (r *Restricted) Reveal(ctx context.Context, req *restrictedv1.RevealRequest) (*restrictedv1.RevealResponse, error) {
	v, ok := r.Vaults[req.GetOwner()]
	if !ok {
		return nil, notKept(req.GetOwner())
	}
	value, salt, err := v.Get(ctx, req.GetCommitment())
	if errors.Is(err, vault.ErrNotFound) || errors.Is(err, vault.ErrDestroyed) {
		return nil, &procedure.Refusal{
			Code: procedure.NotFound, Reason: procedure.ReasonEntry, Rule: "8.5", Message: "the value is not kept any more, or never was",
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reveal: %w", err)
	}
	caller, _ := identity.FromContext(ctx)
	r.Log.InfoContext(ctx, "restricted value read", "owner", req.GetOwner(), "commitment", req.GetCommitment(), "person", req.GetPerson(), "by_key", caller.KeyID)
	return &restrictedv1.RevealResponse{Value: value, Salt: salt}, nil
}

func notKept(owner string) *procedure.Refusal {
	return &procedure.Refusal{
		Code: procedure.InvalidArgument, Reason: procedure.ReasonField, Rule: "0.8", Message: fmt.Sprintf("restricted values of %q are not kept here", owner),
		Allow: []procedure.Allowance{{Subject: "owner", Description: "ask the service that owns the value"}},
	}
}

// Erase deletes value and salt for good, if the owner's own reading of the history finds that this was ordered: nobody's word
// is enough to destroy evidence (procedure.md 8.5). Erasing again is no error.
func (r *Restricted) Erase(ctx context.Context, req *restrictedv1.EraseRequest) (*restrictedv1.EraseResponse, error) {
	v, ok := r.Vaults[req.GetOwner()]
	if !ok || r.State == nil {
		return nil, notKept(req.GetOwner())
	}
	st, err := r.State(ctx, req.GetIncident())
	if err != nil {
		return nil, Retryable(err)
	}
	field, ok := procedure.RedactionOf(st, req.GetRedaction(), req.GetCommitment())
	if owner, _ := procedure.EventOwner(field.EventType); !ok || owner != req.GetOwner() {
		return nil, &procedure.Refusal{
			Code: procedure.FailedPrecondition, Reason: procedure.ReasonEntry, Rule: "8.5",
			Message: fmt.Sprintf("no redaction of this value of %s was ordered at position %d of %s", req.GetOwner(), req.GetRedaction(), req.GetIncident()),
		}
	}
	err = v.Destroy(ctx, req.GetCommitment())
	if errors.Is(err, vault.ErrNotFound) {
		return nil, &procedure.Refusal{Code: procedure.NotFound, Reason: procedure.ReasonEntry, Rule: "8.5", Message: "the value was never kept here, or is lost"}
	}
	if err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	r.Log.InfoContext(ctx, "restricted value erased", "owner", req.GetOwner(), "incident", req.GetIncident(), "redaction", req.GetRedaction(), "commitment", req.GetCommitment())
	return &restrictedv1.EraseResponse{}, nil
}
