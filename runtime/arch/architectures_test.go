package arch_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// Every architecture has its own defaults and a small config here.
func TestEveryArchitectureHasDefaults(t *testing.T) {
	for _, name := range arch.ModelTypes() {
		if tinies[name] == "" {
			t.Errorf("%s: expected a small config", name)
			continue
		}
		for _, raw := range []string{`{"model_type": "` + name + `"}`, tinies[name]} {
			d, err := parse([]byte(raw))
			if err != nil {
				t.Errorf("%s: %v", raw, err)
				continue
			}
			if d.ModelType != name || (d.Image == nil) == (d.Text == nil) || d.MaxTokens() < 1 {
				t.Errorf("%s: expected one kind of input, found %+v and %+v", name, d.Image, d.Text)
			}
			if d.Own != 0 || d.Architecture != d.Heads[0].Architecture {
				t.Errorf("%s: expected the first head where architectures says nothing, found %d, %s", name, d.Own, d.Architecture)
			}
		}
	}
}

// A description is of all that transformers makes of the same config, and of nothing else: the numbers are those that
// it counts itself.
func TestParametersOfRealModels(t *testing.T) {
	const (
		roberta = `"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1`
		v3      = `"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
			"type_vocab_size": 0, "relative_attention": true, "position_buckets": 256, "norm_rel_ebd": "layer_norm",
			"pos_att_type": "p2c|c2p", "position_biased_input": false`
		thousand = `"num_labels": 1000`
	)
	for _, c := range []struct {
		config, head string
		parameters   int64
	}{
		{`{"model_type": "bert"}`, "BertForSequenceClassification", 109_483_778},
		{`{"model_type": "bert", "num_labels": 9}`, "BertForTokenClassification", 108_898_569},
		{`{"model_type": "roberta", ` + roberta + `}`, "RobertaForSequenceClassification", 124_647_170},
		{`{"model_type": "roberta", ` + roberta + `}`, "RobertaForTokenClassification", 124_056_578},
		{
			`{"model_type": "xlm-roberta", "vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1}`,
			"XLMRobertaForSequenceClassification", 278_045_186,
		},
		{`{"model_type": "distilbert"}`, "DistilBertForSequenceClassification", 66_955_010},
		{`{"model_type": "distilbert"}`, "DistilBertForTokenClassification", 66_364_418},
		{
			`{"model_type": "deberta-v2", "share_att_key": true, ` + v3 + `}`,
			"DebertaV2ForSequenceClassification", 184_423_682,
		},
		{
			`{"model_type": "deberta-v2", "share_att_key": true, ` + v3 + `}`,
			"DebertaV2ForTokenClassification", 183_833_090,
		},
		{`{"model_type": "deberta-v2", ` + v3 + `}`, "DebertaV2ForSequenceClassification", 198_597_890},
		{`{"model_type": "deberta-v2"}`, "DebertaV2ForSequenceClassification", 879_871_490},
		{
			`{"model_type": "deberta-v2", "type_vocab_size": 0, "relative_attention": true, "position_buckets": 256,
				"norm_rel_ebd": "layer_norm", "share_att_key": true, "pos_att_type": ["p2c", "c2p"],
				"position_biased_input": false, "conv_kernel_size": 3, "conv_act": "gelu"}`,
			"DebertaV2ForSequenceClassification", 886_957_058,
		},
		{`{"model_type": "modernbert"}`, "ModernBertForSequenceClassification", 149_606_402},
		{`{"model_type": "modernbert"}`, "ModernBertForTokenClassification", 149_606_402},
		{
			`{"model_type": "modernbert", "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
				"intermediate_size": 2624}`,
			"ModernBertForSequenceClassification", 395_833_346,
		},
		{ // mmBERT
			`{"model_type": "modernbert", "vocab_size": 256000, "max_position_embeddings": 8192, "local_attention": 128,
				"global_rope_theta": 160000, "local_rope_theta": 160000}`,
			"ModernBertForSequenceClassification", 307_531_778,
		},
		{
			`{"model_type": "modernbert", "attention_bias": true, "mlp_bias": true, "norm_bias": true,
				"classifier_bias": true}`,
			"ModernBertForSequenceClassification", 149_777_666,
		},
		{vitBase, "ViTForImageClassification", 85_800_963},
		{`{"model_type": "vit", ` + thousand + `}`, "ViTForImageClassification", 86_567_656},
		{`{"model_type": "deit", ` + thousand + `}`, "DeiTForImageClassification", 86_569_192},
		{`{"model_type": "deit", ` + thousand + `}`, "DeiTForImageClassificationWithTeacher", 87_338_192},
		{
			`{"model_type": "dinov2", "image_size": 518, ` + thousand + `}`,
			"Dinov2ForImageClassification", 88_117_480,
		},
		{
			`{"model_type": "dinov2", "image_size": 518, "hidden_size": 1536, "num_hidden_layers": 40,
				"num_attention_heads": 24, "use_swiglu_ffn": true, ` + thousand + `}`,
			"Dinov2ForImageClassification", 1_139_553_768,
		},
	} {
		d := mustParse(t, []byte(c.config))
		if found := parameters(d, c.head); found != c.parameters {
			t.Errorf("%s of %.60s: expected %d parameters, found %d", c.head, c.config, c.parameters, found)
		}
	}
}

