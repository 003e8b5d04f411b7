// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/rand"
	"slices"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"cacert.org/emergency/pkg/telemetry"
	"cacert.org/emergency/pkg/version"
)

// tracing is the trace of one run of the program, so that what it asks of several services, and what follows from that, can be found as
// one thing. The program reports nothing to anybody unless OTEL_EXPORTER_OTLP_ENDPOINT names a collector: a person's machine is nobody's
// business.
type tracing struct {
	provider trace.TracerProvider // nil where nothing is reported
	span     trace.Span
	end      func()
	err      error // why nothing is reported that should be
}

// traced begins the trace. A setting that cannot be used keeps nobody from acting.
func (a *app) traced(ctx context.Context) context.Context {
	a.trace.end = func() {}
	if completing := []string{cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd}; len(a.proc.Args) == 0 || !slices.Contains(completing, a.proc.Args[0]) {
		a.trace.provider, a.trace.end, a.trace.err = telemetry.StartTraces(ctx, telemetry.Config{Service: "epatch", Version: version.Number()})
	}
	if a.trace.provider == nil {
		sc := trace.SpanContextConfig{TraceFlags: trace.FlagsSampled}
		_, _ = rand.Read(sc.TraceID[:]) // never fails (crypto/rand)
		_, _ = rand.Read(sc.SpanID[:])
		ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(sc))
	} else {
		ctx, _ = a.trace.provider.Tracer("cacert.org/emergency/services/cli").Start(ctx, "epatch") //nolint:spancheck // concluded ends it
	}
	a.trace.span = trace.SpanFromContext(ctx)
	return ctx
}

// concluded ends the trace of a command. Only which command it was is told: what was typed after it may be anything.
func (a *app) concluded(cmd *cobra.Command, exit int) {
	t := &a.trace
	if t.err != nil {
		a.note("no trace is reported: %v", t.err)
	}
	t.span.SetName(cmd.CommandPath())
	t.span.SetAttributes(attribute.Int("process.exit.code", exit))
	if exit != exitOK {
		t.span.SetStatus(codes.Error, "")
	}
	t.span.End()
	t.end()
}
