// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"cacert.org/emergency/pkg/config"
)

// settings are those of a small program.
type settings struct {
	fs      *pflag.FlagSet
	listen  string
	count   int
	wait    time.Duration
	demo    bool
	peers   []string
	ports   []int
	dataURL string
}

func newSettings(t *testing.T, args ...string) *settings {
	t.Helper()
	s := &settings{fs: pflag.NewFlagSet("epatchd", pflag.ContinueOnError)}
	s.fs.String(config.FileFlag, "", "file of settings")
	s.fs.StringVar(&s.listen, "listen", "127.0.0.1:1", "address")
	s.fs.IntVar(&s.count, "max-count", 1, "count")
	s.fs.DurationVar(&s.wait, "wait", time.Second, "time")
	s.fs.BoolVar(&s.demo, "demo", false, "demo")
	s.fs.StringSliceVar(&s.peers, "peers", []string{"default"}, "peers")
	s.fs.IntSliceVar(&s.ports, "ports", nil, "ports")
	s.fs.StringVar(&s.dataURL, "database-url", "", "database")
	s.fs.Bool("help", false, "help")
	if err := config.Secret(s.fs, "database-url"); err != nil {
		t.Fatal(err)
	}
	if err := s.fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return s
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "epatchd.json")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	path := file(t, "{\n  \"listen\": \"file\",\n  \"max-count\": 4,\n  \"demo\": true,\n  \"peers\": [\"a,b\", \"c\"],\n  \"wait\": \"5m\"\n}\n")
	s := newSettings(t, "--listen", "flag", "--config", path)
	got, err := config.Load(s.fs, config.Options{Environ: []string{"EPATCH_LISTEN=env", "EPATCH_MAX_COUNT=3", "EPATCH_WAIT=", "OTHER=x", "junk"}})
	if err != nil {
		t.Fatal(err)
	}
	if s.listen != "flag" || s.count != 3 || !s.demo || s.wait != 5*time.Minute || !slices.Equal(s.peers, []string{"a,b", "c"}) || s.dataURL != "" {
		t.Errorf("settings %+v", s)
	}
	for flag, want := range map[string]string{
		"listen": "--listen", "max-count": "EPATCH_MAX_COUNT", "demo": path + ":4", "wait": path + ":6", "database-url": "default",
	} {
		if got.Source(flag) != want {
			t.Errorf("%s comes from %s, want %s", flag, got.Source(flag), want)
		}
	}
	for flag, want := range map[string]string{
		"listen": "--listen: bad", "max-count": "EPATCH_MAX_COUNT: bad", "demo": path + `:4: "demo": bad`,
		"database-url": "--database-url or EPATCH_DATABASE_URL: bad",
	} {
		if err := got.Errorf(flag, "bad"); err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
	}
}

func TestFileFromEnvironment(t *testing.T) {
	t.Parallel()
	s := newSettings(t)
	if _, err := config.Load(s.fs, config.Options{Environ: []string{"EPATCH_CONFIG=" + file(t, `{"peers": "x,y", "ports": [80, 443]}`)}}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.peers, []string{"x", "y"}) || !slices.Equal(s.ports, []int{80, 443}) {
		t.Errorf("settings %+v", s)
	}
}

