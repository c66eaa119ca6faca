package nn_test

import (
	"slices"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/nn"
)

func TestRowsBecomeSegments(t *testing.T) {
	m := newTiny(t)
	x, y := m.changing(t, "a.norm"), m.changing(t, "a.norm")
	inputs := make([]nn.Input, 4)
	for i := range inputs {
		inputs[i].Pixels = make([]float32, i+1) // as many tokens
	}
	rows := []nn.Row{{0, x}, {1, x}, {2, nil}, {3, y}}
	b := nn.NewBatch(nil, nil, inputs, rows, func(in nn.Input) int { return len(in.Pixels) }, 0)
	if want := []nn.Segment{{0, 1, nil}, {1, 3, x}, {3, 4, y}}; !slices.Equal(b.Rows, want) {
		t.Errorf("in rows, the base's first: expected %v, found %v", want, b.Rows)
	}
	if want := []nn.Segment{{0, 3, nil}, {3, 6, x}, {6, 10, y}}; !slices.Equal(b.Tokens, want) {
		t.Errorf("in tokens: expected %v, found %v", want, b.Tokens)
	}
	spans := []kernels.Span{{Start: 0, End: 3}, {Start: 3, End: 4}, {Start: 4, End: 6}, {Start: 6, End: 10}}
	if !slices.Equal(b.Spans, spans) {
		t.Errorf("each row: expected %v, found %v", spans, b.Spans)
	}
	if b.NumTokens() != 10 || b.Longest() != 4 {
		t.Errorf("expected 10 tokens, the longest row of 4, found %d and %d", b.NumTokens(), b.Longest())
	}
	none := nn.NewBatch(nil, nil, nil, nil, nil, 0)
	if none.NumTokens() != 0 || none.Longest() != 0 {
		t.Errorf("no rows: expected no tokens, found %d, the longest row of %d", none.NumTokens(), none.Longest())
	}
}

// texts lays out rows of token ids.
func texts(adapters []*nn.Adapter, base int, inputs ...nn.Input) *nn.Batch {
	rows := make([]nn.Row, len(adapters))
	for i, a := range adapters {
		rows[i] = nn.Row{Input: i, Adapter: a}
	}
	return nn.NewBatch(nil, nil, inputs, rows, func(in nn.Input) int { return len(in.IDs) }, base)
}

func TestTheTokensOfTexts(t *testing.T) {
	b := texts(make([]*nn.Adapter, 3), 0,
		nn.Input{IDs: []int32{5, 6}},
		nn.Input{IDs: []int32{7, 8, 9}, Types: []int32{0, 1, 1}},
		nn.Input{IDs: []int32{4}},
	)
	ids, types := b.IDs()
	if want := []int32{5, 6, 7, 8, 9, 4}; !slices.Equal(ids, want) {
		t.Errorf("ids: expected %v, found %v", want, ids)
	}
	if want := []int32{0, 0, 0, 1, 1, 0}; !slices.Equal(types, want) {
		t.Errorf("types, none of which are 0: expected %v, found %v", want, types)
	}
	if got, want := b.Positions(2), []int32{2, 3, 2, 3, 4, 2}; !slices.Equal(got, want) {
		t.Errorf("positions from 2: expected %v, found %v", want, got)
	}
}

