package peft_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// The two namings of one Linear [8, 8].
const (
	query4 = "vit.encoder.layer.0.attention.attention.query"
	query5 = "vit.layers.0.attention.q_proj"
)

// tinyViT has hidden size 8, 2 layers, MLPs of 16, 4 patches and 3 classes.
func tinyViT(t testing.TB) *arch.Description {
	t.Helper()
	return describe(t, `{
		"model_type": "vit", "architectures": ["ViTForImageClassification"],
		"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
		"image_size": 4, "patch_size": 2, "id2label": {"0": "cat", "1": "dog", "2": "bird"}
	}`)
}

// describe is a base of that config.json which has all that it may have, but for what begins with one of these.
func describe(t testing.TB, config string, without ...string) *arch.Description {
	t.Helper()
	tensors, err := arch.Tensors([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	tensors = slices.DeleteFunc(tensors, func(name string) bool {
		return slices.ContainsFunc(without, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	})
	base, err := arch.Parse([]byte(config), tensors)
	if err != nil {
		t.Fatal(err)
	}
	return base
}

// headed is an adapter as most are: updates of rank 4 and a head with 5 outputs.
func headed(t testing.TB) *wrappers.AdapterFolder {
	return wrappers.Adapter(t).Rank(4).Update(query5, 8, 8).Saved("classifier", 5, 8)
}

// bare is an adapter of updates alone, without a head of its own.
func bare(t testing.TB) *wrappers.AdapterFolder {
	return wrappers.Adapter(t).Rank(4).Set("modules_to_save", nil)
}

func load(t testing.TB, a *wrappers.AdapterFolder) (*peft.Adapter, error) {
	t.Helper()
	return loadDir(t, a.Write())
}

func loadDir(t testing.TB, dir string) (*peft.Adapter, error) {
	t.Helper()
	folder, err := weights.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	return peft.Load(folder, tinyViT(t), peft.Settings{})
}

func mustLoad(t testing.TB, a *wrappers.AdapterFolder) *peft.Adapter {
	t.Helper()
	adapter, err := load(t, a)
	if err != nil {
		t.Fatal(err)
	}
	return adapter
}

func TestLoad(t *testing.T) {
	a := mustLoad(t, wrappers.Adapter(t).Rank(2).Set("lora_alpha", 3).
		Saved("classifier", 5, 8).
		Update("vit.layers.1.mlp.fc2", 8, 16).
		Tensor(wrappers.F32("base_model.model."+query5+".lora_B.weight", counting(16), 8, 2)).
		Tensor(wrappers.F32("base_model.model."+query5+".lora_A.weight", counting(16), 2, 8)))

	if len(a.Updates) != 2 || a.Updates[0].Module != query4 ||
		a.Updates[1].Module != "vit.encoder.layer.1.output.dense" {
		t.Fatalf("updates: expected the two modules by canonical path in the base's order, found %+v", a.Updates)
	}
	first := a.Updates[0]
	if first.Scale != 1.5 || !slices.Equal(first.A.Shape(), []int{2, 8}) || !slices.Equal(first.B.Shape(), []int{8, 2}) {
		t.Errorf("update: expected [2, 8], [8 2] and 1.5, found %v, %v and %g", first.A.Shape(), first.B.Shape(), first.Scale)
	}
	if !reflect.DeepEqual(first.A.Data(), counting(16)) || !reflect.DeepEqual(first.B.Data(), counting(16)) {
		t.Errorf("update: expected the values of the file, found %v and %v", first.A.Data(), first.B.Data())
	}
	if len(a.Saved) != 1 || a.Saved[0].Module != "classifier" || len(a.Saved[0].Params) != 2 {
		t.Fatalf("saved: expected the classifier's weight and bias, found %+v", a.Saved)
	}
	if shape := a.Saved[0].Params["weight"].Shape(); !slices.Equal(shape, []int{5, 8}) {
		t.Errorf("saved weight: expected [5, 8], found %v", shape)
	}
	if a.MaxRank != 2 {
		t.Errorf("max rank: expected 2, found %d", a.MaxRank)
	}
	// The first B is of small integers, which are bfloat16, and so is the first A, but no other.
	if expected := int64(4*(2*8+2*16+8*2+5*8+5) + 2*8*2); a.Bytes(tinyViT(t)) != expected {
		t.Errorf("bytes: expected %d, found %d", expected, a.Bytes(tinyViT(t)))
	}
}

func counting(n int) []float32 {
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(i)
	}
	return values
}

// Both generations of names are the same modules, and one file may hold both for different modules.
func TestNamings(t *testing.T) {
	base := tinyViT(t)
	for _, m := range base.Modules {
		if m.Kind != arch.Linear || m.Path == "classifier" {
			continue
		}
		shape := m.Params[0].Shape
		for _, path := range append([]string{m.Path}, m.Aliases...) {
			a := mustLoad(t, bare(t).Update(path, shape[0], shape[1]))
			if len(a.Updates) != 1 || a.Updates[0].Module != m.Path {
				t.Errorf("%s: expected an update of %s, found %+v", path, m.Path, a.Updates)
			}
		}
	}

	mixed := mustLoad(t, bare(t).Update(query5, 8, 8).Update("vit.encoder.layer.1.attention.attention.key", 8, 8))
	if len(mixed.Updates) != 2 {
		t.Errorf("mixed: expected 2 updates, found %d", len(mixed.Updates))
	}

	_, err := load(t, bare(t).Update(query4, 8, 8).Update(query5, 8, 8))
	expectError(t, err, `key "base_model.model.`+query5+`.lora_A.weight": one module under two names, "`+query4)
	_, err = load(t, wrappers.Adapter(t).Set("modules_to_save", []string{"layernorm_before"}).
		Zip("vit.encoder.layer.0.layernorm_before.weight", 8).Zip("vit.layers.0.layernorm_before.bias", 8))
	expectError(t, err, "one module under two names")
}

func TestScaling(t *testing.T) {
	for _, c := range []struct {
		name   string
		a      *wrappers.AdapterFolder
		scales []float32 // of layers 0 and 1
		ranks  []int
	}{
		{"alpha over rank", scaled(t, 4, 4).Set("lora_alpha", 16), []float32{4, 4}, []int{4, 4}},
		{"the defaults", scaled(t, 8, 8).Unset("lora_alpha").Unset("r"), []float32{1, 1}, []int{8, 8}},
		{
			"rslora", scaled(t, 3, 3).Set("lora_alpha", 16).Set("use_rslora", true),
			[]float32{float32(16 / math.Sqrt(3)), float32(16 / math.Sqrt(3))},
			[]int{3, 3},
		},
		{
			"alpha of a converted adapter", scaled(t, 4, 4).Set("lora_alpha", 11.313708498984761).Set("use_rslora", true),
			[]float32{11.313708498984761 / 2, 11.313708498984761 / 2},
			[]int{4, 4},
		},
		{
			"alpha 0 and below", scaled(t, 4, 4).Set("lora_alpha", 0).
				Set("alpha_pattern", raw(`{"layers.1.attention.q_proj": -2}`)),
			[]float32{0, -0.5},
			[]int{4, 4},
		},
		{"null patterns", scaled(t, 4, 4).Set("alpha_pattern", nil).Set("rank_pattern", nil), []float32{2, 2}, []int{4, 4}},
		{
			"a pattern by the end of the name", scaled(t, 2, 2).Set("r", 4).Set("rank_pattern", raw(`{"q_proj": 2}`)),
			[]float32{4, 4},
			[]int{2, 2},
		},
		{
			"an end that is no whole name", scaled(t, 4, 4).Set("rank_pattern", raw(`{"_proj": 2, "attention": 2, "": 3}`)),
			[]float32{2, 2},
			[]int{4, 4},
		},
		{
			"a pattern for one layer", scaled(t, 4, 16).Set("rank_pattern", raw(`{"layers.1.attention.q_proj": 16}`)),
			[]float32{2, 0.5},
			[]int{4, 16},
		},
		{
			"the first in the file wins", scaled(t, 4, 2).
				Set("rank_pattern", raw(`{"layers.1.attention.q_proj": 2, "attention.q_proj": 4, "q_proj": 6, "layers.0.*": 8}`)),
			[]float32{2, 4},
			[]int{4, 2},
		},
		{
			"the first in the file wins, the other way", scaled(t, 6, 6).
				Set("rank_pattern", raw(`{"q_proj": 6, "layers.1.attention.q_proj": 2, "attention.q_proj": 4}`)),
			[]float32{8.0 / 6, 8.0 / 6},
			[]int{6, 6},
		},
		{
			"a key that stands twice", scaled(t, 2, 2).
				Set("rank_pattern", raw(`{"q_proj": 6, "attention.q_proj": 4, "q_proj": 2}`)),
			[]float32{4, 4},
			[]int{2, 2},
		},
		{
			"regular expressions", scaled(t, 2, 3).
				Set("rank_pattern", raw(`{"vit\\.layers\\.[0]\\..*": 2, "^vit.*[.](?:1|7)[.].*q_(proj|x)": 3}`)).
				Set("alpha_pattern", raw(`{".*\\.\\d\\.attention\\.\\w+": 6}`)),
			[]float32{3, 2},
			[]int{2, 3},
		},
		{
			"matched at the start", scaled(t, 4, 4).Set("rank_pattern", raw(`{"^layers.*": 2, "it\\.layers.+": 3}`)),
			[]float32{2, 2},
			[]int{4, 4},
		},
		{"the other naming does not count", scaled(t, 4, 4).
			Set("rank_pattern", raw(`{"query": 2, "vit.encoder.*": 2}`)), []float32{2, 2}, []int{4, 4}},
		{"ranks and alphas apart", scaled(t, 4, 2).Set("lora_alpha", 2).
			Set("rank_pattern", raw(`{"layers.1.attention.q_proj": 2}`)).
			Set("alpha_pattern", raw(`{"layers.0.attention.q_proj": 1.5}`)), []float32{0.375, 1}, []int{4, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := mustLoad(t, c.a)
			for i, u := range a.Updates {
				if u.Scale != c.scales[i] || u.A.Shape()[0] != c.ranks[i] {
					t.Errorf("layer %d: expected rank %d, scale %g, found %d, %g",
						i, c.ranks[i], c.scales[i], u.A.Shape()[0], u.Scale)
				}
			}
			if len(a.Updates) != 2 || a.MaxRank != slices.Max(c.ranks) {
				t.Errorf("expected 2 updates, max rank %d, found %d, %d", slices.Max(c.ranks), len(a.Updates), a.MaxRank)
			}
		})
	}
}

// scaled has an update in each layer, of these ranks; its config says rank 4 where the first is of another.
func scaled(t *testing.T, rank0, rank1 int) *wrappers.AdapterFolder {
	return bare(t).Rank(rank0).Update(query5, 8, 8).Rank(rank1).Update("vit.layers.1.attention.q_proj", 8, 8).Rank(rank0)
}

func raw(s string) json.RawMessage { return json.RawMessage(s) }

// The old naming is what patterns see when the file has it.
func TestPatternsSeeTheFilesNaming(t *testing.T) {
	a := mustLoad(t, bare(t).Update(query4, 8, 8).
		Set("alpha_pattern", raw(`{"q_proj": 1, "vit.layers.*": 2, "attention.attention.query": 4}`)))
	if scale := a.Updates[0].Scale; scale != 1 {
		t.Errorf("scale: expected 4/4, found %g", scale)
	}
}

// Keys without operators take a short way; it must be the same way.
func TestPlainPatternsMatchAsRegularExpressions(t *testing.T) {
	keys := []string{
		"", ".", "q_proj", "attention.q_proj", `attention\.q_proj`, "attention_q_proj", "attentionxq_proj",
		"attention...proj",
		"vit.layers.0.attention.q_proj", "vit.layers.1.attention.q_proj", ".vit.layers.0.attention.q_proj", "proj", ".q_proj",
		"..q_proj", "0.attention.q_proj", "it.layers.0.attention.q_proj", "q-proj", `\.q_proj`,
		`vit\.layers\.0\.attention\.q_proj`,
		"Q_PROJ", "xvit.layers.0.attention.q_proj",
	}
	for _, path := range []string{query5, "classifier", "vit.layernorm", "a", "a.b"} {
		for _, key := range append(keys, path, "x"+path, path[1:], path+".") {
			short, long, err := peft.Match(key, path)
			if err != nil {
				t.Fatalf("%q: %v", key, err)
			}
			if short != long {
				t.Errorf("%q on %q: expected %t as its regular expression, found %t", key, path, long, short)
			}
		}
	}
}

func TestSavedModules(t *testing.T) {
	for _, c := range []struct {
		name  string
		a     *wrappers.AdapterFolder
		saved []string
	}{
		{"a head", bare(t).Set("modules_to_save", []string{"classifier"}).Saved("classifier", 3, 8), []string{"classifier"}},
		{"a head by task type", bare(t).Set("task_type", "SEQ_CLS").Saved("classifier", 2, 8), []string{"classifier"}},
		{"a head twice over", bare(t).Set("task_type", "SEQ_CLS").Set("modules_to_save", []string{"classifier", "score"}).
			Saved("classifier", 2, 8), []string{"classifier"}},
		{"no head", bare(t).Set("modules_to_save", []string{"score"}).Update(query5, 8, 8), nil},
		{
			"the end of a name", bare(t).Set("modules_to_save", []string{"ifier"}).Saved("classifier", 4, 8),
			[]string{"classifier"},
		},
		{"an end that only the other naming has", bare(t).Set("modules_to_save", []string{"encoder", "query"}).
			Update(query5, 8, 8), nil},
		{"a LayerNorm", bare(t).Set("modules_to_save", []string{"vit.layernorm"}).
			Zip("vit.layernorm.weight", 8).Zip("vit.layernorm.bias", 8), []string{"vit.layernorm"}},
		{"a Linear in the new naming", bare(t).Set("modules_to_save", []string{"layers.0.attention.q_proj"}).
			Saved(query5, 8, 8), []string{query4}},
		{
			"a parent of several kinds", bare(t).Set("modules_to_save", []string{"embeddings"}).
				Zip("vit.embeddings.cls_token", 1, 1, 8).Zip("vit.embeddings.position_embeddings", 1, 5, 8).
				Zip("vit.embeddings.patch_embeddings.projection.weight", 8, 3, 2, 2).
				Zip("vit.embeddings.patch_embeddings.projection.bias", 8),
			[]string{"vit.embeddings", "vit.embeddings.patch_embeddings.projection"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := mustLoad(t, c.a)
			var saved []string
			for _, s := range a.Saved {
				saved = append(saved, s.Module)
				m := tinyViT(t).Lookup(s.Module)[0]
				if len(s.Params) != len(m.Params) {
					t.Errorf("%s: expected all %d parameters, found %d", s.Module, len(m.Params), len(s.Params))
				}
			}
			if !slices.Equal(saved, c.saved) {
				t.Errorf("saved: expected %v, found %v", c.saved, saved)
			}
		})
	}
}

func TestLabels(t *testing.T) {
	five := `{"model_type": "vit", "id2label": {"0": "a", "1": "b", "2": "c", "3": "d", "4": "e"}}`
	three := `{"id2label": {"0": "x", "1": "y", "2": "z"}}`
	for _, c := range []struct {
		name   string
		a      *wrappers.AdapterFolder
		labels []string
		err    string
	}{
		{"a head nobody named", headed(t), []string{"LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3", "LABEL_4"}, ""},
		{"the base's head", bare(t).Update(query5, 8, 8), []string{"cat", "dog", "bird"}, ""},
		{"an update of the base's head", bare(t).Update("classifier", 3, 8), []string{"cat", "dog", "bird"}, ""},
		{"named beside", headed(t).File("config.json", []byte(five)), []string{"a", "b", "c", "d", "e"}, ""},
		{
			"the base's head named anew", bare(t).Update(query5, 8, 8).File("config.json", []byte(three)),
			[]string{"x", "y", "z"},
			"",
		},
		{
			"too few names", headed(t).File("config.json", []byte(three)), nil,
			"config.json: labels: expected 5, as many as the adapter's head has outputs, found 3",
		},
		{
			"too many for the base's head", bare(t).Update(query5, 8, 8).File("config.json", []byte(five)), nil,
			"config.json: labels: expected 3, as many as the base's classifier (the adapter brings none of its own)",
		},
		{
			"transformers leaves out two labels", headed(t).File("config.json", []byte(`{}`)), nil,
			"config.json: labels: expected 5, as many as the adapter's head has outputs, found 2",
		},
		{
			"another model's config", headed(t).File("config.json", []byte(`{"model_type": "bert"}`)), nil,
			`config.json: model_type: expected the base's "vit", found "bert"`,
		},
		{
			"regression", headed(t).File("config.json", []byte(`{"problem_type": "regression"}`)), nil,
			`config.json: labels: expected 5, as many as the adapter's head has outputs, found 2`,
		},
		{"not JSON", headed(t).File("config.json", []byte(`id2label`)), nil, "config.json: invalid character"},
		{
			"too large", headed(t).File("config.json", make([]byte, 1<<20+1)), nil,
			`file "config.json": expected at most 1048576 bytes, found 1048577`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := load(t, c.a)
			if c.err != "" {
				expectError(t, err, c.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(a.Labels, c.labels) {
				t.Errorf("labels: expected %v, found %v", c.labels, a.Labels)
			}
		})
	}
}

func TestKeysRefused(t *testing.T) {
	weight := "base_model.model." + query5 + ".lora_A.weight"
	nan := float32(math.NaN())
	for _, c := range []struct {
		name string
		a    *wrappers.AdapterFolder
		err  string
	}{
		{"no tensors", bare(t), "adapter_model.safetensors: expected the tensors of an adapter, found none"},
		{
			"no prefix", bare(t).Tensor(wrappers.F32("classifier.weight", counting(8), 1, 8)),
			`key "classifier.weight": expected the prefix base_model.model.`,
		},
		{
			"half a prefix", bare(t).Tensor(wrappers.F32("base_model.classifier.weight", counting(8), 1, 8)),
			`key "base_model.classifier.weight": expected the prefix base_model.model.`,
		},
		{
			"unknown module", bare(t).Update("vit.layers.2.attention.q_proj", 8, 8),
			`key "base_model.model.vit.layers.2.attention.q_proj.lora_A.weight": no module "vit.layers.2.attention.q_proj" ` +
				`in the base ViTForImageClassification`,
		},
		{"half a naming", bare(t).Update("vit.layers.0.attention.attention.query", 8, 8), "no module"},
		{
			"A of another width", bare(t).Zip(query5+".lora_A.weight", 4, 6).Zip(query5+".lora_B.weight", 8, 4),
			`key "` + weight + `": shape: expected [4, 8], found [4, 6] (base ViTForImageClassification, rank 4 by r)`,
		},
		{
			"B of another height", bare(t).Zip(query5+".lora_A.weight", 4, 8).Zip(query5+".lora_B.weight", 9, 4),
			`key "base_model.model.` + query5 + `.lora_B.weight": shape: expected [8, 4], found [9, 4]`,
		},
		{
			"A of another rank", bare(t).Update(query5, 8, 8).Set("r", 8),
			`key "` + weight + `": shape: expected [8, 8], found [4, 8] (base ViTForImageClassification, rank 8 by r)`,
		},
		{
			"A of another rank than its pattern", bare(t).Update(query5, 8, 8).Set("rank_pattern", raw(`{"q_proj": 2}`)),
			`": shape: expected [2, 8], found [4, 8] (base ViTForImageClassification, rank 2 by rank_pattern "q_proj")`,
		},
		{
			"B of another rank than A", bare(t).Zip(query5+".lora_A.weight", 4, 8).Zip(query5+".lora_B.weight", 8, 2),
			`.lora_B.weight": shape: expected [8, 4], found [8, 2]`,
		},
		{
			"rank 0", bare(t).Zip(query5+".lora_A.weight", 0, 8).Zip(query5+".lora_B.weight", 8, 0),
			"shape: expected [4, 8], found [0, 8]",
		},
		{
			"a scalar", bare(t).Tensor(wrappers.F32(weight, counting(1))).Zip(query5+".lora_B.weight", 8, 4),
			"shape: expected [4, 8], found []",
		},
		{
			"A alone", bare(t).Zip(query5+".lora_A.weight", 4, 8),
			`key "` + weight + `": expected base_model.model.` + query5 + `.lora_B.weight beside it, found none`,
		},
		{
			"B alone", bare(t).Zip(query5+".lora_B.weight", 8, 4),
			`.lora_B.weight": expected base_model.model.` + query5 + `.lora_A.weight`,
		},
		{
			"integers", bare(t).Zip(query5+".lora_B.weight", 8, 4).
				Tensor(wrappers.Tensor{Name: weight, DType: "I16", Shape: []int{4, 8}, Data: make([]byte, 64)}),
			`key "` + weight + `": dtype: expected F32, F16 or BF16, found I16`,
		},
		{"a NaN", bare(t).Zip(query5+".lora_B.weight", 8, 4).
			Tensor(wrappers.F32(weight, append(counting(31), nan), 4, 8)), weight + `": expected finite values, found NaN`},

		{
			"half a convolution", bare(t).Zip("vit.embeddings.patch_embeddings.projection.lora_A.weight", 4, 3, 2, 2),
			`expected base_model.model.vit.embeddings.patch_embeddings.projection.lora_B.weight beside it, found none`,
		},
		{
			"a convolution as a Linear", bare(t).Update("vit.embeddings.patch_embeddings.projection", 8, 12),
			`projection.lora_A.weight": shape: expected [4, 3, 2, 2], found [4, 12]`,
		},
		{
			"a LayerNorm", bare(t).Update("vit.layernorm", 8, 8),
			`LoRA on the LayerNorm "vit.layernorm" is not supported, only on Linear, Conv2d and Embedding`,
		},
		{
			"bare parameters", bare(t).Update("vit.embeddings", 8, 8),
			`LoRA on the Parameters "vit.embeddings" is not supported`,
		},
		{
			"an embedding", bare(t).Zip("vit.embeddings.lora_embedding_A", 4, 8),
			`lora_embedding_A": expected an Embedding's update, found one of the Parameters "vit.embeddings"`,
		},
		{
			"DoRA of no update", bare(t).Zip(query5+".lora_magnitude_vector", 8),
			`lora_magnitude_vector": expected base_model.model.` + query5 + `.lora_A.weight beside it, found none`,
		},
		{
			"DoRA that the config does not know of", bare(t).Update(query5, 8, 8).Zip(query5+".lora_magnitude_vector", 8),
			`lora_magnitude_vector": found, though use_dora is not true`,
		},
		{
			"DoRA without its magnitude", bare(t).Set("use_dora", true).Update(query5, 8, 8),
			`key "base_model.model.` + query5 + `.lora_magnitude_vector": missing, though use_dora is true`,
		},
		{
			"DoRA of another size", bare(t).Set("use_dora", true).Update(query5, 8, 8).Zip(query5+".lora_magnitude_vector", 9),
			`lora_magnitude_vector": shape: expected [8], found [9]`,
		},
		{
			"DoRA twice", bare(t).Set("use_dora", true).Update(query5, 8, 8).
				Zip(query5+".lora_magnitude_vector", 8).Zip(query5+".lora_magnitude_vector.weight", 8),
			`lora_magnitude_vector.weight": the same as "base_model.model.` + query5 + `.lora_magnitude_vector"`,
		},
		{
			"a bias in no update", bare(t).Zip(query5+".lora_B.bias", 8),
			`.lora_B.bias": expected base_model.model.` + query5 + `.lora_A.weight beside it, found none`,
		},
		{
			"a bias in the update that the config does not know of", bare(t).Update(query5, 8, 8).Zip(query5+".lora_B.bias", 8),
			`.lora_B.bias": found, though lora_bias is not true`,
		},
		{
			"an update without its bias", bare(t).Set("lora_bias", true).Update(query5, 8, 8),
			`.lora_B.bias": missing, though lora_bias is true`,
		},
		{
			"a trained bias that the config does not know of", bare(t).Update(query5, 8, 8).Zip(query5+".base_layer.bias", 8),
			`.base_layer.bias": a trained bias, though bias is "none"`,
		},
		{
			"a trained bias of another size", bare(t).Set("bias", "all").Update(query5, 8, 8).Zip(query5+".bias", 9),
			`.bias": shape: expected [8], found [9]`,
		},
		{"a bias in A", bare(t).Zip(query5+".lora_A.bias", 8), `expected lora_A.weight or lora_B.weight`},
		{
			"the adapter's name left in", bare(t).Zip(query5+".lora_A.default.weight", 4, 8),
			`expected lora_A.weight or lora_B.weight after the module's path`,
		},
		{
			"replaced tokens", bare(t).Zip("vit.embeddings.token_adapter.trainable_tokens_delta", 1, 8),
			`rows of "vit.embeddings", which trainable_token_indices does not name`,
		},
		{
			"a base layer", bare(t).Zip(query5+".base_layer.weight", 8, 8),
			"the base's own weights in the adapter are not supported",
		},
		{
			"an original module", headed(t).Zip("classifier.original_module.bias", 3),
			`original_module.bias": expected the module's plain name`,
		},
		{
			"the wrapper of nothing", headed(t).Set("bias", "all").Zip("nonsense.original_module.bias", 3),
			`nonsense.original_module.bias": expected the wrapper of a module that modules_to_save holds`,
		},
		{"a wrapped module", headed(t).Zip("classifier.modules_to_save.bias", 5), "expected the module's plain name"},
		{
			"no path", bare(t).Zip("weight", 8),
			`key "base_model.model.weight": expected a module's path and the name of a parameter`,
		},
		{
			"no path but LoRA", bare(t).Zip("lora_A.weight", 8),
			"expected lora_A.weight or lora_B.weight after the module's path",
		},

		{
			"a trained bias", bare(t).Zip(query5+".bias", 8),
			`.bias": a whole parameter of "` + query5 + `", which modules_to_save does not hold`,
		},
		{
			"a head not named", bare(t).Saved("classifier", 3, 8),
			`a whole parameter of "classifier", which modules_to_save does not hold`,
		},
		{
			"a head without bias", bare(t).Set("task_type", "SEQ_CLS").Zip("classifier.weight", 5, 8),
			`key "base_model.model.classifier.bias": missing, though "classifier" is saved in the file`,
		},
		{
			"a head without weight", bare(t).Set("task_type", "SEQ_CLS").Zip("classifier.bias", 5),
			`key "base_model.model.classifier.weight": missing`,
		},
		{
			"no head, though saved", bare(t).Set("task_type", "SEQ_CLS").Update(query5, 8, 8),
			`key "base_model.model.classifier.weight": missing, though modules_to_save holds "classifier": if it was trained ` +
				"with the base's own, as model.add_adapter() does, set task_type to null",
		},
		{
			"a head of another width", bare(t).Set("task_type", "SEQ_CLS").Saved("classifier", 5, 9),
			`key "base_model.model.classifier.weight": shape: expected [5, 8], found [5, 9] (base ViTForImageClassification)`,
		},
		{
			"a head of two sizes", bare(t).Set("task_type", "SEQ_CLS").Zip("classifier.weight", 5, 8).Zip("classifier.bias", 3),
			`key "base_model.model.classifier.bias": shape: expected [5], found [3]`,
		},
		{
			"a head without outputs", bare(t).Set("task_type", "SEQ_CLS").Saved("classifier", 0, 8),
			"shape: expected a head of 1 to 65536 outputs, found [0, 8]",
		},
		{
			"a scalar head", bare(t).Set("task_type", "SEQ_CLS").Zip("classifier.weight").Zip("classifier.bias", 1),
			"shape: expected a head of 1 to 65536 outputs, found []",
		},
		{
			"a head in three dimensions", bare(t).Set("task_type", "SEQ_CLS").
				Zip("classifier.weight", 5, 8, 1).Zip("classifier.bias", 5),
			"shape: expected [5, 8], found [5, 8, 1]",
		},
		{
			"another Linear of another height", bare(t).Set("modules_to_save", []string{"q_proj"}).Saved(query5, 9, 8),
			"shape: expected [8, 8], found [9, 8]",
		},
		{
			"an unknown parameter", headed(t).Zip("classifier.scale", 5),
			`key "base_model.model.classifier.scale": no parameter "scale" of "classifier" in the base ` +
				`ViTForImageClassification`,
		},
		{
			"half a parent", bare(t).Set("modules_to_save", []string{"embeddings"}).
				Zip("vit.embeddings.cls_token", 1, 1, 8).Zip("vit.embeddings.position_embeddings", 1, 5, 8),
			`key "base_model.model.vit.embeddings.patch_embeddings.projection.weight": missing, though ` +
				`modules_to_save holds "embeddings"`,
		},
		{
			"an update of a saved module", headed(t).Update("classifier", 5, 8),
			`key "base_model.model.classifier.lora_A.weight": an update of "classifier", which modules_to_save ` +
				`holds as "classifier"`,
		},

		{
			"a hostile name", bare(t).Zip(strings.Repeat("x", 300)+".lora_A.weight", 4, 8),
			strings.Repeat("x", 183) + `…": no module "xxx`,
		},
		{"hostile bytes", bare(t).Tensor(wrappers.F32("a\nb", counting(1), 1)), `key "a\nb": expected the prefix`},
		{
			"a scaling beyond float32", bare(t).Update(query5, 8, 8).Set("alpha_pattern", raw(`{"q_proj": 1e300}`)),
			`adapter_config.json: alpha_pattern "q_proj": expected a scaling that float32 can hold, found 1e+300 over rank 4`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.a)
			expectError(t, err, c.err)
		})
	}
}

func TestFilesRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		a    *wrappers.AdapterFolder
		err  string
	}{
		{"no config", headed(t).File("adapter_config.json", nil), `file "adapter_config.json": `},
		{"no model", headed(t).File("adapter_model.safetensors", nil), `file "adapter_model.safetensors": `},
		{
			"a pickle", headed(t).File("adapter_model.safetensors", nil).File("adapter_model.bin", []byte("\x80\x02")),
			"adapter_model.bin: expected adapter_model.safetensors, found a pickle: load the adapter with PEFT",
		},
		{
			"a config too large", headed(t).File("adapter_config.json", make([]byte, 1<<20+1)),
			`file "adapter_config.json": expected at most 1048576 bytes, found 1048577`,
		},
		{
			"not safetensors", headed(t).File("adapter_model.safetensors", []byte("PK\x03\x04 and so on")),
			"adapter_model.safetensors: ",
		},
		{"an empty model", headed(t).File("adapter_model.safetensors", []byte{}), "adapter_model.safetensors: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.a)
			expectError(t, err, c.err)
		})
	}
}

