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
	"cacert.org/emergency/pkg/version"
	"cacert.org/emergency/services/agent/session"
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
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true, Version: version.String(),
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	fs := cmd.Flags()
	cfg.Flags(fs)
	fs.String(config.FileFlag, "", "JSON file of settings, named as the flags")
	fs.StringVar(&format, "agent-log-format", "text", "text or json")
	fs.StringVar(&level, "agent-log-level", "info", "debug, info, warn or error")
	config.Describe(fs)
	cmd.AddCommand(shellCommand(environ))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := config.Load(fs, config.Options{Environ: own(environ), Strict: true}); err != nil {
			return err
		}
		return run(cmd.Context(), cfg, format, level)
	}
	return cmd
}

// shellCommand is what a one-time key of a watched session may run, and nothing else.
func shellCommand(environ []string) *cobra.Command {
	cfg := session.ShellConfig{Environ: environ}
	cmd := &cobra.Command{
		Use:   "console-shell --socket PATH --grant INCIDENT/GRANT",
		Short: "The shell of a watched console session; sshd runs it",
		Long: "console-shell announces itself to the agent of this host and then starts the account's login shell. It is the forced\n" +
			"command of the one-time keys that the agent installs, and of no use to anybody else.",
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(*cobra.Command, []string) error {
			status, err := session.Shell(cfg)
			if status == 0 && err == nil {
				return nil
			}
			return &shellError{status, err}
		},
	}
	cmd.Flags().StringVar(&cfg.Socket, "socket", "", "socket of the agent")
	cmd.Flags().StringVar(&cfg.Grant, "grant", "", "grant of the session, such as e20261124.1/G1")
	return cmd
}

// shellError carries a shell's exit status; err is nil if the shell itself chose it.
type shellError struct {
	status int
	err    error
}

func (e *shellError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *shellError) Unwrap() error { return e.err }

// ExitStatus is the exit status of the program for an error of its command. Nothing is to be said about an error without text.
func ExitStatus(err error) int {
	var shell *shellError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &shell) && shell.status != 0:
		return shell.status
	}
	return 1
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
	tel, err := telemetry.Start(ctx, telemetry.Config{Service: "epatch-agent", Version: version.Number(), Format: format, Level: l})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tel.Shutdown(context.WithoutCancel(ctx))) }()
	a, err := New(cfg, Deps{Log: tel.Logger, Tracer: tel.Tracer})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return a.Run(ctx)
}
