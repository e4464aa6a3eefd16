package marker

import (
	"fmt"
	"testing"
	"time"

	"georep/integration/harness/fstest"
)

const burst = 10_000

// BenchmarkBurst is how long a burst of new files takes until all are marked, their making included.
func BenchmarkBurst(b *testing.B) {
	for _, kind := range fstest.All() {
		b.Run(kind, func(b *testing.B) {
			v := newVol(b, fstest.Mount(b, kind, fstest.Options{Size: 2 << 30})).start()
			v.settle()
			n := 0
			for b.Loop() {
				v.sh(fmt.Sprintf("mkdir -p %d/x; cd %d/x; seq 1 %d | xargs touch", n, n, burst))
				v.settle()
				n++
			}
			b.ReportMetric(float64(n*burst)/b.Elapsed().Seconds(), "files/s")
			losses, _ := v.m.beats.losses()
			b.ReportMetric(float64(losses), "overflows")
		})
	}
}

// BenchmarkScan is a scan of a tree in which nothing changed.
func BenchmarkScan(b *testing.B) {
	v := newVol(b, fstest.Mount(b, fstest.Ext4, fstest.Options{Size: 2 << 30}))
	v.sh(fmt.Sprintf("for d in 1 2 3 4 5 6 7 8; do mkdir $d; cd $d; seq 1 %d | xargs touch; cd ..; done", burst))
	v.start().settle()
	for b.Loop() {
		s := v.m.scans.Begin(false, false)
		s.Since = time.Now().Add(time.Hour)
		if err := s.Run(b.Context()); err != nil || s.Entries.Load() != 8*burst+8 {
			b.Fatal(s.Entries.Load(), err)
		}
	}
	b.ReportMetric(float64(b.N*8*burst)/b.Elapsed().Seconds(), "entries/s")
}
