// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"cacert.org/emergency/pkg/history"
	"cacert.org/emergency/pkg/history/historytest"
)

// BenchmarkAppend compares an append with a plain publish that waits for its acknowledgement: alone, and many at once
// on different incidents, which must overlap.
func BenchmarkAppend(b *testing.B) {
	r := newRig(b)
	keys := historytest.NewKeys(b, "services")
	signed := keys.Seal(b, historytest.Record(b, "e1", "incident", history.Head{}, 3, fmt.Sprintf("%0200d", 0)))
	store, js := openStore(b, r.url, nil), connect(b, r.url)
	var incidents atomic.Int64
	appends := func(b *testing.B, next func() bool) {
		id := fmt.Sprintf("e%d", incidents.Add(1))
		for last := uint64(0); next(); {
			sequence, err := store.Append(b.Context(), id, last, signed, nil)
			if err != nil {
				b.Error(err)
				return
			}
			last = sequence
		}
	}
	publishes := func(b *testing.B, next func() bool) {
		subject := fmt.Sprintf("emergency.e%d", incidents.Add(1))
		for next() {
			if _, err := js.Publish(b.Context(), subject, signed); err != nil {
				b.Error(err)
				return
			}
		}
	}
	for name, work := range map[string]func(*testing.B, func() bool){"append": appends, "publish": publishes} {
		b.Run(name+"/alone", func(b *testing.B) { work(b, b.Loop) })
		b.Run(name+"/64 at once", func(b *testing.B) {
			b.SetParallelism(32) // times two processors
			b.RunParallel(func(pb *testing.PB) { work(b, pb.Next) })
		})
	}
}

// BenchmarkRead reads incidents of some lengths that lie scattered among 20,000 records, and the whole stream.
func BenchmarkRead(b *testing.B) {
	r := newRig(b)
	js := connect(b, r.url)
	fill(b, js)
	for name, by := range ways() {
		store := openStore(b, r.url, by)
		for _, n := range []int{10, 100, 1000} {
			id := fmt.Sprintf("x%d", n)
			last, err := store.Last(b.Context(), id)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("load %d/%s", n, name), func(b *testing.B) {
				for b.Loop() {
					if got, err := store.Load(b.Context(), id, 0); err != nil || len(got) != n {
						b.Fatalf("%d messages (%v)", len(got), err)
					}
				}
			})
			if n == 1000 {
				b.Run(fmt.Sprintf("load the last one/%s", name), func(b *testing.B) {
					for b.Loop() {
						if got, err := store.Load(b.Context(), id, last-1); err != nil || len(got) != 1 {
							b.Fatalf("%d messages (%v)", len(got), err)
						}
					}
				})
			}
		}
		b.Run(fmt.Sprintf("scan/%s", name), func(b *testing.B) {
			count := 0
			for b.Loop() {
				if err := store.Scan(b.Context(), 0, func(history.Message) error { count++; return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(count)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

func fill(b *testing.B, js natsjs.JetStream) {
	b.Helper()
	data := make([]byte, 900)
	publish := func(subject string) {
		if _, err := js.PublishAsync(subject, data); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 20000 {
		for _, n := range []int{10, 100, 1000} {
			if i%(20000/n) == 0 {
				publish(fmt.Sprintf("emergency.x%d", n))
			}
		}
		publish(fmt.Sprintf("emergency.e%d", i%50))
		if i%1000 == 999 {
			<-js.PublishAsyncComplete()
		}
	}
}
