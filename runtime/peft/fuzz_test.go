package peft_test

import (
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/peft"
)

// Whatever a config says, it is refused with a short error or gives an adapter that fits the base.
func FuzzConfig(f *testing.F) {
	base, model := tinyViT(f), headed(f).Model()
	// A base of texts has rows of embeddings and a choice of heads, too.
	bert, rows := describe(f, tinyBERT), bare(f).Set("task_type", "TOKEN_CLS").
		Set("trainable_token_indices", raw(`{"token_type_embeddings": [1]}`)).Saved("classifier", 3, 8).
		Zip("bert.embeddings.token_type_embeddings.token_adapter.trainable_tokens_delta", 1, 8)
	f.Add(headed(f).Config())
	f.Add(rows.Config())
	f.Fuzz(func(t *testing.T, config []byte) {
		if a, err := peft.Parse(config, rows.Model(), nil, bert); err == nil && (len(a.Saved) != 1 || len(a.Labels) != 3) {
			t.Fatalf("expected all that the model file holds, found %+v", a)
		} else if err != nil && (a != nil || len(err.Error()) > 2000) {
			t.Fatalf("expected no adapter and a short error, found %v and %d bytes", a, len(err.Error()))
		}
		a, err := peft.Parse(config, model, nil, base)
		if err != nil {
			// Errors of encoding/json repeat a character, all others what is cut to 200 bytes, quoted at most fourfold.
			if a != nil || len(err.Error()) > 2000 {
				t.Fatalf("expected no adapter and a short error, found %v and %d bytes", a, len(err.Error()))
			}
			return
		}
		if len(a.Updates) != 1 || len(a.Saved) != 1 || len(a.Labels) != 5 || a.MaxRank != 4 {
			t.Fatalf("expected all that the model file holds, found %+v", a)
		}
		if s := float64(a.Updates[0].Scale); math.IsNaN(s) || math.IsInf(s, 0) {
			t.Fatalf("expected a finite scale, found %g", s)
		}
		again, err := peft.Parse(config, model, nil, base)
		if err != nil || !reflect.DeepEqual(a.Updates[0].Scale, again.Updates[0].Scale) || a.Digest != again.Digest {
			t.Fatalf("expected the same again, found %+v, %v", again, err)
		}
	})
}

// Whatever a weights file holds, what is accepted fits the base.
func FuzzModel(f *testing.F) {
	type pair struct {
		base   *arch.Description
		config []byte
	}
	vit, bert, dinov2 := tinyViT(f), describe(f, tinyBERT), describe(f, tinyDINOv2)
	everything := bare(f).Set("use_dora", true).Set("bias", "all").Set("task_type", "TOKEN_CLS").
		Set("trainable_token_indices", raw(`{"token_type_embeddings": [1]}`))
	pairs := []pair{
		{vit, headed(f).Set("modules_to_save", []string{"classifier", "embeddings", "layernorm"}).
			Set("rank_pattern", raw(`{"layers.1.*": 2}`)).Config()},
		{vit, headed(f).Config()},
		{bert, everything.Config()},
		{dinov2, bare(f).Set("lora_bias", true).Set("bias", "lora_only").Config()},
	}
	f.Add(headed(f).Model())
	f.Add(bare(f).Saved("classifier", 2, 8).Rank(2).Update("vit.layers.1.mlp.fc1", 16, 8).Model())
	f.Add(bare(f).Update(query4, 8, 8).Model())
	f.Add(everything.Update(self, 8, 8).Zip(self+".lora_magnitude_vector", 8).Zip(self+".bias", 8).
		UpdateEmbedding(words, 10, 8).Zip(words+".lora_magnitude_vector", 8).
		Zip("bert.embeddings.token_type_embeddings.token_adapter.trainable_tokens_delta", 1, 8).
		Saved("classifier", 5, 8).Zip("classifier.original_module.bias", 3).Model())
	f.Add(bare(f).Update(mlp+"weights_in", 48, 12).Zip(mlp+"weights_in.lora_B.bias", 48).Zip(mlp+"weights_in.bias", 48).
		UpdateConv("dinov2.embeddings.patch_embeddings.projection", 12, 3, 4, 4).
		Zip("dinov2.embeddings.patch_embeddings.projection.lora_B.bias", 12).Model())
	f.Fuzz(func(t *testing.T, model []byte) {
		for _, p := range pairs {
			a, err := peft.Parse(p.config, model, nil, p.base)
			if err != nil {
				continue
			}
			// Values of 16 bits take twice the memory; what two modules share is there twice.
			if bytes := a.Bytes(p.base); bytes > 4*int64(len(model)) {
				t.Fatalf("expected at most four times the file's %d bytes, found %d", len(model), bytes)
			}
			for _, u := range a.Updates {
				if !fits(p.base, u) {
					t.Fatalf("update of %s: %v, %v, %v, %v", u.Module, u.A.Shape(), u.B.Shape(), u.Bias, u.Magnitude)
				}
			}
			for _, s := range a.Saved {
				m := p.base.Lookup(s.Module)[0]
				trained := len(s.Params) == 1 && s.Params["bias"] != nil
				if m.Path != s.Module || len(s.Params) != len(m.Params) && !trained {
					t.Fatalf("saved %s: %v", s.Module, s.Params)
				}
			}
			for _, r := range a.Rows {
				shape := p.base.Lookup(r.Module)[0].Params[0].Shape
				if !slices.Equal(r.Values.Shape(), []int{len(r.IDs), shape[1]}) || slices.Max(r.IDs) >= shape[0] {
					t.Fatalf("rows of %s: %v, %v", r.Module, r.IDs, r.Values.Shape())
				}
			}
		}
	})
}

// fits tells whether an update has the inputs and outputs of its module.
func fits(base *arch.Description, u peft.Update) bool {
	m := base.Lookup(u.Module)[0]
	weight := m.Params[0].Shape
	out, in := weight[0], weight[1:]
	if m.Kind == arch.Embedding {
		out, in = weight[1], weight[:1]
	}
	return m.Path == u.Module && u.A.Shape()[0] == u.B.Shape()[1] && u.B.Shape()[0] == out &&
		slices.Equal(u.A.Shape()[1:], in) &&
		(u.Bias == nil || slices.Equal(u.Bias.Shape(), []int{out})) &&
		(u.Magnitude == nil || u.Magnitude.Shape().TotalSize() == out)
}
