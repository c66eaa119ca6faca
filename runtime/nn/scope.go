package nn

import (
	"errors"
	"fmt"
	"slices"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// Scope is a place in a model's tree of modules, from which its layers are asked by name and shape. Errors are kept for
// the end (Layers), and a layer that has one is given without its weights, so a model reads without error checks.
type Scope struct {
	b      *builder
	prefix string // "" or ending with a dot
}

type builder struct {
	source *weights.Tensors
	layers Layers
	used   map[string]bool
	errs   []error
}

// NewScope is the root of a base whose weights are source.
func NewScope(source *weights.Tensors) Scope {
	return Scope{b: &builder{
		source: source,
		layers: Layers{bySlot: nil, slots: make(map[string]int)},
		used:   make(map[string]bool),
	}}
}

// Sub is the scope of the module name within s.
func (s Scope) Sub(name string) Scope { return Scope{s.b, s.prefix + name + "."} }

// Linear is the layer name of s: weight [out, in] and, if it has one, bias [out].
func (s Scope) Linear(name string, out, in int, bias bool) *Linear {
	return s.linear(name, bias, out, in)
}

// Patches is the Conv2d name of s with a stride equal to its kernel: a Linear of each patch's values, channel by
// channel, row by row. weight [out, channels, height, width], bias [out].
func (s Scope) Patches(name string, out, channels, height, width int) *Linear {
	return s.linear(name, true, out, channels, height, width)
}

// linear is a layer whose weight has that shape, outputs first: to a Linear all the rest are inputs.
func (s Scope) linear(name string, bias bool, shape ...int) *Linear {
	out, in := shape[0], tensor.Shape(shape[1:]).TotalSize()
	l := &Linear{slot: s.slot(name), in: in, out: out}
	s.b.layers.bySlot[l.slot] = l
	w := s.Sub(name)
	if weight := w.floats("weight", shape...); weight != nil {
		l.weight = kernels.Pack(weight, out, in)
	}
	if bias {
		l.bias = w.floats("bias", out)
	}
	return l
}

// LayerNorm is the layer name of s: weight and bias [width].
func (s Scope) LayerNorm(name string, width int, eps float64) *LayerNorm {
	w := s.Sub(name)
	l := &LayerNorm{slot: s.slot(name), gain: w.floats("weight", width), bias: w.floats("bias", width), eps: eps}
	s.b.layers.bySlot[l.slot] = l
	return l
}

// Parameter is the bare tensor name that belongs to the module of s itself.
func (s Scope) Parameter(name string, shape ...int) *Parameter {
	p := &Parameter{slot: s.slot(""), name: name, values: s.floats(name, shape...)}
	return p
}

// Layers ends the building: what an adapter can be compiled against, and the names of the tensors that no layer asked
// for. The error names the first tensors that are missing or do not fit.
func (s Scope) Layers() (layers *Layers, unused []string, err error) {
	const most = 5 // named: a base of another architecture lacks hundreds
	if n := len(s.b.errs); n > most {
		return nil, nil, fmt.Errorf("%w\nand %d more tensors", errors.Join(s.b.errs[:most]...), n-most)
	} else if n > 0 {
		return nil, nil, errors.Join(s.b.errs...)
	}
	unused = slices.DeleteFunc(s.b.source.Names(), func(name string) bool { return s.b.used[name] })
	return &s.b.layers, unused, nil
}

// slot is the slot of the module name within s (of s itself if name is empty).
func (s Scope) slot(name string) int {
	path := s.prefix + name
	if name == "" {
		path = s.prefix[:max(len(s.prefix)-1, 0)]
	}
	ls := &s.b.layers
	slot, ok := ls.slots[path]
	if !ok {
		slot = len(ls.bySlot)
		ls.slots[path] = slot
		ls.bySlot = append(ls.bySlot, nil)
	}
	return slot
}

// floats copies a tensor out of the source; nil where it is missing or does not fit, so that a config which promises a
// giant costs nothing.
func (s Scope) floats(name string, shape ...int) []float32 {
	s.b.used[s.prefix+name] = true
	t, err := s.b.source.Float32(s.prefix+name, shape...)
	if err != nil {
		s.b.errs = append(s.b.errs, err)
		return nil
	}
	return values(t)
}

// values is a float32 tensor's backing slice.
func values(t *tensor.Dense) []float32 { return t.Data().([]float32) }
