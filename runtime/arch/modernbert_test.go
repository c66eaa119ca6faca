package arch_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// Both generations of transformers say which layers see all tokens.
func TestLayersOfModernBERT(t *testing.T) {
	for changes, global := range map[string][]bool{
		`{}`:                                {true, false, false, true},
		`{"global_attn_every_n_layers": 1}`: {true, true, true, true},
		`{"global_attn_every_n_layers": 2}`: {true, false, true, false},
		`{"global_attn_every_n_layers": 2, "num_hidden_layers": 2,
			"layer_types": ["sliding_attention", "full_attention"]}`: {false, true},
	} {
		c := mustParse(t, tinyOf(t, "modernbert", changes)).Config.(*arch.ModernBERT)
		var found []bool
		for layer := range c.NumHiddenLayers {
			found = append(found, c.IsGlobal(layer))
		}
		if !slices.Equal(found, global) {
			t.Errorf("%s: expected %v, found %v", changes, global, found)
		}
	}
	for changes, window := range map[string]int{
		`{}`: 64, `{"local_attention": 9}`: 4, `{"local_attention": 8, "sliding_window": 4}`: 4,
	} {
		if c := mustParse(t, tinyOf(t, "modernbert", changes)).Config.(*arch.ModernBERT); c.Window() != window {
			t.Errorf("%s: expected a window of %d, found %d", changes, window, c.Window())
		}
	}
}

func TestRoPE(t *testing.T) {
	attention := 1.25
	yarn := func(change func(y *arch.YaRN)) *arch.YaRN {
		y := &arch.YaRN{Factor: 4, BetaFast: 32, BetaSlow: 1, OriginalTokens: 16}
		change(y)
		return y
	}
	same := func(*arch.YaRN) {}
	for _, c := range []struct {
		changes       string
		global, local arch.RoPE
	}{
		{`{}`, arch.RoPE{Theta: 160_000}, arch.RoPE{Theta: 10_000}},
		// transformers 4
		{`{"global_rope_theta": 500, "local_rope_theta": 20.5}`, arch.RoPE{Theta: 500}, arch.RoPE{Theta: 20.5}},
		{`{"global_rope_theta": 500}`, arch.RoPE{Theta: 500}, arch.RoPE{Theta: 10_000}},
		{
			`{"rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 16}}`,
			arch.RoPE{Theta: 160_000, YaRN: yarn(same)},
			arch.RoPE{Theta: 10_000, YaRN: yarn(same)},
		},
		{
			`{"rope_scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 16, "rope_theta": 7}}`,
			arch.RoPE{Theta: 7, YaRN: yarn(same)},
			arch.RoPE{Theta: 7, YaRN: yarn(same)},
		},
		{`{"rope_scaling": {"type": "default"}}`, arch.RoPE{Theta: 160_000}, arch.RoPE{Theta: 10_000}},
		// transformers 5
		{`{"rope_parameters": {}}`, arch.RoPE{Theta: 160_000}, arch.RoPE{Theta: 10_000}},
		{
			`{"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 500.0},
				"sliding_attention": null}}`,
			arch.RoPE{Theta: 500},
			arch.RoPE{Theta: 10_000},
		},
		{
			`{"global_rope_theta": 5, "local_rope_theta": 6, "rope_parameters": {"full_attention": {"rope_theta": 7}}}`,
			arch.RoPE{Theta: 7},
			arch.RoPE{Theta: 6},
		},
		{
			`{"max_position_embeddings": 64, "rope_parameters": {
				"full_attention": {"rope_type": "yarn", "original_max_position_embeddings": 16, "truncate": true},
				"sliding_attention": {"rope_type": "default", "type": "yarn", "partial_rotary_factor": 1.0}}}`,
			arch.RoPE{Theta: 160_000, YaRN: yarn(same)}, // the factor is 64 / 16
			arch.RoPE{Theta: 10_000},
		},
		{
			`{"max_position_embeddings": 64, "rope_parameters": {
				"full_attention": {"rope_type": "yarn", "factor": 2.5, "attention_factor": 1.25, "beta_fast": 8,
					"beta_slow": 0.5, "mscale": 0.7, "mscale_all_dim": 0.3},
				"sliding_attention": {"rope_type": "yarn", "factor": 1, "beta_fast": 0, "beta_slow": null, "mscale": 0}}}`,
			arch.RoPE{Theta: 160_000, YaRN: &arch.YaRN{
				Factor: 2.5, AttentionFactor: &attention, BetaFast: 8, BetaSlow: 0.5, MScale: 0.7, MScaleAllDim: 0.3,
				OriginalTokens: 64,
			}},
			arch.RoPE{Theta: 10_000, YaRN: yarn(func(y *arch.YaRN) { y.Factor, y.OriginalTokens = 1, 64 })},
		},
	} {
		found := mustParse(t, tinyOf(t, "modernbert", c.changes)).Config.(*arch.ModernBERT)
		if !reflect.DeepEqual(found.Global, c.global) || !reflect.DeepEqual(found.Local, c.local) {
			t.Errorf("%s: expected %+v, %+v, found %+v, %+v", c.changes, c.global, c.local, found.Global, found.Local)
		}
	}
	// null is not the same as nothing: transformers 4 takes the other layers' then.
	c := mustParse(t, []byte(`{"model_type": "modernbert", "global_rope_theta": 500, "local_rope_theta": null}`))
	if local := c.Config.(*arch.ModernBERT).Local; local.Theta != 500 {
		t.Errorf("local_rope_theta null: expected the global one, found %v", local.Theta)
	}
}