// parameters counts those of the trunk and of one head.
func parameters(d *arch.Description, head string) int64 {
	of := map[string]bool{} // what belongs to heads: whether to this one
	for _, h := range d.Heads {
		for _, path := range h.Modules {
			of[path] = of[path] || h.Architecture == head
		}
	}
	total := int64(0)
	for _, m := range d.Modules {
		if counts, ok := of[m.Path]; ok && !counts {
			continue
		}
		for _, p := range m.Params {
			n := int64(1)
			for _, dim := range p.Shape {
				n *= int64(dim)
			}
			total += n
		}
	}
	return total
}

func TestInputs(t *testing.T) {
	for _, c := range []struct {
		name, changes string
		text          *arch.TextInput
		image         *arch.ImageInput
	}{
		{"bert", `{}`, &arch.TextInput{Vocabulary: 20, Types: 2, MaxTokens: 12}, nil},
		{"roberta", `{}`, &arch.TextInput{Vocabulary: 20, Types: 1, MaxTokens: 10}, nil},
		{"xlm-roberta", `{"pad_token_id": 3}`, &arch.TextInput{Vocabulary: 20, Types: 1, MaxTokens: 8}, nil},
		{"distilbert", `{}`, &arch.TextInput{Vocabulary: 20, MaxTokens: 12}, nil},
		{"deberta-v2", `{}`, &arch.TextInput{Vocabulary: 20, MaxTokens: 12}, nil},
		{"deberta-v2", `{"type_vocab_size": 3}`, &arch.TextInput{Vocabulary: 20, Types: 3, MaxTokens: 12}, nil},
		{"modernbert", `{}`, &arch.TextInput{Vocabulary: 20, MaxTokens: 12}, nil},
		{"deit", `{"image_size": [4, 6]}`, nil, &arch.ImageInput{Channels: 3, Height: 4, Width: 6}},
		{
			"dinov2", `{"image_size": [4, 6], "patch_size": [2, 3], "num_channels": 1}`,
			nil, &arch.ImageInput{Channels: 1, Height: 4, Width: 6, Patch: [2]int{2, 3}},
		},
	} {
		d := mustParse(t, tinyOf(t, c.name, c.changes))
		if !reflect.DeepEqual(d.Text, c.text) || !reflect.DeepEqual(d.Image, c.image) {
			t.Errorf("%s %s: found %+v, %+v", c.name, c.changes, d.Text, d.Image)
		}
	}
}

