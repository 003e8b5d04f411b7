// SPDX-License-Identifier: Apache-2.0

// Package procedure is the rules of CAcert's emergency patch procedure, as code without surroundings: no clock, network,
// randomness, map order or logging. Services, timers, projections, pages, the agents on the hosts, the offline verifier
// and the tests run these same functions.
//
//   - Decide answers a command on a State: events, or a Refusal that says which rule said no and what would allow it.
//   - State.Apply and Evolve fold events into a State.
//   - Options asks Decide what a person can do now, so no page or CLI keeps a second list.
//   - Debts and Deadlines derive from the history what is owed and what is due.
//
// Glossary. An incident is one history of events in one ordered subject. A command is a request message of the gRPC API;
// decided, it becomes one record of one or more events. A revision is one version of a patch, such as P1r2; its binding
// names the bytes of patch and trees that reviews, tests, deployment and replication are about. A slot is a place in a
// team that a named responder fills. A deviation is a departure that only an arbitrator can judge. An obligation is
// something owed with an owner and a due date. T0 is the time of the declaration. The current revision is the latest one
// of its patch. A dispute is a filing at CAcert's arbitration; a case manager opens a case for it, an arbitrator rules on it and
// gives directions. Whoever acted in an incident, by anything but reading and arbitration, has a conflict of interest in its
// disputes. Restricted values are kept outside the history under commitments; to redact one is to delete it, to disclose one
// is to publish it with its salt. A grant is a one-time access of one person, the subject, to a host; the watcher, another
// person, sees all of it and can stop it. A production effect is what may change the critical host: ApplyStarted or
// ConnectionOpened. "Passed" means later than due: exactly at the due time is still in time.
package procedure
