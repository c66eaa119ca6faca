package nn

import (
	"slices"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
)

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

	base int // the head of rows without an adapter
}

// Input is what one row asks about: an image, or a text's tokens.
type Input struct {
	Pixels        []float32 // [channels, Height, Width]
	Height, Width int

	IDs   []int32
	Types []int32 // of each id; nil: all 0
}

// NewBatch lays out rows that stand sorted by adapter. tokens tells how many tokens the model makes of an input; base
// is the head of rows without an adapter.
func NewBatch(pool *kernels.Pool, inputs []Input, adapters []*Adapter, tokens func(Input) int, base int) *Batch {
	b := &Batch{Pool: pool, Inputs: inputs, Spans: make([]kernels.Span, len(inputs)), base: base}
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

// Longest is the number of tokens of the longest row.
func (b *Batch) Longest() int {
	longest := 0
	for _, span := range b.Spans {
		longest = max(longest, span.End-span.Start)
	}
	return longest
}

// IDs are the ids of all tokens, and their types.
func (b *Batch) IDs() (ids, types []int32) {
	ids, types = make([]int32, 0, b.NumTokens()), make([]int32, 0, b.NumTokens())
	for _, in := range b.Inputs {
		ids = append(ids, in.IDs...)
		if in.Types == nil {
			types = types[:len(ids)] // zeros: nothing was written beyond
			continue
		}
		types = append(types, in.Types...)
	}
	return ids, types
}

// Positions are the places of all tokens in their rows, counted from first.
func (b *Batch) Positions(first int32) []int32 {
	positions := make([]int32, b.NumTokens())
	for _, span := range b.Spans {
		for i := range span.End - span.Start {
			positions[span.Start+i] = first + int32(i)
		}
	}
	return positions
}

// Selection is the tokens that one of the model's heads looks at, packed: of each row whose adapter has that head.
type Selection struct {
	Segments []Segment
	Spans    []kernels.Span // of each row of the batch; empty for rows of other heads
	b        *Batch
	from     []kernels.Span // the tokens of the batch that were taken, of each row
}

// FirstTokens selects the first token of each row of a head.
func (b *Batch) FirstTokens(head int) Selection {
	return b.TokensAt(head, 0)
}

// TokensAt selects the token at a place of each row of a head.
func (b *Batch) TokensAt(head, place int) Selection {
	return b.selectTokens(head, func(span kernels.Span) kernels.Span {
		return kernels.Span{Start: span.Start + place, End: span.Start + place + 1}
	})
}

// AllTokens selects every token of each row of a head.
func (b *Batch) AllTokens(head int) Selection {
	return b.selectTokens(head, func(span kernels.Span) kernels.Span { return span })
}

func (b *Batch) selectTokens(head int, take func(kernels.Span) kernels.Span) Selection {
	s := Selection{b: b, Spans: make([]kernels.Span, len(b.Spans)), from: make([]kernels.Span, len(b.Spans))}
	at := 0
	for _, rows := range b.Rows {
		if b.headOf(rows.Adapter) != head {
			continue
		}
		start := at
		for row := rows.Start; row < rows.End; row++ {
			s.from[row] = take(b.Spans[row])
			n := s.from[row].End - s.from[row].Start
			s.Spans[row] = kernels.Span{Start: at, End: at + n}
			at += n
		}
		s.Segments = append(s.Segments, Segment{start, at, rows.Adapter})
	}
	return s
}

func (b *Batch) headOf(a *Adapter) int {
	if a == nil {
		return b.base
	}
	return a.Head
}

// Empty tells whether no row has the head.
func (s *Selection) Empty() bool { return len(s.Segments) == 0 }

// Len is the number of tokens selected.
func (s *Selection) Len() int {
	if s.Empty() {
		return 0
	}
	return s.Segments[len(s.Segments)-1].End
}

// Of copies the selected tokens of x [tokens, width].
func (s *Selection) Of(x []float32, width int) []float32 {
	taken := make([]float32, 0, s.Len()*width)
	for _, span := range s.from {
		taken = append(taken, x[span.Start*width:span.End*width]...)
	}
	return taken
}

// Rows tells, of each row of the batch that is selected, its span among the batch's tokens and in the selection.
func (s *Selection) Rows(visit func(tokens, selected kernels.Span)) {
	for row, span := range s.Spans {
		if span.End > span.Start {
			visit(s.b.Spans[row], span)
		}
	}
}

// Answers are the logits of each row of a batch: [labels], or [tokens, labels] of a head that answers for each token.
type Answers []*tensor.Dense

// NewAnswers is the place for a batch's answers.
func (b *Batch) NewAnswers() Answers { return make(Answers, len(b.Spans)) }

// Classify lets a classifier answer for the selected tokens, x [selected, in]: one answer a row, or one for each of its
// tokens.
func (s *Selection) Classify(answers Answers, classifier *Linear, x []float32, eachToken bool) {
	width := 0
	for _, segment := range s.Segments {
		width = max(width, classifier.Out(segment.Adapter))
	}
	logits := make([]float32, s.Len()*width)
	s.b.Linear(s.Segments, x, Product{Layer: classifier, Dst: logits, Stride: width})
	for _, segment := range s.b.Rows {
		labels := classifier.Out(segment.Adapter)
		for row := segment.Start; row < segment.End; row++ {
			span := s.Spans[row]
			n := span.End - span.Start
			if n == 0 {
				continue
			}
			own := make([]float32, 0, n*labels)
			for token := span.Start; token < span.End; token++ {
				own = append(own, logits[token*width:token*width+labels]...)
			}
			shape := []int{labels}
			if eachToken {
				shape = []int{n, labels}
			}
			answers[row] = tensor.New(tensor.WithShape(shape...), tensor.WithBacking(slices.Clip(own)))
		}
	}
}