// DINOv2 stretches its positions to images of other sizes; the others take their own alone.
func TestImagesTaken(t *testing.T) {
	fixed, free := mustParse(t, tiny(t, `{}`)).Image, mustParse(t, []byte(tinies["dinov2"])).Image
	for _, c := range []struct {
		height, width int
		fixed, free   bool
	}{
		{4, 4, true, true},
		{6, 6, false, true},
		{2, 8, false, true},
		{4096, 2, false, true},
		{4098, 2, false, false},
		{5, 4, false, false},
		{4, 5, false, false},
		{0, 4, false, false},
		{4, 0, false, false},
		{-2, 4, false, false},
	} {
		if fixed.Takes(c.height, c.width) != c.fixed || free.Takes(c.height, c.width) != c.free {
			t.Errorf("%d by %d: expected %t and of any size %t", c.height, c.width, c.fixed, c.free)
		}
	}
}

// What the fields of a config change of the modules.
func TestModulesByConfig(t *testing.T) {
	const self = "deberta.encoder.layer.1.attention.self."
	for _, c := range []struct {
		name, changes string
		shapes        map[string][]int // of these parameters; nil: there is no such parameter
		without       []string         // modules that there are not
	}{
		{name: "bert", changes: `{}`, shapes: map[string][]int{"bert.pooler.dense weight": {8, 8}}},
		{
			name: "bert", changes: `{"type_vocab_size": 5}`,
			shapes: map[string][]int{"bert.embeddings.token_type_embeddings weight": {5, 8}},
		},
		{name: "roberta", changes: `{"num_labels": 5}`, shapes: map[string][]int{
			"classifier.dense weight": {8, 8}, "classifier.out_proj weight": {5, 8}, "classifier weight": {5, 8},
		}, without: []string{"roberta.pooler.dense"}},
		{
			name: "distilbert", changes: `{}`,
			shapes: map[string][]int{
				"distilbert.transformer.layer.1.ffn.lin1 weight": {16, 8}, "pre_classifier bias": {8},
			},
			without: []string{"distilbert.embeddings.token_type_embeddings"},
		},
		{name: "deberta-v2", changes: `{}`, shapes: map[string][]int{
			"deberta.encoder.rel_embeddings weight": {8, 8}, "deberta.encoder.LayerNorm weight": {8},
		}, without: []string{
			"deberta.embeddings.position_embeddings", "deberta.embeddings.token_type_embeddings", self + "pos_key_proj",
			"deberta.encoder.conv.conv", "deberta.encoder.conv.LayerNorm",
		}},
		{
			name: "deberta-v2", changes: `{"position_buckets": -1, "max_relative_positions": 5}`,
			shapes: map[string][]int{"deberta.encoder.rel_embeddings weight": {10, 8}},
		},
		{
			name: "deberta-v2", changes: `{"position_buckets": -1, "max_relative_positions": 0}`,
			shapes: map[string][]int{"deberta.encoder.rel_embeddings weight": {24, 8}},
		},
		{
			name: "deberta-v2", changes: `{"share_att_key": false, "pos_att_type": ["c2p"], "norm_rel_ebd": "none"}`,
			shapes:  map[string][]int{self + "pos_key_proj bias": {8}},
			without: []string{self + "pos_query_proj", "deberta.encoder.LayerNorm"},
		},
		{
			name: "deberta-v2", changes: `{"share_att_key": false, "pos_att_type": "P2C"}`,
			shapes: map[string][]int{self + "pos_query_proj weight": {8, 8}}, without: []string{self + "pos_key_proj"},
		},
		{
			name: "deberta-v2", changes: `{"relative_attention": false, "share_att_key": false}`,
			without: []string{"deberta.encoder.rel_embeddings", self + "pos_query_proj", self + "pos_key_proj"},
		},
		{name: "deberta-v2", changes: `{"conv_kernel_size": 3}`, shapes: map[string][]int{
			"deberta.encoder.conv.conv weight": {8, 8, 3}, "deberta.encoder.conv.LayerNorm bias": {8},
		}},
		{
			name: "deberta-v2", changes: `{"position_biased_input": true, "type_vocab_size": 2}`,
			shapes: map[string][]int{
				"deberta.embeddings.token_type_embeddings weight": {2, 8},
				"deberta.embeddings.position_embeddings weight":   {12, 8},
			},
		},
		{name: "modernbert", changes: `{}`, shapes: map[string][]int{
			"model.layers.1.attn.Wqkv weight": {24, 8}, "model.layers.1.attn.Wqkv bias": nil,
			"model.layers.1.mlp.Wi weight": {32, 8}, "model.layers.1.mlp.Wo bias": nil, "model.layers.1.attn_norm bias": nil,
			"head.dense bias": nil, "head.norm bias": nil, "classifier bias": {2},
		}, without: []string{"model.layers.0.attn_norm"}},
		{
			name: "modernbert", changes: `{"attention_bias": true, "classifier_bias": true}`,
			shapes: map[string][]int{
				"model.layers.1.attn.Wqkv bias": {24}, "model.layers.1.attn.Wo bias": {8}, "model.layers.1.mlp.Wi bias": nil,
				"head.dense bias": {8}, "head.norm bias": nil,
			},
		},
		{name: "modernbert", changes: `{"mlp_bias": true, "norm_bias": true}`, shapes: map[string][]int{
			"model.layers.1.mlp.Wi bias": {32}, "model.final_norm bias": {8}, "head.norm bias": {8}, "head.dense bias": nil,
		}},
		{name: "deit", changes: `{}`, shapes: map[string][]int{
			"deit.embeddings distillation_token": {1, 1, 8}, "deit.embeddings position_embeddings": {1, 6, 8},
			"cls_classifier weight": {2, 8}, "distillation_classifier weight": {2, 8},
		}},
		{
			name: "dinov2", changes: `{}`,
			shapes: map[string][]int{
				"dinov2.embeddings mask_token": {1, 8}, "dinov2.encoder.layer.0.mlp.fc1 weight": {16, 8},
				"dinov2.encoder.layer.0.layer_scale1 lambda1": {8}, "classifier weight": {2, 16},
			},
			without: []string{"dinov2.encoder.layer.0.mlp.gate_proj", "dinov2.encoder.layer.0.mlp.weights_in"},
		},
		{name: "dinov2", changes: `{"qkv_bias": false, "use_mask_token": false}`, shapes: map[string][]int{
			"dinov2.encoder.layer.0.attention.q_proj bias": nil, "dinov2.encoder.layer.0.attention.o_proj bias": {8},
			"dinov2.embeddings mask_token": nil,
		}},
	} {
		d := mustParse(t, tinyOf(t, c.name, c.changes))
		for name, shape := range c.shapes {
			path, param, _ := strings.Cut(name, " ")
			p, ok := module(t, d, path).Param(param)
			if ok != (shape != nil) || !slices.Equal(p.Shape, shape) {
				t.Errorf("%s %s: %s: expected %v, found %v", c.name, c.changes, name, shape, p.Shape)
			}
		}
		for _, path := range c.without {
			if len(d.Lookup(path)) > 0 {
				t.Errorf("%s %s: %s: expected no module, found one", c.name, c.changes, path)
			}
		}
	}
}

