// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/rand"

	"go.opentelemetry.io/otel/trace"
)

// traced begins a trace for a run of the program, so that what it asks of several services, and what follows from that, can be found as one
// thing. The program itself reports nothing to anybody: it has no collector, and a person's machine is nobody's business.
func traced(ctx context.Context) context.Context {
	sc := trace.SpanContextConfig{TraceFlags: trace.FlagsSampled}
	_, _ = rand.Read(sc.TraceID[:]) // never fails (crypto/rand)
	_, _ = rand.Read(sc.SpanID[:])
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(sc))
}
