// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ident is a process for good: its number is used again one day, number and start time together are not.
type ident struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // in ticks since boot
}

// process is what the kernel tells about a process.
type process struct {
	ident
	parent, group, leader int // process numbers
	terminal              int64
	threads               int
	state                 byte
	name                  string
}

// stopped tells that it runs no code and will not until it is told to; a zombie never will.
func (p process) stopped() bool { return strings.IndexByte("TtZXx", p.state) >= 0 }

// dead tells that only its entry in the table is left.
func (p process) dead() bool { return strings.IndexByte("ZXx", p.state) >= 0 }

// table is the kernel's table of processes, in a folder as /proc is.
type table struct{ dir string }

// all reads every process. One that ends meanwhile is left out.
func (t *table) all() ([]process, error) {
	dir, err := os.Open(t.dir)
	if err != nil {
		return nil, fmt.Errorf("table of processes: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return nil, fmt.Errorf("table of processes: %w", err)
	}
	list := make([]process, 0, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, err := t.read(pid); err == nil {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("table of processes: %s shows none; is it mounted?", t.dir)
	}
	return list, nil
}

// read reads one process.
func (t *table) read(pid int) (process, error) {
	b, err := os.ReadFile(t.path(pid, "stat"))
	if err != nil {
		return process{}, err
	}
	p, err := parseStat(b)
	if err == nil && p.dead() && p.threads > 1 {
		p.state = t.living(p)
	}
	return p, err
}

// living is the state of a process whose first thread has ended while others go on: to the kernel's line it looks dead.
func (t *table) living(p process) byte {
	names, _ := filepath.Glob(t.path(p.PID, "task/*/stat"))
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil {
			if thread, err := parseStat(b); err == nil && !thread.dead() {
				return thread.state
			}
		}
	}
	return p.state
}

func (t *table) path(pid int, file string) string {
	return filepath.Join(t.dir, strconv.Itoa(pid), file)
}

// parseStat reads a line of proc_pid_stat(5). The name may hold anything, blanks and brackets too: it ends at the last one.
func parseStat(b []byte) (process, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || end < open {
		return process{}, errors.New("table of processes: a line without a name")
	}
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 20 || len(fields[0]) != 1 {
		return process{}, errors.New("table of processes: a line that is too short")
	}
	p := process{state: fields[0][0], name: string(b[open+1 : end])}
	var errs [7]error
	p.PID, errs[0] = strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	p.parent, errs[1] = strconv.Atoi(fields[1])
	p.group, errs[2] = strconv.Atoi(fields[2])
	p.leader, errs[3] = strconv.Atoi(fields[3])
	p.terminal, errs[4] = strconv.ParseInt(fields[4], 10, 64)
	p.threads, errs[6] = strconv.Atoi(fields[17])
	p.Start, errs[5] = strconv.ParseUint(fields[19], 10, 64)
	return p, errors.Join(errs[:]...)
}

// user is whose process it is (the real user), and how many threads it has.
func (t *table) user(pid int) (uid uint32, threads uint64, err error) {
	b, err := os.ReadFile(t.path(pid, "status"))
	if err != nil {
		return 0, 0, err
	}
	var found bool
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) == 0 || key != "Uid" && key != "Threads" {
			continue
		}
		n, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		if key == "Threads" {
			threads = n
		} else {
			uid, found = uint32(n), n <= 1<<32-1
		}
	}
	if !found {
		return 0, 0, fmt.Errorf("process %d: the kernel does not say whose it is", pid)
	}
	return uid, threads, nil
}

// marked tells whether a process was started with a variable; another user's process that may not be read is not.
func (t *table) marked(pid int, variable string) bool {
	b, err := os.ReadFile(t.path(pid, "environ"))
	return err == nil && bytes.Contains(append([]byte{0}, b...), []byte("\x00"+variable+"\x00"))
}

// command is the command line of a process, or its name if it has none.
func (t *table) command(p process) string {
	b, err := os.ReadFile(t.path(p.PID, "cmdline"))
	if text := strings.TrimSpace(string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))); err == nil && text != "" {
		return shorten(text, 200)
	}
	return p.name
}

// shorten keeps a text from filling a report.
func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + " ..."
}

// ancestors are the processes from one up to the first.
func ancestors(all []process, pid int) map[int]bool {
	parent := map[int]int{}
	for _, p := range all {
		parent[p.PID] = p.parent
	}
	set := map[int]bool{}
	for ; pid > 0 && !set[pid]; pid = parent[pid] {
		set[pid] = true
	}
	return set
}
