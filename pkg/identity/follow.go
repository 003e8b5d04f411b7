// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"
)

// FollowOptions say how a Follower loads.
type FollowOptions struct {
	// Now is the clock.
	Now func() time.Time
	// Dev is as in LoadOptions.
	Dev bool
	// Refused is told of files that changed and cannot be used, once per change.
	Refused func(error)
}

// Follower is a profile that follows its files, so that a renewed certificate needs no restart. Files that cannot be
// used are reported and the last good profile stays. It looks when asked, so it needs no goroutine and no Close.
type Follower struct {
	dir string
	opt FollowOptions

	mu      sync.Mutex // guards what is below
	seen    string
	current *Profile
}

// Follow loads a profile folder as Load does and follows it from then on.
func Follow(dir string, opt FollowOptions) (*Follower, error) {
	if opt.Now == nil || opt.Refused == nil {
		return nil, errors.New("follow profile: clock and receiver of refusals are needed")
	}
	f := &Follower{dir: dir, opt: opt, seen: fingerprint(dir)}
	p, err := Load(dir, LoadOptions{Now: opt.Now(), Dev: opt.Dev})
	if err != nil {
		return nil, err
	}
	f.current = p
	return f, nil
}

// Current returns the last good profile.
func (f *Follower) Current() *Profile {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := fingerprint(f.dir)
	if seen == f.seen {
		return f.current
	}
	f.seen = seen
	p, err := Load(f.dir, LoadOptions{Now: f.opt.Now(), Dev: f.opt.Dev})
	if err != nil {
		f.opt.Refused(fmt.Errorf("changed profile not taken, the one from before stays: %w", err))
		return f.current
	}
	f.current = p
	return p
}

// fingerprint changes when what the files say does, or who may read them: times and sizes can stay the same. It is read before the files
// are loaded, so a change meanwhile is seen next time.
func fingerprint(dir string) string {
	h := sha256.New()
	for _, name := range []string{CertFile, KeyFile, CAFile} {
		data, mode, err := read(filepath.Join(dir, name))
		fmt.Fprintf(h, "%s %o %d %t;", name, mode, len(data), err != nil)
		h.Write(data)
	}
	return string(h.Sum(nil))
}
