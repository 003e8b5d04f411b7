// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"encoding/hex"
	"fmt"
	"time"
)

// Hash is a SHA-256.
type Hash [32]byte

// String is the hash in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is the hash in hex.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (h *Hash) UnmarshalText(text []byte) error {
	parsed, err := ParseHash(string(text))
	*h = parsed
	return err
}

// ParseHash reads 64 hex digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return h, fmt.Errorf("a hash has 64 hex digits, this has not: %.80q", s)
	}
	return Hash(b), nil
}

// Header says whose session it is. Persons and places are opaque ids.
type Header struct {
	Incident, Grant, Subject, Watcher, Host, Account string
	Cols, Rows                                       int
	Term                                             string    // type of the subject's terminal, as its client named it
	StartedAt                                        time.Time // set by Create, whole milliseconds
}

// Checkpoint is how far a recording had come. In the incident's events it is an anchor.
type Checkpoint struct {
	Frame  uint64 // number of the last frame
	Chain  Hash   // chain hash of that frame
	Output int64  // bytes of output up to and with it
	Bytes  int64  // bytes of the file up to and with its hash line
}

// Frame is one frame of a recording.
type Frame struct {
	Number uint64
	At     time.Time
	Output int64 // bytes of output before this frame
	Bytes  int64 // bytes of the file up to and with its hash line
	Body   Body
}

// Body is what a frame says: one of the types below.
type Body interface{ code() byte }

// Output is what the target wrote, exactly. It is empty where a frame only shows bytes that the frame before it gave.
type Output struct{ Data []byte }

// Input is what was typed, where that is no secret: keys, or text after the target had echoed it.
type Input struct{ Text string }

// Marker is a label a player can jump to.
type Marker struct{ Label string }

// Resize is the new size of the subject's terminal.
type Resize struct{ Cols, Rows int }

// Exit is the status with which the target's shell ended.
type Exit struct{ Status int }

// Typed says that a person typed something; the text is not told.
type Typed struct {
	By         string `json:"by"`
	Length     int    `json:"length"`     // bytes
	Commitment Hash   `json:"commitment"` // SHA-256(salt || bytes)
}

// Refused is a request that was refused, and why.
type Refused struct {
	Request string `json:"request"`
	Reason  string `json:"reason"`
}

// Ack says how far the watcher's terminal had shown the output.
type Ack struct {
	By     string `json:"by"`
	Offset int64  `json:"offset"`
}

// Frozen says that the session stood still from here, why, and how far: input only, or the processes too.
type Frozen struct {
	Cause string `json:"cause"`
	Mode  string `json:"mode"`
}

// Thawed says that the session went on.
type Thawed struct {
	By     string `json:"by,omitempty"`
	Reason string `json:"reason"`
}

// Note is a remark of the watcher.
type Note struct {
	By   string `json:"by"`
	Text string `json:"text"`
}

// Takeover says that from here the watcher types, or, if not On, that the subject does again.
type Takeover struct {
	By     string `json:"by"`
	On     bool   `json:"on"`
	Reason string `json:"reason"`
}

// Discarded says that typed bytes were thrown away and not forwarded. They are counted, not kept.
type Discarded struct {
	Bytes int64  `json:"bytes"`
	Cause string `json:"cause"`
}

// Extended is a higher limit for the size of the file.
type Extended struct {
	By    string `json:"by"`
	Limit int64  `json:"limit"`
}

// End is the last frame. A recording without it is incomplete.
type End struct {
	Reason    string `json:"reason"`
	Frames    uint64 `json:"frames"` // this one's number
	Output    int64  `json:"output"`
	Input     int64  `json:"input"` // bytes typed and forwarded
	Discarded int64  `json:"discarded"`
}

// held and raw are how bytes that are not whole characters are kept; a Reader makes Output of them.
type (
	held struct {
		Data []byte `json:"data"`
	}
	raw struct {
		Data []byte `json:"data"`
	}
)

const (
	codeOutput, codeInput, codeMarker, codeResize, codeExit = 'o', 'i', 'm', 'r', 'x'

	codeRaw, codeHeld, codeTyped, codeRefused, codeAck, codeFrozen, codeThawed = 'B', 'H', 'C', 'R', 'A', 'F', 'T'
	codeNote, codeTakeover, codeDiscarded, codeExtended, codeEnd               = 'N', 'K', 'D', 'L', 'E'
)

func (Output) code() byte    { return codeOutput }
func (Input) code() byte     { return codeInput }
func (Marker) code() byte    { return codeMarker }
func (Resize) code() byte    { return codeResize }
func (Exit) code() byte      { return codeExit }
func (Typed) code() byte     { return codeTyped }
func (Refused) code() byte   { return codeRefused }
func (Ack) code() byte       { return codeAck }
func (Frozen) code() byte    { return codeFrozen }
func (Thawed) code() byte    { return codeThawed }
func (Note) code() byte      { return codeNote }
func (Takeover) code() byte  { return codeTakeover }
func (Discarded) code() byte { return codeDiscarded }
func (Extended) code() byte  { return codeExtended }
func (End) code() byte       { return codeEnd }
func (held) code() byte      { return codeHeld }
func (raw) code() byte       { return codeRaw }

// Describe says a frame in one line of words for a timeline, safe for a terminal; output, input and markers give "".
func Describe(b Body) string { return printable(describe(b)) }

func describe(b Body) string {
	switch b := b.(type) {
	case Resize:
		return fmt.Sprintf("terminal resized to %dx%d", b.Cols, b.Rows)
	case Exit:
		return fmt.Sprintf("the shell ended with status %d", b.Status)
	case Typed:
		return fmt.Sprintf("%s typed %d bytes", b.By, b.Length)
	case Refused:
		return fmt.Sprintf("refused %s: %s", b.Request, b.Reason)
	case Ack:
		return fmt.Sprintf("%s has seen %d bytes", b.By, b.Offset)
	case Frozen:
		return fmt.Sprintf("frozen (%s): %s", b.Mode, b.Cause)
	case Thawed:
		return "resumed" + by(b.By) + ": " + b.Reason
	case Note:
		return fmt.Sprintf("note by %s: %s", b.By, b.Text)
	case Takeover:
		if b.On {
			return fmt.Sprintf("%s takes the keyboard: %s", b.By, b.Reason)
		}
		return fmt.Sprintf("%s gives the keyboard back: %s", b.By, b.Reason)
	case Discarded:
		return fmt.Sprintf("%d bytes of input discarded: %s", b.Bytes, b.Cause)
	case Extended:
		return fmt.Sprintf("limit of the recording raised to %d bytes by %s", b.Limit, b.By)
	case End:
		return fmt.Sprintf("end after %d frames and %d bytes of output: %s", b.Frames, b.Output, b.Reason)
	default:
		return ""
	}
}

func by(person string) string {
	if person == "" {
		return ""
	}
	return " by " + person
}
