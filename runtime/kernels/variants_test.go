package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	"golang.org/x/sys/unix"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
)

func TestAVariantThatTheProcessorLacks(t *testing.T) {
	all := kernels.Names()
	if all[0] != "portable" {
		t.Errorf("expected every processor to have the portable variant, found %v", all)
	}
	for _, name := range all {
		if got, err := kernels.Choose(name); err != nil || got != name {
			t.Errorf("%s: expected it, found %s, %v", name, got, err)
		}
	}
	if got, err := kernels.Choose(""); err != nil || got != all[len(all)-1] {
		t.Errorf("expected the best, %s, found %s, %v", all[len(all)-1], got, err)
	}
	_, err := kernels.Choose("amx")
	want := "SWITCHYARD_KERNELS: expected one that this processor has, " + strings.Join(all, ", ") + `, found "amx"`
	if err == nil || err.Error() != want {
		t.Errorf("expected %s, found %v", want, err)
	}
}

// guarded are n values behind which there is a page that nobody may touch.
func guarded(t *testing.T, n int) []float32 {
	t.Helper()
	page := unix.Getpagesize()
	size := (n*4 + page - 1) / page * page
	memory, err := unix.Mmap(-1, 0, size+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(memory) })
	if err := unix.Mprotect(memory[size:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	return floats(memory[size-n*4 : size])
}

// Every height of a tile and every width of a panel: as gorgonia has it, each row as it is alone, and nothing read or
// written beyond the operands.
func TestTilesOfEverySize(t *testing.T) { kernels.EachVariant(t, testTilesOfEverySize) }

func testTilesOfEverySize(t *testing.T) {
	p := newPool(t, 1)
	rng := rand.New(rand.NewPCG(20, 20))
	for _, k := range []int{1, 2, 37, 1024} { // rows of 1024 are copied aside
		for m := 1; m <= 14; m++ {
			for _, n := range []int{1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 65} {
				x, dst, bias := guarded(t, m*k), guarded(t, m*n), guarded(t, n)
				copy(x, random(rng, m*k))
				copy(bias, random(rng, n))
				w := random(rng, n*k)
				packed := kernels.Pack(nil, w, n, k)
				p.Gemm(kernels.Gemm{X: x, Rows: m, W: packed, Bias: bias, Dst: dst})
				want, magnitude := oracle(t, x, w, m, n, k), oracle(t, abs(x), abs(w), m, n, k)
				for i := range want {
					bound := float64(k+1) * epsilon * (float64(magnitude[i]) + math.Abs(float64(bias[i%n])))
					if diff := math.Abs(float64(dst[i]) - float64(want[i]) - float64(bias[i%n])); !(diff <= bound) {
						t.Fatalf("%d x %d x %d: [%d, %d]: expected %g, found %g", m, n, k, i/n, i%n, want[i]+bias[i%n], dst[i])
					}
				}
				row := rng.IntN(m)
				alone := gemm(p, kernels.Gemm{X: x[row*k : (row+1)*k], Rows: 1, W: packed, Bias: bias})
				if !sameBits(alone, dst[row*n:(row+1)*n]) {
					t.Fatalf("%d x %d x %d: row %d differs from the row alone", m, n, k, row)
				}
			}
		}
	}
}

// bounds are how far each variant's activations may be from their definition, as a share of the larger of 1 and |x|.
var bounds = map[string]float64{"portable": 6e-8, "avx2": 1.5e-7, "avx512": 1.5e-7, "avx512bf16": 1.5e-7}

func TestActivationsOfEachVariant(t *testing.T) { kernels.EachVariant(t, testActivationsOfEachVariant) }

func testActivationsOfEachVariant(t *testing.T) {
	p := newPool(t, 1)
	name, _ := kernels.Variant()
	var x []float32
	for v := -110.0; v <= 110; v += 0.00731 {
		x = append(x, float32(v))
	}
	special := []float32{
		0, float32(math.Copysign(0, -1)), 1e-30, -1e-30, 1e-42, 3e38, -3e38,
		float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()),
	}
	x = append(x, special...)
	one := kernels.Pack(nil, []float32{1}, 1, 1)
	for act := kernels.Identity; act <= kernels.Tanh; act++ {
		y := gemm(p, kernels.Gemm{X: x, Rows: len(x), W: one, Act: act})
		worst := 0.0
		for i, v := range x {
			want := float64(act.Of(v))
			if math.IsInf(want, 0) || math.IsNaN(want) || math.IsInf(float64(v), 0) {
				if got := float64(y[i]); math.IsNaN(float64(v)) != math.IsNaN(got) && !math.IsInf(float64(v), -1) {
					t.Errorf("activation %d of %g: expected %g, found %g", act, v, want, got)
				}
				continue
			}
			off := math.Abs(float64(y[i])-want) / max(1, math.Abs(float64(v)))
			worst = max(worst, off)
		}
		if !(worst <= bounds[name]) {
			t.Errorf("activation %d: expected to be off by %g at most, found %g", act, bounds[name], worst)
		}
	}
}

