// SPDX-License-Identifier: Apache-2.0

// Package release makes the files of a release from a commit: static programs for each platform, in archives with what they are made of
// (CycloneDX), the licences of all of it, and checksums.
//
// Everything is built twice, from two clones at two paths, the second with an empty build cache, and compared byte for byte: whoever has the
// commit and the same Go makes the same files. What is not committed is not in it.
package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Platform is what programs are built for.
type Platform struct {
	OS, Arch string
	Programs []string
}

func (p Platform) String() string { return p.OS + "/" + p.Arch }

// Platforms are those of a release. Services and agents run on Linux; the client, which verifies a dossier offline, also elsewhere.
func Platforms() []Platform {
	all, client := []string{"epatch", "epatch-agent", "epatchd"}, []string{"epatch"}
	return []Platform{{"linux", "amd64", all}, {"linux", "arm64", all}, {"darwin", "amd64", client}, {"darwin", "arm64", client}}
}

// Config says what is made.
type Config struct {
	// Source is a git repository, Commit what is built of it.
	Source, Commit string
	// Out is the folder that the files are written to; it must not exist or be empty.
	Out       string
	Platforms []Platform
	// Warm lets the second build use the build cache of the first. It is then compared less strictly, and quickly.
	Warm bool
	// Say is told what happens.
	Say func(format string, a ...any)
}

// source is a clone of the commit.
type source struct {
	dir, version, commit string
	at                   time.Time
	cache                string // of builds; empty for the user's
}

// Make makes a release, and fails if building it again gives other bytes.
func Make(ctx context.Context, cfg Config) error {
	if entries, err := os.ReadDir(cfg.Out); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty: a release is written into a new folder", cfg.Out)
	}
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return fmt.Errorf("folder for building: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	if cfg.Commit, err = git(ctx, cfg.Source, "rev-parse", "--verify", cfg.Commit+"^{commit}"); err != nil { // once: HEAD may move meanwhile
		return err
	}
	var sums [2][]byte
	for i, place := range []string{"a", filepath.Join("another", "path")} {
		src, err := clone(ctx, cfg, filepath.Join(work, place))
		if err != nil {
			return err
		}
		out := cfg.Out
		if i == 1 {
			out = filepath.Join(work, "out")
			if !cfg.Warm {
				src.cache = filepath.Join(work, "cache")
			}
		}
		cfg.Say("build %d of 2: %s, commit %s", i+1, src.version, src.commit)
		if err := src.build(ctx, cfg, out); err != nil {
			return err
		}
		if sums[i], err = os.ReadFile(filepath.Join(out, sumsFile)); err != nil {
			return fmt.Errorf("checksums: %w", err)
		}
	}
	if !bytes.Equal(sums[0], sums[1]) {
		return fmt.Errorf("two builds of the same commit differ; this must not be released:\n%s", differences(sums[0], sums[1]))
	}
	cfg.Say("both builds gave the same bytes")
	return nil
}

// differences are the lines of two lists that the other does not have.
func differences(a, b []byte) string {
	var out []string
	for _, x := range []struct {
		mark      string
		has, want []byte
	}{{"first ", a, b}, {"second", b, a}} {
		for line := range strings.Lines(string(x.has)) {
			if !bytes.Contains(x.want, []byte(line)) {
				out = append(out, x.mark+" "+line)
			}
		}
	}
	return strings.Join(out, "")
}

// clone takes the commit out of the repository and finds its version: the tag vX.Y.Z on it, or what comes after the last one.
func clone(ctx context.Context, cfg Config, dir string) (*source, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("folder for building: %w", err)
	}
	if _, err := git(ctx, "", "clone", "--quiet", "--no-checkout", "--no-hardlinks", cfg.Source, dir); err != nil {
		return nil, err
	}
	commit := cfg.Commit
	if _, err := git(ctx, dir, "-c", "core.autocrlf=false", "checkout", "--quiet", "--detach", commit); err != nil {
		return nil, err
	}
	stamp, err := git(ctx, dir, "show", "--no-patch", "--format=%ct", commit)
	if err != nil {
		return nil, err
	}
	var seconds int64
	if _, err := fmt.Sscan(stamp, &seconds); err != nil {
		return nil, fmt.Errorf("time of commit %s: %w", commit, err)
	}
	src := &source{dir: dir, commit: commit, at: time.Unix(seconds, 0).UTC()}
	if src.version, err = git(ctx, dir, "describe", "--tags", "--match", "v[0-9]*", "--abbrev=12"); err != nil {
		src.version = fmt.Sprintf("v0.0.0-%s-%s", src.at.Format("20060102150405"), commit[:12]) // as the go command names a commit without a tag
	}
	return src, nil
}

// build makes all files.
func (s *source) build(ctx context.Context, cfg Config, out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("folder of the release: %w", err)
	}
	var made []string
	for _, p := range cfg.Platforms {
		files, err := s.platform(ctx, p, out)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		cfg.Say("  %s: %s", p, strings.Join(p.Programs, ", "))
		made = append(made, files...)
	}
	return writeSums(out, made)
}

// platform builds the programs of a platform and packs them; it returns the names of the files it made.
func (s *source) platform(ctx context.Context, p Platform, out string) ([]string, error) {
	bin, err := os.MkdirTemp("", "programs")
	if err != nil {
		return nil, fmt.Errorf("folder for programs: %w", err)
	}
	defer func() { _ = os.RemoveAll(bin) }()
	for _, program := range p.Programs {
		if err := s.compile(ctx, p, program, filepath.Join(bin, program)); err != nil {
			return nil, err
		}
	}
	parts, err := s.parts(ctx, p, bin)
	if err != nil {
		return nil, err
	}
	name := strings.Join([]string{"epatch", s.version, p.OS, p.Arch}, "-")
	sbom := name + ".cdx.json"
	bom, err := s.bom(p, bin, parts)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(out, sbom), bom, 0o644); err != nil {
		return nil, fmt.Errorf("bill of materials: %w", err)
	}
	files, err := s.content(ctx, p, bin, parts)
	if err != nil {
		return nil, err
	}
	files = append(files, file{name: "sbom.cdx.json", data: bom})
	archive := name + ".tar.gz"
	if err := writeArchive(filepath.Join(out, archive), name, s.at, files); err != nil {
		return nil, err
	}
	return []string{archive, sbom}, nil
}

// compile builds one program. The go command's own stamp is left out, as it depends on how the tree was obtained; version and commit are written in.
func (s *source) compile(ctx context.Context, p Platform, program, to string) error {
	const pkg = "cacert.org/emergency/pkg/version"
	flags := fmt.Sprintf("-s -w -buildid= -X %s.release=%s -X %s.commit=%s", pkg, s.version, pkg, s.commit)
	_, err := s.golang(ctx, p, "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", to, "./services/cmd/"+program)
	return err
}

// golang runs the go command in the clone, with what could change the result set, whatever the caller's environment says.
func (s *source) golang(ctx context.Context, p Platform, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=-mod=readonly", "GOEXPERIMENT=", "GOWORK=", "GODEBUG=", "GOFIPS140=off")
	if s.cache != "" {
		cmd.Env = append(cmd.Env, "GOCACHE="+s.cache)
	}
	return output(cmd)
}

// git runs git without anybody's configuration.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "LC_ALL=C")
	return output(cmd)
}

func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return "", fmt.Errorf("%s %s: %w", filepath.Base(cmd.Path), strings.Join(cmd.Args[1:], " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
