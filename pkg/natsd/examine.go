// SPDX-License-Identifier: Apache-2.0

package natsd

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// StoredStream is what one folder of a server's store holds: a stream's copy, or the log by which the servers of a cluster agree.
type StoredStream struct {
	// Account is the folder's account, Name the stream's or group's name.
	Account, Name string
	// Messages are how many it has, from First to Last.
	Messages, First, Last uint64
	// HalfWritten is the length of a record at its end that was cut short in writing; it was never acknowledged.
	HalfWritten int
}

// ExamineStore reads every file of a stopped server's store by which it would answer, and fails with ErrStoreDamaged if one bit is
// not as it was written. dir is the server's store_dir. Nothing is changed.
//
// A server of a cluster must not start on a damaged store: it cuts off what it cannot read together with all that follows, counts on
// from there, and as leader makes the other servers do the same (docs/runbooks.md).
//
// What it cannot see: records that are missing at the very end, cut at a border between two. For that the server has the others, and
// readers their remembered heads (Guard).
func ExamineStore(dir string) ([]StoredStream, error) {
	return examineStore(dir, func(folder string) (StoredStream, error) { return examineFolder(folder, os.ReadFile) })
}

// How often a running server's folder is read until what is wrong with it counts, and how long it is left alone in between: blocks are
// written to, put together and removed meanwhile.
const (
	runningTries = 5
	runningPause = time.Second
)

// ExamineRunning is ExamineStore for a server that runs, to be called at night and before evidence is sealed (hardening 4): a bit that the
// disk gives back wrong is noticed by nobody else until somebody reads just that record. It reads from the disk, not from what the system
// remembers of it (on Linux). Only what is still wrong after several readings is an error.
func ExamineRunning(ctx context.Context, dir string) ([]StoredStream, error) {
	return examineStore(dir, func(folder string) (s StoredStream, err error) {
		for n := range runningTries {
			if n > 0 {
				if err := pause(ctx, runningPause); err != nil {
					return s, err
				}
			}
			if s, err = examineFolder(folder, readFromDisk); err == nil || gone(folder) {
				return s, nil
			}
		}
		return s, err
	})
}

// gone tells whether a stream was deleted meanwhile.
func gone(folder string) bool {
	_, err := os.Stat(folder)
	return errors.Is(err, fs.ErrNotExist)
}

func examineStore(dir string, examine func(folder string) (StoredStream, error)) ([]StoredStream, error) {
	var streams []StoredStream
	var errs []error
	for _, pattern := range []string{"*/streams/*", "*/_js_/*"} {
		folders, err := filepath.Glob(filepath.Join(globEscape(dir), server.JetStreamStoreDir, pattern))
		if err != nil {
			return nil, fmt.Errorf("examine store: %w", err)
		}
		for _, folder := range folders {
			// A leading dot marks a stream whose deletion was under way: the server removes the rest itself.
			if strings.HasPrefix(filepath.Base(folder), ".") {
				continue
			}
			s, err := examine(folder)
			errs = append(errs, err)
			streams = append(streams, s)
		}
	}
	return streams, errors.Join(errs...)
}

var globMeta = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

func globEscape(path string) string { return globMeta.Replace(path) }

// examination is one reading of a folder.
type examination struct {
	StoredStream
	folder string
	read   func(path string) ([]byte, error)
}

func examineFolder(folder string, read func(string) ([]byte, error)) (StoredStream, error) {
	s := examination{StoredStream{Account: filepath.Base(filepath.Dir(filepath.Dir(folder))), Name: filepath.Base(folder)}, folder, read}
	for _, step := range []func() error{s.settings, s.snapshots, s.blocks} {
		if err := step(); err != nil {
			return s.StoredStream, fmt.Errorf("%w: %s of account %s: %w", ErrStoreDamaged, s.Name, s.Account, err)
		}
	}
	return s.StoredStream, nil
}

// settings proves the stream's own description.
func (s *examination) settings() error {
	text, err := s.read(filepath.Join(s.folder, server.JetStreamMetaFile))
	if err != nil {
		return fmt.Errorf("its settings: %w", err)
	}
	want, err := s.read(filepath.Join(s.folder, server.JetStreamMetaFileSum))
	if err != nil {
		return fmt.Errorf("its settings: %w", err)
	}
	if _, err := os.Stat(filepath.Join(s.folder, server.JetStreamMetaFileKey)); err == nil {
		return errUnexaminable
	}
	sum, err := checksums(s.Name)
	if err != nil {
		return err
	}
	_, _ = sum.Write(text) // never fails (hash.Hash)
	if have := hex.EncodeToString(sum.Sum(nil)); have != string(want) {
		return fmt.Errorf("%s is not what was written", server.JetStreamMetaFile)
	}
	return nil
}

// snapshots proves what a cluster's servers have agreed on before the log begins.
func (s *examination) snapshots() error {
	files, err := os.ReadDir(filepath.Join(s.folder, "snapshots"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, file := range files {
		if !strings.HasPrefix(file.Name(), "snap.") || !file.Type().IsRegular() {
			continue
		}
		snapshot, err := s.read(filepath.Join(s.folder, "snapshots", file.Name()))
		if err != nil {
			return err
		}
		sum, err := checksums(s.Name)
		if err != nil {
			return err
		}
		end := max(0, len(snapshot)-recordSum)
		_, _ = sum.Write(snapshot[:end]) // never fails (hash.Hash)
		if !bytes.Equal(sum.Sum(nil), snapshot[end:]) {
			return fmt.Errorf("%s is not what was written", file.Name())
		}
	}
	return nil
}

// blocks reads the messages.
func (s *examination) blocks() error {
	numbers, err := blockNumbers(filepath.Join(s.folder, "msgs"))
	if err != nil {
		return err
	}
	for i, number := range numbers {
		name := strconv.Itoa(number) + ".blk"
		block, err := s.read(filepath.Join(s.folder, "msgs", name))
		if err != nil {
			return err
		}
		if bytes.HasPrefix(block, []byte("cmp")) {
			return fmt.Errorf("block %s: %w", name, errUnexaminable)
		}
		sum, err := checksums(fmt.Sprintf("%s-%d", s.Name, number))
		if err != nil {
			return err
		}
		r := blockReader{sum: sum, message: s.count}
		if s.HalfWritten, err = r.read(block, i == len(numbers)-1); err != nil {
			return fmt.Errorf("block %s, after message %d: %w", name, s.Last, err)
		}
	}
	return nil
}

// count takes the next message. Of the histories none may be missing, because none is ever deleted.
func (s *examination) count(sequence uint64) error {
	if s.Name == Stream && sequence != s.Last+1 {
		return fmt.Errorf("message %d follows %d", sequence, s.Last)
	}
	if s.Messages == 0 {
		s.First = sequence
	}
	s.Messages++
	s.Last = max(s.Last, sequence)
	return nil
}

func blockNumbers(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, entry := range entries {
		number, isBlock := strings.CutSuffix(entry.Name(), ".blk")
		if n, err := strconv.Atoi(number); isBlock && err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}
