// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"testing"

	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/history/jetstream"
	"cacert.org/emergency/pkg/natsd"
)

func TestStore(t *testing.T) {
	t.Parallel()
	for name, by := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			historytest.Run(t, func(t *testing.T) *historytest.Rig { return suiteRig(t, by) })
		})
	}
}

func TestStreamName(t *testing.T) {
	t.Parallel()
	if jetstream.Stream != natsd.Stream {
		t.Errorf("stream %s here, %s in natsd", jetstream.Stream, natsd.Stream)
	}
}
