// SPDX-License-Identifier: Apache-2.0

// Package dossier says what a history says, in plain English, to those who have to judge it: the arbitrator's questions of
// procedure.md 9, the draft of a documentation, the Board's summary of a period, obligations in words.
//
// Everything here is a pure function of histories, a position and a time: no clock, network or randomness, and nothing that
// a server would have to be believed for. It states facts and where they stand. It never judges, and never says that an act
// was allowed: what the history does not hold reads "no evidence" (procedure.md 0.11, 9).
//
// Restricted values are not in a history. The texts name them by field and commitment; whoever may read them brings the
// values along when the text is written.
package dossier
