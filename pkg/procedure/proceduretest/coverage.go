// SPDX-License-Identifier: Apache-2.0

package proceduretest

import (
	"slices"
	"sync"

	"cacert.org/emergency/pkg/procedure"
)

// Coverage counts which commands were seen accepted and which reasons were seen refusing, so that a rule without a test is
// found. Only what a test asked for by name counts.
type Coverage struct {
	mu       sync.Mutex
	commands map[string]bool
	reasons  map[procedure.Reason]bool
}

// NewCoverage has seen nothing.
func NewCoverage() *Coverage {
	return &Coverage{commands: map[string]bool{}, reasons: map[procedure.Reason]bool{}}
}

func (c *Coverage) accepted(command string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commands[command] = true
}

func (c *Coverage) refused(_ string, reason procedure.Reason) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reasons[reason] = true
}

// Missing lists the commands that no test saw accepted and the reasons that no test saw.
func (c *Coverage) Missing() (commands []string, reasons []procedure.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, info := range procedure.Commands() {
		if !c.commands[info.Name] {
			commands = append(commands, info.Name)
		}
	}
	reasons = slices.DeleteFunc(procedure.Reasons(), func(r procedure.Reason) bool { return c.reasons[r] })
	return commands, reasons
}
