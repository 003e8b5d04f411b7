// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/procedure"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// The watcher's view of a session (seed 3.4, 3.5). The session flows only while this view shows it: what was shown is acknowledged
// after the terminal has taken it, never before, and the view says all the time that somebody can see it.

// viewing is one watch-console as it was asked for.
type viewing struct {
	observe, plain bool
	takeOver       string
}

func (a *app) watchConsoleCmd() *cobra.Command {
	v := &viewing{}
	cmd := leaf("watch-console [GRANT]", "Watch a session: it runs only while you do (seed 3.4)", `
Arms the watch with your signature, then shows the session from its first byte. The person can connect only once you watch. Close or
suspend this view, or lose the network, and the session is frozen within a second, and ended after the policy's grace.

Keys, each behind Ctrl-\ so that none is hit by accident: f freeze, r resume, k kill (end and disable), n note, e extend, p confirm
presence, q leave, h help. With --plain it is a log, one line for everything, and reads the same words from standard input, one a line.
With --observe you look on and nothing depends on you.`, `
  epatch watch-console
  epatch watch-console G1 --observe
  epatch watch-console --plain > session.log`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error { return a.watchConsole(cmd.Context(), v, args) })
	f := cmd.Flags()
	f.BoolVar(&v.observe, "observe", false, "only look on")
	f.BoolVar(&v.plain, "plain", false, "a log instead of a screen; so it is without a terminal")
	f.StringVar(&v.takeOver, "take-over", "", "why you take the watch over from the named watcher")
	return a.onGrant(cmd)
}

func (a *app) watchConsole(ctx context.Context, v *viewing, args []string) error {
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	g, err := s.grant(args, notOver, "that is not over")
	if err != nil {
		return err
	}
	if g.Watcher != s.person && !v.observe && v.takeOver == "" {
		return fail(exitRefused, "%s watches %s, not you", g.Watcher, g.ID).
			hint("look on: epatch watch-console %s --observe", g.ID).hint("take the watch over: epatch watch-console %s --take-over REASON", g.ID)
	}
	if !v.observe { // the broker shows nothing to a watcher who has not signed to watch
		if _, err := a.act(ctx, &emergencyv1.ArmWatchRequest{Meta: s.fresh(), Grant: g.ID, TakeOverReason: v.takeOver}, "the watch of %s is armed; it runs only while you watch", g.ID); err != nil {
			return err
		}
	}
	w := &consoleWatch{
		app: a, incident: s.state.Incident, grant: g.ID, viewing: v, left: make(chan struct{}),
		dial: func(ctx context.Context) (deploymentv1.ConsoleService_WatchClient, error) {
			return s.client.Console().Watch(ctx)
		},
		give: func(ctx context.Context, cmd procedure.Command) error {
			_, err := s.client.Send(ctx, cmd)
			return err
		},
	}
	if err := w.open(); err != nil {
		return err
	}
	err = w.run(ctx)
	w.finish()
	w.view.close()
	return a.watched(ctx, w, err)
}

// watched says how it ended, and what is to be done about the access.
func (a *app) watched(ctx context.Context, w *consoleWatch, err error) error {
	if w.killed != "" && !a.opt.json {
		a.errs.line("%s", w.killed)
	}
	switch {
	case errors.Is(err, errLeft):
		if !a.opt.json && !w.viewing.observe {
			a.errs.line("%s", a.typing("you watch no more: the session freezes now, and ends soon; go on with epatch watch-console "+w.grant))
		}
		return nil
	case ctx.Err() != nil:
		return fail(exitInterrupted, "you watch no more; without you the session freezes, and ends soon").hint("go on: epatch watch-console %s", w.grant)
	case err != nil:
		return err
	}
	if !a.opt.json {
		a.out.line("%s is %s%s", bold(w.grant), w.last.GetState(), becauseOf(w.last.GetCause()))
	}
	a.then(context.WithoutCancel(ctx), w.incident)
	return nil
}

func becauseOf(c emergencyv1.SessionCause) string {
	if c == 0 {
		return ""
	}
	return ": " + strings.ReplaceAll(word(c), "-", " ")
}

// errLeft says that the watcher has left of own accord.
var errLeft = errors.New("left")

