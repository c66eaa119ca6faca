package kernels

// The tile of the portable kernel. 4 x 2 accumulators fit the sixteen scalar registers of amd64 with the operands
// beside them; 4 x 4 spill.
const (
	tileRows = 4
	tileCols = 2
)

// The block that one task computes: large enough to make the pool's overhead small, small enough to share a batch of
// one image among two workers, and its weights (64 columns of K = 768: 192 KiB) stay in a core's second-level cache.
const (
	blockRows = 64
	blockCols = 64
)

// Packed is a weight matrix W [N, K] laid out as the kernels read it: panels of tileCols rows of W, in each the K
// values side by side, [N/tileCols][K][tileCols]; the last panel is filled up with zeros.
type Packed struct {
	N, K   int
	panels []float32
}

// Pack lays out W [n, k], row-major: a Linear's weight [out, in] as PyTorch stores it.
func Pack(w []float32, n, k int) *Packed {
	p := newPacked(n, k)
	for j := range n {
		p.setRow(j, w[j*k:(j+1)*k])
	}
	return p
}

// packTransposed lays out W given as Wᵀ [k, n], row-major.
func packTransposed(wt []float32, n, k int) *Packed {
	p := newPacked(n, k)
	row := make([]float32, k)
	for j := range n {
		for i := range row {
			row[i] = wt[i*n+j]
		}
		p.setRow(j, row)
	}
	return p
}

func newPacked(n, k int) *Packed {
	panels := (n + tileCols - 1) / tileCols
	return &Packed{N: n, K: k, panels: make([]float32, panels*k*tileCols)}
}

func (p *Packed) setRow(j int, row []float32) {
	panel := p.panel(j / tileCols)
	for i, v := range row {
		panel[i*tileCols+j%tileCols] = v
	}
}

// Row copies row j of W, its K values, to dst.
func (p *Packed) Row(j int, dst []float32) {
	panel := p.panel(j / tileCols)
	for i := range dst[:p.K] {
		dst[i] = panel[i*tileCols+j%tileCols]
	}
}

func (p *Packed) panel(i int) []float32 {
	size := p.K * tileCols
	return p.panels[i*size : (i+1)*size]
}

// Bytes is the memory it holds.
func (p *Packed) Bytes() int64 { return int64(len(p.panels)) * 4 }

// Part is rows [Start, End) of a product that differ from the others: they gain T·Bᵀ, are multiplied by Gain, and get
// Bias in place of the product's. Each is nil where they do not differ in it.
type Part struct {
	Start, End int
	T          []float32 // [End-Start, r], row-major: x·(s·A)ᵀ
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
	tasks := make([]int, len(ops))
	for i := range ops {
		if ops[i].DstStride == 0 {
			ops[i].DstStride = ops[i].W.N
		}
		tasks[i] = ceilDiv(ops[i].Rows, blockRows) * ceilDiv(ops[i].W.N, blockCols)
	}
	p.runEach(tasks, func(i, task int) {
		op := &ops[i]
		down := ceilDiv(op.Rows, blockRows)
		row, col := task%down*blockRows, task/down*blockCols
		op.block(row, min(row+blockRows, op.Rows), col, min(col+blockCols, op.W.N))
	})
}

// block computes rows [r0, r1) and columns [c0, c1) of Dst: product, updates, epilogue, while it is in the cache.
func (g *Gemm) block(r0, r1, c0, c1 int) {
	// The residual may be Dst itself, so the block is gathered beside it.
	var buf [blockRows * blockCols]float32
	width := c1 - c0
	acc := buf[:(r1-r0)*width]
	multiply(acc, width, g.X[r0*g.W.K:], r1-r0, g.W, c0, c1)
	next := r0 // the first row that is not finished
	finish := func(end int, bias []float32) {
		for ; next < end; next++ {
			at := next*g.DstStride + c0
			g.finish(g.Dst[at:at+width], acc[(next-r0)*width:(next-r0+1)*width], bias, at, c0)
		}
	}
	for i := range g.Parts {
		p := &g.Parts[i]
		from, to := max(p.Start, r0), min(p.End, r1)
		if from >= to {
			continue
		}
		finish(from, g.Bias)
		p.addTo(acc[(from-r0)*width:(to-r0)*width], width, from, to, c0, c1)
		bias := p.Bias
		if bias == nil {
			bias = g.Bias
		}
		finish(to, bias)
	}
	finish(r1, g.Bias)
}

