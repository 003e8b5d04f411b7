// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"io"
	"time"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc/command"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

// Watch calls fn with the incident now and after every change, until fn returns an error or ctx ends. A lost connection is
// made again; fn then sees the present state once more. It gives up when the server stays away for longer than the
// client's patience. What comes is the server's word; Follow is verified.
func (c *Client) Watch(ctx context.Context, incident string, fn func(*dashboardv1.WatchIncidentResponse) error) error {
	return c.again(ctx, func(ctx context.Context, alive func()) (error, bool) {
		stream, err := c.Query().WatchIncident(ctx, &dashboardv1.WatchIncidentRequest{Incident: incident})
		if err != nil {
			return err, false
		}
		for {
			m, err := stream.Recv()
			if err != nil {
				return err, false
			}
			alive()
			if err := fn(m); err != nil {
				return err, true
			}
		}
	})
}

// Follow calls fn with every record of the incident from the first one on, as verified here, and the state after it; then with
// each further record when it comes, until fn returns an error or ctx ends. fn must not keep or change the state.
func (c *Client) Follow(ctx context.Context, incident string, fn func(*procedure.State, *history.Entry) error) error {
	if c.keys == nil {
		return ErrNoKeyring
	}
	p := c.nothing(incident)
	return c.again(ctx, func(ctx context.Context, alive func()) (error, bool) {
		stream, err := c.Query().ReadHistory(ctx, &dashboardv1.ReadHistoryRequest{Incident: incident, From: p.chain.Head().Position + 1, Follow: true})
		if err != nil {
			return err, false
		}
		for {
			m, err := stream.Recv()
			if err != nil {
				return err, false
			}
			alive()
			entry, err := p.accept(m.GetRecord())
			if err != nil {
				return err, true
			}
			if entry == nil {
				continue
			}
			if err := fn(p.state, entry); err != nil {
				return err, true
			}
		}
	})
}

// again runs a stream, and runs it again when the connection is lost. The stream's second result tells that the error is
// no matter of the connection.
func (c *Client) again(ctx context.Context, run func(ctx context.Context, alive func()) (err error, final bool)) error {
	lost := time.Time{}
	for {
		once, cancel := context.WithCancel(ctx)
		err, final := run(once, func() { lost = time.Time{} })
		cancel()
		if final {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if lost.IsZero() {
			lost = c.Now()
		}
		if !errors.Is(err, io.EOF) && !command.Passing(err) || c.Now().Sub(lost) > c.cfg.Patience {
			return err
		}
		if c.cfg.OnRetry != nil {
			c.cfg.OnRetry(err, time.Second)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
