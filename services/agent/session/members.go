// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// variable marks a session's processes; its value is the session's own.
const variable = "EPATCH_CONSOLE"

// crew finds the processes of one session, and stops, continues and kills them.
type crew struct {
	table  *table
	group  *cgroup        // nil without one
	mark   string         // what their environment holds
	before map[ident]bool // processes that were there before the session
	self   int            // this process

	root     ident          // the wrapper, once it has announced itself
	terminal int64          // its terminal
	known    map[ident]bool // all that were ever found
	held     map[ident]bool // those that were stopped here
	mixed    map[int]bool   // process groups that others belong to, too; of the last look
	plain    map[ident]bool // processes without the mark, as the last look found them
}

// find lists the session's living processes, the oldest first. Once found a process stays the session's.
func (c *crew) find() ([]process, error) {
	all, err := c.table.all()
	if err != nil {
		return nil, err
	}
	group := map[int]bool{}
	if c.group != nil {
		if group, err = c.group.members(); err != nil {
			return nil, fmt.Errorf("members of the control group: %w", err)
		}
	}
	above := ancestors(all, c.self)
	c.checkTerminal(all)
	in, plain := map[int]bool{}, map[ident]bool{}
	var rest []process
	for _, p := range all {
		switch {
		case p.ident != c.root && (c.before[p.ident] || above[p.PID]):
		case p.ident == c.root || c.known[p.ident] || group[p.PID] || c.terminal != 0 && p.terminal == c.terminal,
			p.parent != kernelThreads && !c.plain[p.ident] && c.table.marked(p.PID, c.mark):
			in[p.PID] = true
			rest = append(rest, p)
		default:
			plain[p.ident] = true
			rest = append(rest, p)
		}
	}
	c.plain = plain
	spread(rest, in)
	c.mixed = map[int]bool{0: true, 1: true}
	for _, p := range all {
		c.mixed[p.group] = c.mixed[p.group] || !in[p.PID]
	}
	var list []process
	for _, p := range rest {
		if in[p.PID] {
			c.known[p.ident] = true
			if !p.dead() {
				list = append(list, p)
			}
		}
	}
	slices.SortFunc(list, func(a, b process) int { return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.PID, b.PID)) })
	return list, nil
}

// checkTerminal forgets the terminal when nobody of the session has it any more: then it may become somebody else's.
func (c *crew) checkTerminal(all []process) {
	for _, p := range all {
		if p.terminal == c.terminal && (p.ident == c.root || c.known[p.ident]) {
			return
		}
	}
	c.terminal = 0
}

// kernelThreads is the parent of the kernel's own threads.
const kernelThreads = 2

// spread adds to a set of processes all that descend from one, or belong to a process group or terminal session that one leads.
func spread(list []process, in map[int]bool) {
	for grown := true; grown; {
		grown = false
		for _, p := range list {
			if !in[p.PID] && (in[p.parent] || in[p.leader] || in[p.group]) {
				in[p.PID], grown = true, true
			}
		}
	}
}

// many is from when on a process group is signalled as a whole: one act of the kernel, which no member outruns by forking.
const many = 8

// send signals processes. Those of one group that are many get it together.
func (c *crew) send(list []process, sig unix.Signal) error {
	count := map[int]int{}
	for _, p := range list {
		count[p.group]++
	}
	var errs []error
	for _, p := range list {
		if count[p.group] >= many && !c.mixed[p.group] {
			_ = unix.Kill(-p.group, sig) // whom it did not reach the next line does
			count[p.group] = 0
		}
		errs = append(errs, c.table.signal(p.ident, sig))
	}
	return errors.Join(errs...)
}

// stop stops all processes but the wrapper and some that are held otherwise, one by one, until no look finds one that runs.
func (c *crew) stop(ctx context.Context, held map[int]bool) error {
	quiet := 0
	var running []process
	var failed error
	err := until(ctx, func() (bool, error) {
		list, err := c.find()
		if err != nil {
			return false, err
		}
		running = slices.DeleteFunc(list, func(p process) bool { return p.ident == c.root || held[p.PID] || p.stopped() })
		if len(running) == 0 {
			quiet++ // one that was being born while the table was read is in the next
			return quiet > 1, nil
		}
		quiet = 0
		for _, p := range running {
			c.held[p.ident] = true
		}
		failed = c.send(running, unix.SIGSTOP)
		return false, nil
	})
	if err != nil && len(running) > 0 {
		err = errors.Join(fmt.Errorf("%s would not stop: %w", c.names(running), err), failed)
	}
	return err
}

// cont continues what was stopped here, the youngest first: a shell must find its children running when it looks. What the
// subject had stopped stays stopped.
func (c *crew) cont() error {
	list, err := c.find()
	if err != nil {
		return err
	}
	slices.Reverse(list)
	var errs []error
	for _, p := range list {
		if c.held[p.ident] {
			errs = append(errs, c.table.signal(p.ident, unix.SIGCONT))
		}
	}
	clear(c.held)
	return errors.Join(errs...)
}

// kill kills all processes but a spared one and returns how many there were, when no look finds one any more. The wrapper
// goes last: as long as it lives it adopts what detaches itself.
func (c *crew) kill(ctx context.Context, spare ident) (killed int, err error) {
	var failed error
	if c.group != nil && spare == (ident{}) {
		list, err := c.find() // before, for the count
		killed, failed = len(list), errors.Join(err, c.group.kill())
	}
	var left []process
	seen, quiet := map[ident]bool{}, 0
	err = until(ctx, func() (bool, error) {
		list, err := c.find()
		if err != nil {
			return false, err
		}
		left = slices.DeleteFunc(list, func(p process) bool { return p.ident == spare })
		if len(left) == 0 {
			quiet++
			return quiet > 1, nil
		}
		quiet = 0
		for _, p := range left {
			seen[p.ident] = true
		}
		if rest := slices.DeleteFunc(slices.Clone(left), func(p process) bool { return p.ident == c.root }); len(rest) > 0 {
			// Stopped first, so that a crowd that forks without end gets no further while it is being killed.
			failed = errors.Join(c.send(rest, unix.SIGSTOP), c.send(rest, unix.SIGKILL))
			return false, nil
		}
		failed = c.send(left, unix.SIGKILL)
		return false, nil
	})
	if err != nil && len(left) > 0 {
		err = errors.Join(fmt.Errorf("%s would not die: %w", c.names(left), err), failed)
	}
	return max(killed, len(seen)), err
}

// names lists processes for a report.
func (c *crew) names(list []process) string {
	const most = 5
	var parts []string
	for i, p := range list {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(list)-most))
			break
		}
		parts = append(parts, fmt.Sprintf("process %d (%s)", p.PID, c.table.command(p)))
	}
	return strings.Join(parts, ", ")
}
