// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/pkg/rpc"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	"cacert.org/emergency/services/dashboard/sse"
)

// sessionView is one watched session: how it stands, and its recording if the viewer asked for it.
type sessionView struct {
	Incident string
	session3
	Over    bool
	Watch   bool         // the viewer may look on
	Begin   *event       // the event at whose moment the playback begins
	Request string       // of the act of playing, so that asking twice is one act
	Refused *refusalView // why the viewer cannot play it
	Query   string
	Played  *played
}

// played is a recording as a page shows it.
type played struct {
	Check      badge
	Why        string // what is wrong with it
	FirstBad   uint64
	Proof      string
	Sealed     bool
	SHA256     string
	Frames     uint64
	Size       int64
	Started    *when
	Took       string
	Cols, Rows int
	Lines      []spoken
	More       int // lines that are not shown
	Moments    []moment
	From       int64 // where to begin, in milliseconds
}

// spoken is a line of a transcript. Own is set where the recording itself says something: a freeze, a note, a refused request.
type spoken struct {
	Frame uint64
	MS    int64
	At    string
	Text  string
	Own   bool
}

// moment is an event of the incident while the session went on.
type moment struct {
	entry
	MS int64
	In string
}

// linesShown is how much of a transcript the page has by itself; the player has all of it.
const linesShown = 1500

// sessionOf finds the session that a path names.
func (p *Pages) sessionOf(v *viewer, r *http.Request) (*procedure.State, *procedure.Grant, error) {
	st, err := p.state(v, r.PathValue("incident"))
	if err != nil {
		return nil, nil, err
	}
	g, ok := st.Grant(r.PathValue("grant"))
	if !ok {
		return nil, nil, &procedure.Refusal{
			Code: procedure.NotFound, Reason: procedure.ReasonGrant, Rule: "G4", Message: fmt.Sprintf("%s has no grant %.40q", st.Incident, r.PathValue("grant")),
			Allow: []procedure.Allowance{{Description: "take a session from the page of the emergency"}},
		}
	}
	return st, g, nil
}

// session shows one session. A POST asks for its recording, which the owner of the session writes down before it hands it out.
func (p *Pages) session(v *viewer, r *http.Request) (*content, error) {
	st, g, err := p.sessionOf(v, r)
	if err != nil {
		return nil, err
	}
	d := sessionView{Incident: st.Incident, session3: v.session(st, g), Over: g.Over()}
	_, no := procedure.MayWatch(st, g.ID, v.Person, v.book, v.now)
	d.Watch = no == nil && !d.Over
	d.Refused = p.mayPlay(v, st, g.ID)
	at, err := strconv.ParseUint(r.FormValue("at"), 10, 63)
	if err == nil && at > 0 && at <= st.Position {
		d.Begin = &event{st.Incident, at}
	}
	c := &content{Title: "session.title", Args: []any{g.ID, st.Incident}, Section: "incidents", Template: "session", Incident: st.Incident, Drill: st.Declared.Drill}
	if d.Over { // a form with an id of its own is not drawn again
		d.Request, c.Still = "page-"+rand.Text(), true
	}
	if r.Method == http.MethodPost && d.Over && d.Refused == nil {
		c.Scripts, c.Modules, c.Styles = []string{"playback.js"}, terminalModules(), terminalStyles()
		d.Query = r.PostFormValue("search")
		if id := r.PostFormValue("request"); id != "" {
			d.Request = id
		}
		if err := p.play(v, st, g, &d); err != nil {
			refused := v.refusal(err)
			d.Refused = &refused
		}
	}
	c.Data = d
	return c, nil
}

// What a page with a terminal needs besides its own script.
func terminalModules() []string { return []string{"vendor/xterm.mjs", "terminal.js"} }
func terminalStyles() []string  { return []string{"vendor/xterm.css", "console.css"} }