// As transformers 5 names them in memory, and so PEFT on disk.
func TestNamesOfTransformers5(t *testing.T) {
	for path, canonical := range map[string]string{
		"deit.layers.1.attention.q_proj":          "deit.encoder.layer.1.attention.attention.query",
		"deit.layers.1.mlp.fc2":                   "deit.encoder.layer.1.output.dense",
		"dinov2.encoder.layer.1.attention.k_proj": "dinov2.encoder.layer.1.attention.attention.key",
		"dinov2.encoder.layer.1.attention.v_proj": "dinov2.encoder.layer.1.attention.attention.value",
		"dinov2.encoder.layer.1.attention.o_proj": "dinov2.encoder.layer.1.attention.output.dense",
		"dinov2.encoder.layer.1.mlp.down_proj":    "dinov2.encoder.layer.1.mlp.weights_out",
	} {
		name, _, _ := strings.Cut(path, ".")
		d := mustParse(t, tinyOf(t, name, `{"use_swiglu_ffn": true}`))
		if m := module(t, d, path); m.Path != canonical {
			t.Errorf("%s: expected %s, found %s", path, canonical, m.Path)
		}
	}
}

// DINOv2's SwiGLU has one Linear on disk and two in transformers 5, of which either is a part of the other's outputs.
func TestFusedModules(t *testing.T) {
	d := mustParse(t, tinyOf(t, "dinov2", `{"use_swiglu_ffn": true, "mlp_ratio": 3}`))
	const mlp = "dinov2.encoder.layer.1.mlp."
	found := d.Lookup(mlp + "weights_in")
	if len(found) != 2 || found[0] != module(t, d, mlp+"gate_proj") || found[1] != module(t, d, mlp+"up_proj") {
		t.Fatalf("weights_in: expected the gate and what it lets through, found %v", found)
	}
	for i, m := range found {
		if expected := (arch.Fused{Path: mlp + "weights_in", From: 16 * i, Outputs: 32}); *m.Fused != expected {
			t.Errorf("%s: expected %+v, found %+v", m.Path, expected, *m.Fused)
		}
		for param, shape := range map[string][]int{"weight": {32, 8}, "bias": {32}} {
			stored, ok := d.Stored(m.Path, param)
			expected := arch.Stored{Tensor: mlp + "weights_in." + param, Shape: shape, From: 16 * i, To: 16 * (i + 1)}
			if !ok || !reflect.DeepEqual(stored, expected) {
				t.Errorf("%s.%s: expected %+v, found %+v", m.Path, param, expected, stored)
			}
		}
		if p, _ := m.Param("weight"); !slices.Equal(p.Shape, []int{16, 8}) {
			t.Errorf("%s: expected its own half, found %v", m.Path, p.Shape)
		}
	}
}

