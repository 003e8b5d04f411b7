// SPDX-License-Identifier: Apache-2.0

// Package agent is the program on a critical host or test server that does what the procedure has decided there: it tries a
// patch, applies it, takes it back, and says which tree is on the disk.
//
// It believes no service. Services tell it that something is to be done; whether it may be done it finds out by itself: it
// reads the history of the incident and the rule book as they are stored, checks chain and owners' signatures with a keyring
// of its own, checks the signatures of the people who reviewed, tested and started it, recomputes the binding digest, and
// runs the gate of pkg/procedure on the result. It fetches the patch and hashes it, takes base and result tree from what it
// has verified and never from the job, and computes both trees from the files. A job that differs from the history in any
// point is refused, with the point named, and the tree stays as it is. The end of each history that it has verified is kept,
// so that an older one or another one is noticed.
//
// It opens no port: it dials the deployment service and is sent one job at a time. What it did it reports by commands of its
// own, signed in by its own key, so that the record says who saw it. A job is done at most once, under the id of the event
// that asks for it; killed at any moment, it brings the tree to the old or the new side at the next start and says which.
package agent
