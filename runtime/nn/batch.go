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

// Batch is how what a batch asks is computed: in tracks, which lie one after the other, sorted by adapter. Rows that
// ask the same of the same adapter share a track, and so do those that ask the same of several, as the base would
// answer, until one of these changes anything (Enter). A row's answer is bitwise that of a track of its own.
type Batch struct {
	Pool   *kernels.Pool
	Inputs []Input        // of each track
	Rows   []Segment      // in tracks
	Tokens []Segment      // the same segments, in tokens
	Spans  []kernels.Span // tokens of each track
	Whole  bool           // Narrow leaves nothing out

	asked   []Row
	answers []Segment // the asked rows of each adapter
	track   []int     // of each asked row
	inputs  []Input
	tokens  []int // of each input
	most    int   // tokens at once, of all stages
	base    int   // the head of rows without an adapter
	stage   int
	looks   func(head int) int // in the last layer
	arena   *Arena
}

// Row is what one row of a batch asks: of an input, by its number, as that adapter answers it (nil: the base).
type Row struct {
	Input   int
	Adapter *Adapter
}

// NewBatch lays out rows that stand sorted by adapter. It works with an arena that nobody else does, until its answers
// are there. tokens tells how many tokens the model makes of an input; base is the head of rows without an adapter.
func NewBatch(pool *kernels.Pool, arena *Arena, inputs []Input, rows []Row, tokens func(Input) int, base int) *Batch {
	b := &Batch{
		Pool: pool, asked: rows, track: make([]int, len(rows)), inputs: inputs, tokens: make([]int, len(inputs)),
		base: base, arena: arena,
	}
	for i, in := range inputs {
		b.tokens[i] = tokens(in)
	}
	for i, r := range rows {
		if last := len(b.answers) - 1; last >= 0 && b.answers[last].Adapter == r.Adapter {
			b.answers[last].End = i + 1
		} else {
			b.answers = append(b.answers, Segment{i, i + 1, r.Adapter})
		}
	}
	b.lay(Heads - 1)
	b.most = b.NumTokens() // tracks only ever part
	b.lay(0)
	return b
}

// lay makes the tracks of a stage, and tells of each which it was before.
func (b *Batch) lay(stage int) (from []int) {
	b.stage = stage
	b.Inputs, b.Rows, b.Tokens, b.Spans = nil, nil, nil, nil
	tracks := make(map[Row]int, len(b.asked))
	at := 0
	for _, shared := range []bool{true, false} {
		for i, r := range b.asked {
			if shared != (r.Adapter.leaves() > stage) {
				continue
			}
			if shared {
				r.Adapter = nil
			}
			n, known := tracks[r]
			if !known {
				n = len(b.Spans)
				tracks[r] = n
				end := at + b.tokens[r.Input]
				b.Inputs, b.Spans = append(b.Inputs, b.inputs[r.Input]), append(b.Spans, kernels.Span{Start: at, End: end})
				if last := len(b.Rows) - 1; last >= 0 && b.Rows[last].Adapter == r.Adapter {
					b.Rows[last].End, b.Tokens[last].End = n+1, end
				} else {
					b.Rows, b.Tokens = append(b.Rows, Segment{n, n + 1, r.Adapter}), append(b.Tokens, Segment{at, end, r.Adapter})
				}
				from, at = append(from, b.track[i]), end
			}
			b.track[i] = n
		}
	}
	return from
}

// Hidden is room for what the tracks have now, [tokens, width], which grows as they part.
func (b *Batch) Hidden(width int) []float32 { return b.Floats(b.most * width)[:b.NumTokens()*width] }

