// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/recording"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
)

// Recordings: checked against the history first, then played so that they can do nothing but show text.

// playback is how a recording is to be played.
type playback struct {
	speed                    float64
	from, search, save       string
	idle                     time.Duration
	onlyCheck, list, despite bool
}

func (a *app) replayConsoleCmd() *cobra.Command {
	p := &playback{}
	cmd := leaf("replay-console [GRANT]", "Check a session's recording, and play it", `
The recording is checked first, frame by frame, against the checkpoints that the verified history holds, and is said to be complete,
incomplete or broken, with the first bad frame. Control sequences in it cannot do anything to your terminal. Every playback is an
event of the incident. --from takes a time since the start (90s, 12m) or the text of a marker; --list shows what happened instead.`, `
  epatch replay-console
  epatch replay-console G1 --speed 4 --max-idle 2s --from 12m
  epatch replay-console G1 --search "sudo"
  epatch replay-console G1 --check --save G1.cast`,
		cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error { return a.replayConsole(cmd.Context(), p, args) })
	f := cmd.Flags()
	f.Float64Var(&p.speed, "speed", 1, "how many times faster; 0 waits for nothing")
	f.DurationVar(&p.idle, "max-idle", 3*time.Second, "longest pause; 0 keeps them all")
	f.StringVar(&p.from, "from", "", "where to begin: a time since the start, or the text of a marker")
	f.StringVar(&p.search, "search", "", "list the places where a text is, and play nothing")
	f.BoolVar(&p.list, "list", false, "list resizes, refusals, freezes and notes, and play nothing")
	f.BoolVar(&p.onlyCheck, "check", false, "only check it")
	f.BoolVar(&p.despite, "despite", false, "play a broken recording too, up to the first bad frame")
	f.StringVar(&p.save, "save", "", "keep the recording in this file")
	return a.onGrant(cmd)
}

func (a *app) replayConsole(ctx context.Context, p *playback, args []string) error {
	s, err := a.scene(ctx)
	if err != nil {
		return err
	}
	g, err := s.grant(args, over, "with a session that is over")
	if err != nil {
		return err
	}
	anchors, err := anchorsOf(g)
	if err != nil {
		return err
	}
	file, err := a.fetchRecording(ctx, s, g, p.save)
	if err != nil {
		return err
	}
	if p.save == "" {
		defer func() { _ = os.Remove(file) }() // a copy; what cannot be removed is in a private temporary file
	}
	report, err := checkRecording(file, anchors)
	if err != nil {
		return err
	}
	bad := a.recordingWords(report, g)
	if bad == nil && (report.Header.Grant != g.ID || report.Header.Incident != s.state.Incident) {
		bad = fail(exitUnverified, "this is the recording of %s in %s, not of %s in %s", report.Header.Grant, report.Header.Incident, g.ID, s.state.Incident)
	}
	if bad == nil && g.Recording != nil && g.Recording.GetSha256() != report.SHA256.String() {
		bad = fail(exitUnverified, "the recording that came is not the sealed one: it hashes to %s, sealed is %s", short(report.SHA256.String()), short(g.Recording.GetSha256()))
	}
	if bad != nil && !p.despite || p.onlyCheck {
		return bad
	}
	if err := a.play(ctx, p, file, report); err != nil {
		return err
	}
	return bad
}

// anchorsOf are the checkpoints that the verified history holds: only they prove a recording.
func anchorsOf(g *procedure.Grant) ([]recording.Checkpoint, error) {
	list, err := recording.Anchors(g)
	if err != nil {
		return nil, fail(exitUnverified, "%v", err)
	}
	return list, nil
}

// fetchRecording brings the recording into a file that only this person can read, and returns its name.
func (a *app) fetchRecording(ctx context.Context, s *scene, g *procedure.Grant, save string) (_ string, err error) {
	a.progress("fetching the recording of %s", g.ID)
	stream, err := s.client.Console().ReadRecording(ctx, &deploymentv1.ReadRecordingRequest{Incident: s.state.Incident, Grant: g.ID, RequestId: "cli-" + rand.Text()})
	if err != nil {
		return "", err
	}
	part, err := stream.Recv() // before a file is made: the answer may be a refusal
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	f, err := newFile(save)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		if _, werr := f.Write(part.GetData()); werr != nil {
			return "", fmt.Errorf("write the recording: %w", werr)
		}
		if err != nil {
			return f.Name(), nil
		}
		if part, err = stream.Recv(); err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
	}
}

func newFile(save string) (*os.File, error) {
	if save == "" {
		return os.CreateTemp("", "epatch-recording-")
	}
	f, err := os.OpenFile(save, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, usage("%v", err)
	}
	return f, nil
}

