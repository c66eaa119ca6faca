package engine_test

import (
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// dinov2 is a small base of images of any size.
const dinov2 = `{
	"model_type": "dinov2", "architectures": ["Dinov2ForImageClassification"], "hidden_size": 8,
	"num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2, "image_size": 8, "patch_size": 2,
	"num_channels": 1, "id2label": {"0": "a", "1": "b"}
}`

// Work is that of the Linears before the heads, whoever asks: of the small BERT above, two layers of query, key, value
// and output [8, 8], and two of [12, 8].
func TestWork(t *testing.T) {
	e := openBase(t, wrappers.Base(t, bert).Write())
	if got, want := e.Work(), int64(2*(4*8*8+2*12*8)); got != want {
		t.Errorf("the base: expected %d multiply-adds a token, found %d", want, got)
	}
	rank2 := compileFolder(t, e, wrappers.Adapter(t).Rank(2).Set("task_type", "SEQ_CLS").
		Set("target_modules", []string{"query"}).
		Update("bert.encoder.layer.0.attention.self.query", 8, 8).
		Update("bert.encoder.layer.1.attention.self.query", 8, 8).Saved("classifier", 3, 8).Write())
	if got, want := rank2.Work(), int64(2*2*(8+8)); got != want {
		t.Errorf("rank 2 in two layers: expected %d, found %d", want, got)
	}
	head := compileFolder(t, e, wrappers.Adapter(t).Set("task_type", "SEQ_CLS").
		Set("target_modules", []string{}).Saved("classifier", 3, 8).Write())
	var base *engine.Adapter
	if head.Work() != 0 || base.Work() != 0 {
		t.Errorf("a head, and none: expected 0, found %d and %d", head.Work(), base.Work())
	}
	for rank, want := range map[int]int64{0: 0, 3: 3 * 2 * (4*(8+8) + 2*(12+8))} {
		a, err := e.Uniform(rank)
		if err != nil {
			t.Fatal(err)
		}
		if a.Work() != want || a.IsHead() != (rank == 0) {
			t.Errorf("all of rank %d: expected %d, found %d", rank, want, a.Work())
		}
		a.Free()
	}
}

// A base is asked by samples of any length, with a head or without one.
func TestSamplesAreAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		dir    string
		tokens map[int]int // that are asked for, and found
	}{
		"texts":   {wrappers.Base(t, bert).Write(), map[int]int{0: 1, 1: 1, 7: 7, 100: 16}},
		"no head": {wrappers.Base(t, bert).Without("classifier").Write(), map[int]int{5: 5}},
		"images":  {sample + "base", map[int]int{1: 17, 1000: 17}},
		"any image": {
			wrappers.Base(t, dinov2).Write(), map[int]int{1: 2, 16: 17, 20: 17},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := openBase(t, c.dir)
			a, err := e.Uniform(2)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Free()
			for asked, want := range c.tokens {
				one, other := e.Sample(asked, 0), e.Sample(asked, 1)
				if found, err := e.Tokens(one); err != nil || found != want {
					t.Errorf("%d tokens: expected %d, found %d, error %v", asked, want, found, err)
				}
				answers := run(t, e, engine.Batch{Inputs: []engine.Input{one, other}, Rows: []engine.Row{{0, a}, {1, a}}})
				if len(answers) != 2 || isSame(one, other) {
					t.Errorf("%d tokens: expected answers to two inputs, found %d", asked, len(answers))
				}
			}
		})
	}
}

func isSame(a, b engine.Input) bool {
	values := func(in engine.Input) []float32 {
		if in.Pixels == nil {
			return nil
		}
		return in.Pixels.Data().([]float32)
	}
	return slices.Equal(a.IDs, b.IDs) && slices.Equal(values(a), values(b))
}
