package arch_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// vitBase is the config.json of a fine-tuned google/vit-base-patch16-224-in21k as transformers 4 writes it.
const vitBase = `{
  "_name_or_path": "google/vit-base-patch16-224-in21k",
  "architectures": ["ViTForImageClassification"],
  "attention_probs_dropout_prob": 0.0,
  "encoder_stride": 16,
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
  "hidden_size": 768,
  "id2label": {"0": "angular_leaf_spot", "1": "bean_rust", "2": "healthy"},
  "image_size": 224,
  "initializer_range": 0.02,
  "intermediate_size": 3072,
  "label2id": {"angular_leaf_spot": "0", "bean_rust": "1", "healthy": "2"},
  "layer_norm_eps": 1e-12,
  "model_type": "vit",
  "num_attention_heads": 12,
  "num_channels": 3,
  "num_hidden_layers": 12,
  "patch_size": 16,
  "pooler_act": "tanh",
  "pooler_output_size": 768,
  "problem_type": "single_label_classification",
  "qkv_bias": true,
  "torch_dtype": "float32",
  "transformers_version": "4.44.2"
}`

// tinies has one small config of each architecture.
var tinies = map[string]string{
	"vit": `{
		"model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 8, "num_hidden_layers": 2,
		"num_attention_heads": 2, "intermediate_size": 16, "image_size": 4, "patch_size": 2,
		"id2label": {"0": "cat", "1": "dog", "2": "bird"}}`,
	"deit": `{
		"model_type": "deit", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
		"intermediate_size": 16, "image_size": 4, "patch_size": 2}`,
	"dinov2": `{
		"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2,
		"image_size": 6, "patch_size": 2}`,
	"bert": `{
		"model_type": "bert", "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
		"intermediate_size": 16, "max_position_embeddings": 12}`,
	"roberta": `{
		"model_type": "roberta", "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
		"intermediate_size": 16, "max_position_embeddings": 12, "type_vocab_size": 1}`,
	"xlm-roberta": `{
		"model_type": "xlm-roberta", "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
		"intermediate_size": 16, "max_position_embeddings": 12, "type_vocab_size": 1}`,
	"distilbert": `{
		"model_type": "distilbert", "vocab_size": 20, "dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 16,
		"max_position_embeddings": 12}`,
	"deberta-v2": `{
		"model_type": "deberta-v2", "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
		"intermediate_size": 16, "max_position_embeddings": 12, "type_vocab_size": 0, "relative_attention": true,
		"position_buckets": 4, "norm_rel_ebd": "layer_norm", "share_att_key": true, "pos_att_type": "p2c|c2p",
		"position_biased_input": false}`,
	"modernbert": `{
		"model_type": "modernbert", "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2,
		"intermediate_size": 16, "max_position_embeddings": 12}`,
}

// tiny is a small ViT with these fields changed; null takes a field out.
func tiny(t *testing.T, changes string) []byte {
	t.Helper()
	return tinyOf(t, "vit", changes)
}

