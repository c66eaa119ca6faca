package model_test

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/nn"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// deeper are configs whose rows part, or end, at other places than the small ones'.
var deeper = map[string]string{
	"modernbert that pools by the mean": `{"model_type": "modernbert", "vocab_size": 10, "hidden_size": 16,
		"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 90,
		"classifier_pooling": "mean", "local_attention": 8}`,
	"modernbert with a last layer of a window": `{"model_type": "modernbert", "vocab_size": 10, "hidden_size": 16,
		"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 600,
		"local_attention": 8}`,
	"deberta v2 of one layer": `{"model_type": "deberta-v2", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 60, "relative_attention": true,
		"pos_att_type": "c2p|p2c", "type_vocab_size": 2, "conv_kernel_size": 3}`,
	"deberta v3 of long texts": `{"model_type": "deberta-v2", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 3,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 300, "relative_attention": true,
		"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": true, "pos_att_type": ["c2p", "p2c"],
		"position_biased_input": false, "conv_kernel_size": 3}`,
	"dinov2 of two layers": `{"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
		"image_size": 16, "patch_size": 4}`,
	"deit of two layers": `{"model_type": "deit", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
		"intermediate_size": 16, "image_size": 16, "patch_size": 4}`,
}

// An adapter of each module alone, under each head, gives the same bits among all others on inputs that they share as
// it gives alone, and as it gives if its rows share nothing from the first stage on and no token is left out: no module
// stands at a later stage than it is computed in, and no head looks at what was left out.
func TestModulesStandAtTheirStages(t *testing.T) {
	all := maps.Clone(configs)
	maps.Copy(all, deeper)
	pool := kernels.NewPool(2)
	t.Cleanup(pool.Close)
	for name, config := range all {
		t.Run(name, func(t *testing.T) { testStages(t, config, pool) })
	}
}

// single is an adapter of one module, and the same whose rows share nothing: it has an update of zeros in the first
// stage, too.
type single struct {
	module       string
	plain, early *nn.Adapter
}

func testStages(t *testing.T, config string, pool *kernels.Pool) {
	rng := rand.New(rand.NewPCG(3, 4))
	folder := wrappers.Base(t, config)
	for _, m := range mustOpen(t, folder).Description.Modules {
		for _, p := range m.Params {
			folder.Tensor(wrappers.F32(m.Path+"."+p.Name, noise(rng, p.Shape...), p.Shape...))
		}
	}
	base := mustOpen(t, folder)
	d := base.Description
	first := slices.IndexFunc(d.Modules, func(m arch.Module) bool {
		return m.Kind == arch.Embedding || m.Kind == arch.Conv2d
	})
	singles := []single{{module: "none"}}
	for i := range d.Modules {
		for head := range d.Heads {
			s := single{module: d.Modules[i].Path}
			seed := rng.Uint64()
			for _, adapter := range []**nn.Adapter{&s.plain, &s.early} {
				*adapter = base.Layers.NewAdapter()
				(*adapter).Head = head
				change(t, *adapter, &d.Modules[i], rand.New(rand.NewPCG(seed, 0)))
			}
			if i != first {
				change(t, s.early, &d.Modules[first], nil)
			}
			s.plain.Seal()
			s.early.Seal()
			singles = append(singles, s)
		}
	}
	inputs := inputsOf(d, rng)
	var arena nn.Arena
	run := func(in []nn.Input, rows []nn.Row, whole bool) nn.Answers {
		arena.Reset()
		spoiled := nn.NewBatch(pool, &arena, nil, nil, nil, 0).Floats(1 << 14)
		for i := range spoiled {
			spoiled[i] = float32(math.NaN())
		}
		arena.Reset()
		b := nn.NewBatch(pool, &arena, in, rows, base.Model.Tokens, 0)
		b.Whole = whole
		return base.Model.Forward(b)
	}
	var rows []nn.Row
	var asked []single
	for _, s := range singles { // sorted by adapter, as a batch is
		for input := range inputs {
			rows, asked = append(rows, nn.Row{Input: input, Adapter: s.plain}), append(asked, s)
		}
	}
	mixed := run(inputs, rows, false)
	changes := map[string]bool{}
	for i, r := range rows {
		one := func(a *nn.Adapter, whole bool) []float32 {
			return run(inputs[r.Input:][:1], []nn.Row{{Adapter: a}}, whole)[0].Float32s()
		}
		got := mixed[i].Float32s()
		for how, want := range map[string][]float32{
			"alone": one(r.Adapter, false), "from the start": one(asked[i].early, true),
		} {
			if !slices.EqualFunc(got, want, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
				t.Fatalf("%s, input %d: among others %v, %s %v", asked[i].module, r.Input, got, how, want)
			}
		}
		if !slices.Equal(got, one(nil, false)) {
			changes[asked[i].module] = true
		}
	}
	for i := range d.Modules {
		if path := d.Modules[i].Path; !changes[path] {
			t.Errorf("%s: expected an adapter of it to change an answer", path)
		}
	}
}

// change has an adapter change a module: by an update if it takes one, else by other values; by zeros without rng.
func change(t *testing.T, a *nn.Adapter, m *arch.Module, rng *rand.Rand) {
	t.Helper()
	dense := func(shape ...int) *tensor.Dense {
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(noise(rng, shape...)))
	}
	var err error
	switch shape := m.Params[0].Shape; m.Kind {
	case arch.Embedding:
		err = a.Update(m.Path, nn.Update{Down: dense(2, shape[0]), Up: dense(shape[1], 2), Scale: 1})
	case arch.Linear, arch.Conv2d:
		in := tensor.Shape(shape[1:]).TotalSize()
		err = a.Update(m.Path, nn.Update{Down: dense(2, in), Up: dense(shape[0], 2), Scale: 1})
	case arch.LayerNorm, arch.Conv1d, arch.Parameters:
		params := map[string]*tensor.Dense{}
		for _, p := range m.Params {
			params[p.Name] = dense(p.Shape...)
		}
		err = a.Replace(m.Path, params)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// noise is values at random; zeros without rng.
func noise(rng *rand.Rand, shape ...int) []float32 {
	x := make([]float32, tensor.Shape(shape).TotalSize())
	for i := range x {
		if rng != nil {
			x[i] = float32(rng.NormFloat64()) / 2
		}
	}
	return x
}

// inputsOf are images, or texts of one token, of three with types, and as long as may be.
func inputsOf(d *arch.Description, rng *rand.Rand) (inputs []nn.Input) {
	if i := d.Image; i != nil {
		for range 2 {
			inputs = append(inputs, nn.Input{
				Pixels: noise(rng, i.Channels, i.Height, i.Width), Height: i.Height, Width: i.Width,
			})
		}
		return inputs
	}
	for _, tokens := range []int{1, 3, d.Text.MaxTokens} {
		in := nn.Input{IDs: make([]int32, tokens)}
		for i := range in.IDs {
			in.IDs[i] = int32(2 + rng.IntN(d.Text.Vocabulary-2))
		}
		if d.Text.Types > 1 && tokens == 3 {
			in.Types = []int32{0, 1, 1}
		}
		inputs = append(inputs, in)
	}
	return inputs
}
