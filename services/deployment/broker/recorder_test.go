// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/pkg/timer"
	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
)

// Recorder and anchors. That a damaged recording is found, byte by byte, is tested in pkg/recording.

// N11: a recorder that fails freezes the session at once and then ends it; it cannot be resumed, what was not recorded is
// shown to nobody, and the end says that there is no sealed recording.
func TestN11RecorderFailureEndsTheSession(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	c.typed("echo before-$((1+1))\n")
	e.sees("before-2")
	goOn := filepath.Join(t.TempDir(), "go-on")
	c.typed("while [ ! -e " + goOn + " ]; do sleep 0.05; done; echo after-$((1+1))\n") // so that it is output that finds the disk full
	e.sees("done; echo")
	fillDisk(t, r.Broker.RecordingPath(brokertest.Ref))
	must(t, os.WriteFile(goOn, nil, 0o600))
	if f := event[broker.Freezing](r, nil); f.Cause != broker.CauseRecorder {
		t.Errorf("%+v", f)
	}
	if err := r.resume(); err == nil {
		t.Error("resumed without a recorder")
	}
	r.clock.Advance(time.Minute + 2*time.Millisecond)
	end := e.ending()
	if end.Cause != broker.CauseGrace || end.Effect(broker.EffectRecording).Done || !end.Effect(broker.EffectHost).Done {
		t.Errorf("%+v", end)
	}
	if text := c.ends(); strings.Contains(text, "after-2") || strings.Contains(seenBy(e).Output, "after-2") {
		t.Error("output was shown that was not recorded")
	}
	if report := r.verify(); report.State == recording.Complete {
		t.Errorf("%+v", report)
	}
}

// N17: the same where nothing is written at that moment: the recording cannot be brought to the disk. It is not only a line in a
// log, and the session is not said to be recorded.
func TestN17RecorderFailureIsNotOnlyLogged(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	c.typed("echo before-$((1+1))\n")
	e.sees("before-2\r\nhere> ")
	fillDisk(t, r.Broker.RecordingPath(brokertest.Ref))
	for range 6 {
		must(t, e.Renew(false))
		r.clock.Advance(time.Second)
	}
	if f := event[broker.Freezing](r, nil); f.Cause != broker.CauseRecorder {
		t.Errorf("%+v", f)
	}
	r.clock.Advance(time.Minute + 2*time.Millisecond)
	if end := e.ending(); end.Effect(broker.EffectRecording).Done || end.Recording != "" {
		t.Errorf("%+v", end)
	}
	c.ends()
}

// slowDisk is a clock that lets the recording's writer wait, as a slow disk does, whenever it takes down what was typed.
type slowDisk struct {
	timer.Clock
	writing chan<- struct{} // told of each such wait
	until   <-chan struct{}
}

func (d slowDisk) Now() time.Time {
	callers := make([]uintptr, 16)
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers)])
	for f, more := frames.Next(); ; f, more = frames.Next() {
		if strings.HasSuffix(f.Function, "recording.(*Writer).Typed") {
			select {
			case d.writing <- struct{}{}:
			default:
			}
			<-d.until
		}
		if !more {
			return d.Clock.Now()
		}
	}
}

// The disk takes its time over what is typed, and the gate is shut meanwhile: it is in the recording and does not reach the target.
func TestFrozenWhileTheDiskIsSlow(t *testing.T) {
	t.Parallel()
	writing, until := make(chan struct{}, 1), make(chan struct{})
	r := newRig(t, func(c *broker.Config) { c.Clock = slowDisk{c.Clock, writing, until} })
	c, e := r.open()
	mark := filepath.Join(t.TempDir(), "mark")
	line := "touch " + mark + "\n"
	c.typed(line)
	<-writing
	frozen := make(chan struct{})
	go func() {
		defer close(frozen)
		r.freeze()
	}()
	r.status("frozen", func(s broker.Status) bool { return s.State == broker.StateFrozen })
	close(until)
	<-frozen
	r.status("discarded", func(s broker.Status) bool { return s.Discarded == int64(len(line)) })
	must(t, r.resume())
	c.typed("echo after-$((1+1))\n")
	e.sees("after-2")
	if _, err := os.Stat(mark); err == nil {
		t.Error("what was still being written when the gate was shut ran")
	}
}

// N14: the anchors are there, and they are the recording's; a log that does not take them is not overlooked.
func TestN14CheckpointsAreAnchored(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	for _, word := range []string{"one", "two", "three"} {
		c.typed("echo " + word + "-$((1+1))\n")
		e.sees(word + "-2")
		n := checkpoints(r)
		r.pass(e, 6*time.Second)
		for late := time.Now().Add(patience); checkpoints(r) == n; time.Sleep(time.Millisecond) {
			if time.Now().After(late) {
				t.Fatalf("no checkpoint after %s", word)
			}
		}
	}
	c.typed("exit\n")
	end := e.ending()
	report := r.verify()
	if report.State != recording.Complete || !report.HasProof || report.Last.Frame != end.Frame || report.Last.Chain != end.Chain || report.SHA256 != end.SHA256 {
		t.Errorf("%+v against %+v", report, end)
	}
}

