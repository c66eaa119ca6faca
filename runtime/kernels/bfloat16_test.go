package kernels_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
)

// rounded are the values as bfloat16 has them, by the definition: the nearer of two neighbours, else the even one.
func rounded(x []float32) []float32 {
	all := make([]float32, len(x))
	for i, v := range x {
		bits := math.Float32bits(v)
		below, above := math.Float32frombits(bits&^0xffff), math.Float32frombits(bits&^0xffff+1<<16)
		down, up := math.Abs(float64(v)-float64(below)), math.Abs(float64(above)-float64(v))
		if all[i] = below; up < down || up == down && bits>>16&1 == 1 {
			all[i] = above
		}
	}
	return all
}

// The largest of a type is its largest number that is finite.
func TestTheLargestOfAType(t *testing.T) {
	const largest = 0x7f7f0000
	for dtype, want := range map[kernels.DType]float32{
		kernels.Float32: math.MaxFloat32, kernels.BFloat16: math.Float32frombits(largest),
		kernels.Widened: math.Float32frombits(largest),
	} {
		if got := dtype.Largest(); got != want {
			t.Errorf("%v: expected %g, found %g", dtype, want, got)
		}
	}
}

func TestRoundingToBFloat16(t *testing.T) {
	for from, want := range map[uint32]uint32{
		0x3f800000: 0x3f800000, // 1
		0x80000000: 0x80000000, // -0
		0x3f807fff: 0x3f800000, // below the middle
		0x3f808000: 0x3f800000, // in the middle: to even
		0x3f808001: 0x3f810000,
		0x3f818000: 0x3f820000, // in the middle: to even
		0x3fffffff: 0x40000000, // the exponent grows
		0xbf818000: 0xbf820000,
		0x00000001: 0x00000000, // the least there is
		0x00018000: 0x00020000, // too small to be normal
		0x7f7fffff: 0x7f800000, // the largest is nearer to infinity
		0x7f800000: 0x7f800000,
		0xff800000: 0xff800000,
		0x7f800001: 0x7fc00000, // a NaN whose bits are all in the lower half
		0xffc12345: 0xffc10000,
	} {
		row := make([]float32, 1)
		newTable(kernels.BFloat16, []float32{math.Float32frombits(from)}, 1).Row(0, row)
		if got := math.Float32bits(row[0]); got != want {
			t.Errorf("%#08x: expected %#08x, found %#08x", from, want, got)
		}
	}
}

// roundsInputs tells whether the variant rounds what it multiplies with weights of bfloat16, too.
func roundsInputs() bool {
	name, _ := kernels.Variant()
	return name == "avx512bf16"
}

// A product of weights kept as bfloat16 is that of the rounded weights kept as float32, to the bit, or where a variant
// rounds both near that of both: a product of two bfloat16 is exact, and a sum of k of them errs as any. Whatever the
// sizes, a row among NaN neighbours is as alone, and nothing is read beyond the operands.
func TestProductsOfBFloat16(t *testing.T) { kernels.EachVariant(t, testProductsOfBFloat16) }

func testProductsOfBFloat16(t *testing.T) {
	one, two := newPool(t, 1), newPool(t, 2)
	rng := rand.New(rand.NewPCG(25, 25))
	for _, k := range []int{1, 2, 3, 37, 1023, 1024} {
		for m := 1; m <= 14; m++ {
			for _, n := range []int{1, 7, 8, 9, 16, 17, 24, 33, 65, 130} {
				x, dst := guarded(t, m*k), guarded(t, m*n)
				copy(x, random(rng, m*k))
				w, bias := random(rng, n*k), random(rng, n)
				packed := kernels.PackAs(nil, kernels.BFloat16, w, n, k)
				two.Gemm(kernels.Gemm{X: x, Rows: m, W: packed, Bias: bias, Dst: dst})
				product := func(x, w, bias []float32) []float32 {
					return gemm(one, kernels.Gemm{X: x, Rows: m, W: kernels.Pack(nil, w, n, k), Bias: bias})
				}
				if !roundsInputs() {
					if !sameBits(dst, product(x, rounded(w), bias)) {
						t.Fatalf("%d x %d x %d: expected the product of the rounded weights", m, n, k)
					}
				} else {
					a, b := rounded(x), rounded(w)
					want, magnitude := product(a, b, bias), product(abs(a), abs(b), abs(bias))
					for i := range want {
						diff := math.Abs(float64(dst[i]) - float64(want[i]))
						if !(diff <= float64(k+1)*epsilon*float64(magnitude[i])) {
							t.Fatalf("%d x %d x %d: [%d, %d]: expected %g, found %g", m, n, k, i/n, i%n, want[i], dst[i])
						}
					}
				}
				row := rng.IntN(m)
				poisoned := nans(m * k)
				copy(poisoned[row*k:], x[row*k:(row+1)*k])
				among := gemm(two, kernels.Gemm{X: poisoned, Rows: m, W: packed, Bias: bias})
				alone := gemm(one, kernels.Gemm{X: x[row*k : (row+1)*k], Rows: 1, W: packed, Bias: bias})
				if !sameBits(among[row*n:(row+1)*n], dst[row*n:(row+1)*n]) || !sameBits(alone, dst[row*n:(row+1)*n]) {
					t.Fatalf("%d x %d x %d: row %d, among NaN neighbours or alone, differs", m, n, k, row)
				}
			}
		}
	}
}

