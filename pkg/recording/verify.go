// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// State of a recording.
type State string

const (
	// Complete: every frame is good, the end frame is there, and no anchor contradicts.
	Complete State = "complete"
	// Incomplete: every frame is good, but the end frame is missing. It stays so for ever.
	Incomplete State = "incomplete"
	// Broken: a frame is bad, or is not what an anchor says.
	Broken State = "broken"
)

// Unmatched is an anchor that the recording does not match.
type Unmatched struct {
	Anchor Checkpoint
	Why    string
}

// Report is what the check of a recording found.
type Report struct {
	State State
	// FirstBad is the number of the first frame that is bad, or missing; without meaning if Complete. The header is frame 0.
	FirstBad uint64
	// Why it is bad, in words; empty if Complete.
	Why string

	Header  Header     // as far as it could be read
	Last    Checkpoint // of the last good frame
	EndedAt time.Time  // of the last good frame
	End     End        // if there is an end frame
	// Proven is the last frame that an anchor covers: up to there the recording is what it was at that time. HasProof says whether
	// there is one: without anchors a recording proves nothing (N21).
	Proven    uint64
	HasProof  bool
	Unmatched []Unmatched

	Size   int64 // of the whole file
	SHA256 Hash
}

// Verify checks a recording against its own chain and against the anchors, which are the checkpoints in the incident's events.
// The error is one of reading r; a bad recording is none.
func Verify(r io.Reader, anchors []Checkpoint) (Report, error) {
	c := check{anchors: slices.Clone(anchors)}
	slices.SortStableFunc(c.anchors, func(a, b Checkpoint) int { return cmp.Compare(a.Frame, b.Frame) })
	count := &counter{r: r}
	reader := newReader(count)
	err := reader.open()
	c.Header, c.EndedAt = reader.Header, reader.Header.StartedAt
	for err == nil {
		c.compare(reader.Last())
		var f Frame
		if f, err = reader.Next(); err == nil {
			c.EndedAt = f.At
			if end, ok := f.Body.(End); ok {
				c.End = end
			}
		}
	}
	if err := c.judge(reader, err); err != nil {
		return Report{}, err
	}
	if _, err := io.Copy(io.Discard, reader.lines); err != nil {
		return Report{}, fmt.Errorf("read recording: %w", err)
	}
	c.Size, c.SHA256 = count.n, Hash(reader.whole.Sum(nil))
	return c.Report, nil
}

// check is a report that is being made.
type check struct {
	Report
	anchors []Checkpoint // not reached yet, in order
}

// compare holds a frame to the anchors at it.
func (c *check) compare(at Checkpoint) {
	for len(c.anchors) > 0 && c.anchors[0].Frame <= at.Frame {
		if c.anchors[0] == at {
			if len(c.Unmatched) == 0 {
				c.Proven, c.HasProof = at.Frame, true
			}
		} else {
			c.Unmatched = append(c.Unmatched, Unmatched{Anchor: c.anchors[0], Why: difference(c.anchors[0], at)})
		}
		c.anchors = c.anchors[1:]
	}
}

func difference(anchor, at Checkpoint) string {
	switch {
	case anchor.Chain != at.Chain:
		return fmt.Sprintf("the recording has another frame %d, or others before it", anchor.Frame)
	case anchor.Output != at.Output:
		return fmt.Sprintf("it names %d bytes of output, the recording has %d there", anchor.Output, at.Output)
	default:
		return fmt.Sprintf("it names %d bytes of the file, the recording has %d there", anchor.Bytes, at.Bytes)
	}
}

// judge decides the state, from the error that ended the reading.
func (c *check) judge(reader *Reader, err error) error {
	c.Last = reader.Last()
	next := c.Last.Frame + 1
	missing := fmt.Sprintf("the recording has no frame %d", next)
	var bad *FrameError
	switch {
	case errors.As(err, &bad):
		c.broken(bad.Frame, bad.Why)
		missing = fmt.Sprintf("the recording is broken before it, at frame %d", bad.Frame)
	case !errors.Is(err, io.EOF):
		return err
	case reader.Ended():
		c.State = Complete
	default:
		c.State, c.FirstBad, c.Why = Incomplete, next, "the recording stops before it, without an end frame"
	}
	if len(c.Unmatched) > 0 {
		u := c.Unmatched[0]
		c.broken(u.Anchor.Frame, "it is not what the checkpoint in the incident's events says: "+u.Why)
	}
	for _, a := range c.anchors {
		c.Unmatched = append(c.Unmatched, Unmatched{Anchor: a, Why: missing})
	}
	if len(c.anchors) > 0 && c.State != Broken {
		c.broken(next, fmt.Sprintf("it is missing, though a checkpoint in the incident's events is of frame %d", c.anchors[0].Frame))
	}
	return nil
}

// broken notes the first bad frame.
func (c *check) broken(frame uint64, why string) {
	c.State, c.FirstBad, c.Why = Broken, frame, why
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
