package kernels

import "math"

// Span is the tokens [Start, End) of one row of a batch.
type Span struct{ Start, End int }

// Attention is softmax(Scale·Q·Kᵀ)·V for each row and head; rows attend to their own tokens only.
type Attention struct {
	Q, K, V []float32 // [tokens, Heads·Dim]
	Rows    []Span
	Heads   int
	Dim     int // of one head
	Scale   float32
	Dst     []float32 // as Q
}

// Attention computes every row and head. Scores are kept for one query at a time: memory is linear in a row's length.
func (p *Pool) Attention(a Attention) {
	p.Run(len(a.Rows)*a.Heads, func(task int) {
		a.head(a.Rows[task/a.Heads], task%a.Heads*a.Dim)
	})
}

// head computes one head of one row; at is the head's first column.
func (a *Attention) head(row Span, at int) {
	width := a.Heads * a.Dim
	of := func(x []float32, token int) []float32 { return x[token*width+at : token*width+at+a.Dim] }
	scores := make([]float32, row.End-row.Start)
	for query := row.Start; query < row.End; query++ {
		q := of(a.Q, query)
		for i := range scores {
			scores[i] = dot(q, of(a.K, row.Start+i)) * a.Scale
		}
		softmax(scores)
		dst := of(a.Dst, query)
		clear(dst)
		for i, weight := range scores {
			for j, v := range of(a.V, row.Start+i) {
				dst[j] += float32(weight * v)
			}
		}
	}
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
