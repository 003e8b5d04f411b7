// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Outcome is what became of a command or an effect. Metrics label by it, so the values are few and fixed.
type Outcome string

// The outcomes of a command.
const (
	Accepted    Outcome = "accepted"    // decided and appended
	Repeated    Outcome = "repeated"    // a request id that was there already: first result returned
	Refused     Outcome = "refused"     // a rule said no
	Conflict    Outcome = "conflict"    // ABORTED: others were faster too often
	Unavailable Outcome = "unavailable" // could not be decided or appended
	Defect      Outcome = "defect"      // none of these should happen
)

// The outcomes of an effect.
const (
	Done    Outcome = "done"
	Failed  Outcome = "failed"
	Unknown Outcome = "unknown" // done or not, nobody can tell
)

// Metrics are the instruments that several packages share. A nil *Metrics measures nothing. Names of commands, effects
// and projections become labels: pass names from the code, never text from a caller.
type Metrics struct {
	commands    metric.Int64Counter
	appends     metric.Float64Histogram
	foreign     metric.Int64Counter
	effects     metric.Int64Counter
	projections metric.Int64Gauge
	behind      metric.Int64Gauge
	certificate metric.Int64Gauge
	notTaken    metric.Int64Counter
}

// NewMetrics makes the instruments. At /metrics they are called epatch_commands_total, epatch_append_duration_seconds,
// epatch_foreign_records_total, epatch_effects_total, epatch_projection_position, epatch_projection_behind,
// epatch_certificate_end_seconds and epatch_profile_not_taken_total.
func NewMetrics(p metric.MeterProvider) (*Metrics, error) {
	meter := p.Meter("cacert.org/emergency")
	m, errs := &Metrics{}, make([]error, 8)
	m.commands, errs[0] = meter.Int64Counter("epatch.commands", metric.WithDescription("Commands decided, by command and outcome."))
	m.appends, errs[1] = meter.Float64Histogram("epatch.append.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from append to acknowledgement by the log."),
		metric.WithExplicitBucketBoundaries(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10))
	m.foreign, errs[2] = meter.Int64Counter("epatch.foreign.records", metric.WithDescription("Records skipped because chain, signature or owner is wrong. Any is an alarm."))
	m.effects, errs[3] = meter.Int64Counter("epatch.effects", metric.WithDescription("Effects on the outside, by effect and outcome."))
	m.projections, errs[4] = meter.Int64Gauge("epatch.projection.position", metric.WithDescription("How far a projection has read the log."))
	m.behind, errs[5] = meter.Int64Gauge("epatch.projection.behind", metric.WithDescription("Records of the log that a projection does not have yet."))
	m.certificate, errs[6] = meter.Int64Gauge("epatch.certificate.end", metric.WithUnit("s"), metric.WithDescription("When the certificate of this process ends, in seconds since 1970."))
	m.notTaken, errs[7] = meter.Int64Counter("epatch.profile.not.taken", metric.WithDescription("Changes of certificate, key or authorities on disk that could not be used; the ones from before stay."))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	m.foreign.Add(context.Background(), 0) // so that the first one is seen as a rise, and none as none
	m.notTaken.Add(context.Background(), 0)
	return m, nil
}

// Command counts one decided command.
func (m *Metrics) Command(ctx context.Context, command string, o Outcome) {
	if m != nil {
		m.commands.Add(ctx, 1, labels("command", command, o))
	}
}

// Append measures one append, from sending to acknowledgement.
func (m *Metrics) Append(ctx context.Context, took time.Duration) {
	if m != nil {
		m.appends.Record(ctx, took.Seconds())
	}
}

// Foreign counts one record that was skipped.
func (m *Metrics) Foreign(ctx context.Context) {
	if m != nil {
		m.foreign.Add(ctx, 1)
	}
}

// Effect counts one effect.
func (m *Metrics) Effect(ctx context.Context, effect string, o Outcome) {
	if m != nil {
		m.effects.Add(ctx, 1, labels("effect", effect, o))
	}
}

// Behind says how many records of the log are not in a projection yet.
func (m *Metrics) Behind(ctx context.Context, projection string, records uint64) {
	if m != nil {
		m.behind.Record(ctx, int64(records), metric.WithAttributes(attribute.String("projection", projection)))
	}
}

// Projection says how far a projection has read: the sequence in the log.
func (m *Metrics) Projection(ctx context.Context, projection string, position uint64) {
	if m != nil {
		m.projections.Record(ctx, int64(position), metric.WithAttributes(attribute.String("projection", projection)))
	}
}

// Certificate says when the process's own certificate ends.
func (m *Metrics) Certificate(ctx context.Context, end time.Time) {
	if m != nil {
		m.certificate.Record(ctx, end.Unix())
	}
}

// ProfileNotTaken counts one change of the process's certificate, key or authorities on disk that cannot be used.
func (m *Metrics) ProfileNotTaken(ctx context.Context) {
	if m != nil {
		m.notTaken.Add(ctx, 1)
	}
}

func labels(key, name string, o Outcome) metric.MeasurementOption {
	switch o {
	case Accepted, Repeated, Refused, Conflict, Unavailable, Defect, Done, Failed, Unknown:
	default:
		o = "other" // whatever it is, it must not become a label
	}
	return metric.WithAttributes(attribute.String(key, name), attribute.String("outcome", string(o)))
}
