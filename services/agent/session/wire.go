// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
)

// The wrapper and the agent talk over a unix socket, one JSON object a line. The wrapper says hello and waits; the agent answers
// with a start or a refusal. Then both watch for the other's end: of the shell, or of the connection.

// message is one line, of either side; one field is set.
type message struct {
	Hello   *hello `json:"hello,omitempty"`   // wrapper: may the shell start?
	Start   *start `json:"start,omitempty"`   // agent: it may
	Refused string `json:"refused,omitempty"` // agent: it may not
	Ended   bool   `json:"ended,omitempty"`   // wrapper: the shell has ended
	Bye     bool   `json:"bye,omitempty"`     // agent: what the shell had left behind is dealt with
}

type hello struct {
	Grant string `json:"grant"`
}

type start struct {
	Mark      string `json:"mark"`      // for the environment of the session
	Processes uint64 `json:"processes"` // how many the account may have from now on
}

const maxMessage = 4 << 10

// line is one side of the conversation.
type line struct {
	conn *net.UnixConn
	in   *bufio.Reader
}

func newLine(conn *net.UnixConn) *line {
	return &line{conn, bufio.NewReaderSize(conn, maxMessage)}
}

func (l *line) send(m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = l.conn.Write(append(b, '\n'))
	return err
}

func (l *line) receive() (message, error) {
	var m message
	b, err := l.in.ReadSlice('\n')
	if errors.Is(err, io.EOF) && len(b) == 0 {
		return m, io.EOF
	}
	if err != nil {
		return m, fmt.Errorf("message: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("message: %w", err)
	}
	return m, nil
}
