// SPDX-License-Identifier: Apache-2.0

package defect_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/defect"
)

type mute struct{ text *string }

func (m *mute) Error() string { return *m.text }

func TestContained(t *testing.T) {
	t.Parallel()
	plain := errors.New("plain")
	for name, x := range map[string]struct {
		do    func() error
		want  string
		stack bool
	}{
		"nothing":                    {func() error { return nil }, "<nil>", false},
		"an error":                   {func() error { return plain }, "plain", false},
		"a panic":                    {func() error { panic("boom") }, "panic: boom", true},
		"an error that cannot speak": {func() error { return (*mute)(nil) }, "panic: runtime error: invalid memory address or nil pointer dereference", true},
	} {
		err := defect.Contained(x.do)
		if got := fmt.Sprint(err); got != x.want {
			t.Errorf("%s: %s, want %s", name, got, x.want)
		}
		if stack := defect.Stack(err).Value.String(); strings.Contains(stack, "defect_test.go") != x.stack {
			t.Errorf("%s: stack %q", name, stack)
		}
	}
	if err := defect.Contained(func() error { return plain }); !errors.Is(err, plain) {
		t.Errorf("another error: %v", err)
	}
}
