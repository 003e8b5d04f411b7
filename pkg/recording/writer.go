// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// MinLimit is the least a recording may be allowed.
	MinLimit = 1 << 20
	// reserve is what output and input must leave, so that there is room to say why it stopped; lastReserve is what all must
	// leave for the end.
	reserve     = 256 << 10
	lastReserve = 16 << 10
)

// LimitError says that a frame was not written because the file would have come too near its limit. It is told before the
// limit is reached, the recording is whole and can be gone on with after Extend, and it can be ended in any case: freeze the
// session and ask the watcher.
type LimitError struct{ Size, Limit int64 }

func (e *LimitError) Error() string {
	return fmt.Sprintf("the recording has %d bytes and must not exceed %d: extend it or end the session", e.Size, e.Limit)
}

// ErrEnded is returned by every call after End or Close.
var ErrEnded = errors.New("recording: it has ended")

// file is what a recording is written to: an *os.File.
type file interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

// Seal is what End returns.
type Seal struct {
	Checkpoint      // of the end frame
	SHA256     Hash // of the whole file
}

// Writer writes one recording. It may be used by several goroutines at once; frames stand in the order of the calls. Every
// call writes through to the operating system; Checkpoint and End to the disk. Any error but *LimitError and a wrong argument
// is for good: the recording is broken and every later call returns it too.
type Writer struct {
	now   func() time.Time
	salt  io.Reader
	start time.Time

	syncing sync.Mutex // so that the file is not closed under a Checkpoint; taken behind mu, if both are

	mu     sync.Mutex
	file   file
	whole  hash.Hash // of the file
	broken error
	limit  int64
	buf    []byte // lines of the call under way
	ms     int64  // its time, since the start
	sum    hash.Hash
	state  writerState
	echo   Echo
}

// writerState is what a call changes if it is written, and leaves if it is not.
type writerState struct {
	frame     uint64
	chain     Hash
	bytes     int64
	output    int64
	input     int64
	discarded int64
	ms        int64  // of the last frame since the start
	held      []byte // bytes of an unfinished character, in an H frame already
}

func newWriter(cfg Config, f file, header []byte) *Writer {
	w := &Writer{now: cfg.Now, salt: cfg.Salt, start: cfg.Header.StartedAt, file: f, whole: sha256.New(), sum: sha256.New(), limit: cfg.Limit}
	w.state.chain = firstHash(cfg.Header, header)
	w.buf = appendHashLine(append(w.buf, header...), 0, w.state.chain)
	w.state.bytes = int64(len(w.buf))
	w.broken = w.flush()
	return w
}

