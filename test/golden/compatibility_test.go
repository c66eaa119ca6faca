package golden

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

var update = flag.Bool("update", false, "write docs/compatibility.md anew")

// page is the table of what the golden cases show, between two lines of docs/compatibility.md.
const page = "../../docs/compatibility.md"

// column is an architecture, by its config's model_type.
type column struct{ name, modelType string }

var columns = []column{
	{"ViT", "vit"},
	{"DeiT", "deit"},
	{"DINOv2", "dinov2"},
	{"BERT", "bert"},
	{"RoBERTa", "roberta"},
	{"XLM-R", "xlm-roberta"},
	{"DistilBERT", "distilbert"},
	{"DeBERTa v2, v3", "deberta-v2"},
	{"ModernBERT, mmBERT", "modernbert"},
}

// features are what an adapter may have, by its config and the names in its weights.
var features = []struct {
	name string
	has  func(c adapterConfig, keys []string, base *arch.Description) bool
}{
	{"LoRA on linear layers", func(_ adapterConfig, keys []string, _ *arch.Description) bool {
		return contains(keys, ".lora_A.weight")
	}},
	{"… on the patch projection (Conv2d)", func(_ adapterConfig, keys []string, _ *arch.Description) bool {
		return contains(keys, "projection.lora_A.weight")
	}},
	{"… on embeddings", func(_ adapterConfig, keys []string, _ *arch.Description) bool {
		return contains(keys, ".lora_embedding_A")
	}},
	{"… on the head itself", func(_ adapterConfig, keys []string, base *arch.Description) bool {
		return slices.ContainsFunc(base.Heads, func(h arch.Head) bool {
			return slices.ContainsFunc(h.Modules, func(path string) bool { return contains(keys, "model."+path+".lora_A") })
		})
	}},
	{"ranks, alphas by pattern", func(c adapterConfig, _ []string, _ *arch.Description) bool {
		return len(c.RankPattern)+len(c.AlphaPattern) > 0
	}},
	{"rsLoRA", func(c adapterConfig, _ []string, _ *arch.Description) bool { return c.RsLoRA }},
	{"DoRA", func(c adapterConfig, _ []string, _ *arch.Description) bool { return c.DoRA }},
	{"lora_bias", func(c adapterConfig, _ []string, _ *arch.Description) bool { return c.LoRABias }},
	{"bias: all", func(c adapterConfig, keys []string, _ *arch.Description) bool {
		return c.Bias == "all" && trainsBiases(keys)
	}},
	{"bias: lora_only", func(c adapterConfig, keys []string, _ *arch.Description) bool {
		return c.Bias == "lora_only" && trainsBiases(keys)
	}},
	{"modules_to_save beyond the classifier", func(_ adapterConfig, keys []string, _ *arch.Description) bool {
		return slices.ContainsFunc(keys, func(key string) bool {
			return strings.HasSuffix(key, "weight") && !strings.Contains(key, "lora_") && !strings.Contains(key, "classifier")
		})
	}},
	{"trainable_token_indices", func(_ adapterConfig, keys []string, _ *arch.Description) bool {
		return contains(keys, ".token_adapter.")
	}},
	{"target_modules as a regular expression", func(c adapterConfig, _ []string, _ *arch.Description) bool {
		return bytes.HasPrefix(c.Targets, []byte(`"`)) // PEFT writes the names in place of all-linear
	}},
	{"all-linear, with excluded modules", func(c adapterConfig, _ []string, _ *arch.Description) bool {
		return len(c.Exclude) > len("null")
	}},
	{"layers_to_transform", func(c adapterConfig, _ []string, _ *arch.Description) bool { return len(c.Layers) > 0 }},
	{"no head of its own: the base's answers", func(_ adapterConfig, keys []string, _ *arch.Description) bool {
		return !contains(keys, "classifier.weight") && !contains(keys, "out_proj.weight")
	}},
	{"a head for each token (TOKEN_CLS)", func(c adapterConfig, _ []string, _ *arch.Description) bool {
		return c.Task == "TOKEN_CLS"
	}},
	{"one number (regression)", func(c adapterConfig, _ []string, _ *arch.Description) bool {
		return c.problem == "regression"
	}},
	{"several labels at once (multi-label)", func(c adapterConfig, _ []string, _ *arch.Description) bool {
		return c.problem == "multi_label_classification"
	}},
	{"names of transformers 4", func(_ adapterConfig, keys []string, base *arch.Description) bool {
		return base.Image != nil && (contains(keys, "attention.attention.") || contains(keys, "attention.output.") ||
			contains(keys, "intermediate.dense") || contains(keys, "weights_"))
	}},
	{"weights in F16 or BF16", func(c adapterConfig, _ []string, _ *arch.Description) bool { return c.half }},
}

