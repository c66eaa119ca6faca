// Package engine answers batches whose rows mix adapters: it sorts rows by adapter once, so that each adapter is one
// contiguous segment in every layer, runs the base's forward pass, and puts the answers back in the order asked.
//
// Invariant: a row's logits are bitwise the same alone and in any batch, whatever its neighbours, their order and the
// number of workers.
package engine

import (
	"fmt"
	"math"
	"runtime/debug"
	"slices"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/nn"
	"github.com/switchyard-dev/switchyard/runtime/peft"
)

// Padding fills a row's logits up to the widest head of its batch: the lowest float32, so that softmax and argmax over
// the whole width stay right.
const Padding = -math.MaxFloat32

// Engine runs one base model. Safe for concurrent use.
type Engine struct {
	base *model.Base
	pool *kernels.Pool
}

// Adapter is an adapter compiled for an engine's base. It does not change.
type Adapter struct {
	Digest string // its revision
	Labels []string
	nn     *nn.Adapter
}

// Bytes is the memory its weights hold.
func (a *Adapter) Bytes() int64 { return a.nn.Bytes() }

// Batch is inputs and what is asked of them; many rows may share an input.
type Batch struct {
	Inputs []*tensor.Dense // pixel values [channels, height, width] each
	Rows   []Row
}

// Row asks one adapter of one input.
type Row struct {
	Input   int      // index in the batch's Inputs
	Adapter *Adapter // nil is the bare base
}

// Output is the answers to a batch, in the order of its rows.
type Output struct {
	Logits    *tensor.Dense // [rows, widest head of the batch], each row filled up with Padding
	NumLabels []int         // how many of a row's logits are real
}

// Row is the real logits of one row.
func (o *Output) Row(i int) []float32 {
	width := o.Logits.Shape()[1]
	return o.Logits.Data().([]float32)[i*width : i*width+o.NumLabels[i]]
}

// New is an engine that computes on so many processors.
func New(base *model.Base, workers int) *Engine {
	return &Engine{base: base, pool: kernels.NewPool(workers)}
}

// Close ends the engine's workers. No Run may be under way or follow.
func (e *Engine) Close() { e.pool.Close() }

// Description is the base as its config describes it.
func (e *Engine) Description() *arch.Description { return e.base.Description }

// BaseDigest is the base's revision.
func (e *Engine) BaseDigest() string { return e.base.Digest }

// Compile lays out an adapter's weights for the base.
func (e *Engine) Compile(a *peft.Adapter) (*Adapter, error) {
	compiled := e.base.Layers.NewAdapter()
	for _, u := range a.Updates {
		if err := compiled.Update(u.Module, u.A, u.B, u.Scale); err != nil {
			return nil, err
		}
	}
	for _, s := range a.Saved {
		if err := compiled.Replace(s.Module, s.Params); err != nil {
			return nil, err
		}
	}
	return &Adapter{Digest: a.Digest, Labels: a.Labels, nn: compiled}, nil
}

// Run answers a batch. A panic in it is this batch's error, with its stack, and nobody else's.
func (e *Engine) Run(batch Batch) (out *Output, err error) {
	defer func() {
		if v := recover(); v != nil {
			out, err = nil, fmt.Errorf("engine: panic: %v\n%s", v, debug.Stack())
		}
	}()
	inputs, err := e.inputs(batch.Inputs)
	if err != nil {
		return nil, err
	}
	if len(batch.Rows) == 0 {
		return nil, fmt.Errorf("engine: a batch of no rows")
	}
	order := sortByAdapter(batch.Rows)
	sorted := make([]nn.Input, len(order))
	adapters := make([]*nn.Adapter, len(order))
	width := 0
	for i, row := range order {
		r := batch.Rows[row]
		if r.Input < 0 || r.Input >= len(inputs) {
			return nil, fmt.Errorf("engine: row %d: expected an input below %d, found %d", row, len(inputs), r.Input)
		}
		sorted[i] = inputs[r.Input]
		if r.Adapter != nil {
			adapters[i] = r.Adapter.nn
		}
		width = max(width, e.base.Model.NumLabels(adapters[i]))
	}
	logits := make([]float32, len(order)*width)
	e.base.Model.Forward(nn.NewBatch(e.pool, sorted, adapters, e.base.Model.Tokens), logits, width)
	return e.unsort(order, adapters, logits, width), nil
}

// inputs checks the inputs' shapes.
func (e *Engine) inputs(tensors []*tensor.Dense) ([]nn.Input, error) {
	want := e.base.Description.Image
	inputs := make([]nn.Input, len(tensors))
	for i, t := range tensors {
		pixels, ok := t.Data().([]float32)
		if !ok || !slices.Equal(t.Shape(), []int{want.Channels, want.Height, want.Width}) {
			return nil, fmt.Errorf("engine: input %d: expected float32 [%d, %d, %d], found %v %v",
				i, want.Channels, want.Height, want.Width, t.Dtype(), t.Shape())
		}
		inputs[i] = nn.Input{Pixels: pixels}
	}
	return inputs, nil
}

// sortByAdapter orders row numbers so that an adapter's rows stand together, adapters in the order of their first row.
func sortByAdapter(rows []Row) []int {
	place := make(map[*Adapter]int)
	order := make([]int, len(rows))
	for i, r := range rows {
		order[i] = i
		if _, ok := place[r.Adapter]; !ok {
			place[r.Adapter] = len(place)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return place[rows[a].Adapter] - place[rows[b].Adapter] })
	return order
}

// unsort puts the logits [rows, width] of rows that stand in that order back to where they were asked.
func (e *Engine) unsort(order []int, adapters []*nn.Adapter, logits []float32, width int) *Output {
	asked := make([]float32, len(logits))
	out := &Output{Logits: e.pool.NewDense(asked, len(order), width), NumLabels: make([]int, len(order))}
	for i, row := range order {
		n := e.base.Model.NumLabels(adapters[i])
		out.NumLabels[row] = n
		dst := asked[row*width : (row+1)*width]
		copy(dst, logits[i*width:i*width+n])
		for j := n; j < width; j++ {
			dst[j] = Padding
		}
	}
	return out
}
