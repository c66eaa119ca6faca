package golden

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// PEFT's own cases of batches that mix adapters, by the names of its tests (tests/test_custom_models.py, class
// TestMixedAdapterBatches), on small bases in place of its toy models. What PEFT computes has its numbers here, and
// what it refuses but need not be refused is served, with the numbers of each adapter alone. Its test of time,
// test_mixed_adapter_batches_lora_opt_timing, is hack/bench.
func TestMixedAdapterBatches(t *testing.T) {
	images, texts := openSuite(t, filepath.Join(testdata, "vit"), 2), openSuite(t, filepath.Join(testdata, "bert"), 2)
	for _, c := range []struct {
		name          string
		suite         *suite
		first, second string
	}{
		// One layer, two ranks.
		{"test_mixed_adapter_batches_mlp/images", images, "plain", "big-rank"},
		{"test_mixed_adapter_batches_mlp/texts", texts, "plain", "all-linear"},
		// The attention of all layers, and one layer's MLP.
		{"test_mixed_adapter_batches_different_target_layers", images, "plain", "one-module"},
		{"test_mixed_adapter_batches_partly_overlapping_target_layers/images", images, "plain", "rslora-patterns"},
		{"test_mixed_adapter_batches_partly_overlapping_target_layers/texts", texts, "plain", "one-layer"},
		{"test_mixed_adapter_batches_multiple_modules_to_save", images, "saved-trunk", "one-module"},
		// PEFT's mixed batch knows saved Linears, Embeddings and convolutions: no norms, and no bare parameters.
		{"test_mixed_adapter_batches_unsupported_layer_raises/LayerNorm", images, "saved-norm", "saved-trunk"},
		{"test_mixed_adapter_batches_unsupported_layer_raises/parameters", images, "saved-embeddings", "saved-norm"},
		{"test_mixed_adapter_batches_lora_conv1d_emb", texts, "embedding", "embedding-rank"},
		{"test_mixed_adapter_batches_lora_conv1d_emb_multiple_modules_to_save", texts, "embedding", "saved-embedding"},
		{"test_mixed_adapter_batches_lora_conv2d", images, "conv", "lora-bias"},
		// PEFT cannot mix adapters of torch's MultiheadAttention; attention is of Linears here.
		{"test_mixed_adapter_batches_mha_raises", images, "regex-target", "saved-trunk"},
		{"test_mixed_adapter_batches_lora_with_dora_raises/images", images, "dora", "plain"},
		{"test_mixed_adapter_batches_lora_with_dora_raises/texts", texts, "embedding-dora", "tokens-dora"},
		// Where its saved modules stop, though no test of its says so: heads of two sizes, heads for two tasks, and an
		// adapter that has not saved what the other has.
		{"heads of two sizes", images, "rank-one", "one-layer"},
		{"heads for two tasks", texts, "plain", "tokens"},
		{"a module that one has saved", texts, "saved-pooler", "no-head"},
	} {
		t.Run(c.name, func(t *testing.T) { c.suite.mix(t, c.first, c.second) })
	}
	t.Run("test_mixed_adapter_batches_lora_with_dora_but_dora_not_included_works", func(t *testing.T) {
		if images.adapters["dora"] == nil {
			t.Fatal("expected an adapter with DoRA among those that are loaded")
		}
		images.mix(t, "plain", baseCase)
	})
	t.Run("test_mixed_adapter_batches_training_mode_raises", func(t *testing.T) {
		// There is no such mode, whatever the config of an adapter says of the day it was saved.
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(testdata, "bert", "adapters", "plain"))); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "adapter_config.json")
		config, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		training := strings.Replace(string(config), `"inference_mode": true`, `"inference_mode": false`, 1)
		if training == string(config) {
			t.Fatalf("%s: expected inference_mode true", path)
		}
		if err := os.WriteFile(path, []byte(training), 0o600); err != nil {
			t.Fatal(err)
		}
		texts.adapters["training"] = compile(t, texts.engine, openFolder(t, dir))
		texts.logits["training"] = texts.logits["plain"]
		texts.mix(t, "training", "plain")
	})
	t.Run("test_mixed_adapter_batches_merged_raises", func(t *testing.T) {
		// Nothing is ever merged: the base answers as if it had never met an adapter.
		fresh := openSuite(t, filepath.Join(testdata, "vit"), 2)
		base := []row{{0, baseCase}, {1, baseCase}}
		want := fresh.run(t, base)
		fresh.mix(t, "dora", "bias-all")
		for i, got := range fresh.run(t, base) {
			if !slices.EqualFunc(got, want[i], sameBits) {
				t.Errorf("input %d: expected %v, found %v", i, want[i], got)
			}
		}
	})
}

// mix asks the base and two adapters by turns in one batch, as PEFT's run_checks does, and holds each row to PEFT's
// logits and, to the bit, to what it gets alone.
func (s *suite) mix(t *testing.T, first, second string) {
	t.Helper()
	names := []string{baseCase, first, second}
	var rows []row
	for i := range 9 {
		rows = append(rows, row{i % len(s.inputs), names[i%len(names)]})
	}
	for _, name := range names[1:] {
		if name != baseCase && slices.EqualFunc(s.logits[name], s.logits[baseCase], slices.Equal) {
			t.Fatalf("%s: expected logits other than the base's", name)
		}
	}
	got := s.run(t, rows)
	s.compare(t, rows, got)
	for i, r := range rows {
		if alone := s.run(t, []row{r})[0]; !slices.EqualFunc(got[i], alone, sameBits) {
			t.Errorf("row %d, adapter %s: alone %v, in the batch %v", i, r.adapter, alone, got[i])
		}
	}
}

