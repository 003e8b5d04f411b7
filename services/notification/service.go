// SPDX-License-Identifier: Apache-2.0

package notification

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/effect"
	"cacert.org/emergency/pkg/service"
	"cacert.org/emergency/pkg/timer"
	notificationv1 "cacert.org/emergency/proto/emergency/notification/v1"
	"cacert.org/emergency/services/notification/channel"
)

// Config of the service.
type Config struct {
	// Channels are the ways to reach people, by the names that the rule book uses.
	Channels []channel.Channel
	// Link is the address of the page that a page's link leads to, such as https://emergency.example/r/; empty for none.
	Link string
	// LinkKey signs the links, at least 16 bytes; needed with Link.
	LinkKey []byte
}

// Server is the service.
type Server struct {
	notificationv1.UnimplementedNotificationServiceServer
	*service.Service
	cfg    Config
	fanout *channel.Fanout

	mu       sync.Mutex
	waiting  map[string]chan channel.Outcome // by channel and page id
	poisoned map[string]bool                 // incidents that cannot be followed and of which the log was told
}

// New builds the service.
func New(d service.Deps, cfg Config) (*Server, error) {
	base, err := service.New(d)
	if err != nil {
		return nil, err
	}
	if cfg.Link != "" && len(cfg.LinkKey) < 16 {
		return nil, fmt.Errorf("notification: the key that signs links has %d bytes, it needs at least 16", len(cfg.LinkKey))
	}
	s := &Server{Service: base, cfg: cfg, waiting: map[string]chan channel.Outcome{}, poisoned: map[string]bool{}}
	// Whatever runs in all lanes has room in one channel: a message goes on to the next channel from the lane of the one that failed.
	s.fanout, err = channel.New(channel.Settings{Queue: effect.AtOnce * (len(cfg.Channels) + 1)}, ChannelClock{d.Clock}, s.outcome, cfg.Channels...)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Register adds the service to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	notificationv1.RegisterNotificationServiceServer(r, s)
}

// Run runs timers, effects and channels until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.fanout.Run(ctx) })
	group.Go(func() error { return s.Service.Run(ctx, s.plan) })
	return group.Wait()
}

// ChannelClock makes a clock of alarms one of channels.
type ChannelClock struct{ timer.Clock }

// After returns a channel on which the time is sent once d has passed.
func (c ChannelClock) After(d time.Duration) <-chan time.Time {
	out := make(chan time.Time, 1)
	rung, _ := c.Alarm(c.Now().Add(d))
	go func() {
		<-rung
		out <- c.Now()
	}()
	return out
}
