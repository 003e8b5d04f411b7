// SPDX-License-Identifier: Apache-2.0

// Package command takes a command to the service that owns it, for whoever gives one: a person's own program, or the pages on
// behalf of a person who has signed.
//
// A command has one request id, however often it has to be sent, so that it is never done twice. While a service is away or busy
// it is sent again; every other answer is the answer.
package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/rulebook"

	// Their service descriptors say where a command goes and what answers it.
	_ "cacert.org/emergency/proto/emergency/arbitration/v1"
	_ "cacert.org/emergency/proto/emergency/deployment/v1"
	_ "cacert.org/emergency/proto/emergency/incident/v1"
	_ "cacert.org/emergency/proto/emergency/notification/v1"
	_ "cacert.org/emergency/proto/emergency/review/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Answer is what every command is answered with.
type Answer interface {
	proto.Message
	GetCommitted() *emergencyv1.Committed
}

// Retry says how long to try while a service is away or busy.
type Retry struct {
	// Patience is for how long another try is begun, by Now.
	Patience time.Duration
	Now      func() time.Time
	// On is told before each further try. Optional.
	On func(err error, wait time.Duration)
}

// Give sends a command over a connection to its owner. The error carries the refusal (rpc.RefusalOf), or is the last try's.
func Give(ctx context.Context, conn grpc.ClientConnInterface, cmd procedure.Command, retry Retry) (Answer, error) {
	method, err := Method(cmd)
	if err != nil {
		return nil, err
	}
	output, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", method.FullName(), err)
	}
	answer, ok := output.New().Interface().(Answer)
	if !ok {
		return nil, fmt.Errorf("answer of %s says nothing of what was recorded", method.FullName())
	}
	path := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	if err := retry.do(ctx, func() error { return conn.Invoke(ctx, path, cmd, answer) }); err != nil {
		return nil, err
	}
	return answer, nil
}

// Method finds the gRPC method of a command: its name, in the service of its owner. An error says that nobody gives it from outside.
func Method(cmd procedure.Command) (protoreflect.MethodDescriptor, error) {
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

// Meta returns the command's common part, which is made where there is none, with a request id: its own, or else the fresh one.
func Meta(cmd procedure.Command, fresh string) *emergencyv1.CommandMeta {
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

// Role is the first of the roles that the person holds, in which the person signs. Where the person holds none it is the first
// one: the service then says who could.
func Role(person string, roles []emergencyv1.Role, book *rulebook.Book, now time.Time) emergencyv1.Role {
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

// do tries again while a service is away or busy. Each try is safe: the request id is the same.
func (r Retry) do(ctx context.Context, try func() error) error {
	until := r.Now().Add(r.Patience)
	for wait := 500 * time.Millisecond; ; wait = min(2*wait, 4*time.Second) {
		err := try()
		if r, limited := rpc.RefusalOf(err); limited && r.Reason == rpc.ReasonRate {
			wait = max(wait, rpc.RetryAfter(err))
		}
		if err == nil || ctx.Err() != nil || !Passing(err) || r.Now().Add(wait).After(until) {
			return err
		}
		if r.On != nil {
			r.On(err, wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// Passing tells whether the same command may be answered otherwise a moment later: a service was away, or others wrote to the incident
// each time it was decided (G10), or the caller made too many calls.
func Passing(err error) bool {
	if refusal, ok := rpc.RefusalOf(err); ok {
		return refusal.Passing() || refusal.Reason == rpc.ReasonRate
	}
	code := status.Code(err)
	certificate := strings.Contains(status.Convert(err).Message(), "tls: ") // a certificate is not better a moment later
	return (code == codes.Unavailable || code == codes.DeadlineExceeded) && !certificate
}
