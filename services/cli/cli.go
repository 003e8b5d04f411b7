// SPDX-License-Identifier: Apache-2.0

// Package cli is epatch, the program for people who are called at three in the morning.
//
// One command is one act of the procedure, and asks for nothing that the system knows: trees, digests, bindings, host and
// observer come from the incident's history, which this machine verifies itself before anything is signed. The rules are
// not repeated here; what may be done is asked of pkg/procedure, and a refusal is shown whole, with what would allow it and
// the command to type. Texts of others never reach the terminal as control characters. Nothing is asked interactively, so
// every command can also be scripted; --json prints the answers of the API, one line each.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cacert.org/emergency/pkg/config"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/version"
	"cacert.org/emergency/services/cli/client"
)

// Process is what the program gets from its surroundings.
type Process struct {
	// Args are the arguments after the program's name, Environ the environment as os.Environ gives it.
	Args, Environ []string
	Stdin         io.Reader
	Stdout        io.Writer
	Stderr        io.Writer
	// Now is the clock, Zone the zone in which times are shown.
	Now  func() time.Time
	Zone *time.Location
}

// Run runs one command and returns the exit code; --help lists them. A cancelled ctx ends it as an interrupt does.
func Run(ctx context.Context, p Process) int {
	a := &app{proc: p, out: newPrinter(p.Stdout, p), errs: newPrinter(p.Stderr, p)}
	cmd, exit := a.execute(a.traced(ctx))
	a.close()
	a.concluded(cmd, exit)
	return exit
}

// execute runs the command that the command line names, and shows what went wrong.
func (a *app) execute(ctx context.Context) (*cobra.Command, int) {
	root := a.root()
	a.top = root
	root.SetArgs(a.proc.Args)
	root.SetIn(a.proc.Stdin)
	root.SetOut(a.proc.Stdout)
	root.SetErr(a.proc.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var captured *client.Captured
	switch {
	case err == nil:
		return cmd, exitOK
	case errors.As(err, &captured):
		a.captured(captured)
		return cmd, exitOK
	case !a.started:
		f := usage("%v", err)
		var said *failure
		if errors.As(err, &said) {
			f.hints = said.hints
		}
		return cmd, a.show(f.hint("usage: %s%s", cmd.UseLine(), choice(cmd.UseLine())).hint("%s --help says more", cmd.CommandPath()))
	}
	return cmd, a.show(err)
}

// app is one run of the program.
type app struct {
	proc      Process
	opt       options
	out, errs *printer
	conn      *client.Client
	trace     tracing
	started   bool // a command's own part was reached: an error is not about the command line
	chosen    string
	flagged   bool // the incident was named with -i
	several   bool // more than one incident could be meant
	top       *cobra.Command
	merging   [2]string // the duplicate, and what it is to be merged into
}

// whereToLook helps where a folder is missing: the one of a local server is seldom the default.
const whereToLook = "name it: --data FOLDER (or EPATCH_DATA), the folder that make demo or make run printed, or --ca FILE, or --profile DIR"

// options are the settings that every command has.
type options struct {
	server, profile, as, data, keyring, roots, incident, offline string
	servers                                                      map[string]*string
	json                                                         bool
}

const about = `epatch runs CAcert's emergency procedure from the command line: one command for each act.

You are recognised by the certificate in your profile folder (cert.pem, key.pem, ca.pem). What you approve is signed with
your key on this machine, over the history as this machine has verified it. Without a command, epatch shows what waits
for you.

`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "epatch", Short: "Emergency patches: call, review, test, deploy, document", Long: about + exitCodes, Version: version.String(),
		Example: `  epatch --as carla declare "login page answers 500 for everybody" --reason "members cannot log in" --class outage
  epatch inbox                       what waits for me, most urgent first
  epatch options                     what I can do now, and why not the rest
  epatch accept                      take the open slot I was called for
  epatch review first approve P1r1`,
		SilenceErrors: true, SilenceUsage: true, Args: noCommand,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			err := a.setUp(cmd)
			a.started = true
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.opt.profile == "" {
				return cmd.Help()
			}
			return a.inbox(cmd.Context())
		},
	}
	a.flags(root.PersistentFlags())
	root.AddGroup(&cobra.Group{ID: "see", Title: "See what is going on:"}, &cobra.Group{ID: "lead", Title: "The incident:"}, &cobra.Group{ID: "team", Title: "Teams:"},
		&cobra.Group{ID: "patch", Title: "Patch, reviews, tests:"}, &cobra.Group{ID: "host", Title: "Deployment:"},
		&cobra.Group{ID: "console", Title: "Watched console (strategy 3):"}, &cobra.Group{ID: "law", Title: "Disputes and arbitration:"},
		&cobra.Group{ID: "proof", Title: "Evidence:"}, &cobra.Group{ID: "book", Title: "Rule book:"})
	for _, g := range []struct {
		id   string
		list []*cobra.Command
	}{
		{"see", a.seeCommands()}, {"lead", a.incidentCommands()}, {"team", a.teamCommands()}, {"patch", a.patchCommands()},
		{"host", a.hostCommands()}, {"console", a.consoleCommands()}, {"law", a.lawCommands()}, {"proof", a.proofCommands()}, {"book", a.bookCommands()},
	} {
		for _, c := range g.list {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	return root
}

func (a *app) flags(fs *pflag.FlagSet) {
	o := &a.opt
	fs.StringVar(&o.server, "server", "localhost:7443", "address of the services, host:port; of one that is elsewhere: --server-NAME, such as --server-review")
	fs.StringVar(&o.profile, "profile", "", "folder with your cert.pem, key.pem and ca.pem")
	fs.StringVar(&o.as, "as", "", "a person of the demo instead of --profile: the folder people/NAME below --data")
	fs.StringVar(&o.data, "data", "epatch-data", "folder of a local epatchd, for --as and the keyring")
	fs.StringVar(&o.keyring, "keyring", "", "file of the services' public keys (default: services.keys.json in the profile or --data)")
	fs.StringVar(&o.roots, "ca", "", "authorities that verify the server where there is no profile (default: the demo's below --data)")
	fs.StringVarP(&o.incident, "incident", "i", "", "incident (default: the only open one that involves you)")
	fs.StringVar(&o.offline, "offline-file", "", "ask no server: sign the one act as done now and keep it in this file, for epatch submit (G9)")
	fs.BoolVar(&o.json, "json", false, "print the answers of the API as JSON, one a line; errors too, on standard error")
	o.servers = map[string]*string{}
	for _, name := range append(procedure.Owners(), client.Dashboard) {
		o.servers[name] = fs.String("server-"+name, "", "address of the "+name+" service, if it is another")
		fs.Lookup("server-" + name).Hidden = true // one line of help says it for all of them
	}
	config.Describe(fs)
}

// setUp reads what the command line did not say from the environment, and finds profile and keyring.
func (a *app) setUp(cmd *cobra.Command) error {
	given := map[string]bool{}
	rest := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	cmd.Root().PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if given[f.Name] = f.Changed; !f.Changed {
			rest.AddFlag(f)
		}
	})
	if _, err := config.Load(rest, config.Options{Environ: a.proc.Environ}); err != nil {
		return usage("%v", err)
	}
	a.flagged = given["incident"]
	return a.findProfile(given)
}

