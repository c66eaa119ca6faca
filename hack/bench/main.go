// Command bench prints what a batch of 32 rows over some adapters, the sample's three if no others are given, costs
// beside the same batch on the base model alone, and how long a health request waits while the engine is never idle.
// The two batches are run in turn, so that a noisy machine slows both; the ratio is of the medians.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"time"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/digits"
)

const (
	rows     = 32
	requests = 2000 // of health
)

func main() {
	const sample = "hack/samples/digits"
	base := flag.String("base-model", digits.Base(sample), "`folder` of the base model")
	adapters := flag.String("adapters", digits.Adapters(sample), "`folder` of the adapters' folders")
	dtype := flag.String("dtype", string(arch.Float32), "`type` that the base model's weights are kept as")
	tokens := flag.Int("tokens", 64, "`number` of tokens of each row, of a base model of texts")
	rounds := flag.Int("rounds", 31, "`number` of rounds")
	profile := flag.String("cpuprofile", "", "`file` for a profile of the batches, for go tool pprof")
	flag.Parse()
	if *profile != "" {
		file, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(file)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	}
	if err := run(*base, *adapters, *dtype, *tokens, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(baseFolder, adaptersFolder, dtype string, tokens, rounds int) error {
	workers := runtime.GOMAXPROCS(0)
	e, adapters, err := open(baseFolder, adaptersFolder, dtype, workers)
	if err != nil {
		return err
	}
	defer e.Close()
	mixed, base := batches(e, adapters, tokens)
	var times [2][]time.Duration
	for round := range rounds + 1 {
		for i, batch := range []engine.Batch{mixed, base} {
			began := time.Now()
			if _, err := e.Run(batch); err != nil {
				return err
			}
			if round > 0 { // the first warms up
				times[i] = append(times[i], time.Since(began))
			}
		}
	}
	pprof.StopCPUProfile() // if there is one
	m, b := median(times[0]), median(times[1])
	fmt.Printf("%d rows, %d workers, median of %d rounds in turn\n", rows, workers, rounds)
	fmt.Printf("  mixed, %d adapters  %8.2f ms\n", len(adapters), ms(m))
	fmt.Printf("  base model alone   %8.2f ms\n", ms(b))
	fmt.Printf("  ratio              %8.3f   (goal: at most 1.05)\n", float64(m)/float64(b))
	return healthAtFullLoad(e, workers, mixed, requests)
}

// open compiles every adapter of a folder.
func open(baseFolder, adaptersFolder, dtype string, workers int) (*engine.Engine, []*engine.Adapter, error) {
	kept, err := arch.ParseDType(dtype)
	if err != nil {
		return nil, nil, fmt.Errorf("-dtype: %w", err)
	}
	folder, err := weights.OpenFolder(baseFolder)
	if err != nil {
		return nil, nil, err
	}
	base, err := model.Open(folder, kept)
	if err != nil {
		return nil, nil, err
	}
	e := engine.New(base, workers)
	dir, err := weights.OpenFolder(adaptersFolder)
	if err != nil {
		return nil, nil, err
	}
	entries, err := dir.Entries()
	if err != nil {
		return nil, nil, err
	}
	var compiled []*engine.Adapter
	set := adapters.New(e)
	for _, entry := range entries {
		loaded := set.Load(entry.Name(), func() (*weights.Folder, error) { return dir.Sub(entry.Name()) })
		if loaded.Err != nil {
			return nil, nil, loaded.Err
		}
		compiled = append(compiled, loaded.Adapter)
	}
	return e, compiled, nil
}

// batches are the same inputs asked of the adapters in turn, and of the base alone. No two inputs are alike: what is
// the same is computed once.
func batches(e *engine.Engine, adapters []*engine.Adapter, tokens int) (mixed, base engine.Batch) {
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range rows {
		mixed.Inputs = append(mixed.Inputs, input(rng, e.Description(), tokens))
		mixed.Rows = append(mixed.Rows, engine.Row{Input: i, Adapter: adapters[i%len(adapters)]})
		base.Rows = append(base.Rows, engine.Row{Input: i})
	}
	base.Inputs = mixed.Inputs
	return mixed, base
}

// input is an image or a text drawn at random.
func input(rng *rand.Rand, d *arch.Description, tokens int) engine.Input {
	if d.Text != nil {
		ids := make([]int32, tokens)
		for i := range ids {
			ids[i] = rng.Int32N(int32(d.Text.Vocabulary))
		}
		return engine.Input{IDs: ids}
	}
	size := d.Image
	values := make([]float32, size.Channels*size.Height*size.Width)
	for i := range values {
		values[i] = float32(rng.NormFloat64())
	}
	pixels := tensor.New(tensor.WithShape(size.Channels, size.Height, size.Width), tensor.WithBacking(values))
	return engine.Input{Pixels: pixels}
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
