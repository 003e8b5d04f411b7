// SPDX-License-Identifier: Apache-2.0

package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, cfg telemetry.Config) *telemetry.Telemetry {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	tel, err := telemetry.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tel.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tel
}

func scrape(t *testing.T, tel *telemetry.Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// TestMetricNames holds the names and labels that dashboards and alert rules use.
func TestMetricNames(t *testing.T) {
	t.Parallel()
	tel := start(t, telemetry.Config{Service: "epatchd", Version: "v0"})
	ctx := context.Background()
	tel.Metrics.Command(ctx, "Declare", telemetry.Accepted)
	tel.Metrics.Command(ctx, "Declare", telemetry.Accepted)
	tel.Metrics.Command(ctx, "Declare", "text of a caller")
	tel.Metrics.Append(ctx, 3*time.Millisecond)
	tel.Metrics.Foreign(ctx)
	tel.Metrics.Effect(ctx, "mail", telemetry.Unknown)
	tel.Metrics.Projection(ctx, "public-log", 42)
	tel.Metrics.Behind(ctx, "public-log", 7)
	tel.Metrics.Certificate(ctx, time.Unix(1800000000, 0))
	tel.Metrics.ProfileNotTaken(ctx)
	got := scrape(t, tel)
	for _, line := range []string{
		`epatch_commands_total{command="Declare",outcome="accepted"} 2`,
		`epatch_commands_total{command="Declare",outcome="other"} 1`,
		`epatch_append_duration_seconds_bucket{le="0.0025"} 0`,
		`epatch_append_duration_seconds_bucket{le="0.005"} 1`,
		`epatch_foreign_records_total 1`,
		`epatch_effects_total{effect="mail",outcome="unknown"} 1`,
		`epatch_projection_position{projection="public-log"} 42`,
		`epatch_projection_behind{projection="public-log"} 7`,
		`epatch_certificate_end_seconds 1.8e+09`,
		`epatch_profile_not_taken_total 1`,
	} {
		if !slices.Contains(strings.Split(got, "\n"), line) {
			t.Errorf("no line %s", line)
		}
	}
	for _, part := range []string{`target_info{service_name="epatchd",service_version="v0"}`, "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(got, part) {
			t.Errorf("no %s", part)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

func TestNilMetrics(t *testing.T) {
	t.Parallel()
	var m *telemetry.Metrics
	ctx := context.Background()
	m.Command(ctx, "Declare", telemetry.Refused)
	m.Append(ctx, time.Second)
	m.Foreign(ctx)
	m.Effect(ctx, "mail", telemetry.Done)
	m.Projection(ctx, "x", 1)
	m.Behind(ctx, "x", 1)
	m.Certificate(ctx, time.Time{})
	m.ProfileNotTaken(ctx)
}

func TestLog(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	tel := start(t, telemetry.Config{Service: "epatchd", Log: &buf, Format: "json", Level: slog.LevelWarn})
	ctx, span := tel.Tracer.Tracer("test").Start(context.Background(), "call")
	defer span.End()
	ctx = telemetry.With(telemetry.With(ctx, slog.String("incident", "e20261124.1")), slog.Int("position", 3))
	tel.Logger.InfoContext(ctx, "left out")
	tel.Logger.With("owner", "review").WarnContext(ctx, "two\nlines", "k", "v\n")
	tel.Logger.Warn("no context")
	lines := strings.Split(strings.TrimSpace(buf.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), buf.String())
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "time")
	want := map[string]any{
		"level": "WARN", "msg": "two\nlines", "owner": "review", "k": "v\n", "incident": "e20261124.1", "position": 3.0,
		"trace_id": span.SpanContext().TraceID().String(), "span_id": span.SpanContext().SpanID().String(),
	}
	for k, w := range want {
		if got[k] != w {
			t.Errorf("%s is %v, want %v", k, got[k], w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("line %v", got)
	}
	if strings.Contains(lines[1], "trace_id") {
		t.Errorf("a line without context: %s", lines[1])
	}
}

func TestTextLogIsOneLine(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	tel := start(t, telemetry.Config{Log: &buf})
	tel.Logger.Info("a\nlevel=ERROR msg=forged", "k", "b\r\nlevel=ERROR")
	if n := strings.Count(buf.String(), "\n"); n != 1 || strings.Contains(buf.String(), "\r") {
		t.Errorf("%d lines: %q", n, buf.String())
	}
}

// collector receives what is exported.
type collector struct {
	collectortrace.UnimplementedTraceServiceServer
	mu      sync.Mutex
	spans   []string
	service string
}

func (c *collector) Export(_ context.Context, r *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.GetResourceSpans() {
		for _, a := range rs.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				c.service = a.GetValue().GetStringValue()
			}
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.spans = append(c.spans, s.GetName())
			}
		}
	}
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

type metricCollector struct {
	collectormetrics.UnimplementedMetricsServiceServer
	mu    sync.Mutex
	names []string
}

func (c *metricCollector) Export(_ context.Context, r *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rm := range r.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				c.names = append(c.names, m.GetName())
			}
		}
	}
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

