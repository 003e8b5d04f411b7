// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/grpc"

	"cacert.org/emergency/pkg/artefacts"
	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/recording"
	"cacert.org/emergency/pkg/service"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
	"cacert.org/emergency/services/deployment/broker"
)

// Recordings of sessions. The broker writes them; here they are held against the checkpoints in the history, stored for ever
// when the access is sealed, and handed out to who may see them.

// recordingType is the media type of a recording.
const recordingType = "application/x-asciicast"

// errNoRecording: there is none of this session, neither stored nor in the broker's folder.
var errNoRecording = errors.New("there is no recording")

// beforeSeal checks a recording against the history's checkpoints and stores it.
func (s *Server) beforeSeal(ctx context.Context, st *procedure.State, grant string) (procedure.Facts, error) {
	g, ok := st.Grant(grant)
	if !ok {
		return procedure.Facts{}, nil
	}
	f, err := s.recorded(ctx, st.Incident, g)
	if errors.Is(err, errNoRecording) {
		s.Log.ErrorContext(ctx, "a session has no recording", "incident", st.Incident, "grant", g.ID)
		return sealFacts(&procedure.RecordingFacts{State: emergencyv1.RecordingState_RECORDING_STATE_MISSING}), nil
	}
	if err != nil {
		return procedure.Facts{}, err
	}
	defer func() { _ = f.Close() }() // opened for reading only
	anchors, err := recording.Anchors(g)
	if err != nil {
		return procedure.Facts{}, err
	}
	report, err := recording.Verify(f, anchors)
	if err != nil {
		return procedure.Facts{}, err
	}
	seen, err := watched(f)
	if err != nil {
		return procedure.Facts{}, err
	}
	x := &procedure.RecordingFacts{
		State: recordingState(report.State), WatchedPermille: seen, FirstBadFrame: report.FirstBad,
		End: &emergencyv1.RecordingCheckpoint{
			Frame: report.Last.Frame, ChainHash: report.Last.Chain.String(), OutputOffset: uint64(report.Last.Output), Size: uint64(report.Last.Bytes),
		},
	}
	if report.State == recording.Complete {
		x.FirstBadFrame = 0
	} else {
		s.Log.ErrorContext(ctx, "a session's recording is not complete", "incident", st.Incident, "grant", g.ID, "state", string(report.State), "frame", report.FirstBad, "why", report.Why)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return procedure.Facts{}, fmt.Errorf("the recording: %w", err)
	}
	x.Artefact, err = s.keep(ctx, f, recordingType)
	if err == nil && x.Artefact.GetSha256() != report.SHA256.String() {
		return procedure.Facts{}, service.Away("the recording of %s changed while it was checked", g.ID)
	}
	return sealFacts(x), err
}

func sealFacts(x *procedure.RecordingFacts) procedure.Facts {
	return procedure.Facts{Console: &procedure.ConsoleFacts{Recording: x}}
}

func recordingState(st recording.State) emergencyv1.RecordingState {
	switch st {
	case recording.Complete:
		return emergencyv1.RecordingState_RECORDING_STATE_COMPLETE
	case recording.Incomplete:
		return emergencyv1.RecordingState_RECORDING_STATE_INCOMPLETE
	case recording.Broken:
	}
	return emergencyv1.RecordingState_RECORDING_STATE_BROKEN
}

// watched is the share of the output that the watcher's screen has shown, in 1/1000, as the recording has it.
func watched(f io.ReadSeeker) (uint32, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("the recording: %w", err)
	}
	r, err := recording.NewReader(f)
	if err != nil {
		return 0, nil //nolint:nilerr // what has no head shows nothing; that it is broken is told by Verify
	}
	var seen int64
	for frame, err := range r.Frames() {
		if err != nil {
			break
		}
		if ack, ok := frame.Body.(recording.Ack); ok {
			seen = max(seen, ack.Offset)
		}
	}
	output := r.Last().Output
	if output <= 0 || seen >= output {
		return 1000, nil
	}
	return uint32(max(0, seen) * 1000 / output), nil
}

