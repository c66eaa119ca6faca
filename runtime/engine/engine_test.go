package engine_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

const sample = "../../hack/samples/digits/"

// bert is a small base of texts: 16 tokens at most, of 30 ids and 2 types.
const bert = `{
	"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 30, "hidden_size": 8,
	"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 16,
	"id2label": {"0": "a", "1": "b", "2": "c"}
}`

func openEngine(t *testing.T) *engine.Engine {
	t.Helper()
	return openBase(t, sample+"base")
}

func openBase(t *testing.T, dir string) *engine.Engine {
	t.Helper()
	return openAs(t, dir, arch.Float32)
}

func openAs(t *testing.T, dir string, dtype arch.DType) *engine.Engine {
	t.Helper()
	base, err := model.Open(openFolder(t, dir), dtype)
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(base, 2)
	t.Cleanup(e.Close)
	return e
}

func openFolder(t *testing.T, dir string) *weights.Folder {
	t.Helper()
	folder, err := weights.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Close() })
	return folder
}

// compile is a sample's adapter.
func compile(t *testing.T, e *engine.Engine, name string) *engine.Adapter {
	t.Helper()
	return compileFolder(t, e, sample+"adapters/"+name)
}

func compileFolder(t *testing.T, e *engine.Engine, dir string) *engine.Adapter {
	t.Helper()
	read, err := peft.Load(openFolder(t, dir), e.Description(), peft.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	adapter, err := e.Compile(read)
	if err != nil {
		t.Fatal(err)
	}
	return adapter
}

func pixels(value float32, shape ...int) *tensor.Dense {
	n := tensor.Shape(shape).TotalSize()
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(slices.Repeat([]float32{value}, n)))
}

func image(value float32) engine.Input { return engine.Input{Pixels: pixels(value, 3, 32, 32)} }

func text(ids ...int32) engine.Input { return engine.Input{IDs: ids} }

