package nn

import "github.com/switchyard-dev/switchyard/runtime/kernels"

// Segment is the consecutive rows [Start, End) of a matrix that belong to one adapter; a nil adapter is the bare base.
type Segment struct {
	Start, End int
	Adapter    *Adapter
}

// Batch is how the rows of one batch lie, sorted by adapter, and the pool that computes them.
type Batch struct {
	Pool   *kernels.Pool
	Inputs []Input        // of each row
	Rows   []Segment      // in rows
	Tokens []Segment      // the same segments, in tokens
	Spans  []kernels.Span // tokens of each row
}

// Input is what one row asks about.
type Input struct {
	Pixels []float32 // [channels, height, width]
}

// NewBatch lays out rows that stand sorted by adapter. tokens tells how many tokens the model makes of an input.
func NewBatch(pool *kernels.Pool, inputs []Input, adapters []*Adapter, tokens func(Input) int) *Batch {
	b := &Batch{Pool: pool, Inputs: inputs, Spans: make([]kernels.Span, len(inputs))}
	at := 0
	for row, in := range inputs {
		end := at + tokens(in)
		b.Spans[row] = kernels.Span{Start: at, End: end}
		if last := len(b.Rows) - 1; last >= 0 && b.Rows[last].Adapter == adapters[row] {
			b.Rows[last].End = row + 1
			b.Tokens[last].End = end
		} else {
			b.Rows = append(b.Rows, Segment{row, row + 1, adapters[row]})
			b.Tokens = append(b.Tokens, Segment{at, end, adapters[row]})
		}
		at = end
	}
	return b
}

// NumTokens is the number of tokens of all rows.
func (b *Batch) NumTokens() int {
	if len(b.Spans) == 0 {
		return 0
	}
	return b.Spans[len(b.Spans)-1].End
}

// Each is the batch's segments in a matrix that has n rows for each row of the batch.
func (b *Batch) Each(n int) []Segment {
	segments := make([]Segment, len(b.Rows))
	for i, s := range b.Rows {
		segments[i] = Segment{s.Start * n, s.End * n, s.Adapter}
	}
	return segments
}
