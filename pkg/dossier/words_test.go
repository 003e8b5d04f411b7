// SPDX-License-Identifier: Apache-2.0

package dossier_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/dossier"
	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// example is an event of a type with something in each field.
func example(t *testing.T, eventType string) proto.Message {
	schema := uint32(1)
	m, err := procedure.DecodeEvent(&emergencyv1.Event{Type: eventType, SchemaVersion: schema})
	if err != nil {
		t.Fatal(err)
	}
	fill(m.ProtoReflect())
	return m
}

func fill(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case fd.IsList() && fd.Message() != nil:
			fill(m.Mutable(fd).List().AppendMutable().Message())
		case fd.IsList() && fd.Kind() == protoreflect.EnumKind:
			m.Mutable(fd).List().Append(protoreflect.ValueOfEnum(1))
		case fd.IsList() && fd.Kind() == protoreflect.StringKind:
			m.Mutable(fd).List().Append(protoreflect.ValueOfString("item"))
		case fd.IsList():
			m.Mutable(fd).List().Append(protoreflect.ValueOfUint64(7))
		case fd.Message() != nil:
			fill(m.Mutable(fd).Message())
		case fd.Kind() == protoreflect.StringKind:
			m.Set(fd, protoreflect.ValueOfString("some-"+string(fd.Name())))
		case fd.Kind() == protoreflect.EnumKind:
			m.Set(fd, protoreflect.ValueOfEnum(1))
		case fd.Kind() == protoreflect.BoolKind:
			m.Set(fd, protoreflect.ValueOfBool(true))
		case fd.Kind() == protoreflect.Uint32Kind:
			m.Set(fd, protoreflect.ValueOfUint32(5))
		}
	}
}

// Every event has words, and the same ones each time; what was never set leaves no hole that breaks them.
func TestWordsForEveryEvent(t *testing.T) {
	t.Parallel()
	for _, eventType := range procedure.EventTypes() {
		m := example(t, eventType)
		words := dossier.Words(m)
		if words == "" || strings.Contains(words, "%!") || strings.Contains(words, "UNSPECIFIED") {
			t.Errorf("%s: %q", eventType, words)
		}
		empty := m.ProtoReflect().New().Interface()
		if words := dossier.Words(empty); words == "" || strings.Contains(words, "%!") {
			t.Errorf("%s without values: %q", eventType, words)
		}
	}
	if words := dossier.Words(&emergencyv1.CallOutRequest{}); words != "" {
		t.Errorf("a command has words: %q", words)
	}
}

func TestSomeWords(t *testing.T) {
	t.Parallel()
	at := timestamppb.New(time.Date(2026, 11, 24, 21, 30, 0, 0, time.UTC))
	for want, m := range map[string]proto.Message{
		"carl takes critical/2 to observe the deployment, ready in 10 min": &emergencyv1.ResponderAccepted{
			Person: "carl", Slot: "critical/2", Step: emergencyv1.ResponderStep_RESPONDER_STEP_OBSERVE, EtaMinutes: 10},
		"Met: HEALTH/40 by event 44, late by 1m30s":                                            &emergencyv1.ObligationDischarged{Id: "HEALTH/40", By: 44, LateByMs: 90_000},
		"carla deploys P1r1 on www1, without observer":                                         &emergencyv1.ApplyStarted{Executor: "carla", Host: "www1", Binding: &emergencyv1.Binding{Revision: "P1r1"}},
		"Replication of www1: lag, lag at least 49 days (4228206 s)":                           &emergencyv1.ReplicationChecked{Host: "www1", Result: emergencyv1.ReplicationResult_REPLICATION_RESULT_LAG, LagDays: 49, LagSeconds: 4228206, LowerBound: true},
		"tina did not check in for testing/2, due 2026-11-24 21:30 UTC":                        &emergencyv1.StandbyMissed{Person: "tina", Slot: "testing/2", DueAt: at},
		"StartApply was refused: VETO_OPEN (4.3); 2 more refusals before it were only counted": &emergencyv1.CommandRefused{Command: "StartApply", Reason: "VETO_OPEN", Rule: "4.3", Suppressed: 2},
	} {
		if got := dossier.Words(m); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
