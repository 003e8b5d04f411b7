// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rulebook"

	// Their service descriptors say where a command goes and what answers it.
	_ "cacert.org/emergency/proto/emergency/arbitration/v1"
	_ "cacert.org/emergency/proto/emergency/incident/v1"
	_ "cacert.org/emergency/proto/emergency/notification/v1"
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
type Answer interface {
	proto.Message
	GetCommitted() *emergencyv1.Committed
}

// Call is Send with the whole answer.
func (c *Client) Call(ctx context.Context, cmd procedure.Command) (Answer, error) {
	if c.cfg.Offline {
		return nil, c.capture(ctx, cmd)
	}
	method, err := methodOf(cmd)
	if err != nil {
		return nil, err
	}
	if procedure.NeedsSignature(cmd) && cmd.GetMeta().GetApproval() == nil {
		if _, err := c.Sign(ctx, cmd); err != nil {
			return nil, err
		}
	}
	meta(cmd, c.requestID())
	output, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", method.FullName(), err)
	}
	answer, ok := output.New().Interface().(Answer)
	if !ok {
		return nil, fmt.Errorf("answer of %s says nothing of what was recorded", method.FullName())
	}
	path := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	conn := c.conn(procedure.CommandOwner(cmd))
	if err := c.retry(ctx, func() error { return conn.Invoke(ctx, path, cmd, answer) }); err != nil {
		return nil, err
	}
	c.wrote(answer.GetCommitted())
	return answer, nil
}

func (c *Client) wrote(done *emergencyv1.Committed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written[done.GetIncident()] = max(c.written[done.GetIncident()], done.GetLastPosition())
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
	m := meta(cmd, c.requestID())
	now := c.Now()
	st, err := procedure.StatementFor(s, cmd, person, signingRole(person, roles, book, now), now)
	if err != nil {
		return nil, err
	}
	if m.Approval, err = identity.SignStatement(c.profile.Signer, st); err != nil {
		return nil, err
	}
	return st, nil
}

func signingRole(person string, roles []emergencyv1.Role, book *rulebook.Book, now time.Time) emergencyv1.Role {
	for _, r := range roles {
		if book.Has(person, r, now) {
			return r
		}
	}
	if len(roles) == 0 {
		return emergencyv1.Role_ROLE_UNSPECIFIED
	}
	return roles[0]
}

// requestID is fresh for each human act.
func (c *Client) requestID() string { return "cli-" + rand.Text() }

// meta returns the command's common part, with a request id.
func meta(cmd procedure.Command, fresh string) *emergencyv1.CommandMeta {
	m := cmd.GetMeta()
	if m == nil {
		m = &emergencyv1.CommandMeta{}
		cmd.ProtoReflect().Set(cmd.ProtoReflect().Descriptor().Fields().ByName("meta"), protoreflect.ValueOfMessage(m.ProtoReflect()))
	}
	if m.RequestId == "" {
		m.RequestId = fresh
	}
	return m
}

// methodOf finds the gRPC method of a command: its name, in the service of its owner.
func methodOf(cmd procedure.Command) (protoreflect.MethodDescriptor, error) {
	owner, name := procedure.CommandOwner(cmd), procedure.CommandName(cmd)
	if owner == "" {
		return nil, fmt.Errorf("%s is no command that a person gives", cmd.ProtoReflect().Descriptor().FullName())
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(fmt.Sprintf("emergency.%s.v1.%s", owner, title(owner)+"Service")))
	if err != nil {
		return nil, fmt.Errorf("service of %s: %w", owner, err)
	}
	service, ok := d.(protoreflect.ServiceDescriptor)
	if !ok || service.Methods().ByName(protoreflect.Name(name)) == nil {
		return nil, fmt.Errorf("%s takes no command %s from outside", owner, name)
	}
	return service.Methods().ByName(protoreflect.Name(name)), nil
}

func title(s string) string { return string(s[0]-'a'+'A') + s[1:] }

// retry tries again while a server is away or busy. Each try is safe: the request id is the same.
func (c *Client) retry(ctx context.Context, try func() error) error {
	until := c.Now().Add(c.cfg.Patience)
	for wait := 500 * time.Millisecond; ; wait = min(2*wait, 4*time.Second) {
		err := try()
		if err == nil || ctx.Err() != nil || !passing(err) || c.Now().Add(wait).After(until) {
			return err
		}
		if c.cfg.OnRetry != nil {
			c.cfg.OnRetry(err, wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// passing tells whether the same command may be answered otherwise a moment later.
func passing(err error) bool {
	code := status.Code(err)
	certificate := strings.Contains(status.Convert(err).Message(), "tls: ") // a certificate is not better a moment later
	return (code == codes.Unavailable || code == codes.DeadlineExceeded) && !certificate
}
