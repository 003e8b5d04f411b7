// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc/command"
)

// Captured is what Send and Call return in an offline client, as an error: nothing was recorded. The command, with the person's
// signature of this moment, is in the file.
type Captured struct {
	File    string
	Command procedure.Command
}

func (c *Captured) Error() string {
	return fmt.Sprintf("%s was captured in %s and is not recorded", procedure.CommandName(c.Command), c.File)
}

const captureForm = "epatch-captured-v1"

// capturedFile is the form of the file: text, so that whoever submits it can read what it says.
type capturedFile struct {
	Form    string          `json:"form"`
	Command string          `json:"command"`
	Request json.RawMessage `json:"request"`
}

// capture signs a command as done now and writes it to the file, which must not be there yet: nothing captured is ever lost by
// another capture.
func (c *Client) capture(ctx context.Context, cmd procedure.Command) error {
	if _, err := command.Method(cmd); err != nil {
		return err
	}
	if cmd.GetMeta().GetApproval() == nil || cmd.GetMeta().GetCapturedAt() == nil {
		if _, err := c.Sign(ctx, cmd); err != nil {
			return err
		}
	}
	request, err := protojson.MarshalOptions{Multiline: true}.Marshal(cmd)
	if err != nil {
		return fmt.Errorf("encode captured command: %w", err)
	}
	b, err := json.MarshalIndent(capturedFile{captureForm, procedure.CommandName(cmd), request}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode captured command: %w", err)
	}
	f, err := os.OpenFile(c.cfg.OfflineFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("keep captured command: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("keep captured command: %w", err)
	}
	return &Captured{c.cfg.OfflineFile, cmd}
}

// markCaptured dates a command, if it is being captured, before it is signed.
func (c *Client) markCaptured(cmd procedure.Command) {
	if c.cfg.Offline {
		m := command.Meta(cmd, c.requestID())
		m.CapturedAt, m.ExpectedPosition = timestamppb.New(c.Now()), nil
	}
}

// ReadCaptured reads the file of a captured command.
func ReadCaptured(file string) (procedure.Command, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var in capturedFile
	if err := json.Unmarshal(b, &in); err != nil || in.Form != captureForm {
		return nil, fmt.Errorf("%s is no captured command", file)
	}
	for _, info := range procedure.Commands() {
		if info.Name != in.Command {
			continue
		}
		cmd := info.New()
		if err := protojson.Unmarshal(in.Request, cmd); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if cmd.GetMeta().GetCapturedAt() == nil || cmd.GetMeta().GetApproval() == nil {
			return nil, fmt.Errorf("%s holds a command that was not captured and signed", file)
		}
		return cmd, nil
	}
	return nil, fmt.Errorf("%s holds %q, which is no command", file, in.Command)
}
