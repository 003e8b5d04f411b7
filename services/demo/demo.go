// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/projection/postgres/local"
	dashboardv1 "cacert.org/emergency/proto/emergency/dashboard/v1"
	"cacert.org/emergency/services/cli/client"
	"cacert.org/emergency/services/internal/child"
	"cacert.org/emergency/services/internal/cluster"
	"cacert.org/emergency/services/internal/sshdtest"
)

// Options of a demo.
type Options struct {
	// Data is the folder under which everything lies.
	Data string
	// Scenario is the strategy that is played: 1, 2 or 3.
	Scenario int
	// Once ends the demo after the play; otherwise it stays up until ctx ends.
	Once bool
	// Cluster plays on a whole installation of processes instead of one process with everything.
	Cluster bool
	// Listen, HTTP and HTTPS are the addresses of the services; port 0 takes any free one. A cluster takes free ones.
	Listen, HTTP, HTTPS string
	// Out gets what the demo says.
	Out io.Writer
}

// memory is what a second start compares with: the first emergency as it was when it was over.
type memory struct {
	Scenario int    `json:"scenario"`
	Incident string `json:"incident"`
	HeadHash string `json:"head_hash"`
	Position uint64 `json:"position"`
	Tree     string `json:"tree"`
}

// Run starts the system and plays the emergency, or shows the one that was played before.
func Run(ctx context.Context, opt Options) (err error) {
	sc, ok := scenarios()[opt.Scenario]
	if !ok {
		return fmt.Errorf("scenario %d: there are 1, 2 and 3, one for each strategy of the procedure", opt.Scenario)
	}
	w := world{data: opt.Data, scenario: opt.Scenario}
	if w.data, err = filepath.Abs(opt.Data); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	show := &printer{out: opt.Out}
	show.title("CAcert emergency patches: " + sc.title)
	show.line("everything lies under %s", w.data)
	if err := w.prepare(ctx); err != nil {
		return err
	}
	bugs, err := startTracker(ctx)
	if err != nil {
		return err
	}
	defer bugs.stop()
	sys, err := w.system(ctx, opt, bugs.url, show)
	defer func() { err = errors.Join(err, sys.stop()) }()
	if err != nil {
		return err
	}
	if err := w.tell(ctx, sc, sys, bugs, show); err != nil {
		return err
	}
	if opt.Once {
		return nil
	}
	old, _, err := w.recall()
	if err != nil {
		return err
	}
	show.next(w.data, sys, old.Incident)
	if sys.server == nil { // instances may come and go
		<-ctx.Done()
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-sys.server.Done():
		return fmt.Errorf("epatchd ended: %w; see %s", sys.server.Err(), sys.server.Log())
	}
}

// tell plays the emergency on a new data folder, and shows the old one on a used one.
func (w world) tell(ctx context.Context, sc scenario, sys *system, bugs *tracker, show *printer) error {
	old, found, err := w.recall()
	if err != nil {
		return err
	}
	if found {
		return w.again(ctx, sys, show, old)
	}
	came, err := w.exploit(ctx, w.critical())
	if err != nil {
		return err
	}
	if !came {
		return errors.New("the critical host is not vulnerable, so there is nothing to show; remove the data folder and start again")
	}
	show.line("the critical host is vulnerable: the attack printed its secret")
	people, closeAll, err := sys.people(sc.people...)
	if err != nil {
		return err
	}
	defer closeAll()
	s := &story{w: w, sys: sys, show: show, people: people}
	if err := s.play(ctx, sc.parts(s)); err != nil {
		return err
	}
	// A dead tracker would have delayed none of them.
	patience, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := bugs.wait(patience, sc.notes); err != nil {
		return err
	}
	show.line("%d notes came to the bug tracker", sc.notes)
	return w.prove(ctx, s)
}

