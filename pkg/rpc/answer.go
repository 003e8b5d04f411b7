// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"cacert.org/emergency/pkg/history"
)

// Unavailable is what an error is when the command was not refused but could not be decided now, such as while the log
// has no leader. Temporary tells that trying again can help, RetryAfter when. Handlers return such errors as they are,
// wrapped or not, and the caller sees UNAVAILABLE with google.rpc.RetryInfo and none of the error's text.
type Unavailable interface {
	error
	Temporary() bool
	RetryAfter() time.Duration
}

// pushback is the trailer by which a gRPC server tells a retrying client when to come again, in milliseconds.
const pushback = "grpc-retry-pushback-ms"

// answer turns a handler's error into what the caller may see. The second result is the reference under which the error
// was or is to be logged, empty where the caller sees everything.
func answer(ctx context.Context, err error) (st *status.Status, reference string) {
	if err == nil {
		return nil, ""
	}
	if r, ok := RefusalOf(context.Cause(ctx)); ok { // why the stream ended, whatever its handler made of that
		return StatusOf(r), ""
	}
	var limited *RateError
	if errors.As(err, &limited) {
		st := StatusOf(limited.Refusal)
		if with, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(limited.After)}); err == nil {
			st = with
		}
		return st, ""
	}
	if r, ok := RefusalOf(err); ok {
		return StatusOf(r), ""
	}
	if errors.Is(context.Cause(ctx), errStopping) {
		return unavailable(ctx, defaultRetryAfter)
	}
	if st := contextStatus(ctx); st != nil {
		return st, ""
	}
	if errors.Is(err, history.ErrStorageFull) || StorageFull(err) {
		return full(ctx)
	}
	var un Unavailable
	if errors.As(err, &un) && un.Temporary() {
		return unavailable(ctx, un.RetryAfter())
	}
	code := status.Code(err) // of a service behind this one, or of gRPC itself
	if code == codes.Unimplemented {
		return status.New(codes.Unimplemented, "this server does not serve this method"), ""
	}
	if code == codes.Unavailable {
		return unavailable(ctx, retryAfter(err))
	}
	if code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded) { // not the call's own: that is looked at above
		return unavailable(ctx, defaultRetryAfter)
	}
	return internal(ctx)
}

// defaultRetryAfter is told where the cause names no time.
const defaultRetryAfter = time.Second

// contextStatus tells how a call ended whose caller went away or whose time is over.
func contextStatus(ctx context.Context) *status.Status {
	switch {
	case ctx.Err() == nil:
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		return status.New(codes.Canceled, "the caller gave up; whether the command was recorded tells a second call with the same request_id")
	default:
		return status.New(codes.DeadlineExceeded, "the time for this call is over; whether the command was recorded tells a second call with the same request_id")
	}
}

func unavailable(ctx context.Context, after time.Duration) (*status.Status, string) {
	after = max(after, 0)
	ref := reference(ctx)
	st := status.New(codes.Unavailable, fmt.Sprintf("cannot be decided now; nothing was refused, send it again with the same request_id in %s (reference %s)", after, ref))
	return detailed(st, ref, after), ref
}

// noRoom begins the answer to a command for which the event log has no room.
const noRoom = "the event log has no room: nothing was recorded"

// full is no UNAVAILABLE, which clients send again by themselves: it does not help before somebody has made room.
func full(ctx context.Context) (*status.Status, string) {
	ref := reference(ctx)
	st := status.New(codes.ResourceExhausted, noRoom+"; the operators have to make room (docs/runbooks.md), then send it again with the same request_id (reference "+ref+")")
	return detailed(st, ref, 0), ref
}

// StorageFull tells whether a service answered that the event log has no room.
func StorageFull(err error) bool {
	st, ok := status.FromError(err)
	return ok && st.Code() == codes.ResourceExhausted && strings.Contains(st.Message(), noRoom)
}

func internal(ctx context.Context) (*status.Status, string) {
	ref := reference(ctx)
	return detailed(status.New(codes.Internal, "a defect of this service; tell the operator reference "+ref), ref, 0), ref
}

func detailed(st *status.Status, ref string, after time.Duration) *status.Status {
	with, err := st.WithDetails(&errdetails.RequestInfo{RequestId: ref})
	if err == nil && st.Code() == codes.Unavailable {
		with, err = with.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	if err != nil {
		return st
	}
	return with
}

// RetryAfter is the delay after which an error's status asks the caller to try again, or a second where it names none.
func RetryAfter(err error) time.Duration { return retryAfter(err) }

// retryAfter is the delay that a status asks for.
func retryAfter(err error) time.Duration {
	st, _ := status.FromError(err)
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return defaultRetryAfter
}

// retryTrailer makes a client that retries by itself wait as long as the status says.
func retryTrailer(st *status.Status) metadata.MD {
	if st.Code() != codes.Unavailable {
		return nil
	}
	return metadata.Pairs(pushback, strconv.FormatInt(retryAfter(st.Err()).Milliseconds(), 10))
}

// reference is the trace id of the call, or a random one where there is no trace.
func reference(ctx context.Context) string {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
