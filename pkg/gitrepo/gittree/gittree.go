// SPDX-License-Identifier: Apache-2.0

// Package gittree computes git's object ids in plain Go: of files, and of whole trees from the list of
// their files. A host's folder has a tree id without being a git checkout (procedure.md 0.14).
//
// It is pure arithmetic over names, modes and bytes; the only files it touches are the loose objects
// that WriteLoose and ReadLoose are pointed at. It runs no program.
package gittree

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // git's object format; the binding also carries the patch's SHA-256
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"
)

// Algo is a git object format.
type Algo string

// The object formats of git.
const (
	SHA1   Algo = "sha1"
	SHA256 Algo = "sha256"
)

// Modes of the entries of a tree.
const (
	ModeFile       = "100644"
	ModeExecutable = "100755"
	ModeSymlink    = "120000"
	ModeSubmodule  = "160000"
)

// New returns the hash of the format, or nil for an unknown one (see Valid).
func (a Algo) New() hash.Hash {
	switch a {
	case SHA1:
		return sha1.New() //nolint:gosec // see the import
	case SHA256:
		return sha256.New()
	}
	return nil
}

// Valid says whether the format is known.
func (a Algo) Valid() bool { return a == SHA1 || a == SHA256 }

// HexLen is the length of an id of this format in hex digits.
func (a Algo) HexLen() int {
	if a == SHA256 {
		return 64
	}
	return 40
}

// AlgoOf tells the format from the length of a full object id in lower-case hex.
func AlgoOf(id string) (Algo, bool) {
	if strings.Trim(id, "0123456789abcdef") != "" {
		return "", false
	}
	switch len(id) {
	case 40:
		return SHA1, true
	case 64:
		return SHA256, true
	}
	return "", false
}

// ParseID splits "sha1:<40 hex>" or "sha256:<64 hex>", the form in which trees travel.
func ParseID(tree string) (Algo, string, error) {
	name, id, _ := strings.Cut(tree, ":")
	if algo, ok := AlgoOf(id); ok && string(algo) == name {
		return algo, id, nil
	}
	if len(tree) > 80 {
		tree = tree[:80] + "..."
	}
	return "", "", fmt.Errorf("tree id %q is neither sha1: with 40 nor sha256: with 64 lower-case hex digits", tree)
}

// Entry is one file of a tree, with its whole path.
type Entry struct {
	Path string
	Mode string // one of the Mode constants
	ID   string // blob id in hex; the commit id for a submodule
}

// Sort orders entries by path, byte by byte, as git's index does.
func Sort(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
}

// BlobHash returns a hash that has taken the header of a blob of that size; the caller writes exactly
// that many bytes and takes the sum.
func BlobHash(algo Algo, size int64) hash.Hash {
	h := algo.New()
	_, _ = fmt.Fprintf(h, "blob %d\x00", size) // a hash takes everything
	return h
}

// BlobID is the id of a blob with this content.
func BlobID(algo Algo, content []byte) string {
	h := BlobHash(algo, int64(len(content)))
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

// ID is the tree id that git computes for these files, with the format's prefix. The entries may come
// in any order. Errors: an unknown format, an id of another format, a path that is no path in a tree,
// the same path twice or as file and folder.
func ID(algo Algo, entries []Entry) (string, error) {
	if !algo.Valid() {
		return "", fmt.Errorf("unknown object format %q", string(algo))
	}
	sorted := slices.Clone(entries)
	Sort(sorted) // brings each folder's entries together; hashItems puts them in git's order
	root, err := subtree(algo, sorted, 0)
	if err != nil {
		return "", err
	}
	return string(algo) + ":" + hex.EncodeToString(root), nil
}

// item is one line of a tree object. key orders: a folder counts as its name with a slash.
type item struct {
	key, mode string
	id        []byte
}

// subtree hashes the folder whose entries share their first prefix bytes.
func subtree(algo Algo, entries []Entry, prefix int) ([]byte, error) {
	var items []item
	for i := 0; i < len(entries); {
		rest := entries[i].Path[prefix:]
		name, _, isDir := strings.Cut(rest, "/")
		if name == "" || name == "." || name == ".." || strings.IndexByte(name, 0) >= 0 {
			return nil, fmt.Errorf("path %q cannot be in a tree", entries[i].Path)
		}
		if !isDir {
			id, err := rawID(algo, entries[i])
			if err != nil {
				return nil, err
			}
			items = append(items, item{name, entries[i].Mode, id})
			i++
			continue
		}
		below := entries[i].Path[:prefix+len(name)+1]
		end := i
		for end < len(entries) && strings.HasPrefix(entries[end].Path, below) {
			end++
		}
		id, err := subtree(algo, entries[i:end], len(below))
		if err != nil {
			return nil, err
		}
		items = append(items, item{name + "/", "40000", id})
		i = end
	}
	return hashItems(algo, items)
}

func rawID(algo Algo, e Entry) ([]byte, error) {
	switch e.Mode {
	case ModeFile, ModeExecutable, ModeSymlink, ModeSubmodule:
	default:
		return nil, fmt.Errorf("path %q has the unknown mode %q", e.Path, e.Mode)
	}
	id, err := hex.DecodeString(e.ID)
	if err != nil || len(e.ID) != algo.HexLen() {
		return nil, fmt.Errorf("path %q has an id that is not %s", e.Path, string(algo))
	}
	return id, nil
}

func hashItems(algo Algo, items []item) ([]byte, error) {
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.key, b.key) })
	var body bytes.Buffer
	seen := make(map[string]bool, len(items))
	for _, it := range items {
		name := strings.TrimSuffix(it.key, "/")
		if seen[name] {
			return nil, fmt.Errorf("name %q stands twice in one folder", name)
		}
		seen[name] = true
		fmt.Fprintf(&body, "%s %s\x00", it.mode, name)
		body.Write(it.id)
	}
	h := algo.New()
	_, _ = fmt.Fprintf(h, "tree %d\x00", body.Len()) // a hash takes everything
	h.Write(body.Bytes())
	return h.Sum(nil), nil
}

// Change is one path in which two trees differ; mode and id are "" on the side where it is missing.
type Change struct {
	Path             string
	OldMode, NewMode string
	OldID, NewID     string
}

// Diff compares two lists of files path by path. The result is sorted by path.
func Diff(before, after []Entry) []Change {
	a, b := slices.Clone(before), slices.Clone(after)
	Sort(a)
	Sort(b)
	var changes []Change
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Path < b[0].Path:
			changes = append(changes, Change{Path: a[0].Path, OldMode: a[0].Mode, OldID: a[0].ID})
			a = a[1:]
		case len(a) == 0 || b[0].Path < a[0].Path:
			changes = append(changes, Change{Path: b[0].Path, NewMode: b[0].Mode, NewID: b[0].ID})
			b = b[1:]
		default:
			if a[0] != b[0] {
				changes = append(changes, Change{a[0].Path, a[0].Mode, b[0].Mode, a[0].ID, b[0].ID})
			}
			a, b = a[1:], b[1:]
		}
	}
	return changes
}
