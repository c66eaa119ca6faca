package nn_test

import (
	"slices"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/nn"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// staged is a model of a LayerNorm [1] in each of its stages: "0", "1" and "2", and "head" behind them.
func staged(t *testing.T) (layers *nn.Layers, changing func(path string) *nn.Adapter) {
	t.Helper()
	var tensors []wrappers.Tensor
	for _, name := range []string{"0", "1", "2", "head"} {
		tensors = append(tensors, wrappers.F32(name+".weight", []float32{1}, 1))
	}
	root := nn.NewScope(newSource(t, tensors...), kernels.Float32)
	for stage, name := range []string{"0", "1", "2"} {
		root.At(stage).LayerNorm(name, 1, 0, false)
	}
	root.At(nn.Heads).LayerNorm("head", 1, 0, false)
	layers, err := root.Layers()
	if err != nil {
		t.Fatal(err)
	}
	return layers, func(path string) *nn.Adapter {
		a := layers.NewAdapter()
		replace(t, a, path, map[string]*tensor.Dense{"weight": dense([]float32{2}, 1)})
		return a
	}
}

// Rows that ask the same are one until an adapter of theirs changes something, and go on from what they shared.
func TestRowsThatAskTheSameShareTheirTrack(t *testing.T) {
	layers, changing := staged(t)
	first, second, third, head, none := changing("0"), changing("1"), changing("2"), changing("head"), layers.NewAdapter()
	inputs := []nn.Input{{IDs: make([]int32, 2)}, {IDs: make([]int32, 1)}}
	rows := []nn.Row{ // sorted by adapter, in no order of stages
		{0, third}, {1, third}, {0, nil}, {0, second}, {0, second}, {0, head}, {1, first}, {0, none},
	}
	b := nn.NewBatch(nil, nil, inputs, rows, func(in nn.Input) int { return len(in.IDs) }, 0)
	x := b.Hidden(1)
	step := func(stage int, segments []nn.Segment, want ...float32) {
		t.Helper()
		x = b.Enter(stage, x, 1)
		if !slices.Equal(b.Tokens, segments) {
			t.Errorf("stage %d: expected the tokens %v, found %v", stage, segments, b.Tokens)
		}
		if want != nil && !slices.Equal(x, want) {
			t.Errorf("stage %d: expected what was shared, %v, found %v", stage, want, x)
		}
		if len(x) != b.NumTokens() || len(b.Inputs) != len(b.Spans) {
			t.Errorf("stage %d: expected as many values as the %d tokens, found %d", stage, b.NumTokens(), len(x))
		}
	}
	step(0, []nn.Segment{{0, 3, nil}, {3, 4, first}})
	copy(x, []float32{1, 2, 3, 4})
	step(1, []nn.Segment{{0, 3, nil}, {3, 5, second}, {5, 6, first}}, 1, 2, 3, 1, 2, 4)
	for i := range x {
		x[i] += float32(10 * (i + 1))
	}
	step(2, []nn.Segment{{0, 2, nil}, {2, 5, third}, {5, 7, second}, {7, 8, first}}, 11, 22, 11, 22, 33, 41, 52, 64)

	// Each row finds the track that it is on; where all heads look at one token the others are left out.
	b.LookAt(func(int) int { return 1 })
	few := b.Narrow()
	x = few.Of(x, 1)
	if want := []float32{11, 11, 33, 41, 64}; !slices.Equal(x, want) {
		t.Errorf("the first tokens: expected %v, found %v", want, x)
	}
	if want := []nn.Segment{{0, 1, nil}, {1, 3, third}, {3, 4, second}, {4, 5, first}}; !slices.Equal(b.Tokens, want) {
		t.Errorf("the first tokens: expected the segments %v, found %v", want, b.Tokens)
	}
	var keys []int
	for _, row := range few.Keys {
		keys = append(keys, row.Start, row.End)
	}
	if want := []int{0, 2, 2, 4, 4, 5, 5, 7, 7, 8}; !slices.Equal(keys, want) {
		t.Errorf("keys: expected the rows %v, found %v", want, keys)
	}
	answering := b.FirstTokens(0)
	if got, want := answering.Of(x, 1), []float32{11, 33, 11, 41, 41, 11, 64, 11}; !slices.Equal(got, want) {
		t.Errorf("rows: expected %v, found %v", want, got)
	}
	want := []nn.Segment{{0, 2, third}, {2, 3, nil}, {3, 5, second}, {5, 6, head}, {6, 7, first}, {7, 8, none}}
	if !slices.Equal(answering.Segments, want) {
		t.Errorf("rows: expected the segments %v, found %v", want, answering.Segments)
	}
}

// Of a track that is asked by several heads all tokens go on that one of them looks at.
func TestATrackGoesOnWithWhatItsHeadsLookAt(t *testing.T) {
	layers, _ := staged(t)
	token := layers.NewAdapter()
	token.Head = 1
	inputs := []nn.Input{{IDs: make([]int32, 3)}, {IDs: make([]int32, 3)}, {IDs: make([]int32, 1)}}
	rows := []nn.Row{{0, nil}, {1, nil}, {2, nil}, {1, token}}
	b := nn.NewBatch(nil, nil, inputs, rows, func(in nn.Input) int { return len(in.IDs) }, 0)
	looks := func(head int) int { return 2 * (1 - head) } // the head 0 at two, 1 at all
	x := b.Hidden(2)
	for i := range x {
		x[i] = float32(i)
	}
	if all := b.Narrow(); &all.Of(x, 2)[0] != &x[0] || b.NumTokens() != 7 {
		t.Errorf("before the last layer: expected all 7 tokens, found %d", b.NumTokens())
	}
	b.LookAt(looks)
	few := b.Narrow()
	copied := few.Copy(b, x, 2)
	if want := []float32{0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13}; !slices.Equal(copied, want) {
		t.Errorf("expected %v, found %v", want, copied)
	}
	if want := []kernels.Span{{Start: 0, End: 2}, {Start: 2, End: 5}, {Start: 5, End: 6}}; !slices.Equal(b.Spans, want) {
		t.Errorf("expected the rows %v, found %v", want, b.Spans)
	}
}