func checkpoints(r *rig) int {
	n := 0
	for _, m := range events[broker.Mark](r) {
		if m.Kind == broker.MarkCheckpoint {
			n++
		}
	}
	return n
}

func TestN14WithoutAnchorFrozen(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	c.typed("echo before-$((1+1))\n")
	e.sees("before-2")
	r.pass(e, 6*time.Second)
	r.Rules.SetDown(true)
	c.typed("echo down-$((1+1))\n")
	e.sees("down-2\r\nhere> ") // the log may be away for a little while
	r.status("all seen", func(s broker.Status) bool { return s.Seen == s.Offset })
	for range 6 {
		must(t, e.Renew(false))
		r.clock.Advance(time.Second)
	}
	r.status("a checkpoint on its way", func(s broker.Status) bool { return !s.UnanchoredSince.IsZero() })
	for range 11 {
		must(t, e.Renew(false))
		r.clock.Advance(time.Second)
	}
	seen := e.state(broker.StateFrozen)
	if seen.Status.Cause != broker.CauseAnchor {
		t.Errorf("%+v", seen.Status)
	}
	r.Rules.SetDown(false)
	if f := event[broker.Freezing](r, nil); f.Cause != broker.CauseAnchor {
		t.Errorf("%+v", f)
	}
	r.anchored()
	must(t, e.Renew(false))
	must(t, r.resume()) // the log is back, and has what happened meanwhile
	c.typed("echo again-$((1+1))\n")
	e.sees("again-2")
}

// N18: no recorder, no session; and the target hears nothing of it.
func TestN18NoSessionWithoutRecorder(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	k := r.fetch()
	// Between the watcher's arming, which looks at the recorder, and the subject's coming.
	must(t, os.RemoveAll(filepath.Join(r.Dir, "recordings")))
	must(t, os.WriteFile(filepath.Join(r.Dir, "recordings"), nil, 0o600))
	if text := r.ssh(k).ends(); strings.Contains(text, "here>") {
		t.Error(text)
	}
	if end := e.ending(); end.Cause != broker.CauseOpen || end.Opened {
		t.Errorf("%+v", end)
	}
	if calls := r.Host.Calls(); slices.Contains(calls, "open") {
		t.Errorf("the host was asked: %v", calls)
	}
	_, err := r.Broker.Watch(t.Context(), broker.Ref{Incident: "e20261124.9", Grant: "G1"}, brokertest.Watcher, broker.ModeWatcher)
	if err == nil {
		t.Error("watching begins without a recorder")
	}
	refusedBy(t, r.Broker.Ready(), broker.ReasonRecorder)
}

// N21: a recording proves nothing by existing. One that was written anew, consistent in itself, is not what the anchors say.
func TestN21ForgedRecordingIsFound(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	c.typed("echo guilty-$((1+1))\n")
	e.sees("guilty-2")
	r.pass(e, 6*time.Second)
	event(r, func(m broker.Mark) bool { return m.Kind == broker.MarkCheckpoint })
	c.typed("exit\n")
	e.ending()
	if report := r.verify(); report.State != recording.Complete || !report.HasProof {
		t.Fatalf("%+v", report)
	}
	reader, err := recording.NewReader(bytes.NewReader(r.recordingFile()))
	must(t, err)
	dir := filepath.Join(t.TempDir(), "forged")
	w, err := recording.Create(recording.Config{
		Dir: dir, Name: "x.cast", Header: reader.Header, Limit: recording.MinLimit, Now: r.clock.Now, Salt: strings.NewReader(""),
	})
	must(t, err)
	for range 20 {
		_, err = w.Output([]byte("$ echo innocent\r\n"))
		must(t, err)
	}
	_, err = w.End("SUBJECT_EXIT")
	must(t, err)
	forged, err := os.ReadFile(filepath.Join(dir, "x.cast"))
	must(t, err)
	must(t, os.WriteFile(r.Broker.RecordingPath(brokertest.Ref), forged, 0o600))
	if report := r.verify(); report.State != recording.Broken {
		t.Errorf("%+v", report)
	}
}

