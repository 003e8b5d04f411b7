// SPDX-License-Identifier: Apache-2.0

package rpc_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

// rawCodec sends bytes as they are.
type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if raw, ok := v.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(raw)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func sendRaw(conn *grpc.ClientConn, data []byte) error {
	return conn.Invoke(context.Background(), dashboardv1.QueryService_ReadLog_FullMethodName, data, &dashboardv1.ReadLogResponse{},
		grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")}))
}

func TestBytesThatAreNoRequest(t *testing.T) {
	t.Parallel()
	b := start(t, &query{watch: func(context.Context, grpc.ServerStream) error { return nil }}, nil)
	conn := b.dial(b.ada())
	for name, data := range map[string][]byte{"no field": {0xff}, "torn": {0x0a, 0x05, 'x'}, "not UTF-8": {0x0a, 0x01, 0xff}} {
		err := sendRaw(conn, data)
		if r, ok := rpc.RefusalOf(err); !ok || r.Reason != procedure.ReasonField {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, err := conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true}, dashboardv1.QueryService_WatchIncident_FullMethodName,
		grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendMsg([]byte{0xff}); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	err = s.RecvMsg(&dashboardv1.WatchIncidentResponse{})
	_ = wantRefusal(t, err, procedure.InvalidArgument, procedure.ReasonField)
	if n := b.query.calls.Load(); n != 0 {
		t.Errorf("%d handlers ran", n)
	}
}

func FuzzBytes(f *testing.F) {
	whole, err := proto.Marshal(&dashboardv1.ReadLogRequest{Incident: "e20261124.1", Drills: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte{0x0a, 0x01, 0xff})
	b := start(f, &query{}, nil)
	conn := b.dial(b.ada())
	f.Fuzz(func(t *testing.T, data []byte) {
		err := sendRaw(conn, data)
		fits := proto.Unmarshal(data, &dashboardv1.ReadLogRequest{}) == nil
		_, refused := rpc.RefusalOf(err)
		if len(data) < rpc.MaxReceive && (fits != (err == nil) || (!fits && !refused)) && status.Code(err) != codes.ResourceExhausted {
			t.Errorf("decodes: %t; answer %v", fits, err)
		}
	})
}
