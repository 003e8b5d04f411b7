// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
)

// agentEnd is an agent's end of a stream, without a network.
type agentEnd struct {
	grpc.BidiStreamingServer[deploymentv1.AttachRequest, deploymentv1.AttachResponse]
	sent chan *deploymentv1.AttachResponse
}

func (s *agentEnd) Send(m *deploymentv1.AttachResponse) error {
	s.sent <- m
	return nil
}

// served is an agent that is attached, and what its stream's handler returned.
type served struct {
	*testing.T
	*attached
	stream *agentEnd
	in     chan received
	ended  chan error
}

func serveAgent(t *testing.T, beat time.Duration) *served {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	s := &served{
		T: t, stream: &agentEnd{sent: make(chan *deploymentv1.AttachResponse, 100)}, in: make(chan received), ended: make(chan error, 1),
		attached: &attached{agentID: agentID{hostAgent, "www1"}, requests: make(chan *request), urgent: make(chan *request), gone: ctx.Done(), end: cancel, beat: beat},
	}
	go func() { s.ended <- s.serve(ctx, s.stream, s.in) }()
	return s
}

func (s *served) ask(id string, kind deploymentv1.JobKind) *request {
	s.Helper()
	req := &request{ctx: s.Context(), job: &deploymentv1.Job{Id: id, Kind: kind}, reply: make(chan *answer, 1)}
	queue := s.requests
	if urgent(kind) {
		queue = s.urgent
	}
	queue <- req
	if got := (<-s.stream.sent).GetJob().GetId(); got != id {
		s.Fatalf("sent job %q, want %q", got, id)
	}
	return req
}

func (s *served) result(id string) {
	s.in <- received{msg: &deploymentv1.AttachRequest{Message: &deploymentv1.AttachRequest_Result{Result: &deploymentv1.JobResult{JobId: id, Ok: true}}}}
}

func (s *served) file(id, path string, data string, last bool) {
	part := &deploymentv1.FilePart{JobId: id, Path: []byte(path), Mode: "100644", Data: []byte(data), Last: last}
	s.in <- received{msg: &deploymentv1.AttachRequest{Message: &deploymentv1.AttachRequest_File{File: part}}}
}

const (
	slowKind = deploymentv1.JobKind_JOB_KIND_READ_FILES
	fastKind = deploymentv1.JobKind_JOB_KIND_FREEZE_SESSION
)

// TestUrgentJobsDoNotWait: a freeze is sent while another job is being done, each answer reaches its own caller, and a second
// slow job waits for the first.
func TestUrgentJobsDoNotWait(t *testing.T) {
	t.Parallel()
	s := serveAgent(t, 0)
	slow := s.ask("e20261124.1/9", slowKind)
	fast := s.ask("freeze.1", fastKind)
	other := s.ask("freeze.2", fastKind)
	next := &request{ctx: t.Context(), job: &deploymentv1.Job{Id: "next", Kind: slowKind}, reply: make(chan *answer, 1)}
	go func() { s.requests <- next }()
	s.file("e20261124.1/9", "www/a", "one ", false)
	s.result("freeze.2")
	s.file("e20261124.1/9", "www/a", "two", true)
	s.result("freeze.1")
	for id, req := range map[string]*request{"freeze.1": fast, "freeze.2": other} {
		if got := <-req.reply; got.GetJobId() != id || len(got.Contents) != 0 {
			t.Errorf("answer %v for %s", got, id)
		}
	}
	if n := len(s.stream.sent); n != 0 {
		t.Errorf("%d jobs were sent while the slow one was being done", n)
	}
	s.file("e20261124.1/9", "www/b", "", true)
	s.result("e20261124.1/9")
	if got := <-slow.reply; len(got.Contents) != 2 || string(got.Contents[0].Data) != "one two" || got.Contents[1].Path != "www/b" {
		t.Errorf("contents %+v", got.Contents)
	}
	if got := (<-s.stream.sent).GetJob().GetId(); got != "next" {
		t.Errorf("sent %q", got)
	}
}

// TestSameJobTwice: a job that is being done is not sent again; its second caller may ask once more.
func TestSameJobTwice(t *testing.T) {
	t.Parallel()
	s := serveAgent(t, 0)
	first := s.ask("end.1", fastKind)
	second := &request{ctx: t.Context(), job: first.job, reply: make(chan *answer, 1)}
	s.urgent <- second
	if got := <-second.reply; got.GetOk() || got.GetErrorCode() != "UNAVAILABLE" {
		t.Errorf("answer %v", got)
	}
	s.result("end.1")
	if got := <-first.reply; !got.GetOk() {
		t.Errorf("answer %v", got)
	}
}

// TestSignsOfLife are given to an agent that asked for them, also while it does a job.
func TestSignsOfLife(t *testing.T) {
	t.Parallel()
	s := serveAgent(t, minBeat)
	for range 2 {
		if m := <-s.stream.sent; m.GetJob() != nil {
			t.Fatalf("sent %v", m)
		}
	}
	req := &request{ctx: t.Context(), job: &deploymentv1.Job{Id: "slow", Kind: slowKind}, reply: make(chan *answer, 1)}
	s.requests <- req
	for jobs, beats := 0, 0; jobs == 0 || beats < 2; {
		if m := <-s.stream.sent; m.GetJob() != nil {
			jobs++
		} else if jobs > 0 {
			beats++
		}
	}
	s.in <- received{err: io.EOF}
	if err := <-s.ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

// TestPartsThatCannotBe end the connection.
func TestPartsThatCannotBe(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(s *served){
		"of a job that nobody asked for": func(s *served) { s.file("other", "a", "x", true) },
		"of a file in the middle of another": func(s *served) {
			s.file("job", "a", "x", false)
			s.file("job", "b", "x", true)
		},
		"without an end": func(s *served) {
			s.file("job", "a", "x", false)
			s.result("job")
		},
		"too many": func(s *served) {
			s.file("job", "a", strings.Repeat("x", maxContents), true)
			s.file("job", "b", "x", true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveAgent(t, 0)
			s.ask("job", slowKind)
			send(s)
			if err := <-s.ended; err == nil || errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}
