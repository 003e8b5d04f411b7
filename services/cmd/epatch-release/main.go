// SPDX-License-Identifier: Apache-2.0

// epatch-release makes the files of a release, twice, and compares them. See docs/release.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"cacert.org/emergency/services/internal/release"
)

func main() {
	cfg := release.Config{Say: func(format string, a ...any) { fmt.Printf(format+"\n", a...) }}
	var platforms, programs string
	flag.StringVar(&cfg.Source, "source", ".", "git repository")
	flag.StringVar(&cfg.Commit, "commit", "HEAD", "what is built; changes that are not committed are not in it")
	flag.StringVar(&cfg.Out, "out", "release", "new folder for the files")
	flag.StringVar(&platforms, "platforms", "", "only these, separated by commas, such as linux/amd64")
	flag.StringVar(&programs, "programs", "", "only these, separated by commas, for a quick check")
	flag.Parse()
	for _, p := range release.Platforms() {
		if platforms != "" && !slices.Contains(strings.Split(platforms, ","), p.String()) {
			continue
		}
		if programs != "" {
			p.Programs = slices.DeleteFunc(p.Programs, func(name string) bool { return !slices.Contains(strings.Split(programs, ","), name) })
		}
		if len(p.Programs) > 0 {
			cfg.Platforms = append(cfg.Platforms, p)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := release.Make(ctx, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