func run(t *testing.T, e *engine.Engine, batch engine.Batch) []*tensor.Dense {
	t.Helper()
	out, err := e.Run(batch)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// checkAlone wants each row's answer of that shape, and to the bit what the row gets alone.
func checkAlone(t *testing.T, e *engine.Engine, batch engine.Batch, shapes ...tensor.Shape) {
	t.Helper()
	out := run(t, e, batch)
	if len(out) != len(shapes) {
		t.Fatalf("expected %d answers, found %d", len(shapes), len(out))
	}
	for i, row := range batch.Rows {
		alone := run(t, e, engine.Batch{Inputs: batch.Inputs[row.Input:][:1], Rows: []engine.Row{{0, row.Adapter}}})[0]
		if !slices.Equal(out[i].Shape(), shapes[i]) || !slices.Equal(alone.Shape(), shapes[i]) {
			t.Errorf("row %d: expected an answer of the shape %v, found %v, alone %v",
				i, shapes[i], out[i].Shape(), alone.Shape())
		}
		if !sameBits(out[i].Float32s(), alone.Float32s()) {
			t.Errorf("row %d: alone %v, in the batch %v", i, alone.Data(), out[i].Data())
		}
		for other := range i {
			if sameBits(out[i].Float32s(), out[other].Float32s()) {
				t.Errorf("rows %d and %d: expected different answers, found %v twice", other, i, out[i].Data())
			}
		}
	}
}

func TestRowsShareAnInput(t *testing.T) {
	e := openEngine(t)
	parity, holes := compile(t, e, "parity"), compile(t, e, "holes")
	checkAlone(t, e, engine.Batch{
		Inputs: []engine.Input{image(0.25), image(-0.5)},
		Rows:   []engine.Row{{1, holes}, {0, parity}, {0, nil}, {0, holes}, {1, parity}, {1, nil}},
	}, tensor.Shape{3}, tensor.Shape{2}, tensor.Shape{10}, tensor.Shape{3}, tensor.Shape{2}, tensor.Shape{10})
}

// One input is asked of many adapters, which change the base from the first layer, from the last, or its head alone,
// and again under another number: what they share is computed once, and each answers as it does alone.
func TestOneInputAskedOfManyAdapters(t *testing.T) {
	e := openBase(t, wrappers.Base(t, bert).Write())
	adapters := []*engine.Adapter{nil}
	for labels, layer := range []int{0, 1, 1, 0} {
		module := fmt.Sprintf("bert.encoder.layer.%d.attention.self.query", layer)
		adapters = append(adapters, compileFolder(t, e, wrappers.Adapter(t).Set("task_type", "SEQ_CLS").
			Set("target_modules", []string{"query"}).Update(module, 8, 8).Saved("classifier", 2+labels, 8).Write()))
	}
	adapters = append(adapters, compileFolder(t, e, tokenAdapter(t, 5)))
	for labels := range 2 {
		adapters = append(adapters, compileFolder(t, e, wrappers.Adapter(t).Set("task_type", "SEQ_CLS").
			Set("target_modules", []string{}).Saved("classifier", 6+labels, 8).Write()))
	}
	inputs := []engine.Input{text(1, 2, 3, 4, 5), text(9), text(1, 2, 3, 4, 5), {IDs: []int32{1, 2}, Types: []int32{0, 1}}}
	var rows []engine.Row
	for i, a := range adapters {
		for input := range inputs {
			rows = append(rows, engine.Row{Input: (input + i) % len(inputs), Adapter: a})
		}
	}
	rand.New(rand.NewPCG(7, 7)).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	out := run(t, e, engine.Batch{Inputs: inputs, Rows: rows})
	for i, row := range rows {
		single := engine.Batch{Inputs: inputs[row.Input:][:1], Rows: []engine.Row{{0, row.Adapter}}}
		single.Whole = i%2 == 0 // bitwise the same, either way
		alone := run(t, e, single)[0]
		if !slices.Equal(out[i].Shape(), alone.Shape()) || !sameBits(out[i].Float32s(), alone.Float32s()) {
			t.Errorf("row %d: alone %v, in the batch %v", i, alone.Data(), out[i].Data())
		}
	}
}

// tokenAdapter answers for each token, with so many labels.
func tokenAdapter(t *testing.T, labels int) string {
	t.Helper()
	return wrappers.Adapter(t).Set("task_type", "TOKEN_CLS").Set("target_modules", []string{"query"}).
		Update("bert.encoder.layer.0.attention.self.query", 8, 8).Saved("classifier", labels, 8).Write()
}

// sequenceAdapter answers for each text, with so many labels.
func sequenceAdapter(t *testing.T, labels int) *wrappers.AdapterFolder {
	t.Helper()
	return wrappers.Adapter(t).Set("task_type", "SEQ_CLS").Set("target_modules", []string{"value"}).
		Update("bert.encoder.layer.1.attention.self.value", 8, 8).Saved("classifier", labels, 8)
}

// Texts of any length, and adapters of both tasks, are one batch.
func TestTokensAndSequencesInOneBatch(t *testing.T) {
	e := openBase(t, wrappers.Base(t, bert).Write())
	tokens := compileFolder(t, e, tokenAdapter(t, 5))
	sequences := compileFolder(t, e, sequenceAdapter(t, 2).Write())
	if tokens.Head.Task != arch.Token || sequences.Head.Task != arch.Sequence || len(tokens.Labels) != 5 ||
		tokens.Problem != arch.SingleLabel {
		t.Fatalf("expected a classifier of tokens and one of sequences, found %+v and %+v", tokens, sequences)
	}
	long := text(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
	pair := engine.Input{IDs: []int32{1, 5, 2, 6}, Types: []int32{0, 0, 1, 1}}
	checkAlone(t, e, engine.Batch{
		Inputs: []engine.Input{text(1, 5, 2, 6), pair, text(29), long},
		Rows: []engine.Row{
			{0, tokens}, {0, nil}, {2, sequences}, {3, tokens}, {1, nil}, {1, tokens}, {2, nil}, {3, sequences}, {2, tokens},
		},
	}, tensor.Shape{4, 5}, tensor.Shape{3}, tensor.Shape{2}, tensor.Shape{16, 5}, tensor.Shape{3}, tensor.Shape{4, 5},
		tensor.Shape{3}, tensor.Shape{2}, tensor.Shape{1, 5})

	// The types that say nothing are those that are not given.
	plain := text(1, 5, 2, 6)
	zeros := engine.Input{IDs: plain.IDs, Types: make([]int32, 4)}
	out := run(t, e, engine.Batch{Inputs: []engine.Input{plain, zeros}, Rows: []engine.Row{{0, tokens}, {1, tokens}}})
	if !sameBits(out[0].Float32s(), out[1].Float32s()) {
		t.Errorf("types of 0: expected %v, found %v", out[0].Data(), out[1].Data())
	}
}

// A base on disk may be the trunk alone: what answers is what adapters bring, and of all adapters only those that bring
// it fit.
func TestABaseWithoutAHead(t *testing.T) {
	bare := wrappers.Base(t, strings.Replace(bert, "BertForSequenceClassification", "BertModel", 1)).Without("classifier")
	e := openBase(t, bare.Write())
	if e.Description().Own != -1 {
		t.Fatalf("expected no head of its own, found %d", e.Description().Own)
	}
	sequences := compileFolder(t, e, sequenceAdapter(t, 2).Write())
	tokens := compileFolder(t, e, tokenAdapter(t, 4))
	input := []engine.Input{text(1, 2, 3)}
	checkAlone(t, e, engine.Batch{Inputs: input, Rows: []engine.Row{{0, tokens}, {0, sequences}}},
		tensor.Shape{3, 4}, tensor.Shape{2})
	_, err := e.Run(engine.Batch{Inputs: input, Rows: []engine.Row{{0, tokens}, {0, nil}}})
	const want = "engine: row 1: the base BertModel has no head to answer it"
	if err == nil || err.Error() != want {
		t.Errorf("the bare base: expected %q, found %v", want, err)
	}
	headless := wrappers.Adapter(t).Set("modules_to_save", nil).Set("target_modules", []string{"query"}).
		Update("bert.encoder.layer.0.attention.self.query", 8, 8).Write()
	_, err = peft.Load(openFolder(t, headless), e.Description(), peft.Settings{})
	const lacks = `needs "classifier", which the adapter does not save, and the base BertModel `
	if err == nil || !strings.Contains(err.Error(), lacks) {
		t.Errorf("an adapter without a head: expected %q, found %v", lacks, err)
	}
}

// The base's own head may be one that answers for each token.
func TestABaseOfTokens(t *testing.T) {
	config := strings.Replace(bert, "BertForSequenceClassification", "BertForTokenClassification", 1)
	e := openBase(t, wrappers.Base(t, config).Without("bert.pooler").Write())
	checkAlone(t, e, engine.Batch{
		Inputs: []engine.Input{text(1, 2, 3), text(4)}, Rows: []engine.Row{{0, nil}, {1, nil}},
	}, tensor.Shape{3, 3}, tensor.Shape{1, 3})
}

// DINOv2 takes images of any size that is made of whole patches, side by side.
func TestImagesOfSeveralSizesInOneBatch(t *testing.T) {
	e := openBase(t, wrappers.Base(t, `{
		"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2,
		"image_size": 8, "patch_size": 4, "num_labels": 3
	}`).Write())
	inputs := []engine.Input{
		{Pixels: pixels(0.5, 3, 8, 8)}, {Pixels: pixels(0.25, 3, 4, 12)}, {Pixels: pixels(-1, 3, 16, 4)},
	}
	checkAlone(t, e, engine.Batch{Inputs: inputs, Rows: []engine.Row{{0, nil}, {1, nil}, {2, nil}}},
		tensor.Shape{3}, tensor.Shape{3}, tensor.Shape{3})
	for i, want := range []int{5, 4, 5} {
		if got, err := e.Tokens(inputs[i]); err != nil || got != want {
			t.Errorf("%v: expected %d tokens, found %d, %v", inputs[i].Pixels.Shape(), want, got, err)
		}
	}
	const want = "expected float32 [3, 8, 8], found float32 (3, 8, 6)"
	if _, err := e.Tokens(engine.Input{Pixels: pixels(0, 3, 8, 6)}); err == nil || err.Error() != want {
		t.Errorf("half a patch: expected %q, found %v", want, err)
	}
}

// What says nothing is an input like any other: it is what an adapter is tried with.
func TestZeros(t *testing.T) {
	for name, e := range map[string]*engine.Engine{
		"images": openEngine(t), "texts": openBase(t, wrappers.Base(t, bert).Write()),
	} {
		zeros := e.Zeros()
		if tokens, err := e.Tokens(zeros); err != nil || tokens < 1 {
			t.Errorf("%s: expected at least a token, found %d, %v", name, tokens, err)
		}
		out := run(t, e, engine.Batch{Inputs: []engine.Input{zeros}, Rows: []engine.Row{{}}})
		if want := len(e.Description().Classes.Labels); len(out) != 1 || out[0].Shape().TotalSize() != want {
			t.Errorf("%s: expected one answer of %d logits, found %v", name, want, out)
		}
	}
}

func TestBatchesAtOnceDoNotMix(t *testing.T) {
	e := openEngine(t)
	parity := compile(t, e, "parity")
	var callers sync.WaitGroup
	for i := range 4 {
		batch := engine.Batch{
			Inputs: []engine.Input{image(float32(i) / 4)}, Rows: []engine.Row{{0, parity}, {0, nil}},
		}
		want := run(t, e, batch)
		callers.Go(func() {
			for range 5 {
				got, err := e.Run(batch)
				if err != nil || !sameBits(got[0].Float32s(), want[0].Float32s()) ||
					!sameBits(got[1].Float32s(), want[1].Float32s()) {
					t.Errorf("caller %d: expected %v, found %v, error %v", i, want, got, err)
				}
			}
		})
	}
	callers.Wait()
}

func TestBadBatches(t *testing.T) {
	images, texts := openEngine(t), openBase(t, wrappers.Base(t, bert).Write())
	foreign := compileFolder(t, texts, sequenceAdapter(t, 2).Write())
	good, word := image(0), text(1)
	row := []engine.Row{{}}
	double := engine.Input{Pixels: tensor.New(tensor.WithShape(3, 32, 32), tensor.Of(tensor.Float64))}
	one := func(in engine.Input) engine.Batch { return engine.Batch{Inputs: []engine.Input{in}, Rows: row} }
	typed := func(types ...int32) engine.Batch { return one(engine.Input{IDs: []int32{1, 2}, Types: types}) }
	for _, c := range []struct {
		name  string
		on    *engine.Engine
		good  engine.Input
		batch engine.Batch
		want  string
	}{
		{"no rows", images, good, engine.Batch{Inputs: []engine.Input{good}}, "engine: a batch of no rows"},
		{
			"no such input", images, good,
			engine.Batch{Inputs: []engine.Input{good}, Rows: []engine.Row{{}, {Input: 1}}},
			"engine: row 1: expected an input below 1, found 1",
		},
		{
			"negative input", images, good,
			engine.Batch{Inputs: []engine.Input{good}, Rows: []engine.Row{{Input: -1}}},
			"engine: row 0: expected an input below 1, found -1",
		},
		{
			"another shape", images, good,
			engine.Batch{Inputs: []engine.Input{good, {Pixels: pixels(0, 3, 32)}}, Rows: row},
			"engine: input 1: expected float32 [3, 32, 32], found float32 (3, 32)",
		},
		{"another size", images, good, one(engine.Input{Pixels: pixels(0, 3, 32, 64)}), "found float32 (3, 32, 64)"},
		{"other channels", images, good, one(engine.Input{Pixels: pixels(0, 1, 32, 32)}), "found float32 (1, 32, 32)"},
		{"another type", images, good, one(double), "expected float32 [3, 32, 32], found float64 (3, 32, 32)"},
		{"no input", images, good, one(engine.Input{}), "engine: input 0: expected pixel values, found none"},
		{"a text for an image", images, good, one(word), "engine: input 0: expected pixel values, found none"},
		{
			"an adapter of another base", images, good,
			engine.Batch{Inputs: []engine.Input{good}, Rows: []engine.Row{{0, foreign}}},
			"engine: panic: ",
		},

		{"an image for a text", texts, word, one(good), "engine: input 0: expected 1 to 16 tokens, found 0"},
		{"no tokens", texts, word, one(text()), "engine: input 0: expected 1 to 16 tokens, found 0"},
		{"too many tokens", texts, word, one(text(make([]int32, 17)...)), "expected 1 to 16 tokens, found 17"},
		{
			"an id too large", texts, word, one(text(0, 29, 30)),
			"engine: input 0: token 2: expected an id from 0 to 29, found 30",
		},
		{"a negative id", texts, word, one(text(0, -1)), "token 1: expected an id from 0 to 29, found -1"},
		{"a type too large", texts, word, typed(0, 2), "token 1: expected a type from 0 to 1, found 2"},
		{"a negative type", texts, word, typed(-1, 0), "token 0: expected a type from 0 to 1, found -1"},
		{"fewer types", texts, word, typed(1), "engine: input 0: expected as many types as ids, 2, found 1"},
		{"more types", texts, word, typed(0, 0, 1), "expected as many types as ids, 2, found 3"},
	} {
		if _, err := c.on.Run(c.batch); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: expected %q, found %v", c.name, c.want, err)
		}
		if _, err := c.on.Run(one(c.good)); err != nil {
			t.Errorf("%s: the next batch: %v", c.name, err)
		}
	}
}

// A model without types takes those that say nothing, and no others.
func TestTypesOfAModelWithoutAny(t *testing.T) {
	e := openBase(t, wrappers.Base(t, `{
		"model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"], "vocab_size": 30, "dim": 8,
		"n_layers": 1, "n_heads": 2, "hidden_dim": 12, "max_position_embeddings": 16
	}`).Write())
	if _, err := e.Tokens(engine.Input{IDs: []int32{1, 2}, Types: []int32{0, 0}}); err != nil {
		t.Errorf("types of 0: %v", err)
	}
	const want = "token 1: expected a type from 0 to 0, found 1"
	if _, err := e.Tokens(engine.Input{IDs: []int32{1, 2}, Types: []int32{0, 1}}); err == nil || err.Error() != want {
		t.Errorf("expected %q, found %v", want, err)
	}
}
