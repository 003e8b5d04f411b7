// SPDX-License-Identifier: Apache-2.0

// Package trackertest is a small MantisBT for tests: it speaks the REST API's real paths and JSON over real HTTP, and can be
// down, broken, slow, or lose its answers.
package trackertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Token is the API token that Mantis knows.
const Token = "pL4Y-token-of-the-patch-account"

// Project is the project of every bug.
const Project = "Emergency demo"

// Mode is how Mantis behaves.
type Mode int

// The modes.
const (
	Up         Mode = iota
	Broken          // 500 with a page of PHP, as a failed database gives
	Offline         // 503, as mantis_offline.php gives
	Gone            // connections are cut
	Slow            // no answer until the caller gives up
	LoseAnswer      // notes are written, the answers are lost
)

// Note is a note as it was written.
type Note struct {
	Text    string
	Private bool
}

// Mantis is the tracker. Bugs 1 to 2000 exist.
type Mantis struct {
	URL string

	mu      sync.Mutex
	mode    Mode
	notes   map[int][]Note
	seen    map[Mode]int
	changed chan struct{}
}

// Start runs a tracker until the end of the test.
func Start(t testing.TB) *Mantis {
	t.Helper()
	m := &Mantis{notes: map[int][]Note{}, seen: map[Mode]int{}, changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /mantis/api/rest/issues/{id}", m.issue)
	mux.HandleFunc("POST /mantis/api/rest/issues/{id}/notes", m.addNote)
	srv := httptest.NewServer(m.moody(mux))
	m.URL = srv.URL + "/mantis"
	t.Cleanup(srv.Close)
	return m
}

// Set changes the behaviour.
func (m *Mantis) Set(mode Mode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mode = mode
	m.tell()
}

// Notes returns the notes of a bug.
func (m *Mantis) Notes(issue int) []Note {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Note(nil), m.notes[issue]...)
}

// Seen is how many requests came while Mantis was in a mode.
func (m *Mantis) Seen(mode Mode) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen[mode]
}

// WaitFor waits until something holds of the tracker.
func (m *Mantis) WaitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		if holds() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the tracker never came so far: %s", what)
		}
	}
}

// tell wakes those who wait; the caller holds the lock.
func (m *Mantis) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// moody answers as the mode says, checks the token, and leaves the rest to next.
func (m *Mantis) moody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		mode := m.mode
		m.seen[mode]++
		m.tell()
		m.mu.Unlock()
		switch mode {
		case Broken:
			http.Error(w, "<br />Fatal error: database query failed", http.StatusInternalServerError)
			return
		case Offline:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case Gone:
			panic(http.ErrAbortHandler)
		case Slow:
			<-r.Context().Done()
			return
		case Up, LoseAnswer:
		}
		if r.Header.Get("Authorization") != Token {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

type object = map[string]any

func (m *Mantis) issue(w http.ResponseWriter, r *http.Request) {
	id, ok := number(w, r)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	answer(w, http.StatusOK, object{"issues": []object{m.issueObject(id)}})
}

// issueObject is a bug as MantisBT has it; without notes it has no member of that name.
func (m *Mantis) issueObject(id int) object {
	o := object{
		"id": id, "summary": "login shows certificates of strangers", "project": object{"id": 1, "name": Project},
		"status": object{"id": 50, "name": "assigned", "label": "assigned", "color": "#c2dfff"}, "sticky": false,
	}
	var notes []object
	for i, n := range m.notes[id] {
		view := object{"id": 10, "name": "public", "label": "public"}
		if n.Private {
			view = object{"id": 50, "name": "private", "label": "private"}
		}
		notes = append(notes, object{
			"id": id*100 + i, "reporter": object{"id": 7, "name": "epatch"}, "text": n.Text, "view_state": view, "type": "note",
			"created_at": "2026-11-24T20:00:00+00:00", "updated_at": "2026-11-24T20:00:00+00:00",
		})
	}
	if notes != nil {
		o["notes"] = notes
	}
	return o
}

func (m *Mantis) addNote(w http.ResponseWriter, r *http.Request) {
	id, ok := number(w, r)
	if !ok {
		return
	}
	var body struct {
		Text      string `json:"text"`
		ViewState struct {
			Name string `json:"name"`
		} `json:"view_state"`
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil || body.Text == "" || body.ViewState.Name != "public" && body.ViewState.Name != "private" {
		answer(w, http.StatusBadRequest, object{"message": "Issue note not specified.", "code": 11, "localized": "A necessary field was empty."})
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes[id] = append(m.notes[id], Note{Text: body.Text, Private: body.ViewState.Name == "private"})
	m.tell()
	if m.mode == LoseAnswer {
		panic(http.ErrAbortHandler)
	}
	issue := m.issueObject(id)
	notes, _ := issue["notes"].([]object)
	answer(w, http.StatusCreated, object{"note": notes[len(notes)-1], "issue": issue})
}

// number reads the bug's number; one that does not exist is answered as MantisBT does.
func number(w http.ResponseWriter, r *http.Request) (int, bool) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || id < 1 || id > 2000 {
		text := fmt.Sprintf("Issue #%s not found", r.PathValue("id"))
		answer(w, http.StatusNotFound, object{"message": text, "code": 1100, "localized": text})
		return 0, false
	}
	return id, true
}

func answer(w http.ResponseWriter, status int, body object) {
	w.Header().Set("Content-Type", "application/json;charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that has gone does not mind
}