// Rows of several heads stand in one batch: each head sees its own, packed, and answers them alone.
func TestHeadsShareABatch(t *testing.T) {
	const sequence, token, other = 0, 1, 2
	m := newTiny(t)
	adapters := make([]*nn.Adapter, 3)
	for i, head := range []int{token, sequence, token} {
		adapters[i] = m.layers.NewAdapter()
		adapters[i].Head = head
	}
	wide := adapters[2]
	replace(t, wide, "a.bare", map[string]*tensor.Dense{
		"weight": dense([]float32{1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}, 4, 3),
	})
	of := func(n int) nn.Input { return nn.Input{IDs: make([]int32, n)} }
	// Two rows of tokens, two of sequences (the base's is one), and one of tokens with a classifier of its own.
	b := texts([]*nn.Adapter{adapters[0], adapters[0], nil, adapters[1], wide}, sequence,
		of(2), of(1), of(3), of(2), of(2))
	b.Pool = kernels.NewPool(2)
	t.Cleanup(b.Pool.Close)
	var x []float32 // [tokens, 3]: token t is [t, 10t, 100t]
	for i := range 10 {
		x = append(x, float32(i), float32(10*i), float32(100*i))
	}

	first := b.FirstTokens(sequence)
	if want := []nn.Segment{{0, 1, nil}, {1, 2, adapters[1]}}; !slices.Equal(first.Segments, want) {
		t.Errorf("sequences: expected the segments %v, found %v", want, first.Segments)
	}
	if got, want := first.Of(x, 3), []float32{3, 30, 300, 6, 60, 600}; !slices.Equal(got, want) || first.Len() != 2 {
		t.Errorf("first tokens: expected %v, found %d: %v", want, first.Len(), got)
	}
	second := b.TokensAt(sequence, 1)
	if got, want := second.Of(x, 3), []float32{4, 40, 400, 7, 70, 700}; !slices.Equal(got, want) {
		t.Errorf("second tokens: expected %v, found %v", want, got)
	}
	all := b.AllTokens(token)
	if want := []nn.Segment{{0, 3, adapters[0]}, {3, 5, wide}}; !slices.Equal(all.Segments, want) || all.Len() != 5 {
		t.Errorf("tokens: expected the 5 of the segments %v, found %d of %v", want, all.Len(), all.Segments)
	}
	var spans []kernels.Span
	all.Rows(func(tokens, selected kernels.Span) { spans = append(spans, tokens, selected) })
	if want := []kernels.Span{
		{Start: 0, End: 2},
		{Start: 0, End: 2},
		{Start: 2, End: 3},
		{Start: 2, End: 3},
		{Start: 8, End: 10},
		{Start: 3, End: 5},
	}; !slices.Equal(spans, want) {
		t.Errorf("where the tokens are: expected %v, found %v", want, spans)
	}
	if none := b.AllTokens(other); !none.Empty() || none.Len() != 0 || len(none.Of(x, 3)) != 0 {
		t.Errorf("a head of no row: expected nothing selected, found %+v", none)
	}

	answers := b.NewAnswers()
	first.Classify(answers, m.head, first.Of(x, 3), false)
	all.Classify(answers, m.bare, all.Of(x, 3), true)
	for row, want := range []struct {
		shape  tensor.Shape
		logits []float32 // a token t has 321t and 654t by the base's weight
	}{
		{tensor.Shape{2, 2}, []float32{0, 0, 321, 654}},
		{tensor.Shape{1, 2}, []float32{642, 1308}},
		{tensor.Shape{2}, []float32{963 + 10, 1962 + 20}},
		{tensor.Shape{2}, []float32{1926 + 10, 3924 + 20}},
		{tensor.Shape{2, 4}, []float32{8, 80, 800, 888, 9, 90, 900, 999}},
	} {
		if got := answers[row]; !slices.Equal(got.Shape(), want.shape) || !slices.Equal(got.Float32s(), want.logits) {
			t.Errorf("row %d: expected %v of the shape %v, found %v of %v", row, want.logits, want.shape,
				got.Data(), got.Shape())
		}
	}
}

// Relative terms are each segment's own, for the rows of that segment.
func TestAttentionRelative(t *testing.T) {
	const dim = 2
	m := newTiny(t)
	x, y := m.changing(t, "a.norm"), m.changing(t, "a.norm")
	of := func(n int) nn.Input { return nn.Input{IDs: make([]int32, n)} }
	b := texts([]*nn.Adapter{x, x, y}, 0, of(2), of(3), of(2))
	b.Pool = kernels.NewPool(2)
	t.Cleanup(b.Pool.Close)
	var q []float32
	for i := range b.NumTokens() * dim {
		q = append(q, float32(i*i%5)-2)
	}
	terms := func(v float32) *kernels.Relative {
		return &kernels.Relative{Keys: []float32{v, -v, -v, v}, Buckets: []int{0, 0, 0, 1, 1}}
	}
	relatives := []*kernels.Relative{terms(1), terms(-3)}
	a := kernels.Attention{Q: q, K: q, V: q, Heads: 1, Dim: dim, Scale: 1, Dst: make([]float32, len(q))}
	b.AttentionRelative(a, relatives)
	want := make([]float32, len(q))
	for i, rows := range [][]kernels.Span{b.Spans[:2], b.Spans[2:]} {
		own := a
		own.Rows, own.Relative, own.Dst = rows, relatives[i], want
		b.Pool.Attention(own)
	}
	if !slices.Equal(a.Dst, want) {
		t.Errorf("expected %v, found %v", want, a.Dst)
	}
}
