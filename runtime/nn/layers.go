package nn

import "github.com/switchyard-dev/switchyard/runtime/kernels"

// Linear is y = x·Wᵀ + b, with each segment's own update or, if its adapter saved the module, its own W and b.
type Linear struct {
	slot    int
	in, out int
	weight  *kernels.Packed // [out, in]
	bias    []float32       // [out] or nil
	beside  []*Linear       // layers that take the same input, itself among them; nil: none but itself
}

// Out is the number of outputs of the layer in a segment of that adapter (nil: of the base).
func (l *Linear) Out(a *Adapter) int { return l.of(a).out }

// In is the number of inputs of the layer.
func (l *Linear) In() int { return l.in }

// of is the layer that serves an adapter: its saved copy, else the base's.
func (l *Linear) of(a *Adapter) *Linear {
	if own := a.change(l.slot).linear; own != nil {
		return own
	}
	return l
}

// ChangedBy tells whether the layer is another in a segment of that adapter than in one of the base.
func (l *Linear) ChangedBy(a *Adapter) bool { return a.changed(l.slot) }

// Product asks for one Linear of a matrix.
type Product struct {
	Layer    *Linear
	Act      kernels.Activation
	Residual []float32 // as Dst, or nil; may be Dst itself
	Dst      []float32 // [rows, Stride]
	Stride   int       // distance of two rows of Dst in floats; 0: the layer's outputs
}

// Linear computes products of one matrix x [rows, in], whose rows belong to the segments.
func (b *Batch) Linear(segments []Segment, x []float32, products ...Product) {
	defer b.Free(b.Mark())
	var shrinks, expands []kernels.Gemm
	done := make([]reduced, len(segments))
	for _, p := range products {
		parts := p.parts(b, segments, x, done, &shrinks)
		expands = p.expands(segments, x, parts, expands)
	}
	if len(shrinks) > 0 {
		b.Pool.Gemm(shrinks...)
	}
	b.Pool.Gemm(expands...)
}

// reduced is what a shrink makes of a segment: T = x·(s·A)ᵀ.
type reduced struct {
	by *shrink
	t  []float32 // [rows, Σr]
}

// parts collects what each segment's adapter does to the layer, and asks for the shrinks that are not done yet.
func (p *Product) parts(
	b *Batch, segments []Segment, x []float32, done []reduced, shrinks *[]kernels.Gemm,
) []kernels.Part {
	var parts []kernels.Part
	for i, s := range segments {
		c := s.Adapter.change(p.Layer.slot)
		if s.Start == s.End || c.update == nil && c.bias == nil {
			continue
		}
		part := kernels.Part{Start: s.Start, End: s.End, Gain: c.gain, Bias: c.bias}
		if u := c.update; u != nil {
			a := u.shrink.a
			if done[i].by != u.shrink {
				rows := s.End - s.Start
				done[i] = reduced{by: u.shrink, t: b.Floats(rows * a.N)}
				*shrinks = append(*shrinks, kernels.Gemm{X: x[s.Start*a.K : s.End*a.K], Rows: rows, W: a, Dst: done[i].t})
			}
			part.T, part.TStride, part.B = done[i].t[u.at:], a.N, u.b
		}
		parts = append(parts, part)
	}
	return parts
}

// expands appends a Gemm for each run of segments that share the layer's weight: nearly always one for all rows.
func (p *Product) expands(
	segments []Segment, x []float32, parts []kernels.Part, ops []kernels.Gemm,
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
		for _, part := range parts {
			if part.Start >= from && part.End <= to {
				part.Start, part.End = part.Start-from, part.End-from
				op.Parts = append(op.Parts, part)
			}
		}
		ops = append(ops, op)
		first = end
	}
	return ops
}

// Embedding is a table of vectors by id, with each segment's own update, rows, or table.
type Embedding struct {
	slot     int
	num, dim int
	table    *kernels.Table // [num, dim]; nil where the base lacks it
}

func (e *Embedding) of(a *Adapter) *Embedding {
	if own := a.change(e.slot).embedding; own != nil {
		return own
	}
	return e
}

// Embed looks up ids, one for each row of dst [rows, dim], in place of what is there.
func (b *Batch) Embed(segments []Segment, e *Embedding, ids []int32, dst []float32) {
	b.embed(segments, e, ids, dst, false)
}