// consoleView is where a session is shown. Its methods are called by one goroutine at a time, except say.
type consoleView interface {
	// welcome begins, or begins again: everything comes once more from the first byte.
	welcome(*deploymentv1.WatchWelcome) error
	// frame shows a frame and returns once the terminal has taken it: only then it was seen.
	frame(*deploymentv1.WatchFrame) error
	// state shows how the session stands.
	state(*deploymentv1.WatchState) error
	// say shows what became of an act of the watcher.
	say(text string)
	// orders are what the watcher wants, until ctx ends.
	orders(ctx context.Context, give func(order)) error
	// hidden is told when nobody can see the view, and when somebody can again.
	hidden(told func(bool)) (stop func())
	close()
}

// order is what the watcher wants done.
type order struct {
	what, text string
}

// consoleWatch is one person watching one session.
type consoleWatch struct {
	app             *app
	incident, grant string
	viewing         *viewing
	dial            func(context.Context) (deploymentv1.ConsoleService_WatchClient, error)
	give            func(context.Context, procedure.Command) error
	view            consoleView
	left            chan struct{}
	once            sync.Once
	last            *deploymentv1.WatchState
	acts            sync.WaitGroup // orders that are being carried out
	killed          string         // what became of an ordered end; after acts

	mu       sync.Mutex // serialises what is sent
	stream   deploymentv1.ConsoleService_WatchClient
	rendered uint64
	away     bool
	over     bool // no order is taken any more
}

func (w *consoleWatch) open() (err error) {
	out, ok := w.app.proc.Stdout.(*os.File)
	if w.viewing.plain || w.app.opt.json || !ok || !w.app.out.tty {
		w.view = &plainView{app: w.app}
		return nil
	}
	w.view, err = openScreen(w.app, w.grant, out)
	return err
}

// signOfLife is how often the watcher is heard of at least: after a second without it the subject's input stops.
const signOfLife = 250 * time.Millisecond

// watchPatience is how long a lost stream is opened again. The session does not wait that long: it is frozen within seconds.
const watchPatience = 2 * time.Minute

// run watches until the session is over, the watcher leaves, or ctx ends.
func (w *consoleWatch) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer w.view.hidden(w.setAway)()
	go w.listen(ctx)
	lost := time.Time{}
	for {
		err := w.attend(ctx, func() { lost = time.Time{} })
		select {
		case <-w.left:
			return errLeft
		default:
		}
		if err == nil || ctx.Err() != nil || !lostStream(err) {
			return err
		}
		if lost.IsZero() {
			lost = w.app.proc.Now()
		}
		if w.app.proc.Now().Sub(lost) > watchPatience {
			return err
		}
		w.view.say("the connection is lost, the session is frozen; trying again: " + cause(status.Convert(err).Message()))
		select {
		case <-time.After(time.Second):
		case <-w.left:
			return errLeft
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func lostStream(err error) bool {
	c := status.Code(err)
	return c == codes.Unavailable || c == codes.DeadlineExceeded
}

// listen hands the watcher's orders over while the view goes on.
func (w *consoleWatch) listen(ctx context.Context) {
	err := w.view.orders(ctx, func(o order) {
		if o.what == "leave" {
			w.once.Do(func() { close(w.left) })
			return
		}
		w.begin(func() { w.obey(ctx, o) })
	})
	if err != nil { // a watcher who can type nothing can stop nothing
		w.once.Do(func() { close(w.left) })
	}
}

// attend is one stream, from the hello to its end; nil if the session is over.
func (w *consoleWatch) attend(ctx context.Context, alive func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // leaving ends the stream
		select {
		case <-w.left:
			cancel()
		case <-ctx.Done():
		}
	}()
	stream, err := w.dial(ctx)
	if err != nil {
		return err
	}
	hello := &deploymentv1.WatchHello{Incident: w.incident, Grant: w.grant, Observe: w.viewing.observe}
	if err := stream.Send(&deploymentv1.WatchRequest{Message: &deploymentv1.WatchRequest_Hello{Hello: hello}}); err != nil {
		_, err = stream.Recv() // says why
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	alive()
	welcome := first.GetWelcome()
	if err := w.view.welcome(welcome); err != nil {
		return err
	}
	w.mu.Lock()
	w.stream, w.rendered = stream, 0
	w.mu.Unlock()
	every := time.Duration(welcome.GetRenewEveryMs()) * time.Millisecond
	if every <= 0 || every > signOfLife {
		every = signOfLife
	}
	w.sendRenewal(func() {}) // with the first one the watcher is present
	go w.renewals(ctx, every)
	return w.receive(stream)
}

// receive shows what comes, and acknowledges what was shown.
func (w *consoleWatch) receive(stream deploymentv1.ConsoleService_WatchClient) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case m.GetFrame() != nil:
			if err := w.view.frame(m.GetFrame()); err != nil {
				return fmt.Errorf("show the session: %w", err)
			}
			w.shown(m.GetFrame().GetOutputOffset())
		case m.GetState() != nil:
			w.last = m.GetState()
			if err := w.view.state(m.GetState()); err != nil {
				return fmt.Errorf("show the session: %w", err)
			}
			if isOver(m.GetState().GetState()) {
				return nil
			}
		}
	}
}