// PEFT saves each adapter of a model that has several in a folder of its own: their names are what somebody needs who
// gave the folder above.
func TestAFolderOfSeveralAdapters(t *testing.T) {
	dir, one := t.TempDir(), os.DirFS(headed(t).Write())
	add := func(names ...string) {
		for _, name := range names {
			if err := os.CopyFS(filepath.Join(dir, name), one); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("a", "b")
	if err := os.Mkdir(filepath.Join(dir, "runs"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := loadDir(t, dir)
	expectError(t, err, `no such file or directory: expected the folder of one adapter, found adapters in "a", "b"`)
	add("c", "d", "e", "f", "g", "h", "i")
	_, err = loadDir(t, dir)
	expectError(t, err, `in "a", "b", "c", "d", "e", "f", "g", "h", and more`)
}

// A pickle beside the safetensors file is left alone, as PEFT leaves it.
func TestPickleBesideIsIgnored(t *testing.T) {
	without := mustLoad(t, headed(t))
	if with := mustLoad(t, headed(t).File("adapter_model.bin", []byte("\x80"))); with.Digest != without.Digest {
		t.Errorf("digest: expected %s, found %s", without.Digest, with.Digest)
	}
}

func TestSymlinkLeavingTheFolderIsRefused(t *testing.T) {
	for _, name := range []string{"adapter_config.json", "adapter_model.safetensors", "config.json"} {
		dir, other := headed(t).Write(), headed(t).File("config.json", []byte("{}")).Write()
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(other, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		_, err := loadDir(t, dir)
		expectError(t, err, fmt.Sprintf("file %q: expected a path inside the folder", name))
	}
}

func TestDigest(t *testing.T) {
	first := mustLoad(t, headed(t)).Digest
	if again := mustLoad(t, headed(t)).Digest; again != first {
		t.Errorf("the same files: expected %s, found %s", first, again)
	}
	if notes := mustLoad(t, headed(t).File("README.md", []byte("# notes"))).Digest; notes != first {
		t.Errorf("a file that changes no answer: expected %s, found %s", first, notes)
	}
	seen := map[string]string{first: "the adapter"}
	for name, a := range map[string]*wrappers.AdapterFolder{
		"config.json":   headed(t).File("config.json", []byte(`{"num_labels": 5}`)),
		"other labels":  headed(t).File("config.json", []byte(`{"num_labels": 5 }`)),
		"another alpha": headed(t).Set("lora_alpha", 9),
		"another value": wrappers.Adapter(t).Rank(4).Update(query5, 8, 8).Zip("classifier.weight", 5, 8).
			Tensor(wrappers.F32("base_model.model.classifier.bias", counting(5), 5)),
	} {
		digest := mustLoad(t, a).Digest
		if other, ok := seen[digest]; ok || !strings.HasPrefix(digest, "sha256:") || len(digest) != len("sha256:")+64 {
			t.Errorf("%s: expected a digest of its own, found %s, that of %q", name, digest, other)
		}
		seen[digest] = name
	}
}

// What a config asks for costs time in proportion to the files, not to what it says.
func TestManyPatterns(t *testing.T) {
	var pairs []string
	for i := range 4096 {
		pairs = append(pairs, fmt.Sprintf(`"vit.layers.%d.attention.k_proj": 2`, i))
	}
	a := bare(t).Update(query5, 8, 8).Set("rank_pattern", raw("{"+strings.Join(pairs, ",")+"}"))
	if loaded := mustLoad(t, a); loaded.Updates[0].Scale != 2 {
		t.Errorf("scale: expected 2, found %g", loaded.Updates[0].Scale)
	}
}

func expectError(t *testing.T, err error, substring string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), substring) {
		t.Errorf("error: expected %q within, found %v", substring, err)
	}
	if err != nil && len(err.Error()) > 1000 {
		t.Errorf("error: expected at most 1000 bytes, found %d", len(err.Error()))
	}
}
