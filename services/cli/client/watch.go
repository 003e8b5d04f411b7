// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"io"
	"time"

	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

// Watch calls fn with the incident now and after every change, until fn returns an error or ctx ends. A lost connection is
// made again; fn then sees the present state once more. It gives up when the server stays away for longer than the
// client's patience.
func (c *Client) Watch(ctx context.Context, incident string, fn func(*dashboardv1.WatchIncidentResponse) error) error {
	lost := time.Time{}
	for {
		err, own := c.watchOnce(ctx, incident, fn, func() { lost = time.Time{} })
		if own {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if lost.IsZero() {
			lost = c.Now()
		}
		if !errors.Is(err, io.EOF) && !passing(err) || c.Now().Sub(lost) > c.cfg.Patience {
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

// watchOnce watches over one connection; own tells that the error is fn's.
func (c *Client) watchOnce(ctx context.Context, incident string, fn func(*dashboardv1.WatchIncidentResponse) error, alive func()) (err error, own bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
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
}
