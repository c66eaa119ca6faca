package peft_test

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// What PEFT writes when nobody asks for anything special is accepted, from the first versions to the last.
func TestConfigsOfAllVersions(t *testing.T) {
	for version, config := range map[string]string{
		"0.2": `{"base_model_name_or_path": "b", "bias": "none", "enable_lora": null, "fan_in_fan_out": false,
			"inference_mode": true, "lora_alpha": 8, "lora_dropout": 0.1, "merge_weights": false,
			"modules_to_save": ["classifier"], "peft_type": "LORA", "r": 4, "target_modules": ["query", "value"],
			"task_type": null}`,
		"0.10": `{"alpha_pattern": {}, "auto_mapping": {"base_model_class": "ViTForImageClassification",
			"parent_library": "transformers.models.vit.modeling_vit"}, "base_model_name_or_path": "b", "bias": "none",
			"fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true, "layer_replication": null,
			"layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 8,
			"lora_dropout": 0.1, "megatron_config": null, "megatron_core": "megatron.core",
			"modules_to_save": ["classifier"], "peft_type": "LORA", "r": 4, "rank_pattern": {}, "revision": null,
			"target_modules": ["query", "value"], "task_type": null, "use_dora": false, "use_rslora": false}`,
		"0.17": `{"alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": "b", "bias": "none",
			"corda_config": null, "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false,
			"inference_mode": true, "init_lora_weights": true, "layer_replication": null, "layers_pattern": null,
			"layers_to_transform": null, "loftq_config": {}, "lora_alpha": 8, "lora_bias": false, "lora_dropout": 0.1,
			"megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": ["classifier", "score"],
			"peft_type": "LORA", "qalora_group_size": 16, "r": 4, "rank_pattern": {}, "revision": null,
			"target_modules": ["query", "value"], "target_parameters": null, "task_type": "SEQ_CLS",
			"trainable_token_indices": null, "use_dora": false, "use_qalora": false, "use_rslora": false}`,
		"0.21": string(headed(t).Config()),
		"none": `{"peft_type": "LORA", "r": 4, "modules_to_save": ["classifier"]}`,
	} {
		a, err := load(t, headed(t).File("adapter_config.json", []byte(config)))
		if err != nil {
			t.Errorf("PEFT %s: %v", version, err)
			continue
		}
		if len(a.Updates) != 1 || len(a.Saved) != 1 || a.Updates[0].Scale != 2 {
			t.Errorf("PEFT %s: expected an update by 2 and a head, found %+v and %+v", version, a.Updates, a.Saved)
		}
	}
}

// Fields that change no number may say what they like: the adapter is the same, tensor by tensor.
func TestHarmlessFields(t *testing.T) {
	plain := mustLoad(t, headed(t))
	for field, values := range map[string][]string{
		"init_lora_weights":   {`true`, `false`, `null`, `"gaussian"`, `"Gaussian"`, `"eva"`, `"orthogonal"`, `"mica"`},
		"target_modules":      {`null`, `[]`, `"all-linear"`, `".*q_proj"`, `["query"]`},
		"exclude_modules":     {`"x"`, `["key"]`},
		"layers_to_transform": {`[0, 1]`, `3`},
		"layers_pattern":      {`"layers"`, `["layer"]`},
		"fan_in_fan_out":      {`true`, `false`, `null`},
		"lora_dropout":        {`0.5`},
		"inference_mode":      {`false`},
		"revision":            {`"main"`},
		"peft_version":        {`"0.99.0.dev0@abc"`},
		"auto_mapping":        {`null`, `{}`, `{"a": "b"}`, `{"base_model_class": null}`, `{"base_model_class": "Mine"}`},
		"megatron_core":       {`null`, `"x"`},
		"qalora_group_size":   {`32`},
		"corda_config":        {`{"corda_method": "kpm"}`},
		"eva_config":          {`{"rho": 2.0}`},
		"lora_ga_config":      {`{"direction": "ArB2r"}`},
		"runtime_config":      {`{"ephemeral_gpu_offload": false}`},
		"bias":                {`"none"`, `null`},
		"task_type":           {`null`, `"SEQ_CLS"`},
		"use_rslora":          {`null`},
		"megatron_config":     {`{}`},
		"loftq_config":        {`{ }`, `null`},
		"use_bdlora":          {`false`},
		"of_the_future":       {`null`, `false`, `[]`, `[ ]`, `{}`, `""`},
	} {
		for _, value := range values {
			a, err := load(t, headed(t).Set(field, raw(value)))
			if err != nil {
				t.Errorf("%s = %s: %v", field, value, err)
				continue
			}
			if what := differs(a, plain); what != "" {
				t.Errorf("%s = %s: expected the same %s as without it", field, value, what)
			}
		}
	}
}

