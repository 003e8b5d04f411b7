// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cacert.org/emergency/pkg/procedure"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/cli"
	"cacert.org/emergency/services/internal/app"
	"cacert.org/emergency/services/internal/demobook"
	"cacert.org/emergency/services/internal/sshdtest"
	"cacert.org/emergency/services/internal/testenv"
)

func TestMain(m *testing.M) {
	code := testenv.Main(m) // sshd starts this program as the host's side of a session
	theBrowser.stop()
	os.Exit(code)
}

// console is a system with a watched console: the machine's own sshd as the target, the host's agent, the broker; and one access,
// granted by carla to anna and watched by carla.
type console struct {
	*testenv.Env
	t      *testing.T
	story  *testenv.Story
	target *sshdtest.Server
}

func newConsole(t *testing.T) *console {
	t.Helper()
	sshdtest.Client(t, "ssh")
	c := &console{t: t, target: sshdtest.New(t)}
	known, folder := filepath.Join(t.TempDir(), "known_hosts"), filepath.Join(t.TempDir(), "watched")
	check(t, os.WriteFile(known, []byte(c.target.KnownHosts()+"\n"), 0o600))
	check(t, os.Mkdir(folder, 0o755))
	c.Env = testenv.Start(t, testenv.Options{NoAgents: true, Settings: func(set *app.Settings) {
		set.Console.Listen, set.Console.KnownHosts, set.Access.Account = "127.0.0.1:0", known, c.target.User
		set.Console.Targets = map[string]string{demobook.Host: c.target.Address}
	}})
	cfg := c.AgentConfig(demobook.Host)
	cfg.Console = agent.Console{Account: c.target.User, Shared: true, Keys: c.target.AuthorizedKeys, Folders: []string{folder}}
	c.StartAgentWith(cfg, agent.Deps{Dialer: c.Dial})
	c.story = c.Story().Until(testenv.Called)
	for _, who := range []string{"carla", "anna"} {
		c.story.Do(who, &emergencyv1.SignJointDeclarationRequest{
			WhyNot_1: "the cause is not known, so nothing can be reviewed", WhyNot_2: "the cause is not known, so nothing can be applied",
			WhyLive: "only the running process shows what holds the lock",
		})
	}
	c.story.Do("clara", &emergencyv1.PermitAccessRequest{Subject: "anna", Purpose: "find out what holds the lock"})
	c.story.Do("carla", &emergencyv1.GrantAccessRequest{Subject: "anna", Purpose: "find out what holds the lock", Watcher: "carla"})
	return c
}

// path is a page of the one session.
func (c *console) path(more string) string { return "/incidents/" + c.story.ID + "/sessions/G1" + more }

func (c *console) grant() *procedure.Grant {
	c.t.Helper()
	g, ok := c.story.State().Grant("G1")
	if !ok {
		c.t.Fatal("there is no grant")
	}
	return g
}

// await waits for a fact of the grant.
func (c *console) await(what string, so func(*procedure.Grant) bool) {
	c.t.Helper()
	c.Await(c.story.ID, what, func(*dashboardIncident) bool { return so(c.grant()) })
}

// program is the command line program, run for a person as in that person's terminal.
type program struct {
	t     *testing.T
	in    *io.PipeWriter
	stop  context.CancelFunc
	ended chan struct{}

	mu   sync.Mutex
	out  bytes.Buffer
	news chan struct{} // closed and replaced with each thing that is said
}

// run starts it; it ends with the test at the latest.
func (c *console) run(person string, args ...string) *program {
	c.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	in, typed := io.Pipe()
	p := &program{t: c.t, in: typed, stop: stop, ended: make(chan struct{}), news: make(chan struct{})}
	environ := []string{"EPATCH_DATA=" + c.Data(), "EPATCH_SERVER=" + strings.Replace(c.API(), "127.0.0.1", "localhost", 1), "PATH=" + os.Getenv("PATH"), "TERM=xterm-256color", "NO_COLOR=1", "HOME=" + c.Dir}
	go func() {
		defer close(p.ended)
		cli.Run(ctx, cli.Process{Args: append([]string{"--as", person, "--incident", c.story.ID}, args...), Environ: environ, Stdin: in, Stdout: p, Stderr: p, Now: time.Now, Zone: time.UTC})
		_ = in.Close()
	}()
	c.t.Cleanup(func() {
		stop()
		_ = typed.Close()
		<-p.ended
		if c.t.Failed() {
			c.t.Logf("epatch %s as %s said:\n%q", args[0], person, p.said())
		}
	})
	return p
}

