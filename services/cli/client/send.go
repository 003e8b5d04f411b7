// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/rand"
	"fmt"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc/command"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Send gives a command and returns what was recorded. It fills in a fresh request id where there is none, signs where the
// command needs it, and while the server is away or busy tries again with the same request id, so that a command is never
// done twice. The error carries the refusal (rpc.RefusalOf), or is the last try's.
func (c *Client) Send(ctx context.Context, cmd procedure.Command) (*emergencyv1.Committed, error) {
	answer, err := c.Call(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return answer.GetCommitted(), nil
}

// Answer is what every command is answered with.
type Answer = command.Answer

// Call is Send with the whole answer.
func (c *Client) Call(ctx context.Context, cmd procedure.Command) (Answer, error) {
	if c.cfg.Offline {
		return nil, c.capture(ctx, cmd)
	}
	if _, err := command.Method(cmd); err != nil {
		return nil, err
	}
	if procedure.NeedsSignature(cmd) && cmd.GetMeta().GetApproval() == nil {
		if _, err := c.Sign(ctx, cmd); err != nil {
			return nil, err
		}
	}
	command.Meta(cmd, c.requestID())
	answer, err := command.Give(ctx, c.conn(procedure.CommandOwner(cmd)), cmd, command.Retry{Patience: c.cfg.Patience, Now: c.Now, On: c.cfg.OnRetry})
	if err != nil {
		return nil, err
	}
	c.wrote(answer.GetCommitted())
	return answer, nil
}

func (c *Client) wrote(done *emergencyv1.Committed) {
	c.Saw(done.GetIncident(), done.GetLastPosition())
}

// Saw tells the client of a position that it was told of elsewhere: whatever it reads from now on goes at least that far, also where the
// instance that answers is a moment behind.
func (c *Client) Saw(incident string, position uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written[incident] = max(c.written[incident], position)
}

// Sign fills in a fresh request id where there is none, and the person's signature over what the command says on the
// incident as its verified history has it. It returns what was signed, to be shown. Send it within minutes: some commands
// need a fresh signature (G8).
func (c *Client) Sign(ctx context.Context, cmd procedure.Command) (*emergencyv1.Statement, error) {
	for _, info := range procedure.Commands() {
		if info.Name == procedure.CommandName(cmd) {
			return c.SignAs(ctx, cmd, info.Roles...)
		}
	}
	return nil, fmt.Errorf("%s is no command", cmd.ProtoReflect().Descriptor().FullName())
}

// SignAs is Sign in the first of the roles that the person holds, for a second signature under a command that is given in
// other roles than it is countersigned. Where the person holds none it is the first one: the service then says who could.
func (c *Client) SignAs(ctx context.Context, cmd procedure.Command, roles ...emergencyv1.Role) (*emergencyv1.Statement, error) {
	person, book, err := c.Person(ctx)
	if err != nil {
		return nil, err
	}
	c.markCaptured(cmd)
	s := procedure.NewState(cmd.GetMeta().GetIncident()) // what is captured says nothing that only the history knows
	if !c.cfg.Offline {
		if s, err = c.State(ctx, cmd.GetMeta().GetIncident()); err != nil {
			return nil, err
		}
	}
	m := command.Meta(cmd, c.requestID())
	now := c.Now()
	st, err := procedure.StatementFor(s, cmd, person, command.Role(person, roles, book, now), now)
	if err != nil {
		return nil, err
	}
	if m.Approval, err = identity.SignStatement(c.profile.Signer, st); err != nil {
		return nil, err
	}
	return st, nil
}

// requestID is fresh for each human act.
func (c *Client) requestID() string { return "cli-" + rand.Text() }