// TestExport is not parallel: the standard variables belong to the process.
func TestExport(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	traces, metrics, server := &collector{}, &metricCollector{}, grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(server, traces)
	collectormetrics.RegisterMetricsServiceServer(server, metrics)
	done := make(chan error, 1)
	go func() { done <- server.Serve(lis) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	for name, c := range map[string]struct {
		env  map[string]string
		sent bool
	}{
		"nothing set": {nil, false},
		"disabled":    {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + lis.Addr().String(), "OTEL_SDK_DISABLED": "true"}, false},
		"none":        {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + lis.Addr().String(), "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}, false},
		"endpoint":    {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + lis.Addr().String(), "OTEL_SERVICE_NAME": "named"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			traces.spans, metrics.names = nil, nil
			tel, err := telemetry.Start(context.Background(), telemetry.Config{Service: "epatchd", Log: io.Discard})
			if err != nil {
				t.Fatal(err)
			}
			_, span := tel.Tracer.Tracer("test").Start(context.Background(), "declare", trace.WithSpanKind(trace.SpanKindServer))
			span.End()
			tel.Metrics.Command(context.Background(), "Declare", telemetry.Accepted)
			ctx, cancel := context.WithCancel(context.Background())
			cancel() // a process that ends still sends what it knows
			if err := tel.Shutdown(ctx); err != nil {
				t.Fatal(err)
			}
			if sent := slices.Contains(traces.spans, "declare"); sent != c.sent {
				t.Errorf("span sent: %t, want %t", sent, c.sent)
			}
			if sent := slices.Contains(metrics.names, "epatch.commands"); sent != c.sent {
				t.Errorf("metric sent: %t, want %t", sent, c.sent)
			}
			if c.sent && traces.service != "named" {
				t.Errorf("service %q", traces.service)
			}
		})
	}
}

// TestStartTraces: what a person runs reports nothing unless it is told where to, reports all of it then, and does not keep the person
// waiting where nobody answers. It is not parallel: the standard variables belong to the process.
func TestStartTraces(t *testing.T) {
	cfg := telemetry.Config{Service: "epatch"}
	provider, end, err := telemetry.StartTraces(t.Context(), cfg)
	if provider != nil || err != nil {
		t.Errorf("nothing is set, and it reports: %v, %v", provider, err)
	}
	end()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+lis.Addr().String())
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off") // is for services
	report := func() {
		t.Helper()
		provider, end, err := telemetry.StartTraces(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, span := provider.Tracer("test").Start(context.Background(), "epatch declare")
		span.End()
		end()
	}

	// Somebody listens and never answers. Without an end of its own this would wait for an hour.
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000")
	t.Setenv("OTEL_BSP_EXPORT_TIMEOUT", "3600000")
	report()

	traces, server := &collector{}, grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(server, traces)
	done := make(chan error, 1)
	go func() { done <- server.Serve(lis) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	report()
	traces.mu.Lock()
	defer traces.mu.Unlock()
	if !slices.Contains(traces.spans, "epatch declare") || traces.service != "epatch" {
		t.Errorf("%s told of %v", traces.service, traces.spans)
	}

	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	if _, _, err := telemetry.StartTraces(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_PROTOCOL") {
		t.Errorf("a way of export that is not served: %v", err)
	}
}

func TestStartRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		cfg  telemetry.Config
		want string
	}{
		"format":   {nil, telemetry.Config{Format: "xml"}, `"xml"`},
		"exporter": {map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, telemetry.Config{}, "OTEL_TRACES_EXPORTER"},
		"protocol": {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, telemetry.Config{}, "OTEL_EXPORTER_OTLP_PROTOCOL"},
		"endpoint": {map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "collector"}, telemetry.Config{}, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"},
		"resource": {map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "no pair"}, telemetry.Config{}, "OTEL_RESOURCE_ATTRIBUTES"},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			c.cfg.Log = io.Discard
			if _, err := telemetry.Start(context.Background(), c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one naming %s", err, c.want)
			}
		})
	}
}
