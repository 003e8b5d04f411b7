// SPDX-License-Identifier: Apache-2.0

// Package broker is the one-time, watched console of strategy 3: an SSH server between the subject's ordinary ssh client and the
// ordinary sshd of the target host, and the hub of those who watch (procedure.md 1.3 and 4.4, steps 3.3 to 3.6).
//
// What it promises, whatever the client does:
//
//   - One credential, one session: it asks Rules.Connect, which consumes the credential by compare-and-set, before anything of
//     the target is dialled; a lost connection ends the grant.
//   - Watcher first: no byte reaches the target and none is shown to the subject unless the watcher named by the grant is armed,
//     present and has acknowledged what was shown before. Watchers are counted as persons, never as connections.
//   - One session channel with a terminal, a shell and changes of its size. Everything else is refused and recorded; the zero
//     value of the policy refuses all of it.
//   - Recorded before shown, recorded before forwarded. What is typed while the gate is shut is discarded and counted, never queued.
//   - Acts that lessen access (freeze, terminate) are done first and recorded then, again and again until they are recorded;
//     acts that give access are recorded first. Effects of an end are independent of each other, and each has its own result.
//
// It knows neither events nor gRPC nor the agent's protocol: it asks Rules, Host and Targets. It decides nothing that a rule
// decides; where it knows better than the history (a watcher whose lease has run out this second) it only ever refuses more.
// Time comes from Config.Clock, except the deadlines of the network (handshake, dialling).
package broker
