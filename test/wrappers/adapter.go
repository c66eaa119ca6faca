package wrappers

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// peftConfig is what PEFT 0.21 writes as adapter_config.json for image classification, with its defaults.
const peftConfig = `{
  "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null,
  "auto_mapping": {
    "base_model_class": "ViTForImageClassification", "parent_library": "transformers.models.vit.modeling_vit"
  },
  "base_model_name_or_path": "google/vit-base-patch16-224-in21k", "bias": "none", "corda_config": null,
  "ensure_weight_tying": false, "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false,
  "inference_mode": true, "init_lora_weights": true, "kasa_config": null, "layer_replication": null,
  "layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 8, "lora_bias": false,
  "lora_dropout": 0.1, "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core",
  "modules_to_save": ["classifier"], "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2",
  "qalora_group_size": 16, "r": 8, "rank_pattern": {}, "revision": null, "target_modules": ["q_proj", "v_proj"],
  "target_parameters": null, "task_type": null, "trainable_token_indices": null, "use_bdlora": null,
  "use_dora": false, "use_qalora": false, "use_rslora": false, "velora_config": null
}`

// AdapterFolder is a PEFT adapter in the making. Nothing is checked, so that tests can build wrong ones.
type AdapterFolder struct {
	t       testing.TB
	config  map[string]json.RawMessage
	rank    int
	tensors []Tensor
	files   map[string][]byte
}

// Adapter begins an adapter with the config that PEFT writes by default, rank 8 and no tensors.
func Adapter(t testing.TB) *AdapterFolder {
	a := &AdapterFolder{t: t, rank: 8, files: map[string][]byte{}}
	if err := json.Unmarshal([]byte(peftConfig), &a.config); err != nil {
		t.Fatal(err)
	}
	return a
}

// Rank is the rank of the config, and of the updates that follow.
func (a *AdapterFolder) Rank(r int) *AdapterFolder {
	a.rank = r
	return a.Set("r", r)
}

// Set sets a field of the config. A json.RawMessage keeps the order of its keys.
func (a *AdapterFolder) Set(field string, value any) *AdapterFolder {
	a.config[field] = appendJSON(nil, value)
	return a
}

// Unset takes a field out of the config.
func (a *AdapterFolder) Unset(field string) *AdapterFolder {
	delete(a.config, field)
	return a
}

// Update adds both halves of an update of the Linear [out, in] at path.
func (a *AdapterFolder) Update(path string, out, in int) *AdapterFolder {
	return a.Zip(path+".lora_A.weight", a.rank, in).Zip(path+".lora_B.weight", out, a.rank)
}

// UpdateConv adds both halves of an update of the Conv2d at path, whose weight is [out, channels, height, width].
func (a *AdapterFolder) UpdateConv(path string, out, channels, height, width int) *AdapterFolder {
	return a.Zip(path+".lora_A.weight", a.rank, channels, height, width).Zip(path+".lora_B.weight", out, a.rank, 1, 1)
}

// UpdateEmbedding adds both halves of an update of the Embedding [num, dim] at path.
func (a *AdapterFolder) UpdateEmbedding(path string, num, dim int) *AdapterFolder {
	return a.Zip(path+".lora_embedding_A", a.rank, num).Zip(path+".lora_embedding_B", dim, a.rank)
}

// Saved adds the whole weight and bias of a Linear [out, in].
func (a *AdapterFolder) Saved(path string, out, in int) *AdapterFolder {
	return a.Zip(path+".weight", out, in).Zip(path+".bias", out)
}

// Zip adds a tensor of small values, different from element to element, under PEFT's prefix. As those of training they
// are no numbers of bfloat16.
func (a *AdapterFolder) Zip(name string, shape ...int) *AdapterFolder {
	n := 1
	for _, dim := range shape {
		n *= dim
	}
	values := make([]float32, n)
	for i := range values {
		values[i] = float32((i+len(name))%13-6) / 60
	}
	return a.Tensor(F32("base_model.model."+name, values, shape...))
}

// BFloat16 has the tensors so far kept as bfloat16, of their values what it has of them.
func (a *AdapterFolder) BFloat16() *AdapterFolder {
	for i, t := range a.tensors {
		a.tensors[i] = t.bfloat16()
	}
	return a
}

// Tensor adds a tensor as it is.
func (a *AdapterFolder) Tensor(t Tensor) *AdapterFolder {
	a.tensors = append(a.tensors, t)
	return a
}

// File adds a file, or puts other content in place of one of the adapter's own; nil leaves that out.
func (a *AdapterFolder) File(name string, data []byte) *AdapterFolder {
	a.files[name] = data
	return a
}

// Config is adapter_config.json as it will be written.
func (a *AdapterFolder) Config() []byte { return appendJSON(nil, a.config) }

// Model is adapter_model.safetensors as it will be written.
func (a *AdapterFolder) Model() []byte { return Safetensors(a.tensors...) }

// Write writes the adapter into a new temporary folder and returns its path.
func (a *AdapterFolder) Write() string {
	dir := a.t.TempDir()
	files := map[string][]byte{"adapter_config.json": a.Config(), "adapter_model.safetensors": a.Model()}
	for name, data := range a.files {
		files[name] = data
	}
	for name, data := range files {
		if data == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return dir
}

// Noise is the folder of an adapter whose weights are so many bytes that are like no other's, and mean nothing.
func Noise(t testing.TB, size int) string {
	t.Helper()
	dir, data := t.TempDir(), make([]byte, size)
	_, _ = rand.Read(data) // never fails
	for name, data := range map[string][]byte{"adapter_config.json": []byte("{}"), "adapter_model.safetensors": data} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Poison makes the adapter in a folder one that kills the process that loads it, and returns the folder. It takes a
// runtime that was built with -tags failpoints; to the manager, and to a runtime that is shipped, it is as good as
// before.
func Poison(t testing.TB, dir string) string {
	t.Helper()
	path, config := filepath.Join(dir, "config.json"), map[string]any{}
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &config)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	config["switchyard_failpoint"] = "kill"
	if err := os.WriteFile(path, appendJSON(nil, config), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
