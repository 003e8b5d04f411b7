// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
)

var errFound = errors.New("found")

// Await follows an incident by WatchIncident until something is so, and returns it as it is then.
func (e *Env) Await(incident, what string, so func(*dashboardv1.Incident) bool) *dashboardv1.Incident {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), Patience)
	defer cancel()
	var last *dashboardv1.Incident
	err := e.As("clara").Watch(ctx, incident, func(m *dashboardv1.WatchIncidentResponse) error {
		if last = m.GetIncident(); so(last) {
			return errFound
		}
		return nil
	})
	if !errors.Is(err, errFound) {
		e.t.Fatalf("%s: %s did not happen: %v\nwhat happened:\n%s", incident, what, err, e.told(incident))
	}
	return last
}

// told is the timeline as text, for a test that fails.
func (e *Env) told(incident string) string {
	e.t.Helper()
	var b strings.Builder
	for _, x := range e.Timeline(incident) {
		fmt.Fprintf(&b, "%4d %s %s %s%s: %s %s\n", x.GetPosition(), x.GetRecordedAt().AsTime().Format("15:04:05.000"), x.GetType(), x.GetActor().GetPerson(), x.GetActor().GetSystemName(), x.GetText(), x.GetPayloadJson())
	}
	return b.String()
}

// AwaitEvent follows an incident until its timeline has an event of the type, after a position, and returns the event.
func (e *Env) AwaitEvent(incident, kind string, after uint64) *dashboardv1.TimelineEntry {
	e.t.Helper()
	var found *dashboardv1.TimelineEntry
	e.Await(incident, kind, func(in *dashboardv1.Incident) bool {
		for _, entry := range e.Timeline(incident) {
			if entry.GetPosition() > after && entry.GetType() == kind {
				found = entry
				return true
			}
		}
		return false
	})
	return found
}

// Timeline is what happened in an incident.
func (e *Env) Timeline(incident string) []*dashboardv1.TimelineEntry {
	e.t.Helper()
	res, err := e.As("clara").Query().ReadTimeline(e.t.Context(), &dashboardv1.ReadTimelineRequest{Incident: incident})
	must(e.t, err)
	return res.GetEntries()
}

// Has tells whether the incident's current revision has a check of a kind, such as "test server".
func Has(in *dashboardv1.Incident, kind string) bool {
	for _, r := range in.GetRevisions() {
		for _, c := range r.GetChecks() {
			if r.GetCurrent() && c.GetKind() == kind {
				return true
			}
		}
	}
	return false
}

// Deployment is the state of the last deployment; empty if there is none.
func Deployment(in *dashboardv1.Incident) string {
	if n := len(in.GetDeployments()); n > 0 {
		return in.GetDeployments()[n-1].GetState()
	}
	return ""
}

// Paged tells whether something is known of every page.
func Paged(in *dashboardv1.Incident) bool {
	for _, p := range in.GetPages() {
		if p.GetState() == "PENDING" {
			return false
		}
	}
	return len(in.GetPages()) > 0
}

// Obligation is the obligation of a kind; nil if there is none.
func Obligation(in *dashboardv1.Incident, kind string) *dashboardv1.Obligation {
	for _, o := range in.GetObligations() {
		if o.GetKind() == kind {
			return o
		}
	}
	return nil
}
