// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// tracker stands for the bug tracker: it takes notes by the paths and JSON of MantisBT's REST API and keeps them in memory.
type tracker struct {
	url    string
	server *http.Server

	mu    sync.Mutex
	notes []note
	came  chan struct{} // closed and replaced when a note comes
}

type note struct {
	ID    int    `json:"id"`
	Issue string `json:"-"`
	Text  string `json:"text"`
}

func startTracker(ctx context.Context) (*tracker, error) {
	var lc net.ListenConfig
	lis, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("stand-in bug tracker: %w", err)
	}
	t := &tracker{url: "http://" + lis.Addr().String(), came: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/rest/issues/{id}/notes", t.add)
	mux.HandleFunc("GET /api/rest/issues/{id}", t.show)
	t.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = t.server.Serve(lis) }() // ends with stop
	return t, nil
}

func (t *tracker) stop() { _ = t.server.Close() } // nothing is kept

func (t *tracker) add(w http.ResponseWriter, r *http.Request) {
	var n note
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&n); err != nil {
		http.Error(w, `{"message":"bad JSON"}`, http.StatusBadRequest)
		return
	}
	t.mu.Lock()
	n.ID, n.Issue = len(t.notes)+1, r.PathValue("id")
	t.notes = append(t.notes, n)
	close(t.came)
	t.came = make(chan struct{})
	t.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"note": n})
}

func (t *tracker) show(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	var list []note
	for _, n := range t.notes {
		if n.Issue == r.PathValue("id") {
			list = append(list, n)
		}
	}
	t.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		http.Error(w, `{"message":"no such issue"}`, http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"issues": []any{map[string]any{"id": id, "project": map[string]any{"id": 1, "name": "demo"}, "notes": list}}})
}

// wait waits until so many notes have come. They come by themselves, after what they tell of.
func (t *tracker) wait(ctx context.Context, n int) error {
	for {
		t.mu.Lock()
		have, came := len(t.notes), t.came
		t.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-came:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d notes came to the bug tracker: %w", have, n, ctx.Err())
		}
	}
}