func TestRoPERefused(t *testing.T) {
	const full, sliding = "rope_parameters: full_attention: ", "rope_parameters: sliding_attention: "
	of := func(fields string) string {
		return `{"rope_parameters": {"full_attention": {"rope_type": "yarn", ` + fields + `}}}`
	}
	for _, c := range []struct{ changes, err string }{
		{`{"global_rope_theta": 1}`, full + "rope_theta: expected more than 1, found 1"},
		{`{"local_rope_theta": 1e12}`, sliding + "rope_theta: expected more than 1, found 1e+12"},
		{`{"global_rope_theta": "a"}`, `global_rope_theta: expected a number, found "a"`},
		{`{"rope_scaling": {}, "rope_parameters": {}}`, "rope_scaling: expected none beside rope_parameters, found both"},
		{
			`{"rope_scaling": {"rope_type": "linear", "factor": 2}}`,
			full + `rope_type: expected default or yarn, found "linear"`,
		},
		{
			`{"rope_parameters": {"sliding_attention": {"rope_type": "dynamic"}}}`,
			sliding + `rope_type: expected default or yarn, found "dynamic"`,
		},
		{
			`{"rope_parameters": {"full_attention": {"rope_theta": "a"}}}`,
			`rope_parameters.full_attention.rope_theta: expected a number, found {"full_attention":{"rope_theta":"a"}}`,
		},
		{`{"rope_parameters": 5}`, "rope_parameters: expected an object, found 5"},
		{
			`{"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}}`,
			full + "partial_rotary_factor: expected 1, found 0.5",
		},
		{of(`"truncate": false`), full + "truncate: expected true, found false"},
		{of(`"factor": 0.5`), full + "factor: expected at least 1, found 0.5"},
		{of(`"factor": 1e6`), full + "factor: expected at least 1, found 1e+06"},
		{
			of(`"original_max_position_embeddings": 0`),
			full + "original_max_position_embeddings: expected 1 to 65536, found 0",
		},
		{of(`"original_max_position_embeddings": 24`), full + "factor: expected at least 1, found 0.5"},
		{of(`"attention_factor": 0`), full + "attention_factor: expected positive, found 0"},
		{of(`"beta_fast": -1`), full + "beta_fast: expected positive, found -1"},
		{of(`"beta_slow": -2`), full + "beta_slow: expected positive, found -2"},
		{of(`"mscale": -3`), full + "mscale: expected positive, found -3"},
		{of(`"mscale_all_dim": -4`), full + "mscale_all_dim: expected positive, found -4"},
	} {
		_, err := parse(tinyOf(t, "modernbert", c.changes))
		expectError(t, err, "config.json: "+c.err)
	}
	_, err := parse([]byte(`{"model_type": "modernbert", "global_rope_theta": null}`))
	expectError(t, err, "config.json: "+full+"rope_theta: expected a number, found null")
}
