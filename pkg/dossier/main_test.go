// SPDX-License-Identifier: Apache-2.0

package dossier_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain keeps the random histories few: each is folded many times. More of them: -rapid.checks=1000.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("30") // a number is always taken
	}
	os.Exit(m.Run())
}
