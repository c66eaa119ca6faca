package adapters_test

import (
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"time"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// A thousand adapters of a ViT-S are loaded; batches of 32 images are asked, in turn, of one of them, of the same 32
// each time, of those that Zipf's law (its exponent is 1.1) has of the thousand, and of 32 that no batch before has
// asked. How a batch of one differs from the same 32 is what segments cost; how the others differ from that, what a
// thousand do.
func BenchmarkAThousandAdapters(b *testing.B) {
	const (
		loaded, rows, rounds = 1000, 32, 7
		values               = 3 * 224 * 224
	)
	base, err := model.Open(openFolder(b, wrappers.Base(b, vitS).Write()), arch.Float32)
	if err != nil {
		b.Fatal(err)
	}
	e := engine.New(base, runtime.GOMAXPROCS(0))
	b.Cleanup(e.Close)
	set := adapters.New(e)
	all := make([]*engine.Adapter, loaded)
	for i := range all {
		entry := set.Load(strconv.Itoa(i), func() (*weights.Folder, error) { return weights.OpenFolder(small(b, i).Write()) })
		if entry.Err != nil {
			b.Fatal(entry.Err)
		}
		all[i] = entry.Adapter
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var batch engine.Batch
	for i := range rows {
		pixels := make([]float32, values)
		for j := range pixels {
			pixels[j] = float32(rng.NormFloat64())
		}
		batch.Inputs = append(batch.Inputs, engine.Input{
			Pixels: tensor.New(tensor.WithShape(3, 224, 224), tensor.WithBacking(pixels)),
		})
		batch.Rows = append(batch.Rows, engine.Row{Input: i})
	}
	asked, next := map[int]bool{}, loaded
	zipf := rand.NewZipf(rng, 1.1, 1, loaded-1)
	kinds := []func(row int) int{
		func(int) int { return 0 },
		func(row int) int { return row },
		func(int) int { return int(zipf.Uint64()) },
		func(int) int { // the popular come first, so those that nobody has asked are found from the end
			next--
			for asked[next] {
				next--
			}
			return next
		},
	}
	took := make([][]time.Duration, len(kinds))
	for round := range rounds + 1 {
		for kind, adapter := range kinds {
			for i := range batch.Rows {
				n := adapter(i)
				batch.Rows[i].Adapter, asked[n] = all[n], true
			}
			began := time.Now()
			if _, err := e.Run(batch); err != nil {
				b.Fatal(err)
			}
			if round > 0 { // the first warms up
				took[kind] = append(took[kind], time.Since(began))
			}
		}
	}
	one, same := milliseconds(took[0]), milliseconds(took[1])
	zipfs, unasked := milliseconds(took[2]), milliseconds(took[3])
	b.ReportMetric(one, "ms/one")
	b.ReportMetric(same/one, "same-32/one")
	b.ReportMetric(zipfs/one, "zipf/one")
	b.ReportMetric(zipfs/same, "zipf/same-32")
	b.ReportMetric(unasked/same, "unasked/same-32")
	b.ReportMetric(float64(len(asked)), "adapters-asked")
	b.ReportMetric(0, "ns/op")
}
