package deberta

import (
	"math"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/nn"
)

// positions are the relative embeddings of a batch.
type positions struct {
	embeddings []float32    // [segments · 2·span, hidden]
	segments   []nn.Segment // in them
	buckets    []int
}

// of projects them as a layer does: the relative terms of each segment.
func (p *positions) of(b *nn.Batch, l *layer) []*kernels.Relative {
	project := func(projection *nn.Linear) []float32 {
		if projection == nil {
			return nil
		}
		projected := make([]float32, len(p.embeddings))
		b.Linear(p.segments, p.embeddings, nn.Product{Layer: projection, Dst: projected})
		return projected
	}
	keys, queries := project(l.posKey), project(l.posQuery)
	width := len(p.embeddings) / p.segments[len(p.segments)-1].End
	part := func(all []float32, s nn.Segment) []float32 {
		if all == nil {
			return nil
		}
		return all[s.Start*width : s.End*width]
	}
	relatives := make([]*kernels.Relative, len(p.segments))
	for i, s := range p.segments {
		relatives[i] = &kernels.Relative{Keys: part(keys, s), Queries: part(queries, s), Buckets: p.buckets}
	}
	return relatives
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
