// SPDX-License-Identifier: Apache-2.0

// epatch-agent applies reviewed patches on a critical host or test server.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"cacert.org/emergency/services/agent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := agent.Command(os.Environ()).ExecuteContext(ctx); err != nil {
		if err.Error() != "" {
			fmt.Fprintln(os.Stderr, "error:", err)
		}
		stop()
		os.Exit(agent.ExitStatus(err)) //nolint:gocritic // stop was called
	}
}