// Enter begins a stage of the forward pass (Scope.At): rows whose adapters change something in it leave the tracks that
// they have shared, with a copy of what is there. x [tokens, width] is Hidden's, and is returned as it is then.
func (b *Batch) Enter(stage int, x []float32, width int) []float32 {
	if !slices.ContainsFunc(b.answers, func(s Segment) bool {
		leaves := s.Adapter.leaves()
		return leaves > b.stage && leaves <= stage
	}) {
		b.stage = stage
		return x
	}
	before := b.Spans
	from := b.lay(stage)
	if len(from) == len(before) && slices.IsSorted(from) {
		return x // each track has become another's, where it lies
	}
	defer b.Free(b.Mark())
	copied := b.Floats(b.NumTokens() * width)[:0]
	for _, track := range from {
		copied = append(copied, x[before[track].Start*width:before[track].End*width]...)
	}
	x = x[:len(copied)]
	copy(x, copied)
	return x
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

// LookAt tells, in the last layer, how many of a row's first tokens the heads look at; 0 is all of them. The rest need
// not be computed behind its keys and values.
func (b *Batch) LookAt(looks func(head int) int) { b.looks = looks }

// FirstOf is LookAt's for models of which one head looks at the first token alone, and any other at all.
func FirstOf(head int) func(head int) int {
	return func(other int) int {
		if other == head {
			return 1
		}
		return 0
	}
}

// narrows tells whether there are tokens that no head looks at.
func (b *Batch) narrows() bool {
	return !b.Whole && b.looks != nil && slices.ContainsFunc(b.answers, func(s Segment) bool {
		return b.looks(b.headOf(s.Adapter)) > 0
	})
}

// Few are the tokens that a batch goes on with.
type Few struct {
	Keys []kernels.Span // the tokens of each track as they lay before
	from []kernels.Span // those of them that are left
	all  bool
}

// Narrow has the batch go on with those tokens alone that heads look at. Where LookAt was not called these are all.
func (b *Batch) Narrow() Few {
	few := Few{Keys: b.Spans, from: b.Spans, all: true}
	if !b.narrows() {
		return few
	}
	few.all, few.from = false, make([]kernels.Span, len(b.Spans))
	for i, r := range b.asked {
		span, own := b.Spans[b.track[i]], &few.from[b.track[i]]
		n := b.looks(b.headOf(r.Adapter))
		if n == 0 {
			n = span.End - span.Start
		}
		*own = kernels.Span{Start: span.Start, End: min(span.End, max(span.Start+n, own.End))}
	}
	b.looks, b.Spans, b.Tokens = nil, make([]kernels.Span, len(few.from)), slices.Clone(b.Tokens)
	at := 0
	for i, rows := range b.Rows {
		b.Tokens[i].Start = at
		for track := rows.Start; track < rows.End; track++ {
			end := at + few.from[track].End - few.from[track].Start
			b.Spans[track] = kernels.Span{Start: at, End: end}
			at = end
		}
		b.Tokens[i].End = at
	}
	return few
}

// Of moves what is left of x [tokens, width] to its start, and returns it.
func (f *Few) Of(x []float32, width int) []float32 {
	if f.all {
		return x
	}
	return f.appendTo(x[:0], x, width)
}

// Copy is what is left of x [tokens, width]; x stays as it is. Where nothing is left out it is x itself.
func (f *Few) Copy(b *Batch, x []float32, width int) []float32 {
	if f.all {
		return x
	}
	return f.appendTo(b.Floats(b.NumTokens() * width)[:0], x, width)
}

func (f *Few) appendTo(left, x []float32, width int) []float32 {
	for _, span := range f.from {
		left = append(left, x[span.Start*width:span.End*width]...)
	}
	return left
}

// Selection is the tokens that one of the model's heads looks at, packed: of each row whose adapter has that head.
type Selection struct {
	Segments []Segment
	Spans    []kernels.Span // of each asked row; empty for rows of other heads
	b        *Batch
	from     []kernels.Span // the tokens of the batch that were taken, of each asked row
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
	s := Selection{b: b, Spans: make([]kernels.Span, len(b.asked)), from: make([]kernels.Span, len(b.asked))}
	at := 0
	for _, rows := range b.answers {
		if b.headOf(rows.Adapter) != head {
			continue
		}
		start := at
		for row := rows.Start; row < rows.End; row++ {
			s.from[row] = take(b.Spans[b.track[row]])
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
	taken := s.b.Floats(s.Len() * width)[:0]
	for _, span := range s.from {
		taken = append(taken, x[span.Start*width:span.End*width]...)
	}
	return taken
}

// Rows tells, of each asked row that is selected, its span among the batch's tokens and in the selection.
func (s *Selection) Rows(visit func(tokens, selected kernels.Span)) {
	for row, span := range s.Spans {
		if span.End > span.Start {
			visit(s.b.Spans[s.b.track[row]], span)
		}
	}
}

// Answers are the logits of each row of a batch: [labels], or [tokens, labels] of a head that answers for each token.
type Answers []*tensor.Dense

// NewAnswers is the place for a batch's answers.
func (b *Batch) NewAnswers() Answers { return make(Answers, len(b.asked)) }

// Classify lets a classifier answer for the selected tokens, x [selected, in]: one answer a row, or one for each of its
// tokens.
func (s *Selection) Classify(answers Answers, classifier *Linear, x []float32, eachToken bool) {
	width := 0
	for _, segment := range s.Segments {
		width = max(width, classifier.Out(segment.Adapter))
	}
	logits := s.b.Floats(s.Len() * width)
	s.b.Linear(s.Segments, x, Product{Layer: classifier, Dst: logits, Stride: width})
	for _, segment := range s.b.answers {
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
