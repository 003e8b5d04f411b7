// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"os"

	"github.com/spf13/cobra"
)

// Command is the command line of the demo.
func Command() *cobra.Command {
	opt := Options{Out: os.Stdout}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play one emergency on real trees, and stay up",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return Run(cmd.Context(), opt) },
	}
	cmd.Flags().StringVar(&opt.Data, "data", "demo-data", "folder under which everything lies")
	cmd.Flags().IntVar(&opt.Scenario, "scenario", 1, "strategy that is played: 1, 2 or 3")
	cmd.Flags().BoolVar(&opt.Cluster, "cluster", false, "on three servers of the event log with every service in two processes, instead of one process with everything")
	cmd.Flags().BoolVar(&opt.Once, "once", false, "end after the play, with a status")
	cmd.Flags().StringVar(&opt.Listen, "listen", "localhost:7443", "address of the gRPC API; port 0 takes any free one")
	cmd.Flags().StringVar(&opt.HTTP, "http", "localhost:7080", "address of the public log")
	cmd.Flags().StringVar(&opt.HTTPS, "https", "localhost:7444", "address of the same pages by TLS")
	return cmd
}
