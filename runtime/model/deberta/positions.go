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
	var embeddings []float32 // of the other segments, one's behind the other's
	var segments []nn.Segment
	var whose []int
	for i, s := range b.Tokens {
		own, changed := r.own[s.Adapter]
		if !changed && !p.linear.ChangedBy(s.Adapter) {
			projected[i] = p.ofBase(b, r)
			continue
		}
		if !changed {
			own = r.base
		}
		rows := size / p.linear.In()
		segments = append(segments, nn.Segment{Start: len(whose) * rows, End: (len(whose) + 1) * rows, Adapter: s.Adapter})
		embeddings, whose = append(embeddings, own...), append(whose, i)
	}
	if len(whose) == 0 {
		return projected
	}
	all := make([]float32, len(embeddings))
	b.Linear(segments, embeddings, nn.Product{Layer: p.linear, Dst: all})
	for n, i := range whose {
		projected[i] = all[n*size : (n+1)*size]
	}
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