// isOver tells whether nothing more comes of a session in a state.
func isOver(state string) bool {
	switch procedure.GrantState(strings.ToUpper(state)) {
	case procedure.GrantTerminated, procedure.GrantDisabled, procedure.GrantExpired, procedure.GrantProvenUnusable, procedure.GrantStillUsable, procedure.GrantSealed:
		return true
	case procedure.GrantIssued, procedure.GrantWatcherReady, procedure.GrantLive, procedure.GrantFrozen:
	}
	return false
}

// shown acknowledges output that the terminal has taken.
func (w *consoleWatch) shown(offset uint64) {
	w.sendRenewal(func() { w.rendered = max(w.rendered, offset) })
}

func (w *consoleWatch) setAway(away bool) { w.sendRenewal(func() { w.away = away }) }

// sendRenewal changes what the next renewal says, and sends it. A stream that is broken is noticed by who receives.
func (w *consoleWatch) sendRenewal(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	if w.stream == nil || w.viewing.observe {
		return
	}
	renewal := &deploymentv1.WatchRenewal{Rendered: w.rendered, Hidden: w.away}
	_ = w.stream.Send(&deploymentv1.WatchRequest{Message: &deploymentv1.WatchRequest_Renewal{Renewal: renewal}})
}

func (w *consoleWatch) renewals(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			w.sendRenewal(func() {})
		case <-ctx.Done():
			return
		}
	}
}

// begin carries out an order beside the view, unless that is over.
func (w *consoleWatch) begin(act func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.acts.Go(act)
	}
}

// finish waits for what was ordered: an end is seen through, though the session that it ended is over by then.
func (w *consoleWatch) finish() {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	w.acts.Wait()
}

// obey does what the watcher wants. What became of it is shown in the view.
func (w *consoleWatch) obey(ctx context.Context, o order) {
	done, err := w.act(ctx, o)
	if err != nil {
		r := w.app.explain(err)
		done = "refused: " + r.What
		if len(r.Hints) > 0 {
			done += " (" + r.Hints[0] + ")"
		}
	}
	if o.what == "kill" {
		w.killed = o.what + ": " + done
	}
	if ctx.Err() == nil {
		w.view.say(done)
	}
}

func (w *consoleWatch) act(ctx context.Context, o order) (string, error) {
	meta := w.meta()
	send := func(cmd procedure.Command, done string) (string, error) { return done, w.give(ctx, cmd) }
	switch o.what {
	case "presence":
		return send(&emergencyv1.ArmWatchRequest{Meta: meta, Grant: w.grant}, "you are present, with your signature")
	case "freeze":
		return send(&emergencyv1.FreezeRequest{Meta: meta, Grant: w.grant, Cause: emergencyv1.SessionCause_SESSION_CAUSE_WATCHER}, "frozen")
	case "resume":
		if err := w.give(ctx, &emergencyv1.ArmWatchRequest{Meta: meta, Grant: w.grant}); err != nil {
			return "", err
		}
		return send(&emergencyv1.ResumeRequest{Meta: w.meta(), Grant: w.grant}, "resumed")
	case "note":
		return send(&emergencyv1.MarkSessionRequest{Meta: meta, Grant: w.grant, Kind: emergencyv1.MarkKind_MARK_KIND_NOTE, Text: o.text}, "noted")
	case "extend":
		return send(&emergencyv1.ExtendSessionRequest{Meta: meta, Grant: w.grant, Reason: o.text}, "extended")
	case "kill":
		return w.kill(ctx)
	}
	return "", usage("%q is no order", o.what).hint("one of: freeze, resume, kill, note TEXT, extend REASON, presence, leave")
}

