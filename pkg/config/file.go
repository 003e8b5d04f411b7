// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/pflag"
)

// maxFile bounds the file before it is parsed, in bytes.
const maxFile = 1 << 20

// member is one member of the file's object.
type member struct {
	name   string
	line   int
	value  string   // of a scalar
	values []string // of an array
	list   bool
}

// file fills what neither command line nor environment set. The file is checked whole, also where it is overruled.
func (s *Settings) file(path string) error {
	data, mode, err := readFile(path)
	if err != nil {
		return err
	}
	members, err := parse(path, data)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range members {
		errs = append(errs, s.member(path, mode, m))
	}
	return join(errs)
}

func (s *Settings) member(path string, mode fs.FileMode, m member) error {
	source := fmt.Sprintf("%s:%d", path, m.line)
	f := s.fs.Lookup(m.name)
	if f == nil || !setting(f) || f.Name == FileFlag {
		return fmt.Errorf("%s: %q: no setting is called so; --help lists all", source, m.name)
	}
	if isSecret(f) && mode.Perm()&0o004 != 0 {
		return fmt.Errorf("%s: %q is secret and the file is readable by everybody: chmod o-rwx it, and think about a new secret", source, m.name)
	}
	if s.Source(f.Name) != "default" {
		return nil
	}
	if m.list {
		return s.setList(f, source, m.values)
	}
	return s.set(f, source, m.value)
}

// setList gives a list its elements, which are not split again.
func (s *Settings) setList(f *pflag.Flag, source string, values []string) error {
	list, ok := f.Value.(pflag.SliceValue)
	if !ok {
		return settingError(f.Name, source, fmt.Errorf("takes one value, not a list"))
	}
	if err := list.Replace(values); err != nil {
		return settingError(f.Name, source, wrong(f, err))
	}
	f.Changed = true
	s.sources[f.Name] = source
	return nil
}

func readFile(path string) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("settings: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("settings: %w", err)
	case !info.Mode().IsRegular():
		return nil, 0, fmt.Errorf("%s: is no regular file", path)
	case info.Mode().Perm()&0o002 != 0:
		return nil, 0, fmt.Errorf("%s: mode %#o lets everybody change these settings: chmod o-w it", path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	case len(data) > maxFile:
		return nil, 0, fmt.Errorf("%s: is larger than %d bytes", path, maxFile)
	}
	return data, info.Mode(), nil
}

// parse reads one object of scalars and arrays of scalars. Errors name the line.
func parse(path string, data []byte) ([]member, error) {
	at := func(offset int64, format string, args ...any) error {
		return fmt.Errorf("%s:%d: %w", path, lineOf(data, offset), fmt.Errorf(format, args...))
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, at(0, "the file is empty; it must hold one JSON object, {} at least")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, at(syntax.Offset, "no JSON, or torn: %w", err)
		}
		return nil, at(0, "no JSON: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, at(0, "must hold one JSON object")
	}
	seen, members := map[string]int{}, []member{}
	for d.More() {
		m, err := parseMember(d, func(offset int64) int { return lineOf(data, offset) })
		if err != nil {
			return nil, at(d.InputOffset(), "%w", err)
		}
		if first, twice := seen[m.name]; twice {
			return nil, at(d.InputOffset(), "%q stands here and in line %d", m.name, first)
		}
		seen[m.name] = m.line
		members = append(members, m)
	}
	return members, nil
}

func parseMember(d *json.Decoder, line func(int64) int) (member, error) {
	t, err := d.Token()
	if err != nil {
		return member{}, err
	}
	m := member{name: fmt.Sprint(t), line: line(d.InputOffset())}
	if t, err = d.Token(); err != nil {
		return m, err
	}
	if t != json.Delim('[') {
		m.value, err = scalar(m.name, t)
		return m, err
	}
	m.list, m.values = true, []string{}
	for d.More() {
		if t, err = d.Token(); err != nil {
			return m, err
		}
		v, err := scalar(m.name, t)
		if err != nil {
			return m, err
		}
		m.values = append(m.values, v)
	}
	_, err = d.Token() // the closing bracket
	return m, err
}

func scalar(name string, t json.Token) (string, error) {
	switch v := t.(type) {
	case string:
		return v, nil
	case bool, json.Number:
		return fmt.Sprint(v), nil
	default:
		return "", fmt.Errorf("%q: give text, a number, true, false or a list of these", name)
	}
}

// lineOf is the line in which an offset lies, from 1.
func lineOf(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(max(offset, 0), int64(len(data)))], []byte("\n"))
}
