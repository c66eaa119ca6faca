package nn

import (
	"fmt"
	"math"
	"slices"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/memory"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// Layers is a built model's layers by path: what an adapter is compiled against.
type Layers struct {
	bySlot []any          // *Linear, *LayerNorm, *Embedding, or nil for a module of bare tensors
	stages []int          // by slot
	slots  map[string]int // by canonical path
	memory *memory.Region // with all their weights
}

// Free gives the weights' memory back. No batch and no adapter of the model may be computed with any more.
func (ls *Layers) Free() { ls.memory.Free() }

// Paths lists the modules.
func (ls *Layers) Paths() []string {
	paths := make([]string, 0, len(ls.slots))
	for path := range ls.slots {
		paths = append(paths, path)
	}
	return paths
}

// Adapter is what one adapter changes in a model, by slot. A nil Adapter changes nothing. Its weights lie off the heap,
// from the first change until it is freed.
type Adapter struct {
	// Head is which of the model's heads answers its rows, as arch.Description.Heads counts them.
	Head int

	layers  *Layers
	changes []*change // nil of what it leaves alone
	first   int       // stage in which it changes anything
	memory  memory.Region
}

// change is what an adapter does to one module. What of it is nil is as the base has it.
type change struct {
	update    *lowRank
	gain      []float32      // [out]: DoRA's m/‖W + s·B·A‖
	bias      []float32      // [out] of a Linear, that of an update included
	linear    *Linear        // another weight
	norm      *LayerNorm     // another gain or bias
	embedding *Embedding     // another table
	rows      map[int32]int  // ids whose vector is another: which of own
	own       *kernels.Table // [ids, dim]
	params    map[string][]float32
}

// lowRank is y += (x·aᵀ)·bᵀ. The scale is in a, once and for all.
type lowRank struct {
	rank int

	// Of a Linear: rows [at, at+rank) of the shrink are a, [r, in], which is kept until there is a shrink.
	a      []float32
	shrink *shrink
	at     int
	b      *kernels.Packed // [out, r]

	byID, up *kernels.Table // of an Embedding: [num, r], [r, dim]
}

// shrink is the a of all updates of layers that take the same input, side by side: one pass over the input serves all.
type shrink struct{ a *kernels.Packed } // [Σr, in]

// Update is a low-rank update of a module, y += Scale·(Up·(Down·x) + Bias).
type Update struct {
	Down *tensor.Dense // [r, in]; of Patches [r, channels, height, width], of an Embedding [r, num]
	Up   *tensor.Dense // [out, r]; of Patches [out, r, 1, 1]
	Bias *tensor.Dense // [out] or nil
	// Magnitude is DoRA's m or nil: y is multiplied by m/‖W + Scale·Up·Down‖, the norm of each output's weights. (Liu et
	// al., arXiv:2402.09353.) An update with it has no Bias.
	Magnitude *tensor.Dense // of as many values as the module has outputs
	Scale     float32
}

// NewAdapter is an adapter of the model that changes nothing yet. It is complete, and sealed, before it is used.
func (ls *Layers) NewAdapter() *Adapter {
	return &Adapter{layers: ls, changes: make([]*change, len(ls.bySlot)), first: Heads}
}

// Update adds an update of a Linear, of Patches or of an Embedding. What else the adapter changes of the module (its
// bias) has been given before.
func (a *Adapter) Update(path string, u Update) error {
	layer, c, err := a.find(path)
	if err != nil {
		return err
	}
	switch l := layer.(type) {
	case *Linear:
		err = a.updateLinear(l, c, u)
	case *Embedding:
		err = a.updateEmbedding(l, c, u)
	default:
		err = fmt.Errorf("expected a Linear or an Embedding to update, found %T", layer)
	}
	if err != nil {
		return fmt.Errorf("module %s: %w", quote.Name(path), err)
	}
	return nil
}

func (a *Adapter) updateLinear(l *Linear, c *change, u Update) error {
	down, up, r := values(u.Down), values(u.Up), u.Down.Shape()[0]
	if len(down) != r*l.in || len(up) != l.out*r {
		return misfit(u)
	}
	scaled, err := scale(down, u.Scale)
	if err != nil {
		return err
	}
	c.update = &lowRank{rank: r, a: scaled, b: a.pack(up, l.out, r)}
	if u.Bias != nil {
		inner, err := scale(values(u.Bias), u.Scale)
		if err != nil {
			return err
		}
		outer := c.bias
		if outer == nil {
			outer = l.bias
		}
		for i, v := range outer {
			inner[i] += v
		}
		c.bias = memory.Copy(&a.memory, inner)
	}
	if u.Magnitude == nil {
		return nil
	}
	c.gain = memory.Make[float32](&a.memory, l.out)
	row := make([]float32, l.in)
	sum := make([]float64, l.in) // W + s·B·A, one output of it
	for j, m := range values(u.Magnitude) {
		l.weight.Row(j, row)
		for i, v := range row {
			sum[i] = float64(v)
		}
		for k, b := range up[j*r : (j+1)*r] {
			for i, v := range scaled[k*l.in : (k+1)*l.in] {
				sum[i] += float64(b) * float64(v)
			}
		}
		c.gain[j] = float32(float64(m) / norm(sum))
	}
	return finite(c.gain)
}

// Seal ends the changes: what adapters take from one input is laid side by side, and room that is left is given back.
func (a *Adapter) Seal() {
	for slot := range a.changes {
		if u := a.change(slot).update; u != nil && u.a != nil {
			a.shrink(a.layers.bySlot[slot].(*Linear))
		}
	}
	a.memory.Seal()
}

// shrink makes that of the layers that take a layer's input.
func (a *Adapter) shrink(l *Linear) {
	layers := l.beside
	if layers == nil {
		layers = []*Linear{l}
	}
	var updates []*lowRank
	var parts [][]float32
	rank := 0
	for _, other := range layers {
		if u := a.change(other.slot).update; u != nil && u.a != nil {
			updates, parts = append(updates, u), append(parts, u.a)
			u.at = rank
			rank += u.rank
		}
	}
	all := &shrink{kernels.NewPacked(&a.memory, lossless(parts...), rank, l.in)}
	for _, u := range updates {
		for row := range u.rank {
			all.a.SetRow(u.at+row, u.a[row*l.in:(row+1)*l.in])
		}
		u.a, u.shrink = nil, all
	}
}

// Free gives the adapter's memory back. No batch with rows of it may be under way or follow: what would, panics.
func (a *Adapter) Free() {
	a.changes = nil
	a.memory.Free()
}

func (a *Adapter) updateEmbedding(l *Embedding, c *change, u Update) error {
	down, up, r := values(u.Down), values(u.Up), u.Down.Shape()[0]
	if len(down) != r*l.num || len(up) != l.dim*r {
		return misfit(u)
	}
	scaled, err := scale(down, u.Scale)
	if err != nil {
		return err
	}
	c.update = &lowRank{rank: r, byID: a.transposed(scaled, r, l.num), up: a.transposed(up, l.dim, r)}
	if u.Magnitude == nil {
		return nil
	}
	// The norm of an output's weights over the whole vocabulary, as PEFT takes it.
	squares := make([]float64, l.dim)
	vector, row := make([]float32, l.dim), make([]float64, l.dim)
	for id := range l.num {
		l.table.Row(id, vector)
		for j, v := range vector {
			row[j] = float64(v)
		}
		for j := range row {
			for k, b := range up[j*r : (j+1)*r] {
				row[j] += float64(scaled[k*l.num+id]) * float64(b)
			}
			squares[j] += row[j] * row[j]
		}
	}
	c.gain = memory.Make[float32](&a.memory, l.dim)
	for j, m := range values(u.Magnitude) {
		c.gain[j] = float32(float64(m) / math.Sqrt(squares[j]))
	}
	return finite(c.gain)
}

func norm(x []float64) float64 {
	squares := 0.0
	for _, v := range x {
		squares += v * v
	}
	return math.Sqrt(squares)
}

// Replace gives rows of the adapter parameters of their own, by name; those not given stay the base's. A Linear may
// have another number of outputs where the model lets it (its head).
func (a *Adapter) Replace(path string, params map[string]*tensor.Dense) error {
	layer, c, err := a.find(path)
	if err != nil {
		return err
	}
	own := func(name string) []float32 {
		if t, ok := params[name]; ok {
			return memory.Copy(&a.memory, values(t))
		}
		return nil
	}
	switch l := layer.(type) {
	case *Linear:
		if weight, ok := params["weight"]; ok {
			out := weight.Shape()[0]
			c.linear = &Linear{slot: l.slot, in: l.in, out: out, weight: a.pack(values(weight), out, l.in)}
			if out == l.out {
				c.linear.bias = l.bias
			}
		}
		c.bias = own("bias")
	case *LayerNorm:
		norm := *l
		if gain := own("weight"); gain != nil {
			norm.gain = gain
		}
		if bias := own("bias"); bias != nil {
			norm.bias = bias
		}
		c.norm = &norm
	case *Embedding:
		c.embedding = &Embedding{slot: l.slot, num: l.num, dim: l.dim, table: a.table(values(params["weight"]), l.dim)}
	default:
		c.params = make(map[string][]float32, len(params))
		for name := range params {
			c.params[name] = own(name)
		}
	}
	return nil
}

// ReplaceRows gives rows of the adapter an Embedding with these rows [n, dim] in place of those of the ids.
func (a *Adapter) ReplaceRows(path string, ids []int, rows *tensor.Dense) error {
	layer, c, err := a.find(path)
	if err != nil {
		return err
	}
	l, ok := layer.(*Embedding)
	if !ok || !slices.Equal(rows.Shape(), []int{len(ids), l.dim}) {
		return fmt.Errorf("module %s: rows %s do not fit it", quote.Name(path), quote.Shape(rows.Shape()))
	}
	c.rows, c.own = make(map[int32]int, len(ids)), a.table(values(rows), l.dim)
	for i, id := range ids {
		c.rows[int32(id)] = i //nolint:gosec // an id of the vocabulary
	}
	return nil
}

// IsHead tells whether nothing is changed before the model's head.
func (a *Adapter) IsHead() bool { return a.leaves() == Heads }

// Bytes is the memory that the adapter's weights hold.
func (a *Adapter) Bytes() int64 { return a.memory.Bytes() }

func (a *Adapter) change(slot int) change {
	if !a.changed(slot) {
		return change{}
	}
	return *a.changes[slot]
}

// changed tells whether an adapter changes anything of the module in a slot.
func (a *Adapter) changed(slot int) bool { return a != nil && a.changes[slot] != nil }

// find is a module that the adapter changes, and how.
func (a *Adapter) find(path string) (layer any, c *change, err error) {
	slot, ok := a.layers.slots[path]
	if !ok {
		return nil, nil, fmt.Errorf("module %s: the model has none of that name", quote.Name(path))
	}
	a.first = min(a.first, a.layers.stages[slot])
	if a.changes[slot] == nil {
		a.changes[slot] = &change{}
	}
	return a.layers.bySlot[slot], a.changes[slot], nil
}

// leaves is the stage before which rows of the adapter are as the base's.
func (a *Adapter) leaves() int {
	if a == nil {
		return Heads
	}
	return a.first
}

func misfit(u Update) error {
	return fmt.Errorf("an update of %s and %s does not fit it", quote.Shape(u.Down.Shape()), quote.Shape(u.Up.Shape()))
}

// scale is x times a factor.
func scale(x []float32, factor float32) ([]float32, error) {
	scaled := slices.Clone(x)
	for i := range scaled {
		if scaled[i] *= factor; math.IsInf(float64(scaled[i]), 0) {
			return nil, fmt.Errorf("an update scaled by %g is beyond float32", factor)
		}
	}
	return scaled, nil
}

// finite refuses a DoRA whose weights have no length at some output.
func finite(gain []float32) error {
	for i, v := range gain {
		if math.IsInf(float64(v), 0) || math.IsNaN(float64(v)) {
			return fmt.Errorf("DoRA: expected weights of some length at output %d, found all zero", i)
		}
	}
	return nil
}

// lossless is the type that has each of these values and takes the least memory.
func lossless(values ...[]float32) kernels.DType {
	for _, some := range values {
		if !weights.AreBFloat16(some, 1) {
			return kernels.Float32
		}
	}
	return kernels.Widened
}

// pack keeps a matrix w [n, k] as the kernels read it. Its values are as they are in the file, whatever the base's
// type.
func (a *Adapter) pack(w []float32, n, k int) *kernels.Packed {
	return kernels.PackAs(&a.memory, lossless(w), w, n, k)
}

// table keeps vectors [n, width], likewise.
func (a *Adapter) table(vectors []float32, width int) *kernels.Table {
	t := kernels.NewTable(&a.memory, lossless(vectors), len(vectors)/width, width)
	t.Set(0, vectors)
	return t
}

// transposed keeps x [rows, cols] as vectors [cols, rows], likewise.
func (a *Adapter) transposed(x []float32, rows, cols int) *kernels.Table {
	t := kernels.NewTable(&a.memory, lossless(x), cols, rows)
	vector := make([]float32, rows)
	for j := range cols {
		for i := range vector {
			vector[i] = x[i*cols+j]
		}
		t.Set(j, vector)
	}
	return t
}
