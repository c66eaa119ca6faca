package model_test

import (
	"fmt"
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

// configs has small configs of every architecture, among them each shape that a model of it can have.
var configs = map[string]string{
	"vit": `{"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
		"intermediate_size": 16, "image_size": [8, 12], "patch_size": 4, "num_labels": 3}`,
	"vit without biases": `{"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
		"intermediate_size": 16, "image_size": 8, "patch_size": [4, 2], "num_channels": 1, "qkv_bias": false}`,
	"deit": `{"model_type": "deit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
		"intermediate_size": 16, "image_size": 8, "patch_size": 4}`,
	"dinov2": `{"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
		"image_size": 8, "patch_size": 4, "use_mask_token": false}`,
	"dinov2 with a SwiGLU": `{"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
		"image_size": 8, "patch_size": 4, "use_swiglu_ffn": true, "qkv_bias": false}`,
	"bert": `{"model_type": "bert", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
		"intermediate_size": 16, "max_position_embeddings": 6}`,
	"roberta": `{"model_type": "roberta", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 8, "num_labels": 3}`,
	"xlm-roberta": `{"model_type": "xlm-roberta", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 8}`,
	"distilbert": `{"model_type": "distilbert", "vocab_size": 10, "dim": 8, "n_layers": 1, "n_heads": 2,
		"hidden_dim": 16, "max_position_embeddings": 6}`,
	"deberta v3": `{"model_type": "deberta-v2", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 2,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6, "relative_attention": true,
		"position_buckets": 4, "norm_rel_ebd": "layer_norm", "share_att_key": true, "pos_att_type": ["c2p", "p2c"],
		"position_biased_input": false}`,
	"deberta v2": `{"model_type": "deberta-v2", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 2,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6, "relative_attention": true,
		"pos_att_type": "c2p|p2c", "type_vocab_size": 2, "conv_kernel_size": 3}`,
	"deberta of one term": `{"model_type": "deberta-v2", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6, "relative_attention": true,
		"pos_att_type": "c2p"}`,
	"deberta of the other": `{"model_type": "deberta-v2", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6, "relative_attention": true,
		"pos_att_type": "p2c"}`,
	"deberta of absolute positions": `{"model_type": "deberta-v2", "vocab_size": 10, "hidden_size": 8,
		"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6}`,
	"modernbert": `{"model_type": "modernbert", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 2,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6}`,
	"modernbert with biases": `{"model_type": "modernbert", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 2,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6, "norm_bias": true,
		"attention_bias": true, "mlp_bias": true, "classifier_bias": true}`,
}

func open(t *testing.T, base *wrappers.BaseFolder) (*model.Base, error) {
	t.Helper()
	folder, err := weights.OpenFolder(base.Write())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	return model.Open(folder, arch.Float32)
}

func mustOpen(t *testing.T, base *wrappers.BaseFolder) *model.Base {
	t.Helper()
	opened, err := open(t, base)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// A type of weights that nobody knows is refused, and not taken for another.
func TestAnUnknownDTypeIsRefused(t *testing.T) {
	folder, err := weights.OpenFolder(wrappers.Base(t, configs["bert"]).Write())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	const want = `dtype: expected float32 or bfloat16, found "bf16"`
	if _, err := model.Open(folder, "bf16"); err == nil || err.Error() != want {
		t.Errorf("expected %q, found %v", want, err)
	}
}

// What arch says of an architecture without arithmetic is what its forward pass asks for: adapters are checked against
// the one and run by the other. It is so whatever heads the base has.
func TestDescriptionAndModelAgree(t *testing.T) {
	for name, config := range configs {
		t.Run(name, func(t *testing.T) {
			whole := mustOpen(t, wrappers.Base(t, config))
			expectAgreement(t, whole, 0)
			expectEveryTensorRead(t, wrappers.Base(t, config), whole.Description)

			d := whole.Description
			heads := map[string]bool{}
			for _, h := range d.Heads {
				for _, path := range h.Modules {
					heads[path] = true
				}
			}
			for _, h := range d.Heads {
				others := tensorsOf(d, func(path string) bool { return heads[path] && !slices.Contains(h.Modules, path) })
				base := mustOpen(t, wrappers.Base(t, config).Without(others...))
				if len(base.Description.Lacks(h)) > 0 {
					t.Errorf("%s: expected all of it, found %v lacking", h.Architecture, base.Description.Lacks(h))
				}
				// Of two heads that have all they need the first is the base's, where its config does not say.
				own := slices.IndexFunc(d.Heads, func(h arch.Head) bool { return len(base.Description.Lacks(h)) == 0 })
				expectAgreement(t, base, own)
			}

			prefix, _, _ := strings.Cut(d.Modules[0].Path, ".")
			bare := wrappers.Base(t, config).Without(tensorsOf(d, func(path string) bool { return heads[path] })...).
				Renamed(func(name string) string { return strings.TrimPrefix(name, prefix+".") })
			expectAgreement(t, mustOpen(t, bare), -1)
		})
	}
}

// expectAgreement expects a base of that own head whose layers are the description's modules.
func expectAgreement(t *testing.T, base *model.Base, own int) {
	t.Helper()
	if len(base.Unused) > 0 {
		t.Errorf("expected every tensor used, found %v", base.Unused)
	}
	if base.Description.Own != own {
		t.Errorf("own head: expected %d, found %d", own, base.Description.Own)
	}
	var listed []string
	for _, m := range base.Description.Modules {
		listed = append(listed, m.Path)
	}
	slices.Sort(listed)
	if got := slices.Sorted(slices.Values(base.Layers.Paths())); !slices.Equal(got, listed) {
		t.Errorf("modules: arch lists %v, the model has %v", listed, got)
	}
}

// expectEveryTensorRead expects an error for each parameter that d lists once none has the shape that it has to have.
func expectEveryTensorRead(t *testing.T, base *wrappers.BaseFolder, d *arch.Description) {
	t.Helper()
	for _, name := range base.Names() {
		base.Tensor(wrappers.F32(name, []float32{0}, 1, 1, 1, 1, 1))
	}
	parameters := 0
	for _, m := range d.Modules {
		for _, p := range m.Params {
			if p.Name != "mask_token" { // of use in pre-training only
				parameters++
			}
		}
	}
	_, err := open(t, base)
	want := fmt.Sprintf("\nand %d more tensors", parameters-5) // the first five are named
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("expected all of the %d parameters that arch lists to be read, found %v", parameters, err)
	}
}

// tensorsOf are the names of what belongs to the modules of these paths.
func tensorsOf(d *arch.Description, paths func(path string) bool) []string {
	var names []string
	for _, m := range d.Modules {
		for _, p := range m.Params {
			if paths(m.Path) {
				names = append(names, m.Path+"."+p.Name)
			}
		}
	}
	return names
}

func TestBasesThatDoNotFit(t *testing.T) {
	const (
		query = "vit.encoder.layer.1.attention.attention.query.weight"
		words = "bert.embeddings.word_embeddings.weight"
		fused = "dinov2.encoder.layer.0.mlp.weights_in.weight"
	)
	types := "config.json: model_type: expected one of " + strings.Join(arch.ModelTypes(), ", ") + `, found "t5"`
	base := func(name string) *wrappers.BaseFolder { return wrappers.Base(t, configs[name]) }
	zeros := func(name string, shape ...int) wrappers.Tensor {
		n := 1
		for _, dim := range shape {
			n *= dim
		}
		return wrappers.F32(name, make([]float32, n), shape...)
	}
	renamed := func(name string) string { return strings.Replace(name, "bert.", "roberta.", 1) }
	for _, c := range []struct {
		name string
		base *wrappers.BaseFolder
		want string
	}{
		{"missing", base("vit").Without(query), `its weights: missing: "` + query + `"`},
		{
			"another shape", base("vit").Tensor(zeros(query, 8, 4)),
			`model.safetensors: tensor "` + query + `": shape: expected [8, 8], found [8, 4]`,
		},
		{
			"another type", base("vit").
				Tensor(wrappers.Tensor{Name: query, DType: "I16", Shape: []int{8, 8}, Data: make([]byte, 128)}),
			`model.safetensors: tensor "` + query + `": dtype: expected F32, F16 or BF16, found I16`,
		},
		{
			"another vocabulary", base("bert").Tensor(zeros(words, 11, 8)),
			`model.safetensors: tensor "` + words + `": shape: expected [10, 8], found [11, 8]`,
		},
		{
			"more classes than labels", base("bert").Tensor(zeros("classifier.weight", 3, 8)),
			`model.safetensors: tensor "classifier.weight": shape: expected [2, 8], found [3, 8]`,
		},
		{
			"half of what joins two", base("dinov2 with a SwiGLU").Tensor(zeros(fused, 24, 8)),
			`model.safetensors: tensor "` + fused + `": shape: expected [48, 8], found [24, 8]`,
		},
		{
			"in shards", base("bert").Sharded(2).Tensor(zeros(words, 11, 8)),
			`model.safetensors.index.json: tensor "` + words + `": shape: expected [10, 8], found [11, 8]`,
		},
		{
			"another architecture's weights", base("bert").Renamed(renamed),
			`its weights: missing: "bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight", `,
		},
		{
			"cut off", base("vit").File("model.safetensors", []byte("\xff\x00\x00\x00\x00\x00\x00\x00{")),
			"model.safetensors: header length: expected at most the 1 bytes that follow, found 255",
		},
		{"no weights", base("vit").File("model.safetensors", nil), `file "model.safetensors": no such file or directory`},
		{"no config", base("vit").File("config.json", nil), `file "config.json": no such file or directory`},
		{
			"a pickle", base("vit").File("model.safetensors", nil).File("pytorch_model.bin", []byte("\x80\x02")),
			"pytorch_model.bin: expected model.safetensors, found a pickle",
		},
		{"unknown architecture", base("vit").File("config.json", []byte(`{"model_type": "t5"}`)), types},
		{
			"a config too large", base("vit").File("config.json", make([]byte, 4<<20+1)),
			`file "config.json": expected at most 4194304 bytes, found 4194305`,
		},
		{
			"a preprocessor's too large", base("vit").File("preprocessor_config.json", make([]byte, 4<<20+1)),
			`file "preprocessor_config.json": expected at most 4194304 bytes, found 4194305`,
		},
		{
			"a tokenizer's too large", base("bert").File("tokenizer_config.json", make([]byte, 4<<20+1)),
			`file "tokenizer_config.json": expected at most 4194304 bytes, found 4194305`,
		},
		{
			"added tokens too large", base("bert").File("added_tokens.json", make([]byte, 4<<20+1)),
			`file "added_tokens.json": expected at most 4194304 bytes, found 4194305`,
		},
		{
			"special tokens too large", base("bert").File("special_tokens_map.json", make([]byte, 4<<20+1)),
			`file "special_tokens_map.json": expected at most 4194304 bytes, found 4194305`,
		},
	} {
		_, err := open(t, c.base)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: expected %q, found %v", c.name, c.want, err)
		}
	}
}