// As transformers rounds them.
func TestInnerWidthOfDINOv2(t *testing.T) {
	for changes, width := range map[string]int{
		`{"mlp_ratio": 4}`:                         32,
		`{"mlp_ratio": 2.7}`:                       21,
		`{"mlp_ratio": 4, "use_swiglu_ffn": true}`: 24, // 21, to the next multiple of 8
		`{"mlp_ratio": 3, "use_swiglu_ffn": true}`: 16,
	} {
		c := mustParse(t, tinyOf(t, "dinov2", changes)).Config.(*arch.DINOv2)
		if found := c.Inner(); found != width {
			t.Errorf("%s: expected %d, found %d", changes, width, found)
		}
	}
}

func TestRelativePositionsOfDeBERTa(t *testing.T) {
	for changes, expected := range map[string]arch.DeBERTa{
		`{"pos_att_type": null}`:        {},
		`{"pos_att_type": []}`:          {},
		`{"pos_att_type": ["c2p"]}`:     {C2P: true},
		`{"pos_att_type": "p2c"}`:       {P2C: true},
		`{"pos_att_type": "c2p | P2C"}`: {C2P: true, P2C: true},
		`{"pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "Layer_Norm|x"}`: {C2P: true, P2C: true},
	} {
		c := mustParse(t, tinyOf(t, "deberta-v2", changes)).Config.(*arch.DeBERTa)
		if c.C2P != expected.C2P || c.P2C != expected.P2C || !c.NormsRelative() {
			t.Errorf("%s: found %t, %t, %t", changes, c.C2P, c.P2C, c.NormsRelative())
		}
	}
	for changes, expected := range map[string][2]int{
		`{}`:                            {4, 12},
		`{"max_relative_positions": 9}`: {4, 9},
		`{"max_relative_positions": 9, "position_buckets": 0}`:      {9, 9},
		`{"max_relative_positions": null, "position_buckets": -1}`:  {12, 12},
		`{"position_buckets": 256, "max_position_embeddings": 512}`: {256, 512},
	} {
		c := mustParse(t, tinyOf(t, "deberta-v2", changes)).Config.(*arch.DeBERTa)
		if span, distance := c.Span(); span != expected[0] || distance != expected[1] {
			t.Errorf("%s: expected %v, found %d, %d", changes, expected, span, distance)
		}
	}
}

