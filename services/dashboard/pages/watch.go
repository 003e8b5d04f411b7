// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"cacert.org/emergency/pkg/identity"
	"cacert.org/emergency/pkg/identity/passkey"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/pkg/rpc"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/dashboard/sse"
)

// The view of a session while it goes on. The browser and the deployment service talk through this process, which adds nothing of
// its own: what the browser's terminal has shown, and that somebody can see it, is said by the browser alone and handed on as it
// comes. A browser that falls silent is silent towards the service in the same moment.

// watchView is the page around the terminal.
type watchView struct {
	Incident string
	session3
	Over    bool
	Counts  bool // the viewer is the watcher
	Extends bool // who watches may extend it still
	Takes   bool // the viewer may take the watch over
	Refused *refusalView
}

func (p *Pages) watch(v *viewer, r *http.Request) (*content, error) {
	st, g, err := p.sessionOf(v, r)
	if err != nil {
		return nil, err
	}
	d := watchView{Incident: st.Incident, session3: v.session(st, g), Over: g.Over()}
	c := &content{Title: "watch.title", Args: []any{g.ID, st.Incident}, Section: "incidents", Template: "watch", Incident: st.Incident, Drill: st.Declared.Drill, Still: true}
	watcher, no := procedure.MayWatch(st, g.ID, v.Person, v.book, v.now)
	switch {
	case no != nil:
		refused := v.refusal(no)
		d.Refused = &refused
	case !d.Over:
		d.Counts, d.Extends, d.Takes = watcher, watcher && g.Extended.Position == 0, !watcher && p.may(v, st, "ArmWatch", g.ID)
		c.Scripts, c.Modules, c.Styles = []string{"watch.js"}, append(terminalModules(), passkeyScript), terminalStyles()
	}
	c.Data = d
	return c, nil
}

// A message of a browser has at most so many bytes; what it asks for is sent within sse.WriteWithin or not at all.
const maxWatchMessage = 4 << 10

// fromBrowser is what a page sends: first how it wants to watch, then signs of life.
type fromBrowser struct {
	// Watch is watcher or observer, in the first message.
	Watch string `json:"watch"`
	// Rendered is the output that the terminal has shown, Hidden that nobody can see the page.
	Rendered uint64 `json:"rendered"`
	Hidden   bool   `json:"hidden"`
	// Signed is the answer to the question for a signature: a passkey's fields, or that the demo key may sign.
	Signed map[string]string `json:"signed"`
}

// toBrowser is what it is sent. Kind says which fields count.
type toBrowser struct {
	Kind string `json:"kind"` // sign, welcome, output, resize, notice, state, end, refused, lost

	// What is asked for to sign that one watches.
	Challenge    string `json:"challenge,omitempty"`
	RelyingParty string `json:"relying_party,omitempty"`
	Credentials  string `json:"credentials,omitempty"`
	Demo         bool   `json:"demo,omitempty"`

	Mode  string `json:"mode,omitempty"`
	Every uint32 `json:"every,omitempty"` // milliseconds between signs of life
	Cols  uint32 `json:"cols,omitempty"`
	Rows  uint32 `json:"rows,omitempty"`

	Text   string `json:"text,omitempty"`
	Offset uint64 `json:"offset,omitempty"`
	MS     int64  `json:"ms,omitempty"`

	Grant     *headline `json:"grant,omitempty"`
	State     string    `json:"state,omitempty"`
	Class     string    `json:"class,omitempty"`
	Open      bool      `json:"open,omitempty"`
	Discarded string    `json:"discarded,omitempty"`
	Grace     string    `json:"grace,omitempty"`
	Presence  string    `json:"presence,omitempty"`
	Ends      string    `json:"ends,omitempty"`
	People    []string  `json:"people,omitempty"`

	Ways []string `json:"ways,omitempty"`
}

// headline is how the access stands, for the badge of the page's heading.
type headline struct {
	Text  string `json:"text"`
	Class string `json:"class"`
}

