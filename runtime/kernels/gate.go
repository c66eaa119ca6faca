package kernels

// Gated is Dst = Act(X's first half) · X's second half, each row by itself.
type Gated struct {
	X     []float32 // [rows, 2·Width]
	Width int
	Act   Activation
	Dst   []float32 // [rows, Width]
}

// Gated computes gated linear units (Shazeer, arXiv:2002.05202).
func (p *Pool) Gated(op Gated) {
	rows := len(op.X) / (2 * op.Width)
	p.run(ceilDiv(rows, rowsPerTask), func(w *worker, task int) {
		from, to := task*rowsPerTask, min((task+1)*rowsPerTask, rows)
		x := op.X[2*from*op.Width:]
		if op.Act >= epilogues {
			op.exact(from, to)
			return
		}
		active.epilogue(w, epilogue{
			acc: x, times: x[op.Width:], lda: 2 * op.Width, dst: op.Dst[from*op.Width:], ldd: op.Width,
			rows: to - from, cols: op.Width, act: op.Act,
		})
	})
}

// exact computes rows [from, to) with an activation that epilogues do not have.
func (op *Gated) exact(from, to int) {
	for r := from; r < to; r++ {
		x, dst := op.X[2*r*op.Width:2*(r+1)*op.Width], op.Dst[r*op.Width:(r+1)*op.Width]
		for i, v := range x[:op.Width] {
			dst[i] = float32(op.Act.of(v) * x[op.Width+i])
		}
	}
}

// Scaled is Dst += Gain · X, each row by itself.
type Scaled struct {
	X    []float32 // [rows, len(Gain)]
	Gain []float32
	Dst  []float32 // as X
}

// AddScaled computes operations that do not depend on each other.
func (p *Pool) AddScaled(ops ...Scaled) {
	p.Run(len(ops), func(i int) {
		op := &ops[i]
		width := len(op.Gain)
		for at := 0; at < len(op.X); at += width {
			dst := op.Dst[at : at+width]
			for j, v := range op.X[at : at+width] {
				dst[j] += float32(v * op.Gain[j])
			}
		}
	})
}

// Mean writes the mean of the rows of x [rows, len(dst)] to dst.
func Mean(dst, x []float32) {
	clear(dst)
	for at := 0; at < len(x); at += len(dst) {
		for i, v := range x[at : at+len(dst)] {
			dst[i] += v
		}
	}
	n := float32(len(x) / len(dst))
	for i := range dst {
		dst[i] /= n
	}
}
