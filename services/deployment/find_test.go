// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
)

// named is an instance that says its name; without one it cannot answer.
type named struct {
	deploymentv1.UnimplementedConsoleServiceServer
	name atomic.Pointer[string]
}

func (n *named) ReadInstance(context.Context, *deploymentv1.ReadInstanceRequest) (*deploymentv1.ReadInstanceResponse, error) {
	if name := n.name.Load(); *name != "" {
		return &deploymentv1.ReadInstanceResponse{Instance: *name}, nil
	}
	return nil, status.Error(codes.Unavailable, "out of order")
}

// place is an address at which an instance may run.
type place struct {
	named
	t      *testing.T
	server *grpc.Server
	at     string
}

// runs makes an instance run here under a name, or under another than before.
func (p *place) runs(name string) {
	p.t.Helper()
	p.name.Store(&name)
	if p.server != nil {
		return
	}
	lis, err := new(net.ListenConfig).Listen(p.t.Context(), "tcp", p.at)
	if err != nil {
		p.t.Fatal(err)
	}
	p.server = grpc.NewServer()
	deploymentv1.RegisterConsoleServiceServer(p.server, p)
	go func() { _ = p.server.Serve(lis) }()
	p.t.Cleanup(p.ends)
}

func (p *place) ends() {
	if p.server != nil {
		p.server.Stop()
		p.server = nil
	}
}

// TestFind: an instance is where its name is said now. Only a process that is known to have ended, or that belongs to the service no more, is not
// there; what does not answer may run, and be the one.
func TestFind(t *testing.T) {
	t.Parallel()
	s := &Server{}
	var places [3]*place
	for i := range places {
		lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		places[i] = &place{t: t, at: lis.Addr().String()}
		if err := lis.Close(); err != nil {
			t.Fatal(err)
		}
		conn, err := grpc.NewClient(places[i].at, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		s.siblings = append(s.siblings, newSiblings([]Sibling{{Address: places[i].at, Conn: conn}})...)
	}
	names := [3]string{0: "one", 1: "two"} // what was heard before
	for i, name := range names {
		s.siblings[i].heard(name, name != "")
	}
	for _, step := range []struct {
		what string
		do   func()
		is   presence
		at   int
	}{
		{"where it was", func() { places[0].runs("one"); places[1].runs("two") }, present, 0},
		{"it does not answer", func() { places[0].runs("") }, silent, 0},
		{"its process has ended", func() { places[0].ends() }, gone, 0},
		{"it runs at another address", func() { places[2].runs("one") }, present, 2},
		{"another has its old address", func() { places[0].runs("three") }, present, 2},
		{"its new address has another, too", func() { places[2].runs("four") }, unknown, 0},
		{"one that may be it is out of order", func() { places[1].runs("") }, silent, 0},
		{"it is back", func() { places[0].runs("one"); places[1].runs("two") }, present, 0},
		{"its process has ended, and one of others", func() { places[0].ends(); places[2].ends() }, gone, 0},
	} {
		step.do()
		for late := time.Now().Add(30 * time.Second); ; { // a client waits a little before it connects again
			x, is := s.find(t.Context(), "one")
			if is == step.is && (is != present || x == s.siblings[step.at]) {
				break
			}
			if time.Now().After(late) {
				t.Fatalf("%s: %d, wanted %d", step.what, is, step.is)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}
