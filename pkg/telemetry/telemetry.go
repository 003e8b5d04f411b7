// SPDX-License-Identifier: Apache-2.0

// Package telemetry sets up logs, traces and metrics for one process, and is the only package that links the
// OpenTelemetry SDK; all others use its API.
//
// Without any setting, nothing leaves the process: logs go to the given writer, metrics wait at Handler, and traces exist
// only so that log lines and references carry their ids. The standard OTEL_* variables switch on export by OTLP over gRPC.
// An exporter whose collector is away loses what it could not send and never holds up the work. Logs carry ids, never
// personal data; what is written into them is the caller's duty, that each entry stays one line is this package's.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// shutdownTime bounds the last export.
const shutdownTime = 5 * time.Second

// Config is what a process tells about itself.
type Config struct {
	// Service is the name in traces and metrics, such as epatchd-review; OTEL_SERVICE_NAME counts before it.
	Service string
	// Version of the program.
	Version string
	// Log receives the log; standard error if nil.
	Log io.Writer
	// Format of the log: "json", or "text" which is also the default.
	Format string
	// Level below which log lines are left out.
	Level slog.Level
}

// Telemetry is a process's running logs, traces and metrics.
type Telemetry struct {
	// Logger adds trace_id and span_id of the context to every line, and what With put there.
	Logger *slog.Logger
	// Tracer and Meter are given to those who observe, such as pkg/rpc. Nothing is set globally.
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
	// Metrics are the instruments that several packages share.
	Metrics *Metrics

	registry *prometheus.Registry
	closers  []func(context.Context) error
}

// Start sets everything up. The one process-wide thing it sets is where the SDK reports its own errors: to the log. Call
// Shutdown in the end.
func Start(ctx context.Context, cfg Config) (*Telemetry, error) {
	logger, err := newLogger(cfg)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{Logger: logger, registry: prometheus.NewRegistry()}
	if err := t.start(ctx, cfg); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("telemetry", "error", err.Error()) }))
	return t, nil
}

func (t *Telemetry) start(ctx context.Context, cfg Config) error {
	res, err := describe(ctx, cfg)
	if err != nil {
		return err
	}
	if err := t.startTraces(ctx, res); err != nil {
		return fmt.Errorf("telemetry: traces: %w", err)
	}
	if err := t.startMetrics(ctx, res); err != nil {
		return fmt.Errorf("telemetry: metrics: %w", err)
	}
	t.Metrics, err = NewMetrics(t.Meter)
	return err
}

// describe says which program tells.
func describe(ctx context.Context, cfg Config) (*resource.Resource, error) {
	res, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", cfg.Service), attribute.String("service.version", cfg.Version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("telemetry: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return res, nil
}

// discreet leaves out of a call's span what was answered in words: a refusal quotes what somebody typed. Its code stays.
type discreet struct{ sdktrace.SpanExporter }

func (d discreet) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	list := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, s := range spans {
		if list[i] = s; s.SpanKind() == trace.SpanKindClient || s.SpanKind() == trace.SpanKindServer {
			list[i] = wordless{s}
		}
	}
	return d.SpanExporter.ExportSpans(ctx, list)
}

type wordless struct{ sdktrace.ReadOnlySpan }

func (w wordless) Status() sdktrace.Status {
	return sdktrace.Status{Code: w.ReadOnlySpan.Status().Code}
}

// lastTraces is how long a person waits for the traces of a program that has done its work.
const lastTraces = time.Second

// StartTraces sets up traces alone, for a program that a person runs and waits for. Where the standard variables do not ask for export it
// returns no provider. Every trace is kept. What cannot be sent is dropped without a word, and end takes a second at most. Like Start it
// sets where the SDK reports its own errors: nowhere.
func StartTraces(ctx context.Context, cfg Config) (provider trace.TracerProvider, end func(), err error) {
	export, err := exported("TRACES")
	if err != nil || !export {
		return nil, func() {}, err
	}
	res, err := describe(ctx, cfg)
	if err != nil {
		return nil, func() {}, err
	}
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, func() {}, fmt.Errorf("telemetry: traces: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	p := sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithBatcher(discreet{exporter}), sdktrace.WithSampler(sdktrace.AlwaysSample()))
	return p, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTraces)
		defer cancel()
		_ = p.Shutdown(ctx) // what could not be sent is nobody's loss
		_ = exporter.Shutdown(ctx)
	}, nil
}

func (t *Telemetry) startTraces(ctx context.Context, res *resource.Resource) error {
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	export, err := exported("TRACES")
	if err != nil {
		return err
	}
	if export {
		exporter, err := otlptracegrpc.New(ctx)
		if err != nil {
			return err
		}
		options = append(options, sdktrace.WithBatcher(discreet{exporter}))
	}
	p := sdktrace.NewTracerProvider(options...)
	t.Tracer, t.closers = p, append(t.closers, p.Shutdown)
	return nil
}

func (t *Telemetry) startMetrics(ctx context.Context, res *resource.Resource) error {
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(t.registry), otelprometheus.WithoutScopeInfo(),
		otelprometheus.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes))
	if err != nil {
		return err
	}
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	options := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(reader)}
	export, err := exported("METRICS")
	if err != nil {
		return err
	}
	if export {
		exporter, err := otlpmetricgrpc.New(ctx)
		if err != nil {
			return err
		}
		options = append(options, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter)))
	}
	p := sdkmetric.NewMeterProvider(options...)
	t.Meter, t.closers = p, append(t.closers, p.Shutdown)
	return nil
}

// exported tells whether the standard variables ask for export of TRACES or METRICS, and refuses what they ask for that
// is not served: half a set-up would be noticed on the day the traces are needed.
func exported(signal string) (bool, error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	switch name := "OTEL_" + signal + "_EXPORTER"; os.Getenv(name) {
	case "none":
		return false, nil
	case "", "otlp":
	default:
		return false, fmt.Errorf("%s: %q is not served: use otlp or none", name, os.Getenv(name))
	}
	name, endpoint := either("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	if endpoint == "" {
		return false, nil
	}
	if u, err := url.Parse(endpoint); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return false, fmt.Errorf("%s: %q is no address: give http(s)://host:port", name, endpoint)
	}
	if name, p := either("OTEL_EXPORTER_OTLP_"+signal+"_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); p != "" && p != "grpc" {
		return false, fmt.Errorf("%s: %q is not served: use grpc", name, p)
	}
	return true, nil
}

// either returns the first variable that is set.
func either(names ...string) (name, value string) {
	for _, name = range names {
		if value = os.Getenv(name); value != "" {
			break
		}
	}
	return name, value
}

// Handler serves the metrics in Prometheus form, for /metrics.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Shutdown sends what waits, for at most five seconds, and ends all that Start began. It runs even if ctx is done.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	var errs []error
	for _, end := range t.closers {
		errs = append(errs, end(ctx))
	}
	t.closers = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("telemetry: last export: %w", err)
	}
	return nil
}
