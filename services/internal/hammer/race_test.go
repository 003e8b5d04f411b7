// SPDX-License-Identifier: Apache-2.0

//go:build race

package hammer

// The race detector makes everything several times slower, so it sees fewer commands by default; the flags ask for more.
const (
	defaultCommands = 1000
	defaultRaces    = 250
)