// mayPlay is why the viewer cannot play a session's recording, by the check that decides; nil if nothing is in the way.
func (p *Pages) mayPlay(v *viewer, st *procedure.State, grant string) *refusalView {
	o, ok := p.option(v, st, "PlayRecording", grant)
	if !ok || o.Refusal == nil {
		return nil
	}
	no := v.refusal(o.Refusal)
	return &no
}

// may tells whether the rules would take a command about a subject from the viewer now.
func (p *Pages) may(v *viewer, st *procedure.State, name, subject string) bool {
	o, ok := p.option(v, st, name, subject)
	return ok && o.Refusal == nil
}

// option is what the rules say of a command about a subject; ok is false where it is none that there is now.
func (p *Pages) option(v *viewer, st *procedure.State, name, subject string) (procedure.Option, bool) {
	list := procedure.Options(st, p.env(v))
	i := slices.IndexFunc(list, func(o procedure.Option) bool { return o.Command == name && o.Subject == subject })
	if i < 0 {
		return procedure.Option{}, false
	}
	return list[i], true
}

// play reads a recording for the viewer and puts into words what it holds.
func (p *Pages) play(v *viewer, st *procedure.State, g *procedure.Grant, d *sessionView) error {
	f, report, err := p.fetchRecording(v.ctx, st, g, v.Person, d.Request)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read; the file has no name any more
	d.Played = v.checked(report, g)
	if err := d.Played.transcribe(f, d.Query); err != nil {
		return err
	}
	entries, err := p.entries(v, st.Incident, 0)
	if err != nil {
		return err
	}
	d.Played.Moments = moments(entries, report)
	if d.Begin != nil {
		if i := slices.IndexFunc(d.Played.Moments, func(m moment) bool { return m.Event.Position >= d.Begin.Position }); i >= 0 {
			d.Played.From = d.Played.Moments[i].MS
		}
	}
	return nil
}

// checked says what the check of a recording against the history found.
func (v *viewer) checked(r recording.Report, g *procedure.Grant) *played {
	class := map[recording.State]string{recording.Complete: good, recording.Incomplete: warn, recording.Broken: bad}[r.State]
	x := &played{
		Check: v.badge(class, "recording", string(r.State)), Why: r.Why, FirstBad: r.FirstBad, SHA256: r.SHA256.String(), Frames: r.Last.Frame, Size: r.Size,
		Started: v.when(r.Header.StartedAt), Took: v.took(r.EndedAt.Sub(r.Header.StartedAt)), Cols: r.Header.Cols, Rows: r.Header.Rows,
		Sealed: g.Recording.GetSha256() == r.SHA256.String(),
	}
	switch {
	case x.Sealed:
		x.Proof = v.say("recording.proof.sealed", g.Sealed.Position)
	case !r.HasProof:
		x.Proof = v.say("recording.proof.none")
	default:
		x.Proof = v.say("recording.proof.until", r.Proven, r.Last.Frame)
	}
	return x
}

// transcribe reads the lines of the output and what the recording says itself, as text: all, or those with a word. What stands
// behind a bad frame is not read.
func (x *played) transcribe(f io.ReadSeeker, query string) error {
	own, skip, err := ownFrames(f)
	if err != nil {
		return err
	}
	r, err := reopen(f)
	if err != nil {
		return bearable(err)
	}
	for hit, err := range r.Search(query) {
		if err != nil {
			return bearable(err)
		}
		if skip[hit.Frame] {
			continue
		}
		if len(x.Lines) == linesShown {
			x.More++
			continue
		}
		since := hit.At.Sub(r.Header.StartedAt)
		x.Lines = append(x.Lines, spoken{hit.Frame, since.Milliseconds(), sinceStart(since.Milliseconds()), hit.Line, own[hit.Frame]})
	}
	return nil
}

// ownFrames are the frames in which the recording says something itself, and those that would only repeat what others show: what
// was typed is told by its echo, and acknowledgements by nothing.
func ownFrames(f io.ReadSeeker) (own, skip map[uint64]bool, err error) {
	own, skip = map[uint64]bool{}, map[uint64]bool{}
	r, err := reopen(f)
	if err != nil {
		return own, skip, bearable(err)
	}
	for fr, err := range r.Frames() {
		if err != nil {
			return own, skip, bearable(err)
		}
		switch fr.Body.(type) {
		case recording.Output:
		case recording.Input, recording.Typed, recording.Ack:
			skip[fr.Number] = true
		default:
			own[fr.Number] = true
		}
	}
	return own, skip, nil
}

