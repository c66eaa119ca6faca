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
	if dtype.halves() {
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

// add adds a multiple of the vector of an id to dst.
func (t *Table) add(dst []float32, times float32, id int) {
	from, to := id*t.width, (id+1)*t.width
	if t.halves == nil {
		for i, v := range t.floats[from:to] {
			dst[i] += float32(times * v)
		}
		return
	}
	for i, v := range t.halves[from:to] {
		dst[i] += float32(times * widen(v))
	}
}

// Embedding looks rows up in a table: Dst = (Table[id] + A[id]·B)·Gain, or is added to Dst.
type Embedding struct {
	IDs   []int32       // of each row of Dst
	Table *Table        // of vectors [Width]
	Own   map[int32]int // ids whose vector is, in place of the table's, that one of Rows
	Rows  *Table        // of vectors [Width]
	A     *Table        // of vectors [r], or nil; the scale is in it
	B     *Table        // [r, Width]
	Gain  []float32     // [Width] or nil
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
		var a []float32
		if op.A != nil {
			w.reduced = atLeast(w.reduced, op.A.width)
			a = w.reduced[:op.A.width]
		}
		for r := task * rowsPerTask; r < min((task+1)*rowsPerTask, len(op.IDs)); r++ {
			op.row(op.Dst[r*op.Width:(r+1)*op.Width], w.vector[:op.Width], a, op.IDs[r])
		}
	})
}

// row looks one id up. buf and a are room for a vector of the table and of A.
func (op *Embedding) row(dst, buf, a []float32, id int32) {
	if row, ok := op.Own[id]; ok {
		op.Rows.Row(row, buf)
	} else {
		op.Table.Row(int(id), buf)
	}
	if op.A != nil {
		op.A.Row(int(id), a)
		for i, v := range a {
			op.B.add(buf, v, i)
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
