package kernels

import "math"

// Span is the tokens [Start, End) of one row of a batch.
type Span struct{ Start, End int }

// Attention is softmax(Scale·(Q·Kᵀ + relative terms))·V for each row and head; rows attend to their own tokens only.
type Attention struct {
	Q, K, V []float32 // [tokens, Heads·Dim]
	Stride  int       // distance of two tokens in them; 0: Heads·Dim
	Rows    []Span    // of Q and Dst
	Keys    []Span    // the same rows of K and V; nil: as Rows. A row may have fewer queries than keys: its first tokens'
	Heads   int
	Dim     int // of one head
	Scale   float32
	// Window is how far away a token may be that another attends to; 0: as far as the row goes.
	Window   int
	Relative *Relative // or nil
	Dst      []float32 // [tokens of Rows, Heads·Dim]
}

// Relative are the terms of disentangled attention (He et al., DeBERTa, arXiv:2006.03654, equation 4): to Q[i]·K[j] are
// added Q[i]·Keys[b] and K[j]·Queries[b], where b is the bucket of the distance i - j.
type Relative struct {
	Keys, Queries []float32 // [buckets, Heads·Dim]; nil: no such term
	// Buckets are those of the distances from -n to n, where n = len(Buckets)/2 is at least that of every pair.
	Buckets []int
}

const (
	// queriesPerTask is how many queries of a row and head one task computes, a panel at a time.
	queriesPerTask = 32
	// keysAtOnce is how many scores are kept of each query of a panel. They are counted from the first key.
	keysAtOnce = 256
)

// heads is what a worker computes attention with. A panel's queries stand side by side, as columns: their softmax needs
// no sums across a vector, and neither keys nor values have to be laid out anew.
type heads struct {
	queries  []float32 // [dim, panel]
	scores   []float32 // [keysAtOnce, panel]: become weights
	weighted []float32 // [dim, panel]: Σ weight · value
	largest  []float32 // [panel], as the rest
	sums     []float32
	correct  []float32
	inverse  []float32
	ones     []float32 // as many as a head has values, in whole vectors

	columns columns

	buckets  Span      // of the row's distances: the first, and one beyond the last
	biases   []float32 // [buckets, panel]: Q·Keysᵀ
	gathered []float32 // [distances, dim]
	opposite []float32 // [dim, distances]: Queries by distance
}

// reserve makes room for heads of that many values.
func (h *heads) reserve(dim int) {
	panel := active.panel()
	h.queries, h.weighted = atLeast(h.queries, dim*panel), atLeast(h.weighted, dim*panel)
	h.scores = atLeast(h.scores, keysAtOnce*panel)
	for _, x := range []*[]float32{&h.largest, &h.sums, &h.correct, &h.inverse} {
		*x = atLeast(*x, panel)
	}
	if n := ceilDiv(dim, panel) * panel; len(h.ones) < n {
		h.ones = make([]float32, n)
		for i := range h.ones {
			h.ones[i] = 1
		}
	}
}

// Attention computes operations that do not depend on each other: every row and head. Scores are kept for some keys at
// a time: memory is linear in a row's length.
func (p *Pool) Attention(ops ...Attention) {
	tasks := make([]int, len(ops))
	for i := range ops {
		a := &ops[i]
		if a.Stride == 0 {
			a.Stride = a.Heads * a.Dim
		}
		if a.Keys == nil {
			a.Keys = a.Rows
		}
		for _, row := range a.Rows {
			tasks[i] += a.Heads * a.parts(row)
		}
	}
	p.runEach(tasks, func(w *worker, i, task int) {
		a := &ops[i]
		row := 0
		for task >= a.Heads*a.parts(a.Rows[row]) {
			task -= a.Heads * a.parts(a.Rows[row])
			row++
		}
		parts := a.parts(a.Rows[row])
		a.part(w, a.Rows[row], a.Keys[row], task/parts*a.Dim, task%parts)
	})
}

// parts is how many tasks a head of a row is. What relative terms need is made once for all of a row's queries.
func (a *Attention) parts(row Span) int {
	if a.Relative != nil {
		return min(1, row.End-row.Start)
	}
	return ceilDiv(row.End-row.Start, queriesPerTask)
}

// part computes a head of some queries of a row, whose keys are row; at is the head's first column.
func (a *Attention) part(w *worker, asked, row Span, at, part int) {
	w.heads.reserve(a.Dim)
	queries := Span{asked.Start + part*queriesPerTask, min(asked.Start+(part+1)*queriesPerTask, asked.End)}
	if a.Relative != nil {
		queries = asked
		a.prepare(w, row, at)
	}
	panel := active.panel()
	for q := queries.Start; q < queries.End; q += panel {
		a.panel(w, row, Span{q, min(q+panel, queries.End)}, row.Start-asked.Start, at)
	}
}