// A tokenizer that is a link out of the folder is not read.
func TestNothingOutsideIsRead(t *testing.T) {
	dir := wrappers.Base(t, configs["bert"]).Write()
	outside := wrappers.Base(t, configs["bert"]).File("vocab.txt", []byte("a")).Write()
	if err := os.Symlink(filepath.Join(outside, "vocab.txt"), filepath.Join(dir, "vocab.txt")); err != nil {
		t.Fatal(err)
	}
	folder, err := weights.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	_, err = model.Open(folder, arch.Float32)
	if err == nil || !strings.HasPrefix(err.Error(), `file "vocab.txt": expected a path inside the folder`) {
		t.Errorf("expected vocab.txt to be refused, found %v", err)
	}
}

func TestTensorsNobodyAsksForAreNamed(t *testing.T) {
	base := mustOpen(t, wrappers.Base(t, configs["vit"]).
		Tensor(wrappers.F32("vit.pooler.dense.bias", make([]float32, 8), 8)).
		Tensor(wrappers.Tensor{Name: "a", DType: "I64", Shape: []int{1}, Data: make([]byte, 8)}))
	if !slices.Equal(base.Unused, []string{"a", "vit.pooler.dense.bias"}) {
		t.Errorf("expected the pooler's bias and another, found %v", base.Unused)
	}
}