func (a *app) findProfile(given map[string]bool) error {
	o := &a.opt
	switch {
	case given["as"] && given["profile"]:
		return usage("--as and --profile both say who you are; give one")
	case o.as != "" && !given["profile"]: // a name on the command line goes before a folder in the environment
		o.profile = filepath.Join(o.data, "people", o.as)
		if _, err := os.Stat(o.profile); err != nil {
			return fail(exitIdentity, "there is no demo person %q under %s", o.as, filepath.Join(o.data, "people")).
				hint("known there: %s", strings.Join(names(filepath.Join(o.data, "people")), ", ")).hint("%s", whereToLook)
		}
	}
	if o.keyring == "" {
		for _, dir := range []string{o.profile, o.data} {
			file := filepath.Join(dir, "services.keys.json")
			if _, err := os.Stat(file); dir != "" && err == nil {
				o.keyring = file
				break
			}
		}
	}
	if root := filepath.Join(o.data, "ca", "root", "cert.pem"); o.roots == "" {
		o.roots = root
	}
	return nil
}

func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{"nobody"}
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// client connects as the person; refuses where nobody is named.
func (a *app) client() (*client.Client, error) {
	if a.opt.profile == "" {
		return nil, fail(exitIdentity, "who are you? no profile is named").
			hint("your profile folder: --profile DIR, or EPATCH_PROFILE").hint("a person of the demo: --as NAME")
	}
	return a.dial()
}

// dial connects, with the person's identity if there is one.
func (a *app) dial() (*client.Client, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	cfg := client.Config{
		Server: a.opt.server, Servers: map[string]string{}, Profile: a.opt.profile, Roots: a.opt.roots, Keyring: a.opt.keyring, Now: a.proc.Now,
		Copies: a.copies(), OfflineFile: a.opt.offline, Tracer: a.trace.provider,
		OnRetry: func(_ error, wait time.Duration) {
			a.progress("the server does not answer; trying again in %s", wait.Round(100*time.Millisecond))
		},
	}
	for name, addr := range a.opt.servers {
		cfg.Servers[name] = *addr
	}
	c, err := client.Dial(cfg)
	if err != nil {
		f := fail(exitIdentity, "%v", err)
		if errors.Is(err, os.ErrNotExist) {
			f.hint("%s", whereToLook)
		}
		return nil, f
	}
	a.conn = c
	return c, nil
}

func (a *app) close() {
	if a.conn != nil {
		_ = a.conn.Close() // nothing is lost with it
	}
}

// note tells a person what to think of, without stopping.
func (a *app) note(format string, args ...any) {
	if !a.opt.json {
		a.errs.line("%s %s", alert("note:"), fmt.Sprintf(format, args...))
	}
}

// progress tells what takes time, to a person who waits at a terminal.
func (a *app) progress(format string, args ...any) {
	if a.errs.tty && !a.opt.json {
		a.errs.line("%s", dim("... "+fmt.Sprintf(format, args...)))
	}
}
