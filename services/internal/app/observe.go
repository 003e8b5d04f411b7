// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// scope is under which name the programs of this repository observe themselves.
const scope = "cacert.org/emergency"

// gauges are what a process tells whenever it is asked, computed at that moment. Every process reads all incidents, so each tells the same
// about them: take the maximum over processes, never the sum.
type gauges struct {
	open, left, owed, overdue, sessions metric.Int64ObservableGauge // of the emergencies
	waiting, failing, givenUp           metric.Int64ObservableGauge // of the effects of this process
	stored, behind, answers, ahead      metric.Int64ObservableGauge // of the event log
	bytes, limit                        metric.Int64ObservableGauge // of its streams
}

// observe makes the gauges. It reads the read models and asks the event log, and changes nothing.
func (n *Node) observe() error {
	meter := n.tel.Meter.Meter(scope)
	var g gauges
	var all []metric.Observable
	var errs []error
	for _, x := range []struct {
		to         *metric.Int64ObservableGauge
		name, what string
		unit       string
	}{
		{&g.open, "epatch.emergencies.open", "Emergencies that are not over, drills apart.", ""},
		{&g.left, "epatch.emergency.time.left", "Time until the 24 hours of an open emergency that is not done yet are over; negative after that.", "s"},
		{&g.owed, "epatch.obligations.open", "What is owed, by kind.", ""},
		{&g.overdue, "epatch.obligations.overdue", "What is owed and was due, by kind.", ""},
		{&g.sessions, "epatch.console.sessions", "Watched connections that are not ended, by state and, where frozen, why.", ""},
		{&g.waiting, "epatch.effects.waiting", "Records with effects of this process that are not finished.", ""},
		{&g.failing, "epatch.effects.failing", "Effects of this process that failed and are tried again.", ""},
		{&g.givenUp, "epatch.effects.given.up", "Effects of this process that failed and are not tried any more, of the last fifty.", ""},
		{&g.stored, "epatch.log.sequence", "The last sequence in the event log.", ""},
		{&g.behind, "epatch.log.replicas.behind", "Servers of the event log whose copy of the histories is not current.", ""},
		{&g.ahead, "epatch.clock.ahead", "How far this process's clock is ahead of the event log's; negative if it is behind.", "s"},
		{&g.bytes, "epatch.log.bytes", "Bytes in a stream of the event log.", ""},
		{&g.limit, "epatch.log.limit.bytes", "Bytes that it may have; then it refuses more.", ""},
		{&g.answers, "epatch.log.answers", "1 if the event log answers, 0 if not.", ""},
	} {
		gauge, err := meter.Int64ObservableGauge(x.name, metric.WithDescription(x.what), metric.WithUnit(x.unit))
		*x.to, all, errs = gauge, append(all, gauge), append(errs, err)
	}
	_, err := meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		n.tellEmergencies(o, g)
		n.tellEffects(o, g)
		n.tellLog(ctx, o, g)
		return nil
	}, all...)
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// label is a set of values that a gauge is told under.
type label struct{ drill, kind, state string }

func (l label) attributes() metric.MeasurementOption {
	list := []attribute.KeyValue{attribute.String("drill", l.drill)}
	if l.kind != "" {
		list = append(list, attribute.String("kind", l.kind))
	}
	if l.state != "" {
		list = append(list, attribute.String("state", l.state))
	}
	return metric.WithAttributes(list...)
}

// tellEmergencies tells about all incidents.
func (n *Node) tellEmergencies(o metric.Observer, g gauges) {
	now := n.set.Clock.Now()
	open := map[label]int64{{drill: "false"}: 0, {drill: "true"}: 0}
	owed, overdue := map[label]int64{}, map[label]int64{}
	sessions := map[label]int64{{drill: "false", state: "live"}: 0, {drill: "false", state: "frozen"}: 0}
	n.incidents.Each(func(s *procedure.State) {
		drill := fmt.Sprint(s.Declared.Drill)
		for _, x := range s.Obligations {
			kind := label{drill: drill, kind: x.Kind}
			owed[kind] += count(x.Open()) // told also where it is none
			overdue[kind] += count(x.Overdue(now))
		}
		for i := range s.Grants {
			switch grant := &s.Grants[i]; grant.State {
			case procedure.GrantFrozen:
				why := strings.ToLower(strings.TrimPrefix(grant.FreezeCause.String(), "SESSION_CAUSE_"))
				if grant.FreezeCause == emergencyv1.SessionCause_SESSION_CAUSE_UNSPECIFIED {
					why = ""
				}
				sessions[label{drill, why, "frozen"}]++
			case procedure.GrantIssued, procedure.GrantWatcherReady, procedure.GrantLive, procedure.GrantStillUsable:
				sessions[label{drill, "", strings.ToLower(string(grant.State))}]++
			case procedure.GrantExpired, procedure.GrantTerminated, procedure.GrantDisabled, procedure.GrantProvenUnusable, procedure.GrantSealed: // ended
			}
		}
		if s.Status != procedure.Open {
			return
		}
		open[label{drill: drill}]++
		for _, dl := range procedure.Deadlines(s) {
			if dl.Key == "overall" && dl.MetAt.IsZero() {
				o.ObserveInt64(g.left, int64(dl.Due.Sub(now)/time.Second), metric.WithAttributes(attribute.String("incident", s.Incident), attribute.String("drill", drill)))
			}
		}
	})
	for gauge, values := range map[metric.Int64Observable]map[label]int64{g.open: open, g.owed: owed, g.overdue: overdue, g.sessions: sessions} {
		for l, v := range values {
			o.ObserveInt64(gauge, v, l.attributes())
		}
	}
}

