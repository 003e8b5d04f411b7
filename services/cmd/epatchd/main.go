// SPDX-License-Identifier: Apache-2.0

// epatchd runs the services of CAcert's emergency patch procedure.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"cacert.org/emergency/services/demo"
	"cacert.org/emergency/services/internal/app"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := app.Command(os.Environ())
	root.AddCommand(demo.Command())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}
