package kernels_test

import (
	"cmp"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
)

// attend is attention by its definition, in float64.
func attend(a kernels.Attention) []float64 {
	width := a.Heads * a.Dim
	stride := cmp.Or(a.Stride, width)
	out := make([]float64, len(a.Dst))
	for _, row := range a.Rows {
		for h := range a.Heads {
			for q := row.Start; q < row.End; q++ {
				keys, weights, sum := []int{}, []float64{}, 0.0
				for k := row.Start; k < row.End; k++ {
					if far := max(q-k, k-q); a.Window > 0 && far > a.Window {
						continue
					}
					of := func(x []float32, token int) []float32 { return x[token*stride+h*a.Dim:][:a.Dim] }
					score := inner(of(a.Q, q), of(a.K, k))
					if r := a.Relative; r != nil {
						bucket := r.Buckets[len(r.Buckets)/2+q-k]
						if r.Keys != nil {
							score += inner(of(a.Q, q), r.Keys[bucket*width+h*a.Dim:][:a.Dim])
						}
						if r.Queries != nil {
							score += inner(of(a.K, k), r.Queries[bucket*width+h*a.Dim:][:a.Dim])
						}
					}
					e := math.Exp(score * float64(a.Scale))
					keys, weights, sum = append(keys, k), append(weights, e), sum+e
				}
				for i, k := range keys {
					for d := range a.Dim {
						out[q*width+h*a.Dim+d] += weights[i] / sum * float64(a.V[k*stride+h*a.Dim+d])
					}
				}
			}
		}
	}
	return out
}

func inner(x, y []float32) float64 {
	sum := 0.0
	for i := range x {
		sum += float64(x[i]) * float64(y[i])
	}
	return sum
}

// buckets are those of the distances from -n to n: near ones have their own, far ones share one, as DeBERTa's do.
func buckets(n, near int) []int {
	all := make([]int, 2*n+1)
	for i := range all {
		all[i] = near + min(max(i-n, -near), near)
	}
	return all
}

func TestAttention(t *testing.T) { kernels.EachVariant(t, testAttention) }

func testAttention(t *testing.T) {
	const tokens, heads, dim, width, nearest = 26, 3, 7, 21, 3
	rng := rand.New(rand.NewPCG(6, 6))
	apart := kernels.Attention{Q: random(rng, tokens*width), K: random(rng, tokens*width), V: random(rng, tokens*width)}
	fused := random(rng, tokens*3*width) // a token's query, key and value side by side
	beside := kernels.Attention{Q: fused, K: fused[width:], V: fused[2*width:], Stride: 3 * width}
	terms := kernels.Relative{
		Keys: random(rng, (2*nearest+1)*width), Queries: random(rng, (2*nearest+1)*width), Buckets: buckets(17, nearest),
	}
	p := newPool(t, 2)
	for _, c := range []struct {
		name     string
		a        kernels.Attention
		window   int
		relative *kernels.Relative
	}{
		{"of whole rows", apart, 0, nil},
		{"within a window", apart, 2, nil},
		{"within a window that is wider than some rows", apart, 9, nil},
		{"of matrices with a stride", beside, 0, nil},
		{"with terms of keys", apart, 0, &kernels.Relative{Keys: terms.Keys, Buckets: terms.Buckets}},
		{"with terms of queries", apart, 0, &kernels.Relative{Queries: terms.Queries, Buckets: terms.Buckets}},
		{"with both terms", apart, 0, &terms},
		{"with all of it", beside, 4, &terms},
	} {
		a := c.a
		a.Rows = []kernels.Span{{Start: 0, End: 1}, {Start: 1, End: 9}, {Start: 9, End: tokens}}
		a.Heads, a.Dim, a.Scale, a.Window, a.Relative = heads, dim, 0.4, c.window, c.relative
		a.Dst = nans(tokens * width) // what stood there before is nobody's business
		p.Attention(a)
		near(t, "attention "+c.name, a.Dst, attend(a), 1e-5)

		// The first tokens of each row alone, among all keys, get the same bits.
		whole, stride, at := a.Dst, cmp.Or(a.Stride, width), 0
		var want []float32
		few := a
		few.Keys, few.Rows, few.Q, few.Dst = a.Rows, nil, nil, nil
		for _, row := range a.Rows {
			n := min(3, row.End-row.Start)
			few.Rows = append(few.Rows, kernels.Span{Start: at, End: at + n})
			few.Q = append(few.Q, a.Q[row.Start*stride:min((row.Start+n)*stride, len(a.Q))]...)
			want = append(want, whole[row.Start*width:(row.Start+n)*width]...)
			at += n
		}
		few.Dst = nans(at * width)
		p.Attention(few)
		if !slices.Equal(few.Dst, want) {
			t.Errorf("attention %s, of the first tokens of each row: expected %v, found %v", c.name, want, few.Dst)
		}
	}
}

