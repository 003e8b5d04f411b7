// SPDX-License-Identifier: Apache-2.0

package app

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/config"
	"cacert.org/emergency/services/demo"
)

// Command is the command line of epatchd.
func Command(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use: "epatchd", Short: "Services of CAcert's emergency patch procedure", Version: Version(), SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(allCommand(environ), demoCommand())
	return root
}

// allCommand runs everything in one process.
func allCommand(environ []string) *cobra.Command {
	var set Settings
	cmd := &cobra.Command{
		Use:   "all",
		Short: "Run all services in one process, with an embedded log, a development authority and a demo rule book",
		Long: "Run all services in one process. The log is on disk and every write is synced. The certificates and people are a demo's:\n" +
			"whoever can read the data folder is everybody, so never use it where an emergency can be real.",
		Args: cobra.NoArgs,
	}
	set.Flags(cmd.Flags())
	cmd.Flags().String(config.FileFlag, "", "file with settings, one JSON object")
	config.Describe(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := config.Secret(cmd.Flags(), Secrets()...); err != nil {
			return err
		}
		if _, err := config.Load(cmd.Flags(), config.Options{Environ: environ}); err != nil {
			return err
		}
		n, err := Open(cmd.Context(), set)
		if err != nil {
			return err
		}
		run := n.Run(cmd.Context(), func(a Addresses) {
			fmt.Fprintf(cmd.OutOrStdout(), "ready api=%s http=%s https=%s\n", a.API, a.HTTP, a.HTTPS)
		})
		if err := n.Close(); run == nil {
			run = err
		}
		return run
	}
	return cmd
}

func demoCommand() *cobra.Command {
	opt := demo.Options{Out: os.Stdout}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play one emergency on real trees, and stay up",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return demo.Run(cmd.Context(), opt) },
	}
	cmd.Flags().StringVar(&opt.Data, "data", "demo-data", "folder under which everything lies")
	cmd.Flags().IntVar(&opt.Scenario, "scenario", 1, "strategy that is played: 1, 2 or 3")
	cmd.Flags().BoolVar(&opt.Once, "once", false, "end after the play, with a status")
	cmd.Flags().StringVar(&opt.Listen, "listen", "localhost:7443", "address of the gRPC API; port 0 takes any free one")
	cmd.Flags().StringVar(&opt.HTTP, "http", "localhost:7080", "address of the public log")
	cmd.Flags().StringVar(&opt.HTTPS, "https", "localhost:7444", "address of the same pages by TLS")
	return cmd
}
