package kernels

import "math"

// Span is the tokens [Start, End) of one row of a batch.
type Span struct{ Start, End int }

// Attention is softmax(Scale·(Q·Kᵀ + relative terms))·V for each row and head; rows attend to their own tokens only.
type Attention struct {
	Q, K, V []float32 // [tokens, Heads·Dim]
	Stride  int       // distance of two tokens in them; 0: Heads·Dim
	Rows    []Span
	Heads   int
	Dim     int // of one head
	Scale   float32
	// Window is how far away a token may be that another attends to; 0: as far as the row goes.
	Window   int
	Relative *Relative // or nil
	Dst      []float32 // [tokens, Heads·Dim]
}

// Relative are the terms of disentangled attention (He et al., DeBERTa, arXiv:2006.03654, equation 4): to Q[i]·K[j] are
// added Q[i]·Keys[b] and K[j]·Queries[b], where b is the bucket of the distance i - j.
type Relative struct {
	Keys, Queries []float32 // [buckets, Heads·Dim]; nil: no such term
	// Buckets are those of the distances from -n to n, where n = len(Buckets)/2 is at least that of every pair.
	Buckets []int
}

// Attention computes operations that do not depend on each other: every row and head. Scores are kept for one query at
// a time: memory is linear in a row's length.
func (p *Pool) Attention(ops ...Attention) {
	tasks := make([]int, len(ops))
	for i := range ops {
		if ops[i].Stride == 0 {
			ops[i].Stride = ops[i].Heads * ops[i].Dim
		}
		tasks[i] = len(ops[i].Rows) * ops[i].Heads
	}
	p.runEach(tasks, func(i, task int) {
		a := &ops[i]
		a.head(a.Rows[task/a.Heads], task%a.Heads*a.Dim)
	})
}

// head computes one head of one row; at is the head's first column.
func (a *Attention) head(row Span, at int) {
	scores := make([]float32, row.End-row.Start)
	for query := row.Start; query < row.End; query++ {
		keys := row // that the query attends to
		if a.Window > 0 {
			keys = Span{max(row.Start, query-a.Window), min(row.End, query+a.Window+1)}
		}
		weights := scores[:keys.End-keys.Start]
		a.score(weights, query, keys.Start, at)
		softmax(weights)
		dst := a.packed(a.Dst, query, at)
		clear(dst)
		for i, weight := range weights {
			for j, v := range a.of(a.V, keys.Start+i, at) {
				dst[j] += float32(weight * v)
			}
		}
	}
}

// score writes the scores of one query and the keys from the first on.
func (a *Attention) score(scores []float32, query, first, at int) {
	q := a.of(a.Q, query, at)
	for i := range scores {
		k := a.of(a.K, first+i, at)
		score := dot(q, k)
		if r := a.Relative; r != nil {
			bucket := r.Buckets[len(r.Buckets)/2+query-first-i]
			if r.Keys != nil {
				score += dot(q, a.packed(r.Keys, bucket, at))
			}
			if r.Queries != nil {
				score += dot(k, a.packed(r.Queries, bucket, at))
			}
		}
		scores[i] = score * a.Scale
	}
}

// of is one head's part of a token of Q, K or V.
func (a *Attention) of(x []float32, token, at int) []float32 {
	begin := token*a.Stride + at
	return x[begin : begin+a.Dim]
}

// packed is one head's part of a row of x [rows, Heads·Dim].
func (a *Attention) packed(x []float32, row, at int) []float32 {
	begin := row*a.Heads*a.Dim + at
	return x[begin : begin+a.Dim]
}

// dot sums in four interleaved parts, so that additions need not wait for each other; which value goes to which part
// depends on its place alone.
func dot(x, y []float32) float32 {
	y = y[:len(x)]
	var s0, s1, s2, s3 float32
	i := 0
	for ; i+4 <= len(x); i += 4 {
		a, b := (*[4]float32)(x[i:]), (*[4]float32)(y[i:])
		s0 += float32(a[0] * b[0])
		s1 += float32(a[1] * b[1])
		s2 += float32(a[2] * b[2])
		s3 += float32(a[3] * b[3])
	}
	for ; i < len(x); i++ {
		s0 += float32(x[i] * y[i])
	}
	return (s0 + s1) + (s2 + s3)
}

// softmax replaces x by exp(x)/Σexp(x), less the largest value first, so that no exp overflows.
func softmax(x []float32) {
	largest := float32(math.Inf(-1))
	for _, v := range x {
		largest = max(largest, v)
	}
	sum := float32(0)
	for i, v := range x {
		e := float32(math.Exp(float64(v - largest)))
		x[i] = e
		sum += e
	}
	for i := range x {
		x[i] /= sum
	}
}
