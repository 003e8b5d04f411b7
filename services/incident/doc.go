// SPDX-License-Identifier: Apache-2.0

// Package incident is the service that decides what becomes of an incident as a whole: declaration, merge, stand-down,
// waivers, lead decision, notes, close, and the deadlines of the 24-hour clock. It owns the events incident.*, appends
// nothing else, and does nothing outside: other services follow its events.
package incident