func checkRecording(file string, anchors []recording.Checkpoint) (recording.Report, error) {
	f, err := os.Open(file)
	if err != nil {
		return recording.Report{}, usage("%v", err)
	}
	defer func() { _ = f.Close() }() // only read
	return recording.Verify(f, anchors)
}

// recordingWords says what the check found; the error is of a recording that is broken. The grant is what the history says, nil where
// there is no history.
func (a *app) recordingWords(r recording.Report, g *procedure.Grant) error {
	if a.opt.json {
		if err := a.out.jsonValue(map[string]any{
			"state": string(r.State), "first_bad_frame": r.FirstBad, "why": r.Why, "incident": r.Header.Incident, "grant": r.Header.Grant, "frames": r.Last.Frame,
			"proven_frame": r.Proven, "proven": r.HasProof, "bytes": r.Size, "sha256": r.SHA256.String(),
		}); err != nil {
			return err
		}
	} else {
		a.reportRecording(r, g)
	}
	if r.State != recording.Broken {
		return nil
	}
	return fail(exitUnverified, "the recording is broken: first bad frame %d: %s", r.FirstBad, r.Why).hint("keep what you have, and tell the arbitrators: a recording that was changed is evidence").
		hint("what stands before that frame: epatch replay-console --despite")
}

// sealedAs tells whether the history has sealed exactly these bytes.
func sealedAs(r recording.Report, g *procedure.Grant) bool {
	return g != nil && g.Recording != nil && g.Recording.GetSha256() == r.SHA256.String()
}

func (a *app) reportRecording(r recording.Report, g *procedure.Grant) {
	state := map[recording.State]styled{recording.Complete: good("complete"), recording.Incomplete: alert("incomplete"), recording.Broken: bad("broken")}[r.State]
	a.out.line("recording of %s in %s: %s, %s, %s", r.Header.Grant, r.Header.Incident, state, plural(int(r.Last.Frame), "frame", "frames"), plural(int(r.Size), "byte", "bytes"))
	a.out.field("session", "%s on %s, watched by %s, from %s, %s", r.Header.Subject, r.Header.Host, r.Header.Watcher, a.out.at(r.Header.StartedAt), span(r.EndedAt.Sub(r.Header.StartedAt)))
	a.out.field("sha256", "%s", r.SHA256.String())
	switch {
	case sealedAs(r, g):
		a.out.field("proof", "these bytes are the ones that the history has sealed at position %d; %s met", g.Sealed.Position, plural(len(g.Checkpoints), "checkpoint", "checkpoints"))
	case !r.HasProof:
		a.out.field("proof", "%s", alert("none: without checkpoints of a history a recording proves nothing"))
	case r.Proven == r.Last.Frame:
		a.out.field("proof", "every frame is covered by the history's checkpoints")
	default:
		a.out.field("proof", "the history's checkpoints cover it up to frame %d of %d", r.Proven, r.Last.Frame)
	}
	if r.State != recording.Complete {
		a.out.field("first bad", "frame %d: %s", r.FirstBad, r.Why)
	}
}

// play shows, lists or searches a recording that was checked.
func (a *app) play(ctx context.Context, p *playback, file string, report recording.Report) error {
	f, err := os.Open(file)
	if err != nil {
		return usage("%v", err)
	}
	defer func() { _ = f.Close() }() // only read
	r, err := recording.NewReader(f)
	if err == nil {
		switch {
		case p.search != "":
			err = a.searchRecording(r, p.search)
		case p.list:
			err = a.listRecording(r)
		case a.opt.json:
		default:
			err = a.playRecording(ctx, r, p)
		}
	}
	var bad *recording.FrameError
	if errors.As(err, &bad) && report.State == recording.Broken {
		return nil // that is said already
	}
	return err
}

func (a *app) searchRecording(r *recording.Reader, text string) error {
	n := 0
	for hit, err := range r.Search(text) {
		if err != nil {
			return err
		}
		n++
		if a.opt.json {
			err = a.out.jsonValue(map[string]any{"frame": hit.Frame, "seconds": hit.At.Sub(r.Header.StartedAt).Seconds(), "line": hit.Line})
		} else {
			a.out.line("%s  frame %d  %s", sinceStart0(hit.At.Sub(r.Header.StartedAt)), hit.Frame, hit.Line)
		}
		if err != nil {
			return err
		}
	}
	if n == 0 && !a.opt.json {
		a.out.line("%q is nowhere in it", text)
	}
	return nil
}

