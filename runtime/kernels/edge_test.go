package kernels_test

import (
	"math/rand/v2"
	"os"
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
	if !memory.OffHeap {
		t.Skip("there is heap behind a region")
	}
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

// The panels of packed weights are read to their end alone, too, whole words where an odd K ends within one.
func TestNothingBehindPackedWeightsIsTouched(t *testing.T) {
	if !memory.OffHeap {
		t.Skip("there is heap behind a region")
	}
	kernels.EachVariant(t, func(t *testing.T) {
		p := newPool(t, 1)
		for _, c := range []struct {
			dtype kernels.DType
			each  int // k of a word
			less  int // of the last
		}{{kernels.Float32, 1, 0}, {kernels.BFloat16, 2, 0}, {kernels.BFloat16, 2, 1}} {
			// With the values that may be read behind the last they are of whole pages.
			for _, size := range [][2]int{
				{1, 1017}, {3, 681}, {5, 409}, {8, 128}, {9, 113}, {16, 64}, {23, 89}, {24, 128}, {31, 33}, {64, 16},
			} {
				n, k := size[0], size[1]*c.each-c.less
				w := random(rand.New(rand.NewPCG(7, 7)), n*k)
				elsewhere := kernels.PackAs(nil, c.dtype, w, n, k)
				var r memory.Region
				packed := packedAtTheEnd(t, &r, elsewhere, c.dtype, w)
				x := random(rand.New(rand.NewPCG(8, 8)), 7*k)
				for _, rows := range []int{1, 7} {
					got := gemm(p, kernels.Gemm{X: x, Rows: rows, W: packed})
					if !sameBits(got, gemm(p, kernels.Gemm{X: x, Rows: rows, W: elsewhere})) {
						t.Errorf("type %v, %d x %d: expected what the same weights make elsewhere", c.dtype, n, k)
					}
				}
				r.Free()
			}
		}
	})
}

// packedAtTheEnd packs weights as others are packed, so that their last word is the last of the region.
func packedAtTheEnd(
	t *testing.T, r *memory.Region, as *kernels.Packed, dtype kernels.DType, w []float32,
) *kernels.Packed {
	t.Helper()
	page := int64(os.Getpagesize())
	size := (as.Bytes() + page - 1) / page * page
	memory.Make[float32](r, int(size-as.Bytes())/4)
	packed := kernels.PackAs(r, dtype, w, as.N, as.K)
	r.Seal()
	if r.Bytes() != size || as.Bytes()%64 != 0 {
		t.Fatalf("expected %d bytes at the end of %d, found %d", as.Bytes(), size, r.Bytes())
	}
	return packed
}
