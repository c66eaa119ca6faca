package kernels

import "gorgonia.org/tensor"

// Engine is the gorgonia tensor.Engine over a pool's kernels: tensor.MatMul of two matrices that carry it runs Gemm.
// Whatever else is asked of it, and every other type and layout, is StdEng's.
type Engine struct {
	tensor.StdEng
	Pool *Pool
}

var (
	_ tensor.Engine   = Engine{}
	_ tensor.MatMuler = Engine{}
)

// NewDense wraps a slice, without a copy, as a tensor of that shape which computes with the pool.
func (p *Pool) NewDense(backing []float32, shape ...int) *tensor.Dense {
	return tensor.New(tensor.WithEngine(Engine{Pool: p}), tensor.WithShape(shape...), tensor.WithBacking(backing))
}

// MatMul writes a [m, k] · b [k, n] into prealloc [m, n]. tensor.MatMul has checked the shapes.
func (e Engine) MatMul(a, b, prealloc tensor.Tensor) error {
	x, okX := rowMajor(a)
	w, okW := rowMajor(b)
	dst, okDst := rowMajor(prealloc)
	if !okX || !okW || !okDst {
		return e.StdEng.MatMul(a, b, prealloc)
	}
	m, k, n := a.Shape()[0], a.Shape()[1], b.Shape()[1]
	e.Pool.Gemm(Gemm{X: x, Rows: m, W: packTransposed(w, n, k), Dst: dst})
	return nil
}

// rowMajor returns the values of a float32 matrix that lies row by row, with nothing between.
func rowMajor(t tensor.Tensor) ([]float32, bool) {
	d, ok := t.(*tensor.Dense)
	if !ok || d.Dtype() != tensor.Float32 || d.Dims() != 2 || !d.DataOrder().IsRowMajor() ||
		!d.DataOrder().IsContiguous() || d.RequiresIterator() || d.IsMasked() {
		return nil, false
	}
	values, ok := d.Data().([]float32)
	return values, ok && len(values) == d.Shape().TotalSize()
}
