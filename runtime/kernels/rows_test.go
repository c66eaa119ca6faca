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
		if math.Abs(float64(got[i])-want[i]) > tolerance {
			t.Fatalf("%s: [%d]: expected %g, found %g", what, i, want[i], got[i])
		}
	}
}

func TestLayerNorm(t *testing.T) {
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
	got := slices.Clone(x) // in place
	newPool(t, 2).LayerNorm(kernels.LayerNorm{X: got, Gain: gain, Bias: bias, Eps: eps, Dst: got})
	near(t, "LayerNorm", got, want, 1e-5)
}

// attend is attention by its definition, in float64.
func attend(a kernels.Attention) []float64 {
	width := a.Heads * a.Dim
	out := make([]float64, len(a.Q))
	for _, row := range a.Rows {
		for h := range a.Heads {
			for q := row.Start; q < row.End; q++ {
				weights, sum := []float64{}, 0.0
				for k := row.Start; k < row.End; k++ {
					score := 0.0
					for d := range a.Dim {
						score += float64(a.Q[q*width+h*a.Dim+d]) * float64(a.K[k*width+h*a.Dim+d])
					}
					e := math.Exp(score * float64(a.Scale))
					weights, sum = append(weights, e), sum+e
				}
				for k, e := range weights {
					for d := range a.Dim {
						out[q*width+h*a.Dim+d] += e / sum * float64(a.V[(row.Start+k)*width+h*a.Dim+d])
					}
				}
			}
		}
	}
	return out
}

func TestAttention(t *testing.T) {
	const heads, dim = 3, 7
	rows := []kernels.Span{{Start: 0, End: 1}, {Start: 1, End: 9}, {Start: 9, End: 26}}
	rng := rand.New(rand.NewPCG(6, 6))
	n := 26 * heads * dim
	a := kernels.Attention{
		Q: random(rng, n), K: random(rng, n), V: random(rng, n), Rows: rows,
		Heads: heads, Dim: dim, Scale: 0.4, Dst: make([]float32, n),
	}
	for i := range a.Dst {
		a.Dst[i] = float32(math.NaN()) // what stood there before is nobody's business
	}
	newPool(t, 2).Attention(a)
	near(t, "attention", a.Dst, attend(a), 1e-5)
}

// Scores beyond what exp can take: the largest wins outright.
func TestAttentionOfLargeScores(t *testing.T) {
	a := kernels.Attention{
		Q: []float32{100, 100}, K: []float32{3, 1}, V: []float32{5, 7}, Rows: []kernels.Span{{Start: 0, End: 2}},
		Heads: 1, Dim: 1, Scale: 1, Dst: make([]float32, 2),
	}
	newPool(t, 1).Attention(a)
	near(t, "attention", a.Dst, []float64{5, 5}, 1e-6)
}

func TestAttentionOfARowDoesNotSeeItsNeighbours(t *testing.T) {
	const heads, dim, width = 2, 5, 10
	p := newPool(t, 2)
	rng := rand.New(rand.NewPCG(7, 7))
	q, k, v := random(rng, 6*width), random(rng, 6*width), random(rng, 6*width)
	alone := kernels.Attention{
		Q: q, K: k, V: v, Rows: []kernels.Span{{Start: 0, End: 6}}, Heads: heads, Dim: dim, Scale: 1,
		Dst: make([]float32, 6*width),
	}
	p.Attention(alone)
	poison := make([]float32, 4*width)
	for i := range poison {
		poison[i] = float32(math.NaN())
	}
	amid := func(x []float32) []float32 { return slices.Concat(poison, x, poison) }
	mixed := kernels.Attention{
		Q: amid(q), K: amid(k), V: amid(v), Heads: heads, Dim: dim, Scale: 1, Dst: make([]float32, 14*width),
		Rows: []kernels.Span{{Start: 0, End: 4}, {Start: 4, End: 10}, {Start: 10, End: 14}},
	}
	p.Attention(mixed)
	if !sameBits(mixed.Dst[4*width:10*width], alone.Dst) {
		t.Error("a row among NaN neighbours differs from the row alone")
	}
}

// The values are PyTorch's (torch.nn.functional in float64) at these points.
func TestActivations(t *testing.T) {
	at := []float32{-4, -1, -0.25, 0, 0.5, 3}
	for name, want := range map[string][]float64{
		"gelu":     {-1.266849673e-04, -0.158655253931, -0.100323418579, 0, 0.345731230637, 2.995950305905},
		"gelu_new": {-7.024594819e-05, -0.158808009392, -0.100324649298, 0, 0.345714009825, 2.996362607918},
		"gelu_pytorch_tanh": {
			-7.024594819e-05, -0.158808009392, -0.100324649298, 0, 0.345714009825, 2.996362607918,
		},
		"relu": {0, 0, 0, 0, 0.5, 3},
		"silu": {-0.071944839848, -0.268941421370, -0.109455874779, 0, 0.311229665601, 2.857722380467},
	} {
		act, ok := kernels.ActivationByName(name)
		if !ok {
			t.Fatalf("no activation %q", name)
		}
		got := make([]float32, len(at))
		for i, x := range at {
			got[i] = act(x)
		}
		near(t, name, got, want, 1e-6)
	}
	if relu, _ := kernels.ActivationByName("relu"); !math.IsNaN(float64(relu(float32(math.NaN())))) {
		t.Error("relu hides a NaN")
	}
	if _, ok := kernels.ActivationByName("swish2"); ok {
		t.Error("an unknown name has an activation")
	}
}