// Scores are kept for some keys at a time: four times the tokens take four times the memory, not sixteen times.
func TestTheMemoryOfAttentionIsLinear(t *testing.T) {
	kernels.EachVariant(t, testTheMemoryOfAttentionIsLinear)
}

func testTheMemoryOfAttentionIsLinear(t *testing.T) {
	const (
		dim, tokens, times = 2, 512, 4
		few                = 4 << 10 // bytes that do not depend on tokens
	)
	// allocated is the least of some tries, as whatever else the process does meanwhile is counted, too. Each has a pool
	// of its own, whose worker has no room yet, and but one: a second makes room of its own, when it has its first task.
	allocated := func(tokens, window int) uint64 {
		const tries = 5
		x := make([]float32, tokens*dim)
		a := kernels.Attention{
			Q: x, K: x, V: x, Heads: 1, Dim: dim, Scale: 1, Window: window, Rows: []kernels.Span{{Start: 0, End: tokens}},
			Dst: make([]float32, tokens*dim),
		}
		least := uint64(math.MaxUint64)
		for range tries {
			p := newPool(t, 1)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			p.Attention(a)
			runtime.ReadMemStats(&after)
			least = min(least, after.TotalAlloc-before.TotalAlloc)
		}
		return least
	}
	for _, window := range []int{0, 8} {
		short, long := allocated(tokens, window), allocated(times*tokens, window)
		if long > times*short+few {
			t.Errorf("a window of %d: %d tokens took %d bytes, %d times as many %d", window, tokens, short, times, long)
		}
	}
}

// floats are the values in bytes.
func floats(memory []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(&memory[0])), len(memory)/4)
}

// nans are n values that spoil whatever they are added to.
func nans(n int) []float32 { return slices.Repeat([]float32{float32(math.NaN())}, n) }

// Scores beyond what exp can take: the largest wins outright.
func TestAttentionOfLargeScores(t *testing.T) { kernels.EachVariant(t, testAttentionOfLargeScores) }

func testAttentionOfLargeScores(t *testing.T) {
	a := kernels.Attention{
		Q: []float32{100, 100}, K: []float32{3, 1}, V: []float32{5, 7}, Rows: []kernels.Span{{Start: 0, End: 2}},
		Heads: 1, Dim: 1, Scale: 1, Dst: make([]float32, 2),
	}
	newPool(t, 1).Attention(a)
	near(t, "attention", a.Dst, []float64{5, 5}, 1e-6)
}

// Each operation has its own terms: the rows of one adapter are computed beside those of another.
func TestAttentionsTogether(t *testing.T) { kernels.EachVariant(t, testAttentionsTogether) }

