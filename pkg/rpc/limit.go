// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/peer"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
)

// maxCallers bounds what a limiter remembers.
const maxCallers = 4096

// Limiter allows each caller so many calls: by key, or by address where there is no key.
type Limiter struct {
	perSecond rate.Limit
	burst     int
	now       func() time.Time

	mu      sync.Mutex
	callers map[string]*rate.Limiter
}

// NewLimiter allows each caller perSecond calls a second, and a burst of calls at once.
func NewLimiter(perSecond float64, burst int, now func() time.Time) *Limiter {
	return &Limiter{perSecond: rate.Limit(perSecond), burst: burst, now: now, callers: map[string]*rate.Limiter{}}
}

// Limit refuses a call that is one too many with RESOURCE_EXHAUSTED/RATE; it fits ServerConfig.Limit.
func (l *Limiter) Limit(ctx context.Context, _ string) error {
	now := l.now()
	r := l.of(name(ctx), now).ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if r.OK() && wait == 0 {
		return nil
	}
	r.CancelAt(now)
	return &procedure.Refusal{
		Code: procedure.ResourceExhausted, Reason: ReasonRate, Rule: "hardening 1.6", Message: "too many calls by this caller",
		Allow: []procedure.Allowance{{Description: "call again in " + wait.Round(time.Millisecond).String()}},
	}
}

func (l *Limiter) of(name string, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lim, ok := l.callers[name]; ok {
		return lim
	}
	if len(l.callers) >= maxCallers {
		l.forget(now)
	}
	lim := rate.NewLimiter(l.perSecond, l.burst)
	l.callers[name] = lim
	return lim
}

// forget drops callers whose burst is whole again: for them it changes nothing. If none is, all begin anew, since
// memory must not grow by what callers do.
func (l *Limiter) forget(now time.Time) {
	for name, lim := range l.callers {
		if lim.TokensAt(now) >= float64(l.burst) {
			delete(l.callers, name)
		}
	}
	if len(l.callers) >= maxCallers {
		clear(l.callers)
	}
}

// name is the caller's key, or the address it calls from.
func name(ctx context.Context) string {
	if c, ok := identity.FromContext(ctx); ok {
		return c.KeyID
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}

// capped is a listener that has so many connections open at a time.
type capped struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
}

func newCapped(lis net.Listener, n int) *capped {
	return &capped{Listener: lis, slots: make(chan struct{}, n), done: make(chan struct{})}
}

func (c *capped) Accept() (net.Conn, error) {
	select {
	case c.slots <- struct{}{}:
	case <-c.done:
		return nil, net.ErrClosed
	}
	conn, err := c.Listener.Accept()
	if err != nil {
		<-c.slots
		return nil, err
	}
	return &cappedConn{Conn: conn, free: sync.OnceFunc(func() { <-c.slots })}, nil
}

func (c *capped) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Listener.Close()
}

type cappedConn struct {
	net.Conn
	free func()
}

func (c *cappedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
