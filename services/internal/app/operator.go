// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/config"
	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// What an operator does once, when a whole installation is set up.

// natsCommand groups what concerns the event log's servers.
func natsCommand(environ []string) *cobra.Command {
	cmd := &cobra.Command{Use: "nats", Short: "Set up the event log's servers and examine their stores"}
	cmd.AddCommand(natsUserCommand(), natsConfCommand(), natsProvisionCommand(environ), natsExamineCommand())
	return cmd
}

func natsUserCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "user FILE",
		Short: "Make a user's key: the seed goes to FILE, its public key is printed",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := NATSUser(args[0])
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), key)
			}
			return err
		},
	}
}

// NATSUser makes the key of a user of the event log's servers, or finds it, and returns its public half.
func NATSUser(file string) (string, error) {
	seed, err := identity.ReadSecret(file)
	if errors.Is(err, os.ErrNotExist) {
		var key nkeys.KeyPair
		if key, err = nkeys.CreateUser(); err == nil {
			if seed, err = key.Seed(); err == nil {
				err = os.WriteFile(file, seed, 0o600)
			}
		}
	}
	if err != nil {
		return "", fmt.Errorf("key of a nats user: %w", err)
	}
	key, err := nkeys.FromSeed(bytes.TrimSpace(seed))
	if err != nil {
		return "", fmt.Errorf("%s: no seed of a nats user: %w", file, err)
	}
	return key.PublicKey()
}

func natsConfCommand() *cobra.Command {
	var c natsd.ServerConf
	var provisioner string
	var users map[string]string
	cmd := &cobra.Command{
		Use:   "conf",
		Short: "Print the configuration of one server: accounts with the least rights, mutual TLS, every write synced",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if c.Accounts, err = natsd.Accounts(provisioner, users); err != nil {
				return err
			}
			text, err := c.Conf()
			if err == nil {
				fmt.Fprint(cmd.OutOrStdout(), text)
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&c.Name, "name", "", "name of this server")
	fs.StringVar(&c.Cluster, "cluster", "", "name of the cluster")
	fs.StringVar(&c.Listen, "listen", "0.0.0.0:4222", "where clients connect")
	fs.StringVar(&c.Route, "route", "", "where the other servers connect, such as 0.0.0.0:6222")
	fs.StringSliceVar(&c.Routes, "routes", nil, "those addresses of all servers, such as nats-1.example.org:6222")
	fs.StringVar(&c.Monitor, "monitor", "127.0.0.1:8222", "monitoring page, on this machine only; empty for none")
	fs.StringVar(&c.Store, "store", "/var/lib/nats", "folder of the streams, on a file system of its own")
	fs.Int64Var(&c.StoreBytes, "store-bytes", 0, "how many bytes the streams may reserve there; three quarters of what is free if 0")
	fs.StringVar(&c.Cert, "cert", "/etc/nats/cert.pem", "the server's certificate")
	fs.StringVar(&c.Key, "key", "/etc/nats/key.pem", "its key")
	fs.StringVar(&c.CA, "ca", "/etc/nats/ca.pem", "authorities of clients and servers")
	fs.StringVar(&provisioner, "provisioner", "", "public key of the user that creates the streams; its seed stays offline")
	fs.StringToStringVar(&users, "user", nil, "public key of a service's user, such as review=UABC...; once for each service")
	return cmd
}

func natsProvisionCommand(environ []string) *cobra.Command {
	var set Settings
	profile := natsd.Profile{}
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "provision",
		Short: "Create the event log's streams; one that exists keeps what is in it and how much it may hold",
		Long: "Create the event log's streams and buckets as the provisioner. Streams that exist are compared and not changed, but that\n" +
			"buckets of earlier versions lose the right to forget: what else differs is said.\n" +
			"No running service has the rights for this; keep the provisioner's seed offline.",
		Args: cobra.NoArgs,
	}
	fs := cmd.Flags()
	set.Cluster.logFlags(fs, "the provisioner")
	fs.IntVar(&profile.Replicas, "replicas", 3, "copies of each stream")
	fs.Int64Var(&profile.MaxBytes, "max-bytes", 64<<30, "most bytes of the histories; full means that new records are refused")
	fs.Int64Var(&profile.ArtefactBytes, "artefact-bytes", 64<<30, "most bytes of the artefacts")
	fs.Int64Var(&profile.BucketBytes, "bucket-bytes", 1<<30, "most bytes of each bucket of small values")
	fs.DurationVar(&patience, "wait", time.Minute, "how long a cluster may take until it has a leader")
	config.Describe(fs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := loadSettings(cmd, environ); err != nil {
			return err
		}
		if err := Provision(cmd.Context(), set.Cluster, profile, patience); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), "all streams are there, as they must be")
		return nil
	}
	return cmd
}

