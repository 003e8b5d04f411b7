// SPDX-License-Identifier: Apache-2.0

package app

import (
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/config"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/services/demo"
)

// Command is the command line of epatchd.
func Command(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use: "epatchd", Short: "Services of CAcert's emergency patch procedure", Version: Version(), SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(allCommand(environ), demoCommand())
	for _, name := range serviceNames() {
		root.AddCommand(serviceCommand(name, environ))
	}
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
	runs(cmd, &set, environ)
	return cmd
}

// serviceCommand runs one service, of which there may be several instances.
func serviceCommand(name string, environ []string) *cobra.Command {
	set := Settings{Service: name}
	what := map[string]string{
		procedure.OwnerIncident:     "declarations, strategies, decisions, the clock, closing",
		procedure.OwnerNotification: "call-out of teams, answers, standby, reminders",
		procedure.OwnerReview:       "patches, reviews, transfer, tests",
		procedure.OwnerDeployment:   "deployment, the watched console, replication",
		procedure.OwnerArbitration:  "the rule book, documentation, disputes, rulings, redaction",
		dashboardName:               "queries, pages, the public log",
	}
	cmd := &cobra.Command{
		Use:   name,
		Short: "Run the " + name + " service alone: " + what[name],
		Long: "Run the " + name + " service alone, against an event log that runs elsewhere. Several instances may run at the same time, each with a data\n" +
			"folder of its own. deploy/ has the accounts of the event log, units and a walk through a whole installation.",
		Args: cobra.NoArgs,
	}
	set.ServiceFlags(cmd.Flags(), name)
	runs(cmd, &set, environ)
	return cmd
}

// runs makes a command run a node with the settings of its flags, of the environment and of a file.
func runs(cmd *cobra.Command, set *Settings, environ []string) {
	cmd.Flags().String(config.FileFlag, "", "file with settings, one JSON object")
	config.Describe(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		secret := slices.DeleteFunc(Secrets(), func(name string) bool { return cmd.Flags().Lookup(name) == nil })
		if err := config.Secret(cmd.Flags(), secret...); err != nil {
			return err
		}
		if _, err := config.Load(cmd.Flags(), config.Options{Environ: environ}); err != nil {
			return err
		}
		n, err := Open(cmd.Context(), *set)
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