// Everything but the files that change no answer is part of the digest, and each under its own name.
func TestTheDigestIsOfWhatChangesAnswers(t *testing.T) {
	config := configs["bert"]
	base := func() *wrappers.BaseFolder { return wrappers.Base(t, config) }
	value := wrappers.F32("classifier.bias", []float32{1, 2}, 2)
	digest := mustOpen(t, base()).Digest
	for name, same := range map[string]*wrappers.BaseFolder{
		"the same": base(), "notes": base().File("README.md", []byte("# notes")),
		"a pickle": base().File("pytorch_model.bin", []byte("\x80")),
		"an index": base().File("model.safetensors.index.json", []byte("{}")),
	} {
		if found := mustOpen(t, same).Digest; found != digest {
			t.Errorf("%s: expected %s, found %s", name, digest, found)
		}
	}
	seen := map[string]string{digest: "the base"}
	for name, other := range map[string]*wrappers.BaseFolder{
		"another config":        base().File("config.json", []byte(config+" ")),
		"a value":               base().Tensor(value),
		"no head":               base().Without("classifier"),
		"a preprocessor":        base().File("preprocessor_config.json", []byte("{}")),
		"a tokenizer":           base().File("tokenizer.json", []byte("{}")),
		"a tokenizer's config":  base().File("tokenizer_config.json", []byte("{}")),
		"a vocabulary":          base().File("vocab.txt", []byte("{}")),
		"another vocabulary":    base().File("vocab.txt", []byte("[]")),
		"added tokens":          base().File("added_tokens.json", []byte("{}")),
		"special tokens":        base().File("special_tokens_map.json", []byte("{}")),
		"two shards":            base().Sharded(2),
		"three shards":          base().Sharded(3),
		"a value in two shards": base().Sharded(2).Tensor(value),
	} {
		found := mustOpen(t, other).Digest
		if as, ok := seen[found]; ok {
			t.Errorf("%s: expected a digest of its own, found that of %s", name, as)
		}
		seen[found] = name
	}
}