func natsExamineCommand() *cobra.Command {
	var running bool
	cmd := &cobra.Command{
		Use:   "examine STORE",
		Short: "Read a server's store and fail if one bit of it is not as it was written",
		Long: "Read every block, snapshot and setting in the store_dir STORE of a server, proving the checksums; nothing is changed. Run it before\n" +
			"each start, as deploy/systemd and docker-compose.yml do: a server that starts on a damaged store cuts off what it cannot read with all that\n" +
			"follows, and as leader makes the others do the same. Run it with --running each night and before evidence is sealed: a bit that the disk gives\n" +
			"back wrong is noticed by nothing else. If it fails, see docs/runbooks.md, \"A server of the event log is lost\".",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := os.Stat(args[0]); errors.Is(err, os.ErrNotExist) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: nothing is there yet\n", args[0])
				return nil
			}
			streams, err := natsd.ExamineStore(args[0])
			what := "do not start this server. If the other servers of its cluster are well, move %s away and start with an empty one: it copies everything from them." +
				" If there are none, restore a backup or the archive (docs/runbooks.md)"
			if running {
				streams, err = natsd.ExamineRunning(cmd.Context(), args[0])
				what = "do not restart this server. If the other servers of its cluster are well, stop it, move %s away as evidence of what the disk did, and start it with" +
					" an empty one: it copies everything from them (docs/runbooks.md)"
			}
			if err != nil {
				return fmt.Errorf("%w\n"+what, err, args[0])
			}
			for _, s := range streams {
				line := fmt.Sprintf("%s %s: %d messages", s.Account, s.Name, s.Messages)
				if s.Messages > 0 {
					line += fmt.Sprintf(", %d to %d", s.First, s.Last)
				}
				if s.HalfWritten > 0 {
					line += fmt.Sprintf(", then %d bytes that were never acknowledged", s.HalfWritten)
				}
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is as it was written\n", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&running, "running", false, "the server runs: what is only half written now is read again")
	return cmd
}

// Provision creates the streams as the provisioner, once the cluster has a leader.
func Provision(ctx context.Context, c Cluster, profile natsd.Profile, patience time.Duration) error {
	remote, err := c.remote("")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := provision(ctx, remote, profile)
		var differs *natsd.CheckError
		if err == nil || errors.As(err, &differs) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// remote is how an operator's command reaches the log as a service, or as the provisioner if that is empty.
func (c Cluster) remote(service string) (natsd.Remote, error) {
	id, err := identity.Load(c.Identity, identity.LoadOptions{Now: time.Now(), Dev: true}) // its key opens nothing but the connection
	if err != nil {
		return natsd.Remote{}, fmt.Errorf("setting identity: %w", err)
	}
	return natsd.Remote{Servers: c.NATS, Service: service, Seed: c.Seed, Identity: id.Current, Logger: operatorLog()}, nil
}

// operatorLog is where an operator's command says what happens to its connection.
func operatorLog() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

func provision(ctx context.Context, r natsd.Remote, profile natsd.Profile) error {
	js, err := natsd.Dial(r)
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	profile.Consumers = true
	return natsd.Provision(limited, js, profile)
}

// establishCommand founds the rule book.
func establishCommand(environ []string) *cobra.Command {
	var set Settings
	cmd := &cobra.Command{
		Use:   "establish FILE",
		Short: "Found the rule book: policy, people, keys and roles that the Board decided",
		Long: "Found the rule book of an empty event log, with the arbitration service's own keys. FILE is JSON: an EstablishRequest of the API whose\n" +
			"member policy is a policy as `epatch policy draft` prints it. Every later change is a command of the people in it.",
		Args: cobra.ExactArgs(1),
	}
	set.ServiceFlags(cmd.Flags(), procedure.OwnerArbitration)
	load := loads(cmd, environ)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := load(); err != nil {
			return err
		}
		req, err := readEstablish(args[0])
		if err != nil {
			return err
		}
		res, err := establish(cmd.Context(), set, req)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "the rule book has %d events\n", res.GetLastPosition())
		return nil
	}
	return cmd
}

// readEstablish reads the founding of a rule book, with the policy in words.
func readEstablish(file string) (*emergencyv1.EstablishRequest, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the rule book: %w", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	policy := &emergencyv1.Policy{}
	if err := protojson.Unmarshal(members["policy"], policy); err != nil {
		return nil, fmt.Errorf("%s: policy: %w", file, err)
	}
	delete(members, "policy")
	rest, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	req := &emergencyv1.EstablishRequest{}
	if err := protojson.Unmarshal(rest, req); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if req.Policy, err = (proto.MarshalOptions{Deterministic: true}).Marshal(policy); err != nil {
		return nil, fmt.Errorf("%s: policy: %w", file, err)
	}
	return req, nil
}

// WriteEstablish is what readEstablish reads.
func WriteEstablish(file string, req *emergencyv1.EstablishRequest) error {
	policy := &emergencyv1.Policy{}
	if err := proto.Unmarshal(req.GetPolicy(), policy); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	words, err := protojson.Marshal(policy)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	rest := proto.Clone(req).(*emergencyv1.EstablishRequest)
	rest.Policy = nil
	b, err := protojson.Marshal(rest)
	if err != nil {
		return fmt.Errorf("rule book: %w", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return fmt.Errorf("rule book: %w", err)
	}
	members["policy"] = words
	if b, err = json.MarshalIndent(members, "", "  "); err != nil {
		return fmt.Errorf("rule book: %w", err)
	}
	return os.WriteFile(file, append(b, '\n'), 0o600)
}

// establish founds the rule book with the arbitration service's keys; it needs no other service.
func establish(ctx context.Context, set Settings, req *emergencyv1.EstablishRequest) (res *emergencyv1.Committed, err error) {
	n, err := newNode(ctx, set)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	for _, step := range []func() error{n.openFolder, n.openIdentity, func() error { return n.connectLog(ctx) }, func() error { return n.openServices(ctx) }} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return n.arbitration.Establish(ctx, req)
}