// tinyOf is a small config of that architecture with these fields changed; null takes a field out.
func tinyOf(t *testing.T, name, changes string) []byte {
	t.Helper()
	config := map[string]json.RawMessage{}
	for _, part := range []string{tinies[name], changes} {
		if err := json.Unmarshal([]byte(part), &config); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range config {
		if string(value) == "null" {
			delete(config, name)
		}
	}
	out, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// parse is Parse of a base that has all that its config.json allows.
func parse(raw []byte) (*arch.Description, error) {
	tensors, _ := arch.Tensors(raw) // Parse finds the same error
	return arch.Parse(raw, tensors)
}

func mustParse(t *testing.T, raw []byte) *arch.Description {
	t.Helper()
	d, err := parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestViTBase(t *testing.T) {
	d := mustParse(t, []byte(vitBase))
	if d.ModelType != "vit" || d.Architecture != "ViTForImageClassification" || d.Own != 0 || len(d.Heads) != 1 {
		t.Errorf("found %s, %s, %d of the heads %v", d.ModelType, d.Architecture, d.Own, d.Heads)
	}
	if expected := []string{"angular_leaf_spot", "bean_rust", "healthy"}; !slices.Equal(d.Classes.Labels, expected) {
		t.Errorf("labels: expected %v, found %v", expected, d.Classes.Labels)
	}
	if d.Classes.Problem != arch.SingleLabel {
		t.Errorf("problem: expected %s, found %s", arch.SingleLabel, d.Classes.Problem)
	}
	if d.Text != nil || *d.Image != (arch.ImageInput{Channels: 3, Height: 224, Width: 224}) {
		t.Errorf("input: found %+v, %+v", d.Image, d.Text)
	}
	c, ok := d.Config.(*arch.ViT)
	if !ok || c.LayerNormEps != 1e-12 || !c.QKVBias || c.HiddenAct != "gelu" {
		t.Errorf("config: found %+v", d.Config)
	}
	for path, shapes := range map[string]map[string][]int{
		"vit.embeddings": {"cls_token": {1, 1, 768}, "position_embeddings": {1, 197, 768}},
		"vit.embeddings.patch_embeddings.projection":     {"weight": {768, 3, 16, 16}, "bias": {768}},
		"vit.encoder.layer.11.attention.attention.value": {"weight": {768, 768}, "bias": {768}},
		"vit.encoder.layer.0.intermediate.dense":         {"weight": {3072, 768}, "bias": {3072}},
		"vit.layers.0.mlp.fc2":                           {"weight": {768, 3072}, "bias": {768}},
		"vit.layers.7.layernorm_after":                   {"weight": {768}, "bias": {768}},
		"classifier":                                     {"weight": {3, 768}, "bias": {3}},
	} {
		m := module(t, d, path)
		if len(m.Params) != len(shapes) {
			t.Errorf("%s: expected %d parameters, found %d", path, len(shapes), len(m.Params))
		}
		for name, shape := range shapes {
			if p, ok := m.Param(name); !ok || !slices.Equal(p.Shape, shape) {
				t.Errorf("%s.%s: expected %v, found %v", path, name, shape, p.Shape)
			}
		}
		if _, ok := m.Param("no_such"); ok {
			t.Errorf("%s: expected no parameter no_such, found one", path)
		}
	}
}

// module is the one module that a path means.
func module(t *testing.T, d *arch.Description, path string) *arch.Module {
	t.Helper()
	found := d.Lookup(path)
	if len(found) != 1 {
		t.Fatalf("%s: expected one module, found %d", path, len(found))
	}
	return found[0]
}

// A config may leave out whatever has a default in transformers.
func TestViTDefaults(t *testing.T) {
	d := mustParse(t, []byte(`{"model_type": "vit"}`))
	full := mustParse(t, []byte(vitBase))
	if !reflect.DeepEqual(d.Config, full.Config) {
		t.Errorf("config: expected %+v, found %+v", full.Config, d.Config)
	}
	if !slices.Equal(d.Classes.Labels, []string{"LABEL_0", "LABEL_1"}) || d.Classes.Problem != "" {
		t.Errorf("classes: expected two by default, found %+v", d.Classes)
	}
}

func TestSizesInTwoDimensions(t *testing.T) {
	d := mustParse(t, tiny(t, `{"image_size": [6, 8], "patch_size": [3, 2], "num_channels": 1}`))
	if *d.Image != (arch.ImageInput{Channels: 1, Height: 6, Width: 8}) {
		t.Errorf("image: found %+v", d.Image)
	}
	if m := module(t, d, "vit.embeddings"); !slices.Equal(m.Params[1].Shape, []int{1, 2*4 + 1, 8}) {
		t.Errorf("position embeddings: expected 2 by 4 patches and one, found %v", m.Params[1].Shape)
	}
	m := module(t, d, "vit.embeddings.patch_embeddings.projection")
	if !slices.Equal(m.Params[0].Shape, []int{8, 1, 3, 2}) {
		t.Errorf("projection: expected [8 1 3 2], found %v", m.Params[0].Shape)
	}
}

func TestWithoutQKVBias(t *testing.T) {
	d := mustParse(t, tiny(t, `{"qkv_bias": false}`))
	for path, bias := range map[string]bool{
		"vit.layers.0.attention.q_proj": false, "vit.layers.0.attention.k_proj": false,
		"vit.layers.0.attention.v_proj": false, "vit.layers.0.attention.o_proj": true, "classifier": true,
	} {
		m := module(t, d, path)
		if _, ok := m.Param("bias"); ok != bias {
			t.Errorf("%s: expected bias %t, found %t", path, bias, ok)
		}
	}
}

// Every module is found under all its names, and no two share one.
func TestNamesAreUniqueAndComplete(t *testing.T) {
	d := mustParse(t, tiny(t, `{}`))
	owner := map[string]string{}
	for i, m := range d.Modules {
		for _, path := range append([]string{m.Path}, m.Aliases...) {
			if other, ok := owner[path]; ok {
				t.Errorf("%s: expected one module, found %s and %s", path, other, m.Path)
			}
			owner[path] = m.Path
			if found := d.Lookup(path); len(found) != 1 || found[0] != &d.Modules[i] {
				t.Errorf("%s: expected module %d, found %v", path, i, found)
			}
		}
		if strings.HasPrefix(m.Path, "vit.encoder.layer.") != (len(m.Aliases) == 1) {
			t.Errorf("%s: expected an alias for what transformers 5 renamed and for nothing else, found %v", m.Path, m.Aliases)
		}
	}
	// As transformers 5 names them: nothing may be missing.
	for n := range 2 {
		for _, name := range []string{
			"layernorm_before", "attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj",
			"layernorm_after", "mlp.fc1", "mlp.fc2",
		} {
			if path := fmt.Sprintf("vit.layers.%d.%s", n, name); owner[path] == "" {
				t.Errorf("%s: expected a module, found none", path)
			}
		}
	}
	for _, path := range []string{
		"", "vit", "vit.encoder.layer.2.output.dense", "vit.layers.0", "base_model.model.classifier",
	} {
		if found := d.Lookup(path); len(found) > 0 {
			t.Errorf("%q: expected no module, found %s", path, found[0].Path)
		}
	}
}

func TestActivations(t *testing.T) {
	for _, act := range []string{"gelu", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "relu", "silu", "swish"} {
		mustParse(t, tiny(t, `{"hidden_act": "`+act+`"}`))
	}
}

func TestConfigsRefused(t *testing.T) {
	for _, c := range []struct{ changes, err string }{
		{
			`{"model_type": "t5"}`,
			`config.json: model_type: expected one of ` + strings.Join(arch.ModelTypes(), ", ") + `, found "t5"`,
		},
		{`{"model_type": null}`, `config.json: model_type: expected one of bert, deberta-v2, `},
		{`{"model_type": 5}`, `config.json: model_type: expected a string, found 5`},
		{`{"architectures": "ViTModel"}`, `config.json: architectures: expected a list, found "ViTModel"`},
		{`{"hidden_size": 0}`, `config.json: hidden_size: expected 1 to 16384, found 0`},
		{`{"hidden_size": -8}`, `config.json: hidden_size: expected 1 to 16384, found -8`},
		{`{"hidden_size": 1000000}`, `config.json: hidden_size: expected 1 to 16384, found 1000000`},
		{
			`{"hidden_size": 9223372036854775808}`,
			`config.json: hidden_size: expected an integer, found 9223372036854775808`,
		},
		{`{"hidden_size": 8.5}`, `config.json: hidden_size: expected an integer, found 8.5`},
		{`{"hidden_size": "8"}`, `config.json: hidden_size: expected an integer, found "8"`},
		{`{"hidden_size": 9}`, `config.json: hidden_size: expected a multiple of num_attention_heads = 2, found 9`},
		{`{"num_hidden_layers": 257}`, `config.json: num_hidden_layers: expected 1 to 256, found 257`},
		{`{"num_attention_heads": 0}`, `config.json: num_attention_heads: expected 1 to 256, found 0`},
		{`{"intermediate_size": 65537}`, `config.json: intermediate_size: expected 1 to 65536, found 65537`},
		{`{"num_channels": 17}`, `config.json: num_channels: expected 1 to 16, found 17`},
		{`{"image_size": 4097}`, `config.json: image_size: expected 1 to 4096, found 4097`},
		{`{"image_size": [4, 0]}`, `config.json: image_size: expected 1 to 4096, found 0`},
		{`{"image_size": [4]}`, `config.json: image_size: expected a number or [height, width], found [4]`},
		{`{"image_size": [4, 4, 4]}`, `config.json: image_size: expected a number or [height, width], found [4,4,4]`},
		{`{"image_size": "4"}`, `config.json: image_size: expected a number or [height, width], found "4"`},
		{
			`{"patch_size": {"height": 2}}`,
			`config.json: patch_size: expected a number or [height, width], found {"height":2}`,
		},
		{`{"patch_size": 1025}`, `config.json: patch_size: expected 1 to 1024, found 1025`},
		{`{"patch_size": 8}`, `config.json: patch_size: expected at most image_size [4 4], found [8 8]`},
		{`{"patch_size": [2, 5]}`, `config.json: patch_size: expected at most image_size [4 4], found [2 5]`},
		{`{"layer_norm_eps": 1}`, `config.json: layer_norm_eps: expected 0 to 1, found 1`},
		{`{"layer_norm_eps": -1e-5}`, `config.json: layer_norm_eps: expected 0 to 1, found -1e-05`},
		{`{"layer_norm_eps": "small"}`, `config.json: layer_norm_eps: expected a number, found "small"`},
		{`{"qkv_bias": 1}`, `config.json: qkv_bias: expected true or false, found 1`},
		{
			`{"hidden_act": "quick_gelu"}`,
			`config.json: hidden_act: expected one of gelu, gelu_new, gelu_python, gelu_pytorch_tanh, relu, silu, swish, ` +
				`found "quick_gelu"`,
		},
		{`{"hidden_act": ""}`, `config.json: hidden_act: expected one of`},
		{`{"hidden_act": ["gelu"]}`, `config.json: hidden_act: expected a string, found ["gelu"]`},
		{
			`{"quantization_config": {"load_in_8bit": true}}`,
			`config.json: quantization_config: quantized bases are not supported, found {"load_in_8bit":true}`,
		},
		{
			`{"pruned_heads": {"0": [1]}}`,
			`config.json: pruned_heads: pruned attention heads are not supported, found {"0":[1]}`,
		},
		{
			`{"problem_type": "ranking"}`,
			`config.json: problem_type: expected single_label_classification, multi_label_classification or regression, ` +
				`found "ranking"`,
		},
		{`{"id2label": {"0": "cat", "2": "dog"}}`, `config.json: id2label: expected the ids 0 to 1, found no 1`},
		{`{"num_labels": 2}`, `config.json: num_labels: expected 3, as id2label has, found 2`},
		{`{"model_type": "` + strings.Repeat("x", 5000) + `"}`, strings.Repeat("x", 200) + `…"`},
		{`{"quantization_config": "` + strings.Repeat("x", 5000) + `"}`, strings.Repeat("x", 199) + `…`},
		{`{"hidden_act": "` + strings.Repeat("é", 5000) + `"}`, strings.Repeat("é", 100) + `…"`},
		{`{"hidden_act": "x` + strings.Repeat("é", 5000) + `"}`, "x" + strings.Repeat("é", 99) + `…"`},
		{
			`{"image_size": [` + strings.Repeat("4,", 5000) + `4]}`,
			`config.json: image_size: expected a number or [height, width], found [4,4`,
		},
		{
			`{"hidden_size": 1` + strings.Repeat("0", 5000) + `}`,
			`config.json: hidden_size: expected an integer, found 1000`,
		},
	} {
		t.Run(fmt.Sprintf("%.60s", c.changes), func(t *testing.T) {
			_, err := parse(tiny(t, c.changes))
			expectError(t, err, c.err)
			if _, alone := arch.Tensors(tiny(t, c.changes)); alone == nil || alone.Error() != err.Error() {
				t.Errorf("Tensors: expected %v, found %v", err, alone)
			}
		})
	}
	for _, c := range []struct{ raw, err string }{
		{``, "config.json: unexpected EOF"},
		{`[]`, "config.json: expected an object, found ["},
		{`{"model_type": "vit", "id2label": {"1": "a"}}`, "config.json: id2label: expected the ids 0 to 0, found no 0"},
		{`null`, "config.json: model_type: expected one of bert"},
		{`{"model_type": "vit"} x`, "config.json: invalid character"},
		{`{"model_type": "vit", "layer_norm_eps": NaN}`, "config.json: invalid character"},
	} {
		_, err := parse([]byte(c.raw))
		expectError(t, err, c.err)
	}
}

// What says nothing is not refused.
func TestEmptyFields(t *testing.T) {
	for _, changes := range []string{
		`{"quantization_config": {}}`, `{"pruned_heads": { }}`, `{"architectures": []}`, `{"num_labels": 3}`,
		`{"problem_type": "single_label_classification"}`,
	} {
		mustParse(t, tiny(t, changes))
	}
	mustParse(t, []byte(`{"model_type": "vit", "quantization_config": null, "pruned_heads": null, "architectures": null}`))
}

func expectError(t *testing.T, err error, substring string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), substring) {
		t.Errorf("error: expected %q within, found %v", substring, err)
	}
	if err != nil && strings.Count(err.Error(), "config.json") != 1 {
		t.Errorf("error: expected config.json once, found %v", err)
	}
	if err != nil && len(err.Error()) > 600 {
		t.Errorf("error: expected at most 600 bytes, found %d", len(err.Error()))
	}
}

// Python tells hidden_act from Hidden_Act.
func TestFieldsAreMatchedToTheLetter(t *testing.T) {
	d := mustParse(t, []byte(`{"model_type": "vit", "Hidden_Act": "relu", "HIDDEN_SIZE": 8, "NUM_LABELS": 5}`))
	c, labels := d.Config.(*arch.ViT), d.Classes.Labels
	if c.HiddenAct != "gelu" || c.HiddenSize != 768 || len(labels) != 2 {
		t.Errorf("expected the defaults, found %s, %d and %d labels", c.HiddenAct, c.HiddenSize, len(labels))
	}
}
