package engine_test

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/engine"
)

// models are configs of every architecture, at a width that is put in, and at four times that.
var models = map[string]string{
	"vit": `{"model_type": "vit", "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": 2,
		"num_attention_heads": 2, "image_size": 32, "patch_size": 8, "num_labels": 4}`,
	"deit": `{"model_type": "deit", "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": 2,
		"num_attention_heads": 2, "image_size": 32, "patch_size": 8, "num_labels": 4}`,
	"dinov2": `{"model_type": "dinov2", "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": 2,
		"num_attention_heads": 2, "image_size": 32, "patch_size": 8, "num_labels": 4}`,
	"dinov2 with a gate": `{"model_type": "dinov2", "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": 2,
		"num_attention_heads": 2, "image_size": 32, "patch_size": 8, "num_labels": 4, "use_swiglu_ffn": true}`,
	"bert": `{"model_type": "bert", "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": 2,
		"num_attention_heads": 2, "vocab_size": 100, "max_position_embeddings": 80, "num_labels": 4}`,
	"roberta": `{"model_type": "roberta", "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": 2,
		"num_attention_heads": 2, "vocab_size": 100, "max_position_embeddings": 80, "num_labels": 4}`,
	"xlm-roberta": `{"model_type": "xlm-roberta", "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": 2,
		"num_attention_heads": 2, "vocab_size": 100, "max_position_embeddings": 80, "num_labels": 4}`,
	"distilbert": `{"model_type": "distilbert", "dim": %d, "hidden_dim": %d, "n_layers": 2, "n_heads": 2,
		"vocab_size": 100, "max_position_embeddings": 80, "num_labels": 4}`,
	"deberta": `{"model_type": "deberta-v2", "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": 2,
		"num_attention_heads": 2, "vocab_size": 100, "max_position_embeddings": 80, "num_labels": 4,
		"relative_attention": true, "pos_att_type": ["p2c", "c2p"], "share_att_key": true, "position_buckets": 16,
		"type_vocab_size": 2, "norm_rel_ebd": "layer_norm", "conv_kernel_size": 3}`,
	"modernbert": `{"model_type": "modernbert", "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": 2,
		"num_attention_heads": 2, "vocab_size": 100, "max_position_embeddings": 80, "num_labels": 4}`,
}

// What a batch leaves to the garbage collector, once there was one like it, depends on its rows and tokens and not on
// how large the model is: what it computes with lies in the engine's arena.
func TestGarbageDoesNotGrowWithTheModel(t *testing.T) {
	const narrow, wide = 32, 128
	const noise = 256 // bytes of a batch: a map whose hashes collide is larger
	for name, config := range models {
		small, large := garbage(t, fmt.Sprintf(config, narrow, 2*narrow)), garbage(t, fmt.Sprintf(config, wide, 2*wide))
		t.Logf("%s: %d bytes a batch, and %d where the model is %d times as wide", name, small, large, wide/narrow)
		if large > small+noise {
			t.Errorf("%s: expected %d bytes a batch whatever the width, found %d", name, small, large)
		}
	}
}

// garbage is how many bytes of the heap a batch of a base of that config takes: the least of several, since others may
// allocate meanwhile.
func garbage(t *testing.T, config string) int64 {
	t.Helper()
	base := open(t, config)
	defer base.Close()
	e := engine.New(base, 1) // one worker, which has all its buffers after the first batch
	defer e.Close()
	adapter := lowRank(t, e, 4)
	defer adapter.Free()
	batch := engine.Batch{Rows: []engine.Row{{Input: 0}, {Input: 1, Adapter: adapter}, {Input: 2, Adapter: adapter}}}
	for i := range len(batch.Rows) {
		in := engine.Input{IDs: slices.Repeat([]int32{int32(i + 1)}, 70)}
		if image := base.Description.Image; image != nil {
			in = engine.Input{Pixels: pixels(float32(i), image.Channels, image.Height, image.Width)}
			if patch := image.Patch; patch != [2]int{} { // of another size than those that it was trained on
				in.Pixels = pixels(float32(i), image.Channels, image.Height+patch[0], image.Width)
			}
		}
		batch.Inputs = append(batch.Inputs, in)
	}
	least := int64(math.MaxInt64)
	for range 8 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		run(t, e, batch)
		runtime.ReadMemStats(&after)
		least = min(least, int64(after.TotalAlloc-before.TotalAlloc))
	}
	return least
}