// N22: what somebody has planted where the recording is to lie is neither followed nor written over.
func TestN22PlantedRecording(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	e := r.watch()
	precious := filepath.Join(t.TempDir(), "precious")
	must(t, os.WriteFile(precious, []byte("precious"), 0o600))
	must(t, os.Symlink(precious, r.Broker.RecordingPath(brokertest.Ref)))
	r.ssh(r.fetch()).ends()
	if end := e.ending(); end.Cause != broker.CauseOpen || end.Opened {
		t.Errorf("%+v", end)
	}
	if text, err := os.ReadFile(precious); err != nil || string(text) != "precious" {
		t.Errorf("%q %v", text, err)
	}
}

// N28: the broker gives no recording to anybody; the files are its own user's alone. Who may play one is decided, and recorded, where
// they are asked for (services/deployment). It filters no input by looking at it either: what a script does is done by the shell.
func TestN28RecordingsAreTheGatewaysAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	c.typed("exit\n")
	e.ending()
	path := r.Broker.RecordingPath(brokertest.Ref)
	for _, p := range []string{path, filepath.Dir(path)} {
		info, err := os.Stat(p)
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", p, info.Mode())
		}
	}
	_, err := r.Broker.Watch(t.Context(), brokertest.Ref, "ca-2", broker.ModeObserver)
	refusedBy(t, err, broker.ReasonGrantState)
}

// A password is typed with the echo off: its length and a commitment are kept, and nothing else.
func TestPasswordIsNotRecorded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	c.typed("stty -echo; echo prompt-$((1+1)); read secret; stty echo; echo length-${#secret}\n")
	e.sees("prompt-2")
	c.typed("hunter2-correct-horse\n")
	e.sees("length-21\r\nhere> ")
	c.typed("echo plainly\n")
	e.sees("plainly\r\nplainly")
	c.typed("exit\n")
	e.ending()
	file := string(r.recordingFile())
	if strings.Contains(file, "hunter2") || strings.Contains(file, "correct-horse") {
		t.Error("the password is in the recording")
	}
	if !strings.Contains(file, `"i", "echo plainly"`) {
		t.Error("what was echoed is not in the recording as input")
	}
}

// A recording that has reached its size freezes for the watcher's decision; nothing is lost by it.
func TestFullRecordingWaitsForTheWatcher(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	g := r.Grant(brokertest.Ref)
	g.Recording = recording.MinLimit
	r.Rules.Put(g)
	c, e := r.open()
	c.typed("seq 1 200000; echo done-$((1+1))\n")
	seen := e.state(broker.StateFrozen)
	if seen.Status.Cause != broker.CauseRecording {
		t.Fatalf("%+v", seen.Status)
	}
	event[broker.Freezing](r, nil)
	if err := r.Broker.Resume(t.Context(), brokertest.Ref, brokertest.Watcher, "", func(context.Context) error { return nil }); err == nil {
		t.Fatal("resumed without a decision")
	}
	must(t, r.Broker.Extend(brokertest.Ref, brokertest.Watcher, 0, 16<<20))
	must(t, r.resume())
	e.sees("done-2")
	c.typed("exit\n")
	e.ending()
	report := r.verify()
	if report.State != recording.Complete {
		t.Errorf("%+v", report)
	}
	text := r.recording()
	for _, line := range []string{"1\r\n2\r\n3\r\n", "\r\n99999\r\n100000\r\n", "\r\n199999\r\n200000\r\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("%q is missing", line)
		}
	}
}

// N31: a flood is slowed down, and neither cut nor killed: every byte is there, in order, before both.
func TestN31FloodLosesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	const lines = 500_000
	c.typed("seq 1 500000; echo done-$((1+1))\n")
	e.sees("done-2")
	c.shows("done-2")
	want := new(strings.Builder)
	for i := range lines {
		fmt.Fprintf(want, "%d\r\n", i+1)
	}
	for name, text := range map[string]string{"watcher": seenBy(e).Output, "subject": c.out.String(), "recording": r.recording()} {
		if !strings.Contains(text, want.String()) {
			t.Errorf("the %s misses some of it", name)
		}
	}
	if s := seenBy(e).Status; s.State != broker.StateLive {
		t.Errorf("%+v", s)
	}
}

// N31: where the watcher does not see it, no more is shown than the window, to anybody.
func TestN31BlindWatcherStopsTheFlood(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	c, e := r.open()
	e.Blind()
	c.typed("yes\n")
	e.until("a full window", func(s brokertest.Seen) bool { return len(s.Output) >= int(brokertest.Limits().Window) })
	must(t, e.Renew(false))
	r.clock.Advance(3*time.Second + 2*time.Millisecond)
	if f := event[broker.Freezing](r, nil); f.Cause != broker.CauseWindow || f.Mode != broker.FreezeProcess {
		t.Errorf("%+v", f)
	}
	now, _ := r.Broker.Status(brokertest.Ref)
	if now.Offset > now.Seen+brokertest.Limits().Window || now.State != broker.StateFrozen {
		t.Errorf("%+v", now)
	}
}