func count(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

func (n *Node) tellEffects(o metric.Observer, g gauges) {
	for name, s := range n.services {
		var failing, givenUp int64
		for _, t := range s.Trouble() {
			if t.GivenUp {
				givenUp++
			} else {
				failing++
			}
		}
		of := metric.WithAttributes(attribute.String("owner", name))
		o.ObserveInt64(g.waiting, int64(s.Waiting()), of)
		o.ObserveInt64(g.failing, failing, of)
		o.ObserveInt64(g.givenUp, givenUp, of)
	}
}

// askLog is how long the event log may take to answer, so that a scrape does not end without the rest.
const askLog = 2 * time.Second

func (n *Node) tellLog(ctx context.Context, o metric.Observer, g gauges) {
	ctx, cancel := context.WithTimeout(ctx, askLog)
	defer cancel()
	stream, ahead, err := n.stream(ctx)
	if err != nil {
		o.ObserveInt64(g.answers, 0)
		return
	}
	o.ObserveInt64(g.answers, 1)
	o.ObserveInt64(g.ahead, int64(ahead.Round(time.Second).Seconds()))
	o.ObserveInt64(g.stored, int64(stream.State.LastSeq))
	o.ObserveInt64(g.behind, int64(len(streamOf(stream).Behind)))
	n.tellRoom(o, g, stream)
	for _, name := range n.buckets() {
		if s, err := n.js.Stream(ctx, name); err == nil { // what is not told is an alarm of its own: of the log
			n.tellRoom(o, g, s.CachedInfo())
		}
	}
}

// tellRoom tells how full a stream is: what is full takes no more, and nothing is dropped to make room.
func (n *Node) tellRoom(o metric.Observer, g gauges, s *jetstream.StreamInfo) {
	of := metric.WithAttributes(attribute.String("stream", s.Config.Name))
	o.ObserveInt64(g.bytes, int64(s.State.Bytes), of)
	o.ObserveInt64(g.limit, s.Config.MaxBytes, of)
}

// traced makes a span and a measurement of each request, streams and what probes ask for excepted. A trace begins here, as a browser's word
// about one is nobody's. Address, browser and path are left out: they are personal, and the path of an answer page is a secret.
func (n *Node) traced(h http.Handler) (http.Handler, error) {
	tracer := n.tel.Tracer.Tracer(scope)
	took, err := n.tel.Meter.Meter(scope).Float64Histogram("http.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time to answer a request for a page, by route and status."),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10))
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" && r.TLS != nil && len(r.TLS.VerifiedChains) == 0 { // the pages may be open to the world
			http.Error(w, "metrics are for who has a certificate", http.StatusForbidden)
			return
		}
		if strings.Contains(r.Header.Get("Accept"), "text/event-stream") || slices.Contains([]string{"/metrics", "/healthz", "/readyz"}, r.URL.Path) {
			h.ServeHTTP(w, r)
			return
		}
		begun := time.Now()
		ctx, span := tracer.Start(r.Context(), "page", trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		r, sent := r.WithContext(ctx), &answered{ResponseWriter: w, code: http.StatusOK}
		h.ServeHTTP(sent, r)
		route := r.Pattern // of the last mux that it came through, as they are handed the same request
		if route == "" {
			route = "none"
		}
		span.SetName("page " + route)
		list := []attribute.KeyValue{attribute.String("http.route", route), attribute.Int("http.response.status_code", sent.code)}
		span.SetAttributes(list...)
		if sent.code >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
		took.Record(ctx, time.Since(begun).Seconds(), metric.WithAttributes(list...))
	}), nil
}

// answered remembers what was answered.
type answered struct {
	http.ResponseWriter
	code int
}

func (s *answered) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (s *answered) Unwrap() http.ResponseWriter { return s.ResponseWriter }
