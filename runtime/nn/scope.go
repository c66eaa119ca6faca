package nn

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/memory"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Source has a base's weights by the model's own names for them. It is safe for concurrent use.
type Source interface {
	// Rows copies rows of a parameter of the module at path to dst, from one on and as many as it has room for. It is
	// false, without an error, for what the base has not: a part of a head that adapters bring.
	Rows(dst []float32, path, param string, from int, shape ...int) (found bool, err error)
}

// Scope is a place in a model's tree of modules, from which its layers are asked by name and shape. They are given
// without their weights, which are read at the end, several at once (Layers); so a model reads without error checks.
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
	reads  []read // in the order asked
}

// read reads one parameter, in parts that fit a buffer.
type read func(buffer []float32) error

// bufferSize is how many values are read at once, at least a row: few enough to be in the cache still when they are
// packed.
const bufferSize = 1 << 17

// NewScope is the root of a base whose weights are source. The weights of Linears and the tables of Embeddings are kept
// as dtype, all else is float32. What adapters bring is none of its business.
func NewScope(source Source, dtype kernels.DType) Scope {
	return Scope{b: &builder{
		source: source, dtype: dtype, layers: Layers{slots: make(map[string]int), memory: &memory.Region{}},
	}}
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
	w.read(func(from int, rows []float32) error {
		if from == 0 {
			l.weight = kernels.NewPacked(s.b.layers.memory, s.b.dtype, out, in)
		}
		for i := range len(rows) / in {
			l.weight.SetRow(from+i, rows[i*in:(i+1)*in])
		}
		return w.fit(rows)
	}, "weight", shape...)
	if bias {
		w.keep(&l.bias, "bias", out)
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
	l := &LayerNorm{slot: s.slot(name), width: width, eps: eps}
	w.keep(&l.gain, "weight", width)
	if bias {
		w.keep(&l.bias, "bias", width)
	}
	s.b.layers.bySlot[l.slot] = l
	return l
}

// Embedding is the layer name of s: weight [num, dim].
func (s Scope) Embedding(name string, num, dim int) *Embedding {
	e := &Embedding{slot: s.slot(name), num: num, dim: dim}
	w := s.Sub(name)
	w.read(func(from int, rows []float32) error {
		if from == 0 {
			e.table = kernels.NewTable(s.b.layers.memory, s.b.dtype, num, dim)
		}
		e.table.Set(from, rows)
		return w.fit(rows)
	}, "weight", num, dim)
	s.b.layers.bySlot[e.slot] = e
	return e
}

// Parameter is the bare tensor name that belongs to the module of s itself.
func (s Scope) Parameter(name string, shape ...int) *Parameter {
	p := &Parameter{slot: s.slot(""), name: name}
	s.keep(&p.values, name, shape...)
	return p
}

// Layers ends the building: what an adapter can be compiled against. It reads the weights, as many at once as there are
// processors. The error names the first tensors that do not fit.
func (s Scope) Layers() (*Layers, error) {
	const most = 5 // named: a base of another architecture has hundreds
	errs := slices.DeleteFunc(s.b.readAll(), func(err error) bool { return err == nil })
	s.b.layers.memory.Seal()
	if len(errs) == 0 {
		return &s.b.layers, nil
	}
	s.b.layers.Free()
	if n := len(errs); n > most {
		return nil, fmt.Errorf("%w\nand %d more tensors", errors.Join(errs[:most]...), n-most)
	}
	return nil, errors.Join(errs...)
}

// readAll does the reads, and returns each one's error.
func (b *builder) readAll() []error {
	errs := make([]error, len(b.reads))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			buffer := make([]float32, bufferSize)
			for i := next.Add(1) - 1; i < int64(len(errs)); i = next.Add(1) - 1 {
				errs[i] = b.reads[i](buffer)
			}
		})
	}
	workers.Wait()
	return errs
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

// keep has a parameter of s itself read in the end, as it is.
func (s Scope) keep(values *[]float32, name string, shape ...int) {
	s.read(func(from int, rows []float32) error {
		if from == 0 {
			*values = memory.Make[float32](s.b.layers.memory, tensor.Shape(shape).TotalSize())
		}
		copy((*values)[from*tensor.Shape(shape[1:]).TotalSize():], rows)
		return nil
	}, name, shape...)
}

// read has a parameter of s itself read in the end, some rows after the others, where the base has it and it fits: a
// config which promises a giant costs nothing.
func (s Scope) read(use func(from int, rows []float32) error, name string, shape ...int) {
	s.b.reads = append(s.b.reads, func(buffer []float32) error {
		if found, err := s.b.source.Rows(nil, s.path(""), name, 0, shape...); !found || err != nil {
			return err
		}
		width := tensor.Shape(shape[1:]).TotalSize()
		each := max(bufferSize/width, 1)
		for from := 0; from < shape[0]; from += each {
			rows := slices.Grow(buffer[:0], each*width)[:min(each, shape[0]-from)*width]
			if _, err := s.b.source.Rows(rows, s.path(""), name, from, shape...); err != nil {
				return err
			}
			if err := use(from, rows); err != nil {
				return err
			}
		}
		return nil
	})
}

// fit refuses weights of s itself that are larger than the base's type has numbers.
func (s Scope) fit(weights []float32) error {
	largest := s.b.dtype.Largest()
	i := slices.IndexFunc(weights, func(v float32) bool { return v > largest || v < -largest })
	if i < 0 {
		return nil
	}
	return fmt.Errorf("module %s: weight: expected values of at most %g, which bfloat16 has, found %g: "+
		"serve the model as float32", quote.Name(s.path("")), largest, weights[i])
}

// values is a float32 tensor's backing slice.
func values(t *tensor.Dense) []float32 { return t.Data().([]float32) }
