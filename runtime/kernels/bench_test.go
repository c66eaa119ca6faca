package kernels

import (
	"fmt"
	"testing"
)

// BenchmarkTile is what a processor can do at most: one tile, again and again.
func BenchmarkTile(b *testing.B) {
	for _, k := range []int{64, 384, 512} {
		for _, rows := range []int{1, 2, 4, active.rows()} {
			panel := active.panel()
			w := &worker{}
			t := tile{
				a: make([]float32, rows*k), lda: k, ldk: 1, b: make([]float32, k*panel), pairs: make([]uint32, k/2*panel),
				ldb: panel, c: make([]float32, rows*panel), ldc: panel, rows: rows, cols: panel, k: k,
			}
			pairs := t
			if rounded, words := active.round(w, t.a, k, rows, k); rounded != nil {
				pairs.rounded, pairs.lda = rounded, words
			}
			for name, compute := range map[string]func(){
				"float32":  func() { active.tile(w, t) },
				"bfloat16": func() { active.tilePairs(w, pairs) },
			} {
				b.Run(fmt.Sprintf("%s/%dx%d", name, rows, k), func(b *testing.B) {
					for b.Loop() {
						compute()
					}
					b.ReportMetric(2*float64(rows*panel*k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOPS")
				})
			}
		}
	}
}
