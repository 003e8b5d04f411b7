// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
)

// Case is one given, when, then.
type Case struct {
	t       T
	w       *World
	count   *Coverage
	cmd     procedure.Command
	who     string
	options []Option
}

// Given plays steps on an incident without a history.
func Given(t T, steps ...Step) *Case {
	t.Helper()
	return GivenWorld(t, NewWorld(t), steps...)
}

// GivenRuleBook plays steps on the fixture's founded rule book.
func GivenRuleBook(t T, steps ...Step) *Case {
	t.Helper()
	return GivenWorld(t, Founding().For(t), steps...)
}

// GivenWorld plays steps on a world.
func GivenWorld(t T, w *World, steps ...Step) *Case {
	t.Helper()
	for _, s := range steps {
		s(w)
	}
	return &Case{t: t, w: w}
}

// World is the world of the case, as it stands.
func (c *Case) World() *World { return c.w }

// Counting makes the case count what it shows.
func (c *Case) Counting(x *Coverage) *Case {
	c.count = x
	return c
}

// And plays further steps.
func (c *Case) And(steps ...Step) *Case {
	c.t.Helper()
	for _, s := range steps {
		s(c.w)
	}
	return c
}

// When is the command that is given; By says by whom.
func (c *Case) When(cmd procedure.Command) *Case {
	c.cmd, c.options = cmd, nil
	return c
}

// WhenAs is a command that depends on how the world stands.
func (c *Case) WhenAs(cmd func(*procedure.State) procedure.Command) *Case {
	return c.When(cmd(c.w.State))
}

// By says who gives the command; see Actor for the names.
func (c *Case) By(who string, options ...Option) *Case {
	c.who, c.options = who, append(c.options, options...)
	return c
}

// After lets time pass before the command.
func (c *Case) After(d time.Duration) *Case {
	c.w.Wait(d)
	return c
}

// Then wants the command accepted with events of these types, without owner and in this order; none for no event at all.
func (c *Case) Then(events ...string) *World {
	c.t.Helper()
	out := c.w.Try(c.who, c.cmd, c.options...)
	name := procedure.CommandName(c.cmd)
	if out.Err != nil || out.Refusal != nil {
		c.t.Fatalf("%s by %s: want events %v, got refusal %v, error %v", name, c.who, events, out.Refusal, out.Err)
	}
	if out.Decision.Repeated != nil {
		c.t.Fatalf("%s by %s: want events %v, got the result of an earlier command", name, c.who, events)
	}
	var got []string
	for _, t := range out.Types() {
		got = append(got, ShortType(t))
	}
	if !slices.Equal(got, events) {
		c.t.Fatalf("%s by %s: want events [%s], got [%s]", name, c.who, strings.Join(events, " "), strings.Join(got, " "))
	}
	c.count.accepted(name)
	return c.w
}

// ThenRepeated wants the result of an earlier command, and nothing recorded.
func (c *Case) ThenRepeated() *procedure.Result {
	c.t.Helper()
	out := c.w.Try(c.who, c.cmd, c.options...)
	if out.Err != nil || out.Refusal != nil || out.Decision.Repeated == nil {
		c.t.Fatalf("%s by %s: want a repeated result, got %+v", procedure.CommandName(c.cmd), c.who, out)
	}
	return out.Decision.Repeated
}

// ThenRefused wants the command refused for a reason, whole: with its kind, a rule and a message.
func (c *Case) ThenRefused(reason procedure.Reason) *procedure.Refusal {
	c.t.Helper()
	out := c.w.Try(c.who, c.cmd, c.options...)
	name := procedure.CommandName(c.cmd)
	if out.Refusal == nil {
		c.t.Fatalf("%s by %s: want %s, got events %v, error %v", name, c.who, reason, out.Types(), out.Err)
	}
	if out.Refusal.Reason != reason {
		c.t.Fatalf("%s by %s: want %s, got %v", name, c.who, reason, out.Refusal)
	}
	CheckRefusal(c.t, out.Refusal)
	c.count.refused(name, reason)
	return out.Refusal
}

// CheckRefusal checks that a refusal is whole.
func CheckRefusal(t T, r *procedure.Refusal) {
	t.Helper()
	code, known := procedure.CodeOf(r.Reason)
	switch {
	case !known:
		t.Fatalf("reason %s is not in the table", r.Reason)
	case code != r.Code:
		t.Fatalf("reason %s is %s in the table, the refusal says %s", r.Reason, code, r.Code)
	case r.Rule == "" || r.Message == "":
		t.Fatalf("refusal %v lacks rule or message", r)
	}
	for _, a := range r.Allow {
		if a.Description == "" {
			t.Fatalf("refusal %v has an allowance without words: %+v", r, a)
		}
	}
}
