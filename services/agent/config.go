// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/trace"
)

// Config of an agent.
type Config struct {
	// Name is the host or environment, as the rule book lists it for the agent's key.
	Name string
	// Kind is "host" for a critical host, "test" for a test server.
	Kind string
	// Root is the folder whose files are the tree.
	Root string
	// Include and Exclude say which files belong to it; see worktree.Spec. Nothing included means everything.
	Include, Exclude []string
	// StateDir holds journals, backups and what is known of the histories; outside Root and lost to nobody.
	StateDir string
	// Profile is the folder with the agent's certificate, key and authorities.
	Profile string
	// Dev accepts a key file that others may read; only with a development authority.
	Dev bool
	// Keyring is the file that says which service key owns which records. It is brought here by an operator, not by a service.
	Keyring string
	// Services is the address of the API, host:port; Deployment, Review and Query replace it for one service each.
	Services, Deployment, Review, Query string
	// ServerName is the name in the servers' certificates; the host of the address if empty.
	ServerName string
	// Git is the path of the git program; git from the PATH if empty.
	Git string
	// Patience is how long a job waits for a service that is away, or for a history that is behind the job.
	Patience time.Duration
	// Console says how watched console sessions come to this host; none do if its Account is empty.
	Console Console
}

// Console are the settings of watched console sessions on a critical host; see session.Config.
type Console struct {
	// Account is the account that sessions log in to. Shared: others use it, too.
	Account string
	Shared  bool
	// Keys is the file of the account's console keys, one of the AuthorizedKeysFile of the host's sshd. Socket is where console
	// shells announce themselves. Both lie in the state folder if empty, which another account than the agent's cannot reach.
	Keys, Socket string
	// Program is the path of epatch-agent for the forced command; the running program if empty.
	Program string
	// From are the addresses or prefixes that the broker connects from; any if empty.
	From []string
	// Cgroup is the control group below which sessions get theirs; the agent's own if empty, none if "none".
	Cgroup string
	// Folders are looked through for changed files after a session; /etc and the account's home if empty.
	Folders []string
}

// Kinds of an agent.
const (
	KindHost = "host"
	KindTest = "test"
)

// defaultPatience outlasts a restart of a service.
const defaultPatience = 30 * time.Second

// Flags adds the settings to a flag set.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.Name, "agent-name", "", "name of this host or test server, as the rule book lists it for the agent's key")
	fs.StringVar(&c.Kind, "agent-kind", KindHost, "host: a critical host; test: a test server")
	fs.StringVar(&c.Root, "agent-root", "", "folder whose files are patched")
	fs.StringSliceVar(&c.Include, "agent-include", nil, "what belongs to the tree, such as www/**; everything if not set")
	fs.StringSliceVar(&c.Exclude, "agent-exclude", nil, "what of that does not, such as www/cache")
	fs.StringVar(&c.StateDir, "agent-state-dir", "", "folder for journals and backups, outside of agent-root")
	fs.StringVar(&c.Profile, "agent-profile", "", "folder with cert.pem, key.pem and ca.pem of this agent")
	fs.BoolVar(&c.Dev, "agent-dev", false, "accept a key file that others may read; only with a development authority")
	fs.StringVar(&c.Keyring, "agent-keyring", "", "file with the public keys by which the services sign records")
	fs.StringVar(&c.Services, "agent-services", "localhost:7443", "address of the services' API; several instances are separated by commas, here and below")
	fs.StringVar(&c.Deployment, "agent-deployment", "", "address of the deployment service, if another")
	fs.StringVar(&c.Review, "agent-review", "", "address of the review service, if another")
	fs.StringVar(&c.Query, "agent-query", "", "address of the query service, if another")
	fs.StringVar(&c.ServerName, "agent-server-name", "", "name in the services' certificates; the host of the address if not set")
	fs.StringVar(&c.Git, "agent-git", "", "path of the git program; by default the one in the PATH")
	fs.StringVar(&c.Console.Account, "agent-console-account", "", "account that watched console sessions log in to; no sessions on this host if not set")
	fs.BoolVar(&c.Console.Shared, "agent-console-shared", false, "others use that account too: only the sessions' own processes are listed as left over")
	fs.StringVar(&c.Console.Keys, "agent-console-keys", "", "file of one-time keys that sshd reads for that account; console_keys in agent-state-dir if not set")
	fs.StringVar(&c.Console.Socket, "agent-console-socket", "", "socket for console shells; console.sock in agent-state-dir if not set")
	fs.StringVar(&c.Console.Program, "agent-console-program", "", "path of epatch-agent for the forced command; the running program if not set")
	fs.StringSliceVar(&c.Console.From, "agent-console-from", nil, "addresses or prefixes that the console's broker connects from; any if not set")
	fs.StringVar(&c.Console.Cgroup, "agent-console-cgroup", "", "control group below which sessions get theirs; the agent's own if not set; none: not at all")
	fs.StringSliceVar(&c.Console.Folders, "agent-console-folders", nil, "folders that are looked through for changed files; /etc and the account's home if not set")
	fs.DurationVar(&c.Patience, "agent-patience", defaultPatience, "how long a job waits for a service that is away")
}

// complete fills in what follows from other settings and refuses what cannot work.
func (c *Config) complete() error {
	for _, s := range []struct{ flag, value string }{
		{"agent-name", c.Name}, {"agent-root", c.Root}, {"agent-state-dir", c.StateDir}, {"agent-profile", c.Profile}, {"agent-keyring", c.Keyring},
	} {
		if s.value == "" {
			return fmt.Errorf("setting %s is needed", s.flag)
		}
	}
	if !slices.Contains([]string{KindHost, KindTest}, c.Kind) {
		return fmt.Errorf("setting agent-kind: %q is neither host nor test", c.Kind)
	}
	if c.Patience == 0 {
		c.Patience = defaultPatience
	}
	if c.Patience < 0 {
		return errors.New("setting agent-patience: a time above 0 is needed")
	}
	for _, a := range []struct {
		flag string
		addr *string
	}{{"agent-deployment", &c.Deployment}, {"agent-review", &c.Review}, {"agent-query", &c.Query}} {
		if *a.addr == "" {
			*a.addr, a.flag = c.Services, "agent-services"
		}
		for _, addr := range strings.Split(*a.addr, ",") {
			if _, _, err := net.SplitHostPort(addr); err != nil {
				return fmt.Errorf("setting %s: %q is no host:port", a.flag, addr)
			}
		}
	}
	return nil
}

func (c *Config) state(name string) string { return filepath.Join(c.StateDir, name) }

// Deps are what an agent is given besides its settings.
type Deps struct {
	// Log is required.
	Log *slog.Logger
	// Now is the clock; the machine's if nil.
	Now func() time.Time
	// Dialer replaces the network; see rpc.Local. Optional.
	Dialer func(ctx context.Context, addr string) (net.Conn, error)
	// Tracer makes spans of calls and jobs. Optional.
	Tracer trace.TracerProvider
	// Failpoint is told each step of an apply; tests use it to end the process there.
	Failpoint func(step string)
}