// prove shows that the critical tree is the reviewed tree, by git itself and by the attack, and keeps what was played.
func (w world) prove(ctx context.Context, s *story) error {
	s.show.title("Proof")
	st, err := s.people["carla"].State(ctx, s.incident)
	if err != nil {
		return err
	}
	tree, err := w.treeOf(ctx, w.critical())
	if err != nil {
		return err
	}
	reviewed := st.Current().ResultTree
	if tree != reviewed {
		return fmt.Errorf("git computes tree %s for the critical host, the reviewed tree is %s", tree, reviewed)
	}
	came, err := w.exploit(ctx, w.critical())
	if err != nil {
		return err
	}
	if came {
		return errors.New("the critical host is still vulnerable")
	}
	s.show.line("git itself computes %s for the critical host: the reviewed tree", tree)
	s.show.line("the attack prints no secret any more, and %s is untouched", secretFile)
	q := s.people["carla"].Query()
	if err := s.show.timeline(ctx, q, s.incident); err != nil {
		return err
	}
	if err := s.show.log(ctx, q, s.incident); err != nil {
		return err
	}
	return w.remember(memory{w.scenario, s.incident, st.HeadHash, st.Position, tree})
}

// again shows that what was played before is as it was.
func (w world) again(ctx context.Context, sys *system, show *printer, old memory) error {
	people, closeAll, err := sys.people("carla")
	if err != nil {
		return err
	}
	defer closeAll()
	if max(old.Scenario, 1) != w.scenario { // the first demo kept no number
		return fmt.Errorf("scenario %d was played in %s; use another data folder for scenario %d", old.Scenario, w.data, w.scenario)
	}
	show.title("The first emergency, as it was")
	st, err := people["carla"].State(ctx, old.Incident)
	if err != nil {
		return err
	}
	tree, err := w.treeOf(ctx, w.critical())
	if err != nil {
		return err
	}
	if st.HeadHash != old.HeadHash || st.Position != old.Position || tree != old.Tree {
		return fmt.Errorf("%s has changed: position %d, hash %.12s, tree %s; it was position %d, hash %.12s, tree %s",
			old.Incident, st.Position, st.HeadHash, tree, old.Position, old.HeadHash, old.Tree)
	}
	show.line("%s: %s, %d events, last record %.12s, critical tree %s: unchanged", old.Incident, st.Status, st.Position, st.HeadHash, tree)
	q := people["carla"].Query()
	if err := show.timeline(ctx, q, old.Incident); err != nil {
		return err
	}
	return show.log(ctx, q, old.Incident)
}

func (w world) recall() (m memory, found bool, err error) {
	b, err := os.ReadFile(w.path("demo.json"))
	if os.IsNotExist(err) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, false, fmt.Errorf("%s: %w; remove the data folder to play again", w.path("demo.json"), err)
	}
	return m, true, nil
}

func (w world) remember(m memory) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	if err := enc.Encode(m); err != nil {
		return err
	}
	return os.WriteFile(w.path("demo.json"), b.Bytes(), 0o600)
}

// system is the running processes.
type system struct {
	w       world
	server  *child.Process   // everything in one
	cluster *cluster.Cluster // or this
	tables  *local.Server    // its PostgreSQL
	sshd    *sshdtest.Server // the critical host's; nil where no session is played
	agents  []*child.Process
	// servers are the services' addresses by name; api is where all of them are, or the queries.
	servers       map[string]string
	api, web, tls string
}

// system starts the services and both agents.
func (w world) system(ctx context.Context, opt Options, trackerURL string, show *printer) (*system, error) {
	sys := &system{w: w, servers: map[string]string{}}
	console, err := w.target(ctx, sys, show)
	if err != nil {
		return sys, err
	}
	bugs := []string{"--tracker-url", trackerURL, "--tracker-token", "demo"}
	services := w.one
	if opt.Cluster {
		services = w.many
	}
	if err := services(ctx, sys, opt, show, bugs, console); err != nil {
		return sys, err
	}
	return sys, w.startAgents(ctx, sys, show)
}

// one starts one process with everything.
func (w world) one(ctx context.Context, sys *system, opt Options, show *printer, bugs, console []string) error {
	epatchd, err := child.Beside("epatchd")
	if err != nil {
		return err
	}
	args := append([]string{"all", "--data", w.data, "--listen", opt.Listen, "--http", opt.HTTP, "--https", opt.HTTPS}, append(bugs, console...)...)
	server, line, err := child.Start(ctx, child.Spec{Name: "epatchd all", Logs: w.path("logs"), Program: epatchd, Args: args, Ready: "ready "})
	if err != nil {
		return err
	}
	sys.server = server
	if _, err := fmt.Sscanf(line, "api=%s http=%s https=%s", &sys.api, &sys.web, &sys.tls); err != nil {
		return fmt.Errorf("epatchd said %q: %w", line, err)
	}
	show.line("epatchd runs: API %s, public log http://%s/log", sys.api, sys.web)
	return nil
}