func TestLayerNormOfEveryWidth(t *testing.T) { kernels.EachVariant(t, testLayerNormOfEveryWidth) }

func testLayerNormOfEveryWidth(t *testing.T) {
	p := newPool(t, 1)
	rng := rand.New(rand.NewPCG(21, 21))
	for _, width := range []int{1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 383, 768} {
		const rows, eps = 3, 1e-12
		x, gain, dst := guarded(t, rows*width), guarded(t, width), guarded(t, rows*width)
		copy(gain, random(rng, width))
		for i := range x {
			x[i] = float32(math.NaN())
		}
		copy(x[width:2*width], random(rng, width))
		x[width] += 100 // one that stands out, as in real models
		p.LayerNorm(kernels.LayerNorm{X: x, Gain: gain, Eps: eps, Dst: dst})
		mean, variance := 0.0, 0.0
		own := x[width : 2*width]
		for _, v := range own {
			mean += float64(v) / float64(width)
		}
		for _, v := range own {
			variance += (float64(v) - mean) * (float64(v) - mean) / float64(width)
		}
		want := make([]float64, width)
		for i, v := range own {
			want[i] = (float64(v) - mean) / math.Sqrt(variance+eps) * float64(gain[i])
		}
		near(t, fmt.Sprintf("a width of %d, among NaN rows", width), dst[width:2*width], want, 1e-5)
	}
}

// Heads and rows of every odd size, at the end of their memory.
func TestAttentionOfEverySize(t *testing.T) { kernels.EachVariant(t, testAttentionOfEverySize) }

func testAttentionOfEverySize(t *testing.T) {
	p := newPool(t, 2)
	rng := rand.New(rand.NewPCG(22, 22))
	dims, lengths := []int{1, 3, 8, 17, 64, 80}, []int{1, 2, 15, 16, 17, 33, 65, 300, 530}
	if testing.Short() {
		dims, lengths = []int{3, 17}, []int{1, 17, 300}
	}
	for _, dim := range dims {
		for _, tokens := range lengths {
			for _, window := range []int{0, 1, 64} {
				const heads = 2
				width := heads * dim
				a := kernels.Attention{
					Q: guarded(t, tokens*width), K: guarded(t, tokens*width), V: guarded(t, tokens*width),
					Rows: []kernels.Span{{Start: 0, End: tokens}}, Heads: heads, Dim: dim, Scale: 0.5, Window: window,
					Dst: guarded(t, tokens*width),
				}
				for _, x := range [][]float32{a.Q, a.K, a.V} {
					copy(x, random(rng, len(x)))
				}
				p.Attention(a)
				near(t, fmt.Sprintf("%d tokens of %d values, a window of %d", tokens, dim, window), a.Dst, attend(a), 3e-5)
			}
		}
	}
}

// A head of many tokens, among others and alone, is the same to the bit, wherever its row begins.
func TestALongRowAmongOthers(t *testing.T) { kernels.EachVariant(t, testALongRowAmongOthers) }

