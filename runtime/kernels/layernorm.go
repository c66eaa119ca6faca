package kernels

// LayerNorm normalises rows of width len(Gain) to mean 0 and variance 1 (biased, as PyTorch's), then applies gain and
// bias.
type LayerNorm struct {
	X          []float32 // [rows, width]
	Gain, Bias []float32 // [width]; Bias may be nil
	Eps        float64
	Dst        []float32 // as X; may be X itself
}

// rowsPerTask makes a task of the row kernels large beside the pool's overhead.
const rowsPerTask = 32

// LayerNorm computes independent normalisations together.
func (p *Pool) LayerNorm(ops ...LayerNorm) {
	tasks := make([]int, len(ops))
	for i, op := range ops {
		tasks[i] = ceilDiv(op.rows(), rowsPerTask)
	}
	p.runEach(tasks, func(w *worker, i, task int) {
		op := &ops[i]
		active.normalise(w, op, task*rowsPerTask, min((task+1)*rowsPerTask, op.rows()))
	})
}

func (op *LayerNorm) rows() int { return len(op.X) / len(op.Gain) }
