package artifact_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// What is accepted here is what a runtime opens, and takes what is said of it: of the parameters those that there are.
func TestInspectBase(t *testing.T) {
	const dinov2 = `{
		"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "use_swiglu_ffn": true,
		"image_size": 8, "patch_size": 4
	}`
	half := wrappers.Tensor{Name: "classifier.bias", DType: "F16", Shape: []int{2}, Data: make([]byte, 4)}
	for name, c := range map[string]struct {
		dir  string
		own  int
		size int64 // 0: that of a base with all that it may have
	}{
		"images":                    {digitsBase(), 0, 0},
		"texts":                     {wrappers.Base(t, tinyText).Write(), 0, 0},
		"in files of several":       {wrappers.Base(t, tinyText).Sharded(3).Write(), 0, 0},
		"joined modules":            {wrappers.Base(t, dinov2).Write(), 0, 0},
		"half precision":            {wrappers.Base(t, tinyConfig).Tensor(half).Write(), 0, 0},
		"no head, which is no lack": {wrappers.Base(t, tinyConfig).Without("classifier").Write(), -1, 4 * tinyTrunk},
	} {
		base, err := artifact.InspectBase(openFolder(t, c.dir))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		opened, err := model.Open(openFolder(t, c.dir), arch.Float32)
		if err != nil {
			t.Fatal(err)
		}
		d := opened.Description
		if base.Architecture != d.Architecture || !slices.Equal(base.Classes.Labels, d.Classes.Labels) ||
			base.Own != d.Own || base.Own != c.own {
			t.Errorf("%s: expected %s with the labels %v and the head %d, found %s, %v, %d", name,
				d.Architecture, d.Classes.Labels, c.own, base.Architecture, base.Classes.Labels, base.Own)
		}
		want := c.size
		if want == 0 {
			want = parameterBytes(base.Description)
		}
		if size := base.Bytes(arch.Float32); size != want {
			t.Errorf("%s: size: expected %d, found %d", name, want, size)
		}
	}
}

func parameterBytes(base *arch.Description) (size int64) {
	for _, m := range base.Modules {
		for _, p := range m.Params {
			n := int64(4)
			for _, dim := range p.Shape {
				n *= int64(dim)
			}
			size += n
		}
	}
	return size
}

func TestInspectAdapter(t *testing.T) {
	folder, base := openFolder(t, parity()), artifact.BaseModel{Description: description(t)}
	info, err := artifact.InspectAdapter(folder, base, peft.Settings{ClassNames: []string{"gerade", "ungerade"}})
	if err != nil {
		t.Fatal(err)
	}
	p := pack(t, artifact.Adapter, parity(), peft.Settings{ClassNames: []string{"gerade", "ungerade"}})
	if info.Digest != p.Digest || info.NumLabels != 2 || info.Rank < 1 || info.Bytes < 1 {
		t.Errorf("expected %s with 2 labels, found %+v", p.Digest, info)
	}
	_, err = artifact.InspectAdapter(folder, base, peft.Settings{ClassNames: []string{"one"}})
	if err == nil || !strings.Contains(err.Error(), "classNames: expected 2, ") {
		t.Errorf("expected the wrong number of class names refused, found %v", err)
	}
	other := wrappers.Adapter(t).Update("vit.layers.0.attention.q_proj", 7, 7).Saved("classifier", 2, 7).Write()
	var misfit *peft.MisfitError
	if _, err := artifact.InspectAdapter(openFolder(t, other), base, peft.Settings{}); !errors.As(err, &misfit) {
		t.Errorf("expected a MisfitError, found %v", err)
	}
}

const (
	tinyConfig = `{
		"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
		"image_size": 4, "patch_size": 2
	}`
	// tinyTrunk are its parameters without the head: the embeddings, the layer, and the last norm.
	tinyTrunk = (8 + 5*8 + 8*3*2*2 + 8) + (4*(8*8+8) + 16*8 + 16 + 8*16 + 8 + 4*8) + 2*8
	// tinyText is a base of texts.
	tinyText = `{
		"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 30, "hidden_size": 8,
		"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 16
	}`
)

