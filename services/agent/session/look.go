// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// view is what was seen on the host at a moment: names of things and, where a thing may change, what it was like. No contents
// are kept.
type view struct {
	Boot      string                    `json:"boot"`
	Processes []ident                   `json:"processes"`
	Things    map[Kind]map[string]state `json:"things"`
	// Unseen says what could not be looked at, and why.
	Unseen map[string]string `json:"unseen"`

	files int
}

// state is what a file or folder was like. Its times of change cannot be set back by who may not set the clock.
type state struct {
	Mode    uint32 `json:"mode,omitempty"`
	UID     uint32 `json:"uid,omitempty"`
	GID     uint32 `json:"gid,omitempty"`
	Size    int64  `json:"size,omitempty"`
	Changed int64  `json:"changed,omitempty"`
	Inode   uint64 `json:"inode,omitempty"`
	Sum     string `json:"sum,omitempty"`
}

func stateOf(info fs.FileInfo) state {
	st := state{Mode: uint32(info.Mode()), Size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		st.UID, st.GID, st.Inode, st.Changed = sys.Uid, sys.Gid, uint64(sys.Ino), changedAt(sys) //nolint:unconvert // its size differs between systems
	}
	if info.IsDir() { // what is in it is looked at by itself
		st.Size, st.Changed = 0, 0
	}
	return st
}

// lookWithin bounds one look at the host.
const lookWithin = 30 * time.Second

// look notes what is on the host. What cannot be looked at is noted as that and is no error.
func (k *Keeper) look(ctx context.Context) (*view, error) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	v := &view{Boot: k.boot(), Things: map[Kind]map[string]state{}, Unseen: map[string]string{}}
	for _, kind := range []Kind{KindTimer, KindSocket, KindKey, KindSudo, KindFile} {
		v.Things[kind] = map[string]state{}
	}
	all, err := k.table.all()
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		v.Processes = append(v.Processes, p.ident)
	}
	accounts := k.accounts(v)
	for _, pattern := range k.timerPatterns(accounts) {
		k.patterns(v, KindTimer, pattern)
	}
	for _, pattern := range []string{"/etc/sudoers", "/etc/sudoers.d/*", "/usr/local/etc/sudoers", "/usr/local/etc/sudoers.d/*", "/etc/doas.conf"} {
		k.patterns(v, KindSudo, pattern)
	}
	for _, a := range accounts {
		for _, name := range []string{"authorized_keys", "authorized_keys2"} {
			k.authorized(v, k.root(filepath.Join(a.home, ".ssh", name)))
		}
	}
	k.authorized(v, k.cfg.KeyFile)
	k.sockets(v)
	for _, folder := range k.cfg.Folders {
		k.walk(ctx, v, folder)
	}
	return v, nil
}

func (k *Keeper) boot() string {
	b, _ := os.ReadFile(filepath.Join(k.cfg.Proc, "sys/kernel/random/boot_id")) // none is as good as one: the next start has none, too
	return strings.TrimSpace(string(b))
}

// root is a path below the root that is looked at.
func (k *Keeper) root(path string) string { return filepath.Join(k.cfg.Root, path) }

// unseen notes what cannot be looked at. What does not exist was looked at.
func (v *view) unseen(what string, err error) {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	for errors.Is(err, fs.ErrPermission) { // once for the folder that may not be entered, not for each thing below it
		if _, no := os.Lstat(what); !errors.Is(no, fs.ErrPermission) {
			break
		}
		what = filepath.Dir(what)
	}
	v.Unseen[what] = err.Error()
}

// account is a line of the password file.
type account struct {
	name, home string
	uid        string
}

// accounts are those of the password file. Accounts of a directory service are not in it; of them only the console's is looked at.
func (k *Keeper) accounts(v *view) []account {
	list := []account{{k.cfg.Account, k.home, strconv.FormatUint(uint64(k.uid), 10)}}
	b, err := os.ReadFile(k.root("/etc/passwd"))
	v.unseen(k.root("/etc/passwd"), err)
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 7 || !filepath.IsAbs(f[5]) || f[5] == "/nonexistent" {
			continue
		}
		if a := (account{f[0], filepath.Clean(f[5]), f[2]}); a.name != k.cfg.Account {
			list = append(list, a)
		}
	}
	return list
}

