package kernels

import "github.com/switchyard-dev/switchyard/runtime/memory"

// Table is vectors by id, [num, width].
type Table struct {
	width  int
	floats []float32
	halves []uint16 // in place of floats
}

// NewTable is a table of zeros, in memory of that region.
func NewTable(in *memory.Region, dtype DType, num, width int) *Table {
	if dtype == BFloat16 {
		return &Table{width: width, halves: memory.Make[uint16](in, num*width)}
	}
	return &Table{width: width, floats: memory.Make[float32](in, num*width)}
}

// Set takes over the vectors [n, width] of the ids from first on.
func (t *Table) Set(first int, vectors []float32) {
	at := first * t.width
	if t.halves == nil {
		copy(t.floats[at:at+len(vectors)], vectors)
		return
	}
	for i, v := range vectors {
		t.halves[at+i] = round(v)
	}
}

// Row copies the vector of an id to dst.
func (t *Table) Row(id int, dst []float32) {
	from, to := id*t.width, (id+1)*t.width
	if t.halves == nil {
		copy(dst, t.floats[from:to])
		return
	}
	for i, v := range t.halves[from:to] {
		dst[i] = widen(v)
	}
}

// Embedding looks rows up in a table: Dst = (Table[id] + A[id]·B)·Gain, or is added to Dst.
type Embedding struct {
	IDs   []int32             // of each row of Dst
	Table *Table              // of vectors [Width]
	Own   map[int32][]float32 // rows [Width] that stand in place of the table's
	A     []float32           // [num, Rank], or nil; the scale is in it
	B     []float32           // [Rank, Width]
	Rank  int
	Gain  []float32 // [Width] or nil
	Width int
	Add   bool
	Dst   []float32 // [len(IDs), Width]
}

// Embedding does several lookups together; each has rows of Dst to itself.
func (p *Pool) Embedding(ops ...Embedding) {
	tasks := make([]int, len(ops))
	for i := range ops {
		tasks[i] = ceilDiv(len(ops[i].IDs), rowsPerTask)
	}
	p.runEach(tasks, func(w *worker, i, task int) {
		op := &ops[i]
		w.vector = atLeast(w.vector, op.Width)
		for r := task * rowsPerTask; r < min((task+1)*rowsPerTask, len(op.IDs)); r++ {
			op.row(op.Dst[r*op.Width:(r+1)*op.Width], w.vector[:op.Width], op.IDs[r])
		}
	})
}

func (op *Embedding) row(dst, buf []float32, id int32) {
	if row, ok := op.Own[id]; ok {
		copy(buf, row)
	} else {
		op.Table.Row(int(id), buf)
	}
	for i := range op.Rank {
		a := op.A[int(id)*op.Rank+i]
		for j, b := range op.B[i*op.Width : (i+1)*op.Width] {
			buf[j] += float32(a * b)
		}
	}
	for i := range op.Gain {
		buf[i] *= op.Gain[i]
	}
	if !op.Add {
		copy(dst, buf)
		return
	}
	for i, v := range buf {
		dst[i] += v
	}
}