// A base in shards is the base in one file.
func TestShards(t *testing.T) {
	for _, shards := range []int{1, 2, 5} {
		base := mustOpen(t, wrappers.Base(t, configs["dinov2 with a SwiGLU"]).Sharded(shards))
		expectAgreement(t, base, 0)
	}
}

// The files that say how inputs are made are handed out as they are.
func TestFilesForInputs(t *testing.T) {
	plain := mustOpen(t, wrappers.Base(t, configs["bert"]))
	if plain.Preprocessor != nil || plain.Tokenizer != nil || plain.TokenizerConfig != nil || plain.Vocab != nil ||
		plain.AddedTokens != nil || plain.SpecialTokens != nil {
		t.Errorf("expected none, found %q, %q, %q, %q, %q, %q", plain.Preprocessor, plain.Tokenizer,
			plain.TokenizerConfig, plain.Vocab, plain.AddedTokens, plain.SpecialTokens)
	}
	base := mustOpen(t, wrappers.Base(t, configs["bert"]).
		File("preprocessor_config.json", []byte("1")).File("tokenizer.json", []byte("2")).
		File("tokenizer_config.json", []byte("3")).File("vocab.txt", []byte("4")).
		File("added_tokens.json", []byte("5")).File("special_tokens_map.json", []byte("6")))
	found := string(base.Preprocessor) + string(base.Tokenizer) + string(base.TokenizerConfig) + string(base.Vocab) +
		string(base.AddedTokens) + string(base.SpecialTokens)
	if found != "123456" {
		t.Errorf("expected each file's own content, found %s", found)
	}
}
