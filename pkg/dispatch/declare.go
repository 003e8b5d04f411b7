// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Known tells what a follower of all histories knows, so that a declaration need not read them all.
type Known interface {
	// Declared finds the incident that a person declared under a request id; empty if there is none.
	Declared(person, requestID string) string
	// LastNumber is the highest number given on a day to incidents with a prefix, such as "e20261124."; 0 for none.
	LastNumber(prefix string) int
}

// maxNumbers bounds the search for a free number; so many declarations at the same moment do not happen.
const maxNumbers = 64

// Declare gives a new incident its id and records the declaration as its first record. The number is taken by appending on
// condition that nobody has it, so two services never give the same one. A repeated declaration by the same person under the
// same request id finds the first one, in whichever incident it is (procedure.md 4.1): by what is known, and beyond that by
// reading on, over midnight and between drills and emergencies too.
func (d *Dispatcher) Declare(ctx context.Context, cmd *emergencyv1.DeclareRequest, in Input, known Known) (*emergencyv1.Committed, error) {
	start := time.Now()
	committed, err := d.declare(ctx, cmd, in, known)
	d.count(ctx, cmd, committed, err, time.Since(start))
	return committed, err
}

func (d *Dispatcher) declare(ctx context.Context, cmd *emergencyv1.DeclareRequest, in Input, known Known) (*emergencyv1.Committed, error) {
	book, err := d.book.current(ctx, true)
	if err != nil {
		return nil, err
	}
	now := d.cfg.Now().UTC()
	kinds := []string{"e", "x"}
	if cmd.GetDrill() {
		kinds = []string{"x", "e"}
	}
	var days []search // where the declaration could already be; the last one is where it is to be
	for _, at := range []time.Time{now.AddDate(0, 0, -1), now} {
		for _, kind := range []string{kinds[1], kinds[0]} {
			prefix := kind + at.Format("20060102") + "."
			days = append(days, search{prefix, known.LastNumber(prefix) + 1})
		}
	}
	// Only now: whatever is indexed meanwhile is found here, or is beyond the numbers that were asked for before.
	c := &deciding{cmd: cmd, in: in, book: book, salt: newSalt()}
	if id := known.Declared(d.actorOf(c).GetPerson(), cmd.GetMeta().GetRequestId()); id != "" {
		return d.do(ctx, id, cmd, in)
	}
	for i, day := range days {
		committed, err := d.declareIn(ctx, day, c, i == len(days)-1)
		if !errors.Is(err, errNotHere) {
			return committed, err
		}
	}
	return nil, tooBusy("the list of today's incidents")
}

// search goes through the incidents of one prefix, such as "e20261124.", from a number on.
type search struct {
	prefix string
	from   int
}

var (
	// errTaken: the number belongs to another declaration.
	errTaken = errors.New("incident number is taken")
	// errNotHere: the declaration is none of these incidents.
	errNotHere = errors.New("not declared here")
)

// declareIn looks for the declaration, and records it at the first free number if it is to be here.
func (d *Dispatcher) declareIn(ctx context.Context, s search, c *deciding, here bool) (*emergencyv1.Committed, error) {
	for n := range maxNumbers {
		c.id = s.prefix + strconv.Itoa(s.from+n)
		committed, err := d.hold(ctx, c.id, func(inc *incident) (*emergencyv1.Committed, error) {
			if _, err := d.refresh(ctx, inc); err != nil {
				return nil, err
			}
			if inc.state.Position == 0 && !here {
				return nil, errNotHere
			}
			return d.declareAs(ctx, inc, c)
		})
		if !errors.Is(err, errTaken) && !Poisoned(err) { // one that cannot be read must not stop new ones
			return committed, err
		}
	}
	return nil, errNotHere
}

// declareAs decides the declaration on one number. No number is left out, whatever strangers put there: what was declared
// twice is found by counting on.
func (d *Dispatcher) declareAs(ctx context.Context, inc *incident, c *deciding) (*emergencyv1.Committed, error) {
	for range maxDecisions {
		decision, refusal, err := procedure.Decide(inc.state, c.cmd, d.env(c))
		switch {
		case err != nil:
			return nil, fmt.Errorf("declare: %w", err)
		case refusal != nil && (refusal.Reason == procedure.ReasonRequestIDReused || inc.state.Position == 0):
			return nil, refusal
		case refusal != nil:
			return nil, errTaken // judged on somebody else's incident; the next number decides
		case decision.Repeated != nil:
			return repeated(c.id, decision.Repeated), nil
		}
		committed, err := d.record(ctx, inc, c, decision)
		if !errors.Is(err, history.ErrConflict) {
			return committed, err
		}
		if _, err := d.refresh(ctx, inc); err != nil {
			return nil, err
		}
	}
	return nil, tooBusy("incident " + c.id)
}