func testAttentionsTogether(t *testing.T) {
	const heads, dim, width = 2, 4, 8
	p := newPool(t, 2)
	rng := rand.New(rand.NewPCG(10, 10))
	q, k, v := random(rng, 12*width), random(rng, 12*width), random(rng, 12*width)
	together := make([]float32, 12*width)
	var ops []kernels.Attention
	for _, rows := range [][]kernels.Span{{{Start: 0, End: 5}, {Start: 5, End: 7}}, {{Start: 7, End: 12}}} {
		ops = append(ops, kernels.Attention{
			Q: q, K: k, V: v, Rows: rows, Heads: heads, Dim: dim, Scale: 0.5, Dst: together,
			Relative: &kernels.Relative{Keys: random(rng, 3*width), Buckets: buckets(5, 1)},
		})
	}
	p.Attention(ops...)
	want := make([]float64, len(together))
	for _, op := range ops {
		for i, v := range attend(op) {
			want[i] += v // where an operation has no rows it is zero
		}
	}
	near(t, "attention", together, want, 1e-5)
}

func TestAttentionOfARowDoesNotSeeItsNeighbours(t *testing.T) {
	kernels.EachVariant(t, testAttentionOfARowDoesNotSeeItsNeighbours)
}

func testAttentionOfARowDoesNotSeeItsNeighbours(t *testing.T) {
	const heads, dim, width = 2, 5, 10
	p := newPool(t, 2)
	rng := rand.New(rand.NewPCG(7, 7))
	q, k, v := random(rng, 6*width), random(rng, 6*width), random(rng, 6*width)
	for name, how := range map[string]kernels.Attention{
		"of whole rows":   {},
		"within a window": {Window: 3},
		"with terms": {Relative: &kernels.Relative{
			Keys: random(rng, 5*width), Queries: random(rng, 5*width), Buckets: buckets(6, 2),
		}},
	} {
		how.Heads, how.Dim, how.Scale = heads, dim, 1
		alone, mixed := how, how
		alone.Q, alone.K, alone.V, alone.Dst = q, k, v, make([]float32, 6*width)
		alone.Rows = []kernels.Span{{Start: 0, End: 6}}
		p.Attention(alone)
		amid := func(x []float32) []float32 { return slices.Concat(nans(4*width), x, nans(4*width)) }
		mixed.Q, mixed.K, mixed.V, mixed.Dst = amid(q), amid(k), amid(v), make([]float32, 14*width)
		mixed.Rows = []kernels.Span{{Start: 0, End: 4}, {Start: 4, End: 10}, {Start: 10, End: 14}}
		p.Attention(mixed)
		if !sameBits(mixed.Dst[4*width:10*width], alone.Dst) {
			t.Errorf("%s: a row among NaN neighbours differs from the row alone", name)
		}
	}
}

// What is behind a window weighs nothing, however large it is. (A value that is not finite spoils the queries that are
// computed beside those that see it: of the same row, as in PyTorch.)
func TestAWindowHidesWhatIsBehindIt(t *testing.T) {
	kernels.EachVariant(t, testAWindowHidesWhatIsBehindIt)
}

func testAWindowHidesWhatIsBehindIt(t *testing.T) {
	const tokens, dim, window = 9, 4, 2
	p := newPool(t, 2)
	rng := rand.New(rand.NewPCG(11, 11))
	a := kernels.Attention{
		Q: random(rng, tokens*dim), K: random(rng, tokens*dim), V: random(rng, tokens*dim), Heads: 1, Dim: dim, Scale: 1,
		Rows: []kernels.Span{{Start: 0, End: tokens}}, Window: window, Dst: make([]float32, tokens*dim),
	}
	p.Attention(a)
	want := slices.Clone(a.Dst)
	const spoilt = 5
	for _, x := range [][]float32{a.K, a.V} {
		copy(x[spoilt*dim:], slices.Repeat([]float32{1e30}, dim))
	}
	p.Attention(a)
	for token := range tokens {
		got, want := a.Dst[token*dim:(token+1)*dim], want[token*dim:(token+1)*dim]
		if sees := max(token-spoilt, spoilt-token) <= window; sameBits(got, want) == sees {
			t.Errorf("token %d: sees the spoilt one: expected %v, found %v in place of %v", token, sees, got, want)
		}
	}
}
