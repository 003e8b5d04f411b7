// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"sync"

	"cacert.org/emergency/pkg/identity"
)

// Standing ends what is open of callers who may not go on, such as those whose key was revoked: a stream lives for hours, and whether its
// caller may have one is otherwise asked at its beginning alone. It is safe for concurrent use.
type Standing struct {
	judge func(identity.Caller) error

	mu   sync.Mutex
	open map[*standing]struct{}
}

type standing struct {
	caller identity.Caller
	end    context.CancelCauseFunc
}

// NewStanding is judged by whoever knows: judge returns a *procedure.Refusal for a caller who may not go on.
func NewStanding(judge func(identity.Caller) error) *Standing {
	return &Standing{judge: judge, open: map[*standing]struct{}{}}
}

// Enter returns a context that ends, with the judgement as its cause, as soon as Recheck finds that the caller may not go on. Leave it.
func (s *Standing) Enter(ctx context.Context, c identity.Caller) (entered context.Context, leave context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	x := &standing{c, end}
	s.mu.Lock()
	s.open[x] = struct{}{}
	s.mu.Unlock()
	if err := s.judge(c); err != nil { // what changed after the caller was let in
		end(err)
	}
	return ctx, func() {
		s.mu.Lock()
		delete(s.open, x)
		s.mu.Unlock()
		end(nil)
	}
}

// Recheck judges everybody who has something open: call it when what the judgement depends on has changed.
func (s *Standing) Recheck() {
	s.mu.Lock()
	open := make([]*standing, 0, len(s.open))
	for x := range s.open {
		open = append(open, x)
	}
	s.mu.Unlock()
	for _, x := range open {
		if err := s.judge(x.caller); err != nil {
			x.end(err)
		}
	}
}
