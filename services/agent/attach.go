// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"

	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
)

// How often the service is asked for a sign of life, and how long the agent goes without before it takes the connection for
// lost: a session must not go on while nobody can end it.
const (
	signOfLife  = 500 * time.Millisecond
	lifeMissing = 3 * time.Second
	// firstLife is how long it waits for the first one: a service may hang before it has given any.
	firstLife = 10 * time.Second
)

// connection is one attachment to an instance of the service.
type connection struct {
	instance string
	stream   grpc.BidiStreamingClient[deploymentv1.AttachRequest, deploymentv1.AttachResponse]
	mu       sync.Mutex // one answer at a time
}

// attach does jobs until the connection ends. attached is called when a message came. A job belongs to the agent and not to
// the connection: when that breaks the job goes on, and its result is kept.
func (a *Agent) attach(ctx context.Context, instance string, jobs deploymentv1.AgentServiceClient, attached func()) error {
	a.one.Lock()
	a.resume(ctx)
	a.one.Unlock()
	connected, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := jobs.Attach(connected)
	if err != nil {
		return err
	}
	hello := &deploymentv1.AttachRequest{Message: &deploymentv1.AttachRequest_Hello{Hello: a.cfg.Name}, SignOfLifeMs: uint32(signOfLife.Milliseconds())}
	if err := stream.Send(hello); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var doing sync.WaitGroup
	c, slow := &connection{instance: instance, stream: stream}, make(chan *deploymentv1.AttachResponse)
	heard := false
	defer func() {
		if heard {
			a.linked(instance, false)
		}
		cancel(nil)
		close(slow)
		doing.Wait()
	}()
	doing.Go(func() {
		for asked := range slow {
			a.one.Lock() // also among the instances of the service
			a.answer(ctx, c, asked, cancel)
			a.one.Unlock()
		}
	})
	late := time.AfterFunc(firstLife, func() { cancel(errors.New("the service gives no sign of life")) })
	defer late.Stop()
	for {
		msg, err := stream.Recv()
		if err != nil {
			return errors.Join(err, context.Cause(connected))
		}
		attached()
		if !heard {
			heard = true
			a.linked(instance, true)
			doing.Go(func() { a.catchUp(connected, instance) })
		}
		j := msg.GetJob()
		switch {
		case j == nil:
			late.Reset(lifeMissing)
		case urgent(j.GetKind()):
			doing.Go(func() { a.answer(ctx, c, msg, cancel) })
		default:
			select {
			case slow <- msg:
			case <-connected.Done():
			}
		}
	}
}

// urgent tells which jobs do not wait until another is done.
func urgent(kind deploymentv1.JobKind) bool {
	return kind == deploymentv1.JobKind_JOB_KIND_FREEZE_SESSION || kind == deploymentv1.JobKind_JOB_KIND_THAW_SESSION || kind == deploymentv1.JobKind_JOB_KIND_END_ACCESS
}

// answer does a job, in the trace in which it is asked for, and sends what came of it. An answer that cannot be sent ends the connection.
func (a *Agent) answer(ctx context.Context, c *connection, asked *deploymentv1.AttachResponse, cut context.CancelCauseFunc) {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": asked.GetTraceparent()})
	d := a.do(ctx, c.instance, asked.GetJob())
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := d.send(c.stream); err != nil {
		cut(err)
	}
}

// Sizes of parts: how many files of a list, and bytes of a file, go into one message; both stay below what a server takes.
const (
	partSize = 2000
	partData = 256 << 10
)

// send answers a job: files and contents in parts if they were asked for, then the result.
func (d *done) send(stream grpc.BidiStreamingClient[deploymentv1.AttachRequest, deploymentv1.AttachResponse]) error {
	id := d.result.GetJobId()
	for files := d.files; len(files) > 0; {
		n := min(len(files), partSize)
		part := &deploymentv1.ManifestPart{JobId: id, Entries: files[:n]}
		files = files[n:]
		if err := stream.Send(&deploymentv1.AttachRequest{Message: &deploymentv1.AttachRequest_Manifest{Manifest: part}}); err != nil {
			return err
		}
	}
	for _, f := range d.contents {
		for rest, last := f.Data, false; !last; {
			n := min(len(rest), partData)
			last = n == len(rest)
			part := &deploymentv1.FilePart{JobId: id, Path: []byte(f.Path), Mode: f.Mode, Data: rest[:n], Last: last}
			rest = rest[n:]
			if err := stream.Send(&deploymentv1.AttachRequest{Message: &deploymentv1.AttachRequest_File{File: part}}); err != nil {
				return err
			}
		}
	}
	return stream.Send(&deploymentv1.AttachRequest{Message: &deploymentv1.AttachRequest_Result{Result: d.result}})
}
