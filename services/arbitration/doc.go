// SPDX-License-Identifier: Apache-2.0

// Package arbitration is the service that keeps the rule book (policy, directory, keys), the documentation and the
// obligations. It owns the events arbitration.*. It follows every incident and records the difference between what is owed
// and what was made visible; its ticks make overdue obligations visible and climb the ladder.
package arbitration
