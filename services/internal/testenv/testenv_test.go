// SPDX-License-Identifier: Apache-2.0

package testenv_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cacert.org/emergency/pkg/procedure"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/testenv"
	"cacert.org/emergency/services/notification/channel"
)

func page(id, person, headline string) channel.Page {
	return channel.Page{ID: id, Headline: headline, Recipient: channel.Recipient{Person: person}}
}

// TestChannel: what was not expected is listed, each page counts once, and a repetition is seen.
func TestChannel(t *testing.T) {
	t.Parallel()
	c := testenv.NewChannel("mail")
	for _, p := range []channel.Page{page("1", "anna", "You are called"), page("2", "anna", "You are called again"), page("3", "bert", "You are called")} {
		if r := c.Send(t.Context(), p); r.State != channel.Sent {
			t.Errorf("%s: %v", p.ID, r)
		}
	}
	if got := c.Expect(t, "anna", "again").ID; got != "2" {
		t.Errorf("expected page 2, got %s", got)
	}
	if got := c.Expect(t, "anna", "You are called").ID; got != "1" {
		t.Errorf("page 2 was expected twice, or not 1 but %s", got)
	}
	if list := c.Unexpected(); len(list) != 1 || !strings.Contains(list[0], "bert") {
		t.Errorf("unexpected: %q", list)
	}
	if n := c.ExpectAll("You are called"); n != 1 || len(c.Unexpected()) != 0 {
		t.Errorf("%d of the rest were expected, left are %q", n, c.Unexpected())
	}
	if list := c.Twice(); len(list) != 0 {
		t.Errorf("sent more than once: %q", list)
	}
	c.Answer(func(context.Context, channel.Page) channel.Receipt { return channel.Receipt{State: channel.Failed} })
	if r := c.Send(t.Context(), page("3", "bert", "You are called")); r.State != channel.Failed {
		t.Errorf("the answer was changed and is %v", r)
	}
	if list := c.Twice(); len(list) != 1 || list[0] != "3" {
		t.Errorf("sent more than once: %q", list)
	}
	if n := len(c.Sent()); n != 4 {
		t.Errorf("%d pages", n)
	}
}

// TestWorld: hosts hold the release branch, a patch's trees are git's, and a flipped byte is another tree and can be flipped
// back.
func TestWorld(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{NoAgents: true})
	root := env.Root(demobook.Host)
	p := env.Repo.Repair()
	if got := env.Repo.TreeOf(root); got != p.BaseTree || p.ResultTree == p.BaseTree {
		t.Errorf("the host holds %s; the patch is from %s to %s", got, p.BaseTree, p.ResultTree)
	}
	file := filepath.Join(root, testenv.Program)
	testenv.Flip(t, file)
	if got := env.Repo.TreeOf(root); got == p.BaseTree {
		t.Error("a flipped byte is the same tree")
	}
	testenv.Flip(t, file)
	if got := env.Repo.TreeOf(root); got != p.BaseTree {
		t.Errorf("flipped back it is %s", got)
	}
	if err := os.WriteFile(file, []byte(testenv.Repaired), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := env.Repo.TreeOf(root); got != p.ResultTree {
		t.Errorf("mended it is %s, the patch gives %s", got, p.ResultTree)
	}
}

// TestPlay: a story does the steps that it was asked for and none after them; a node that is stopped is found again.
func TestPlay(t *testing.T) {
	t.Parallel()
	env := testenv.Start(t, testenv.Options{})
	s := env.Play(testenv.Registered)
	if r := s.Revision(); r.First != nil || r.By != "dora" {
		t.Errorf("played until registered: %+v", r)
	}
	s.Refused("dora", s.FirstReview(testenv.Approve), procedure.ReasonRole)
	env.Restart()
	s.Until(testenv.Reviewed)
	if r := s.Revision(); r.First == nil || r.First.By != "anna" || r.Second != nil {
		t.Errorf("played until reviewed: %+v", r)
	}
	env.Log.Await(0, "agent attached", demobook.Test)
	if in := env.Await(s.ID, "the test server", func(in *dashboardv1.Incident) bool { return testenv.Has(in, "test server") }); testenv.Deployment(in) != "" {
		t.Error("a deployment that nobody asked for")
	}
}