// panel computes a head of at most a panel of queries; ahead is how much further their tokens stand among the keys.
func (a *Attention) panel(w *worker, row, queries Span, ahead, at int) {
	h, panel := &w.heads, active.panel()
	n := queries.End - queries.Start
	active.transpose(w, a.Q[queries.Start*a.Stride+at:], a.Stride, n, a.Dim, h.queries, panel, panel, h.ones)
	if a.Relative != nil && a.Relative.Keys != nil {
		a.bias(w, at)
	}
	width := a.Heads * a.Dim
	dst := a.Dst[queries.Start*width+at:]
	queries = Span{queries.Start + ahead, queries.End + ahead} // from here on as the keys are counted
	h.columns = columns{scores: h.scores, largest: h.largest, sums: h.sums, correct: h.correct, scale: a.Scale}
	for i := range panel {
		h.largest[i], h.sums[i] = -1e30, 0 // not infinite: a query may see none of the first keys
	}
	keys := row // that the queries attend to
	if a.Window > 0 {
		keys = Span{max(row.Start, queries.Start-a.Window), min(row.End, queries.End+a.Window)}
	}
	for first := keys.Start; first < keys.End; first += keysAtOnce {
		some := Span{first, min(first+keysAtOnce, keys.End)}
		a.score(w, row, queries, some, at)
		active.softmax(w, &h.columns, some.End-some.Start)
		if first > keys.Start {
			active.epilogue(w, epilogue{
				acc: h.weighted, lda: panel, dst: h.weighted, ldd: panel, gain: h.correct, rows: a.Dim, cols: panel,
			})
		}
		active.tile(w, tile{
			a: a.V[some.Start*a.Stride+at:], lda: 1, ldk: a.Stride, // Vᵀ, by its strides
			b: h.scores, ldb: panel, c: h.weighted, ldc: panel, rows: a.Dim, cols: panel, k: some.End - some.Start,
			add: first > keys.Start,
		})
	}
	for i, sum := range h.sums[:panel] {
		h.inverse[i] = 1 / sum
	}
	active.transpose(w, h.weighted, panel, a.Dim, n, dst, width, a.Dim, h.inverse)
}

// score computes the scores of some keys.
func (a *Attention) score(w *worker, row, queries, keys Span, at int) {
	h, panel := &w.heads, active.panel()
	k := a.K[keys.Start*a.Stride+at:]
	active.tile(w, tile{
		a: k, lda: a.Stride, ldk: 1, b: h.queries, ldb: panel, c: h.scores, ldc: panel,
		rows: keys.End - keys.Start, cols: panel, k: a.Dim,
	})
	if a.Relative != nil {
		for key := keys.Start; key < keys.End; key++ {
			a.relate(w, row, queries.Start-key, k[(key-keys.Start)*a.Stride:], h.scores[(key-keys.Start)*panel:][:panel])
		}
	}
	if a.Window == 0 {
		return
	}
	seen := Span{queries.Start + panel - 1 - a.Window, queries.Start + a.Window + 1} // by all queries
	for key := keys.Start; key < keys.End; key++ {
		if key < seen.Start || key >= seen.End {
			scores := h.scores[(key-keys.Start)*panel:][:panel]
			hide(scores, key-a.Window-queries.Start, key+a.Window-queries.Start)
		}
	}
}

// hide takes the scores out that are not of columns from first to last.
func hide(scores []float32, first, last int) {
	for i := range scores {
		if i < first || i > last {
			scores[i] = float32(math.Inf(-1))
		}
	}
}

// bucket is that of a distance, and of one beyond the last as the last's.
func (r *Relative) bucket(distance int) int {
	n := len(r.Buckets) / 2
	return r.Buckets[min(max(n+distance, 0), len(r.Buckets)-1)]
}

// distances is how many of them prepare lays out, from -far on: all of a row, and for the last panel some more.
func distances(row Span) (far, n int) {
	far = row.End - row.Start - 1
	return far, 2*far + 1 + active.panel()
}

// prepare seeks the buckets of a row's distances, and lays out their queries as columns, by distance.
func (a *Attention) prepare(w *worker, row Span, at int) {
	r, h := a.Relative, &w.heads
	far, n := distances(row)
	h.buckets = Span{math.MaxInt, 0}
	for distance := -far; distance <= far; distance++ {
		b := r.bucket(distance)
		h.buckets = Span{min(h.buckets.Start, b), max(h.buckets.End, b+1)}
	}
	if r.Queries == nil {
		return
	}
	h.gathered, h.opposite = atLeast(h.gathered, n*a.Dim), atLeast(h.opposite, n*a.Dim)
	width := a.Heads * a.Dim
	for i := range n {
		copy(h.gathered[i*a.Dim:(i+1)*a.Dim], r.Queries[r.bucket(i-far)*width+at:])
	}
	active.transpose(w, h.gathered, a.Dim, n, a.Dim, h.opposite, n, n, h.ones)
}

// bias computes Q·Keysᵀ of a panel of queries, for the buckets of a row.
func (a *Attention) bias(w *worker, at int) {
	h, panel, width := &w.heads, active.panel(), a.Heads*a.Dim
	buckets := h.buckets
	h.biases = atLeast(h.biases, (buckets.End-buckets.Start)*panel)
	keys := a.Relative.Keys[buckets.Start*width+at:]
	active.tile(w, tile{
		a: keys, lda: width, ldk: 1, b: h.queries, ldb: panel, c: h.biases, ldc: panel,
		rows: buckets.End - buckets.Start, cols: panel, k: a.Dim,
	})
}

// relate adds the relative terms of one key to its scores; distance is that of the panel's first query.
func (a *Attention) relate(w *worker, row Span, distance int, key, scores []float32) {
	r, h, panel := a.Relative, &w.heads, active.panel()
	if r.Queries != nil {
		far, n := distances(row)
		active.tile(w, tile{
			a: key, lda: a.Dim, ldk: 1, b: h.opposite[distance+far:], ldb: n, c: scores, ldc: panel, rows: 1, cols: panel,
			k: a.Dim, add: true,
		})
	}
	if r.Keys != nil {
		far := row.End - row.Start - 1
		for i := range scores {
			if distance+i <= far { // else it is of no query
				scores[i] += h.biases[(r.bucket(distance+i)-h.buckets.Start)*panel+i]
			}
		}
	}
}