// Each architecture checks its own fields, and says which one it is.
func TestFieldsRefused(t *testing.T) {
	for _, c := range []struct{ name, changes, err string }{
		{"bert", `{"vocab_size": 0}`, "vocab_size: expected 1 to 1048576, found 0"},
		{"bert", `{"hidden_size": 16385}`, "hidden_size: expected 1 to 16384, found 16385"},
		{"bert", `{"hidden_size": 9}`, "hidden_size: expected a multiple of num_attention_heads = 2, found 9"},
		{"bert", `{"num_hidden_layers": 0}`, "num_hidden_layers: expected 1 to 256, found 0"},
		{"bert", `{"num_attention_heads": 257}`, "num_attention_heads: expected 1 to 256, found 257"},
		{"bert", `{"intermediate_size": 0}`, "intermediate_size: expected 1 to 65536, found 0"},
		{"bert", `{"max_position_embeddings": 65537}`, "max_position_embeddings: expected 1 to 65536, found 65537"},
		{"bert", `{"type_vocab_size": 0}`, "type_vocab_size: expected 1 to 1024, found 0"},
		{"bert", `{"layer_norm_eps": 1}`, "layer_norm_eps: expected 0 to 1, found 1"},
		{"bert", `{"layer_norm_eps": "x"}`, `layer_norm_eps: expected a number, found "x"`},
		{
			"bert", `{"hidden_act": "tanh"}`,
			`hidden_act: expected one of gelu, gelu_new, gelu_python, gelu_pytorch_tanh, relu, silu, swish, found "tanh"`,
		},
		{
			"bert", `{"position_embedding_type": "relative_key"}`,
			`position_embedding_type: expected absolute, found "relative_key", which is not supported`,
		},
		{"bert", `{"is_decoder": true}`, "is_decoder: expected false, found true"},
		{"bert", `{"add_cross_attention": 1}`, "add_cross_attention: expected false, found 1"},
		{"bert", `{"embedding_size": 4}`, "embedding_size: expected hidden_size = 8, found 4"},

		{"roberta", `{"pad_token_id": -1}`, "pad_token_id: expected 0 to 19, found -1"},
		{"roberta", `{"pad_token_id": 20}`, "pad_token_id: expected 0 to 19, found 20"},
		{
			"roberta", `{"pad_token_id": 11}`,
			"max_position_embeddings: expected more than pad_token_id + 1 = 12, found 12",
		},
		{"xlm-roberta", `{"is_decoder": true}`, "is_decoder: expected false, found true"},

		{"distilbert", `{"vocab_size": 1048577}`, "vocab_size: expected 1 to 1048576, found 1048577"},
		{"distilbert", `{"dim": 7}`, "dim: expected a multiple of n_heads = 2, found 7"},
		{"distilbert", `{"dim": 0}`, "dim: expected 1 to 16384, found 0"},
		{"distilbert", `{"hidden_size": 16}`, "hidden_size: expected 8, as dim has, found 16"},
		{"distilbert", `{"num_hidden_layers": 3}`, "num_hidden_layers: expected 2, as n_layers has, found 3"},
		{"distilbert", `{"num_attention_heads": 4}`, "num_attention_heads: expected 2, as n_heads has, found 4"},
		{"distilbert", `{"n_heads": null, "num_attention_heads": 3}`, "dim: expected a multiple of n_heads = 3, found 8"},
		{"distilbert", `{"n_layers": 257}`, "n_layers: expected 1 to 256, found 257"},
		{"distilbert", `{"n_heads": 0}`, "n_heads: expected 1 to 256, found 0"},
		{"distilbert", `{"hidden_dim": 0}`, "hidden_dim: expected 1 to 65536, found 0"},
		{"distilbert", `{"max_position_embeddings": 0}`, "max_position_embeddings: expected 1 to 65536, found 0"},
		{"distilbert", `{"activation": "tanh"}`, "activation: expected one of gelu, "},
		{"distilbert", `{"position_embedding_type": "x"}`, `position_embedding_type: expected absolute, found "x"`},

		{"deberta-v2", `{"vocab_size": 0}`, "vocab_size: expected 1 to 1048576, found 0"},
		{"deberta-v2", `{"hidden_size": 9}`, "hidden_size: expected a multiple of num_attention_heads = 2, found 9"},
		{"deberta-v2", `{"type_vocab_size": -1}`, "type_vocab_size: expected 0 to 1024, found -1"},
		{"deberta-v2", `{"max_relative_positions": -2}`, "max_relative_positions: expected -1 to 65536, found -2"},
		{"deberta-v2", `{"position_buckets": 65537}`, "position_buckets: expected -1 to 65536, found 65537"},
		{"deberta-v2", `{"position_buckets": 3}`, "position_buckets: expected at least 4, found 3"},
		{"deberta-v2", `{"layer_norm_eps": 2}`, "layer_norm_eps: expected 0 to 1, found 2"},
		{"deberta-v2", `{"hidden_act": "x"}`, "hidden_act: expected one of gelu, "},
		{
			"deberta-v2", `{"pooler_hidden_act": "x"}`,
			`pooler_hidden_act: expected one of gelu, gelu_new, gelu_python, gelu_pytorch_tanh, relu, silu, swish, tanh, ` +
				`found "x"`,
		},
		{"deberta-v2", `{"pooler_hidden_size": 9}`, "pooler_hidden_size: expected 8, found 9"},
		{"deberta-v2", `{"attention_head_size": 8}`, "attention_head_size: expected 4, found 8"},
		{"deberta-v2", `{"embedding_size": 4}`, "embedding_size: expected hidden_size = 8, found 4"},
		{"deberta-v2", `{"pos_att_type": 5}`, "pos_att_type: expected a list of c2p and p2c, found 5"},
		{
			"deberta-v2", `{"pos_att_type": ["p2p"]}`,
			`pos_att_type: expected c2p and p2c, found "p2p", which is not supported`,
		},
		{"deberta-v2", `{"pos_att_type": ["C2P"]}`, `pos_att_type: expected c2p and p2c, found "C2P"`},
		{"deberta-v2", `{"conv_kernel_size": 17}`, "conv_kernel_size: expected 0 to 15, found 17"},
		{"deberta-v2", `{"conv_kernel_size": 2}`, "conv_kernel_size: expected an odd number, found 2"},
		{
			"deberta-v2", `{"conv_kernel_size": 3, "conv_groups": 2}`,
			"conv_groups: expected 1, found 2, which is not supported",
		},
		{"deberta-v2", `{"conv_kernel_size": 3, "conv_act": "x"}`, "conv_act: expected one of gelu, "},

		{"modernbert", `{"vocab_size": 0}`, "vocab_size: expected 1 to 1048576, found 0"},
		{"modernbert", `{"hidden_size": 9}`, "hidden_size: expected a multiple of num_attention_heads = 2, found 9"},
		{"modernbert", `{"hidden_size": 6}`, "hidden_size: expected heads of an even size, found 3"},
		{"modernbert", `{"local_attention": 1}`, "local_attention: expected 2 to 131072, found 1"},
		{
			"modernbert", `{"local_attention": 8, "sliding_window": 8}`,
			"sliding_window: expected half of local_attention = 8, found 8: transformers 5 takes twice that for ",
		},
		{
			"modernbert", `{"local_attention": 9, "sliding_window": 4}`,
			"sliding_window: expected half of local_attention = 9, ",
		},
		{
			"modernbert", `{"global_attn_every_n_layers": 0}`,
			"global_attn_every_n_layers: expected 1 to 256, found 0",
		},
		{"modernbert", `{"norm_eps": 1}`, "norm_eps: expected 0 to 1, found 1"},
		{"modernbert", `{"hidden_activation": "x"}`, "hidden_activation: expected one of gelu, "},
		{"modernbert", `{"classifier_activation": "x"}`, "classifier_activation: expected one of gelu, "},
		{"modernbert", `{"classifier_pooling": "max"}`, `classifier_pooling: expected cls or mean, found "max"`},
		{
			"modernbert", `{"layer_types": ["full_attention"]}`,
			"layer_types: expected num_hidden_layers = 4, found 1",
		},
		{
			"modernbert", `{"num_hidden_layers": 1, "layer_types": ["linear"]}`,
			`layer_types: expected full_attention or sliding_attention, found "linear"`,
		},

		{"deit", `{"image_size": 4097}`, "image_size: expected 1 to 4096, found 4097"},
		{"deit", `{"patch_size": 8}`, "patch_size: expected at most image_size [4 4], found [8 8]"},
		{"dinov2", `{"patch_size": 1025}`, "patch_size: expected 1 to 1024, found 1025"},
		{"dinov2", `{"num_channels": 0}`, "num_channels: expected 1 to 16, found 0"},
		{"dinov2", `{"hidden_size": 9}`, "hidden_size: expected a multiple of num_attention_heads = 2, found 9"},
		{"dinov2", `{"mlp_ratio": 0.5}`, "mlp_ratio: expected 1 to 64, found 0"},
		{"dinov2", `{"mlp_ratio": -1}`, "mlp_ratio: expected 1 to 64, found -1"},
		{"dinov2", `{"mlp_ratio": 1e300}`, "mlp_ratio: expected 1 to 64, found 65536"},
		{"dinov2", `{"hidden_size": 16384, "mlp_ratio": 64}`, "mlp_ratio: expected 1 to 65536, found 1048576"},
		{"dinov2", `{"layer_norm_eps": -1}`, "layer_norm_eps: expected 0 to 1, found -1"},
		{"dinov2", `{"hidden_act": "x"}`, "hidden_act: expected one of gelu, "},
		{"dinov2", `{"use_swiglu_ffn": "yes"}`, `use_swiglu_ffn: expected true or false, found "yes"`},
	} {
		t.Run(fmt.Sprintf("%s %.60s", c.name, c.changes), func(t *testing.T) {
			_, err := parse(tinyOf(t, c.name, c.changes))
			expectError(t, err, "config.json: "+c.err)
		})
	}
	_, err := parse([]byte(`{"model_type": "roberta", "pad_token_id": null}`))
	expectError(t, err, "config.json: pad_token_id: expected an integer, found null")
}

