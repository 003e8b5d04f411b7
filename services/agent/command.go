// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/config"
	"cacert.org/emergency/pkg/telemetry"
)

// variables begins the name of every variable of the agent; those of other programs of the family are not its business.
const variables = config.Prefix + "AGENT_"

// Command is the program epatch-agent. Settings come from flags, variables EPATCH_AGENT_*, and the file that --config names.
func Command(environ []string) *cobra.Command {
	var cfg Config
	var format, level string
	cmd := &cobra.Command{
		Use:   "epatch-agent",
		Short: "Applies reviewed patches on a critical host or test server",
		Long: "epatch-agent runs on a critical host or a test server, connects to the services and opens no port.\n" +
			"It changes files only after it has itself verified the history of the incident: signatures of services\n" +
			"and people, the gate, the bytes of the patch, and the tree before and after.",
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
	}
	fs := cmd.Flags()
	cfg.Flags(fs)
	fs.String(config.FileFlag, "", "JSON file of settings, named as the flags")
	fs.StringVar(&format, "agent-log-format", "text", "text or json")
	fs.StringVar(&level, "agent-log-level", "info", "debug, info, warn or error")
	config.Describe(fs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := config.Load(fs, config.Options{Environ: own(environ), Strict: true}); err != nil {
			return err
		}
		return run(cmd.Context(), cfg, format, level)
	}
	return cmd
}

// own leaves out the variables of other programs.
func own(environ []string) []string {
	var list []string
	for _, v := range environ {
		if strings.HasPrefix(v, variables) || strings.HasPrefix(v, config.Variable(config.FileFlag)+"=") {
			list = append(list, v)
		}
	}
	return list
}

func run(ctx context.Context, cfg Config, format, level string) (err error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("setting agent-log-level: %q is none of debug, info, warn, error", level)
	}
	tel, err := telemetry.Start(ctx, telemetry.Config{Service: "epatch-agent", Format: format, Level: l})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tel.Shutdown(context.WithoutCancel(ctx))) }()
	a, err := New(cfg, Deps{Log: tel.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return a.Run(ctx)
}