// watchStream joins a browser and the service.
func (p *Pages) watchStream(w http.ResponseWriter, r *http.Request) {
	v := p.viewer(r)
	if _, err := p.cfg.Reader(); err != nil || v.Person == "" {
		http.Error(w, "nobody is signed in", http.StatusForbidden)
		return
	}
	st, g, err := p.sessionOf(v, r)
	if err != nil {
		http.Error(w, v.refusal(err).Message, statusOf(err))
		return
	}
	conn, err := websocket.Accept(w, r, nil) // only from these pages' own origin
	if err != nil {
		return // it has answered
	}
	conn.SetReadLimit(maxWatchMessage)
	b := &bridge{p: p, r: r, v: v, conn: conn, person: v.Person, incident: st.Incident, grant: g.ID}
	if err := b.run(st); err != nil {
		p.cfg.Log.InfoContext(r.Context(), "a watch in a page has ended", "incident", st.Incident, "grant", g.ID, "person", v.Person, "why", err)
	}
}

// bridge is one page that shows a session.
type bridge struct {
	p               *Pages
	r               *http.Request
	v               *viewer
	conn            *websocket.Conn
	person          string
	incident, grant string
	shown           shownText
	mu              sync.Mutex // writing
}

var errPagesEnd = errors.New("these pages end")

// run lasts until the session is over, the browser goes, or its person may not look on any more.
func (b *bridge) run(st *procedure.State) error {
	ctx, cancel := context.WithCancelCause(b.r.Context())
	defer cancel(nil)
	defer func() { _ = b.conn.CloseNow() }() // closed already where it ended in order
	go func() {
		select {
		case <-b.p.ended:
			cancel(errPagesEnd)
		case <-ctx.Done():
		}
	}()
	hello, err := b.hello(ctx, st)
	if err != nil {
		return b.end(ctx, err)
	}
	peer, err := b.p.deployment()
	if err != nil {
		return b.end(ctx, err)
	}
	stream, err := deploymentv1.NewConsoleServiceClient(peer).Watch(ctx)
	if err == nil {
		err = stream.Send(&deploymentv1.WatchRequest{Message: &deploymentv1.WatchRequest_Hello{Hello: hello}})
	}
	if err != nil && !errors.Is(err, io.EOF) { // the end of the stream is told, with its reason, by who receives
		return b.end(ctx, awayOr(err))
	}
	go func() { cancel(b.signsOfLife(ctx, stream)) }()
	err = b.show(ctx, stream)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return b.end(ctx, err)
}

// hello is how the browser wants to watch, with its person's signature if that makes the person present.
func (b *bridge) hello(ctx context.Context, st *procedure.State) (*deploymentv1.WatchHello, error) {
	first, cancel := context.WithTimeout(ctx, sse.WriteWithin)
	defer cancel()
	m, err := b.receive(first)
	if err != nil {
		return nil, err
	}
	out := &deploymentv1.WatchHello{Incident: b.incident, Grant: b.grant, Person: b.person, Observe: m.Watch != "watcher"}
	if out.GetObserve() {
		return out, nil
	}
	out.Approval, err = b.signed(ctx, procedure.WatchStatement(st, b.grant, b.person, "watch-"+rand.Text(), b.p.cfg.Clock.Now()))
	return out, err
}

// signPatience is how long a person may take to sign: a little more than the page's script asks the browser for.
const signPatience = 130 * time.Second

