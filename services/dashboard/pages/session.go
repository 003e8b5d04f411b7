// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"
)

// A session ends after sessionIdle without use, and after sessionMax in any case. An open page that is looked at is in use.
const (
	sessionIdle = 30 * time.Minute
	sessionMax  = 8 * time.Hour
	// sessionsKept bounds what a process remembers; the one that was unused longest makes room.
	sessionsKept = 4096
)

// session is one browser in which a person is signed in. It names the key, not the person: who that is, the rule book says at
// each request, so a key that is revoked ends it at once.
type session struct {
	key string
	// certificate is set if the key was shown by the connection; then each request has to show the same one.
	certificate bool
	begun, used time.Time
}

// sessions are kept by the digest of their ids: what this process could leak is no id.
type sessions struct {
	now func() time.Time
	mu  sync.Mutex
	all map[[sha256.Size]byte]session
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, all: map[[sha256.Size]byte]session{}}
}

// begin returns a new session's id.
func (s *sessions) begin(key string, certificate bool) string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	id := base64.RawURLEncoding.EncodeToString(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if oldest := s.sweep(); len(s.all) >= sessionsKept {
		delete(s.all, oldest)
	}
	s.all[sha256.Sum256([]byte(id))] = session{key: key, certificate: certificate, begun: now, used: now}
	return id
}

// use returns a session that has not ended, and counts the time of now as its last use.
func (s *sessions) use(id string) (session, bool) {
	digest, now := sha256.Sum256([]byte(id)), s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.all[digest]
	if !ok || x.over(now) {
		delete(s.all, digest)
		return session{}, false
	}
	x.used = now
	s.all[digest] = x
	return x, true
}

func (x session) over(now time.Time) bool {
	return now.Sub(x.used) > sessionIdle || now.Sub(x.begun) > sessionMax
}

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, sha256.Sum256([]byte(id)))
}

// sweep forgets what has ended, and names what was unused longest.
func (s *sessions) sweep() (oldest [sha256.Size]byte) {
	now := s.now()
	for k, x := range s.all {
		if x.over(now) {
			delete(s.all, k)
		} else if o, ok := s.all[oldest]; !ok || x.used.Before(o.used) {
			oldest = k
		}
	}
	return oldest
}

// count is how many sessions there are.
func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	return len(s.all)
}
