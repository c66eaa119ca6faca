package kernels_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
)

func newTable(dtype kernels.DType, values []float32, width int) *kernels.Table {
	table := kernels.NewTable(nil, dtype, len(values)/width, width)
	first := len(values) / width / 2 // in two parts
	table.Set(first, values[first*width:])
	table.Set(0, values[:first*width])
	return table
}

func vector(table *kernels.Table, id, width int) []float32 {
	row := make([]float32, width)
	table.Row(id, row)
	return row
}

const rank = 3 // of updates

// lookUp is a lookup by its definition, in float64.
func lookUp(op kernels.Embedding) []float64 {
	var out []float64
	for i, id := range op.IDs {
		row := vector(op.Table, int(id), op.Width)
		if own, ok := op.Own[id]; ok {
			row = vector(op.Rows, own, op.Width)
		}
		var a []float32
		if op.A != nil {
			a = vector(op.A, int(id), rank)
		}
		for j := range op.Width {
			v := float64(row[j])
			for k, factor := range a {
				v += float64(factor) * float64(vector(op.B, k, op.Width)[j])
			}
			if op.Gain != nil {
				v *= float64(op.Gain[j])
			}
			if op.Add {
				v += float64(op.Dst[i*op.Width+j])
			}
			out = append(out, v)
		}
	}
	return out
}

func TestEmbedding(t *testing.T) {
	const num, width = 9, 13
	rng := rand.New(rand.NewPCG(12, 12))
	values := random(rng, num*width)
	table, rounded := newTable(kernels.Float32, values, width), newTable(kernels.BFloat16, values, width)
	a := newTable(kernels.Float32, random(rng, num*rank), rank)
	b := newTable(kernels.BFloat16, random(rng, rank*width), width)
	own, rows := map[int32]int{2: 1, 8: 0}, newTable(kernels.Float32, random(rng, 2*width), width)
	gain := random(rng, width)
	var ids []int32 // of some tasks, each id in all of them
	for i := range int32(70) {
		ids = append(ids, i*5%num)
	}
	p := newPool(t, 2)
	for _, c := range []struct {
		name string
		op   kernels.Embedding
	}{
		{"a table", kernels.Embedding{Table: table}},
		{"a table of bfloat16", kernels.Embedding{Table: rounded}},
		{"own rows", kernels.Embedding{Table: table, Own: own, Rows: rows}},
		{"an update", kernels.Embedding{Table: table, A: a, B: b}},
		{"a gain", kernels.Embedding{Table: table, Gain: gain}},
		{"all of it", kernels.Embedding{Table: rounded, Own: own, Rows: rows, A: a, B: b, Gain: gain}},
	} {
		for _, add := range []bool{false, true} {
			op := c.op
			op.IDs, op.Width, op.Add, op.Dst = ids, width, add, nans(len(ids)*width)
			if add {
				op.Dst = random(rng, len(ids)*width)
			}
			want := lookUp(op)
			p.Embedding(op)
			near(t, c.name, op.Dst, want, 1e-5)
		}
	}
}

// Of values that all are bfloat16 a lookup is to the bit the same, however they are kept.
func TestALookupOfBFloat16(t *testing.T) {
	const num, width = 9, 13
	rng := rand.New(rand.NewPCG(16, 16))
	values, own := rounded(random(rng, num*width)), rounded(random(rng, 2*width))
	a, b := rounded(random(rng, num*rank)), rounded(random(rng, rank*width))
	before, p := random(rng, num*width), newPool(t, 1)
	looked := func(dtype kernels.DType) []float32 {
		op := kernels.Embedding{
			IDs: []int32{8, 0, 1, 2, 3, 4, 5, 6, 7}, Table: newTable(dtype, values, width), Width: width, Add: true,
			Own: map[int32]int{2: 1, 8: 0}, Rows: newTable(dtype, own, width),
			A: newTable(dtype, a, rank), B: newTable(dtype, b, width), Dst: slices.Clone(before),
		}
		p.Embedding(op)
		return op.Dst
	}
	want := looked(kernels.Float32)
	for _, dtype := range []kernels.DType{kernels.BFloat16, kernels.Widened} {
		if got := looked(dtype); !sameBits(got, want) {
			t.Errorf("as the type %d: expected %v, as of float32, found %v", dtype, want, got)
		}
	}
}

func TestATableGivesItsRowsBack(t *testing.T) {
	const num, width = 5, 7
	values := random(rand.New(rand.NewPCG(15, 15)), num*width)
	for dtype, want := range map[kernels.DType][]float32{kernels.Float32: values, kernels.BFloat16: rounded(values)} {
		table, row := newTable(dtype, values, width), make([]float32, width)
		for id := range num {
			if table.Row(id, row); !sameBits(row, want[id*width:(id+1)*width]) {
				t.Errorf("row %d: expected %v, found %v", id, want[id*width:(id+1)*width], row)
			}
		}
	}
}

func TestEmbeddingsTogether(t *testing.T) {
	const width = 4
	rng := rand.New(rand.NewPCG(13, 13))
	dst := nans(5 * width)
	ops := []kernels.Embedding{
		{IDs: []int32{1, 0}, Table: newTable(kernels.Float32, random(rng, 2*width), width), Width: width, Dst: dst[:2*width]},
		{IDs: []int32{}, Width: width},
		{
			IDs: []int32{2, 2, 1}, Table: newTable(kernels.BFloat16, random(rng, 3*width), width), Width: width,
			Dst: dst[2*width:],
		},
	}
	newPool(t, 2).Embedding(ops...)
	near(t, "the first", dst[:2*width], lookUp(ops[0]), 0)
	near(t, "the last", dst[2*width:], lookUp(ops[2]), 0)
}

// What other ids and other rows have is nothing to a row.
func TestALookupDoesNotDependOnItsNeighbours(t *testing.T) {
	const num, width = 6, 5
	rng := rand.New(rand.NewPCG(14, 14))
	row, a, b, before := random(rng, width), random(rng, rank), random(rng, rank*width), random(rng, width)
	p := newPool(t, 2)
	look := func(id int32, num, rows, at int) []float32 {
		table, down, dst := nans(num*width), nans(num*rank), nans(rows*width)
		copy(table[int(id)*width:], row)
		copy(down[int(id)*rank:], a)
		copy(dst[at*width:], before)
		ids := slices.Repeat([]int32{int32(num - 1)}, rows)
		ids[at] = id
		p.Embedding(kernels.Embedding{
			IDs: ids, Table: newTable(kernels.Float32, table, width), Width: width, Add: true, Dst: dst,
			A: newTable(kernels.Float32, down, rank), B: newTable(kernels.Float32, b, width),
		})
		return dst[at*width : (at+1)*width]
	}
	alone := look(0, 1, 1, 0)
	for _, at := range []int{0, 3, 32, 39} {
		if got := look(2, num, 40, at); !sameBits(got, alone) {
			t.Errorf("row %d among NaN neighbours: expected the row alone, %v, found %v", at, alone, got)
		}
	}
}
