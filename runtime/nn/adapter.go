package nn

import (
	"fmt"
	"math"
	"slices"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Layers is a built model's layers by path: what an adapter is compiled against.
type Layers struct {
	bySlot []any          // *Linear, *LayerNorm, or nil for a module of bare tensors
	slots  map[string]int // by canonical path
}

// Paths lists the modules.
func (ls *Layers) Paths() []string {
	paths := make([]string, 0, len(ls.slots))
	for path := range ls.slots {
		paths = append(paths, path)
	}
	return paths
}

// Adapter is what one adapter changes in a model, by slot. A nil Adapter changes nothing.
type Adapter struct {
	layers  *Layers
	changes []change
	bytes   int64
}

// change is what an adapter does to one module: at most one of the fields is set.
type change struct {
	update *lowRank
	linear *Linear
	norm   *LayerNorm
	params map[string][]float32
}

// lowRank is y += (x·aᵀ)·bᵀ. The scale is in a, once and for all.
type lowRank struct {
	a, b *kernels.Packed // [r, in], [out, r]
}

// NewAdapter is an adapter of the model that changes nothing yet. It is complete before it is used.
func (ls *Layers) NewAdapter() *Adapter {
	return &Adapter{layers: ls, changes: make([]change, len(ls.bySlot))}
}

// Update adds a low-rank update of a Linear, y += scale·(x·downᵀ)·upᵀ: down [r, in], up [out, r].
func (a *Adapter) Update(path string, down, up *tensor.Dense, scale float32) error {
	layer, slot, err := a.layers.find(path)
	if err != nil {
		return err
	}
	l, ok := layer.(*Linear)
	r := down.Shape()[0]
	if !ok || down.Shape()[1] != l.in || up.Shape()[0] != l.out || up.Shape()[1] != r {
		return fmt.Errorf("module %s: an update of %s and %s does not fit it",
			quote.Name(path), quote.Shape(down.Shape()), quote.Shape(up.Shape()))
	}
	scaled := slices.Clone(values(down))
	for i := range scaled {
		if scaled[i] *= scale; math.IsInf(float64(scaled[i]), 0) {
			return fmt.Errorf("module %s: an update scaled by %g is beyond float32", quote.Name(path), scale)
		}
	}
	u := &lowRank{kernels.Pack(scaled, r, l.in), kernels.Pack(values(up), l.out, r)}
	a.changes[slot].update = u
	a.bytes += u.a.Bytes() + u.b.Bytes()
	return nil
}

// Replace gives rows of the adapter a module of their own: all its parameters, by name. A Linear may have another
// number of outputs where the model lets it (its head).
func (a *Adapter) Replace(path string, params map[string]*tensor.Dense) error {
	layer, slot, err := a.layers.find(path)
	if err != nil {
		return err
	}
	own := make(map[string][]float32, len(params))
	for name, t := range params {
		own[name] = values(t)
		a.bytes += int64(len(own[name])) * 4
	}
	c := &a.changes[slot]
	switch l := layer.(type) {
	case *Linear:
		out := params["weight"].Shape()[0]
		c.linear = &Linear{
			slot: l.slot, in: l.in, out: out, weight: kernels.Pack(own["weight"], out, l.in), bias: own["bias"],
		}
	case *LayerNorm:
		c.norm = &LayerNorm{slot: l.slot, gain: own["weight"], bias: own["bias"], eps: l.eps}
	default:
		c.params = own
	}
	return nil
}

// Bytes is the memory that the adapter's weights hold.
func (a *Adapter) Bytes() int64 { return a.bytes }

func (a *Adapter) change(slot int) change {
	if a == nil {
		return change{}
	}
	return a.changes[slot]
}

func (ls *Layers) find(path string) (layer any, slot int, err error) {
	slot, ok := ls.slots[path]
	if !ok {
		return nil, 0, fmt.Errorf("module %s: the model has none of that name", quote.Name(path))
	}
	return ls.bySlot[slot], slot, nil
}
