// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
)

// Kind of a thing that a session left.
type Kind string

// Kinds.
const (
	KindProcess Kind = "process"
	KindTimer   Kind = "timer"
	KindSocket  Kind = "socket"
	KindKey     Kind = "authorized_key"
	KindSudo    Kind = "sudo_rule"
	KindFile    Kind = "file"
	// KindUnseen is a thing that could not be looked at: whether the session left something there nobody knows.
	KindUnseen Kind = "not_looked_at"
)

// Item is one thing that a session left, or changed, or that could not be looked at.
type Item struct {
	Kind   Kind
	Name   string
	Detail string
}

// Leftovers compares the host with what it was like before the session. The list is sorted; if it is longer than the settings
// allow its last item says how many more there are. It may be asked for while the session is open, and as often as wanted.
func (k *Keeper) Leftovers(ctx context.Context, grant string) ([]Item, error) {
	s, err := k.find(grant)
	if err != nil {
		return nil, err
	}
	before, err := k.before(grant)
	if err != nil {
		return nil, err
	}
	now, err := k.look(ctx)
	if err != nil {
		return nil, err
	}
	items, err := s.processesLeft(before)
	if err != nil {
		return nil, err
	}
	for _, kind := range []Kind{KindTimer, KindSocket, KindKey, KindSudo, KindFile} {
		items = append(items, differences(kind, before.Things[kind], now.Things[kind])...)
	}
	unseen := maps.Clone(before.Unseen)
	maps.Copy(unseen, now.Unseen)
	for what, why := range unseen {
		items = append(items, Item{KindUnseen, what, why})
	}
	return k.bounded(items), nil
}

// bounded sorts the items and cuts the list loudly.
func (k *Keeper) bounded(items []Item) []Item {
	order := []Kind{KindProcess, KindSocket, KindTimer, KindKey, KindSudo, KindUnseen, KindFile}
	slices.SortFunc(items, func(a, b Item) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Detail, b.Detail))
	})
	if n := k.cfg.MaxItems; len(items) > n {
		more := Item{KindUnseen, "more leftovers", fmt.Sprintf("%d more are not listed; remove some of these and ask again", len(items)-n+1)}
		items = append(items[:n-1:n-1], more)
	}
	return items
}

// processesLeft lists what runs: of the session, which should be nothing once it has ended, and of the account, started since.
func (s *session) processesLeft(before *view) ([]Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.crew.find()
	if err != nil {
		return nil, err
	}
	var items []Item
	own := map[ident]bool{}
	for _, p := range list {
		own[p.ident] = true
		items = append(items, s.k.processItem(p, "of the session"))
	}
	if s.k.cfg.Shared {
		return append(items, Item{KindUnseen, "other processes of account " + s.k.cfg.Account, "the account is shared with others, by the agent's settings"}), nil
	}
	all, err := s.k.table.all()
	if err != nil {
		return nil, err
	}
	old := map[ident]bool{}
	for _, id := range before.Processes {
		old[id] = true
	}
	above := ancestors(all, s.crew.self)
	for _, p := range all {
		if old[p.ident] && before.Boot == s.k.boot() || own[p.ident] || above[p.PID] || p.dead() || p.parent == kernelThreads || p.parent == s.crew.self {
			continue
		}
		if uid, _, err := s.k.table.user(p.PID); err == nil && uid == s.k.uid {
			items = append(items, s.k.processItem(p, "of the account, started since the session was opened"))
		}
	}
	return items, nil
}

func (k *Keeper) processItem(p process, what string) Item {
	return Item{KindProcess, fmt.Sprintf("%d %s", p.PID, k.table.command(p)), what}
}

// differences lists what is new, changed or gone. Below a new folder only its size is told.
func differences(kind Kind, before, now map[string]state) []Item {
	var items []Item
	folders := map[string]int{} // new folders, and how much is below them
	for _, name := range slices.Sorted(maps.Keys(now)) {
		was, known := before[name]
		is := now[name]
		switch {
		case known && was == is:
		case known:
			items = append(items, Item{kind, name, "changed: " + was.String() + " before, " + is.String() + " now"})
		case kind == KindFile && !is.privileged() && below(folders, name):
		case kind == KindFile && fs.FileMode(is.Mode).IsDir():
			folders[name] = 0
		default:
			items = append(items, Item{kind, name, is.after("new")})
		}
	}
	for name, n := range folders {
		items = append(items, Item{kind, name, fmt.Sprintf("new folder with %d files and folders below it: %s", n, now[name])})
	}
	if kind == KindSocket {
		return items // what listens no longer was stopped, which is no leftover
	}
	for name, was := range before {
		if _, there := now[name]; !there {
			items = append(items, Item{kind, name, was.after("gone")})
		}
	}
	return items
}

// below counts a path at the topmost new folder that it lies in. A program that runs with its owner's rights is always told
// by itself.
func below(folders map[string]int, path string) bool {
	for dir := filepath.Dir(path); len(dir) > 1; dir = filepath.Dir(dir) {
		if _, ok := folders[dir]; ok {
			folders[dir]++
			return true
		}
	}
	return false
}

// String is a state in words; "" of a thing that has none.
func (s state) String() string {
	if s.Mode == 0 {
		return ""
	}
	text := fmt.Sprintf("%s %d:%d, %d bytes", fs.FileMode(s.Mode), s.UID, s.GID, s.Size)
	if s.privileged() {
		text += ", RUNS WITH ITS OWNER'S RIGHTS"
	}
	return text
}

// privileged tells that a file runs with the rights of its owner or group.
func (s state) privileged() bool {
	mode := fs.FileMode(s.Mode)
	return mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 && mode.IsRegular()
}

// after puts a word before the state, if there is one.
func (s state) after(word string) string {
	if text := s.String(); text != "" {
		return word + ": " + text
	}
	return word
}
