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

// Limits are how many calls a caller may make. A limit of zero calls a second is none.
type Limits struct {
	// Known are the calls of a person or system of the rule book, with whichever key; Unknown those of everybody else at one address.
	Known, Unknown Limit
	// KnownRefused and UnknownRefused are how many of them may be refused. Who has used these up has to wait with every call.
	KnownRefused, UnknownRefused Limit
}

// Limit is so many calls a second, and a burst of so many at once.
type Limit struct {
	PerSecond float64
	Burst     int
}

func (l Limit) limiter() *rate.Limiter {
	if l.PerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(l.PerSecond), max(1, l.Burst))
}

// maxAddresses and maxKnown bound what a limiter remembers. Whoever can make up addresses makes only addresses be forgotten.
const (
	maxAddresses = 4096
	maxKnown     = 4096
)

// Limiter allows each caller so many calls.
type Limiter struct {
	limits Limits
	of     func(identity.Caller) (name string, exempt bool)
	now    func() time.Time

	mu        sync.Mutex
	known     map[string]*allowance
	addresses map[string]*allowance
}

// allowance is what a caller has left; nil where there is no limit.
type allowance struct{ calls, refused *rate.Limiter }

// NewLimiter limits callers. of tells who a caller is, whichever key it uses: empty for somebody unknown, who counts by address; exempt are
// those whose calls are other people's, such as services.
func NewLimiter(limits Limits, of func(identity.Caller) (name string, exempt bool), now func() time.Time) *Limiter {
	return &Limiter{limits: limits, of: of, now: now, known: map[string]*allowance{}, addresses: map[string]*allowance{}}
}

// RateError refuses a call that is one too many. It is a *procedure.Refusal, RESOURCE_EXHAUSTED/RATE, and tells when to come again.
type RateError struct {
	*procedure.Refusal
	After time.Duration
}

// Unwrap returns the refusal.
func (e *RateError) Unwrap() error { return e.Refusal }

// Admit refuses a call that is one too many with a *RateError. c is the caller, if there is a certificate; address where it calls from.
func (l *Limiter) Admit(c identity.Caller, certified bool, address string) error {
	a := l.allowance(c, certified, address)
	if a == nil {
		return nil
	}
	now := l.now()
	what, wait := "calls", time.Duration(0)
	if a.refused != nil && a.refused.TokensAt(now) < 1 {
		what, wait = "calls that had to be refused", untilOne(a.refused, now)
	}
	if wait == 0 && a.calls != nil && !a.calls.AllowN(now, 1) {
		wait = untilOne(a.calls, now)
	}
	if wait == 0 {
		return nil
	}
	wait = wait.Truncate(time.Millisecond) + time.Millisecond
	return &RateError{&procedure.Refusal{
		Code: procedure.ResourceExhausted, Reason: ReasonRate, Rule: "hardening 1.6", Message: "too many " + what + " by this caller",
		Allow: []procedure.Allowance{{Description: "send the same call again in " + wait.String() + "; nothing was done"}},
	}, wait}
}

// Refused tells that a call which was admitted had to be refused.
func (l *Limiter) Refused(c identity.Caller, certified bool, address string) {
	if a := l.allowance(c, certified, address); a != nil && a.refused != nil {
		a.refused.AllowN(l.now(), 1)
	}
}

// untilOne is when a whole call is left again.
func untilOne(l *rate.Limiter, now time.Time) time.Duration {
	return time.Duration((1 - l.TokensAt(now)) / float64(l.Limit()) * float64(time.Second))
}

func (l *Limiter) allowance(c identity.Caller, certified bool, address string) *allowance {
	table, name, most, all, refused := l.addresses, address, maxAddresses, l.limits.Unknown, l.limits.UnknownRefused
	if certified {
		who, exempt := l.of(c)
		if exempt {
			return nil
		}
		if who != "" {
			table, name, most, all, refused = l.known, who, maxKnown, l.limits.Known, l.limits.KnownRefused
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := table[name]
	if !ok {
		if len(table) >= most {
			forget(table, l.now())
		}
		a = &allowance{all.limiter(), refused.limiter()}
		table[name] = a
	}
	return a
}

// forget drops callers whose bursts are whole again: for them it changes nothing. If none is, all begin anew, since memory must not grow
// by what callers do.
func forget(table map[string]*allowance, now time.Time) {
	before := len(table)
	whole := func(l *rate.Limiter) bool { return l == nil || l.TokensAt(now) >= float64(l.Burst()) }
	for name, a := range table {
		if whole(a.calls) && whole(a.refused) {
			delete(table, name)
		}
	}
	if len(table) == before {
		clear(table)
	}
}

// addressOf is the address at the other end of the call's connection.
func addressOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	return HostOf(p.Addr.String())
}

// HostOf is the host of an address such as a connection has, by which callers without a known key are counted.
func HostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// capped is a listener that has so many connections open at a time, and so many of them from one address.
type capped struct {
	net.Listener
	slots      chan struct{}
	perAddress int
	done       chan struct{}
	once       sync.Once

	mu   sync.Mutex
	open map[string]int
}

// Capped returns a listener that accepts n connections at a time, and perAddress of them from one address; any number for 0. More in all
// wait, more from one address are closed.
func Capped(lis net.Listener, n, perAddress int) net.Listener {
	if n <= 0 {
		return lis
	}
	return newCapped(lis, n, perAddress)
}

func newCapped(lis net.Listener, n, perAddress int) *capped {
	return &capped{Listener: lis, slots: make(chan struct{}, n), perAddress: perAddress, done: make(chan struct{}), open: map[string]int{}}
}

func (c *capped) Accept() (net.Conn, error) {
	for {
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
		host := HostOf(conn.RemoteAddr().String())
		free := sync.OnceFunc(func() { c.leave(host); <-c.slots })
		if c.enter(host) {
			return &cappedConn{Conn: conn, free: free}, nil
		}
		free()
		_ = conn.Close() // whoever it is has many others open
	}
}

// enter counts a connection, and tells whether its address may have one more.
func (c *capped) enter(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[host]++
	return c.perAddress <= 0 || c.open[host] <= c.perAddress
}

func (c *capped) leave(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[host]--; c.open[host] == 0 {
		delete(c.open, host)
	}
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
