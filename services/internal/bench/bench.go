// SPDX-License-Identifier: Apache-2.0

// Package bench measures the system against what it stands on, in one run on one machine: each side has its turn, several
// times, and the medians are compared. It judges nothing; the ratios are what to look at, the absolute figures are the
// machine's. Client and server run in one process, so a command's allocations are those of both ends together.
package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// Options of a run.
type Options struct {
	// Out gets the table, JSON names a file for the figures.
	Out  io.Writer
	JSON string
	// Slice is how long one side is measured before the other has its turn, Rounds how many turns each has.
	Slice  time.Duration
	Rounds int
	// Incidents and Events size the rebuild.
	Incidents, Events int
	// Records sizes the log of the part that is about large ones.
	Records int
	// Only names the one part that is measured; all of them if empty.
	Only string
}

// part is something that can be measured by itself: on a system in this process, or on one of its own.
type part struct {
	name    string
	measure func(context.Context, *rig, Options) ([]Figure, error)
	own     func(context.Context, Options) ([]Figure, error)
}

func parts() []part {
	return []part{
		{name: "cluster", own: replicated},
		{name: "commands", measure: commands}, {name: "lengths", measure: lengths}, {name: "loads", measure: loads}, {name: "rebuild", measure: rebuild},
		{name: "scale", measure: scale}, {name: "console", measure: console}, {name: "pages", measure: pages},
	}
}

// Parts are the names that Options.Only takes.
func Parts() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// Figure is one line: a value, what it is compared with, and value / baseline.
type Figure struct {
	Name     string  `json:"name"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Baseline float64 `json:"baseline"`
	Ratio    float64 `json:"ratio"`
	// Range and BaselineRange are the least and the most of the turns, where Value and Baseline are their medians.
	Range         []float64 `json:"range,omitempty"`
	BaselineRange []float64 `json:"baseline_range,omitempty"`
	// Note is why there is no value.
	Note string `json:"note,omitempty"`
}

// Run measures and prints.
func Run(ctx context.Context, opt Options) error {
	if opt.Only != "" && !slices.Contains(Parts(), opt.Only) {
		return fmt.Errorf("%q is no part of the measurement: take one of %s", opt.Only, strings.Join(Parts(), ", "))
	}
	var figures []Figure
	var r *rig
	for _, p := range parts() {
		if opt.Only != "" && p.name != opt.Only {
			continue
		}
		var f []Figure
		var err error
		switch {
		case p.own != nil:
			f, err = p.own(ctx, opt)
		case r == nil:
			if r, err = openRig(ctx); err != nil {
				return err
			}
			defer r.close()
			fallthrough
		default:
			f, err = p.measure(ctx, r, opt)
		}
		if err != nil {
			return err
		}
		figures = append(figures, f...)
	}
	if err := printTable(opt.Out, figures); err != nil {
		return err
	}
	return write(opt.JSON, figures)
}

func printTable(out io.Writer, figures []Figure) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "measured\tvalue\tbaseline\tunit\tratio\tvalue's range\tbaseline's range\t")
	for _, f := range figures {
		if f.Note != "" {
			fmt.Fprintf(w, "%s\t-\t-\t%s\t-\t\t\t\n", f.Name, f.Unit)
			continue
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%s\t%.2f\t%s\t%s\t\n", f.Name, f.Value, f.Baseline, f.Unit, f.Ratio, span(f.Range), span(f.BaselineRange))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, f := range figures {
		if f.Note != "" {
			fmt.Fprintf(out, "not measured: %s: %s\n", f.Name, f.Note)
		}
	}
	return nil
}

// span is the least and the most of a figure.
func span(r []float64) string {
	if len(r) != 2 {
		return ""
	}
	return fmt.Sprintf("%.1f to %.1f", r[0], r[1])
}

func write(path string, figures []Figure) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func figure(name, unit string, value, baseline float64) Figure {
	f := Figure{Name: name, Value: value, Unit: unit, Baseline: baseline}
	if baseline != 0 {
		f.Ratio = value / baseline
	}
	return f
}

// ranged is a figure of several turns of each side: their medians, with the least and the most.
func ranged(name, unit string, values, baselines []float64) Figure {
	values, baselines = slices.Sorted(slices.Values(values)), slices.Sorted(slices.Values(baselines))
	f := figure(name, unit, values[len(values)/2], baselines[len(baselines)/2])
	f.Range = []float64{values[0], values[len(values)-1]}
	f.BaselineRange = []float64{baselines[0], baselines[len(baselines)-1]}
	return f
}

// sample is one turn of one side.
type sample struct {
	perSecond float64
	allocs    float64 // per operation
	p99       time.Duration
}

// turn runs an operation in n goroutines for a while. An error ends it.
func turn(ctx context.Context, n int, slice time.Duration, op func(ctx context.Context, client int) error) (sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		stop  atomic.Bool
		group sync.WaitGroup
		mu    sync.Mutex
		took  []time.Duration
		first error
	)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for client := range n {
		group.Go(func() {
			var mine []time.Duration
			for !stop.Load() {
				begun := time.Now()
				if err := op(ctx, client); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
					stop.Store(true)
					return
				}
				mine = append(mine, time.Since(begun))
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		})
	}
	select {
	case <-time.After(slice):
	case <-ctx.Done():
	}
	stop.Store(true)
	group.Wait()
	whole := time.Since(start)
	runtime.ReadMemStats(&after)
	if first != nil {
		return sample{}, first
	}
	if len(took) == 0 {
		return sample{}, fmt.Errorf("nothing was done within %s", slice)
	}
	slices.Sort(took)
	return sample{float64(len(took)) / whole.Seconds(), float64(after.Mallocs-before.Mallocs) / float64(len(took)), took[len(took)*99/100]}, nil
}

// sideBySide gives each side its turns and returns the median of each measure.
func sideBySide(ctx context.Context, opt Options, n int, a, b func(ctx context.Context, client int) error) (sample, sample, error) {
	var as, bs []sample
	for range opt.Rounds {
		x, err := turn(ctx, n, opt.Slice, a)
		if err != nil {
			return sample{}, sample{}, err
		}
		y, err := turn(ctx, n, opt.Slice, b)
		if err != nil {
			return sample{}, sample{}, err
		}
		as, bs = append(as, x), append(bs, y)
	}
	return median(as), median(bs), nil
}

func median(list []sample) sample {
	pick := func(of func(sample) float64) float64 {
		v := make([]float64, len(list))
		for i, s := range list {
			v[i] = of(s)
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	return sample{
		pick(func(s sample) float64 { return s.perSecond }), pick(func(s sample) float64 { return s.allocs }),
		time.Duration(pick(func(s sample) float64 { return float64(s.p99) })),
	}
}