type adapterConfig struct {
	RankPattern  map[string]any  `json:"rank_pattern"`
	AlphaPattern map[string]any  `json:"alpha_pattern"`
	RsLoRA       bool            `json:"use_rslora"`
	DoRA         bool            `json:"use_dora"`
	LoRABias     bool            `json:"lora_bias"`
	Bias         string          `json:"bias"`
	Targets      json.RawMessage `json:"target_modules"`
	Exclude      json.RawMessage `json:"exclude_modules"`
	Layers       []int           `json:"layers_to_transform"`
	Task         string          `json:"task_type"`
	half         bool
	problem      string // of the config.json beside it
}

// trainsBiases tells whether there are biases beyond a classifier's, which is saved whole anyway, and lora_bias's: a
// base may have none, and then a way to train them trains nothing.
func trainsBiases(keys []string) bool {
	return slices.ContainsFunc(keys, func(key string) bool {
		return strings.HasSuffix(key, ".bias") && !strings.Contains(key, "classifier") && !strings.Contains(key, ".lora_B.")
	})
}

func contains(keys []string, part string) bool {
	return slices.ContainsFunc(keys, func(key string) bool { return strings.Contains(key, part) })
}

// The table says of how many cases each feature is held to PEFT's numbers, by TestEachAdapterAloneAgreesWithPEFT and
// TestOneMixedBatchOfAllAgreesWithPEFT, which fail if one of them is not met.
func TestTheTableOfCompatibilityIsWhatTheCasesShow(t *testing.T) {
	counts := map[string]map[string]int{}
	for _, path := range folders(t, testdata, "variants", "entities") {
		s := openSuite(t, path, 1)
		base := s.engine.Description()
		for _, name := range s.names {
			if name == baseCase {
				continue
			}
			c, keys := readCase(t, filepath.Join(path, "adapters", name))
			for _, f := range features {
				if !f.has(c, keys, base) {
					continue
				}
				if counts[f.name] == nil {
					counts[f.name] = map[string]int{}
				}
				counts[f.name][base.ModelType]++
			}
		}
	}
	for _, modelType := range arch.ModelTypes() {
		if !slices.ContainsFunc(columns, func(c column) bool { return c.modelType == modelType }) {
			t.Errorf("expected a column for %s", modelType)
		}
	}
	before, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	line := "- `model_type`: " + strings.Join(arch.ModelTypes(), ", ") + ".\n"
	if !bytes.Contains(before, []byte(line)) {
		t.Errorf("%s: expected the line %q", page, line)
	}
	const begin, end = "<!-- table -->\n", "<!-- end of the table -->\n"
	head, rest, found := bytes.Cut(before, []byte(begin))
	_, tail, closed := bytes.Cut(rest, []byte(end))
	if !found || !closed {
		t.Fatalf("%s: expected the lines %q and %q", page, begin, end)
	}
	after := slices.Concat(head, []byte(begin), table(counts), []byte(end), tail)
	if *update {
		if err := os.WriteFile(page, after, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(before, after) {
		t.Errorf("%s is not what the cases show: go test ./test/golden -run Compatibility -update", page)
	}
}

func readCase(t *testing.T, folder string) (c adapterConfig, keys []string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(folder, "adapter_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	tensors := readTensors(t, filepath.Join(folder, "adapter_model.safetensors"))
	keys = tensors.Names()
	info, _ := tensors.Info(keys[0])
	c.half = info.DType != "F32"
	switch raw, err := os.ReadFile(filepath.Join(folder, "config.json")); {
	case err == nil:
		var beside struct {
			Problem string `json:"problem_type"`
		}
		if err := json.Unmarshal(raw, &beside); err != nil {
			t.Fatal(err)
		}
		c.problem = beside.Problem
	case !errors.Is(err, fs.ErrNotExist):
		t.Fatal(err)
	}
	return c, keys
}

func table(counts map[string]map[string]int) []byte {
	var b bytes.Buffer
	b.WriteString("| |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, f := range features {
		fmt.Fprintf(&b, "| %s |", f.name)
		for _, c := range columns {
			if n := counts[f.name][c.modelType]; n > 0 {
				fmt.Fprintf(&b, " %d |", n)
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteString("\n")
	}
	return b.Bytes()
}