// Those of PEFT's cases that are about who is asked, over HTTP.
func TestWhoIsAskedInAMixedBatch(t *testing.T) {
	path := filepath.Join(testdata, "bert")
	s := openSuite(t, path, 2)
	adapter := func(name string) string { return filepath.Join(path, "adapters", name) }
	url := listen(t, s.engine, nil, adapter("plain"), adapter("embedding"))
	const rows, input = 9, 2
	ask := func(t *testing.T, names ...string) (code int, logits [][]float32, failure string) {
		t.Helper()
		ids := s.inputs[input].IDs
		code, raw := post(t, url+"/v2/models/base/infer", map[string]any{
			"inputs": []any{
				tensorOf("input_ids", "INT64", slices.Repeat(ids, rows), rows, len(ids)),
				tensorOf("token_type_ids", "INT64", slices.Repeat(s.inputs[input].Types, rows), rows, len(ids)),
				tensorOf("adapter", "BYTES", names, len(names)),
			},
			"outputs": []any{map[string]any{"name": "logits"}},
		})
		var answer struct {
			Error   string
			Outputs []struct{ Data []float32 }
		}
		if err := json.Unmarshal(raw, &answer); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		if answer.Error != "" {
			return code, nil, answer.Error
		}
		all := answer.Outputs[0].Data
		return code, slices.Collect(slices.Chunk(all, len(all)/rows)), ""
	}
	for name, c := range map[string]struct {
		asked []string
		code  int
		err   string
	}{
		"test_mixed_adapter_batches_length_mismatch_raises": {
			slices.Repeat([]string{"__base__"}, 5), http.StatusBadRequest,
			`input "adapter": shape: expected [9], found [5]`,
		},
		"test_mixed_adapter_batches_lora_wrong_adapter_name_raises/one": {
			slices.Concat(slices.Repeat([]string{"plain"}, 5), slices.Repeat([]string{"does-not-exist"}, 4)),
			http.StatusNotFound, `input "adapter": row 5: adapter "does-not-exist": unknown`,
		},
		"test_mixed_adapter_batches_lora_wrong_adapter_name_raises/between two": {
			slices.Concat(slices.Repeat([]string{"plain"}, 3), slices.Repeat([]string{"does-not-exist"}, 4),
				slices.Repeat([]string{"embedding"}, 2)),
			http.StatusNotFound, `input "adapter": row 3: adapter "does-not-exist": unknown`,
		},
		"test_mixed_adapter_batches_lora_wrong_adapter_name_raises/all": {
			slices.Concat(slices.Repeat([]string{"does-not-exist"}, 5), slices.Repeat([]string{"other-does-not-exist"}, 4)),
			http.StatusNotFound, `input "adapter": row 0: adapter "does-not-exist": unknown`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if code, _, failure := ask(t, c.asked...); code != c.code || failure != c.err {
				t.Errorf("expected %d with %q, found %d: %s", c.code, c.err, code, failure)
			}
		})
	}
	t.Run("test_mixed_adapter_batches_disabled", func(t *testing.T) {
		// A row that names none is the base's, whoever else is asked.
		asked := []string{"", "plain", "embedding", "__base__", "plain", "embedding", "", "__base__", "plain"}
		code, logits, failure := ask(t, asked...)
		if code != http.StatusOK {
			t.Fatalf("status %d: %s", code, failure)
		}
		for i, name := range asked {
			if name == "" || name == "__base__" {
				name = baseCase
			}
			if want := s.run(t, []row{{input, name}})[0]; !slices.EqualFunc(logits[i], want, sameBits) {
				t.Errorf("row %d of %q: expected %v, found %v", i, asked[i], want, logits[i])
			}
			s.compare(t, []row{{input, name}}, [][]float32{logits[i]})
		}
	})
}

// What PEFT's cases put into a model, and no base has, is refused by name, not left out.
func TestModulesOfNoBaseAreRefused(t *testing.T) {
	base := openSuite(t, filepath.Join(testdata, "bert"), 1).engine.Description()
	for what, c := range map[string]struct {
		adapter *wrappers.AdapterFolder
		err     string
	}{
		"a GRU that is saved": {
			wrappers.Adapter(t).Set("modules_to_save", []string{"gru"}).Zip("gru.weight_ih_l0", 6, 4),
			`key "base_model.model.gru.weight_ih_l0": no module "gru" in the base BertForSequenceClassification`,
		},
		"an update of torch's MultiheadAttention": {
			wrappers.Adapter(t).Set("modules_to_save", nil).Update("mha.out_proj", 8, 8),
			`key "base_model.model.mha.out_proj.lora_A.weight": no module "mha.out_proj" in the base ` +
				`BertForSequenceClassification`,
		},
	} {
		_, err := peft.Load(openFolder(t, c.adapter.Write()), base, peft.Settings{})
		var misfit *peft.MisfitError
		if !errors.As(err, &misfit) || err.Error() != c.err {
			t.Errorf("%s: expected %q, found %v", what, c.err, err)
		}
	}
}
