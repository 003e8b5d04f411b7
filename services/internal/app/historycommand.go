// SPDX-License-Identifier: Apache-2.0

package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/artefacts"
	artefactstore "cacert.org/emergency/pkg/artefacts/jetstream"
	ledgerstore "cacert.org/emergency/pkg/effect/jetstream"
	"cacert.org/emergency/pkg/history"
	historystore "cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/natsd"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/projection/archive"
	"cacert.org/emergency/pkg/projection/postgres"
)

// migrateCommand makes the tables before a service needs them.
func migrateCommand(environ []string) *cobra.Command {
	var set Settings
	var load func() error
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Make or complete the tables in the PostgreSQL database",
		Long:  "Make or complete the tables in the PostgreSQL database. A process that is given the database does so itself at its start, too.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tables, err := openTables(cmd.Context(), &set, load)
			if err != nil {
				return err
			}
			defer tables.Close()
			for _, fold := range kept() {
				d := fold().Definition()
				if err := tables.Migrate(cmd.Context(), d); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s is up to date\n", d.ID())
			}
			return nil
		},
	}
	set.databaseFlag(cmd.Flags())
	load = loads(cmd, environ)
	return cmd
}

// openTables reads the settings of a command that needs the database, and opens that.
func openTables(ctx context.Context, set *Settings, load func() error) (*postgres.Tables, error) {
	if err := load(); err != nil {
		return nil, err
	}
	if set.Database == "" {
		return nil, errors.New("setting database: this command needs it")
	}
	return postgres.New(ctx, postgres.Config{URL: set.Database})
}

// historyCommand is what needs the log and the database themselves. epatch has neither: it speaks to services, which have no such
// question, because whoever asks it does not trust what a running service says.
func historyCommand(environ []string) *cobra.Command {
	cmd := &cobra.Command{Use: "history", Short: "Compare the log with its archive in PostgreSQL, or restore it from there"}
	cmd.AddCommand(reconcileCommand(environ), restoreCommand(environ))
	return cmd
}

func reconcileCommand(environ []string) *cobra.Command {
	o := &archived{user: natsd.Reader}
	var patience time.Duration
	cmd := o.command("reconcile", "Compare log, archive and files, and name each difference",
		"With --nats the log of a running installation, by the dashboard's user, which can only read; what arrives meanwhile is no difference. Else that of\n"+
			"the data folder of epatchd all, on which nothing may be running.",
		func(ctx context.Context) error { return o.reconcile(ctx, patience) })
	cmd.Flags().DurationVar(&patience, "wait", 30*time.Second, "how long the archive of a running installation may take to read what the log has")
	o.load = loads(cmd, environ)
	return cmd
}

func restoreCommand(environ []string) *cobra.Command {
	o := &archived{user: ""}
	cmd := o.command("restore", "Fill a log from the archive, and prove it whole",
		"With --nats the log of an installation, whose streams were provisioned and whose services do not run yet, by the provisioner's user. Else that of\n"+
			"a data folder that has none. A log that has the beginning of the archive, as after an interruption, is gone on with; with anything else nothing\n"+
			"is written. What was under way outside when the log was lost, such as a call, is not done again by itself.",
		o.restore)
	o.set.Cluster.copyFlags(cmd.Flags())
	o.load = loads(cmd, environ)
	return cmd
}

// archived is a log and its archive: that of a data folder on which nothing runs, or that of an installation.
type archived struct {
	// user is the service whose user reads or writes the log of an installation; empty for the provisioner's.
	user string

	load   func() error
	set    Settings
	keys   *history.Keyring
	tables *postgres.Tables
	out    io.Writer
}

func (o *archived) command(use, short, long string, run func(context.Context) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: short + ".\n" + long, Args: cobra.NoArgs}
	fs, c := cmd.Flags(), &o.set.Cluster
	fs.StringVar(&o.set.Data, dataSetting, "epatch-data", "data folder of epatchd all")
	c.logFlags(fs, "the "+o.whose())
	fs.StringVar(&c.Keyring, "keyring", "", "file with the services' public keys; by default services.keys.json in the data folder")
	o.set.databaseFlag(fs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.tables, err = openTables(cmd.Context(), &o.set, o.load); err != nil {
			return err
		}
		defer o.tables.Close()
		if err := o.check(fs.Changed(dataSetting)); err != nil {
			return err
		}
		if o.keys, err = history.LoadKeyring(c.Keyring); err != nil {
			return fmt.Errorf("setting keyring: %w", err)
		}
		o.out = cmd.OutOrStdout()
		return run(cmd.Context())
	}
	return cmd
}

const dataSetting = "data"

// whose is the user's name in words.
func (o *archived) whose() string { return cmp.Or(o.user, "provisioner") }

// check refuses settings that name no log, or two.
func (o *archived) check(data bool) error {
	c := &o.set.Cluster
	if len(c.NATS) == 0 {
		if c.Seed != "" || c.Identity != "" {
			return errors.New("setting nats: the servers of the log are missing, to which nats-seed and identity belong")
		}
		c.Keyring = cmp.Or(c.Keyring, o.set.path("services.keys.json"))
		return nil
	}
	if data {
		return errors.New("settings data and nats: the log is in a folder or at servers, give one of them")
	}
	for _, needed := range []struct{ name, value string }{{"nats-seed", c.Seed}, {"identity", c.Identity}, {"keyring", c.Keyring}} {
		if needed.value == "" {
			return fmt.Errorf("setting %s: a log at servers needs it", needed.name)
		}
	}
	return nil
}

// running tells whether the log is one that goes on meanwhile.
func (o *archived) running() bool { return len(o.set.Cluster.NATS) > 0 }

