// SPDX-License-Identifier: Apache-2.0

// Package proceduretest helps testing everything that stands on pkg/procedure: a founded rule book with demo people who
// have real keys, one incident in the hand of a test (World), the words given, when and then (Case), the story of
// strategy 1 up to any step (Story), all moves that somebody could try next (Moves), and random valid histories (Random).
//
// Everything is deterministic: keys are derived from names, signatures are made without randomness, time starts at T0 and
// moves only when a test moves it. The same calls give the same bytes, run after run, so histories made here can be frozen.
// The keys are public knowledge and protect nothing.
package proceduretest
