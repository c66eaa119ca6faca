package nn

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Source has a base's weights by the model's own names for them.
type Source interface {
	// Read copies out a parameter of the module at path. It is nil, without an error, for what the base has not: a part of
	// a head that adapters bring.
	Read(path, param string, shape ...int) (*tensor.Dense, error)
	// Rows is Read of the rows [from, to) alone, the first dimension's.
	Rows(path, param string, from, to int, shape ...int) (*tensor.Dense, error)
}

// Scope is a place in a model's tree of modules, from which its layers are asked by name and shape. Errors are kept for
// the end (Layers), and a layer that has one is given without its weights, so a model reads without error checks.
type Scope struct {
	b      *builder
	prefix string // "" or ending with a dot
	stage  int
}

// Heads is the stage of what stands behind a model's last layer, for each row by itself.
const Heads = math.MaxInt

type builder struct {
	source Source
	dtype  kernels.DType
	layers Layers
	errs   []error
}

// NewScope is the root of a base whose weights are source. The weights of Linears and the tables of Embeddings are kept
// as dtype; all else, and what adapters bring, is float32.
func NewScope(source Source, dtype kernels.DType) Scope {
	return Scope{b: &builder{source: source, dtype: dtype, layers: Layers{slots: make(map[string]int)}}}
}

// Sub is the scope of the module name within s.
func (s Scope) Sub(name string) Scope { return Scope{s.b, s.prefix + name + ".", s.stage} }

// At is s where its modules belong to another stage of the forward pass than the first, which is 0: rows that ask the
// same are one until a stage in which an adapter of theirs changes a module (Batch.Enter).
func (s Scope) At(stage int) Scope { return Scope{s.b, s.prefix, stage} }

// Linear is the layer name of s: weight [out, in] and, if it has one, bias [out].
func (s Scope) Linear(name string, out, in int, bias bool) *Linear {
	return s.linear(name, bias, out, in)
}

// Patches is the Conv2d name of s with a stride equal to its kernel: a Linear of each patch's values, channel by
// channel, row by row. weight [out, channels, height, width], bias [out].
func (s Scope) Patches(name string, out, channels, height, width int) *Linear {
	return s.linear(name, true, out, channels, height, width)
}

// Conv1d is the Conv1d name of s with a stride of 1: a Linear of the values of as many tokens as its kernel is wide,
// channel by channel. weight [out, channels, width], bias [out].
func (s Scope) Conv1d(name string, out, channels, width int) *Linear {
	return s.linear(name, true, out, channels, width)
}

// linear is a layer whose weight has that shape, outputs first: to a Linear all the rest are inputs.
func (s Scope) linear(name string, bias bool, shape ...int) *Linear {
	out, in := shape[0], tensor.Shape(shape[1:]).TotalSize()
	l := &Linear{slot: s.slot(name), in: in, out: out}
	s.b.layers.bySlot[l.slot] = l
	w := s.Sub(name)
	if weight := w.floats("weight", shape...); w.fit(weight) {
		l.weight = kernels.PackAs(s.b.dtype, weight, out, in)
	}
	if bias {
		l.bias = w.floats("bias", out)
	}
	return l
}

// Beside tells that layers take the same input, so that what adapters take from it is computed in one pass.
func (s Scope) Beside(layers ...*Linear) {
	for _, l := range layers {
		l.beside = layers
	}
}

// LayerNorm is the layer name of s: weight and, if it has one, bias [width].
func (s Scope) LayerNorm(name string, width int, eps float64, bias bool) *LayerNorm {
	w := s.Sub(name)
	l := &LayerNorm{slot: s.slot(name), width: width, gain: w.floats("weight", width), eps: eps}
	if bias {
		l.bias = w.floats("bias", width)
	}
	s.b.layers.bySlot[l.slot] = l
	return l
}

// Embedding is the layer name of s: weight [num, dim].
func (s Scope) Embedding(name string, num, dim int) *Embedding {
	e := &Embedding{slot: s.slot(name), num: num, dim: dim, table: s.Sub(name).table(num, dim)}
	s.b.layers.bySlot[e.slot] = e
	return e
}

// Parameter is the bare tensor name that belongs to the module of s itself.
func (s Scope) Parameter(name string, shape ...int) *Parameter {
	return &Parameter{slot: s.slot(""), name: name, values: s.floats(name, shape...)}
}

// Layers ends the building: what an adapter can be compiled against. The error names the first tensors that do not
// fit.
func (s Scope) Layers() (*Layers, error) {
	const most = 5 // named: a base of another architecture has hundreds
	if n := len(s.b.errs); n > most {
		return nil, fmt.Errorf("%w\nand %d more tensors", errors.Join(s.b.errs[:most]...), n-most)
	} else if n > 0 {
		return nil, errors.Join(s.b.errs...)
	}
	return &s.b.layers, nil
}

// path is that of the module name within s, or of s itself if name is empty.
func (s Scope) path(name string) string {
	if name == "" {
		return s.prefix[:max(len(s.prefix)-1, 0)]
	}
	return s.prefix + name
}

// slot is the slot of the module name within s.
func (s Scope) slot(name string) int {
	path := s.path(name)
	ls := &s.b.layers
	slot, ok := ls.slots[path]
	if !ok {
		slot = len(ls.bySlot)
		ls.slots[path] = slot
		ls.bySlot, ls.stages = append(ls.bySlot, nil), append(ls.stages, s.stage)
	}
	ls.stages[slot] = min(ls.stages[slot], s.stage)
	return slot
}

// floats copies a parameter of s itself out of the source; nil where the base lacks it or it does not fit, so that a
// config which promises a giant costs nothing.
func (s Scope) floats(name string, shape ...int) []float32 {
	return s.found(s.b.source.Read(s.path(""), name, shape...))
}

func (s Scope) found(t *tensor.Dense, err error) []float32 {
	if err != nil {
		s.b.errs = append(s.b.errs, err)
	}
	if err != nil || t == nil {
		return nil
	}
	return values(t)
}

// rowsAtOnce is how many vectors of a table are read at once.
const rowsAtOnce = 4096

// table is the weight [num, dim] of s itself, an Embedding; nil as floats. It is read by parts: as float32, all of one
// may take more than the rest of the model.
func (s Scope) table(num, dim int) *kernels.Table {
	var table *kernels.Table
	for from := 0; from < num; from += rowsAtOnce {
		rows := s.found(s.b.source.Rows(s.path(""), "weight", from, min(from+rowsAtOnce, num), num, dim))
		if !s.fit(rows) {
			return nil
		}
		if table == nil {
			table = kernels.NewTable(s.b.dtype, num, dim)
		}
		table.Set(from, rows)
	}
	return table
}

// fit tells whether there are weights of s itself, and the base's type has numbers as large.
func (s Scope) fit(weights []float32) bool {
	largest := s.b.dtype.Largest()
	i := slices.IndexFunc(weights, func(v float32) bool { return v > largest || v < -largest })
	if i >= 0 {
		s.b.errs = append(s.b.errs, fmt.Errorf("module %s: weight: expected values of at most %g, which bfloat16 has, "+
			"found %g: serve the model as float32", quote.Name(s.path("")), largest, weights[i]))
	}
	return i < 0 && weights != nil
}

// values is a float32 tensor's backing slice.
func values(t *tensor.Dense) []float32 { return t.Data().([]float32) }
