// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
)

func TestCappedListener(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lis, dial := Local()
		c := newCapped(lis, 1, 0)
		accepted, ended := make(chan net.Conn, 2), make(chan error, 1)
		go func() {
			for {
				conn, err := c.Accept()
				if err != nil {
					ended <- err
					return
				}
				accepted <- conn
			}
		}()
		for range 2 {
			go func() { _, _ = dial(context.Background(), "") }()
		}
		synctest.Wait()
		if n := len(accepted); n != 1 {
			t.Fatalf("%d connections at once, want 1", n)
		}
		first := <-accepted
		for range 2 { // a connection closed twice frees one place
			_ = first.Close()
		}
		synctest.Wait()
		if n := len(accepted); n != 1 {
			t.Fatalf("%d connections after one was closed, want 1", n)
		}
		go func() { _, _ = dial(context.Background(), "") }()
		synctest.Wait()
		if n := len(accepted); n != 1 {
			t.Fatalf("%d connections, want 1", n)
		}
		_ = c.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed while full: %v", err)
		}
	})
}