func TestBasesRefused(t *testing.T) {
	const name = "classifier.bias"
	replaced := func(with wrappers.Tensor) *wrappers.BaseFolder { return wrappers.Base(t, tinyConfig).Tensor(with) }
	sharded := func() *wrappers.BaseFolder { return wrappers.Base(t, tinyConfig).Sharded(2) }
	for _, c := range []struct {
		name string
		base *wrappers.BaseFolder
		text string
	}{
		{
			"a missing tensor", wrappers.Base(t, tinyConfig).Without("vit.layernorm.bias"),
			`its weights: missing: "vit.layernorm.bias"`,
		},
		{
			"another shape", replaced(wrappers.F32(name, make([]float32, 3), 3)),
			`model.safetensors: tensor "classifier.bias": shape: expected [2], found [3]`,
		},
		{
			"another dtype", replaced(wrappers.Tensor{Name: name, DType: "F64", Shape: []int{2}, Data: make([]byte, 16)}),
			`tensor "classifier.bias": dtype: expected F32, F16 or BF16, found F64`,
		},
		{
			"a NaN", replaced(wrappers.F32(name, []float32{0, float32(math.NaN())}, 2)),
			`tensor "classifier.bias": expected finite values, found NaN`,
		},
		{
			"many faults", wrappers.Base(t, tinyConfig).Tensor(wrappers.F32(name, nil, 0)).
				Tensor(wrappers.F32("classifier.weight", []float32{1}, 1)).
				Tensor(wrappers.F32("vit.layernorm.weight", []float32{1}, 1)).
				Tensor(wrappers.F32("vit.layernorm.bias", []float32{1}, 1)).
				Tensor(wrappers.F32("vit.embeddings.cls_token", []float32{1}, 1)),
			"; and 2 more",
		},
		{
			"a processor of nobody",
			wrappers.Base(t, tinyConfig).File("preprocessor_config.json", []byte(`{"image_processor_type": "X"}`)),
			`preprocessor_config.json: image_processor_type: expected one of ViTImageProcessor, `,
		},
		{
			"a tokenizer that disagrees with its config",
			wrappers.Base(t, tinyText).File("tokenizer.json", readText(t, "wordpiece", "tokenizer.json")).
				File("tokenizer_config.json", []byte(`{"do_lower_case": false}`)),
			`tokenizer_config.json: do_lower_case: expected true, as tokenizer.json has it, found false`,
		},
		{
			"a token that its tokenizer lacks",
			wrappers.Base(t, tinyText).File("tokenizer.json", readText(t, "wordpiece", "tokenizer.json")).
				File("added_tokens.json", []byte(`{"[E1]": 600}`)),
			`added_tokens.json: "[E1]": expected a token that tokenizer.json has in added_tokens, found one of the id 600`,
		},
		{"nothing of it", wrappers.Base(t, tinyConfig).Without("vit", "classifier"), ` and `},
		{
			"a pickle", wrappers.Base(t, tinyConfig).File("model.safetensors", nil).File("pytorch_model.bin", []byte{}),
			"pytorch_model.bin: expected model.safetensors, found a pickle",
		},
		{
			"an architecture of nobody", wrappers.Base(t, tinyConfig).File("config.json", []byte(`{"model_type": "gpt2"}`)),
			`config.json: model_type: expected one of bert, `,
		},
		{
			"a shard that is not there", sharded().File("model-00002-of-00002.safetensors", nil),
			`file "model-00002-of-00002.safetensors": no such file`,
		},
		{
			"an index that leads elsewhere",
			sharded().File("model.safetensors.index.json", []byte(`{"weight_map": {"x": "../model.safetensors"}}`)),
			`model.safetensors.index.json: weight_map: expected names as model-00001-of-00002.safetensors, ` +
				`found "../model.safetensors"`,
		},
		{
			"an index of nothing", sharded().File("model.safetensors.index.json", []byte(`{}`)),
			"model.safetensors.index.json: weight_map: expected the file of each tensor, found none",
		},
		{
			"a fault in a shard", sharded().Tensor(wrappers.F32(name, make([]float32, 3), 3)),
			`model.safetensors.index.json: tensor "classifier.bias": shape: expected [2], found [3]`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := artifact.InspectBase(openFolder(t, c.base.Write()))
			if err == nil || !strings.Contains(err.Error(), c.text) || len(err.Error()) > 1000 {
				t.Errorf("expected %q within, found %v", c.text, err)
			}
		})
	}
	if _, err := artifact.InspectBase(openFolder(t, digits.Adapters(sample)+"/parity")); err == nil {
		t.Error("expected an adapter refused as a base")
	}
}
