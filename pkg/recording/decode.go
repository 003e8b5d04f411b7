// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
)

// decodeHeader reads the header line and insists on the form in which it is written.
func decodeHeader(line []byte) (Header, error) {
	var f fileHeader
	if err := json.Unmarshal(line, &f); err != nil {
		return Header{}, fmt.Errorf("the header is no JSON object of this format: %w", err)
	}
	if f.Version != 3 || f.Ours.Format != format {
		return Header{}, fmt.Errorf("this is no recording of format %d (asciicast 3 with a member %s)", format, member)
	}
	at, err := time.Parse(layout, f.Ours.StartedAt)
	if err != nil {
		return Header{}, errors.New("the start time in the header cannot be read")
	}
	h := Header{
		Incident: f.Ours.Incident, Grant: f.Ours.Grant, Subject: f.Ours.Subject, Watcher: f.Ours.Watcher,
		Host: f.Ours.Host, Account: f.Ours.Account, Cols: f.Term.Cols, Rows: f.Term.Rows, Term: f.Term.Type, StartedAt: at,
	}
	again, err := encodeHeader(h)
	if err != nil {
		return Header{}, err
	}
	if !bytes.Equal(again, line) {
		return Header{}, errors.New("the header is not written as this format writes it")
	}
	return h, nil
}

// decodeLine reads an event line: its interval in milliseconds, its code and its body.
func decodeLine(line []byte) (int64, Body, error) {
	var parts []json.RawMessage
	if err := json.Unmarshal(line, &parts); err != nil || len(parts) != 3 {
		return 0, nil, errors.New("the line is no array of interval, code and text")
	}
	var code, text string
	if json.Unmarshal(parts[1], &code) != nil || json.Unmarshal(parts[2], &text) != nil || len(code) != 1 {
		return 0, nil, errors.New("code or text of the line cannot be read")
	}
	seconds, err := strconv.ParseFloat(string(parts[0]), 64)
	if err != nil || seconds < 0 || seconds > 1e9 {
		return 0, nil, errors.New("the interval of the line cannot be read")
	}
	interval := int64(math.Round(seconds * 1000))
	if !bytes.Equal(appendLine(nil, interval, code[0], []byte(text)), line) {
		return 0, nil, errors.New("the line is not written as this format writes it")
	}
	body, err := decodeBody(code[0], text)
	return interval, body, err
}

func decodeBody(code byte, text string) (Body, error) {
	switch code {
	case codeOutput:
		return Output{Data: []byte(text)}, nil
	case codeInput:
		return Input{Text: text}, nil
	case codeMarker:
		return Marker{Label: text}, nil
	case codeResize:
		return decodeResize(text)
	case codeExit:
		status, err := strconv.Atoi(text)
		if err != nil {
			return nil, errors.New("the exit status is no number")
		}
		return Exit{Status: status}, nil
	case codeRaw:
		return decodeJSON[raw](text)
	case codeHeld:
		return decodeJSON[held](text)
	case codeTyped:
		return decodeJSON[Typed](text)
	case codeRefused:
		return decodeJSON[Refused](text)
	case codeAck:
		return decodeJSON[Ack](text)
	case codeFrozen:
		return decodeJSON[Frozen](text)
	case codeThawed:
		return decodeJSON[Thawed](text)
	case codeNote:
		return decodeJSON[Note](text)
	case codeTakeover:
		return decodeJSON[Takeover](text)
	case codeDiscarded:
		return decodeJSON[Discarded](text)
	case codeExtended:
		return decodeJSON[Extended](text)
	case codeEnd:
		return decodeJSON[End](text)
	default:
		return nil, fmt.Errorf("format %d has no frames of code %q", format, code)
	}
}

func decodeResize(text string) (Body, error) {
	var r Resize
	_, err := fmt.Sscanf(text, "%dx%d", &r.Cols, &r.Rows)
	if err != nil || fmt.Sprintf("%dx%d", r.Cols, r.Rows) != text || checkSize(r.Cols, r.Rows) != nil {
		return nil, errors.New("the size is not columns x rows")
	}
	return r, nil
}

func decodeJSON[T Body](text string) (Body, error) {
	var body T
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil {
		return nil, fmt.Errorf("the text of the frame cannot be read: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the text of the frame")
	}
	return body, nil
}