// What says the usual in so many words is no different from what leaves it out.
func TestUsualFields(t *testing.T) {
	const encoder = `{"position_embedding_type": "absolute", "is_decoder": false, "add_cross_attention": false, ` +
		`"embedding_size": 8}`
	for name, changes := range map[string]string{
		"bert": encoder, "roberta": encoder, "xlm-roberta": encoder, "distilbert": encoder,
		"deberta-v2": `{"pooler_hidden_size": 8, "attention_head_size": 4, "conv_kernel_size": 0, "conv_groups": 2}`,
		"modernbert": `{"local_attention": 8, "sliding_window": 4}`,
	} {
		mustParse(t, tinyOf(t, name, changes))
	}
	mustParse(t, []byte(`{"model_type": "bert", "pad_token_id": null, "is_decoder": null, "embedding_size": null}`))
}

// transformers takes DistilBERT's sizes by the names that other configs have for them, too.
func TestOtherNamesOfDistilBERTsSizes(t *testing.T) {
	for changes, want := range map[string][3]int{
		`{}`: {8, 2, 2},
		`{"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}`:       {8, 2, 2},
		`{"dim": null, "hidden_size": 12}`:                                           {12, 2, 2},
		`{"n_layers": null, "num_hidden_layers": 3}`:                                 {8, 3, 2},
		`{"n_heads": null, "num_attention_heads": 4}`:                                {8, 2, 4},
		`{"dim": null, "n_heads": null, "hidden_size": 9, "num_attention_heads": 3}`: {9, 2, 3},
	} {
		c := mustParse(t, tinyOf(t, "distilbert", changes)).Config.(*arch.DistilBERT)
		if found := [3]int{c.Dim, c.NumLayers, c.NumHeads}; found != want {
			t.Errorf("%s: expected %v, found %v", changes, want, found)
		}
	}
}
