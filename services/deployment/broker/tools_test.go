// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/services/deployment/broker"
	"cacert.org/emergency/services/deployment/broker/brokertest"
)

// crafted is a client that does what no stock client does.
type crafted struct {
	t        *testing.T
	client   *ssh.Client
	channel  ssh.Channel
	out, err *screen
}

// dial logs in with a credential.
func (r *rig) dial(k brokertest.Key) *crafted {
	r.t.Helper()
	client, err := r.tryDial(k.Login, ssh.PublicKeys(k.Signer))
	must(r.t, err)
	r.t.Cleanup(func() { client.Close() })
	return &crafted{t: r.t, client: client, out: newScreen(), err: newScreen()}
}

func (r *rig) tryDial(login string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	return ssh.Dial("tcp", r.Address, &ssh.ClientConfig{
		User: login, Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: patience,
	})
}

// shell asks for terminal and shell.
func (g *crafted) shell() {
	g.t.Helper()
	if !g.tryShell() {
		g.t.Fatalf("no shell: %s", g.err.String())
	}
}

func (g *crafted) tryShell() bool {
	g.t.Helper()
	channel, requests, err := g.client.OpenChannel("session", nil)
	must(g.t, err)
	go ssh.DiscardRequests(requests)
	g.channel = channel
	go copyTo(g.out, channel)
	go copyTo(g.err, channel.Stderr())
	ok, err := channel.SendRequest("pty-req", true, ssh.Marshal(struct {
		Term       string
		C, R, W, H uint32
		Modes      string
	}{"vt100", 80, 24, 0, 0, ""}))
	must(g.t, err)
	if !ok {
		g.t.Fatal("no terminal")
	}
	ok, err = channel.SendRequest("shell", true, nil)
	return err == nil && ok
}

func copyTo(s *screen, from interface{ Read([]byte) (int, error) }) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		_, _ = s.Write(buf[:n])
		if err != nil {
			return
		}
	}
}

// pass lets time pass, second by second, while the watcher shows signs of life and arms again in time.
func (r *rig) pass(e *eyes, d time.Duration) {
	r.t.Helper()
	for range int(d / time.Second) {
		must(r.t, e.Renew(false))
		r.Broker.Armed(brokertest.Ref, brokertest.Watcher, r.clock.Now())
		r.clock.Advance(time.Second)
		r.anchored()
	}
}

// anchored waits until no checkpoint is under way and everything is seen, since that takes time and the clock of the test does not.
func (r *rig) anchored() {
	r.t.Helper()
	r.status("settled", func(s broker.Status) bool { return s.UnanchoredSince.IsZero() && s.Seen == s.Offset })
}

// status waits until the first grant's session fulfils ok.
func (r *rig) status(what string, ok func(broker.Status) bool) {
	r.t.Helper()
	for late := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s, _ := r.Broker.Status(brokertest.Ref)
		if ok(s) {
			return
		}
		if time.Now().After(late) {
			r.t.Fatalf("not %s: %+v", what, s)
		}
	}
}

// verify checks the recording against the anchors that the history has.
func (r *rig) verify() recording.Report {
	r.t.Helper()
	var anchors []recording.Checkpoint
	for _, m := range events[broker.Mark](r) {
		if m.Kind == broker.MarkCheckpoint {
			anchors = append(anchors, recording.Checkpoint{Frame: m.Frame, Chain: m.Chain, Output: m.Offset, Bytes: m.Size})
		}
	}
	report, err := recording.Verify(bytes.NewReader(r.recordingFile()), anchors)
	must(r.t, err)
	return report
}

func (r *rig) recordingFile() []byte {
	r.t.Helper()
	data, err := os.ReadFile(r.Broker.RecordingPath(brokertest.Ref))
	must(r.t, err)
	return data
}

// recording is the output that was recorded.
func (r *rig) recording() string {
	r.t.Helper()
	reader, err := recording.NewReader(bytes.NewReader(r.recordingFile()))
	must(r.t, err)
	var text strings.Builder
	for f, err := range reader.Frames() {
		must(r.t, err)
		if out, ok := f.Body.(recording.Output); ok {
			text.Write(out.Data)
		}
	}
	return text.String()
}

// bodies are the frames of a kind that a watcher has seen.
func bodies[T recording.Body](s brokertest.Seen) []T {
	var all []T
	for _, f := range s.Frames {
		if x, ok := f.Body.(T); ok {
			all = append(all, x)
		}
	}
	return all
}

func refusals(s brokertest.Seen) int { return len(bodies[recording.Refused](s)) }
