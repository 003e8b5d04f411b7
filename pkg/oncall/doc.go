// SPDX-License-Identifier: Apache-2.0

// Package oncall plans who is on duty, and writes it down for calendars.
//
// The rule book keeps shifts alone (SetRota); it knows no rotation. What is regular is planned here, by the clock of a place,
// and becomes shifts. A shift that stands in for the rotation is kept beside it and wins while it holds (rulebook.OnDuty), so
// taking it back gives the rotation its place again. Nothing here decides: who may set a rota, and who may be in it, is said by
// pkg/procedure when the shifts are sent.
package oncall
