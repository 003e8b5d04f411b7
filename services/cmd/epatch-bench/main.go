// SPDX-License-Identifier: Apache-2.0

// epatch-bench measures the system side by side with what it stands on, in one run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"cacert.org/emergency/services/internal/bench"
)

func main() {
	var opt bench.Options
	flag.StringVar(&opt.JSON, "json", "", "file that the figures are written to, as a list of {name, value, unit, baseline, ratio, range, baseline_range, note}")
	flag.DurationVar(&opt.Slice, "slice", 2*time.Second, "how long one side is measured before the other has its turn")
	flag.IntVar(&opt.Rounds, "rounds", 3, "turns of each side; the median counts")
	flag.IntVar(&opt.Incidents, "incidents", 50, "incidents of the rebuild")
	flag.IntVar(&opt.Events, "events", 100, "events of each")
	flag.IntVar(&opt.Records, "records", 100_000, "records in the large log of the part scale, 100 an incident; a million takes 4 GiB of memory and ten minutes")
	flag.StringVar(&opt.Only, "only", "", "measure one part alone: "+strings.Join(bench.Parts(), ", "))
	flag.Parse()
	opt.Out = os.Stdout
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := bench.Run(ctx, opt); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}