// Updates, gains and biases go on with the sums of bfloat16 as they do with those of float32.
func TestPartsOfAProductOfBFloat16(t *testing.T) {
	kernels.EachVariant(t, func(t *testing.T) {
		const m, n, k, r = 70, 67, 9, 3
		rng := rand.New(rand.NewPCG(26, 26))
		w := random(rng, n*k)
		g := kernels.Gemm{
			X: rounded(random(rng, m*k)), Rows: m, W: kernels.PackAs(nil, kernels.BFloat16, w, n, k), Bias: random(rng, n),
			Act: kernels.GELU,
			Parts: []kernels.Part{{
				Start: 3, End: 66, T: random(rng, 63*r), B: kernels.Pack(nil, random(rng, n*r), n, r), Gain: random(rng, n),
			}},
		}
		p := newPool(t, 2)
		got := gemm(p, g)
		g.W = kernels.Pack(nil, rounded(w), n, k)
		want := gemm(p, g)
		if roundsInputs() { // which changes nothing, but sums go otherwise
			near(t, "the product of the rounded weights", got, doubles(want), 1e-4)
		} else if !sameBits(got, want) {
			t.Error("expected the product of the rounded weights")
		}
	})
}

// Weights and updates that are kept as Widened multiply as those kept as Float32, to the bit, on processors that
// multiply bfloat16 themselves, too: what they are multiplied with is not rounded.
func TestProductsOfWidened(t *testing.T) {
	kernels.EachVariant(t, testProductsOfWidened)
	kernels.Rounding(t, func(t *testing.T) {
		testProductsOfWidened(t)
		g := kernels.Gemm{X: []float32{1.001}, Rows: 1, W: kernels.PackAs(nil, kernels.BFloat16, []float32{1}, 1, 1)}
		if got := gemm(newPool(t, 1), g); got[0] != 1 {
			t.Errorf("of bfloat16: expected what it is multiplied with rounded to 1, found %g", got[0])
		}
	})
}

func testProductsOfWidened(t *testing.T) {
	p := newPool(t, 2)
	rng := rand.New(rand.NewPCG(28, 28))
	for _, k := range []int{1, 2, 37, 515, 1024} {
		for _, r := range []int{1, 2, 7, 8} {
			for _, m := range []int{1, 5, 13} {
				for _, n := range []int{1, 8, 17, 33, 130} {
					w, b := rounded(random(rng, n*k)), rounded(random(rng, n*r))
					stride := r + rng.IntN(3)
					g := kernels.Gemm{X: random(rng, m*k), Rows: m, Bias: random(rng, n), Act: kernels.GELU, Parts: []kernels.Part{
						{Start: m / 3, End: m, T: random(rng, m*stride), TStride: stride, Gain: random(rng, n)},
					}}
					product := func(w, b *kernels.Packed) []float32 {
						g.W, g.Parts[0].B = w, b
						return gemm(p, g)
					}
					want := product(kernels.Pack(nil, w, n, k), kernels.Pack(nil, b, n, r))
					widened := product(kernels.PackAs(nil, kernels.Widened, w, n, k), kernels.PackAs(nil, kernels.Widened, b, n, r))
					if !sameBits(widened, want) {
						t.Fatalf("%d x %d x %d, rank %d: expected the product of float32", m, n, k, r)
					}
				}
			}
		}
	}
}

func TestAPackedMatrixOfBFloat16GivesItsRowsBack(t *testing.T) {
	kernels.EachVariant(t, func(t *testing.T) {
		const n, k = 35, 7 // the last panel is not full, and neither is the last pair
		w := random(rand.New(rand.NewPCG(27, 27)), n*k)
		packed := kernels.PackAs(nil, kernels.BFloat16, w, n, k)
		want := rounded(w)
		row := make([]float32, k)
		for j := range n {
			if packed.Row(j, row); !sameBits(row, want[j*k:(j+1)*k]) {
				t.Errorf("row %d: expected %v, found %v", j, want[j*k:(j+1)*k], row)
			}
		}
		if most := int64(2 * 48 * (k + 1)); packed.Bytes() < 2*n*k || packed.Bytes() > most {
			t.Errorf("expected %d to %d bytes, found %d", 2*n*k, most, packed.Bytes())
		}
	})
}