// signed asks the page for its person's signature, by a passkey or by the demo key. What is signed stays here.
func (b *bridge) signed(ctx context.Context, st *emergencyv1.Statement) (*emergencyv1.Approval, error) {
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	demo, keys := b.p.demoSigns(b.r), b.v.book.PasskeysOf(b.person, b.v.now)
	ask, able := passkey.RequestFor(procedure.StatementPayloadType, payload, keys, b.p.cfg.RelyingParty)
	if !able && !demo {
		return nil, notSigned("this page has no key of yours to sign with")
	}
	out := toBrowser{Kind: "sign", Demo: demo}
	if able {
		out.Challenge, out.RelyingParty, out.Credentials = ask.Challenge, ask.RelyingParty, strings.Join(ask.Credentials, " ")
	}
	if err := b.send(ctx, out); err != nil {
		return nil, err
	}
	waits, cancel := context.WithTimeout(ctx, signPatience)
	defer cancel()
	m, err := b.receive(waits)
	if err != nil {
		return nil, err
	}
	a, err := passkey.Approval(func(field string) string { return m.Signed[field] }, procedure.StatementPayloadType, payload, keys)
	switch {
	case err == nil:
		return a, nil
	case !errors.Is(err, passkey.ErrNotSigned):
		return nil, notSigned(err.Error())
	case m.Signed["demo"] == "" || !demo:
		return nil, notSigned("nobody has signed it")
	}
	signer, err := b.p.cfg.DemoSigner(b.person)
	if err != nil {
		return nil, fmt.Errorf("demo key: %w", err)
	}
	return identity.SignPayload(signer, procedure.StatementPayloadType, payload)
}

func notSigned(why string) *procedure.Refusal {
	return &procedure.Refusal{
		Code: procedure.FailedPrecondition, Reason: procedure.ReasonSignature, Rule: "4.4 ArmWatch", Message: "the watch is signed by its watcher: " + why,
		Allow: []procedure.Allowance{{Description: "add a passkey to the rule book, on the page /passkeys"}, {Description: "watch with epatch watch-console"}, {Description: "or look on here as observer"}},
	}
}

func (b *bridge) receive(ctx context.Context) (fromBrowser, error) {
	var m fromBrowser
	kind, data, err := b.conn.Read(ctx)
	if err != nil {
		return m, err
	}
	if kind != websocket.MessageText {
		return m, errors.New("the page sent no text")
	}
	return m, json.Unmarshal(data, &m)
}

// signsOfLife hands on what the browser says, when it says it and never otherwise. Each time it is asked whether the person is still
// signed in and known: what a revoked key sees is not seen by the watcher.
func (b *bridge) signsOfLife(ctx context.Context, stream grpc.BidiStreamingClient[deploymentv1.WatchRequest, deploymentv1.WatchResponse]) error {
	for {
		m, err := b.receive(ctx)
		if err != nil {
			return fmt.Errorf("the page has gone: %w", err)
		}
		if b.p.viewer(b.r).Person != b.person {
			return errors.New("its person is not signed in any more")
		}
		err = stream.Send(&deploymentv1.WatchRequest{Message: &deploymentv1.WatchRequest_Renewal{Renewal: &deploymentv1.WatchRenewal{Rendered: m.Rendered, Hidden: m.Hidden}}})
		if err != nil {
			<-ctx.Done() // whoever receives says why
			return context.Cause(ctx)
		}
	}
}

// show hands on what comes, neutralised as for any terminal. While the browser does not take it nothing more is asked for, so that
// nothing is piled up here: the service then sees that the output is not shown.
func (b *bridge) show(ctx context.Context, stream grpc.BidiStreamingClient[deploymentv1.WatchRequest, deploymentv1.WatchResponse]) error {
	screen := recording.NewNeutraliser(&b.shown, recording.Live)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return awayOr(err)
		}
		switch {
		case m.GetWelcome() != nil:
			x := m.GetWelcome()
			err = b.send(ctx, toBrowser{Kind: "welcome", Mode: modeName(x.GetMode()), Every: x.GetRenewEveryMs(), Cols: x.GetColumns(), Rows: x.GetRows(), Text: b.v.enum(x.GetMode())})
		case m.GetFrame() != nil:
			err = b.frame(ctx, screen, m.GetFrame())
		case m.GetState() != nil:
			err = b.state(ctx, m.GetState())
		}
		if err != nil {
			return err
		}
	}
}

func modeName(m deploymentv1.WatchMode) string {
	if m == deploymentv1.WatchMode_WATCH_MODE_WATCHER {
		return "watcher"
	}
	return "observer"
}