// meta is the common part of one command; each has its own request id.
func (w *consoleWatch) meta() *emergencyv1.CommandMeta {
	return &emergencyv1.CommandMeta{Incident: w.incident}
}

// killTime is how long to wait for the answer to an end before disabling all the same.
const killTime = 3 * time.Second

// kill ends the session and disables the access. Neither waits for the other to succeed.
func (w *consoleWatch) kill(ctx context.Context) (string, error) {
	ctx = context.WithoutCancel(ctx) // the view may be over before the second is sent
	first, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	ended := w.give(first, &emergencyv1.TerminateRequest{Meta: w.meta(), Grant: w.grant})
	disabled := w.give(ctx, &emergencyv1.DisableRequest{Meta: w.meta(), Grant: w.grant})
	return "ended and disabled", errors.Join(ended, disabled)
}

// plainView is a log: one line for everything, harmless as it stands.
type plainView struct {
	app *app
	mu  sync.Mutex
	was string
}

func (v *plainView) line(at int64, what, text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.app.out.line("%s  %-7s %s", fmt.Sprintf("%9.3f", float64(at)/1000), what, text)
}

func (v *plainView) welcome(m *deploymentv1.WatchWelcome) error {
	if v.app.opt.json {
		return v.app.out.json(m)
	}
	v.line(0, "watch", fmt.Sprintf("as %s, terminal %dx%d", word(m.GetMode()), m.GetColumns(), m.GetRows()))
	return nil
}

func (v *plainView) frame(f *deploymentv1.WatchFrame) error {
	if v.app.opt.json {
		return v.app.out.json(f)
	}
	switch f.GetKind() {
	case deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_OUTPUT:
		v.line(f.GetAtMs(), "output", string(f.GetData()))
	case deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_INPUT:
		v.line(f.GetAtMs(), "input", string(f.GetData())+f.GetNotice())
	case deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_RESIZE:
		v.line(f.GetAtMs(), "resize", fmt.Sprintf("%dx%d", f.GetColumns(), f.GetRows()))
	case deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_NOTICE, deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_UNSPECIFIED:
		v.line(f.GetAtMs(), "notice", f.GetNotice())
	}
	return nil
}

func (v *plainView) state(m *deploymentv1.WatchState) error {
	if v.app.opt.json {
		return v.app.out.json(m)
	}
	text := fmt.Sprintf("%s%s, %s%s", m.GetState(), becauseOf(m.GetCause()), inputWord(m), persons(m))
	if text != v.was { // a heartbeat says nothing new
		v.was = text
		v.line(0, "state", text)
	}
	return nil
}

func inputWord(m *deploymentv1.WatchState) string {
	w := "input shut"
	if m.GetInputOpen() {
		w = "input open"
	}
	if n := m.GetInputDiscarded(); n > 0 {
		w += fmt.Sprintf(", %d bytes of it thrown away", n)
	}
	return w
}

// persons are those on the session, each once.
func persons(m *deploymentv1.WatchState) string {
	text := ""
	for _, p := range m.GetPersons() {
		text += ", " + p.GetPart() + " " + p.GetPerson()
	}
	return text
}

func (v *plainView) say(text string) {
	if !v.app.opt.json {
		v.line(0, "you", text)
	}
}

// orders reads one order a line.
func (v *plainView) orders(ctx context.Context, give func(order)) error {
	if v.app.proc.Stdin == nil {
		return nil
	}
	lines := bufio.NewScanner(v.app.proc.Stdin)
	for ctx.Err() == nil && lines.Scan() {
		what, text, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if what != "" {
			give(order{what: what, text: strings.TrimSpace(text)})
		}
	}
	return nil // without standard input it is only a log
}

func (v *plainView) hidden(told func(bool)) (stop func()) {
	return onSuspend(func() {}, func() {}, told)
}

func (v *plainView) close() {}
