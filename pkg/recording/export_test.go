// SPDX-License-Identifier: Apache-2.0

package recording

import "time"

// File is what a Writer writes to.
type File = file

// NewWriterTo returns a writer to f, without the disk.
func NewWriterTo(cfg Config, f File) (*Writer, error) {
	cfg.Header.StartedAt = cfg.Now().UTC().Truncate(time.Millisecond)
	line, err := encodeHeader(cfg.Header)
	if err != nil {
		return nil, err
	}
	return newWriter(cfg, f, line), nil
}

// Drawings are the characters of the set for line drawing.
const Drawings = drawings
