// SPDX-License-Identifier: Apache-2.0

//go:build !race

package hammer

const (
	defaultCommands = 2500
	defaultRaces    = 1000
)
