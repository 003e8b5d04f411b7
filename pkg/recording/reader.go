// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"time"
)

// FrameError names the first frame of a recording that is bad, and why.
type FrameError struct {
	Frame uint64 // 0 is the header
	Why   string
}

func (e *FrameError) Error() string { return fmt.Sprintf("frame %d is bad: %s", e.Frame, e.Why) }

// Reader reads a recording and checks the chain as it goes: it never returns a frame that is bad, or that stands behind one.
// It takes a bounded amount of memory, whatever the bytes are.
type Reader struct {
	Header Header

	lines *bufio.Reader
	whole hash.Hash // of what was read
	long  []byte    // a line that is longer than the buffer of lines
	buf   []byte    // hash and line, to be hashed
	last  Checkpoint
	ms    int64
	sum   totals
	held  []byte // of an unfinished character
	raw   []byte // of a B frame whose o is to follow
	isRaw bool
	ended bool
	err   error
}

type totals struct{ input, discarded int64 }

// NewReader reads the header. Errors are those of r, or *FrameError.
func NewReader(r io.Reader) (*Reader, error) {
	out := newReader(r)
	if err := out.open(); err != nil {
		return nil, err
	}
	return out, nil
}

func newReader(r io.Reader) *Reader {
	out := &Reader{whole: sha256.New()}
	out.lines = bufio.NewReaderSize(io.TeeReader(r, out.whole), 16<<10)
	return out
}

// open reads the header.
func (r *Reader) open() error {
	line, err := r.line()
	if err != nil {
		return err
	}
	if len(line) == 0 {
		return r.bad("the file is empty")
	}
	header, err := decodeHeader(line)
	if err != nil {
		return r.bad("%v", err)
	}
	r.Header = header
	return r.hashLine(0, firstHash(header, line), int64(len(line)))
}

// Next returns the next frame. It returns io.EOF behind the last whole frame; see Ended. Other errors are those of the source, or
// *FrameError.
func (r *Reader) Next() (Frame, error) {
	if r.err != nil {
		return Frame{}, r.err
	}
	f, err := r.next()
	r.err = err
	return f, err
}

// Ended tells whether the end frame was read: only then the recording is complete.
func (r *Reader) Ended() bool { return r.ended }

// Last is the checkpoint of the last frame that was read.
func (r *Reader) Last() Checkpoint { return r.last }

func (r *Reader) next() (Frame, error) {
	number := r.last.Frame + 1
	line, err := r.line()
	if err != nil {
		return Frame{}, err
	}
	switch {
	case len(line) == 0:
		return Frame{}, io.EOF
	case r.ended:
		return Frame{}, r.bad("something stands behind the end frame")
	}
	r.buf = append(append(r.buf[:0], r.last.Chain[:]...), line...)
	chain := sha256.Sum256(r.buf)
	line = r.buf[len(chain):]
	before := r.last
	if err := r.hashLine(number, chain, int64(len(line))); err != nil {
		return Frame{}, err
	}
	interval, body, err := decodeLine(line)
	if err == nil {
		r.ms += interval
		body, err = r.body(body)
	}
	if err == nil && r.ms > maxMillis {
		err = errors.New("the time is beyond all bounds")
	}
	if err != nil {
		r.last = before // the frame is no good though its hash is
		return Frame{}, r.bad("%v", err)
	}
	at := r.Header.StartedAt.Add(time.Duration(r.ms) * time.Millisecond)
	return Frame{Number: number, At: at, Output: before.Output, Bytes: r.last.Bytes, Body: body}, nil
}

// maxMillis is a hundred years.
const maxMillis = 100 * 366 * 24 * 3600 * 1000

// line reads one line with its newline, valid until the next; nothing is the end of the file.
func (r *Reader) line() ([]byte, error) {
	r.long = r.long[:0]
	for {
		part, err := r.lines.ReadSlice('\n')
		whole := part
		if len(r.long) > 0 || errors.Is(err, bufio.ErrBufferFull) {
			r.long = append(r.long, part...)
			whole = r.long
		}
		switch {
		case len(whole) > maxLine:
			return nil, r.bad("a line is longer than %d bytes", maxLine)
		case err == nil:
			return whole, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case !errors.Is(err, io.EOF):
			return nil, fmt.Errorf("read recording: %w", err)
		case len(whole) > 0:
			return nil, r.bad("the file ends within it")
		default:
			return nil, nil
		}
	}
}

// hashLine reads the comment behind a frame and takes the frame for good if it is the one that belongs there.
func (r *Reader) hashLine(number uint64, chain Hash, size int64) error {
	want := appendHashLine(nil, number, chain)
	line, err := r.line()
	switch {
	case err != nil:
		return err
	case len(line) == 0:
		return r.bad("the file ends within it")
	case !bytes.Equal(line, want):
		return r.bad("its hash does not continue the chain")
	}
	r.last.Frame, r.last.Chain = number, chain
	r.last.Bytes += size + int64(len(want))
	return nil
}

// bad is an error of the frame that is being read.
func (r *Reader) bad(why string, args ...any) error {
	number := r.last.Frame + 1
	if r.last.Bytes == 0 {
		number = 0
	}
	return &FrameError{Frame: number, Why: fmt.Sprintf(why, args...)}
}

// body counts what a frame says and makes output of the frames that hold bytes.
func (r *Reader) body(b Body) (Body, error) {
	if out, ok := b.(Output); ok {
		return r.output(out.Data)
	}
	if r.isRaw {
		return nil, errors.New("the display form of the bytes before is missing")
	}
	switch b := b.(type) {
	case raw:
		r.raw, r.isRaw = b.Data, true
		r.last.Output += int64(len(b.Data))
		return Output(b), nil
	case held:
		r.held = append(bytes.Clone(r.held), b.Data...)
		if len(b.Data) == 0 || unfinished(r.held) != len(r.held) {
			return nil, errors.New("its bytes do not begin a character")
		}
		r.last.Output += int64(len(b.Data))
		return Output(b), nil
	case Typed:
		r.sum.input += int64(b.Length)
		if b.Length < 0 {
			return nil, errors.New("a length is negative")
		}
	case Discarded:
		r.sum.discarded += b.Bytes
	case End:
		want := End{
			Reason: b.Reason, Frames: r.last.Frame, Output: r.last.Output, Input: b.Input, Discarded: r.sum.discarded,
		}
		if b != want || b.Input < r.sum.input {
			return nil, errors.New("its totals are not those of the frames")
		}
		r.ended = true
	}
	return b, nil
}

// output is what an o frame adds to what is known already.
func (r *Reader) output(text []byte) (Body, error) {
	known := r.held
	r.held = nil
	if r.isRaw {
		if !bytes.Equal(display(append(known, r.raw...)), text) {
			return nil, errors.New("what it shows is not what the bytes before are")
		}
		r.raw, r.isRaw = nil, false
		return Output{}, nil
	}
	fresh, ok := bytes.CutPrefix(text, known)
	if !ok {
		return nil, errors.New("it does not go on with the character that was begun")
	}
	r.last.Output += int64(len(fresh))
	return Output{Data: fresh}, nil
}

// Frames iterates over the frames that are left. It ends behind the last whole frame, or with an error.
func (r *Reader) Frames() iter.Seq2[Frame, error] {
	return func(yield func(Frame, error) bool) {
		for {
			f, err := r.Next()
			if errors.Is(err, io.EOF) || !yield(f, err) || err != nil {
				return
			}
		}
	}
}
