package model_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// configs has one small config of each architecture.
var configs = map[string]string{
	"vit": `{"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
		"intermediate_size": 16, "image_size": [8, 12], "patch_size": 4, "num_labels": 3}`,
}

// tensors are zeros for every parameter that the config's description lists.
func tensors(t *testing.T, config string) []wrappers.Tensor {
	t.Helper()
	d, err := arch.Parse([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	var all []wrappers.Tensor
	for _, m := range d.Modules {
		for _, p := range m.Params {
			n := 1
			for _, dim := range p.Shape {
				n *= dim
			}
			all = append(all, wrappers.F32(m.Path+"."+p.Name, make([]float32, n), p.Shape...))
		}
	}
	return all
}

func open(t *testing.T, config string, safetensors []byte) (*model.Base, error) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"config.json": []byte(config), "model.safetensors": safetensors} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := weights.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	return model.Open(folder)
}

// What arch says of an architecture without arithmetic is what its forward pass asks for: adapters are checked against
// the one and run by the other.
func TestDescriptionAndModelAgree(t *testing.T) {
	for name, config := range configs {
		base, err := open(t, config, wrappers.Safetensors(tensors(t, config)...))
		if err != nil {
			t.Fatalf("%s: the model asks for what arch does not list: %v", name, err)
		}
		if len(base.Unused) > 0 {
			t.Errorf("%s: arch lists what the model does not ask for: %v", name, base.Unused)
		}
		var listed []string
		for _, m := range base.Description.Modules {
			listed = append(listed, m.Path)
		}
		slices.Sort(listed)
		if got := slices.Sorted(slices.Values(base.Layers.Paths())); !slices.Equal(got, listed) {
			t.Errorf("%s: modules: arch lists %v, the model has %v", name, listed, got)
		}
	}
}

func TestBasesThatDoNotFit(t *testing.T) {
	config := configs["vit"]
	all := tensors(t, config)
	without := func(name string) []wrappers.Tensor {
		return slices.DeleteFunc(slices.Clone(all), func(tensor wrappers.Tensor) bool { return tensor.Name == name })
	}
	const query = "vit.encoder.layer.1.attention.attention.query.weight"
	for _, c := range []struct {
		name, config string
		safetensors  []byte
		want         string
	}{
		{"missing", config, wrappers.Safetensors(without(query)...), `model.safetensors: tensor "` + query + `"`},
		{
			"another shape", config,
			wrappers.Safetensors(append(without(query), wrappers.F32(query, make([]float32, 32), 8, 4))...),
			`tensor "` + query + `": shape: expected [8, 8], found [8, 4]`,
		},
		{
			"another type", config,
			wrappers.Safetensors(append(without(query), wrappers.Tensor{
				Name: query, DType: "F16", Shape: []int{8, 8}, Data: make([]byte, 128),
			})...),
			`tensor "` + query + `": dtype: expected F32, found F16`,
		},
		{"cut off", config, wrappers.Safetensors(all...)[:2000], "model.safetensors: "},
		{"unknown architecture", `{"model_type": "t5"}`, nil, `config.json: model_type: expected one of vit, found "t5"`},
	} {
		_, err := open(t, c.config, c.safetensors)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: expected %q, found %v", c.name, c.want, err)
		}
	}
}

func TestTensorsNobodyAsksForAreNamed(t *testing.T) {
	config := configs["vit"]
	pooler := wrappers.F32("vit.pooler.dense.bias", make([]float32, 8), 8)
	base, err := open(t, config, wrappers.Safetensors(append(tensors(t, config), pooler)...))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(base.Unused, []string{"vit.pooler.dense.bias"}) {
		t.Errorf("expected the pooler's bias, found %v", base.Unused)
	}
}

func TestTheDigestIsOfWhatChangesAnswers(t *testing.T) {
	config := configs["vit"]
	all := tensors(t, config)
	digest := func(config string, tensors []wrappers.Tensor) string {
		base, err := open(t, config, wrappers.Safetensors(tensors...))
		if err != nil {
			t.Fatal(err)
		}
		return base.Digest
	}
	same := digest(config, all)
	var fields map[string]any
	if err := json.Unmarshal([]byte(config), &fields); err != nil {
		t.Fatal(err)
	}
	fields["layer_norm_eps"] = 1e-6
	otherConfig, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	other := slices.Clone(all)
	other[0] = wrappers.F32(other[0].Name, slices.Repeat([]float32{1}, len(other[0].Data)/4), other[0].Shape...)
	if digest(config, all) != same || digest(string(otherConfig), all) == same || digest(config, other) == same {
		t.Error("expected the same digest for the same files, and another for others")
	}
}
