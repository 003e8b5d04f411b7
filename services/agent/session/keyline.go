// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// grantForm is what names a session everywhere: the incident and its grant.
var grantForm = regexp.MustCompile(`^[ex][0-9]{8}\.[1-9][0-9]{0,5}/G[1-9][0-9]{0,5}$`)

// checkGrant lets no text into key lines, file names and group names that is not a grant's name.
func checkGrant(grant string) error {
	if !grantForm.MatchString(grant) {
		return fmt.Errorf("%.80q names no grant: <incident>/<grant> is needed, such as e20261124.1/G1", grant)
	}
	return nil
}

// Line is one key that may open one session.
type Line struct {
	// Grant, such as e20261124.1/G1.
	Grant string
	// PublicKey is an Ed25519 key as in an authorized_keys line, without options; a comment is dropped.
	PublicKey string
	// Until when sshd accepts the key.
	Until time.Time
	// From are the addresses or prefixes that may use it; any if empty.
	From []string
	// Program and Socket are what the key may do: run Program's console shell, which asks the agent behind Socket.
	Program, Socket string
}

// ours begins and ends what this package wrote into a key file; every other line is somebody else's.
const (
	ours    = "restrict,pty,"
	comment = "epatch-console:"
)

// text is the line as sshd reads it (AUTHORIZED_KEYS FILE FORMAT in sshd(8)): nothing is allowed but a terminal, and no command
// runs but ours. The key is written anew from what it decodes to, so that nothing else can hide in it.
func (l Line) text() (string, error) {
	if err := checkGrant(l.Grant); err != nil {
		return "", err
	}
	key, err := parseKey(l.PublicKey)
	if err != nil {
		return "", err
	}
	if l.Until.IsZero() {
		return "", errors.New("key line: without an end the key would be good for ever")
	}
	for _, from := range l.From {
		_, errAddr := netip.ParseAddr(from)
		if _, errPrefix := netip.ParsePrefix(from); errAddr != nil && errPrefix != nil {
			return "", fmt.Errorf("key line: %.80q is neither an address nor a prefix", from)
		}
	}
	program, err := shellWord(l.Program)
	if err != nil {
		return "", err
	}
	socket, err := shellWord(l.Socket)
	if err != nil {
		return "", err
	}
	options := ours + `expiry-time="` + l.Until.UTC().Format("20060102150405Z") + `"`
	if len(l.From) > 0 {
		options += `,from="` + strings.Join(l.From, ",") + `"`
	}
	options += `,command="` + program + " console-shell --socket " + socket + " --grant " + l.Grant + `"`
	return options + " " + key + " " + comment + l.Grant, nil
}

// parseKey reads a public key and returns it as type and base64.
func parseKey(text string) (string, error) {
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	switch {
	case err != nil:
		return "", errors.New("key line: the public key cannot be read; one line is needed, as in authorized_keys")
	case len(options) > 0 || len(bytes.TrimSpace(rest)) > 0:
		return "", errors.New("key line: one public key without options is needed")
	case key.Type() != ssh.KeyAlgoED25519:
		return "", fmt.Errorf("key line: a one-time key is %s, this is %.40q", ssh.KeyAlgoED25519, key.Type())
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), nil
}

var plainWord = regexp.MustCompile(`^/[A-Za-z0-9._/+@=,:-]+$`)

// shellWord is an absolute path as one word for the account's shell, within the quotation marks of a key line.
func shellWord(path string) (string, error) {
	if plainWord.MatchString(path) {
		return path, nil
	}
	if !filepath.IsAbs(path) || strings.ContainsAny(path, `'"\`) || strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("key line: %q is no absolute path, or has quotation marks, backslashes or control characters", path)
	}
	return "'" + path + "'", nil
}

// KeyFile is the file of console keys of one account, which sshd reads as one of its AuthorizedKeysFile. Lines that this
// package did not write are left as they are, byte by byte.
type KeyFile struct {
	Path string
	// Shared makes a new file readable for everybody: sshd reads it as the account, which then is another one than the agent's.
	Shared bool
}

// Install lets a key in. A former line of the same grant is replaced. After a return without error the line is durable.
func (f KeyFile) Install(l Line) error {
	text, err := l.text()
	if err != nil {
		return err
	}
	lines, err := f.read()
	if err != nil {
		return err
	}
	lines = slices.DeleteFunc(lines, func(s string) bool { return owner(s) == l.Grant })
	if n := len(lines); n > 0 && !strings.HasSuffix(lines[n-1], "\n") {
		lines[n-1] += "\n"
	}
	return f.write(append(lines, text+"\n"))
}

// Remove takes the key of a grant out and tells whether there was one.
func (f KeyFile) Remove(grant string) (bool, error) {
	if err := checkGrant(grant); err != nil {
		return false, err
	}
	lines, err := f.read()
	if err != nil {
		return false, err
	}
	kept := slices.DeleteFunc(slices.Clone(lines), func(s string) bool { return owner(s) == grant })
	if len(kept) == len(lines) {
		return false, nil
	}
	return true, f.write(kept)
}

// Grants lists whose keys are let in, in the order of the file.
func (f KeyFile) Grants() ([]string, error) {
	lines, err := f.read()
	var list []string
	for _, s := range lines {
		if grant := owner(s); grant != "" {
			list = append(list, grant)
		}
	}
	return list, err
}

// owner is the grant of a line that this package wrote, "" of any other.
func owner(line string) string {
	line = strings.TrimSuffix(line, "\n")
	at := strings.LastIndexByte(line, ' ')
	if !strings.HasPrefix(line, ours) || at < 0 {
		return ""
	}
	grant, ok := strings.CutPrefix(line[at+1:], comment)
	if !ok || checkGrant(grant) != nil {
		return ""
	}
	return grant
}

// read returns the lines with their ends. A missing file has none; anything but a regular file is refused, since a link would
// lead the agent's pen elsewhere.
func (f KeyFile) read() ([]string, error) {
	info, err := os.Lstat(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("console keys: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("console keys: %s is no regular file; put one in its place", f.Path)
	}
	b, err := os.ReadFile(f.Path)
	if err != nil {
		return nil, fmt.Errorf("console keys: %w", err)
	}
	return slices.Collect(strings.Lines(string(b))), nil
}

// write replaces the file; owner and mode stay.
func (f KeyFile) write(lines []string) error {
	mode, uid, gid := fs.FileMode(0o600), -1, -1
	folder := fs.FileMode(0o700)
	if f.Shared {
		mode, folder = 0o644, 0o755
	}
	if info, err := os.Lstat(f.Path); err == nil {
		mode = info.Mode().Perm() &^ 0o022 // sshd takes no file that others may write
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(st.Uid), int(st.Gid)
		}
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), folder); err != nil {
		return fmt.Errorf("console keys: %w", err)
	}
	if err := replaceFile(f.Path, []byte(strings.Join(lines, "")), mode, uid, gid); err != nil {
		return fmt.Errorf("console keys: %w", err)
	}
	return nil
}

// replaceFile replaces a file durably: after a crash it is the former or the new one, whole. Owners below 0 stay the agent's.
func replaceFile(path string, body []byte, mode fs.FileMode, uid, gid int) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".epatch-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(body)
	err = errors.Join(err, f.Chmod(mode))
	if uid >= 0 && (uid != os.Geteuid() || gid != os.Getegid()) {
		err = errors.Join(err, f.Chown(uid, gid))
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