// AddEmbed adds to dst what Embed would write there.
func (b *Batch) AddEmbed(segments []Segment, e *Embedding, ids []int32, dst []float32) {
	b.embed(segments, e, ids, dst, true)
}

func (b *Batch) embed(segments []Segment, e *Embedding, ids []int32, dst []float32, add bool) {
	ops := make([]kernels.Embedding, len(segments))
	for i, s := range segments {
		own, c := e.of(s.Adapter), s.Adapter.change(e.slot)
		ops[i] = kernels.Embedding{
			IDs: ids[s.Start:s.End], Table: own.table, Own: c.rows, Rows: c.own, Gain: c.gain, Width: e.dim, Add: add,
			Dst: dst[s.Start*e.dim : s.End*e.dim],
		}
		if u := c.update; u != nil {
			ops[i].A, ops[i].B = u.byID, u.up
		}
	}
	b.Pool.Embedding(ops...)
}

// LayerNorm normalises each token, with each segment's own gain and bias if its adapter saved the module.
type LayerNorm struct {
	slot       int
	width      int
	gain, bias []float32 // [width]
	eps        float64
}

func (l *LayerNorm) of(a *Adapter) *LayerNorm {
	if own := a.change(l.slot).norm; own != nil {
		return own
	}
	return l
}

// ChangedBy tells whether the layer is another in a segment of that adapter than in one of the base.
func (l *LayerNorm) ChangedBy(a *Adapter) bool { return a.changed(l.slot) }

// LayerNorm normalises the rows of x [rows, width] into dst.
func (b *Batch) LayerNorm(segments []Segment, l *LayerNorm, x, dst []float32) {
	width := l.width
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

// QKV computes the queries, keys and values of x [tokens, in]. In the last layer (LookAt) queries are of those tokens
// alone that the heads look at: then they are the batch's.
func (b *Batch) QKV(x []float32, q, k, v Product) Few {
	if !b.narrows() {
		b.Linear(b.Tokens, x, q, k, v)
		return Few{Keys: b.Spans, all: true}
	}
	b.Linear(b.Tokens, x, k, v)
	few := b.Narrow()
	defer b.Free(b.Mark())
	b.Linear(b.Tokens, few.Copy(b, x, q.Layer.in), q)
	return few
}

// Attention lets each row's tokens attend to each other: a's matrices are [tokens, heads·dim], its rows the batch's.
func (b *Batch) Attention(a kernels.Attention) {
	a.Rows = b.Spans
	b.Pool.Attention(a)
}

// AttentionRelative is Attention with relative terms of each segment.
func (b *Batch) AttentionRelative(a kernels.Attention, relatives []*kernels.Relative) {
	ops := make([]kernels.Attention, len(b.Rows))
	for i, s := range b.Rows {
		ops[i] = a
		ops[i].Rows, ops[i].Relative = b.Spans[s.Start:s.End], relatives[i]
		if a.Keys != nil {
			ops[i].Keys = a.Keys[s.Start:s.End]
		}
	}
	b.Pool.Attention(ops...)
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

// ChangedBy tells whether the tensor is another for rows of that adapter than for the base's.
func (p *Parameter) ChangedBy(a *Adapter) bool { return a.changed(p.slot) }

// Rotary turns the heads of r's matrix by their tokens' places; its rows are the batch's.
func (b *Batch) Rotary(r kernels.Rotary) {
	r.Rows = b.Spans
	b.Pool.Rotary(r)
}

// Gated is act(first half of x) times the second half, x [rows, 2·width] into dst [rows, width].
func (b *Batch) Gated(x []float32, width int, act kernels.Activation, dst []float32) {
	b.Pool.Gated(kernels.Gated{X: x, Width: width, Act: act, Dst: dst})
}

// AddScaled adds x times a vector to dst, both [rows, width]; each segment has its own vector if its adapter saved it.
func (b *Batch) AddScaled(segments []Segment, gain *Parameter, x, dst []float32) {
	ops := make([]kernels.Scaled, len(segments))
	for i, s := range segments {
		own := gain.Of(s.Adapter)
		from, to := s.Start*len(own), s.End*len(own)
		ops[i] = kernels.Scaled{X: x[from:to], Gain: own, Dst: dst[from:to]}
	}
	b.Pool.AddScaled(ops...)
}
