// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/projection"
	"cacert.org/emergency/pkg/projection/archive"
	"cacert.org/emergency/pkg/projection/operators"
	"cacert.org/emergency/pkg/projection/postgres"
)

// database keeps rows of projections in PostgreSQL, beside what the services need: none of them ever waits for it.
type database struct {
	tables  *postgres.Tables
	keepers []*projection.Keeper
}

// kept are the projections that are kept in PostgreSQL.
func kept() []func() projection.Tabular {
	return []func() projection.Tabular{archive.New, operators.New}
}

// openDatabase prepares keeping; it does not connect yet, so a database that is away now stops nothing.
func (n *Node) openDatabase(ctx context.Context) error {
	if n.set.Database == "" {
		return nil
	}
	tables, err := postgres.New(ctx, postgres.Config{URL: n.set.Database, Tracer: n.tel.Tracer})
	if err != nil {
		return errors.Join(errors.New("setting database"), err)
	}
	n.database = &database{tables: tables}
	for _, fold := range kept() {
		k, err := projection.NewKeeper(projection.KeeperConfig{
			Store: n.store, Keys: n.keys, Tables: tables, New: fold, Log: n.log, Verified: n.verified,
			Changed: func(s projection.KeeperStatus) {
				n.tel.Metrics.Projection(context.Background(), "postgres."+s.Name, s.Kept)
				n.tel.Metrics.Behind(context.Background(), "postgres."+s.Name, n.behind(s))
			},
		})
		if err != nil {
			return err
		}
		n.database.keepers = append(n.database.keepers, k)
	}
	return nil
}

// behind is how many messages the process has read that are not in the rows.
func (n *Node) behind(s projection.KeeperStatus) uint64 {
	if at := n.reader.Sequence(); at > s.Kept {
		return at - s.Kept
	}
	return 0
}

// keep keeps one projection until ctx ends. Only a log that was rolled back ends the process: commands on it would be decided on
// less than the truth. A fold that cannot go on leaves its rows as they are, and the page about the system says so.
func (n *Node) keep(ctx context.Context, k *projection.Keeper) error {
	err := k.Run(ctx)
	if errors.Is(err, history.ErrRolledBack) {
		return err
	}
	if err != nil {
		n.log.ErrorContext(ctx, "rows of a projection are not kept any more", "projection", k.Status().Name, "error", err)
	}
	return nil
}
