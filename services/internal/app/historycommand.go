// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/artefacts"
	artefactstore "cacert.org/emergency/pkg/artefacts/jetstream"
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
	cmd := &cobra.Command{Use: "history", Short: "Compare the log of epatchd all with its archive in PostgreSQL, or restore it from there"}
	cmd.AddCommand(offlineCommand(environ, "reconcile", "Compare log, archive and files, and name each difference", reconcile),
		offlineCommand(environ, "restore", "Fill the log of a folder that has none from the archive, and prove it whole", restore))
	return cmd
}

// offline is the log of a data folder on which nothing runs, and the archive.
type offline struct {
	set    Settings
	keys   *history.Keyring
	tables *postgres.Tables
	out    io.Writer
}

func offlineCommand(environ []string, use, short string, run func(context.Context, *offline) error) *cobra.Command {
	o := &offline{}
	var keyring string
	cmd := &cobra.Command{Use: use, Short: short, Long: short + ".\nNothing may be running on the data folder.", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&o.set.Data, "data", "epatch-data", "data folder of epatchd all")
	cmd.Flags().StringVar(&keyring, "keys", "", "file with the services' public keys; by default services.keys.json in the data folder")
	o.set.databaseFlag(cmd.Flags())
	load := loads(cmd, environ)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if o.tables, err = openTables(cmd.Context(), &o.set, load); err != nil {
			return err
		}
		defer o.tables.Close()
		if keyring == "" {
			keyring = o.set.path("services.keys.json")
		}
		if o.keys, err = history.LoadKeyring(keyring); err != nil {
			return fmt.Errorf("setting keys: %w", err)
		}
		o.out = cmd.OutOrStdout()
		return run(cmd.Context(), o)
	}
	return cmd
}

// log opens the embedded log for as long as do takes.
func (o *offline) log(ctx context.Context, do func(history.Store, artefacts.Store) error) (err error) {
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
	files, err := artefactstore.New(ctx, js, artefacts.DefaultLimit)
	if err != nil {
		return err
	}
	return do(store, files)
}

// reconcile ends with an error if there is any difference.
func reconcile(ctx context.Context, o *offline) error {
	if _, err := os.Stat(o.set.path("nats")); err != nil {
		return fmt.Errorf("setting data: there is no log: %w", err)
	}
	return o.log(ctx, func(store history.Store, files artefacts.Store) error {
		r, err := archive.Reconcile(ctx, store, o.keys, o.tables, files)
		if err != nil {
			return err
		}
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
		return nil
	})
}

func restore(ctx context.Context, o *offline) error {
	if err := o.archived(ctx); err != nil {
		return err
	}
	return o.log(ctx, func(store history.Store, _ artefacts.Store) error {
		r, err := archive.Restore(ctx, o.tables, o.keys, store)
		if err != nil {
			return err
		}
		fmt.Fprintf(o.out, "%d messages restored, %d of them strangers', %d left out\n", r.Messages, r.Foreign, r.LeftOut)
		for _, id := range slices.Sorted(maps.Keys(r.Heads)) {
			fmt.Fprintf(o.out, "%s ends at %d with %s\n", id, r.Heads[id].Position, r.Heads[id].Hash)
		}
		if !r.SameSequences {
			fmt.Fprintln(o.out, "sequence numbers are others than before: give the services a new, empty database")
		}
		return nil
	})
}

// archived refuses an archive that has nothing, before a log is made for it.
func (o *offline) archived(ctx context.Context) error {
	at, err := o.tables.Open(ctx, archive.Definition())
	if err == nil && at == (projection.Position{}) {
		err = errors.New("setting database: the archive there is empty")
	}
	return err
}
