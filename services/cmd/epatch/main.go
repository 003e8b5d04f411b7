// SPDX-License-Identifier: Apache-2.0

// Command epatch runs CAcert's emergency procedure from the command line. See epatch --help.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"cacert.org/emergency/services/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, cli.Process{
		Args: os.Args[1:], Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Now: time.Now, Zone: time.Local,
	})
	stop()
	os.Exit(code)
}
