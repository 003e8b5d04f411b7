// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/defect"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
)

// answerTime is kept back of a caller's time, so that the answer still reaches a caller whose time is over.
const answerTime = 50 * time.Millisecond

// guard stands before every handler.
type guard struct {
	cfg      ServerConfig
	stopping context.Context // done when the server is to end
}

func newGuard(cfg ServerConfig, stopping context.Context) *guard {
	cfg.Anonymous = slices.Clone(cfg.Anonymous)
	return &guard{cfg: cfg, stopping: stopping}
}

func (g *guard) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	err = g.call(ctx, info.FullMethod, true, func(md metadata.MD) error { return grpc.SetTrailer(ctx, md) }, func(ctx context.Context) error {
		err := decoded(req)
		if err == nil {
			resp, err = next(ctx, req)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (g *guard) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	trailer := func(md metadata.MD) error { ss.SetTrailer(md); return nil }
	return g.call(ss.Context(), info.FullMethod, false, trailer, func(ctx context.Context) error {
		return next(srv, &streamWith{ss, ctx})
	})
}

// streamWith is a stream with the guard's context.
type streamWith struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *streamWith) Context() context.Context { return s.ctx }

func (s *streamWith) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return decoded(m)
}

// call admits one call, runs its handler, and answers and logs what came of it.
func (g *guard) call(ctx context.Context, method string, unary bool, trailer func(metadata.MD) error, handler func(context.Context) error) error {
	start := time.Now()
	ctx, cancel, refused := g.admit(ctx, method, unary)
	defer cancel()
	err := refused
	if err == nil {
		err = g.contained(ctx, handler)
	}
	g.counted(ctx, method, err)
	st, ref := answer(ctx, err)
	if err != nil && refused == nil && open(method) { // their errors are gRPC's own and say nothing of us
		st, ref = status.Convert(err), ""
	}
	g.log(ctx, method, time.Since(start), st, ref, err)
	if md := retryTrailer(st); md != nil {
		_ = trailer(md) // only a hint
	}
	return st.Err()
}

// admit does what must hold before a handler runs. The context it returns carries the caller, even of a refused call.
func (g *guard) admit(ctx context.Context, method string, unary bool) (context.Context, context.CancelFunc, error) {
	nothing := func() {}
	conn, known := callerOf(ctx)
	if known {
		ctx = identity.WithCaller(ctx, conn)
	}
	ctx, caller, err := g.handedOn(ctx, conn, known)
	if err != nil {
		return ctx, nothing, err
	}
	if open(method) {
		return ctx, nothing, nil
	}
	if g.cfg.Limiter != nil {
		if err := g.cfg.Limiter.Admit(conn, known, addressOf(ctx)); err != nil {
			return ctx, nothing, err
		}
	}
	anonymous := slices.Contains(g.cfg.Anonymous, method)
	if err := g.identified(conn, known); err != nil && !anonymous {
		return ctx, nothing, err
	}
	if err := deadlined(ctx, unary); err != nil {
		return ctx, nothing, err
	}
	ctx, cancel := g.bound(ctx, unary, conn, caller, known && !anonymous)
	if anonymous {
		return ctx, cancel, nil
	}
	return ctx, cancel, g.contained(ctx, func(ctx context.Context) error { return g.cfg.Authorize(ctx, method, caller) })
}

// counted tells the limiter of a call that was refused, other than by the limiter itself.
func (g *guard) counted(ctx context.Context, method string, err error) {
	r, refused := RefusalOf(err)
	if g.cfg.Limiter == nil || !refused || r.Reason == ReasonRate || r.Passing() || open(method) {
		return
	}
	caller, known := callerOf(ctx)
	g.cfg.Limiter.Refused(caller, known, addressOf(ctx))
}

// callerOf returns the caller of a connection, as far as TLS verified one.
func callerOf(ctx context.Context) (identity.Caller, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return identity.Caller{}, false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return identity.Caller{}, false
	}
	return identity.FromTLS(&info.State)
}