// Write takes what it says.
func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.news)
	p.news = make(chan struct{})
	return p.out.Write(b)
}

func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func (p *program) typing(line string) {
	p.t.Helper()
	_, err := io.WriteString(p.in, line+"\r")
	check(p.t, err)
}

// hears waits until it has said something.
func (p *program) hears(what string) {
	p.t.Helper()
	limit := time.After(testenv.Patience)
	for {
		p.mu.Lock()
		news, found := p.news, strings.Contains(p.out.String(), what)
		p.mu.Unlock()
		if found {
			return
		}
		select {
		case <-news:
		case <-p.ended:
			if !strings.Contains(p.said(), what) {
				p.t.Fatalf("it ended before it said %q", what)
			}
			return
		case <-limit:
			p.t.Fatalf("it did not say %q", what)
		}
	}
}

// ends waits until it has ended.
func (p *program) ends() {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(testenv.Patience):
		p.t.Fatal("it did not end")
	}
}

// evil is output that would act on a terminal that obeyed it, or make it answer, and on a page that took it for markup; with text that is
// wide, turns around or cannot be seen. The words that tests look for stand in no line that is typed: its echo shows them not.
const evil = `printf '\033]0;pwned-%s\007\033]52;c;cHduZWQ=\007\033]52;c;?\007\033]8;;https://evil.example/\033\\link-text\033]8;;\033\\ \033]10;?\007\033[c\033[>c\033[>q\033[5n\033[6n\033[14t\033[21t\033P+q544e\033\\\033P$qm\033\\\033[?2004h\033[?1000h\033[?1004h\005\033Z' title && ` +
	`printf '\343\202\242\360\237\222\243\342\200\256egnp\342\200\254\342\200\213 %0300d\r\n' 7 && printf '%s\r\n' '<img src=x onerror="window.pwned=1"><script>window.pwned=2</script>' && printf '\033[38;2;200;20;20mtrue-%s\033[0m\r\n' colour`

// played plays the whole session: watched and typed in terminals, with hostile output, and an end.
func (c *console) played() {
	c.t.Helper()
	watcher := c.run("carla", "watch-console", "--plain")
	watcher.hears("terminal")
	subject := c.run("anna", "connect")
	watcher.hears("input open")
	subject.typing("PS1=; echo answer-$((6*7))")
	watcher.hears("answer-42")
	c.story.Do("carla", &emergencyv1.MarkSessionRequest{Grant: "G1", Kind: emergencyv1.MarkKind_MARK_KIND_NOTE, Text: "she looks at the answer"})
	subject.typing(evil)
	subject.typing("head -c 60000 /dev/zero | tr '\\0' W; echo; echo answer-$((6*7+1))")
	watcher.hears("answer-43")
	subject.typing("exit")
	_ = subject.in.Close() // the program waits for its standard input too
	subject.ends()
	watcher.ends()
	c.await("the end of the session", func(g *procedure.Grant) bool { return g.Terminated.Position > 0 && len(g.Checkpoints) > 0 })
}

// sealed disables, proves and seals the access, so that the recording is stored for ever.
func (c *console) sealed() {
	c.t.Helper()
	c.story.Do("carla", &emergencyv1.DisableRequest{Grant: "G1"})
	c.story.Do("carla", &emergencyv1.ProveUnusableRequest{Grant: "G1"})
	c.await("what the session left", func(g *procedure.Grant) bool { return g.Diff.Position > 0 && len(g.LeftoversReported) > 0 })
	if len(c.grant().Leftovers) > 0 {
		c.story.Do("carla", &emergencyv1.ExplainLeftoversRequest{Grant: "G1", Explanation: "the test runs as the account that sessions log in to"})
	}
	c.story.Do("carla", &emergencyv1.SealSessionRequest{Grant: "G1"})
}

// recordingFile is where the broker has written the recording.
func (c *console) recordingFile() string {
	c.t.Helper()
	list, err := filepath.Glob(c.Data("deployment", "*", fmt.Sprintf("%s.G1.cast", c.story.ID)))
	check(c.t, err)
	if len(list) != 1 {
		c.t.Fatalf("recordings %v, want one", list)
	}
	return list[0]
}