// recorded opens a session's recording: the sealed one, or else what the broker has written.
func (s *Server) recorded(ctx context.Context, incident string, g *procedure.Grant) (*os.File, error) {
	if digest := g.Recording.GetSha256(); digest != "" {
		f, err := s.stored(ctx, digest)
		if err == nil || !errors.Is(err, artefacts.ErrNotFound) && !errors.Is(err, artefacts.ErrCorrupt) {
			return f, err
		}
		s.Log.ErrorContext(ctx, "a sealed recording is not in the store any more", "incident", incident, "grant", g.ID, "error", err)
	}
	f, err := os.OpenInRoot(s.access.Recordings, recordingName(incident, g.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoRecording
	}
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() > maxRecording {
		err = fmt.Errorf("the recording is larger than %d bytes", int64(maxRecording))
	}
	if err != nil {
		_ = f.Close() // it is not used
		return nil, err
	}
	return f, nil
}

// storedAtOnce is how many stored recordings are brought at the same time: each is whole in memory until its digest was computed.
const storedAtOnce = 2

// stored brings a stored recording into a file without a name, so that who reads it, however slowly, holds no memory.
func (s *Server) stored(ctx context.Context, digest string) (*os.File, error) {
	if err := s.bringing.Acquire(ctx, 1); err != nil {
		return nil, service.Away("recordings: others are being brought: %w", err)
	}
	defer s.bringing.Release(1)
	b, err := s.Artefacts.Get(ctx, digest)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.access.Recordings, 0o700); err != nil {
		return nil, fmt.Errorf("a file for the recording: %w", err)
	}
	f, err := os.CreateTemp(s.access.Recordings, ".read-")
	if err != nil {
		return nil, fmt.Errorf("a file for the recording: %w", err)
	}
	err = os.Remove(f.Name()) // nobody else opens it, and it goes with this process
	if err == nil {
		_, err = f.Write(b)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, fmt.Errorf("a file for the recording: %w", errors.Join(err, f.Close()))
	}
	return f, nil
}

// maxRecording is more than a recording can have, extended once.
const maxRecording = artefacts.DefaultLimit

// recordingName is how the broker calls the recording of a grant.
func recordingName(incident, grant string) string {
	return filepath.Base(incident + "." + grant + ".cast")
}

// partSize is how many bytes of a recording go into one message.
const partSize = 64 << 10

// ReadRecording hands a recording out, once it is recorded who plays it (N28, N32).
func (s *Server) ReadRecording(req *deploymentv1.ReadRecordingRequest, stream grpc.ServerStreamingServer[deploymentv1.ReadRecordingResponse]) error {
	ctx := stream.Context()
	to, err := s.keeper(ctx, broker.Ref{Incident: req.GetIncident(), Grant: req.GetGrant()})
	if err != nil {
		return err
	}
	if to != nil {
		return to.readRecording(ctx, req, stream)
	}
	play := &emergencyv1.PlayRecordingRequest{Meta: &emergencyv1.CommandMeta{Incident: req.GetIncident(), RequestId: req.GetRequestId()}, Grant: req.GetGrant(), Person: req.GetPerson()}
	if _, err := s.Do(ctx, play, procedure.Facts{}); err != nil {
		return err
	}
	st, err := s.Dispatch.State(ctx, req.GetIncident())
	if err != nil {
		return service.Retryable(err)
	}
	g, ok := st.Grant(req.GetGrant())
	if !ok {
		return refused(procedure.NotFound, procedure.ReasonGrant, "G4", "there is no such grant", "name one that the incident has")
	}
	f, err := s.recorded(ctx, st.Incident, g)
	if errors.Is(err, errNoRecording) {
		return refused(procedure.NotFound, procedure.ReasonEntry, "4.4", "the recording of "+g.ID+" is not kept here", "ask the operator of the deployment service, whose folder it was written to")
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // opened for reading only
	part := &deploymentv1.ReadRecordingResponse{}
	for _, c := range g.Checkpoints {
		part.Anchors = append(part.Anchors, &emergencyv1.RecordingCheckpoint{Frame: c.Frame, ChainHash: c.ChainHash, OutputOffset: c.OutputOffset, Size: c.Size})
	}
	for first := true; ; first = false {
		b := make([]byte, partSize) // a message that was sent may still be in use
		n, err := f.Read(b)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("the recording: %w", err)
		}
		if n == 0 && !first {
			return nil
		}
		part.Data = b[:n]
		if err := stream.Send(part); err != nil {
			return err
		}
		part = &deploymentv1.ReadRecordingResponse{}
	}
}