// identified is the first half of G1: the second, whose key it is, needs the rule book.
func (g *guard) identified(c identity.Caller, known bool) error {
	if !known {
		return noIdentity("this call needs a client certificate", "connect with the certificate and key of your profile")
	}
	if !c.Valid(g.cfg.Now()) { // it was valid when the connection was made
		return certificateEnded(c)
	}
	return nil
}

func certificateEnded(c identity.Caller) error {
	return noIdentity("the client certificate ended at "+c.Certificate.NotAfter.UTC().Format(time.RFC3339), "get a new certificate for the same key and connect again")
}

func noIdentity(message, remedy string) error {
	return &procedure.Refusal{
		Code: procedure.Unauthenticated, Reason: procedure.ReasonNoIdentity, Rule: "G1", Message: message,
		Allow: []procedure.Allowance{{Description: remedy}},
	}
}

func deadlined(ctx context.Context, unary bool) error {
	if _, has := ctx.Deadline(); has || !unary {
		return nil
	}
	return &procedure.Refusal{
		Code: procedure.InvalidArgument, Reason: ReasonDeadlineRequired, Rule: "4.0", Message: "this call needs a deadline: without one nobody knows when to give up",
		Allow: []procedure.Allowance{{Description: "set a deadline of at most " + maxUnary.String() + " on the call, such as grpcurl -max-time 30"}},
	}
}

// errStopping is why a stream's context ends when the server does.
var errStopping = errors.New("the server stops")

// bound ends a unary call a little before its caller gives up; and a stream when the connection's certificate ends, when the caller may not
// go on, or when the server stops.
func (g *guard) bound(ctx context.Context, unary bool, conn, caller identity.Caller, known bool) (context.Context, context.CancelFunc) {
	if unary {
		end, _ := ctx.Deadline()
		left := time.Until(end)
		return context.WithTimeout(ctx, min(max(left-answerTime, left/2), maxUnary))
	}
	ctx, stop := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(g.stopping, func() { stop(errStopping) })
	cancel := func() { unhook(); stop(nil) }
	if !known {
		return ctx, cancel
	}
	ctx, ended := context.WithTimeoutCause(ctx, conn.Certificate.NotAfter.Sub(g.cfg.Now()), certificateEnded(conn))
	if g.cfg.Standing == nil {
		return ctx, func() { ended(); cancel() }
	}
	ctx, leave := g.cfg.Standing.Enter(ctx, caller)
	return ctx, func() { leave(); ended(); cancel() }
}

// contained runs a handler and makes its panic an error of this one call.
func (g *guard) contained(ctx context.Context, handler func(context.Context) error) error {
	return defect.Contained(func() error { return handler(ctx) })
}

// log writes one line a call: ids, never content. What the caller is not told stands here, under the reference.
func (g *guard) log(ctx context.Context, method string, took time.Duration, st *status.Status, ref string, err error) {
	level := slog.LevelInfo
	attrs := []slog.Attr{slog.String("method", method), slog.String("code", st.Code().String()), slog.Duration("took", took)}
	if c, ok := identity.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("caller", c.KeyID))
		if conn, _ := callerOf(ctx); conn.KeyID != c.KeyID {
			attrs = append(attrs, slog.String("handed_on_by", conn.KeyID))
		}
	}
	if r, ok := RefusalOf(err); ok {
		attrs = append(attrs, slog.String("reason", string(r.Reason)), slog.String("rule", r.Rule))
	} else if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	if ref != "" {
		attrs = append(attrs, slog.String("reference", ref))
		level = slog.LevelWarn
	}
	if st.Code() == codes.Internal {
		level = slog.LevelError
	}
	attrs = append(attrs, defect.Stack(err))
	g.cfg.Logger.LogAttrs(ctx, level, "call", attrs...)
}