func (b *bridge) frame(ctx context.Context, screen io.Writer, f *deploymentv1.WatchFrame) error {
	out := toBrowser{MS: f.GetAtMs(), Offset: f.GetOutputOffset()}
	switch f.GetKind() {
	case deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_OUTPUT:
		if _, err := screen.Write(f.GetData()); err != nil {
			return err
		}
		out.Kind, out.Text = "output", b.shown.take()
	case deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_RESIZE:
		out.Kind, out.Cols, out.Rows = "resize", f.GetColumns(), f.GetRows()
	case deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_NOTICE:
		out.Kind, out.Text = "notice", f.GetNotice()
	case deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_INPUT, deploymentv1.WatchFrameKind_WATCH_FRAME_KIND_UNSPECIFIED:
		out.Kind = "input" // that something was typed; what, its echo shows
	}
	return b.send(ctx, out)
}

func (b *bridge) state(ctx context.Context, s *deploymentv1.WatchState) error {
	v := *b.v
	v.now = b.p.cfg.Clock.Now()
	name := sessionState(s.GetState())
	out := toBrowser{Kind: "state", State: v.say("watch.state." + name), Class: map[string]string{"live": live, "frozen": warn, "waiting": quiet, "opening": quiet}[name], Open: s.GetInputOpen(), Text: v.enum(s.GetCause())}
	if n := s.GetInputDiscarded(); n > 0 {
		out.Discarded = v.say("watch.discarded", n)
	}
	if t := s.GetGraceUntil(); t != nil {
		out.Grace = stamp(t.AsTime())
	}
	if t := s.GetPresenceUntil(); t != nil {
		out.Presence = stamp(t.AsTime())
	}
	if t := s.GetEndsAt(); t != nil {
		out.Ends = stamp(t.AsTime())
	}
	watched := false
	for _, x := range s.GetPersons() {
		watched = watched || partOf(x.GetPart()) == "watcher"
		out.People = append(out.People, v.say("watch.part."+partOf(x.GetPart()), x.GetPerson()))
	}
	if g := grantOf(name, watched); g != "" {
		standing := v.badge(grantClass(g), "grant", string(g))
		out.Grant = &headline{standing.Text, standing.Class}
	}
	return b.send(ctx, out)
}

// grantOf is how the access stands while its session does, which the history says a moment later; empty if that cannot be told.
func grantOf(session string, watched bool) procedure.GrantState {
	switch session {
	case "waiting", "opening":
		if watched {
			return procedure.GrantWatcherReady
		}
		return procedure.GrantIssued
	case "live":
		return procedure.GrantLive
	case "frozen":
		return procedure.GrantFrozen
	case "terminated":
		return procedure.GrantTerminated
	}
	return ""
}

// sessionState is a state that the catalogue has a word for.
func sessionState(s string) string {
	switch s {
	case "waiting", "opening", "live", "frozen", "terminated":
		return s
	}
	return "other"
}

func partOf(s string) string {
	switch s {
	case "subject", "watcher":
		return s
	}
	return "observer"
}

func (b *bridge) send(ctx context.Context, m toBrowser) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, sse.WriteWithin)
	defer cancel()
	return b.conn.Write(ctx, websocket.MessageText, data)
}

// end says why nothing more comes, and closes.
func (b *bridge) end(ctx context.Context, err error) error {
	m := toBrowser{Kind: "end", Text: b.v.say("watch.ended")}
	if err != nil {
		no := b.v.refusal(err)
		m.Kind, m.Text, m.Ways = "refused", no.Message, no.Ways
		if _, refused := rpc.RefusalOf(err); !refused && statusOf(err) >= http.StatusInternalServerError {
			m.Kind = "lost" // it may be better in a moment
		}
	}
	sent := b.send(ctx, m)
	return errors.Join(err, sent, b.conn.Close(websocket.StatusNormalClosure, ""))
}
