// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"bytes"
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that is wrapped here
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"cacert.org/emergency/pkg/procedure"
)

// patientCodec hands bytes that do not decode to the guard as a marked empty message. Otherwise gRPC answers them itself
// with INTERNAL and its own text, before any interceptor: no reason, no caller in the log.
type patientCodec struct{ encoding.CodecV2 }

func newPatientCodec() patientCodec { return patientCodec{encoding.GetCodecV2("proto")} }

func (c patientCodec) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	m, ok := v.(proto.Message)
	if err == nil || !ok {
		return err
	}
	proto.Reset(m)
	m.ProtoReflect().SetUnknown(undecoded())
	return nil
}

// undecoded is the mark: a field with the highest number, which no message of ours has.
func undecoded() protoreflect.RawFields {
	return protowire.AppendBytes(protowire.AppendTag(nil, protowire.MaxValidNumber, protowire.BytesType), []byte("undecoded"))
}

// decoded refuses a request that carries the mark.
func decoded(req any) error {
	m, ok := req.(proto.Message)
	if !ok || !bytes.Equal(m.ProtoReflect().GetUnknown(), undecoded()) {
		return nil
	}
	name := m.ProtoReflect().Descriptor().FullName()
	return &procedure.Refusal{
		Code: procedure.InvalidArgument, Reason: procedure.ReasonField, Rule: "G2", Message: fmt.Sprintf("the bytes of this request are no %s", name),
		Allow: []procedure.Allowance{{Description: "send the message as the published .proto files describe it; texts must be UTF-8"}},
	}
}
