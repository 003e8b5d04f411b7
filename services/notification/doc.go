// SPDX-License-Identifier: Apache-2.0

// Package notification is the service that calls people and knows who stands by. It owns the events notification.*: call-outs,
// deliveries, answers, standby, and of the rule book the rota, contacts and reachability.
//
// It reacts to EmergencyDeclared with a call-out in the declarer's name, to call-outs and re-pages by sending pages, to
// stand-down and merge by telling everybody who was called, to an escalated obligation by telling who is named, and to every
// step by telling the person it now waits for. Channels are each on their own: one that hangs or fails delays no other and no
// step. What became of a page is reported as the truth: what is not known is reported as unknown.
package notification
