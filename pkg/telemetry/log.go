// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"go.opentelemetry.io/otel/trace"
)

func newLogger(cfg Config) (*slog.Logger, error) {
	var w io.Writer = os.Stderr
	if cfg.Log != nil {
		w = cfg.Log
	}
	options := &slog.HandlerOptions{Level: cfg.Level}
	switch cfg.Format {
	case "json":
		return slog.New(contextHandler{slog.NewJSONHandler(w, options)}), nil
	case "", "text":
		return slog.New(contextHandler{slog.NewTextHandler(w, options)}), nil
	default:
		return nil, fmt.Errorf("telemetry: log format %q: use json or text", cfg.Format)
	}
}

type attrsKey struct{}

// With returns a context whose log lines carry these attributes too, such as the incident's id.
func With(ctx context.Context, attrs ...slog.Attr) context.Context {
	before, _ := ctx.Value(attrsKey{}).([]slog.Attr)
	return context.WithValue(ctx, attrsKey{}, slices.Concat(before, attrs))
}

// contextHandler adds to each line what its context knows.
type contextHandler struct{ slog.Handler }

func (h contextHandler) Handle(ctx context.Context, r slog.Record) error {
	attrs, _ := ctx.Value(attrsKey{}).([]slog.Attr)
	sc := trace.SpanContextFromContext(ctx)
	if len(attrs) == 0 && !sc.IsValid() {
		return h.Handler.Handle(ctx, r)
	}
	r = r.Clone()
	r.AddAttrs(attrs...)
	if sc.IsValid() {
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return contextHandler{h.Handler.WithAttrs(attrs)}
}

func (h contextHandler) WithGroup(name string) slog.Handler {
	return contextHandler{h.Handler.WithGroup(name)}
}
