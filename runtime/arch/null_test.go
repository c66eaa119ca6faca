package arch_test

import (
	"encoding/json"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// Null where a number belongs would be 0, which some fields may be: an epsilon, a number of types.
func TestNullIsNoNumber(t *testing.T) {
	for name, fields := range map[string]map[string]string{
		"vit": {
			"hidden_size": "an integer", "num_channels": "an integer", "layer_norm_eps": "a number",
			"image_size": "a number or [height, width]", "patch_size": "a number or [height, width]",
		},
		"dinov2":     {"mlp_ratio": "a number", "layer_norm_eps": "a number"},
		"bert":       {"type_vocab_size": "an integer", "layer_norm_eps": "a number"},
		"roberta":    {"max_position_embeddings": "an integer", "layer_norm_eps": "a number"},
		"distilbert": {"n_layers": "an integer"},
		"deberta-v2": {
			"type_vocab_size": "an integer", "max_relative_positions": "an integer", "position_buckets": "an integer",
			"conv_kernel_size": "an integer", "conv_groups": "an integer", "layer_norm_eps": "a number",
		},
		"modernbert": {"norm_eps": "a number", "local_attention": "an integer", "global_attn_every_n_layers": "an integer"},
	} {
		for field, expected := range fields {
			_, err := parse(with(t, name, field, `null`))
			expectError(t, err, "config.json: "+field+": expected "+expected+", found null")
		}
	}
	for _, side := range []string{`[null, 8]`, `[8, null]`, `[null]`} {
		_, err := parse(with(t, "vit", "image_size", side))
		expectError(t, err, "config.json: image_size: expected a number or [height, width], found [")
	}
	// What may be null is as good as absent.
	for name, fields := range map[string][]string{
		"bert":       {"num_labels", "id2label", "pad_token_id"},
		"deberta-v2": {"attention_head_size", "pos_att_type"},
		"modernbert": {"local_rope_theta", "rope_scaling", "layer_types"},
	} {
		for _, field := range fields {
			mustParse(t, with(t, name, field, `null`))
		}
	}
	if _, err := arch.ParseClasses([]byte(`{"num_labels": null, "id2label": null}`)); err != nil {
		t.Error(err)
	}
}

// with is a small config of that architecture with one field as it is written here.
func with(t *testing.T, name, field, value string) []byte {
	t.Helper()
	var config map[string]json.RawMessage
	if err := json.Unmarshal([]byte(tinies[name]), &config); err != nil {
		t.Fatal(err)
	}
	config[field] = json.RawMessage(value)
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
