package peft_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// allocating is how many bytes a call allocates, garbage or not.
func allocating(call func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// cost is what it takes to validate an adapter: the least of some tries, and the memory of one.
func cost(t *testing.T, base *arch.Description, a *wrappers.AdapterFolder) (least time.Duration, allocated uint64) {
	t.Helper()
	config, model := a.Config(), a.Model()
	for range 3 {
		var err error
		began := time.Now()
		allocated = allocating(func() { _, err = peft.Parse(config, model, nil, base) })
		took := time.Since(began)
		if err != nil {
			t.Fatal(err)
		}
		if least == 0 || took < least {
			least = took
		}
	}
	return least, allocated
}

// deepBERT is a base of so many small layers.
func deepBERT(t *testing.T, layers int) *arch.Description {
	t.Helper()
	return describe(t, fmt.Sprintf(`{"model_type": "bert", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": %d,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6, "num_labels": 3,
		"architectures": ["BertForSequenceClassification"]}`, layers))
}

// Sixteen times the file takes some sixteen times as long, and as much memory: what grew with the square would take 256
// times.
func TestWhatValidationCostsFollowsTheFile(t *testing.T) {
	const layers = 64
	base := deepBERT(t, layers)
	patterns := strings.TrimPrefix(many(16, `"x%d.*y": 2`), "{")
	of := func(n int) *wrappers.AdapterFolder {
		a := bare(t).Set("rank_pattern", json.RawMessage("{"+patterns))
		for layer := range n {
			for _, linear := range []string{"query", "key", "value"} {
				a.Update(fmt.Sprintf("bert.encoder.layer.%d.attention.self.%s", layer, linear), 8, 8)
			}
		}
		return a
	}
	const times = 16
	small, large := of(layers/times), of(layers)
	if s, l := len(small.Model()), len(large.Model()); l < (times-1)*s || l > (times+1)*s {
		t.Fatalf("expected a file of %d times %d bytes, found %d", times, s, l)
	}
	took, allocated := cost(t, base, small)
	tookLarge, allocatedLarge := cost(t, base, large)
	t.Logf("%v and %d bytes; %v and %d bytes for %d times the file", took, allocated, tookLarge, allocatedLarge, times)
	if allocatedLarge > 2*times*allocated {
		t.Errorf("expected at most %d bytes allocated, found %d", 2*times*allocated, allocatedLarge)
	}
	if tookLarge > 6*times*took {
		t.Errorf("expected at most %v, found %v", 6*times*took, tookLarge)
	}
}

// A small file cannot have much allocated, whatever it promises.
func TestASmallFileCostsLittle(t *testing.T) {
	base := tinyViT(t)
	giant := fmt.Sprintf(`{"base_model.model.%s.lora_A.weight": {"dtype": "F32", "shape": [16384, 1099511627776], `+
		`"data_offsets": [0, 0]}}`, query5)
	for name, model := range map[string][]byte{
		"a shape of a giant":     header(giant),
		"a header of lists":      header(`{"a": ` + strings.Repeat("[", 1<<16)),
		"a thousand empty names": header("{" + strings.TrimSuffix(strings.Repeat(`"": {},`, 1000), ",") + "}"),
	} {
		var err error
		found := allocating(func() { _, err = peft.Parse(headed(t).Config(), model, nil, base) })
		if err == nil {
			t.Errorf("%s: expected an error, found none", name)
		}
		if most := uint64(1<<20 + 64*len(model)); found > most {
			t.Errorf("%s: expected at most %d bytes allocated for a file of %d, found %d", name, most, len(model), found)
		}
	}
}

// header is a safetensors file of that header and nothing else.
func header(text string) []byte {
	n := len(text)
	return append([]byte{byte(n), byte(n >> 8), byte(n >> 16), 0, 0, 0, 0, 0}, text...)
}

// target_modules and its kin only tell how the file came about, so their expressions are never run, Python's own not
// either; those of patterns are Go's, which take time in proportion to the path.
func TestHostileExpressions(t *testing.T) {
	hostile := []string{
		`(a+)+$`, `(.*)*(.*)*(.*)*x`, `((((.*)*)*)*)*$`, `(?=(a+)+b)`, `(?<!x)query`, `(a)\1`, `(`, `[[:alpha:]`,
		strings.Repeat("(a|a)?", 4000), strings.Repeat("a?", 4000) + strings.Repeat("a", 4000),
	}
	for _, field := range []string{"target_modules", "exclude_modules", "layers_pattern"} {
		for _, expression := range hostile {
			if _, err := load(t, headed(t).Set(field, expression)); err != nil {
				t.Errorf("%s %.40s: %v", field, expression, err)
			}
		}
	}
	if _, err := load(t, headed(t).Set("rank_pattern", raw(hungry(64)))); err != nil {
		t.Error(err)
	}
}

// hungry is an object of so many patterns, each of which needs many steps for a path.
func hungry(n int) string { return many(n, `"((.*)*(a|a?)*%d)*x": 2`) }

// The most that a small config can ask for, on a base of many modules: as many instructions as patterns may have, in
// both fields, and as many names of modules to save as there may be.
func TestTheHungriestConfig(t *testing.T) {
	const patterns, names = 64, 1024
	layers := 64
	if testing.Short() {
		layers = 4
	}
	base := deepBERT(t, layers)
	saved := make([]string, names)
	for i := range saved {
		saved[i] = fmt.Sprintf("classifier%d", i)
	}
	a := bare(t).Set("rank_pattern", raw(hungry(patterns))).Set("alpha_pattern", raw(hungry(patterns))).
		Set("modules_to_save", saved)
	for layer := range layers {
		for _, linear := range []string{"query", "key", "value"} {
			a.Update(fmt.Sprintf("bert.encoder.layer.%d.attention.self.%s", layer, linear), 8, 8)
		}
	}
	took, allocated := cost(t, base, a)
	t.Logf("%v and %d bytes for a config of %d and a file of %d", took, allocated, len(a.Config()), len(a.Model()))
	if took > 5*time.Second {
		t.Errorf("expected an answer within seconds, found one after %v", took)
	}
	// The race detector, under which the short form runs, has regexp's pools forget what they keep.
	if most := uint64(64 * (len(a.Config()) + len(a.Model()))); !testing.Short() && allocated > most {
		t.Errorf("expected at most %d bytes allocated, found %d", most, allocated)
	}
}

// What a config takes in memory follows its size, whatever it is full of.
func TestAConfigCostsWhatItsSizeIs(t *testing.T) {
	const size = 1 << 20
	list := func(element string) json.RawMessage {
		return raw("[" + strings.Repeat(element+",", 4000) + element + "]")
	}
	for name, a := range map[string]*wrappers.AdapterFolder{
		"names":            headed(t).Set("target_modules", list(`"abcdefgh"`)),
		"ids":              headed(t).Set("trainable_token_indices", list("7")),
		"patterns":         headed(t).Set("rank_pattern", raw(many(4000, `"x%d.y": 2`))),
		"expressions":      headed(t).Set("rank_pattern", raw(hungry(64))),
		"lists in lists":   headed(t).Set("eva_config", raw(strings.Repeat("[", 9000)+strings.Repeat("]", 9000))),
		"objects":          headed(t).Set("eva_config", raw(strings.Repeat(`{"a":`, 9000)+"1"+strings.Repeat("}", 9000))),
		"a long text":      headed(t).Set("target_modules", strings.Repeat("x", size/2)),
		"an escaped text":  headed(t).Set("target_modules", raw(`"`+strings.Repeat(`\u0041`, size/8)+`"`)),
		"an unknown field": headed(t).Set("x", strings.Repeat("x", size/2)),
	} {
		config, model, base := a.Config(), a.Model(), tinyViT(t)
		var err error
		found := allocating(func() { _, err = peft.Parse(config, model, nil, base) })
		most := uint64(4<<20 + 64*len(config)) // compiled expressions are bounded apart
		t.Logf("%s: %d bytes for a config of %d (%.60v)", name, found, len(config), err)
		if found > most {
			t.Errorf("%s: expected at most %d bytes allocated for a config of %d, found %d", name, most, len(config), found)
		}
	}
}
