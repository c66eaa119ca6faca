package kernels

import (
	"fmt"
	"testing"
)

// BenchmarkTile is what a processor can do at most: one tile, again and again.
func BenchmarkTile(b *testing.B) {
	for _, k := range []int{64, 384, 512} {
		for _, rows := range []int{1, 2, 4, active.rows()} {
			b.Run(fmt.Sprintf("%dx%d", rows, k), func(b *testing.B) {
				panel := active.panel()
				w := &worker{}
				t := tile{
					a: make([]float32, rows*k), lda: k, ldk: 1, b: make([]float32, k*panel), ldb: panel,
					c: make([]float32, rows*panel), ldc: panel, rows: rows, cols: panel, k: k,
				}
				for b.Loop() {
					active.tile(w, t)
				}
				b.ReportMetric(2*float64(rows*panel*k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOPS")
			})
		}
	}
}
