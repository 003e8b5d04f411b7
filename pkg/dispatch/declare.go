// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

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
// same request id finds the first one, in whichever incident it is (procedure.md 4.1).
func (d *Dispatcher) Declare(ctx context.Context, cmd *emergencyv1.DeclareRequest, in Input, known Known) (*emergencyv1.Committed, error) {
	book, err := d.book.current(ctx, true)
	if err != nil {
		return nil, err
	}
	person := in.Actor.Person
	if k, ok := book.Key(in.Actor.KeyID); ok {
		person = k.Key.GetPerson()
	}
	if id := known.Declared(person, cmd.GetMeta().GetRequestId()); id != "" {
		return d.do(ctx, id, cmd, in)
	}
	prefix := "e"
	if cmd.GetDrill() {
		prefix = "x"
	}
	prefix += d.cfg.Now().UTC().Format("20060102") + "."
	number := known.LastNumber(prefix) + 1
	for range maxNumbers {
		id := prefix + strconv.Itoa(number)
		committed, err := d.declareAs(ctx, id, cmd, in)
		if !errors.Is(err, errTaken) {
			return committed, err
		}
		number++
	}
	return nil, tooBusy(strings.TrimSuffix(prefix, "."))
}

// errTaken: the number belongs to another declaration.
var errTaken = errors.New("incident number is taken")

func (d *Dispatcher) declareAs(ctx context.Context, id string, cmd *emergencyv1.DeclareRequest, in Input) (*emergencyv1.Committed, error) {
	book, err := d.book.current(ctx, false)
	if err != nil {
		return nil, err
	}
	inc := d.incident(id)
	inc.mu.Lock()
	defer inc.mu.Unlock()
	if err := d.load(ctx, id, inc); err != nil {
		return nil, err
	}
	if _, err := d.refresh(ctx, inc); err != nil {
		return nil, err
	}
	decision, refusal, err := procedure.Decide(inc.state, cmd, d.env(book, in))
	switch {
	case err != nil:
		return nil, fmt.Errorf("declare: %w", err)
	case refusal != nil && refusal.Reason == procedure.ReasonRequestIDReused:
		return nil, refusal
	case refusal != nil && inc.state.Position == 0:
		d.forget(id)
		return nil, refusal
	case refusal != nil:
		return nil, errTaken // judged on somebody else's incident; the next number decides
	case decision.Repeated != nil:
		return repeated(id, decision.Repeated), nil
	case inc.state.Position > 0:
		return nil, errTaken
	}
	committed, err := d.record(ctx, id, inc, cmd, in, book, decision)
	if errors.Is(err, history.ErrConflict) {
		if _, err := d.refresh(ctx, inc); err != nil {
			return nil, err
		}
		if r, ok := inc.state.Requests[declareKey(decision, cmd)]; ok && r.Digest == decision.Digest {
			return repeated(id, &r), nil // our own declaration, sent twice at once
		}
		return nil, errTaken
	}
	return committed, err
}

func declareKey(dec *procedure.Decision, cmd *emergencyv1.DeclareRequest) procedure.RequestKey {
	return procedure.RequestKey{Person: dec.Actor.GetPerson(), Command: dec.Command, RequestID: cmd.GetMeta().GetRequestId()}
}

// forget drops an incident that turned out not to exist, so that refused declarations do not fill the memory.
func (d *Dispatcher) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.incidents, id)
}
