// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
)

// journal keeps the jobs that were taken up, so that each is done at most once and its result can be told again. A job is
// entered after it was verified and before anything is done for it. (The copies by which a job is undone are kept by package
// worktree, which has a journal of its own.)
type journal struct{ dir string }

// entry is one job.
type entry struct {
	number int // in the order in which jobs were taken up
	job    *deploymentv1.Job
	result *deploymentv1.JobResult // nil until it is done and reported
}

type entryFile struct {
	Number int             `json:"number"`
	Job    json.RawMessage `json:"job"`
	Result json.RawMessage `json:"result,omitempty"`
}

func openJournal(dir string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal of jobs: %w", err)
	}
	return &journal{dir}, nil
}

func (j *journal) path(id string) string {
	return filepath.Join(j.dir, strings.ReplaceAll(url.PathEscape(id), ".", "%2E")+".json")
}

// load returns a job that was taken up; nil if it was not.
func (j *journal) load(id string) (*entry, error) {
	e, err := readEntry(j.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return e, err
}

func readEntry(path string) (*entry, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f entryFile
	e := &entry{job: &deploymentv1.Job{}}
	err = json.Unmarshal(b, &f)
	if err == nil {
		err = protojson.Unmarshal(f.Job, e.job)
	}
	if err == nil && f.Result != nil {
		e.result = &deploymentv1.JobResult{}
		err = protojson.Unmarshal(f.Result, e.result)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): restore the state folder from a backup", path, err)
	}
	e.number = f.Number
	return e, nil
}

// begin enters a job. The same job may be begun again.
func (j *journal) begin(job *deploymentv1.Job) (*entry, error) {
	old, err := j.load(job.GetId())
	if err != nil {
		return nil, err
	}
	if old != nil && !proto.Equal(old.job, job) {
		return nil, refuse(codeJobDiffers, "job %s was taken up before with other values", job.GetId())
	}
	if old != nil {
		return old, nil
	}
	all, err := j.all()
	if err != nil {
		return nil, err
	}
	e := &entry{number: 1, job: job}
	if len(all) > 0 {
		e.number = all[len(all)-1].number + 1
	}
	return e, j.save(e)
}

func (j *journal) save(e *entry) error {
	f := entryFile{Number: e.number}
	var err error
	if f.Job, err = protojson.Marshal(e.job); err != nil {
		return err
	}
	if e.result != nil {
		if f.Result, err = protojson.Marshal(e.result); err != nil {
			return err
		}
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return writeFile(j.path(e.job.GetId()), b)
}

// all lists the jobs in the order in which they were taken up.
func (j *journal) all() ([]*entry, error) {
	names, err := filepath.Glob(filepath.Join(j.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var list []*entry
	for _, name := range names {
		e, err := readEntry(name)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(a.number, b.number) })
	return list, nil
}

// unfinished lists the jobs that a kill interrupted.
func (j *journal) unfinished() ([]*entry, error) {
	all, err := j.all()
	return slices.DeleteFunc(all, func(e *entry) bool { return e.result != nil }), err
}
