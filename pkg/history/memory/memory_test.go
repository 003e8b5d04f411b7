// SPDX-License-Identifier: Apache-2.0

package memory_test

import (
	"testing"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
	"cacert.org/emergency/pkg/history/memory"
)

func TestStore(t *testing.T) {
	t.Parallel()
	historytest.Run(t, func(*testing.T) *historytest.Rig {
		store := &memory.Store{}
		faulty := &historytest.Faulty{Store: store}
		var kept uint64
		return &historytest.Rig{
			Store:   faulty,
			Publish: func(_ testing.TB, subject string, data []byte) { store.Publish(subject, data) },
			Fail:    func(_ testing.TB, how historytest.Failure) { faulty.Fail(how) },
			Heal:    func(testing.TB) { faulty.Heal() },
			FlipByte: func(_ testing.TB, m history.Message) {
				store.Damage(func(sequence uint64, data []byte) ([]byte, bool) {
					if sequence == m.Sequence {
						data[len(data)/2] ^= 1
					}
					return data, true
				})
			},
			Backup: func(tb testing.TB) {
				if err := store.Scan(tb.Context(), 0, func(m history.Message) error { kept = m.Sequence; return nil }); err != nil {
					tb.Fatal(err)
				}
			},
			Restore: func(testing.TB) {
				store.Damage(func(sequence uint64, data []byte) ([]byte, bool) { return data, sequence <= kept })
			},
		}
	})
}