// log opens the log for as long as do takes.
func (o *archived) log(ctx context.Context, do func(jetstream.JetStream, history.Store) error) error {
	if !o.running() {
		return o.embedded(ctx, do)
	}
	remote, err := o.set.Cluster.remote(o.user)
	if err != nil {
		return err
	}
	js, err := natsd.Dial(remote)
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	store, err := historystore.New(ctx, historystore.Config{JS: js, Logger: remote.Logger, Consumers: o.user == "", Readers: natsd.Consumers(o.user)})
	if err != nil {
		return fmt.Errorf("as %s, whose seed this command needs: %w", o.whose(), err)
	}
	return do(js, store)
}

// embedded opens the log of a data folder.
func (o *archived) embedded(ctx context.Context, do func(jetstream.JetStream, history.Store) error) (err error) {
	quiet := slog.New(slog.DiscardHandler)
	server, err := natsd.Start(natsd.Config{Dir: o.set.path("nats"), Logger: quiet})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	conn, err := server.Connect("epatchd history")
	if err != nil {
		return err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	if err := natsd.Provision(ctx, js, natsd.Profile{Replicas: 1, MaxBytes: maxBytes, ArtefactBytes: artefactBytes, BucketBytes: bucketBytes}); err != nil {
		return err
	}
	store, err := historystore.New(ctx, historystore.Config{JS: js, Logger: quiet, Consumers: true})
	if err != nil {
		return err
	}
	return do(js, store)
}

// reconcile ends with an error if there is any difference.
func (o *archived) reconcile(ctx context.Context, patience time.Duration) error {
	if _, err := os.Stat(o.set.path("nats")); err != nil && !o.running() {
		return fmt.Errorf("setting data: there is no log: %w", err)
	}
	return o.log(ctx, func(js jetstream.JetStream, store history.Store) error {
		files, err := artefactstore.New(ctx, js, artefacts.DefaultLimit)
		if err != nil {
			return err
		}
		from := archive.Sources{Log: store, Keys: o.keys, Archive: o.tables, Artefacts: files}
		if o.running() {
			from.Pause = o.waiting(patience)
		}
		r, err := archive.Reconcile(ctx, from)
		if err != nil {
			return err
		}
		return o.say(r)
	})
}

// waiting says that the archive is behind, and waits for it no longer than patience.
func (o *archived) waiting(patience time.Duration) func(context.Context, uint64) error {
	var end time.Time
	return func(ctx context.Context, behind uint64) error {
		if end.IsZero() {
			end = time.Now().Add(patience)
			fmt.Fprintf(o.out, "the archive has yet to read %d messages, it is given %s\n", behind, patience)
		}
		if !time.Now().Before(end) {
			return context.DeadlineExceeded
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
			return nil
		}
	}
}

func (o *archived) say(r *archive.Reconciliation) error {
	fmt.Fprintf(o.out, "log %d messages, archive %d, files named by events %d, not archived yet %d\n", r.InStream, r.InArchive, r.Artefacts, r.Behind)
	for _, d := range r.Differences {
		fmt.Fprintln(o.out, d)
	}
	damage := 0
	for _, f := range r.Log.Findings {
		if fmt.Fprintln(o.out, "log:", f); f.Damage {
			damage++
		}
	}
	if n := len(r.Differences) + damage; n > 0 {
		return fmt.Errorf("%d differences", n)
	}
	fmt.Fprintln(o.out, "no difference")
	if r.Behind > 0 && o.running() {
		return fmt.Errorf("the last %d messages are not in the archive and were not compared: does a dashboard with --database run?", r.Behind)
	}
	return nil
}

func (o *archived) restore(ctx context.Context) error {
	if err := o.refuseEmpty(ctx); err != nil {
		return err
	}
	return o.log(ctx, func(js jetstream.JetStream, store history.Store) error {
		if o.running() {
			if err := natsd.Check(ctx, js, o.set.Cluster.expect()); err != nil {
				return err
			}
		}
		r, err := archive.Restore(ctx, o.tables, o.keys, store)
		if err != nil {
			return err
		}
		fmt.Fprintf(o.out, "%d messages restored, %d of them strangers', %d left out\n", r.Messages, r.Foreign, r.LeftOut)
		if r.Before > 0 {
			fmt.Fprintf(o.out, "%d of them were there before\n", r.Before)
		}
		for _, id := range slices.Sorted(maps.Keys(r.Heads)) {
			fmt.Fprintf(o.out, "%s ends at %d with %s\n", id, r.Heads[id].Position, r.Heads[id].Hash)
		}
		if !r.SameSequences {
			fmt.Fprintln(o.out, "sequence numbers are others than before: give the services a new, empty database")
		}
		fmt.Fprintf(o.out, "the stream is a new one: whoever has seen the old one refuses it. Where the heads above are the right ones, remove the file %s by hand from\n"+
			"the data folder of each process (docs/runbooks.md, Restore), then start\n", memoryFile)
		return keepSilent(ctx, js, r.Last)
	})
}

// keepSilent has the effects of every service begin behind what was restored: which acts were done, the ledger knew, and it is not in the
// archive. Otherwise every page and mail of every emergency would go out once more.
func keepSilent(ctx context.Context, js jetstream.JetStream, last history.Mark) error {
	for _, owner := range natsd.Owners() {
		ledger, err := ledgerstore.New(ctx, js, owner)
		if err != nil {
			return err
		}
		if err := ledger.SetMark(ctx, owner, last); err != nil {
			return err
		}
	}
	return nil
}

// refuseEmpty refuses an archive that has nothing, before a log is made for it.
func (o *archived) refuseEmpty(ctx context.Context) error {
	at, err := o.tables.Open(ctx, archive.Definition())
	if err == nil && at == (projection.Position{}) {
		err = errors.New("setting database: the archive there is empty")
	}
	return err
}
