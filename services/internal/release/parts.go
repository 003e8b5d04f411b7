// SPDX-License-Identifier: Apache-2.0

package release

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// part is something of others that is in the programs.
type part struct {
	kind, name, version string
	sum                 string // as in go.sum; empty for what is no Go module
	ids                 []string
	files               []file // licences and notices, by their names within the part
}

// The kinds of parts.
const (
	kindModule  = "module"
	kindGo      = "go"
	kindBrowser = "browser"
)

// ours begins the modules of this repository.
const ours = "cacert.org/emergency/"

// allowed are the licences under which others' work may be given on in binaries together with this project's.
var allowed = []string{"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MPL-2.0", "Unicode-3.0", "Unlicense"}

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`)

// parts are the modules that the programs themselves say they contain, the Go library, and the browser files in the pages.
func (s *source) parts(ctx context.Context, p Platform, bin string) ([]part, error) {
	found := map[string]part{}
	for _, name := range p.Programs {
		info, err := buildinfo.ReadFile(filepath.Join(bin, name))
		if err != nil {
			return nil, fmt.Errorf("what %s is built from: %w", name, err)
		}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			if strings.HasPrefix(m.Path, ours) || strings.HasPrefix(m.Path, ".") {
				continue
			}
			found[m.Path] = part{kind: kindModule, name: m.Path, version: m.Version, sum: m.Sum}
		}
		found["std"] = part{kind: kindGo, name: "std", version: strings.TrimPrefix(info.GoVersion, "go")}
	}
	dirs, err := s.packages(ctx, p)
	if err != nil {
		return nil, err
	}
	var list []part
	for _, x := range found {
		if x.files, err = texts(dirs[x.name]); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	if slices.Contains(p.Programs, "epatchd") {
		browser, err := s.browser()
		if err != nil {
			return nil, err
		}
		list = append(list, browser...)
	}
	for i := range list {
		if err := list[i].identify(); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b part) int { return strings.Compare(a.kind+" "+a.name, b.kind+" "+b.name) })
	return list, nil
}

// place is where a module lies, and the folders of its packages that are in the programs.
type place struct {
	root     string
	packages []string
}

// packages finds the folders of everything that the programs link.
func (s *source) packages(ctx context.Context, p Platform) (map[string]place, error) {
	args := []string{"list", "-deps", "-json=Dir,Standard,Module"}
	for _, program := range p.Programs {
		args = append(args, "./services/cmd/"+program)
	}
	out, err := s.golang(ctx, p, args...)
	if err != nil {
		return nil, err
	}
	root, err := s.golang(ctx, p, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	places := map[string]place{"std": {root: root}}
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var pkg struct {
			Dir      string
			Standard bool
			Module   *struct {
				Path, Dir string
				Replace   *struct{ Path, Dir string }
			}
		}
		if err := dec.Decode(&pkg); err != nil {
			return nil, fmt.Errorf("list packages: %w", err)
		}
		if pkg.Standard || pkg.Module == nil {
			continue
		}
		name := pkg.Module.Path
		if pkg.Module.Replace != nil {
			name = pkg.Module.Replace.Path
		}
		x := places[name]
		x.root, x.packages = pkg.Module.Dir, append(x.packages, pkg.Dir)
		places[name] = x
	}
	return places, nil
}

// texts are the licences and notices of a module: those at its root, and those between the root and a package that is linked.
func texts(x place) ([]file, error) {
	seen, files := map[string]bool{}, []file{}
	for _, dir := range append([]string{x.root}, x.packages...) {
		for ; !seen[dir] && strings.HasPrefix(dir, x.root); dir = filepath.Dir(dir) {
			seen[dir] = true
			entries, err := os.ReadDir(dir)
			if err != nil {
				return nil, fmt.Errorf("licences: %w", err)
			}
			for _, e := range entries {
				if !e.Type().IsRegular() || !licenceFile.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
					continue
				}
				data, err := os.ReadFile(filepath.Join(dir, e.Name()))
				if err != nil {
					return nil, fmt.Errorf("licences: %w", err)
				}
				rel, err := filepath.Rel(x.root, filepath.Join(dir, e.Name()))
				if err != nil {
					return nil, fmt.Errorf("licences: %w", err)
				}
				files = append(files, file{name: filepath.ToSlash(rel), data: data})
			}
		}
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// vendored is where the browser files of others lie, with a table of what they are.
const vendored = "services/dashboard/static/vendor"

var vendorRow = regexp.MustCompile("^\\| `([^`]+)` \\| npm `([^`]+)`, `[^`]+` \\| ([0-9][^ ]*) \\| [^,]+, `([^`]+)` \\|$")

// browser are the browser files of others, from the table in their README, which must have a row for each.
func (s *source) browser() ([]part, error) {
	table, err := os.ReadFile(filepath.Join(s.dir, vendored, "README.md"))
	if err != nil {
		return nil, fmt.Errorf("browser files: %w", err)
	}
	found, listed := map[string]part{}, map[string]bool{}
	for line := range strings.Lines(string(table)) {
		row := vendorRow.FindStringSubmatch(strings.TrimSpace(line))
		if row == nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(s.dir, vendored, row[4]))
		if err != nil {
			return nil, fmt.Errorf("browser file %s: %w", row[1], err)
		}
		listed[row[1]], listed[row[4]] = true, true
		found[row[2]] = part{kind: kindBrowser, name: row[2], version: row[3], files: []file{{name: row[4], data: text}}}
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, vendored))
	if err != nil {
		return nil, fmt.Errorf("browser files: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); !listed[name] && name != "README.md" && name != sumsFile {
			return nil, fmt.Errorf("browser file %s has no row in %s/README.md that names package, version and licence", name, vendored)
		}
	}
	list := make([]part, 0, len(found))
	for _, x := range found {
		list = append(list, x)
	}
	return list, nil
}

// certain is the share of a text that must be a known licence's, in per cent.
const certain = 75

// identify recognises the licences of a part, and refuses one that nobody could give on.
func (x *part) identify() error {
	for _, f := range x.files {
		if base := strings.ToLower(path.Base(f.name)); strings.HasPrefix(base, "notice") || strings.HasPrefix(base, "patents") {
			continue
		}
		cover := licensecheck.Scan(f.data)
		if cover.Percent < certain {
			continue
		}
		for _, m := range cover.Match {
			id := strings.TrimSuffix(m.ID, "-Header")
			if !slices.Contains(allowed, id) {
				return fmt.Errorf("%s %s: %s is under %s, which is not among the licences that a release may contain", x.name, x.version, f.name, id)
			}
			if !slices.Contains(x.ids, id) {
				x.ids = append(x.ids, id)
			}
		}
	}
	if len(x.ids) == 0 {
		return fmt.Errorf("%s %s: no licence was recognised in it", x.name, x.version)
	}
	slices.Sort(x.ids)
	return nil
}

// licences are the texts of all parts and a list of them.
func licences(parts []part) []file {
	var list strings.Builder
	list.WriteString("# What these programs contain of others\n\nThe texts lie beside this list, in a folder for each.\n\n| what | version | licence |\n| --- | --- | --- |\n")
	var files []file
	for _, x := range parts {
		name := x.name
		if x.kind == kindGo {
			name = "the Go standard library"
		}
		fmt.Fprintf(&list, "| %s | %s | %s |\n", name, x.version, strings.Join(x.ids, ", "))
		for _, f := range x.files {
			files = append(files, file{name: path.Join("licences", x.name, f.name), data: f.data})
		}
	}
	return append(files, file{name: "licences/README.md", data: []byte(list.String())})
}
