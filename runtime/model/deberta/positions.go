package deberta

import (
	"math"
	"sync"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/nn"
)

// positions are the relative embeddings of a batch, as its layers project them.
type positions struct {
	base    []float32                 // [2·span, hidden]
	own     map[*nn.Adapter][]float32 // those of adapters that have saved the embeddings or their norm
	buckets []int
}

// projection is a Linear of the relative embeddings, and what it makes of the base's, which is the same in every batch:
// computed in the first, and kept.
type projection struct {
	linear *nn.Linear
	mu     sync.Mutex
	base   []float32 // [2·span, hidden]; nil before
}

// embeddings are those of an adapter: the base's, if it has none of its own.
func (p *positions) embeddings(a *nn.Adapter) []float32 {
	if own, ok := p.own[a]; ok {
		return own
	}
	return p.base
}

// of projects them as a layer does: the relative terms of each segment.
func (p *positions) of(b *nn.Batch, l *layer) []*kernels.Relative {
	keys, queries := l.posKey.of(b, p), l.posQuery.of(b, p)
	relatives := make([]*kernels.Relative, len(b.Tokens))
	for i := range relatives {
		relatives[i] = &kernels.Relative{Keys: keys[i], Queries: queries[i], Buckets: p.buckets}
	}
	return relatives
}

// of is what it makes of each segment's relative embeddings: the base's, where the segment's adapter changes neither
// these nor the projection.
func (p *projection) of(b *nn.Batch, r *positions) [][]float32 {
	projected := make([][]float32, len(b.Tokens))
	if p == nil {
		return projected // there is no such term
	}
	size := len(r.base)
	rows := size / p.linear.In()
	var others []int // of the segments
	var segments []nn.Segment
	for i, s := range b.Tokens {
		if _, own := r.own[s.Adapter]; !own && !p.linear.ChangedBy(s.Adapter) {
			projected[i] = p.ofBase(b, r)
			continue
		}
		n := len(others)
		segments = append(segments, nn.Segment{Start: n * rows, End: (n + 1) * rows, Adapter: s.Adapter})
		others = append(others, i)
	}
	if len(others) == 0 {
		return projected
	}
	all := b.Floats(len(others) * size)
	defer b.Free(b.Mark())
	embeddings := b.Floats(len(all))[:0] // one's behind the other's
	for n, i := range others {
		embeddings = append(embeddings, r.embeddings(b.Tokens[i].Adapter)...)
		projected[i] = all[n*size : (n+1)*size]
	}
	b.Linear(segments, embeddings, nn.Product{Layer: p.linear, Dst: all})
	return projected
}

// ofBase is the base's projection. It is kept only once it is whole: what panics on the way is tried again.
func (p *projection) ofBase(b *nn.Batch, r *positions) []float32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.base == nil {
		projected := make([]float32, len(r.base))
		rows := []nn.Segment{{End: len(r.base) / p.linear.In()}}
		b.Linear(rows, r.base, nn.Product{Layer: p.linear, Dst: projected})
		p.base = projected
	}
	return p.base
}

// bucketsOf are the rows of the relative embeddings for distances from -most to most: each distance its own up to half
// the buckets, then ever more of them to one, by their logarithm; or one each, where there are no buckets. Computed in
// float32, as transformers' make_log_bucket_position is.
func bucketsOf(c *arch.DeBERTa, most int) []int {
	span, distance := c.Span()
	middle := c.Buckets / 2
	all := make([]int, 2*most+1)
	for i := range all {
		d := i - most
		if c.Buckets > 0 && (d > middle || d < -middle) {
			far := float32(max(d, -d)) / float32(middle)
			farthest := float32(math.Log(float64(float32(float64(distance-1) / float64(middle)))))
			log := float32(math.Log(float64(far))) / farthest * float32(middle-1)
			bucket := int(math.Ceil(float64(log))) + middle
			if d < 0 {
				bucket = -bucket
			}
			d = bucket
		}
		all[i] = min(max(d+span, 0), 2*span-1)
	}
	return all
}
