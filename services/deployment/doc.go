// SPDX-License-Identifier: Apache-2.0

// Package deployment is the service that brings the reviewed bytes to the critical host, proves that they run there, and
// sees to it that the release branch holds the same (seed 1.9 and 2.5, procedure.md 4.4). It owns the events deployment.*
// and appends nothing else.
//
// It has no hands of its own. The agents on the hosts dial in and are asked to do jobs; what a job names, an agent compares
// with the history that it has read and verified itself. The service hands out no job that the rules have not passed for
// exactly these bytes, and what an agent answers only ends the asking: what happened on a host is recorded by the agent's
// own commands, under the agent's own key.
package deployment
