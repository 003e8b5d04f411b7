// SPDX-License-Identifier: Apache-2.0

// Package view is the dashboard's projections: the timeline in words, the public log, and the records as they are stored.
// They are folds over the histories, kept in memory and rebuilt at start. Reading never waits for a writer that waits for
// somebody's connection: what is handed out are slices that only grow, and what they hold never changes.
package view
