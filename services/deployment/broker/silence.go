// SPDX-License-Identifier: Apache-2.0

package broker

import "time"

// Between the moment in which a watcher should have been heard of and the end of the lease, nobody knows whether the watcher is
// there: a stopped process and a pulled cable look the same as a short delay. Input stops at once, as it would in a freeze, and
// is discarded; the processes go on, and so does the session by itself if the watcher is heard of in time. After the lease it is
// frozen, and needs the watcher's word to go on.

// silence is a time in which a live session takes no input because the watcher is not heard of.
type silence struct {
	on   bool
	told bool // the subject, who typed something meanwhile
}

// whySilent is how the history names what was discarded meanwhile.
const whySilent = "typed while the watcher was not heard of"

// silent is whether the watcher's last sign of life is too old for input to pass; mu is held.
func (s *session) silent(now time.Time) bool {
	return s.silence.on || now.Sub(s.lastHeard()) > s.grant.Silence
}

// listen shuts the gate of a live session whose watcher is silent. Only a sign of life opens it again. mu is held.
func (s *session) listen(now time.Time) {
	if s.silence.on || !s.silent(now) {
		return
	}
	s.silence.on = true
	s.shutGate()
	s.notify()
}

// heard opens the gate again once the watcher is heard of, and reports whether the subject has to know. mu is held.
func (s *session) heard(now time.Time) bool {
	if !s.silence.on || s.state != StateLive || now.Sub(s.lastHeard()) > s.grant.Silence {
		return false
	}
	told := s.silence.told
	s.shut, s.silence = make(chan struct{}), silence{}
	s.notify()
	s.rouse()
	return told
}