// Output records what the target wrote and returns how much that is in all. Record it before it is shown to anyone. What of
// the input it echoes is recorded as plain input behind it.
func (w *Writer) Output(p []byte) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.write(reserve, func(s *writerState) error {
		for rest := p; len(rest) > 0; {
			n := min(len(rest), chunk)
			if n < len(rest) {
				n -= unfinished(rest[:n])
			}
			if err := w.output(s, rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	})
	if err != nil {
		return w.state.output, err
	}
	if parts := w.echo.Seen(p); len(parts) > 0 {
		err = w.write(lastReserve, func(s *writerState) error { return w.parts(s, parts) })
		if limit := (*LimitError)(nil); errors.As(err, &limit) {
			err = nil // the text stays a commitment; the output, which is what matters, is recorded
		}
	}
	return w.state.output, err
}

// output adds the frames for at most a chunk.
func (w *Writer) output(s *writerState, p []byte) error {
	all := p
	if len(s.held) > 0 {
		all = slices.Concat(s.held, p)
	}
	body := all[:len(all)-unfinished(all)]
	s.output += int64(len(p))
	if len(body) == 0 { // still the same character
		s.held = bytes.Clone(all)
		return w.add(s, held{Data: p})
	}
	fresh, rest := body[len(s.held):], all[len(body):]
	s.held = bytes.Clone(rest) // of at most three bytes; what it is cut from is the caller's
	if !utf8.Valid(body) {
		if err := w.add(s, raw{Data: fresh}); err != nil {
			return err
		}
		body = display(body)
	}
	if err := w.add(s, Output{Data: body}); err != nil || len(rest) == 0 {
		return err
	}
	return w.add(s, held{Data: rest})
}

// Typed records what a person typed and is about to be forwarded: keys as they are, text as length and commitment.
func (w *Writer) Typed(by string, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	parts := w.echo.Typed(by, p)
	err := w.write(reserve, func(s *writerState) error {
		s.input += int64(len(p))
		return w.parts(s, parts)
	})
	if err != nil {
		w.echo = Echo{} // it is not forwarded, so no echo is to be waited for
	}
	return err
}

func (w *Writer) parts(s *writerState, parts []Part) error {
	for _, p := range parts {
		var body Body = Input{Text: string(display(p.Text))}
		if p.Kind == Secret {
			salt := make([]byte, 32)
			if _, err := io.ReadFull(w.salt, salt); err != nil {
				return fmt.Errorf("draw a salt: %w", err)
			}
			body = Typed{By: clip(p.By), Length: len(p.Text), Commitment: sha256.Sum256(append(salt, p.Text...))}
		}
		if err := w.add(s, body); err != nil {
			return err
		}
	}
	return nil
}

// Resize records a new size of the subject's terminal.
func (w *Writer) Resize(cols, rows int) error {
	if err := checkSize(cols, rows); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	return w.note(Resize{Cols: cols, Rows: rows}, "")
}

// Refused records a request that was refused (N1, N2, N27: each of them, one by one).
func (w *Writer) Refused(request, reason string) error {
	return w.note(Refused{Request: clip(request), Reason: clip(reason)}, "")
}

// Ack records that a watcher's terminal has shown the output up to offset.
func (w *Writer) Ack(by string, offset int64) error {
	return w.note(Ack{By: clip(by), Offset: offset}, "")
}

// Freeze records that the session stands still, why, and how far.
func (w *Writer) Freeze(cause, mode string) error {
	b := Frozen{Cause: clip(cause), Mode: clip(mode)}
	return w.note(b, Describe(b))
}

// Thaw records that the session goes on.
func (w *Writer) Thaw(by, reason string) error {
	b := Thawed{By: clip(by), Reason: clip(reason)}
	return w.note(b, Describe(b))
}

// Note records a remark of the watcher, as a marker too.
func (w *Writer) Note(by, text string) error {
	b := Note{By: clip(by), Text: clip(text)}
	return w.note(b, Describe(b))
}

// Takeover records that by takes the keyboard or gives it back.
func (w *Writer) Takeover(by string, on bool, reason string) error {
	b := Takeover{By: clip(by), On: on, Reason: clip(reason)}
	return w.note(b, Describe(b))
}

// Discarded records that typed bytes were thrown away (N5, N8).
func (w *Writer) Discarded(bytes int64, cause string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.write(lastReserve, func(s *writerState) error {
		s.discarded += bytes
		return w.add(s, Discarded{Bytes: bytes, Cause: clip(cause)})
	})
}

// Extend raises the limit of the file and records who did. A lower one is refused.
func (w *Writer) Extend(by string, limit int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if limit <= w.limit {
		return fmt.Errorf("recording: a limit of %d bytes does not raise the present one of %d", limit, w.limit)
	}
	b := Extended{By: clip(by), Limit: limit}
	err := w.write(lastReserve, func(s *writerState) error { return w.marked(s, b, Describe(b)) })
	if err == nil {
		w.limit = limit
	}
	return err
}

// Exit records the status with which the target's shell ended.
func (w *Writer) Exit(status int) error { return w.note(Exit{Status: status}, "") }

// note writes one of the small frames, with a marker if there is a label.
func (w *Writer) note(b Body, label string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.write(lastReserve, func(s *writerState) error { return w.marked(s, b, label) })
}

func (w *Writer) marked(s *writerState, b Body, label string) error {
	if err := w.add(s, b); err != nil || label == "" {
		return err
	}
	return w.add(s, Marker{Label: label})
}

// Offset is how many bytes of output have been recorded.
func (w *Writer) Offset() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.output
}

