// SPDX-License-Identifier: Apache-2.0

// Package history is the form in which everything that happened is kept: one record per decided command, sealed by the
// service that owns it and chained to the record before (procedure.md 0.1, 0.7).
//
// Promises:
//   - The bytes of a record are final. Hash and signature are over them as stored; nothing is ever encoded a second time.
//   - Chain decides, for every reader in the same way, which stored messages are the history. A message that is not
//     signed by a listed service key, or does not continue the chain, is foreign: it is named and skipped, and can
//     neither forge nor block an incident.
//   - An authentic record that this version cannot understand stops its incident (UnreadableError). Skipping it would
//     mean deciding as if a fact had not happened.
//   - Store says what a place to keep records must guarantee. Sub-packages memory and jetstream implement it,
//     historytest holds the tests that both must pass.
//
// It holds no clock and no key of a person, and depends on neither NATS nor gRPC.
package history
