// SPDX-License-Identifier: Apache-2.0

// Package dashboard answers questions: the query API over gRPC and the public emergency log as pages, JSON and Atom. It owns
// no events and decides nothing; all it says is a fold over the histories, and each answer tells which position it reflects.
//
// Anybody may read the public log. Everything else needs a key of the rule book, a person's or a system's; restricted values
// need a part in the procedure (procedure.MayRead) and come from the service that keeps them, which writes down each reading.
//
// A client that reads slowly, or not at all, holds up nobody: what is sent to it is taken from the folds first and sent
// without a lock, and what it missed meanwhile comes with its next message.
package dashboard
