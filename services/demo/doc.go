// SPDX-License-Identifier: Apache-2.0

// Package demo plays one whole emergency, by each strategy of the procedure, for somebody who sees the system for the first time: real services in
// processes of their own, a real vulnerable program in a real git repository, real agents on two folders, and people with
// different certificates who use the public API. Nothing in it is a shortcut past a rule.
package demo
