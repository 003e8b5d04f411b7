// SPDX-License-Identifier: Apache-2.0

package site

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"cacert.org/emergency/pkg/publog"
)

const (
	// sumsFile lists every other file with its SHA-256, as sha256sum writes it.
	sumsFile = "SHA256SUMS"
	// exportFile says what the site was made from.
	exportFile = "export.json"
	// WikiFile is the page for CAcert's wiki.
	WikiFile = "EmergencyLogs.txt"

	exportForm = "epatch-log-export-v1"
)

// export is exportFile.
type export struct {
	Form        string `json:"form"`
	Base        string `json:"base"`
	Development bool   `json:"development"`
	// Maker is a digest of the templates: another version of this program makes other pages from the same log.
	Maker string                 `json:"maker"`
	Logs  map[publog.Origin]head `json:"logs"`
}

type head struct {
	Entries int    `json:"entries"`
	Head    string `json:"head"`
}

// maker is the digest of everything that pages are made with and that is no code.
func maker() string {
	h := sha256.New()
	_ = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error { // embedded
		if err != nil || d.IsDir() {
			return err
		}
		b, err := files.ReadFile(name)
		fmt.Fprintf(h, "%s %d\n%s", name, len(b), b)
		return err
	})
	return hex.EncodeToString(h.Sum(nil))
}

// Files makes every file of a site, by its path.
func (s *Site) Files() (map[string][]byte, error) {
	if err := s.verify(); err != nil {
		return nil, err
	}
	out := map[string][]byte{WikiFile: s.Wiki()}
	add := func(name string, make func() ([]byte, error)) error {
		b, err := make()
		if err == nil && b == nil {
			err = errors.New("there is nothing to be written")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		out[name] = b
		return nil
	}
	var errs []error
	each := func(name string, make func() ([]byte, error)) { errs = append(errs, add(name, make)) }
	l, ex := links{}, export{Form: exportForm, Base: s.cfg.Base, Development: s.cfg.Development, Maker: maker(), Logs: map[publog.Origin]head{}}
	for _, o := range publog.Origins() {
		entries := s.cfg.Entries[o]
		ex.Logs[o] = head{len(entries), s.Head(o)}
		each(l.Log(o), func() ([]byte, error) { return s.Overview(o) })
		each(l.All(o), func() ([]byte, error) { return s.All(o) })
		each(l.JSON(o), func() ([]byte, error) { return s.JSON(o) })
		each(l.Atom(o), func() ([]byte, error) { return s.Atom(o) })
		for n := 1; n <= s.AtomPages(o); n++ {
			each(l.AtomPage(o, n), func() ([]byte, error) { return s.AtomPage(o, n) })
		}
		for _, i := range s.incidents[o] {
			each(l.Incident(i.ID), func() ([]byte, error) { return s.Incident(i.ID) })
			each(l.IncidentJSON(i.ID), func() ([]byte, error) { return s.IncidentJSON(i.ID) })
		}
		for _, e := range entries {
			each(l.Entry(o, e.Seq), func() ([]byte, error) { return s.Entry(o, e.Seq) })
			each(l.EntryJSON(o, e.Seq), func() ([]byte, error) { return s.EntryJSON(o, e.Seq) })
		}
		for _, y := range s.years(o) {
			if o != publog.Archive { // its messages are on the pages of the log of emergencies
				each(l.OfYear(o, y), func() ([]byte, error) { return s.Year(o, y) })
			}
			if b, err := s.YearJSON(o, y); b != nil || err != nil {
				each(l.YearJSON(o, y), func() ([]byte, error) { return b, err })
			}
		}
	}
	for _, name := range assetNames() {
		each(assetFolder+name, func() ([]byte, error) { return fs.ReadFile(Static(), name) })
	}
	each(exportFile, func() ([]byte, error) { return encode(ex) })
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	out[sumsFile] = sums(out)
	return out, nil
}

var incidentForm = regexp.MustCompile(`^[ex][0-9]{8}\.[1-9][0-9]{0,5}$`)

// verify checks the logs before anything is made of them: their chains, and that incidents have names that files can have.
func (s *Site) verify() error {
	for _, o := range publog.Origins() {
		if err := publog.Verify(o, s.cfg.Entries[o]); err != nil {
			return err
		}
		for _, e := range s.cfg.Entries[o] {
			if publog.OriginOf(e.Incident) != o || o != publog.Archive && !incidentForm.MatchString(e.Incident) {
				return &publog.ChainError{Seq: e.Seq, Detail: fmt.Sprintf("is about %.80q, which is no incident of this log", e.Incident)}
			}
		}
	}
	return nil
}

func sums(files map[string][]byte) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		sum := sha256.Sum256(files[name])
		fmt.Fprintf(&b, "%s  %s\n", hex.EncodeToString(sum[:]), name)
	}
	return b.Bytes()
}