// differs names what two adapters do not have in common, beside their revisions.
func differs(a, b *peft.Adapter) string {
	same := func(a, b *tensor.Dense) bool {
		if a == nil || b == nil {
			return a == b
		}
		return slices.Equal(a.Shape(), b.Shape()) && reflect.DeepEqual(a.Data(), b.Data())
	}
	if a.Head != b.Head || !slices.Equal(a.Labels, b.Labels) || a.Problem != b.Problem {
		return "head"
	}
	if !slices.EqualFunc(a.Updates, b.Updates, func(x, y peft.Update) bool {
		return x.Module == y.Module && x.Scale == y.Scale && same(x.A, y.A) && same(x.B, y.B) && same(x.Bias, y.Bias) &&
			same(x.Magnitude, y.Magnitude)
	}) {
		return "updates"
	}
	if !slices.EqualFunc(a.Saved, b.Saved, func(x, y peft.Saved) bool {
		return x.Module == y.Module && maps.EqualFunc(x.Params, y.Params, same)
	}) {
		return "saved modules"
	}
	if !reflect.DeepEqual(a.Rows, b.Rows) {
		return "rows"
	}
	return ""
}

func TestFieldsRefused(t *testing.T) {
	long := strings.Repeat("x", 257)
	for _, c := range []struct{ field, value, err string }{
		{"peft_type", `"LOHA"`, `peft_type: expected "LORA", found "LOHA"`},
		{"peft_type", `null`, `peft_type: expected "LORA", found null`},
		{
			"task_type", `"TOKEN_CLS"`,
			`task_type: expected null or "SEQ_CLS" for a base of the type vit, found "TOKEN_CLS"`,
		},
		{"task_type", `"FEATURE_EXTRACTION"`, `found "FEATURE_EXTRACTION"`},
		{"task_type", `3`, `task_type: expected null or "SEQ_CLS"`},
		{"auto_mapping", `"ViT"`, `auto_mapping: expected null, or an object with the base_model_class, found "ViT"`},
		{"auto_mapping", `{"base_model_class": 3}`, `an object with the base_model_class, found {"base_model_class":3}`},

		{"r", `"8"`, `r: expected an integer from 1 to 16384, found "8"`},
		{"r", `8.5`, `r: expected an integer from 1 to 16384, found 8.5`},
		{"r", `8.0`, `r: expected an integer from 1 to 16384, found 8.0`},
		{"r", `0`, `r: expected an integer from 1 to 16384, found 0`},
		{"r", `-1`, `r: expected an integer from 1 to 16384, found -1`},
		{"r", `16385`, `r: expected an integer from 1 to 16384, found 16385`},
		{"r", `99999999999999999999`, `r: expected an integer from 1 to 16384, found 99999999999999999999`},
		{"r", `null`, `r: expected an integer from 1 to 16384, found null`},
		{"r", `true`, `r: expected an integer from 1 to 16384, found true`},
		{"lora_alpha", `"16"`, `lora_alpha: expected a finite number, found "16"`},
		{"lora_alpha", `null`, `lora_alpha: expected a finite number, found null`},
		{"lora_alpha", `1e999`, `lora_alpha: expected a finite number, found 1e999`},
		{"lora_alpha", `[1]`, `lora_alpha: expected a finite number, found [1]`},
		{"lora_alpha", `1e300`, `lora_alpha: expected a scaling that float32 can hold, found 1e+300 over rank 4`},
		{"use_rslora", `1`, `use_rslora: expected true or false, found 1`},
		{"bias", `"some"`, `bias: expected "none", "all" or "lora_only", found "some"`},
		{"bias", `true`, `bias: expected "none", "all" or "lora_only", found true`},

		{"rank_pattern", `[]`, `rank_pattern: expected an object of patterns, found []`},
		{"rank_pattern", `{"q": 0}`, `rank_pattern "q": expected an integer from 1 to 16384, found 0`},
		{"rank_pattern", `{"q": 1.5}`, `rank_pattern "q": expected an integer from 1 to 16384, found 1.5`},
		{"rank_pattern", `{"q": null}`, `rank_pattern "q": expected an integer from 1 to 16384, found null`},
		{"rank_pattern", `{"q": -2, "q": 2}`, `rank_pattern "q": expected an integer`},
		{"alpha_pattern", `{"q": "1"}`, `alpha_pattern "q": expected a finite number, found "1"`},
		{"alpha_pattern", `{"q": null}`, `alpha_pattern "q": expected a finite number, found null`},
		{"alpha_pattern", `"q"`, `alpha_pattern: expected an object of patterns, found "q"`},
		{"rank_pattern", `{"(?=q)": 2}`, `rank_pattern "(?=q)": uses Python syntax that is not supported: `},
		{"rank_pattern", `{"(?<!q)x": 2}`, `uses Python syntax that is not supported: (?<`},
		{"rank_pattern", `{"(a)\\2": 2}`, `uses Python syntax that is not supported: \2`},
		{"rank_pattern", `{"(?P<n>a)(?P=n)": 2}`, `uses Python syntax that is not supported: `},
		{"rank_pattern", `{"(?i)q": 2}`, `uses Python syntax that is not supported: (?i)`},
		{"rank_pattern", `{"[[:alpha:]]": 2}`, `uses Python syntax that is not supported: [:`},
		{"rank_pattern", `{"a{,3}": 2}`, `uses Python syntax that is not supported: {,`},
		{"rank_pattern", `{"a*+": 2}`, `uses Python syntax that is not supported: `},
		{"rank_pattern", `{"a))|((b": 2}`, `uses Python syntax that is not supported: `},
		{"rank_pattern", `{"(": 2}`, `uses Python syntax that is not supported: `},
		{"rank_pattern", `{"` + long + `": 2}`, `expected at most 256 bytes, found 257`},
		{"rank_pattern", many(4097, `"p%d": 2`), `rank_pattern: expected at most 4096 patterns, found more`},
		{
			"rank_pattern", many(9, `"p%d{999}": 2`),
			`expected regular expressions of at most 2048 instructions in all, found more`,
		},
		{
			"alpha_pattern", `{"((x{9}){9}){9}(x{999}y){1}(x{999}){1}((x{999})){1}x{999}x{999}x{999}x{999}x{999}": 2}`,
			`expected regular expressions of at most 2048 instructions in all, found more`,
		},

		{"modules_to_save", `"classifier"`, `modules_to_save: expected null or a list of module names, found "classifier"`},
		{"modules_to_save", `[1]`, `modules_to_save: expected null or a list of module names, found [1]`},
		{"modules_to_save", `[null]`, `modules_to_save: expected null or a list of module names, found [null]`},
		{"modules_to_save", `[""]`, `modules_to_save: expected null or a list of module names, found [""]`},
		{
			"modules_to_save", `["x"` + strings.Repeat(`,"x"`, 1024) + `]`,
			`modules_to_save: expected at most 1024 names, found 1025`,
		},

		{
			"init_lora_weights", `"pissa"`,
			`init_lora_weights: expected true, false, eva, gaussian, mica, orthogonal, found "pissa"`,
		},
		{"init_lora_weights", `"pissa_niter_16"`, `found "pissa_niter_16": other starts change the base's own weights`},
		{"init_lora_weights", `"olora"`, `found "olora"`},
		{"init_lora_weights", `"loftq"`, `found "loftq"`},
		{"init_lora_weights", `"corda"`, `found "corda"`},
		{"init_lora_weights", `"lora_ga"`, `found "lora_ga"`},
		{"init_lora_weights", `1`, `init_lora_weights: expected true, false or a name, found 1`},

		{"use_dora", `"yes"`, `use_dora: expected true or false, found "yes"`},
		{"lora_bias", `1`, `lora_bias: expected true or false, found 1`},
		{
			"trainable_token_indices", `[1, 2]`,
			`trainable_token_indices: the base ViTForImageClassification has no embedding of tokens`,
		},
		{"trainable_token_indices", `{"e": [1]}`, `trainable_token_indices: "e": the file has no rows for it`},
		{"trainable_token_indices", `{"e": []}`, `trainable_token_indices: "e": expected 1 to 1048576 ids, found 0`},
		{
			"trainable_token_indices", `{"e": [1, 1]}`,
			`trainable_token_indices: "e": expected every id once, found one twice`,
		},
		{
			"trainable_token_indices", `"e"`,
			`trainable_token_indices: expected null, a list of ids, or an object of such lists by module, found "e"`,
		},
		{"trainable_token_indices", `[1.5]`, `trainable_token_indices: expected null, a list of ids, or an object of`},
		{
			"trainable_token_indices", `{"e": [3, null]}`,
			`trainable_token_indices: expected null, a list of ids, or an object of such lists by module, found {"e":[3,null]}`,
		},
		{
			"trainable_token_indices", `{"e": [null]}`,
			`an object of such lists by module, found {"e":[null]}`,
		},
		{"trainable_token_indices", `{"e": 1}`, `trainable_token_indices: expected null, a list of ids, or an object of`},
		{"trainable_token_indices", `{"e": null}`, `trainable_token_indices: "e": expected 1 to 1048576 ids, found 0`},
		{"trainable_token_indices", `{"": [1]}`, `trainable_token_indices: "": expected 1 to 1048576 ids, found 1`},
		{"layer_replication", `[[0, 4]]`, `layer_replication: replicated layers cannot share a base, found [[0,4]]`},
		{"target_parameters", `["w"]`, `target_parameters: updates of bare parameters are not supported, found ["w"]`},
		{"loftq_config", `{"loftq_bits": 4}`, `loftq_config: LoftQ changes the base's own weights`},
		{"use_qalora", `true`, `use_qalora: QA-LoRA is not supported, found true`},
		{"use_bdlora", `{"nblocks": 2}`, `use_bdlora: BD-LoRA is not supported, found {"nblocks":2}`},
		{"use_bdlora", `{}`, `use_bdlora: BD-LoRA is not supported, found {}`},
		{"alora_invocation_tokens", `[5]`, `alora_invocation_tokens: activated LoRA is not supported, found [5]`},
		{"alora_invocation_tokens", `[]`, `alora_invocation_tokens: activated LoRA is not supported, found []`},
		{"arrow_config", `{}`, `arrow_config: Arrow routing is not supported, found {}`},
		{"monteclora_config", `{}`, `monteclora_config: MonteCLoRA is not supported, found {}`},
		{"arrow_config", `{"top_k": 3}`, `arrow_config: Arrow routing is not supported`},
		{"kasa_config", `{}`, `kasa_config: KaSA is not supported, found {}`},
		{"monteclora_config", `{"num_samples": 8}`, `monteclora_config: MonteCLoRA is not supported`},
		{"velora_config", `{}`, `velora_config: VeLoRA is not supported`},
		{"megatron_config", `{"a": 1}`, `megatron_config: Megatron layers are not supported`},
		{"ensure_weight_tying", `true`, `ensure_weight_tying: tied adapters are not supported, found true`},

		{"R", `8`, `"R": unknown field: expected null, false or empty, found 8`},
		{"of_the_future", `0`, `"of_the_future": unknown field: expected null, false or empty, found 0`},
		{"of_the_future", `{"a": null}`, `"of_the_future": unknown field: expected null, false or empty, found {"a":null}`},
		{"of_the_future", `"` + strings.Repeat("é", 150) + `"`, `found "` + strings.Repeat("é", 99) + `…`},
		{"of\nthe_future", `true`, `"of\nthe_future": unknown field`},
		{long, `"` + long + `"`, strings.Repeat("x", 200) + `…": unknown field: expected null, false or empty, found "` +
			strings.Repeat("x", 199) + `…`},
	} {
		t.Run(fmt.Sprintf("%.30s=%.30s", c.field, c.value), func(t *testing.T) {
			_, err := load(t, headed(t).Set(c.field, raw(c.value)))
			expectError(t, err, c.err)
			expectError(t, err, "adapter_config.json: ")
		})
	}
}

