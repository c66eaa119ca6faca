package kernels

import (
	"slices"

	"github.com/switchyard-dev/switchyard/runtime/memory"
)

// The largest block that one task computes: its product stays in the cache until it is finished. K is gone through by
// parts, whose rows of x (96 x 512: 192 KiB) stay in a second-level cache and whose panel of weights stays in the
// first, or, where a panel is 32 wide (64 KiB), beside them, as a tile of 12 rows reads it slowly enough. An
// accumulator is put down at the end of a part and taken up at the next, which changes no bit of it.
const (
	blockRows = 96
	blockCols = 128
	blockK    = 512
)

// A task has some blocks of the same rows, where there is work enough: rows of x are fetched from afar once for all of
// them. That is worth the less the longer they are.
const (
	taskCols    = 4 * blockCols
	taskWeights = 192 << 10 // of a task at most, if that is not less than a block
)

// tasksEach is how many tasks of a product there are to be for each worker: tasks become smaller for it.
const tasksEach = 6

// Packed is a weight matrix W [N, K] laid out as the kernels read it: panels of some rows of W (panel of the variant),
// in each the values of one k side by side, [N/panel][K][panel]; the last panel is as wide as it has to be. Of bfloat16
// two k are a word, the earlier its lower half: [N/panel][K/2][panel], and the last upper half is empty where K is odd.
type Packed struct {
	N, K   int
	dtype  DType
	panels []float32
	pairs  []uint32 // in place of panels
}

// Pack lays out W [n, k], row-major: a Linear's weight [out, in] as PyTorch stores it.
func Pack(in *memory.Region, w []float32, n, k int) *Packed { return PackAs(in, Float32, w, n, k) }

// PackAs is Pack with the values kept as that type.
func PackAs(in *memory.Region, dtype DType, w []float32, n, k int) *Packed {
	p := NewPacked(in, dtype, n, k)
	for j := range n {
		p.SetRow(j, w[j*k:(j+1)*k])
	}
	return p
}

// packTransposed lays out W given as Wᵀ [k, n], row-major.
func packTransposed(wt []float32, n, k int) *Packed {
	p := NewPacked(nil, Float32, n, k)
	row := make([]float32, k)
	for j := range n {
		for i := range row {
			row[i] = wt[i*n+j]
		}
		p.SetRow(j, row)
	}
	return p
}

// NewPacked is a matrix of zeros, in memory of that region.
func NewPacked(in *memory.Region, dtype DType, n, k int) *Packed {
	p := &Packed{N: n, K: k, dtype: dtype}
	spare := ceilDiv(n, 8)*8 - n // the last vector of the last panel may reach beyond it
	if dtype.halves() {
		p.pairs = memory.Make[uint32](in, n*ceilDiv(k, 2)+spare)
	} else {
		p.panels = memory.Make[float32](in, n*k+spare)
	}
	return p
}

// at is where the values, or words, of the panel with row j begin from a k on, which is even, and how wide it is.
func (p *Packed) at(j, k int) (at, width int) {
	size, long := active.panel(), p.K
	first := j / size * size
	width = min(size, p.N-first)
	if p.dtype.halves() {
		long, k = ceilDiv(long, 2), k/2
	}
	return first*long + k*width, width
}

// SetRow writes row j of a matrix of zeros, the K values of W.
func (p *Packed) SetRow(j int, row []float32) {
	first, width := p.at(j, 0)
	first += j % active.panel()
	if p.dtype.halves() {
		for i, v := range row {
			p.pairs[first+i/2*width] |= uint32(round(v)) << (i % 2 * 16)
		}
		return
	}
	for i, v := range row {
		p.panels[first+i*width] = v
	}
}

// Row copies row j of W, its K values, to dst.
func (p *Packed) Row(j int, dst []float32) {
	first, width := p.at(j, 0)
	first += j % active.panel()
	if p.dtype.halves() {
		for i := range dst[:p.K] {
			dst[i] = half(p.pairs[first+i/2*width], i)
		}
		return
	}
	for i := range dst[:p.K] {
		dst[i] = p.panels[first+i*width]
	}
}

// Part is rows [Start, End) of a product that differ from the others: they gain T·Bᵀ, are multiplied by Gain, and get
// Bias in place of the product's. Each is nil where they do not differ in it.
type Part struct {
	Start, End int
	T          []float32 // [End-Start, r], row-major: x·(s·A)ᵀ
	TStride    int       // distance of two rows of T in floats; 0 means r
	B          *Packed   // [N, r]
	Gain       []float32 // [N]
	Bias       []float32 // [N]
}

