// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"net"

	"google.golang.org/grpc/test/bufconn"
)

// localBuffer is how many bytes one side of a local connection holds before it waits for the other.
const localBuffer = 256 << 10

// LocalAddr is the address to Dial with a local dialer: the name in the servers' development certificates.
const LocalAddr = "localhost"

// Local returns a listener and the dialer that reaches it, inside this process and without a port. Only the network is
// left out: certificates and all checks are as between machines. Closing the listener ends it.
func Local() (net.Listener, func(context.Context, string) (net.Conn, error)) {
	lis := bufconn.Listen(localBuffer)
	return lis, func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }
}