func many(n int, entry string) string {
	entries := make([]string, n)
	for i := range entries {
		entries[i] = fmt.Sprintf(entry, i)
	}
	return "{" + strings.Join(entries, ",") + "}"
}

func TestConfigsRefused(t *testing.T) {
	for _, c := range []struct{ name, config, err string }{
		{"no type", `{"r": 8}`, `adapter_config.json: peft_type: expected "LORA", found nothing`},
		{
			"another type, whatever its fields", `{"a_field": 1, "peft_type": "VERA"}`,
			`peft_type: expected "LORA", found "VERA"`,
		},
		{"null", `null`, "adapter_config.json: expected a JSON object, found null"},
		{"a list", `[]`, "adapter_config.json: expected a JSON object: "},
		{"empty", ``, "adapter_config.json: expected a JSON object: "},
		{"two objects", `{"peft_type": "LORA"} {}`, "adapter_config.json: expected a JSON object: "},
		{"NaN", `{"peft_type": "LORA", "lora_alpha": NaN}`, "adapter_config.json: expected a JSON object: "},
		{"Infinity", `{"peft_type": "LORA", "lora_alpha": Infinity}`, "adapter_config.json: expected a JSON object: "},
		{"not UTF-8", "{\"peft_type\": \"LORA\xff\"}", "adapter_config.json: expected UTF-8"},
		{"deep", strings.Repeat("[", 1<<15), "adapter_config.json: expected a JSON object: "},
		{"the last value of a field counts", `{"peft_type": "LORA", "r": 4, "r": 0}`, "r: expected an integer"},
		{
			"several faults", `{"use_dora": true, "peft_type": "LORA", "arrow_config": {"a": 1}}`,
			"adapter_config.json: arrow_config: ",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, wrappers.Adapter(t).File("adapter_config.json", []byte(c.config)))
			expectError(t, err, c.err)
		})
	}
}

// Whoever is refused finds the field in the docs.
func TestRefusedFieldsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| refused | why |")
	for _, field := range peft.RefusedFields() {
		if !strings.Contains(table, field) {
			t.Errorf("docs/compatibility.md: expected %s in the table of what is refused", field)
		}
	}
}