func testALongRowAmongOthers(t *testing.T) {
	const heads, dim, width, tokens, before = 3, 20, 60, 290, 7
	p := newPool(t, 2)
	rng := rand.New(rand.NewPCG(23, 23))
	q, k, v := random(rng, tokens*width), random(rng, tokens*width), random(rng, tokens*width)
	for _, window := range []int{0, 40} {
		alone := kernels.Attention{
			Q: q, K: k, V: v, Rows: []kernels.Span{{Start: 0, End: tokens}}, Heads: heads, Dim: dim, Scale: 1, Window: window,
			Dst: make([]float32, tokens*width),
		}
		p.Attention(alone)
		mixed := alone
		amid := func(x []float32) []float32 { return slices.Concat(nans(before*width), x, nans(width)) }
		mixed.Q, mixed.K, mixed.V, mixed.Dst = amid(q), amid(k), amid(v), make([]float32, (before+tokens+1)*width)
		const after = before + tokens
		mixed.Rows = []kernels.Span{{Start: 0, End: before}, {Start: before, End: after}, {Start: after, End: after + 1}}
		p.Attention(mixed)
		if !sameBits(mixed.Dst[before*width:(before+tokens)*width], alone.Dst) {
			t.Errorf("a window of %d: a row among NaN neighbours differs from the row alone", window)
		}
	}
}

// Keys that are all the same have the same weight, however many there are and whatever the scale: what is the largest
// stays so, and corrects nothing.
func TestManyEqualKeys(t *testing.T) { kernels.EachVariant(t, testManyEqualKeys) }

func testManyEqualKeys(t *testing.T) {
	const dim = 32
	tokens := 8192
	if testing.Short() {
		tokens = 1024
	}
	p := newPool(t, 2)
	rng := rand.New(rand.NewPCG(24, 24))
	one := random(rng, dim)
	a := kernels.Attention{
		Q: slices.Repeat(one, tokens), K: slices.Repeat(one, tokens), V: make([]float32, tokens*dim), Heads: 1, Dim: dim,
		Scale: float32(1 / math.Sqrt(dim)), Rows: []kernels.Span{{Start: 0, End: tokens}}, Dst: make([]float32, tokens*dim),
	}
	for token := range 256 { // of the first keys alone
		a.V[token*dim] = 1
	}
	p.Attention(a)
	want := 256 / float64(tokens)
	for token := range tokens {
		if got := float64(a.Dst[token*dim]); math.Abs(got/want-1) > 2e-6 {
			t.Fatalf("token %d: expected %g, found %g", token, want, got)
		}
	}
}

// Scores that no exp could take: the largest wins outright.
func TestScoresBeyondAllMeasure(t *testing.T) {
	kernels.EachVariant(t, func(t *testing.T) {
		a := kernels.Attention{
			Q: []float32{1e6, 1e6}, K: []float32{1e5, 1e3}, V: []float32{5, 7}, Rows: []kernels.Span{{Start: 0, End: 2}},
			Heads: 1, Dim: 1, Scale: 1, Dst: make([]float32, 2),
		}
		newPool(t, 1).Attention(a)
		near(t, "attention", a.Dst, []float64{5, 5}, 1e-6)
	})
}

// A sum of nothing is zero, whatever was computed before it.
func TestAProductOfNoTerms(t *testing.T) {
	kernels.EachVariant(t, func(t *testing.T) {
		p := newPool(t, 1)
		gemm(p, kernels.Gemm{X: []float32{3}, Rows: 1, W: kernels.Pack(nil, []float32{4}, 1, 1)})
		if got := gemm(p, kernels.Gemm{Rows: 1, W: kernels.Pack(nil, nil, 1, 0), Bias: []float32{2}}); got[0] != 2 {
			t.Errorf("expected 2, found %v", got)
		}
	})
}

// Workers that have nothing to do keep nothing alive of what they did.
func TestWhatWasComputedIsForgotten(t *testing.T) {
	kernels.EachVariant(t, func(t *testing.T) {
		p := newPool(t, 2)
		forgotten := func() weak.Pointer[float32] {
			dst := gemm(p, kernels.Gemm{X: make([]float32, 64*8), Rows: 64, W: kernels.Pack(nil, make([]float32, 64), 8, 8)})
			return weak.Make(&dst[0])
		}()
		for range 100 {
			if runtime.GC(); forgotten.Value() == nil {
				return
			}
		}
		t.Error("the result of a product is kept")
	})
}
