// SPDX-License-Identifier: Apache-2.0

// Package session is what a host's agent does for one watched console session of strategy 3 (procedure.md 3.4-3.7): it lets
// one key in, knows the session's processes, stops them, lets them go on, ends them and proves that they are gone, and lists
// what the session left behind.
//
// It decides nothing. Whether a session may be opened or go on was decided in the incident's history, which the agent has
// verified before it calls Open or Thaw. What lessens access, Freeze and End, needs no such word and is always done.
//
// # How a session is known
//
// The key line that Open installs forces the command `epatch-agent console-shell` (package function Shell). It says to the
// agent over a unix socket who it is before it starts the account's shell, is put into a control group of its own where the
// agent may make one, and adopts whatever detaches itself from the shell (PR_SET_CHILD_SUBREAPER). A process belongs to the
// session if it is in that group; or descends from the shell's wrapper; or has the session's terminal, or the session's mark
// in its environment. Once known it stays known, also when its parents are gone. Processes that were there before the session
// never belong to it. What the subject has other services start (at, cron, systemd) is none of the session's processes: it is
// found by the list of leftovers.
//
// # Fail closed
//
// No agent, no shell. When the wrapper is gone, whoever ended it, the agent kills the rest. When the agent is gone, the wrapper
// kills the rest, and the agent's next start ends every session that its journal still has as open. When the agent's link to
// the service is gone the session is frozen within a second, and ended when the link does not come back within the grace.
//
// A subject whose account is root, or the agent's own account, can defeat any of this on the host; then the agent tells what
// it sees, and no more than that is proven.
package session
