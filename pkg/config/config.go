// SPDX-License-Identifier: Apache-2.0

// Package config fills a program's settings from four places: the command line, then the environment, then a file, then
// the default. The flag set is the one list of settings: what is no flag is no setting, and --help shows them all with the
// names of their variables.
//
// The setting listen is --listen, EPATCH_LISTEN and the file's member "listen". The file is one JSON object whose members
// are named as the flags; lists may be arrays. A file that is empty, torn, too large, writable by others or holds an unknown
// or doubled member is refused with file and line, and a wrong value with the place it came from: a program that starts
// half configured fails in the night it is needed. An empty variable counts as not set.
package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Prefix begins the name of every variable.
const Prefix = "EPATCH_"

// FileFlag is the flag that names the file. It may be given on the command line or as EPATCH_CONFIG.
const FileFlag = "config"

// testPrefix begins variables that steer tests (EPATCH_TEST_..., EPATCH_TESTENV_...); no program reads them.
const testPrefix = Prefix + "TEST"

// Variable is the name of a setting's variable.
func Variable(flag string) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

const secretAnnotation = "epatch_secret"

// Secret marks settings whose value must not be shown: errors leave it out, and a file that holds one must not be
// readable by everybody.
func Secret(fs *pflag.FlagSet, flags ...string) error {
	for _, name := range flags {
		if err := fs.SetAnnotation(name, secretAnnotation, nil); err != nil {
			return fmt.Errorf("secret setting: %w", err)
		}
	}
	return nil
}

func isSecret(f *pflag.Flag) bool {
	_, secret := f.Annotations[secretAnnotation]
	return secret
}

// Describe adds the name of its variable to the help text of every flag. Call it once, when all flags are there.
func Describe(fs *pflag.FlagSet) {
	fs.VisitAll(func(f *pflag.Flag) {
		if setting(f) {
			f.Usage += " [$" + Variable(f.Name) + "]"
		}
	})
}

// setting tells settings from flags that ask for something to be done at once.
func setting(f *pflag.Flag) bool { return f.Name != "help" && f.Name != "version" }

// Options say where else settings come from.
type Options struct {
	// Environ is the environment, as os.Environ gives it.
	Environ []string
	// Strict refuses variables that begin with EPATCH_ and are no setting: for servers, where a misspelt variable must
	// not pass. Not for tools that people run in a shell full of other programs' settings.
	Strict bool
	// Known are settings of the same family of programs that Strict lets pass, by the names of their flags.
	Known []string
}

// Settings knows where each value came from.
type Settings struct {
	fs      *pflag.FlagSet
	sources map[string]string
}

// Load fills the flags that the command line did not set. Call it after parsing. All wrong values are reported at once.
func Load(fs *pflag.FlagSet, opt Options) (*Settings, error) {
	s := &Settings{fs: fs, sources: map[string]string{}}
	fs.Visit(func(f *pflag.Flag) { s.sources[f.Name] = "--" + f.Name })
	if err := s.environment(opt); err != nil {
		return nil, err
	}
	if f := fs.Lookup(FileFlag); f != nil && f.Value.String() != "" {
		if err := s.file(f.Value.String()); err != nil {
			return nil, fmt.Errorf("%w (the file is named by %s)", err, s.Source(FileFlag))
		}
	}
	return s, nil
}

// Source tells where a setting's value came from: --listen, EPATCH_LISTEN, file:line, or default.
func (s *Settings) Source(flag string) string {
	if from, ok := s.sources[flag]; ok {
		return from
	}
	return "default"
}

// Errorf is an error about a setting's value that names the setting and where it came from, for checks that a program
// makes itself.
func (s *Settings) Errorf(flag, format string, args ...any) error {
	return settingError(flag, s.Source(flag), fmt.Errorf(format, args...))
}

func settingError(flag, source string, err error) error {
	if source == "default" {
		return fmt.Errorf("--%s or %s: %w", flag, Variable(flag), err)
	}
	if source == "--"+flag || source == Variable(flag) {
		return fmt.Errorf("%s: %w", source, err)
	}
	return fmt.Errorf("%s: %q: %w", source, flag, err)
}

func (s *Settings) environment(opt Options) error {
	env, known := map[string]string{}, map[string]bool{}
	for _, pair := range opt.Environ {
		if name, value, ok := strings.Cut(pair, "="); ok && strings.HasPrefix(name, Prefix) {
			env[name] = value
		}
	}
	var errs []error
	s.fs.VisitAll(func(f *pflag.Flag) {
		name := Variable(f.Name)
		known[name] = true
		if value := env[name]; setting(f) && value != "" && s.Source(f.Name) == "default" {
			errs = append(errs, s.set(f, name, value))
		}
	})
	for _, flag := range opt.Known {
		known[Variable(flag)] = true
	}
	for name := range env {
		if opt.Strict && !known[name] && !strings.HasPrefix(name, testPrefix) {
			errs = append(errs, fmt.Errorf("%s: no setting is called so; --help lists all", name))
		}
	}
	return join(errs)
}

// set gives a flag a value from elsewhere than the command line.
func (s *Settings) set(f *pflag.Flag, source, value string) error {
	if err := s.fs.Set(f.Name, value); err != nil {
		return settingError(f.Name, source, wrong(f, err))
	}
	s.sources[f.Name] = source
	return nil
}

// wrong takes the flag library's sentence, which names the flag even where the value came from elsewhere, down to the
// cause.
func wrong(f *pflag.Flag, err error) error {
	if isSecret(f) {
		return fmt.Errorf("the value is no %s", f.Value.Type())
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return fmt.Errorf("%q is no %s: %w", invalid.GetValue(), f.Value.Type(), invalid.Unwrap())
	}
	return err
}

// join reports all errors in a fixed order.
func join(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}