// many starts a whole installation.
func (w world) many(ctx context.Context, sys *system, _ Options, show *printer, bugs, console []string) error {
	cfg := cluster.Config{
		Dir: w.data, Repository: w.repository(), Say: show.line,
		More: map[string][]string{procedure.OwnerReview: bugs, procedure.OwnerDeployment: console},
	}
	var err error
	if cfg.Epatchd.Path, err = child.Beside("epatchd"); err != nil {
		return err
	}
	if cfg.NATS.Path, err = child.Beside("nats-server"); err != nil {
		return err
	}
	if err := w.database(ctx, sys, &cfg, show); err != nil {
		return err
	}
	if sys.cluster, err = cluster.Start(ctx, cfg); err != nil {
		return err
	}
	for _, name := range cluster.Services() {
		sys.servers[name] = strings.Join(sys.cluster.Of(name), ",")
	}
	for _, i := range sys.cluster.Instances {
		if i.Service == client.Dashboard {
			sys.api, sys.web, sys.tls = sys.servers[i.Service], i.HTTP, i.HTTPS
			show.line("pages of %s %d: https://%s, public log http://%s/log", i.Service, i.Number, i.HTTPS, i.HTTP)
		}
	}
	return nil
}

// database starts a PostgreSQL for the dashboards' tables and archive, where the machine has one.
func (w world) database(ctx context.Context, sys *system, cfg *cluster.Config, show *printer) error {
	var err error
	if sys.tables, err = local.New(); errors.Is(err, local.ErrNone) {
		show.line("without tables for operators: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	url, err := sys.tables.NewDatabase(ctx, "epatch")
	if err != nil {
		return err
	}
	show.line("PostgreSQL runs: psql %s", url)
	cfg.More[client.Dashboard] = []string{"--database", url}
	return nil
}

func (w world) startAgents(ctx context.Context, sys *system, show *printer) error {
	agent, err := child.Beside("epatch-agent")
	if err != nil {
		return err
	}
	for _, a := range []struct{ name, kind, root string }{{"critical-1", "host", w.critical()}, {"test-1", "test", w.testing()}} {
		args := []string{"--agent-name", a.name, "--agent-kind", a.kind, "--agent-root", a.root, "--agent-exclude", secretFile, "--agent-state-dir", w.path("agents-state", a.name),
			"--agent-profile", w.path("agents", a.name), "--agent-keyring", w.path("services.keys.json"), "--agent-services", sys.api}
		for flag, name := range map[string]string{"--agent-deployment": procedure.OwnerDeployment, "--agent-review": procedure.OwnerReview, "--agent-query": client.Dashboard} {
			if addr := sys.servers[name]; addr != "" {
				args = append(args, flag, addr)
			}
		}
		if a.kind == "host" && sys.sshd != nil {
			args = append(args, "--agent-console-account", sys.sshd.User, "--agent-console-shared", "--agent-console-keys", sys.sshd.AuthorizedKeys,
				"--agent-console-folders", w.path("hosts"))
		}
		p, _, err := child.Start(ctx, child.Spec{Name: "epatch-agent " + a.name, Logs: w.path("logs"), Program: agent, Args: args})
		if err != nil {
			return err
		}
		sys.agents = append(sys.agents, p)
		show.line("epatch-agent runs on %s: %s", a.name, a.root)
	}
	return nil
}

func (sys *system) stop() error {
	var errs []error
	for _, a := range sys.agents {
		errs = append(errs, a.Stop())
	}
	errs = append(errs, sys.server.Stop())
	if sys.cluster != nil {
		errs = append(errs, sys.cluster.Stop(), sys.tables.End())
	}
	if sys.sshd != nil {
		sys.sshd.Close()
	}
	return errors.Join(errs...)
}

// target starts the critical host's sshd, where a session is played, and returns the services' settings for it.
func (w world) target(ctx context.Context, sys *system, show *printer) ([]string, error) {
	if w.scenario != 3 {
		return nil, nil
	}
	dir := w.path("hosts-sshd")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of sshd: %w", err)
	}
	var err error
	if sys.sshd, err = sshdtest.Start(ctx, sshdtest.Config{Dir: dir, AuthorizedKeys: filepath.Join(dir, "console_keys")}); err != nil {
		return nil, fmt.Errorf("scenario 3 needs a real sshd: %w", err)
	}
	hosts := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(hosts, []byte(sys.sshd.KnownHosts()+"\n"), 0o600); err != nil {
		return nil, err
	}
	show.line("sshd of critical-1 runs: %s, as %s", sys.sshd.Address, sys.sshd.User)
	return []string{
		"--console-listen", "127.0.0.1:0", "--console-target", "critical-1=" + sys.sshd.Address, "--console-known-hosts", hosts, "--console-account", sys.sshd.User,
	}, nil
}

// people connects persons, each with the own certificate.
func (sys *system) people(names ...string) (map[string]*client.Client, func(), error) {
	all := map[string]*client.Client{}
	closeAll := func() {
		for _, c := range all {
			_ = c.Close() // nothing is outstanding
		}
	}
	for _, name := range names {
		c, err := client.Dial(client.Config{Server: sys.api, Servers: sys.servers, Profile: sys.w.path("people", name), Keyring: sys.w.path("services.keys.json")})
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		all[name] = c
	}
	return all, closeAll, nil
}

// printer says what happens.
type printer struct{ out io.Writer }

func (p *printer) title(s string)              { fmt.Fprintf(p.out, "\n== %s\n", s) }
func (p *printer) line(f string, a ...any)     { fmt.Fprintf(p.out, "   "+f+"\n", a...) }
func (p *printer) act(since, who, what string) { fmt.Fprintf(p.out, "%s  %-6s %s\n", since, who, what) }
func (p *printer) fact(since, what string)     { fmt.Fprintf(p.out, "%s  %-6s %s\n", since, "-", what) }

func (p *printer) timeline(ctx context.Context, q dashboardv1.QueryServiceClient, incident string) error {
	p.title("Timeline of " + incident)
	res, err := q.ReadTimeline(ctx, &dashboardv1.ReadTimelineRequest{Incident: incident})
	if err != nil {
		return fmt.Errorf("read timeline: %w", err)
	}
	for _, e := range res.GetEntries() {
		who := e.GetActor().GetPerson()
		if who == "" {
			who = e.GetActor().GetSystemName()
		}
		fmt.Fprintf(p.out, "%4d  %s  %-12s %s\n", e.GetPosition(), since(time.UnixMilli(0), time.UnixMilli(e.GetSinceDeclaredMs())), who, e.GetText())
	}
	return nil
}

func (p *printer) log(ctx context.Context, q dashboardv1.QueryServiceClient, incident string) error {
	p.title("Public emergency log of " + incident)
	res, err := q.ReadLog(ctx, &dashboardv1.ReadLogRequest{Incident: incident})
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	for _, e := range res.GetEntries() {
		fields := ""
		for _, f := range e.GetFields() {
			fields += fmt.Sprintf("  %s=%.40s", f.GetName(), f.GetValue())
		}
		fmt.Fprintf(p.out, "%4d  %s  %-20s %s%s\n", e.GetSeq(), e.GetAt().AsTime().UTC().Format("2006-01-02 15:04:05 MST"), e.GetRole(), e.GetHeadline(), fields)
	}
	return nil
}

func (p *printer) next(data string, sys *system, incident string) {
	p.title("It stays up. Try next, in another terminal")
	p.line("export EPATCH_DATA=%s EPATCH_SERVER=%s", data, sys.api)
	for _, name := range slices.Sorted(maps.Keys(sys.servers)) {
		p.line("export EPATCH_SERVER_%s=%s", strings.ToUpper(name), sys.servers[name])
	}
	p.line(".bin/epatch --as carla status %s          the emergency as it stands", incident)
	p.line(".bin/epatch --as bert timeline %s         everything that happened", incident)
	p.line(".bin/epatch --as carla replay %s --at 20  as it was at a position", incident)
	p.line(".bin/epatch --as carla history check               verify every record and signature yourself")
	p.line(".bin/epatch --as carla declare \"fire drill\" --class other --reason \"trying the demo\" --drill")
	p.line(".bin/epatch --as anna inbox                        what waits for a person")
	p.line("the public emergency log: http://%s/log", sys.web)
	p.line("Ctrl-C ends it; the data stays, and the next start finds it as it was.")
}
