// SPDX-License-Identifier: Apache-2.0

// Package arbitration is the service that keeps the rule book (policy, directory, keys), the documentation, the obligations,
// and everything from a filed dispute to the ruling and its directions, redaction and disclosure. It owns the events
// arbitration.*.
//
// It follows every incident and does by itself what follows: it records the difference between what is owed and what was made
// visible, has the owner of a redacted value delete it, and discloses what has become due. A filing goes by mail to the
// configured address, and what became of the mail is recorded as its own FilingReported. Its ticks make overdue obligations
// visible and climb the ladder. It decides nothing: pkg/procedure does.
package arbitration
