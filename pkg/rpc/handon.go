// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"net/netip"
	"regexp"

	"google.golang.org/grpc/metadata"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/procedure"
)

// What one instance of a service has, such as a watched session, another cannot answer for. It hands the call on, once, over a
// connection of its own, and says who made it. That is believed of a connection with the service's own identity (ServerConfig.Sibling), which
// could give itself any answer anyway, and refused of everybody else.
const (
	callerHeader  = "epatch-handed-on-caller"  // key id of the connection on which the call was made
	addressHeader = "epatch-handed-on-address" // and the address at its other end
)

// handedOn is what a context carries of a call that was handed on: where it was made.
type handedOn struct{ address string }

type handedOnKey struct{}

// HandOn returns the context in which a call that this process was asked is made on another instance of the service, with the caller, the
// deadline and the end of the first one. A call that was handed on is not handed on again: that is an error.
func HandOn(ctx context.Context) (context.Context, error) {
	if HandedOn(ctx) {
		return nil, errors.New("hand on: the call was handed on before")
	}
	caller, ok := identity.FromContext(ctx)
	if !ok {
		return nil, errors.New("hand on: the call has no caller")
	}
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(callerHeader, caller.KeyID, addressHeader, AddressOf(ctx))), nil
}

// HandedOn tells whether the call was made on another instance of the service, which handed it on.
func HandedOn(ctx context.Context) bool {
	_, ok := ctx.Value(handedOnKey{}).(handedOn)
	return ok
}

// AddressOf is the address that a call was made from, without a port; empty if it is not known.
func AddressOf(ctx context.Context) string {
	if h, ok := ctx.Value(handedOnKey{}).(handedOn); ok {
		return h.address
	}
	return addressOf(ctx)
}

var keyID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// handedOn returns who made the call, which is the connection's caller unless a sibling says otherwise.
func (g *guard) handedOn(ctx context.Context, conn identity.Caller, known bool) (context.Context, identity.Caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	callers, addresses := md.Get(callerHeader), md.Get(addressHeader)
	if len(callers) == 0 && len(addresses) == 0 {
		return ctx, conn, nil
	}
	if !known || !conn.Valid(g.cfg.Now()) || g.cfg.Sibling == nil || !g.cfg.Sibling(conn) {
		return ctx, conn, notSibling("only another instance of this service may say that it hands on somebody else's call", "make the call yourself, without the headers "+callerHeader+" and "+addressHeader)
	}
	if len(callers) != 1 || len(addresses) != 1 || !keyID.MatchString(callers[0]) {
		return ctx, conn, notSibling("a call that is handed on has one caller and one address", "see that all instances of the service have the same version")
	}
	if _, err := netip.ParseAddr(addresses[0]); err != nil && addresses[0] != "" {
		return ctx, conn, notSibling("a call that is handed on names an address", "see that all instances of the service have the same version")
	}
	caller := identity.Caller{KeyID: callers[0]}
	ctx = context.WithValue(ctx, handedOnKey{}, handedOn{addresses[0]})
	return identity.WithCaller(ctx, caller), caller, nil
}

func notSibling(message, remedy string) error {
	return &procedure.Refusal{
		Code: procedure.PermissionDenied, Reason: ReasonCallerClass, Rule: "hardening 1.6", Message: message, Allow: []procedure.Allowance{{Description: remedy}},
	}
}