func (a *app) listRecording(r *recording.Reader) error {
	for f, err := range r.Frames() {
		if err != nil {
			return err
		}
		text := recording.Describe(f.Body)
		switch b := f.Body.(type) {
		case recording.Marker:
			text = "marker: " + b.Label
		case recording.Ack:
			continue
		}
		if text == "" {
			continue
		}
		if a.opt.json {
			err = a.out.jsonValue(map[string]any{"frame": f.Number, "seconds": f.At.Sub(r.Header.StartedAt).Seconds(), "text": text})
		} else {
			a.out.line("%s  frame %d  %s", sinceStart0(f.At.Sub(r.Header.StartedAt)), f.Number, text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sinceStart0 is a time since the start of a session as h:mm:ss.
func sinceStart0(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

func (a *app) playRecording(ctx context.Context, r *recording.Reader, p *playback) error {
	o := recording.Options{Speed: p.speed, MaxIdle: p.idle, Start: r.Header.StartedAt, Profile: recording.Replay}
	if p.speed <= 0 {
		o.Speed = -1
	}
	if a.out.tty {
		o.Profile = recording.Live
	}
	if p.from != "" {
		if d, err := time.ParseDuration(p.from); err == nil {
			o.From.After = d
		} else {
			o.From.Marker = p.from
		}
	}
	a.out.line("%s", dim(fmt.Sprintf("--- %s, terminal %dx%d; Ctrl-C ends it", r.Header.Grant, r.Header.Cols, r.Header.Rows)))
	err := recording.Play(ctx, r.Frames(), a.proc.Stdout, o)
	a.out.line("")
	if errors.Is(err, context.Canceled) {
		return nil // Ctrl-C is how it ends
	}
	a.out.line("%s", dim("--- end of the recording"))
	return err
}

func (a *app) recordingCheckCmd() *cobra.Command {
	var export string
	cmd := leaf("check FILE", "Check a recording without a server", `
Every frame continues the hash of the one before it; the first one that does not is named. With --history, an export of the incident's
history, and --keyring the checkpoints in it are compared too: without them a recording proves nothing.`, `
  epatch recording check G1.cast
  epatch recording check G1.cast --history e20261124.1.jsonl --keyring services.keys.json`,
		cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error {
			report, err := checkRecording(args[0], nil)
			if err != nil {
				return err
			}
			if export == "" {
				return a.recordingWords(report, nil)
			}
			return a.checkBy(export, args[0], report.Header)
		})
	cmd.Flags().StringVar(&export, "history", "", "export of the incident's history: epatch history export")
	return cmd
}

// checkBy checks a recording by an exported history.
func (a *app) checkBy(export, file string, of recording.Header) error {
	g, err := a.exportedGrant(export, of)
	if err != nil {
		return err
	}
	anchors, err := anchorsOf(g)
	if err != nil {
		return err
	}
	report, err := checkRecording(file, anchors)
	if err != nil {
		return err
	}
	if err := a.recordingWords(report, g); err != nil {
		return err
	}
	if g.Recording != nil && !sealedAs(report, g) {
		return fail(exitUnverified, "this is not the sealed recording: it hashes to %s, sealed is %s", short(report.SHA256.String()), short(g.Recording.GetSha256()))
	}
	return nil
}

// exportedGrant is what an exported history, which is verified here, says of a session.
func (a *app) exportedGrant(export string, of recording.Header) (*procedure.Grant, error) {
	if a.opt.keyring == "" {
		return nil, errNoKeyring()
	}
	keys, err := history.LoadKeyring(a.opt.keyring)
	if err != nil {
		return nil, usage("%v", err)
	}
	f, err := os.Open(export)
	if err != nil {
		return nil, usage("%v", err)
	}
	defer func() { _ = f.Close() }() // only read
	_, records, err := readExport(bufio.NewScanner(f))
	if err != nil {
		return nil, fail(exitUnverified, "%s: %v", export, err)
	}
	chain, st := history.NewChain(of.Incident, keys), procedure.NewState(of.Incident)
	for _, signed := range records[of.Incident] {
		entry, err := accept(chain, signed)
		if err == nil {
			err = st.Apply(entry.Record, entry.Hash)
		}
		if err != nil {
			return nil, fail(exitUnverified, "%s after position %d: %v", export, st.Position, err).hint("all that is wrong: epatch history check --file %s", export)
		}
	}
	g, ok := st.Grant(of.Grant)
	if !ok {
		return nil, fail(exitUnverified, "%s knows no grant %s of %s", export, of.Grant, of.Incident)
	}
	return g, nil
}
