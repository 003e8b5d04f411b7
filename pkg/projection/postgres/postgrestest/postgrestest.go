// SPDX-License-Identifier: Apache-2.0

// Package postgrestest gives tests a real PostgreSQL: one throw-away server per test program, one database per test.
package postgrestest

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"cacert.org/emergency/pkg/projection/postgres/local"
)

// Server is a PostgreSQL that runs.
type Server struct{ *local.Server }

var (
	shared     *local.Server
	sharedErr  error
	sharedOnce sync.Once
	number     atomic.Int64
)

// named is the variable with the URL of a server where databases may be created, instead of one that is started.
const named = "EPATCH_TEST_DATABASE_URL"

// Main runs the tests of a package and ends the server that they started. Call it from TestMain.
func Main(m *testing.M) int {
	defer func() { _ = shared.End() }() // the folder goes anyway
	return m.Run()
}

// Database is a new, empty database: its URL.
func Database(tb testing.TB) string {
	tb.Helper()
	if address := os.Getenv(named); address != "" {
		made, err := local.NewDatabase(tb.Context(), address, name())
		if err != nil {
			tb.Fatal(err)
		}
		return made
	}
	sharedOnce.Do(func() { shared, sharedErr = local.New() })
	usable(tb, sharedErr)
	return (&Server{shared}).Database(tb)
}

func usable(tb testing.TB, err error) {
	tb.Helper()
	switch {
	case errors.Is(err, local.ErrNone) && os.Getenv("CI") == "":
		tb.Skipf("SKIPPED: %v; or %s=postgres://... names a server", err, named)
	case err != nil:
		tb.Fatal(err)
	}
}

// Own is a server for this test alone, which it may stop. EPATCH_TEST_DATABASE_URL does not help here.
func Own(tb testing.TB) *Server {
	tb.Helper()
	s, err := local.New()
	usable(tb, err)
	tb.Cleanup(func() { _ = s.End() }) // the folder goes anyway
	return &Server{s}
}

func name() string { return fmt.Sprintf("test_%d_%d", os.Getpid(), number.Add(1)) }

// Database makes an empty database and returns its URL.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	address, err := s.NewDatabase(tb.Context(), name())
	if err != nil {
		tb.Fatal(err)
	}
	return address
}
