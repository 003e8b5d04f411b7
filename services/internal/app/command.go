// SPDX-License-Identifier: Apache-2.0

package app

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cacert.org/emergency/pkg/config"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/version"
)

// Command is the command line of epatchd.
// change changes the settings of what is run after flags, environment and file; for programs of tests.
func Command(environ []string, change ...func(*Settings)) *cobra.Command {
	root := &cobra.Command{
		Use: "epatchd", Short: "Services of CAcert's emergency patch procedure", Version: version.String(), SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(allCommand(environ, change))
	root.AddGroup(&cobra.Group{ID: "one", Title: "One service in a process, against an event log that runs elsewhere:"}, &cobra.Group{ID: "operator", Title: "Setting up and looking after an installation:"})
	for _, name := range serviceNames() {
		root.AddCommand(serviceCommand(name, environ, change))
	}
	for _, cmd := range []*cobra.Command{natsCommand(environ), establishCommand(environ), migrateCommand(environ), historyCommand(environ)} {
		cmd.GroupID = "operator"
		root.AddCommand(cmd)
	}
	return root
}

// allCommand runs everything in one process.
func allCommand(environ []string, change []func(*Settings)) *cobra.Command {
	var set Settings
	cmd := &cobra.Command{
		Use:   "all",
		Short: "Run all services in one process, with an embedded log, a development authority and a demo rule book",
		Long: "Run all services in one process. The log is on disk and every write is synced. The certificates and people are a demo's:\n" +
			"whoever can read the data folder is everybody, so never use it where an emergency can be real.",
		Args: cobra.NoArgs,
	}
	set.Flags(cmd.Flags())
	runs(cmd, &set, environ, change)
	return cmd
}

// serviceCommand runs one service, of which there may be several instances.
func serviceCommand(name string, environ []string, change []func(*Settings)) *cobra.Command {
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
		Use:     name,
		GroupID: "one",
		Short:   "Run the " + name + " service alone: " + what[name],
		Long: "Run the " + name + " service alone, against an event log that runs elsewhere. Several instances may run at the same time, each with a data\n" +
			"folder of its own. deploy/ has the accounts of the event log, units and a walk through a whole installation.",
		Args: cobra.NoArgs,
	}
	set.ServiceFlags(cmd.Flags(), name)
	runs(cmd, &set, environ, change)
	return cmd
}

// loads makes a command's flags settings, and returns what reads them from the environment and a file.
func loads(cmd *cobra.Command, environ []string) func() error {
	fs := cmd.Flags()
	fs.String(config.FileFlag, "", "file with settings, one JSON object")
	config.Describe(fs)
	return func() error {
		secret := slices.DeleteFunc(Secrets(), func(name string) bool { return fs.Lookup(name) == nil })
		if err := config.Secret(fs, secret...); err != nil {
			return err
		}
		return loadSettings(cmd, environ)
	}
}

// loadSettings fills a command's flags from the environment and a file. A variable that is nobody's setting is misspelt, and refused: a service that
// took its default instead would look well.
func loadSettings(cmd *cobra.Command, environ []string) error {
	others := slices.DeleteFunc(slices.Clone(environ), func(v string) bool { return strings.HasPrefix(v, config.Variable("agent-")) }) // which the agent reads, and refuses, itself
	_, err := config.Load(cmd.Flags(), config.Options{Environ: others, Strict: true, Known: family(cmd.Root())})
	return err
}

// family are settings that stand in an environment for others to read: all of epatchd, as docker-compose.yml gives them to the service whose
// container runs an operator's command, those of epatch in the shell of a person, and what docker-compose.yml itself reads there.
func family(root *cobra.Command) []string {
	names := []string{"server", "profile", "as", "keyring", "ca", "incident", "offline-file", "json", "installation", "console-1", "console-2"}
	for _, service := range serviceNames() {
		names = append(names, "server-"+service)
	}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return names
}

// runs makes a command run a node.
func runs(cmd *cobra.Command, set *Settings, environ []string, change []func(*Settings)) {
	load := loads(cmd, environ)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := load(); err != nil {
			return err
		}
		for _, f := range change {
			f(set)
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
