package nn

import (
	"fmt"

	"gorgonia.org/tensor"
)

// Work is how many multiply-adds the Linears before the heads take for a token. What attention takes beside them grows
// with the square of a row's tokens, and is not counted.
func (ls *Layers) Work() int64 {
	total := int64(0)
	for slot, layer := range ls.bySlot {
		if l, ok := layer.(*Linear); ok && ls.stages[slot] < Heads {
			total += int64(l.in) * int64(l.out)
		}
	}
	return total
}

// Work is how many multiply-adds the adapter's updates before the heads take for a token, beside the base's. What it
// replaces takes as many as what it stands for.
func (a *Adapter) Work() int64 {
	total := int64(0)
	for slot, c := range a.changes {
		if c == nil || c.update == nil || a.layers.stages[slot] == Heads {
			continue
		}
		switch l := a.layers.bySlot[slot].(type) {
		case *Linear:
			total += int64(c.update.rank) * int64(l.in+l.out)
		case *Embedding:
			total += int64(c.update.rank) * int64(l.dim)
		}
	}
	return total
}

// Uniform is an adapter, sealed, that updates every Linear before the heads with that rank, or none with rank 0, and
// has a head of its own where the base has none. Its answers mean nothing: it is there to be measured.
func (ls *Layers) Uniform(rank int) (*Adapter, error) {
	a := ls.NewAdapter()
	for path, slot := range ls.slots {
		l, ok := ls.bySlot[slot].(*Linear)
		var err error
		switch {
		case ls.stages[slot] == Heads:
			err = a.complete(path, ls.bySlot[slot])
		case ok && rank > 0:
			err = a.Update(path, Update{Down: uniform(rank, l.in), Up: uniform(l.out, rank), Scale: 1})
		}
		if err != nil {
			a.Free()
			return nil, fmt.Errorf("an adapter of rank %d: %w", rank, err)
		}
	}
	a.Seal()
	return a, nil
}

// complete gives the adapter a module of a head of its own, if the base lacks it.
func (a *Adapter) complete(path string, layer any) error {
	switch l := layer.(type) {
	case *Linear:
		if l.weight == nil {
			return a.Replace(path, map[string]*tensor.Dense{"weight": uniform(l.out, l.in)})
		}
	case *LayerNorm:
		if l.gain == nil {
			return a.Replace(path, map[string]*tensor.Dense{"weight": uniform(l.width)})
		}
	}
	return nil
}

// uniform is a tensor of a small value that takes all the bits of a float32, as trained weights do.
func uniform(shape ...int) *tensor.Dense {
	values := make([]float32, tensor.Shape(shape).TotalSize())
	for i := range values {
		values[i] = 0.001
	}
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(values))
}
