package nn_test

import (
	"math"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/nn"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// A convolution's weights are one vector for each output, and what its tensors have beyond is of no account.
func TestDoRAOfPatches(t *testing.T) {
	root := nn.NewScope(newSource(t,
		wrappers.F32("patches.weight", []float32{1, 2, 3, 4, -1, -2, -3, -4}, 2, 1, 2, 2),
		wrappers.F32("patches.bias", []float32{100, 200}, 2),
	), kernels.Float32)
	patches := root.Patches("patches", 2, 1, 2, 2)
	layers, err := root.Layers()
	if err != nil {
		t.Fatal(err)
	}
	dora := layers.NewAdapter()
	update(t, dora, "patches", nn.Update{
		Down: dense([]float32{1, 0, 0, 1}, 1, 1, 2, 2), Up: dense([]float32{2, 4}, 2, 1, 1, 1),
		Magnitude: dense([]float32{5, 10}, 1, 2, 1, 1), Scale: 1,
	})
	// W' is [3 2 3 6] and [3 -2 -3 0], of the squares 58 and 22.
	b := batch(t, nn.Segment{0, 1, dora})
	b.Inputs = []nn.Input{{Pixels: []float32{1, 1, 1, 1}, Height: 2, Width: 2}}
	got := b.Patches(patches, 1, [2]int{2, 2})
	near(t, "DoRA", got, []float64{100 + 5*14/math.Sqrt(58), 200 + 10*-2/math.Sqrt(22)}, 1e-5)
}

// Images of any size are cut alike; each segment has its own projection.
func TestPatches(t *testing.T) {
	const out, channels, height, width, volume = 2, 2, 2, 3, 2 * 2 * 3
	kernel := make([]float32, out*volume)
	for i := range kernel {
		kernel[i] = float32(i%7) - 3
	}
	root := nn.NewScope(newSource(t,
		wrappers.F32("patches.weight", kernel, out, channels, height, width),
		wrappers.F32("patches.bias", []float32{0.5, -0.5}, out),
	), kernels.Float32)
	patches := root.Patches("patches", out, channels, height, width)
	layers, err := root.Layers()
	if err != nil {
		t.Fatal(err)
	}
	own := layers.NewAdapter()
	replace(t, own, "patches", map[string]*tensor.Dense{"bias": dense([]float32{7, 8}, out)})
	inputs := []nn.Input{{Height: 4, Width: 3}, {Height: 2, Width: 6}, {Height: 5, Width: 7}} // the last has edges
	biases := [][]float64{{0.5, -0.5}, {7, 8}, {7, 8}}
	var want []float64
	for i := range inputs {
		in := &inputs[i]
		for v := range channels * in.Height * in.Width {
			in.Pixels = append(in.Pixels, float32((v*v+i)%11))
		}
		for top := 0; top+height <= in.Height; top += height {
			for left := 0; left+width <= in.Width; left += width {
				for o := range out {
					sum := convolve(in, kernel[o*volume:], channels, height, width, top, left)
					want = append(want, biases[i][o]+sum)
				}
			}
		}
	}
	b := batch(t, nn.Segment{0, 1, nil}, nn.Segment{1, 3, own})
	b.Inputs = inputs
	near(t, "patches", b.Patches(patches, channels, [2]int{height, width}), want, 1e-5)
	if rows, cols := inputs[2].Grid([2]int{height, width}); rows != 2 || cols != 2 {
		t.Errorf("an image of 5 x 7: expected 2 x 2 whole patches, found %d x %d", rows, cols)
	}
}

// convolve is one output of a convolution at a place, in float64.
func convolve(in *nn.Input, kernel []float32, channels, height, width, top, left int) float64 {
	sum := 0.0
	for c := range channels {
		for y := range height {
			for x := range width {
				pixel := in.Pixels[(c*in.Height+top+y)*in.Width+left+x]
				sum += float64(pixel) * float64(kernel[(c*height+y)*width+x])
			}
		}
	}
	return sum
}
