package nn

import "github.com/switchyard-dev/switchyard/runtime/kernels"

// Linear is y = x·Wᵀ + b, with each segment's own update or, if its adapter saved the module, its own W and b.
type Linear struct {
	slot    int
	in, out int
	weight  *kernels.Packed // [out, in]
	bias    []float32       // [out] or nil
}

// Out is the number of outputs of the layer in a segment of that adapter (nil: of the base).
func (l *Linear) Out(a *Adapter) int { return l.of(a).out }

// of is the layer that serves an adapter: its saved copy, else the base's.
func (l *Linear) of(a *Adapter) *Linear {
	if own := a.change(l.slot).linear; own != nil {
		return own
	}
	return l
}

// Product asks for one Linear of a matrix.
type Product struct {
	Layer    *Linear
	Act      kernels.Activation // or nil
	Residual []float32          // as Dst, or nil; may be Dst itself
	Dst      []float32          // [rows, Stride]
	Stride   int                // distance of two rows of Dst in floats; 0: the layer's outputs
}

// Linear computes products of one matrix x [rows, in], whose rows belong to the segments.
func (b *Batch) Linear(segments []Segment, x []float32, products ...Product) {
	var shrinks, expands []kernels.Gemm
	for _, p := range products {
		lowRank := p.lowRank(segments, x, &shrinks)
		expands = p.expands(segments, x, lowRank, expands)
	}
	if len(shrinks) > 0 {
		b.Pool.Gemm(shrinks...)
	}
	b.Pool.Gemm(expands...)
}

// lowRank collects the layer's updates, one for each segment that has one, and asks for their T = x·(s·A)ᵀ.
func (p *Product) lowRank(segments []Segment, x []float32, shrinks *[]kernels.Gemm) []kernels.LowRank {
	var updates []kernels.LowRank
	for _, s := range segments {
		u := s.Adapter.change(p.Layer.slot).update
		if u == nil {
			continue
		}
		rows := s.End - s.Start
		t := make([]float32, rows*u.a.N)
		*shrinks = append(*shrinks, kernels.Gemm{
			X: x[s.Start*u.a.K : s.End*u.a.K], Rows: rows, W: u.a, Dst: t,
		})
		updates = append(updates, kernels.LowRank{Start: s.Start, End: s.End, T: t, B: u.b})
	}
	return updates
}

// expands appends a Gemm for each run of segments that share the layer's weight: nearly always one for all rows.
func (p *Product) expands(
	segments []Segment, x []float32, lowRank []kernels.LowRank, ops []kernels.Gemm,
) []kernels.Gemm {
	for first := 0; first < len(segments); {
		layer := p.Layer.of(segments[first].Adapter)
		end := first + 1
		for end < len(segments) && p.Layer.of(segments[end].Adapter) == layer {
			end++
		}
		from, to := segments[first].Start, segments[end-1].End
		stride := p.Stride
		if stride == 0 {
			stride = layer.out
		}
		op := kernels.Gemm{
			X: x[from*layer.in : to*layer.in], Rows: to - from, W: layer.weight, Bias: layer.bias, Act: p.Act,
			Dst: p.Dst[from*stride:], DstStride: stride,
		}
		if p.Residual != nil {
			op.Residual = p.Residual[from*stride:]
		}
		for _, u := range lowRank {
			if u.Start >= from && u.End <= to {
				u.Start, u.End = u.Start-from, u.End-from
				op.LowRank = append(op.LowRank, u)
			}
		}
		ops = append(ops, op)
		first = end
	}
	return ops
}

// LayerNorm normalises each token, with each segment's own gain and bias if its adapter saved the module.
type LayerNorm struct {
	slot       int
	gain, bias []float32 // [width]
	eps        float64
}

func (l *LayerNorm) of(a *Adapter) *LayerNorm {
	if own := a.change(l.slot).norm; own != nil {
		return own
	}
	return l
}

// LayerNorm normalises the rows of x [rows, width] into dst.
func (b *Batch) LayerNorm(segments []Segment, l *LayerNorm, x, dst []float32) {
	width := len(l.gain)
	var ops []kernels.LayerNorm
	for _, s := range segments {
		own := l.of(s.Adapter)
		ops = append(ops, kernels.LayerNorm{
			X: x[s.Start*width : s.End*width], Gain: own.gain, Bias: own.bias, Eps: own.eps,
			Dst: dst[s.Start*width : s.End*width],
		})
	}
	b.Pool.LayerNorm(ops...)
}

// Attention lets each row's tokens attend to each other: q, k, v and dst are [tokens, heads·dim].
func (b *Batch) Attention(q, k, v, dst []float32, heads, dim int, scale float32) {
	b.Pool.Attention(kernels.Attention{
		Q: q, K: k, V: v, Rows: b.Spans, Heads: heads, Dim: dim, Scale: scale, Dst: dst,
	})
}

// Parameter is a bare tensor, of the base or as an adapter saved it.
type Parameter struct {
	slot   int
	name   string
	values []float32
}

// Of is the tensor's values for rows of that adapter (nil: the base).
func (p *Parameter) Of(a *Adapter) []float32 {
	if own, ok := a.change(p.slot).params[p.name]; ok {
		return own
	}
	return p.values
}
