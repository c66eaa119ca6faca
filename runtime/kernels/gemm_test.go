package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
)

// epsilon is the distance of two float32 next to 1. A sum of k products in any order errs by at most about k·epsilon/2
// of the sum of their magnitudes; the tests hold the kernels, and the oracle, to that bound.
const epsilon = 0x1p-23

func random(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

func abs(x []float32) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(math.Abs(float64(v)))
	}
	return y
}

// oracle is x [m, k] · wᵀ, w [n, k], by gorgonia's own engine.
func oracle(t *testing.T, x, w []float32, m, n, k int) []float32 {
	t.Helper()
	a := tensor.New(tensor.WithShape(m, k), tensor.WithBacking(slices.Clone(x)))
	wt := make([]float32, len(w))
	for j := range n {
		for i := range k {
			wt[i*n+j] = w[j*k+i]
		}
	}
	b := tensor.New(tensor.WithShape(k, n), tensor.WithBacking(wt))
	c, err := tensor.MatMul(a, b)
	if err != nil {
		t.Fatal(err)
	}
	return c.Data().([]float32)
}

func gemm(p *kernels.Pool, g kernels.Gemm) []float32 {
	g.Dst = make([]float32, g.Rows*g.W.N)
	p.Gemm(g)
	return g.Dst
}

