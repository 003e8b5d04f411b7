// SPDX-License-Identifier: Apache-2.0

package publog

import (
	"fmt"
	"time"
)

// ChainError is what Verify or Continues found.
type ChainError struct {
	Seq    uint64
	Detail string
}

func (e *ChainError) Error() string { return fmt.Sprintf("public log, entry %d: %s", e.Seq, e.Detail) }

// Verify checks numbers, chain and order in time of a whole log: within an incident no entry is dated before the one before
// it (procedure.md 0.6).
func Verify(o Origin, entries []Entry) error {
	prev, last := Genesis(o), map[string]time.Time{}
	for i, e := range entries {
		switch {
		case e.Seq != uint64(i)+1:
			return &ChainError{uint64(i) + 1, fmt.Sprintf("is numbered %d", e.Seq)}
		case e.Prev != prev:
			return &ChainError{e.Seq, "does not follow the entry before it"}
		case hexHash([]byte(e.Canonical(o))) != e.Hash:
			return &ChainError{e.Seq, "its hash is not the hash of what it says"}
		case e.At.Before(last[e.Incident]):
			return &ChainError{e.Seq, fmt.Sprintf("is dated %s, before the entry before it of %s", stamp(e.At), e.Incident)}
		}
		prev, last[e.Incident] = e.Hash, e.At
	}
	return nil
}

// ClockTolerance is by how much the services' clocks may differ: entries of different incidents may be dated so far out of
// their order.
const ClockTolerance = 10 * time.Minute

// Continues checks that a log goes on from an earlier copy of it: nothing of the copy was removed, changed or put in another
// order, and nothing that came later is dated into the time before the copy's end (procedure.md 8.7). Both were verified.
func Continues(earlier, later []Entry) error {
	for i, e := range earlier {
		if i >= len(later) {
			return &ChainError{e.Seq, fmt.Sprintf("was removed: the later log ends at entry %d", len(later))}
		}
		if later[i].Hash != e.Hash {
			return &ChainError{e.Seq, fmt.Sprintf("was %q of %s, %s, and is now another entry", e.Headline, e.Incident, stamp(e.At))}
		}
	}
	if len(earlier) == 0 {
		return nil
	}
	end := earlier[len(earlier)-1]
	for _, e := range later[len(earlier):] {
		if e.At.Before(end.At.Add(-ClockTolerance)) {
			return &ChainError{e.Seq, fmt.Sprintf("came after entry %d, and is dated back before it: %s instead of %s or later", end.Seq, stamp(e.At), stamp(end.At))}
		}
	}
	return nil
}

// Holds checks that a head which somebody wrote down belongs to a log. Without the entries before it nobody can make a log
// that holds it and says something else.
func Holds(o Origin, entries []Entry, head string) bool {
	if head == Genesis(o) {
		return true
	}
	for _, e := range entries {
		if e.Hash == head {
			return true
		}
	}
	return false
}