func TestWrongValues(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env    []string
		file   string // FILE in want stands for its path
		strict bool
		want   []string
	}{
		"number":           {env: []string{"EPATCH_MAX_COUNT=many"}, want: []string{"EPATCH_MAX_COUNT", `"many"`, "int"}},
		"all at once":      {env: []string{"EPATCH_MAX_COUNT=many", "EPATCH_WAIT=long"}, want: []string{"EPATCH_MAX_COUNT", "EPATCH_WAIT"}},
		"number in file":   {file: "{\n\n\"max-count\": \"many\"}", want: []string{`FILE:3: "max-count"`, `"many"`, "--config"}},
		"element":          {file: "{\n\"ports\": [1,\n \"x\"]}", want: []string{`FILE:2: "ports"`}},
		"list for one":     {file: `{"listen": ["a"]}`, want: []string{`FILE:1: "listen": takes one value`}},
		"object":           {file: "{\n\"listen\": {}}", want: []string{"FILE:2", `"listen"`, "give text"}},
		"object in list":   {file: "{\n\"peers\": [\n{}]}", want: []string{"FILE:3", `"peers"`}},
		"null":             {file: `{"listen": null}`, want: []string{"FILE:1", `"listen"`}},
		"unknown member":   {file: "{\n\"lissten\": 1}", want: []string{`FILE:2: "lissten"`, "--help"}},
		"not a setting":    {file: `{"help": true}`, want: []string{`"help"`}},
		"file in file":     {file: `{"config": "x"}`, want: []string{`"config"`}},
		"doubled":          {file: "{\"demo\": true,\n\"wait\": \"1s\",\n\"demo\": false}", want: []string{"FILE:3", `"demo"`, "line 1"}},
		"empty":            {file: " \n", want: []string{"FILE:1", "empty"}},
		"torn":             {file: "{\n\"listen\": \"127.", want: []string{"FILE:2", "torn"}},
		"torn after comma": {file: "{\n\"demo\": true,\n", want: []string{"FILE:3", "torn"}},
		"two objects":      {file: "{}\n{}", want: []string{"FILE:2", "torn"}},
		"array":            {file: "[1]", want: []string{"FILE:1", "object"}},
		"too large":        {file: strings.Repeat(" ", 1<<20+1), want: []string{"FILE", "larger"}},
		"misspelt":         {env: []string{"EPATCH_LISSTEN=1", "EPATCH_TEST_X=1", "EPATCH_PROFILE=p"}, strict: true, want: []string{"EPATCH_LISSTEN", "--help"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var args []string
			path := ""
			if c.file != "" {
				path = file(t, c.file)
				args = []string{"--config", path}
			}
			s := newSettings(t, args...)
			_, err := config.Load(s.fs, config.Options{Environ: c.env, Strict: c.strict, Known: []string{"profile"}})
			if err == nil {
				t.Fatalf("taken: %+v", s)
			}
			for _, w := range c.want {
				if w = strings.ReplaceAll(w, "FILE", path); !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
			if strings.Contains(err.Error(), "EPATCH_TEST_X") || strings.Contains(err.Error(), "EPATCH_PROFILE") {
				t.Errorf("refuses too much: %v", err)
			}
		})
	}
}

func TestNotStrict(t *testing.T) {
	t.Parallel()
	if _, err := config.Load(newSettings(t).fs, config.Options{Environ: []string{"EPATCH_DATA=x"}}); err != nil {
		t.Errorf("another program's setting stops a tool: %v", err)
	}
}

// TestOverruledFileIsChecked: a mistake must not wait until somebody drops the flag that hides it.
func TestOverruledFileIsChecked(t *testing.T) {
	t.Parallel()
	s := newSettings(t, "--listen", "x", "--config", file(t, `{"listen": {}}`))
	if _, err := config.Load(s.fs, config.Options{}); err == nil {
		t.Error("a wrong file is taken")
	}
}

func TestFileMode(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"writable by everybody":   {`{"demo": true}`, 0o646, "chmod o-w"},
		"readable secret":         {"{\n\"database-url\": \"hidden\"}", 0o644, ":2: \"database-url\" is secret"},
		"readable without":        {`{"demo": true}`, 0o644, ""},
		"secret, owner and group": {`{"database-url": "hidden"}`, 0o640, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := file(t, c.content)
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := config.Load(newSettings(t, "--config", path).fs, config.Options{})
			if (err == nil) != (c.want == "") || (err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden"))) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "absent")} {
		if _, err := config.Load(newSettings(t, "--config", path).fs, config.Options{}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s is read: %v", path, err)
		}
	}
}

func TestSecretStaysHidden(t *testing.T) {
	t.Parallel()
	fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
	fs.Int("pin", 0, "pin")
	if err := config.Secret(fs, "pin"); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(fs, config.Options{Environ: []string{"EPATCH_PIN=hidden"}}); err == nil || strings.Contains(err.Error(), "hidden") || !strings.Contains(err.Error(), "EPATCH_PIN") {
		t.Errorf("error %v", err)
	}
	if err := config.Secret(fs, "absent"); err == nil {
		t.Error("a flag that does not exist is secret")
	}
}

func TestHelpNamesVariables(t *testing.T) {
	t.Parallel()
	s := newSettings(t)
	config.Describe(s.fs)
	help := s.fs.FlagUsages()
	for _, w := range []string{"address [$EPATCH_LISTEN] (default \"127.0.0.1:1\")", "count [$EPATCH_MAX_COUNT] (default 1)", "[$EPATCH_CONFIG]"} {
		if !strings.Contains(help, w) {
			t.Errorf("help lacks %s:\n%s", w, help)
		}
	}
	if strings.Contains(help, "EPATCH_HELP") {
		t.Errorf("help is no setting:\n%s", help)
	}
}

func FuzzFile(f *testing.F) {
	for _, seed := range []string{`{"listen":"x","peers":["a"],"max-count":1e9}`, "{\"demo\":true,\n", "[]", "{\"ports\":[1,{}]}", "\xef\xbb\xbf{}", `{"listen":"\ud800"}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		path := file(t, content)
		_, err := config.Load(newSettings(t, "--config", path).fs, config.Options{})
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("error does not name the file: %v", err)
		}
	})
}
