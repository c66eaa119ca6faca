package kernels_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
)

func near(t *testing.T, what string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	for i := range want {
		if diff := math.Abs(float64(got[i]) - want[i]); diff > tolerance || math.IsNaN(diff) {
			t.Fatalf("%s: [%d]: expected %g, found %g", what, i, want[i], got[i])
		}
	}
}

func TestLayerNorm(t *testing.T) { kernels.EachVariant(t, testLayerNorm) }

func testLayerNorm(t *testing.T) {
	const rows, width, eps = 70, 33, 1e-6
	rng := rand.New(rand.NewPCG(5, 5))
	x, gain, bias := random(rng, rows*width), random(rng, width), random(rng, width)
	for i := range x {
		x[i] += 1000 // a mean far above the deviation
	}
	var want []float64
	for r := range rows {
		row := x[r*width : (r+1)*width]
		mean, variance := 0.0, 0.0
		for _, v := range row {
			mean += float64(v) / width
		}
		for _, v := range row {
			variance += (float64(v) - mean) * (float64(v) - mean) / width
		}
		for i, v := range row {
			want = append(want, (float64(v)-mean)/math.Sqrt(variance+eps)*float64(gain[i])+float64(bias[i]))
		}
	}
	got, p := slices.Clone(x), newPool(t, 2) // in place
	p.LayerNorm(kernels.LayerNorm{X: got, Gain: gain, Bias: bias, Eps: eps, Dst: got})
	near(t, "LayerNorm", got, want, 1e-5)

	plain := make([]float32, len(x))
	p.LayerNorm(kernels.LayerNorm{X: x, Gain: gain, Eps: eps, Dst: plain})
	for i := range want {
		want[i] -= float64(bias[i%width])
	}
	near(t, "LayerNorm without a bias", plain, want, 1e-5)
}

// The values are PyTorch's (torch.nn.functional in float64) at these points.
func TestActivations(t *testing.T) {
	at := []float32{-4, -1, -0.25, 0, 0.5, 3}
	for name, want := range map[string][]float64{
		"gelu":        {-1.266849673e-04, -0.158655253931, -0.100323418579, 0, 0.345731230637, 2.995950305905},
		"gelu_new":    {-7.024594819e-05, -0.158808009392, -0.100324649298, 0, 0.345714009825, 2.996362607918},
		"gelu_python": {-1.266849673e-04, -0.158655253931, -0.100323418579, 0, 0.345731230637, 2.995950305905},
		"gelu_pytorch_tanh": {
			-7.024594819e-05, -0.158808009392, -0.100324649298, 0, 0.345714009825, 2.996362607918,
		},
		"relu":  {0, 0, 0, 0, 0.5, 3},
		"silu":  {-0.071944839848, -0.268941421370, -0.109455874779, 0, 0.311229665601, 2.857722380467},
		"swish": {-0.071944839848, -0.268941421370, -0.109455874779, 0, 0.311229665601, 2.857722380467},
		"tanh":  {-0.999329299739, -0.761594155956, -0.244918662404, 0, 0.462117157260, 0.995054753687},
	} {
		act, err := kernels.FindActivation("hidden_act", name)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(at))
		for i, x := range at {
			got[i] = act.Of(x)
		}
		near(t, name, got, want, 1e-6)
	}
	if !math.IsNaN(float64(kernels.ReLU.Of(float32(math.NaN())))) {
		t.Error("relu hides a NaN")
	}
	if _, err := kernels.FindActivation("hidden_act", "swish2"); err == nil ||
		err.Error() != `hidden_act: no activation is named "swish2"` {
		t.Error("an unknown name has an activation")
	}
}