// Gemm is one product with its epilogue: Dst = act((X·Wᵀ + T·Bᵀ)·Gain + Bias) + Residual, T, B and Gain by Parts.
type Gemm struct {
	X        []float32 // [Rows, K], row-major
	Rows     int
	W        *Packed   // [N, K]
	Parts    []Part    // in order, not overlapping
	Bias     []float32 // [N] or nil
	Act      Activation
	Residual []float32 // as Dst, or nil; may be Dst itself
	Dst      []float32 // [Rows, DstStride], of which the first N of each row are written
	// DstStride is the distance of two rows of Dst and Residual in floats; 0 means N.
	DstStride int
}

// Gemm computes products that do not depend on each other, together, so that many small ones fill all workers.
func (p *Pool) Gemm(ops ...Gemm) {
	work := 0
	for i := range ops {
		op := &ops[i]
		if op.DstStride == 0 {
			op.DstStride = op.W.N
		}
		work += op.Rows * op.W.N * op.W.K
	}
	each := work / (tasksEach * p.workers)
	tasks, sizes := make([]int, len(ops)), make([][2]int, len(ops))
	for i := range ops {
		sizes[i] = ops[i].task(each)
		tasks[i] = ceilDiv(ops[i].Rows, sizes[i][0]) * ceilDiv(ops[i].W.N, sizes[i][1])
	}
	p.runEach(tasks, func(w *worker, i, task int) {
		op, rows, cols := &ops[i], sizes[i][0], sizes[i][1]
		down := ceilDiv(op.Rows, rows)
		row, col := task%down*rows, task/down*cols
		end := min(col+cols, op.W.N)
		for c := col; c < end; c += blockCols {
			op.block(w, row, min(row+rows, op.Rows), c, min(c+blockCols, end))
		}
	})
}

// task is the rows and columns of a task whose work is each, if it can be: first fewer columns, then fewer rows.
func (g *Gemm) task(each int) [2]int {
	rows, cols := min(blockRows, g.Rows), taskCols
	for cols > blockCols && cols*g.W.K > taskWeights {
		cols /= 2
	}
	for cols > 2*active.panel() && cols > 32 && rows*cols*g.W.K > each {
		cols /= 2
	}
	for rows > 4*active.rows() && rows*cols*g.W.K > each {
		rows /= 2
	}
	return [2]int{max(rows, 1), cols}
}

// block computes rows [r0, r1) and columns [c0, c1) of Dst: product, updates, epilogue, while it is in the cache.
func (g *Gemm) block(w *worker, r0, r1, c0, c1 int) {
	// The residual may be Dst itself, so the block is gathered beside it.
	w.product = atLeast(w.product, blockRows*blockCols)
	acc := w.product[:(r1-r0)*blockCols]
	if g.W.K == 0 {
		clear(acc)
	}
	parts := ceilDiv(g.W.K, blockK)
	for i := range parts {
		ks := Span{even(i * g.W.K / parts), min(even((i+1)*g.W.K/parts), g.W.K)}
		x, stride := g.rows(w, r0, r1, ks)
		f := factors{x: x, stride: stride, rows: r1 - r0, w: g.W, cols: Span{c0, c1}, ks: ks}
		if i == parts-1 {
			f.dst, f.ldd = g.Dst[r0*g.DstStride+c0:], g.DstStride
		}
		f.multiply(w, acc, i > 0)
	}
	next := r0 // the first row that is not finished
	finish := func(end int, bias, gain []float32) {
		if next < end {
			g.finish(w, acc[(next-r0)*blockCols:], next, end, c0, c1, bias, gain)
			next = end
		}
	}
	for i := range g.Parts {
		p := &g.Parts[i]
		from, to := max(p.Start, r0), min(p.End, r1)
		if from >= to {
			continue
		}
		finish(from, g.Bias, nil)
		if p.B != nil {
			stride := p.TStride
			if stride == 0 {
				stride = p.B.K
			}
			f := factors{
				x: p.T[(from-p.Start)*stride:], stride: stride, rows: to - from, w: p.B, cols: Span{c0, c1},
				ks: Span{0, p.B.K},
			}
			f.multiply(w, acc[(from-r0)*blockCols:], true)
		}
		bias := p.Bias
		if bias == nil {
			bias = g.Bias
		}
		finish(to, bias, p.Gain)
	}
	finish(r1, g.Bias, nil)
}

