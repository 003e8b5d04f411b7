// SPDX-License-Identifier: Apache-2.0

// Package review is the service that keeps patches, reviews and tests and binds them to the same bytes. It owns the events
// review.*.
//
// Nothing that a client says of a patch is believed: digest and trees are computed from the bytes, here and again at each
// later point (procedure.md 0.14). It reacts to an approving first review by pushing the reviewed tree to a branch of its own
// in the repository, in the reviewer's name; to that push by asking the deployment service to have the test server's agent
// install the tree; and to pushes, tests and forwards by a note in the bug tracker, where one is configured. It works while
// the tracker, the deployment service or the test server is down, and makes up for it when they are back; while the
// repository is down, registrations and transfers tell the caller to come again.
//
// Where the bytes of one point are not what they should be, the error names the point: the registered patch, the artefact
// store, or the repository.
package review
