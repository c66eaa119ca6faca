package kernels_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/memory"
)

// Kernels read and write what they are given and not a byte behind it: to touch memory that is not there would end the
// process.
func TestNothingBehindAnOperandIsTouched(t *testing.T) {
	kernels.EachVariant(t, testNothingBehindAnOperandIsTouched)
}

func testNothingBehindAnOperandIsTouched(t *testing.T) {
	const page = 1024 // values
	p := newPool(t, 1)
	var regions []*memory.Region
	defer func() {
		for _, r := range regions {
			r.Free()
		}
	}()
	// edge is values whose last is the last of its page; behind that there is nothing.
	edge := func(values []float32) []float32 {
		r := &memory.Region{}
		regions = append(regions, r)
		pages := memory.Make[float32](r, (len(values)+page-1)/page*page)
		r.Seal()
		last := pages[len(pages)-len(values):]
		copy(last, values)
		return last
	}
	rng := rand.New(rand.NewPCG(6, 6))
	same := func(what string, got, want []float32) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: expected what the same operands make elsewhere", what)
		}
	}
	for range 20 {
		rows, n, k, r, heads := 1+rng.IntN(20), 1+rng.IntN(70), 1+rng.IntN(70), 1+rng.IntN(20), 1+rng.IntN(3)
		one := func(at func([]float32) []float32, seed uint64) (product, normed, context, gated []float32) {
			rng := rand.New(rand.NewPCG(seed, 0))
			operand := func(n int) []float32 { return at(random(rng, n)) }
			product = operand(rows * n)
			p.Gemm(kernels.Gemm{
				X: operand(rows * k), Rows: rows, W: kernels.Pack(nil, random(rng, n*k), n, k), Bias: operand(n),
				Parts: []kernels.Part{{
					Start: 0, End: rows, T: operand(rows * r), B: kernels.Pack(nil, random(rng, n*r), n, r),
					Gain: operand(n), Bias: operand(n),
				}},
				Act: kernels.GELU, Residual: operand(rows * n), Dst: product,
			})
			normed = operand(rows * k)
			p.LayerNorm(kernels.LayerNorm{X: operand(rows * k), Gain: operand(k), Bias: operand(k), Eps: 1e-5, Dst: normed})
			context = operand(rows * heads * k)
			p.Attention(kernels.Attention{
				Q: operand(rows * heads * k), K: operand(rows * heads * k), V: operand(rows * heads * k),
				Rows: []kernels.Span{{Start: 0, End: rows}}, Heads: heads, Dim: k, Scale: 0.1, Dst: context,
			})
			gated = operand(rows * k)
			p.Gated(kernels.Gated{X: operand(rows * 2 * k), Width: k, Act: kernels.SiLU, Dst: gated})
			return product, normed, context, gated
		}
		seed := rng.Uint64()
		product, normed, context, gated := one(slices.Clone[[]float32], seed)
		atProduct, atNormed, atContext, atGated := one(edge, seed)
		same("product", atProduct, product)
		same("LayerNorm", atNormed, normed)
		same("attention", atContext, context)
		same("gate", atGated, gated)
	}
}

// The panels of packed weights are read to their end alone, too.
func TestNothingBehindPackedWeightsIsTouched(t *testing.T) {
	kernels.EachVariant(t, func(t *testing.T) {
		p := newPool(t, 1)
		for _, n := range []int{8, 16, 24, 64} {
			const k = 128 // whole pages
			var r memory.Region
			w := random(rand.New(rand.NewPCG(7, 7)), n*k)
			packed := kernels.Pack(&r, w, n, k)
			r.Seal()
			x := random(rand.New(rand.NewPCG(8, 8)), 7*k)
			got := gemm(p, kernels.Gemm{X: x, Rows: 7, W: packed})
			if !slices.Equal(got, gemm(p, kernels.Gemm{X: x, Rows: 7, W: kernels.Pack(nil, w, n, k)})) {
				t.Errorf("%d outputs: expected what the same weights make elsewhere", n)
			}
			r.Free()
		}
	})
}