// even is n, or one more: pairs of bfloat16 stay together.
func even(n int) int { return n + n%2 }

// aliasing is a distance of rows, in floats, at which they evict each other from a first-level cache of 4 KiB ways: the
// rows of a tile are read side by side, and many of them fit no set.
const aliasing = 1024

// rows are rows [r0, r1) of X, from the first of ks on, and their distance: where that is aliasing they are copied.
func (g *Gemm) rows(w *worker, r0, r1 int, ks Span) (x []float32, stride int) {
	k, n := g.W.K, r1-r0
	x = g.X[r0*k+ks.Start:]
	if k%aliasing != 0 || n < 4 {
		return x, k
	}
	size := ks.End - ks.Start
	stride = size + 16
	w.rows = atLeast(w.rows, blockRows*(blockK+16))
	for r := range n {
		copy(w.rows[r*stride:], x[r*k:][:size])
	}
	return w.rows, stride
}

// finish writes rows [r0, r1) and columns [c0, c1) of the product acc to Dst.
func (g *Gemm) finish(w *worker, acc []float32, r0, r1, c0, c1 int, bias, gain []float32) {
	at := r0*g.DstStride + c0
	e := epilogue{
		acc: acc, lda: blockCols, dst: g.Dst[at:], ldd: g.DstStride, rows: r1 - r0, cols: c1 - c0, act: g.Act,
	}
	if bias != nil {
		e.bias = bias[c0:c1]
	}
	if gain != nil {
		e.gain = gain[c0:c1]
	}
	if g.Act >= epilogues {
		g.exact(w, &e)
	}
	if g.Residual != nil {
		e.residual = g.Residual[at:]
	}
	active.epilogue(w, e)
}

// exact applies an activation that epilogues do not have, and what comes before it, within acc.
func (g *Gemm) exact(w *worker, e *epilogue) {
	before := *e
	before.act, before.dst, before.ldd = Identity, e.acc, e.lda
	active.epilogue(w, before)
	for r := range e.rows {
		row := e.acc[r*e.lda:][:e.cols]
		for i, v := range row {
			row[i] = e.act.of(v)
		}
	}
	e.act, e.bias, e.gain = Identity, nil, nil
}

// factors are what some rows and columns of a product are made of, for some of the k.
type factors struct {
	x      []float32 // [rows, ·], from the first of the k on
	stride int       // distance of two rows of x in floats
	rows   int
	w      *Packed
	cols   Span // of the product; the first is a multiple of a panel
	ks     Span // the first is even
	// dst is where the product will be written to, or nil: [rows, ldd], from the first of the columns on.
	dst []float32
	ldd int
}

// multiply adds x·Wᵀ to acc [rows, blockCols], or, where add is false, begins it with that.
func (f *factors) multiply(w *worker, acc []float32, add bool) {
	m := f.w
	t := tile{
		a: f.x, lda: f.stride, ldk: 1, ldc: blockCols, ldd: f.ldd, rows: f.rows, k: f.ks.End - f.ks.Start, add: add,
	}
	if m.dtype == BFloat16 {
		if rounded, words := active.round(w, f.x, f.stride, f.rows, t.k); rounded != nil {
			t.rounded, t.lda = rounded, words
		}
	}
	for c := f.cols.Start; c < f.cols.End; c += active.panel() {
		at, width := m.at(c, f.ks.Start)
		t.cols, t.ldb, t.ahead = width, width, f.after(c)-at
		t.c = acc[c-f.cols.Start:]
		if f.dst != nil {
			t.dst = f.dst[c-f.cols.Start:]
		}
		if m.dtype.halves() {
			t.pairs = m.pairs[at:]
			active.tilePairs(w, t)
		} else {
			t.b = m.panels[at:]
			active.tile(w, t)
		}
	}
}

// after is where that lies which is multiplied after the panel of column c.
func (f *factors) after(c int) (at int) {
	k := f.ks.Start
	if c += active.panel(); c >= f.cols.End && f.ks.End < f.w.K { // the same columns, the next of the k
		c, k = f.cols.Start, f.ks.End
	} else if c >= f.cols.End { // the next columns
		k = 0
	}
	at, _ = f.w.at(min(c, f.w.N-1), k)
	return at
}

// atLeast is x with room for n values, which are not kept where it has to grow.
func atLeast[T any](x []T, n int) []T {
	if len(x) >= n {
		return x
	}
	return slices.Grow(x[:0], n)[:n]
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