// timerPatterns are where things lie that are started later or again: at, cron, anacron, and units of systemd with the links
// that switch them on.
func (k *Keeper) timerPatterns(accounts []account) []string {
	list := []string{
		"/var/spool/cron/atjobs/*", "/var/spool/atjobs/*", "/var/spool/at/*", "/etc/crontab", "/etc/anacrontab", "/etc/cron.*/*",
		"/var/spool/cron/*", "/var/spool/cron/crontabs/*", "/var/lib/systemd/linger/*", "/etc/rc.local", "/etc/init.d/*",
	}
	units := []string{
		"/etc/systemd/system", "/etc/systemd/user", "/run/systemd/system", "/run/systemd/transient", "/run/systemd/user",
		"/usr/local/lib/systemd/system", "/usr/local/lib/systemd/user", "/usr/lib/systemd/system", "/usr/lib/systemd/user",
	}
	for _, a := range accounts {
		units = append(units, filepath.Join(a.home, ".config/systemd/user"), filepath.Join(a.home, ".local/share/systemd/user"),
			filepath.Join("/run/user", a.uid, "systemd/transient"), filepath.Join("/run/user", a.uid, "systemd/user"))
	}
	for _, dir := range units {
		list = append(list, dir+"/*", dir+"/*/*")
	}
	return list
}

// patterns notes the files that a pattern names.
func (k *Keeper) patterns(v *view, kind Kind, pattern string) {
	dirs := []string{k.root(filepath.Dir(pattern))}
	if strings.Contains(dirs[0], "*") {
		dirs, _ = filepath.Glob(dirs[0]) // our own patterns are well formed
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		v.unseen(dir, err)
		for _, e := range entries {
			if ok, _ := filepath.Match(filepath.Base(pattern), e.Name()); !ok || e.IsDir() {
				continue
			}
			path := filepath.Join(dir, e.Name())
			info, err := os.Lstat(path)
			v.unseen(path, err)
			if err == nil {
				v.Things[kind][path] = stateOf(info)
			}
		}
	}
}

// maxKeys bounds a file of authorized keys.
const maxKeys = 1 << 20

// authorized notes each line of a file of authorized keys; of the keys the fingerprint, which sshd writes into its log.
func (k *Keeper) authorized(v *view, path string) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxKeys {
		v.Unseen[path] = fmt.Sprintf("it has %d bytes", info.Size())
		return
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	v.unseen(path, err)
	for line := range bytes.Lines(b) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		sum := sha256.Sum256(line)
		what := "a line that is no key"
		if key, note, options, _, err := ssh.ParseAuthorizedKey(line); err == nil {
			what = fmt.Sprintf("%s %s %s", key.Type(), ssh.FingerprintSHA256(key), shorten(note, 80))
			if len(options) > 0 {
				what += " with options " + shorten(strings.Join(options, ","), 200)
			}
		}
		v.Things[KindKey][path+": "+strings.TrimSpace(what)] = state{Sum: base64.RawStdEncoding.EncodeToString(sum[:])}
	}
}

// walk notes the files below a folder.
func (k *Keeper) walk(ctx context.Context, v *view, folder string) {
	top := k.root(folder)
	if real, err := filepath.EvalSymlinks(top); err == nil {
		top = real
	}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			v.unseen(path, err)
			return nil
		case k.excepted(path):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case v.listed(path):
			return nil
		}
		if v.files++; v.files > k.cfg.MaxFiles {
			return fmt.Errorf("more than %d files; name fewer folders or more exceptions in the agent's settings", k.cfg.MaxFiles)
		}
		info, err := d.Info()
		v.unseen(path, err)
		if err == nil {
			v.Things[KindFile][path] = stateOf(info)
		}
		return nil
	})
	if err != nil {
		v.Unseen["the rest of "+top] = err.Error()
	}
}

// listed tells that a file is noted already, as what it is.
func (v *view) listed(path string) bool {
	_, timer := v.Things[KindTimer][path]
	_, rule := v.Things[KindSudo][path]
	return timer || rule
}

// excepted tells that a path is none of the files that are looked at: the versioned tree, which is compared by itself, and the
// agent's own.
func (k *Keeper) excepted(path string) bool {
	return path == k.cfg.KeyFile || path == k.cfg.Socket || slices.ContainsFunc(k.cfg.Except, func(e string) bool {
		return e != "" && (path == e || strings.HasPrefix(path, strings.TrimSuffix(e, "/")+"/"))
	})
}
