package kernels

import "math"

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
	p.runEach(tasks, func(i, task int) {
		op := &ops[i]
		width := len(op.Gain)
		for r := task * rowsPerTask; r < min((task+1)*rowsPerTask, op.rows()); r++ {
			op.row(op.Dst[r*width:(r+1)*width], op.X[r*width:(r+1)*width])
		}
	})
}

func (op *LayerNorm) rows() int { return len(op.X) / len(op.Gain) }

// row sums in float64: the mean of values that nearly cancel keeps its digits at any width.
func (op *LayerNorm) row(dst, x []float32) {
	n := float64(len(x))
	sum := 0.0
	for _, v := range x {
		sum += float64(v)
	}
	mean := sum / n
	squares := 0.0
	for _, v := range x {
		d := float64(v) - mean
		squares += float64(d * d)
	}
	scale := 1 / math.Sqrt(squares/n+op.Eps)
	for i, v := range x {
		normal := float32((float64(v) - mean) * scale)
		dst[i] = float32(normal * op.Gain[i])
		if op.Bias != nil {
			dst[i] += op.Bias[i]
		}
	}
}
