// SPDX-License-Identifier: Apache-2.0

package release

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// sumsFile is checked by `sha256sum --check`.
const sumsFile = "SHA256SUMS"

// file is one of an archive.
type file struct {
	name    string
	data    []byte
	program bool
}

// content is what an archive has: programs, licences, documents, and for Linux what a machine is set up with.
func (s *source) content(ctx context.Context, p Platform, bin string, parts []part) ([]file, error) {
	var files []file
	for _, name := range p.Programs {
		data, err := os.ReadFile(filepath.Join(bin, name))
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", name, err)
		}
		files = append(files, file{name: path.Join("bin", name), data: data, program: true})
	}
	tracked, err := git(ctx, s.dir, "ls-files", "LICENSE", "README.md", "docs/*.md", "deploy")
	if err != nil {
		return nil, err
	}
	for _, name := range strings.Fields(tracked) {
		if p.OS != "linux" && strings.HasPrefix(name, "deploy/") {
			continue
		}
		info, err := os.Lstat(filepath.Join(s.dir, name))
		if err != nil {
			return nil, fmt.Errorf("document %s: %w", name, err)
		}
		data, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			return nil, fmt.Errorf("document %s: %w", name, err)
		}
		files = append(files, file{name: name, data: data, program: info.Mode()&0o100 != 0})
	}
	return append(files, licences(parts)...), nil
}

// writeArchive writes a tar.gz whose bytes depend on the files and the time given alone.
func writeArchive(to, top string, at time.Time, files []file) (err error) {
	f, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zip, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	w := tar.NewWriter(zip)
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	for _, x := range files {
		mode := int64(0o644)
		if x.program {
			mode = 0o755
		}
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: path.Join(top, x.name), Size: int64(len(x.data)), Mode: mode, ModTime: at, Format: tar.FormatUSTAR,
		}
		if len(h.Name) > 100 {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("archive %s: %w", x.name, err)
		}
		if _, err := w.Write(x.data); err != nil {
			return fmt.Errorf("archive %s: %w", x.name, err)
		}
	}
	return errors.Join(w.Close(), zip.Close())
}

// writeSums writes the list of checksums.
func writeSums(dir string, names []string) error {
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("checksums: %w", err)
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(data), name)
	}
	if err := os.WriteFile(filepath.Join(dir, sumsFile), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("checksums: %w", err)
	}
	return nil
}
