package engine_test

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/kernels"
	"github.com/switchyard-dev/switchyard/runtime/memory"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// roundedBase is a base of that config with the weights rounded to bfloat16 that are kept as it.
func roundedBase(t *testing.T, config string) string {
	t.Helper()
	base := wrappers.Base(t, config)
	dir := base.Write()
	raw, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	tensors, err := weights.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	d, err := arch.Parse([]byte(config), tensors.Names())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range d.Modules {
		if m.Kind == arch.LayerNorm || m.Kind == arch.Parameters {
			continue
		}
		stored, _ := d.Stored(m.Path, "weight")
		values, err := tensors.Float32(stored.Tensor, stored.Shape...)
		if err != nil {
			t.Fatal(err)
		}
		floats := values.Float32s()
		for i, v := range floats {
			bits := math.Float32bits(v)
			floats[i] = math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff)
		}
		base.Tensor(wrappers.F32(stored.Tensor, floats, stored.Shape...))
	}
	return base.Write()
}

// A base kept as bfloat16 answers as one whose weights are rounded in its file, to the bit, or where products are of
// bfloat16 on both sides to its three digits; adapters are as they are. The digest is the file's either way.
func TestABaseAsBFloat16(t *testing.T) {
	for name, config := range map[string]string{
		"bert": bert,
		"deberta": `{"model_type": "deberta-v2", "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2,
			"num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 16, "num_labels": 3,
			"relative_attention": true, "pos_att_type": ["p2c", "c2p"], "share_att_key": true, "position_buckets": 8,
			"position_biased_input": false, "norm_rel_ebd": "layer_norm", "conv_kernel_size": 3}`,
		"modernbert": `{"model_type": "modernbert", "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2,
			"num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 16, "num_labels": 3}`,
		"vit": `{"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
			"intermediate_size": 12, "image_size": 8, "patch_size": 4, "num_labels": 3}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := wrappers.Base(t, config).Write()
			exact, kept := openAs(t, dir, arch.Float32), openAs(t, dir, arch.BFloat16)
			rounded := openAs(t, roundedBase(t, config), arch.Float32)
			if exact.BaseDigest() != kept.BaseDigest() {
				t.Errorf("expected the digest %s whatever the type, found %s", exact.BaseDigest(), kept.BaseDigest())
			}
			answers := func(e *engine.Engine) []*tensor.Dense {
				batch := fullBatch(e.Description(), lowRank(t, e, 3))
				batch.Rows[1].Adapter = nil
				return run(t, e, batch)
			}
			same := sameBits
			if variant, _ := kernels.Variant(); variant == "avx512bf16" {
				same = nearly
			}
			off, found, want := answers(exact), answers(kept), answers(rounded)
			for i := range found {
				if !same(found[i].Float32s(), want[i].Float32s()) {
					t.Errorf("row %d: expected %v, as of rounded weights, found %v", i, want[i].Data(), found[i].Data())
				}
				if sameBits(found[i].Float32s(), off[i].Float32s()) {
					t.Errorf("row %d: expected something else than of float32", i)
				}
			}
		})
	}
}

// nearly tells whether values are equal to a hundredth of the largest.
func nearly(found, want []float32) bool {
	largest, off := 0.0, 0.0
	for i, v := range want {
		largest, off = max(largest, math.Abs(float64(v))), max(off, math.Abs(float64(v)-float64(found[i])))
	}
	return off <= largest/100
}

// Kinds of updates side by side: each row is to the bit what it is alone.
func TestAMixedBatchOfBFloat16(t *testing.T) {
	e := openAs(t, wrappers.Base(t, bert).Write(), arch.BFloat16)
	const query = "bert.encoder.layer.0.attention.self.query"
	dora := compileFolder(t, e, wrappers.Adapter(t).Set("task_type", "SEQ_CLS").Set("use_dora", true).
		Set("target_modules", []string{"query"}).Update(query, 8, 8).Zip(query+".lora_magnitude_vector", 8).
		Saved("classifier", 4, 8).Write())
	tokens, sequences := compileFolder(t, e, tokenAdapter(t, 5)), compileFolder(t, e, sequenceAdapter(t, 2).Write())
	checkAlone(t, e, engine.Batch{
		Inputs: []engine.Input{text(1, 5, 2, 6), text(29), text(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)},
		Rows: []engine.Row{
			{0, tokens}, {2, dora}, {0, nil}, {1, sequences}, {2, tokens}, {0, dora}, {2, nil}, {2, sequences},
		},
	}, tensor.Shape{4, 5}, tensor.Shape{4}, tensor.Shape{3}, tensor.Shape{2}, tensor.Shape{16, 5}, tensor.Shape{4},
		tensor.Shape{3}, tensor.Shape{2})
}

// What bfloat16 has no number for is named, and nothing is served in its place.
func TestABaseBeyondBFloat16(t *testing.T) {
	large := make([]float32, 3*8)
	large[5] = -math.MaxFloat32
	dir := wrappers.Base(t, bert).Tensor(wrappers.F32("classifier.weight", large, 3, 8)).Write()
	openAs(t, dir, arch.Float32)
	_, err := model.Open(openFolder(t, dir), arch.BFloat16)
	const want = `module "classifier": weight: expected values of at most 3.3895314e+38, which bfloat16 has, ` +
		`found -3.4028235e+38: serve the model as float32`
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("expected %s, found %v", want, err)
	}
}

// A base takes what its description says, as either type.
func TestABaseTakesItsParameters(t *testing.T) {
	if !memory.OffHeap {
		t.Skip("on the heap no part of a block is given back")
	}
	for name, config := range map[string]string{
		"vit": `{"model_type": "vit", "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
			"intermediate_size": 1024, "image_size": 32, "patch_size": 8, "num_labels": 4}`,
		"bert of many words": `{"model_type": "bert", "vocab_size": 20000, "hidden_size": 64, "num_hidden_layers": 2,
			"num_attention_heads": 4, "intermediate_size": 256, "max_position_embeddings": 64, "num_labels": 4}`,
	} {
		dir := wrappers.Base(t, config).Write()
		for _, dtype := range []arch.DType{arch.Float32, arch.BFloat16} {
			runtime.GC()
			before := inUse()
			base, err := model.Open(openFolder(t, dir), dtype)
			if err != nil {
				t.Fatal(err)
			}
			runtime.GC()
			took, said := inUse()-before, base.Description.Bytes(dtype)
			t.Logf("%s as %s took %d bytes, and is said to take %d", name, dtype, took, said)
			if took < said-said/20 || took > said+said/20 {
				t.Errorf("%s as %s: expected %d bytes within a twentieth, found %d", name, dtype, said, took)
			}
			runtime.KeepAlive(base)
		}
	}
}

// digits is more of them than bfloat16 has.
const digits = 1.001

// inHalves are the folders of adapters whose matrices are bfloat16; or longer ones, which have digits, too, where no
// answer depends on them: in the A of one more rank, whose B is zero, in the B of another, whose A is, and in a label,
// a word and a place that nobody asks for.
func inHalves(t *testing.T, longer bool) []string {
	t.Helper()
	const words, places = "bert.embeddings.word_embeddings", "bert.embeddings.position_embeddings"
	rank, labels, ids, place := 3, 2, []int{1, 5}, -1
	all := rank
	if longer {
		all, labels, ids, place = rank+2, labels+1, append(ids, 29), 15
	}
	matrix := func(name string, rows, cols int, value func(i, j int, v float32) float32) wrappers.Tensor {
		values := make([]float32, rows*cols)
		for i := range rows {
			for j := range cols {
				values[i*cols+j] = value(i, j, float32((i*131+j*57+len(name))%255-127)/128)
			}
		}
		return wrappers.F32("base_model.model."+name, values, rows, cols)
	}
	// beyond has v up to the rank, and of the two that follow digits in one alone.
	beyond := func(k, one int, v float32) float32 {
		switch {
		case k < rank:
			return v
		case k == one:
			return digits
		}
		return 0
	}
	down := func(name string, in int) wrappers.Tensor {
		return matrix(name, all, in, func(i, _ int, v float32) float32 { return beyond(i, rank, v) })
	}
	up := func(name string, out int) wrappers.Tensor {
		return matrix(name, out, all, func(_, j int, v float32) float32 { return beyond(j, rank+1, v) })
	}
	rows := func(name string, n, last int) wrappers.Tensor {
		return matrix(name, n, 8, func(i, _ int, v float32) float32 {
			if i == last {
				return digits
			}
			return v
		})
	}
	adapter := func(targets ...string) *wrappers.AdapterFolder {
		a := wrappers.Adapter(t).Set("task_type", "SEQ_CLS").Set("target_modules", targets).Rank(all).
			Set("lora_alpha", 2*all).Tensor(rows("classifier.weight", labels, 2)).Zip("classifier.bias", labels)
		for _, layer := range []string{"0", "1"} {
			path := "bert.encoder.layer." + layer + ".attention.self.query"
			a.Tensor(down(path+".lora_A.weight", 8)).Tensor(up(path+".lora_B.weight", 8))
		}
		return a
	}
	dora := adapter("query").Set("use_dora", true)
	for _, layer := range []string{"0", "1"} {
		dora.Zip("bert.encoder.layer."+layer+".attention.self.query.lora_magnitude_vector", 8)
	}
	return []string{
		adapter("query", "word_embeddings").Tensor(down(words+".lora_embedding_A", 30)).
			Tensor(up(words+".lora_embedding_B", 8)).Write(),
		adapter("query").Set("trainable_token_indices", map[string][]int{"word_embeddings": ids}).
			Set("modules_to_save", []string{"classifier", "position_embeddings"}).
			Tensor(rows(words+".token_adapter.trainable_tokens_delta", len(ids), 2)).
			Tensor(rows(places+".weight", 16, place)).Write(),
		dora.Write(),
	}
}

// What an adapter answers does not depend on how it is kept: what lies in memory as bfloat16 because all of its values
// are answers to the bit as what is float32 for digits that no answer has. The base may be of either type.
func TestAnAdapterAsBFloat16(t *testing.T) {
	dir := wrappers.Base(t, bert).Write()
	for _, dtype := range []arch.DType{arch.Float32, arch.BFloat16} {
		e := openAs(t, dir, dtype)
		var halves, floats []*engine.Adapter
		for _, folder := range inHalves(t, false) {
			halves = append(halves, compileFolder(t, e, folder))
		}
		for _, folder := range inHalves(t, true) {
			floats = append(floats, compileFolder(t, e, folder))
		}
		for i := range halves {
			batch := engine.Batch{
				Inputs: []engine.Input{text(1, 5, 2, 6), text(9), text(3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 14)},
				Rows: []engine.Row{
					{0, halves[i]}, {1, halves[i]}, {2, halves[i]}, {0, floats[i]}, {1, floats[i]}, {2, floats[i]},
				},
			}
			answers := run(t, e, batch)
			for row := range 3 {
				half, float := answers[row].Float32s(), answers[row+3].Float32s()[:2]
				if !sameBits(half, float) {
					t.Errorf("adapter %d, row %d: expected %v, found %v", i, row, float, half)
				}
			}
		}
	}
}