func reopen(f io.ReadSeeker) (*recording.Reader, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return recording.NewReader(f)
}

// bearable drops the error of a bad frame: the check has said it, and what stands before it is shown.
func bearable(err error) error {
	var frame *recording.FrameError
	if errors.As(err, &frame) {
		return nil
	}
	return err
}

// moments are the events that became history while a session was recorded, each with when that was in the recording.
func moments(entries []entry, r recording.Report) []moment {
	var list []moment
	for _, e := range entries {
		if e.At == nil || e.At.at.Before(r.Header.StartedAt) || e.At.at.After(r.EndedAt.Add(time.Second)) {
			continue
		}
		ms := max(0, min(e.At.at.Sub(r.Header.StartedAt).Milliseconds(), r.EndedAt.Sub(r.Header.StartedAt).Milliseconds()))
		list = append(list, moment{e, ms, sinceStart(ms)})
	}
	slices.SortStableFunc(list, func(a, b moment) int { return cmp.Compare(a.Event.Position, b.Event.Position) })
	return list
}

// fetchRecording brings a session's recording, for a person, into a file without a name, and checks it against the history as
// this process has verified it. The owner writes down who it is for before it hands it out; asking again under the same request id
// is the same act.
func (p *Pages) fetchRecording(ctx context.Context, st *procedure.State, g *procedure.Grant, person, request string) (_ *os.File, report recording.Report, err error) {
	conn, err := p.deployment()
	if err != nil {
		return nil, report, err
	}
	anchors, err := recording.Anchors(g)
	if err != nil {
		return nil, report, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := deploymentv1.NewConsoleServiceClient(conn).ReadRecording(ctx, &deploymentv1.ReadRecordingRequest{
		Incident: st.Incident, Grant: g.ID, RequestId: request, Person: person,
	})
	if err != nil {
		return nil, report, awayOr(err)
	}
	f, err := os.CreateTemp("", "epatch-recording-")
	if err != nil {
		return nil, report, fmt.Errorf("a file for the recording: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close() // it is not used
		}
	}()
	if err := os.Remove(f.Name()); err != nil { // nobody else opens it, and it goes with this process
		return nil, report, fmt.Errorf("a file for the recording: %w", err)
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, report, awayOr(err)
		}
		if _, err := f.Write(part.GetData()); err != nil {
			return nil, report, fmt.Errorf("keep the recording: %w", err)
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, report, fmt.Errorf("the recording: %w", err)
	}
	if report, err = recording.Verify(f, anchors); err != nil {
		return nil, report, err
	}
	if report.State != recording.Broken && (report.Header.Grant != g.ID || report.Header.Incident != st.Incident) {
		return nil, report, fmt.Errorf("the recording that came is of %s in %s", report.Header.Grant, report.Header.Incident)
	}
	return f, report, nil
}

// deployment is the connection to the service that has the sessions.
func (p *Pages) deployment() (grpc.ClientConnInterface, error) {
	conn, ok := p.cfg.Peers[procedure.OwnerDeployment]
	if !ok {
		return nil, service.Away("no connection to the deployment service, which has the session")
	}
	return conn, nil
}

// awayOr is a service's refusal, or that it is away.
func awayOr(err error) error {
	if refusal, ok := rpc.RefusalOf(err); ok {
		return refusal
	}
	return service.Away("the deployment service does not answer: %w", err)
}

// frames hands a recording to the page's player, line by line: first what it is, then each frame, neutralised as for a terminal
// (N29), then the lines to search in. It takes the request id of the page that was asked for, so it is no playback of its own.
func (p *Pages) frames(w http.ResponseWriter, r *http.Request) {
	v := p.viewer(r)
	st, g, err := p.sessionOf(v, r)
	if err == nil && v.Person == "" {
		err = &procedure.Refusal{Code: procedure.Unauthenticated, Reason: procedure.ReasonNoIdentity, Rule: "G1", Message: "nobody is signed in"}
	}
	var f *os.File
	var report recording.Report
	if err == nil {
		f, report, err = p.fetchRecording(v.ctx, st, g, v.Person, r.PostFormValue("request"))
	}
	if err != nil {
		no := v.refusal(err)
		http.Error(w, no.Message, statusOf(err))
		return
	}
	defer func() { _ = f.Close() }() // only read; the file has no name any more
	w.Header().Set("Content-Type", "application/x-ndjson; charset=utf-8")
	out := &playing{w: w, out: http.NewResponseController(w)}
	out.lines = bufio.NewWriterSize(out, 64<<10)
	out.json = json.NewEncoder(out.lines)
	if err := out.send(f, report); err != nil {
		p.cfg.Log.WarnContext(r.Context(), "a recording was not sent whole", "incident", st.Incident, "grant", g.ID, "error", err)
	}
}

// playing is a recording on its way to a browser.
type playing struct {
	w     io.Writer
	out   *http.ResponseController
	lines *bufio.Writer
	json  *json.Encoder
}

// Write gives the browser time for each piece.
func (x *playing) Write(b []byte) (int, error) {
	if err := x.out.SetWriteDeadline(time.Now().Add(sse.WriteWithin)); err != nil {
		return 0, err
	}
	return x.w.Write(b)
}

func (x *playing) send(f io.ReadSeeker, report recording.Report) error {
	length := report.EndedAt.Sub(report.Header.StartedAt).Milliseconds()
	err := x.json.Encode(map[string]any{"cols": report.Header.Cols, "rows": report.Header.Rows, "length": length})
	if err == nil {
		err = x.frames(f)
	}
	if err == nil {
		err = x.text(f)
	}
	if err == nil {
		err = x.json.Encode([]any{"end", length})
	}
	return errors.Join(err, x.lines.Flush())
}

func (x *playing) frames(f io.ReadSeeker) error {
	r, err := reopen(f)
	if err != nil {
		return bearable(err)
	}
	var shown shownText
	screen := recording.NewNeutraliser(&shown, recording.Live)
	for fr, err := range r.Frames() {
		if err != nil {
			return bearable(err)
		}
		ms := fr.At.Sub(r.Header.StartedAt).Milliseconds()
		switch b := fr.Body.(type) {
		case recording.Output:
			if _, err := screen.Write(b.Data); err != nil {
				return err
			}
			err = x.some("o", ms, shown.take())
		case recording.Resize:
			err = x.json.Encode([]any{"r", ms, b.Cols, b.Rows})
		case recording.Input, recording.Typed, recording.Ack:
		case recording.Marker:
			err = x.json.Encode([]any{"m", ms, readable(b.Label)})
		default:
			err = x.json.Encode([]any{"m", ms, recording.Describe(b)})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *playing) some(kind string, ms int64, text string) error {
	if text == "" {
		return nil
	}
	return x.json.Encode([]any{kind, ms, text})
}

func (x *playing) text(f io.ReadSeeker) error {
	_, skip, err := ownFrames(f)
	if err != nil {
		return err
	}
	r, err := reopen(f)
	if err != nil {
		return bearable(err)
	}
	for hit, err := range r.Search("") {
		if err != nil {
			return bearable(err)
		}
		if skip[hit.Frame] {
			continue
		}
		if err := x.some("l", hit.At.Sub(r.Header.StartedAt).Milliseconds(), readable(hit.Line)); err != nil {
			return err
		}
	}
	return nil
}

// shownText collects what a neutraliser lets through.
type shownText struct{ b []byte }

// Write implements io.Writer.
func (s *shownText) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

func (s *shownText) take() string {
	t := string(s.b)
	s.b = s.b[:0]
	return t
}