// Checkpoint brings everything to the disk and says how far it has come.
func (w *Writer) Checkpoint() (Checkpoint, error) {
	w.mu.Lock()
	cp, broken := w.state.checkpoint(), w.broken
	w.mu.Unlock()
	if broken != nil {
		return Checkpoint{}, broken
	}
	err := w.sync() // without mu: a slow disk must not hold up the session's output
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && w.broken == nil {
		// After a failed sync nobody knows what is on the disk, and the next would report success.
		w.broken = fmt.Errorf("recording: sync up to frame %d: %w", cp.Frame, err)
	}
	if err != nil {
		return Checkpoint{}, w.broken
	}
	return cp, nil
}

func (s *writerState) checkpoint() Checkpoint {
	return Checkpoint{Frame: s.frame, Chain: s.chain, Output: s.output, Bytes: s.bytes}
}

func (w *Writer) sync() error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	return w.file.Sync()
}

func (w *Writer) close() error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	return w.file.Close()
}

// End writes the end frame, brings everything to the disk and closes the file. It works once.
func (w *Writer) End(reason string) (Seal, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.write(0, func(s *writerState) error {
		return w.add(s, End{
			Reason: clip(reason), Frames: s.frame + 1, Output: s.output, Input: s.input, Discarded: s.discarded,
		})
	})
	if err != nil {
		return Seal{}, err
	}
	if err := errors.Join(w.sync(), w.close()); err != nil {
		w.broken = fmt.Errorf("recording: sync and close at the end: %w", err)
		return Seal{}, w.broken
	}
	w.broken = ErrEnded
	return Seal{Checkpoint: w.state.checkpoint(), SHA256: Hash(w.whole.Sum(nil))}, nil
}

// Close gives the recording up without an end frame: it stays incomplete for ever. After End it does nothing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.broken, ErrEnded) {
		return nil
	}
	w.broken = ErrEnded
	return w.close()
}

// write makes the frames of one call and writes them in one piece: all of them or none.
func (w *Writer) write(leave int64, frames func(*writerState) error) error {
	if w.broken != nil {
		return w.broken
	}
	w.buf = w.buf[:0]
	s := w.state
	w.ms = since(w.start, w.now(), s.ms)
	if err := frames(&s); err != nil {
		w.broken = fmt.Errorf("recording: behind frame %d: %w", w.state.frame, err)
		return w.broken
	}
	if s.bytes > w.limit-leave {
		return &LimitError{Size: w.state.bytes, Limit: w.limit}
	}
	if err := w.flush(); err != nil {
		w.broken = fmt.Errorf("recording: write behind frame %d: %w", w.state.frame, err)
		// So that a full disk leaves whole frames. It is a kindness to the reader: the chain shows it either way.
		_ = w.file.Truncate(w.state.bytes)
		return w.broken
	}
	w.state = s
	return nil
}

// add appends a frame to what is about to be written.
func (w *Writer) add(s *writerState, b Body) error {
	text, err := bodyText(b)
	if err != nil {
		return err
	}
	start := len(w.buf)
	w.buf = appendLine(w.buf, w.ms-s.ms, b.code(), text)
	w.sum.Reset()
	w.sum.Write(s.chain[:])
	w.sum.Write(w.buf[start:])
	w.sum.Sum(s.chain[:0])
	s.frame++
	s.ms = w.ms
	w.buf = appendHashLine(w.buf, s.frame, s.chain)
	s.bytes += int64(len(w.buf) - start)
	return nil
}

func (w *Writer) flush() error {
	n, err := w.file.Write(w.buf)
	if err == nil && n < len(w.buf) {
		err = io.ErrShortWrite
	}
	w.whole.Write(w.buf)
	return err
}