// ErrNotOurs says that a folder holds something that no export wrote; nothing was changed.
var ErrNotOurs = errors.New("holds what no export wrote")

// Written says what Write did.
type Written struct {
	Files int
	// Unchanged: the folder held exactly this already.
	Unchanged bool
	// Left is where the site that was replaced lies, if it could not be removed whole.
	Left string
}

// Write puts a site into a folder, all at once: who looks sees the site that was there or the new one, whole. The folder is made if it
// is not there. One that holds anything that no earlier Write put there, or that was changed since, is left as it is: ErrNotOurs.
//
// The folder takes another's place, so it can be no mount point and not the root of a web server that has it open; a folder in it can.
func (s *Site) Write(dir string) (Written, error) {
	made, err := s.Files()
	if err != nil {
		return Written{}, err
	}
	if dir, err = place(dir); err != nil {
		return Written{}, err
	}
	mode := fs.FileMode(0o755)
	was, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		was = nil
	case err != nil:
		return Written{}, err
	default:
		mode = was.Mode().Perm()
		if same, err := replaceable(dir, made[sumsFile]); err != nil || same {
			return Written{Files: len(made), Unchanged: same}, err
		}
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".export-")
	if err != nil {
		return Written{}, err
	}
	out := Written{Files: len(made)}
	if err = fill(fresh, made, mode); err == nil {
		if was == nil {
			err = os.Rename(fresh, dir)
		} else {
			err = swap(fresh, dir)
		}
	}
	if err != nil {
		return Written{}, errors.Join(fmt.Errorf("write the site: %w", err), os.RemoveAll(fresh)) // ours: just made
	}
	if was != nil && !removeExported(fresh) { // what was replaced lies there now
		out.Left = fresh
	}
	return out, syncFolder(filepath.Dir(dir))
}