// addTo changes acc, rows [from, to) and columns [c0, c1) of the product, as the part says.
func (p *Part) addTo(acc []float32, width, from, to, c0, c1 int) {
	if p.B != nil {
		multiply(acc, width, p.T[(from-p.Start)*p.B.K:], to-from, p.B, c0, c1)
	}
	if p.Gain == nil {
		return
	}
	for at := 0; at < len(acc); at += width {
		for i, gain := range p.Gain[c0:c1] {
			acc[at+i] *= gain
		}
	}
}

// finish writes one row of a block: bias, activation, residual. at is the row's place in Dst, col its first column.
func (g *Gemm) finish(dst, acc, bias []float32, at, col int) {
	if bias != nil {
		for i, b := range bias[col : col+len(acc)] {
			acc[i] += b
		}
	}
	g.Act.apply(acc)
	if g.Residual != nil {
		for i, v := range g.Residual[at : at+len(acc)] {
			acc[i] += v
		}
	}
	copy(dst, acc)
}

// multiply adds the columns [c0, c1) of x·Wᵀ, x [rows, K], to acc [rows, width]. c0 is a multiple of tileCols.
func multiply(acc []float32, width int, x []float32, rows int, w *Packed, c0, c1 int) {
	k := w.K
	for c := c0; c < c1; c += tileCols {
		panel := w.panel(c / tileCols)
		pair := c+1 < c1
		at := c - c0
		r := 0
		for ; r+tileRows <= rows; r += tileRows {
			var t tile
			for i := range tileRows {
				t.load(i, acc[at+(r+i)*width:], pair)
			}
			t.rows4(x[r*k:], panel, k)
			for i := range tileRows {
				t.store(i, acc[at+(r+i)*width:], pair)
			}
		}
		for ; r < rows; r++ {
			var t tile
			t.load(0, acc[at+r*width:], pair)
			t.row1(x[r*k:], panel, k)
			t.store(0, acc[at+r*width:], pair)
		}
	}
}

// tile is the accumulators of tileRows x tileCols elements. The second column of a matrix's last panel may be beyond
// its end (pair is false): it is computed, and not stored.
type tile [tileRows * tileCols]float32

func (t *tile) load(row int, from []float32, pair bool) {
	t[tileCols*row] = from[0]
	if pair {
		t[tileCols*row+1] = from[1]
	}
}

func (t *tile) store(row int, to []float32, pair bool) {
	to[0] = t[tileCols*row]
	if pair {
		to[1] = t[tileCols*row+1]
	}
}

// rows4 adds four rows of x [·, k] times one panel. Its sums are those of row1, to the bit.
func (t *tile) rows4(x, panel []float32, k int) {
	x0, x1, x2, x3 := x[:k], x[k:2*k], x[2*k:3*k], x[3*k:4*k]
	x1, x2, x3 = x1[:len(x0)], x2[:len(x0)], x3[:len(x0)]
	s00, s01, s10, s11, s20, s21, s30, s31 := t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]
	for i := range x0 {
		w := (*[tileCols]float32)(panel[tileCols*i:])
		w0, w1 := w[0], w[1]
		v := x0[i]
		s00 += float32(v * w0)
		s01 += float32(v * w1)
		v = x1[i]
		s10 += float32(v * w0)
		s11 += float32(v * w1)
		v = x2[i]
		s20 += float32(v * w0)
		s21 += float32(v * w1)
		v = x3[i]
		s30 += float32(v * w0)
		s31 += float32(v * w1)
	}
	*t = tile{s00, s01, s10, s11, s20, s21, s30, s31}
}

func (t *tile) row1(x, panel []float32, k int) {
	s0, s1 := t[0], t[1]
	for i, v := range x[:k] {
		w := (*[tileCols]float32)(panel[tileCols*i:])
		s0 += float32(v * w[0])
		s1 += float32(v * w[1])
	}
	t[0], t[1] = s0, s1
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
