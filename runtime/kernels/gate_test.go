package kernels_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
)

func TestGated(t *testing.T) { kernels.EachVariant(t, testGated) }

func testGated(t *testing.T) {
	const rows, width = 70, 11
	rng := rand.New(rand.NewPCG(15, 15))
	x := random(rng, rows*2*width)
	p := newPool(t, 2)
	for name, c := range map[string]struct {
		act  kernels.Activation
		want func(v float64) float64
	}{
		"silu":          {kernels.SiLU, func(v float64) float64 { return v / (1 + math.Exp(-v)) }},
		"tanh":          {kernels.Tanh, math.Tanh},
		"no activation": {kernels.Identity, func(v float64) float64 { return v }},
	} {
		var want []float64
		for row := range slices.Chunk(x, 2*width) {
			for i := range width {
				want = append(want, c.want(float64(row[i]))*float64(row[width+i]))
			}
		}
		got := nans(rows * width)
		p.Gated(kernels.Gated{X: x, Width: width, Act: c.act, Dst: got})
		near(t, name, got, want, 1e-6)

		poisoned := nans(len(x))
		const alive = 40
		copy(poisoned[alive*2*width:], x[alive*2*width:(alive+1)*2*width])
		amid := make([]float32, rows*width)
		p.Gated(kernels.Gated{X: poisoned, Width: width, Act: c.act, Dst: amid})
		if !sameBits(amid[alive*width:(alive+1)*width], got[alive*width:(alive+1)*width]) {
			t.Errorf("%s: a row among NaN neighbours differs from the same among others", name)
		}
	}
}

func TestAddScaled(t *testing.T) {
	const width = 6
	rng := rand.New(rand.NewPCG(16, 16))
	dst := random(rng, 5*width)
	copy(dst[width:], nans(width)) // a neighbour
	ops := []kernels.Scaled{
		{X: random(rng, 3*width), Gain: random(rng, width), Dst: dst[:3*width]},
		{X: random(rng, 2*width), Gain: random(rng, width), Dst: dst[3*width:]},
	}
	var want []float64
	for _, op := range ops {
		for i, v := range op.X {
			want = append(want, float64(op.Dst[i])+float64(v)*float64(op.Gain[i%width]))
		}
	}
	newPool(t, 2).AddScaled(ops...)
	for _, row := range []int{0, 2, 3, 4} {
		near(t, "AddScaled", dst[row*width:(row+1)*width], want[row*width:(row+1)*width], 1e-6)
	}
}

func TestMean(t *testing.T) {
	const width = 5
	rng := rand.New(rand.NewPCG(17, 17))
	for _, rows := range []int{1, 2, 257} {
		x := random(rng, rows*width)
		want := make([]float64, width)
		for i, v := range x {
			want[i%width] += float64(v) / float64(rows)
		}
		got := nans(width)
		kernels.Mean(got, x)
		near(t, "Mean", got, want, 1e-6)
	}
}