// place is where a folder really is.
func place(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { // a site is for everybody to read
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	return filepath.Join(parent, filepath.Base(dir)), err
}

// replaceable tells whether a folder holds only what an export wrote; same whether it is the one with these sums. An empty one does.
func replaceable(dir string, now []byte) (same bool, err error) {
	names, err := filesIn(dir)
	if err != nil || len(names) == 0 {
		return false, err
	}
	list, problems := audit(dir, names)
	whole := len(problems) == 0
	problems = slices.DeleteFunc(problems, func(p Problem) bool { return p.missing })
	if list == nil || len(problems) > 0 {
		first := "it has no " + sumsFile
		if len(problems) > 0 {
			first = problems[0].String()
		}
		return false, fmt.Errorf("%s %w: %s", dir, ErrNotOurs, first)
	}
	have, err := os.ReadFile(filepath.Join(dir, sumsFile)) // the folder that the caller named
	return err == nil && whole && bytes.Equal(have, now), err
}

// fill writes the files of a new folder and brings them to the disk.
func fill(dir string, made map[string][]byte, mode fs.FileMode) error {
	for _, name := range slices.Sorted(maps.Keys(made)) {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { // for everybody to read
			return err
		}
		if err := os.WriteFile(file, made[name], 0o644); err != nil { // for everybody to read
			return err
		}
	}
	if err := os.Chmod(dir, mode); err != nil {
		return err
	}
	return syncTree(dir)
}

// removeExported removes a replaced site, file by file, as its sums name them; false if something is left.
func removeExported(dir string) bool {
	names, err := filesIn(dir)
	if err != nil {
		return false
	}
	list, problems := audit(dir, names)
	if slices.ContainsFunc(problems, func(p Problem) bool { return !p.missing }) {
		return false
	}
	folders := map[string]bool{}
	for name := range list {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
		for d := filepath.Dir(file); len(d) > len(dir); d = filepath.Dir(d) {
			folders[d] = true
		}
	}
	if err := os.Remove(filepath.Join(dir, sumsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	for _, d := range slices.Backward(slices.Sorted(maps.Keys(folders))) { // a folder comes after the one that it is in
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return os.Remove(dir) == nil
}

// Problem is something that is wrong with an exported site.
type Problem struct {
	File, What string
	// missing: nothing is there that could be lost.
	missing bool
}

func (p Problem) String() string {
	if p.File == "" {
		return p.What
	}
	return p.File + " " + p.What
}

// Exported is a site that was read back.
type Exported struct {
	// Entries are its logs, which were verified.
	Entries map[publog.Origin][]publog.Entry
	Files   int
	// OtherMaker: it was made by another version of this program, so that its pages could not be made again and compared.
	OtherMaker bool
	Problems   []Problem
}

// Check reads a site back: every file has the digest that the sums say and none is more or less, the logs' chains are in order, and
// every page is the one that these logs make. An error is a folder that cannot be read.
func Check(dir string) (*Exported, error) {
	names, err := filesIn(dir)
	if err != nil {
		return nil, err
	}
	out := &Exported{Entries: map[publog.Origin][]publog.Entry{}, Files: len(names)}
	list, problems := audit(dir, names)
	out.Problems = problems
	if list == nil {
		out.Problems = append(out.Problems, Problem{File: sumsFile, What: "is missing: this is no exported log"})
		return out, nil
	}
	for _, o := range publog.Origins() {
		entries, problem := readLog(dir, o)
		if problem != nil {
			out.Problems = append(out.Problems, *problem)
			continue
		}
		out.Entries[o] = entries
	}
	if len(out.Entries) == len(publog.Origins()) {
		out.remake(dir)
	}
	return out, nil
}

func readLog(dir string, o publog.Origin) ([]publog.Entry, *Problem) {
	name := links{}.JSON(o)
	raw, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name))) // the folder that the caller named
	if err != nil {
		return nil, &Problem{File: name, What: "cannot be read"}
	}
	var doc logDocument
	if err := json.Unmarshal(raw, &doc); err != nil || doc.Log != o {
		return nil, &Problem{File: name, What: "is no log of " + string(o)}
	}
	if err := publog.Verify(o, doc.Entries); err != nil {
		return nil, &Problem{File: name, What: "is not in order: " + err.Error()}
	}
	return doc.Entries, nil
}

// remake makes the site again and compares.
func (x *Exported) remake(dir string) {
	var ex export
	raw, err := os.ReadFile(filepath.Join(dir, exportFile)) // the folder that the caller named
	if err != nil || json.Unmarshal(raw, &ex) != nil || ex.Form != exportForm {
		x.Problems = append(x.Problems, Problem{File: exportFile, What: "does not say what the site was made from"})
		return
	}
	if x.OtherMaker = ex.Maker != maker(); x.OtherMaker {
		return
	}
	made, err := New(Config{Entries: x.Entries, Base: ex.Base, Development: ex.Development}).Files()
	if err != nil {
		x.Problems = append(x.Problems, Problem{What: "the pages cannot be made again: " + err.Error()})
		return
	}
	for _, name := range slices.Sorted(maps.Keys(made)) {
		have, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name))) // names of ours
		switch {
		case err != nil:
			x.Problems = append(x.Problems, Problem{File: name, What: "is missing: the log makes it"})
		case !bytes.Equal(have, made[name]):
			x.Problems = append(x.Problems, Problem{File: name, What: "says something else than the log"})
		}
	}
}

// filesIn lists what lies in a folder and is no folder; what is neither file nor folder, such as a link, is listed and will be found
// to be none of ours.
func filesIn(dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, file)
		names = append(names, filepath.ToSlash(name))
		return err
	})
	return names, err
}

var sumForm = regexp.MustCompile(`^([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._/-]*)$`)

// audit compares the files of a folder with its sums; the list is nil if it has none.
func audit(dir string, names []string) (list map[string]string, problems []Problem) {
	raw, err := os.ReadFile(filepath.Join(dir, sumsFile)) // the folder that the caller named
	if err != nil {
		return nil, nil
	}
	list = map[string]string{}
	for l := range strings.Lines(string(raw)) {
		m := sumForm.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
		if m == nil || !filepath.IsLocal(filepath.FromSlash(m[2])) {
			return nil, []Problem{{File: sumsFile, What: "is no list of ours"}}
		}
		list[m[2]] = m[1]
	}
	for _, name := range names {
		if name == sumsFile {
			continue
		}
		want, ok := list[name]
		if !ok {
			problems = append(problems, Problem{File: name, What: "was not exported"})
			continue
		}
		if !regular(filepath.Join(dir, filepath.FromSlash(name)), want) {
			problems = append(problems, Problem{File: name, What: "was changed since it was exported"})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if !slices.Contains(names, name) {
			problems = append(problems, Problem{name, "is missing", true})
		}
	}
	return list, problems
}

// regular tells whether a path is a plain file with a digest.
func regular(file, want string) bool {
	info, err := os.Lstat(file)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	raw, err := os.ReadFile(file) // a name of the sums, which is local
	sum := sha256.Sum256(raw)
	return err == nil && hex.EncodeToString(sum[:]) == want
}

func syncFolder(dir string) error {
	f, err := os.Open(dir) // the folder that the caller named
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
