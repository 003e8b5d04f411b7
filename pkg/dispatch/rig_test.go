// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"errors"
	"slices"
	"testing"

	"cacert.org/emergency/pkg/dispatch/dispatchtest"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/procedure/proceduretest"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

const incident = proceduretest.DefaultIncident

// refused wants a refusal for a reason.
func refused(t *testing.T, err error, want procedure.Reason) *procedure.Refusal {
	t.Helper()
	var r *procedure.Refusal
	if !errors.As(err, &r) || r.Reason != want {
		t.Fatalf("want refusal %s, got %v", want, err)
	}
	return r
}

func is(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("want %v, got %v", want, err)
	}
}

// note is a small command that is always accepted.
func note(text string) *emergencyv1.AnnotateLogRequest {
	return &emergencyv1.AnnotateLogRequest{Entry: 1, Text: text}
}

// notes are the texts of the incident's notes in order.
func notes(r *dispatchtest.Rig) (list []string) {
	for _, n := range r.State(incident).Notes {
		list = append(list, n.Result)
	}
	return list
}

// types are the event types of all records of the incident, in order.
func types(r *dispatchtest.Rig, id string) (list []string) {
	for _, e := range r.Entries(id) {
		for _, ev := range e.Record.GetEvents() {
			list = append(list, proceduretest.ShortType(ev.GetType()))
		}
	}
	return list
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

func asRefusal(err error, r **procedure.Refusal) bool { return errors.As(err, r) }