func doubles(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

func TestGemmAgreesWithGorgonia(t *testing.T) { kernels.EachVariant(t, testGemmAgreesWithGorgonia) }

func testGemmAgreesWithGorgonia(t *testing.T) {
	p := newPool(t, 2)
	rng := rand.New(rand.NewPCG(1, 1))
	for _, size := range [][3]int{
		{1, 1, 1}, {1, 3, 5}, {3, 1, 7}, {4, 2, 8}, {5, 7, 3}, {17, 10, 96}, {63, 65, 33}, {64, 64, 64}, {130, 129, 257},
	} {
		m, n, k := size[0], size[1], size[2]
		t.Run(fmt.Sprintf("%dx%dx%d", m, n, k), func(t *testing.T) {
			x, w := random(rng, m*k), random(rng, n*k)
			got := gemm(p, kernels.Gemm{X: x, Rows: m, W: kernels.Pack(nil, w, n, k)})
			want, magnitude := oracle(t, x, w, m, n, k), oracle(t, abs(x), abs(w), m, n, k)
			for i := range got {
				if diff := math.Abs(float64(got[i] - want[i])); diff > float64(k)*epsilon*float64(magnitude[i]) {
					t.Fatalf("[%d, %d]: expected %g, found %g", i/n, i%n, want[i], got[i])
				}
			}
		})
	}
}

func TestEpilogue(t *testing.T) { kernels.EachVariant(t, testEpilogue) }

func testEpilogue(t *testing.T) {
	p := newPool(t, 2)
	const m, n, k, r, stride = 70, 67, 9, 3, 71
	rng := rand.New(rand.NewPCG(2, 2))
	x, w, bias, residual := random(rng, m*k), random(rng, n*k), random(rng, n), random(rng, m*stride)
	up := random(rng, n*r)
	parts := []kernels.Part{
		{Start: 0, End: 1, T: random(rng, r), B: kernels.Pack(nil, up, n, r)},
		{Start: 2, End: 3, Gain: random(rng, n)},
		{Start: 4, End: 5, Bias: random(rng, n)},
		{Start: 5, End: 66, T: random(rng, 61*r), B: kernels.Pack(nil, up, n, r), Gain: random(rng, n), Bias: random(rng, n)},
	}
	product := gemm(p, kernels.Gemm{X: x, Rows: m, W: kernels.Pack(nil, w, n, k)})
	want := slices.Clone(residual)
	for i := range m {
		for j := range n {
			v, b := product[i*n+j], bias[j]
			for _, p := range parts {
				if i < p.Start || i >= p.End {
					continue
				}
				if p.B != nil {
					for l, t := range p.T[(i-p.Start)*r:][:r] {
						v += float32(t * up[j*r+l])
					}
				}
				if p.Gain != nil {
					v *= p.Gain[j]
				}
				if p.Bias != nil {
					b = p.Bias[j]
				}
			}
			want[i*stride+j] += max(v+b, 0)
		}
	}
	got := slices.Clone(residual) // Dst is the residual itself
	p.Gemm(kernels.Gemm{
		X: x, Rows: m, W: kernels.Pack(nil, w, n, k), Parts: parts, Bias: bias, Act: kernels.ReLU,
		Residual: got, Dst: got, DstStride: stride,
	})
	near(t, "act((x·Wᵀ + T·Bᵀ)·gain + bias) + residual", got, doubles(want), 1e-5)
}

func TestARowDoesNotDependOnItsNeighbours(t *testing.T) {
	kernels.EachVariant(t, func(t *testing.T) {
		testARowDoesNotDependOnItsNeighbours(t, 67, 66, 100, 1)
		testARowDoesNotDependOnItsNeighbours(t, 203, 34, 1100, 29) // of several blocks, and of several parts of K
	})
}

// testARowDoesNotDependOnItsNeighbours asks for rows of a product of m rows, of each step one, among NaN.
func testARowDoesNotDependOnItsNeighbours(t *testing.T, m, n, k, step int) {
	t.Helper()
	const r = 5
	rng := rand.New(rand.NewPCG(3, 3))
	w, bias := kernels.Pack(nil, random(rng, n*k), n, k), random(rng, n)
	low := kernels.Pack(nil, random(rng, n*r), n, r)
	gain, own := random(rng, n), random(rng, n)
	x, down := random(rng, m*k), random(rng, m*r)
	product := func(p *kernels.Pool, x, down []float32, rows int) []float32 {
		return gemm(p, kernels.Gemm{
			X: x, Rows: rows, W: w, Bias: bias,
			Parts: []kernels.Part{{Start: 0, End: rows, T: down, B: low, Gain: gain, Bias: own}},
		})
	}
	one := newPool(t, 1)
	for _, workers := range []int{1, 2, 4} {
		p := newPool(t, workers)
		for i := 0; i < m; i += step {
			poisoned, poisonedDown := nans(m*k), nans(m*r)
			copy(poisoned[i*k:], x[i*k:(i+1)*k])
			copy(poisonedDown[i*r:], down[i*r:(i+1)*r])
			got := product(p, poisoned, poisonedDown, m)
			if !sameBits(got[i*n:(i+1)*n], product(one, x[i*k:(i+1)*k], down[i*r:(i+1)*r], 1)) {
				t.Fatalf("%d x %d x %d, %d workers: row %d among NaN neighbours differs from the row alone", m, n, k, workers, i)
			}
		}
	}
}

func TestAPackedMatrixGivesItsRowsBack(t *testing.T) {
	kernels.EachVariant(t, testAPackedMatrixGivesItsRowsBack)
}

func testAPackedMatrixGivesItsRowsBack(t *testing.T) {
	const n, k = 5, 7 // the last panel is half empty
	w := random(rand.New(rand.NewPCG(9, 9)), n*k)
	packed := kernels.Pack(nil, w, n, k)
	for j := range n {
		row := make([]float32, k)
		if packed.Row(j, row); !sameBits(row, w[j*k:(j+1)*k]) {
			t.Errorf("row %d: expected %v, found %v", j, w[j*k:(j+1)*k], row)
		}
	}
	if most := int64(4 * (n*k + 8)); packed.Bytes() < 4*n*k || packed.Bytes() > most {
		t.Errorf("expected %d to %d bytes, at most a vector more than its values, found %d", 4*n*k, most, packed.Bytes())
	}
}

func BenchmarkGemm(b *testing.B) {
	p := newPool(b, 2)
	rng := rand.New(rand.NewPCG(4, 4))
	for _, size := range [][3]int{{544, 96, 96}, {544, 384, 96}, {197, 384, 384}, {8, 768, 768}, {512, 768, 3072}} {
		m, n, k := size[0], size[1], size[2]
		x, weights, dst := random(rng, m*k), random(rng, n*k), make([]float32, m*n)
		for _, dtype := range []kernels.DType{kernels.Float32, kernels.BFloat16} {
			name := map[kernels.DType]string{kernels.Float32: "float32", kernels.BFloat16: "bfloat16"}[dtype]
			b.Run(fmt.Sprintf("%s/%dx%dx%d", name, m, n, k), func(b *testing.B) {
				w := kernels.PackAs(nil, dtype, weights, n, k)
				for b.Loop() {
					p.Gemm(kernels.Gemm{X: x, Rows: m, W: w, Dst: dst})
				}
				b.ReportMetric(2*float64(m)*float64(n)*float64(k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOPS")
			})
		}
	}
}
