// SPDX-License-Identifier: Apache-2.0

// Package testenv is the whole system in one process, for tests: the node with its embedded log on disk and its gRPC API on
// a port of its own, a bare git repository with a small program, folders that stand for the critical host, its drill host and
// the test server with a real agent on each, channels that record what is sent, and people with their own certificates.
// For strategy 3 the critical host gets the machine's own sshd, and people their programs in terminals, each a process of its own.
//
// Nothing in it is a shortcut past a rule: whatever happens, happens by commands over the API, signed by the person who gives
// them. Time is in the test's hand if it asks for that. Waiting is for facts, never for a time to pass. A failed test prints
// the end of the system's log.
package testenv
