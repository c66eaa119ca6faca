package arch_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// names are all that a base with this config may hold.
func names(t *testing.T, raw []byte) []string {
	t.Helper()
	all, err := arch.Tensors(raw)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// renamed is a list with the names changed; what becomes "" is left out.
func renamed(names []string, change func(name string) string) []string {
	var out []string
	for _, name := range names {
		if name = change(name); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// without leaves out what belongs to the modules of these paths.
func without(names []string, paths ...string) []string {
	return renamed(names, func(name string) string {
		if slices.ContainsFunc(paths, func(path string) bool { return strings.HasPrefix(name, path+".") }) {
			return ""
		}
		return name
	})
}

// Tensors lists each name once, and those of modules that share a tensor by the tensor's.
func TestTensors(t *testing.T) {
	for name, config := range tinies {
		all := names(t, []byte(config))
		d := mustParse(t, []byte(config))
		total := 0
		for _, m := range d.Modules {
			total += len(m.Params)
		}
		if len(all) != total || !slices.IsSorted(all) || len(slices.Compact(slices.Clone(all))) != total {
			t.Errorf("%s: expected %d names, sorted, found %d: %v", name, total, len(all), all)
		}
	}
	plain := names(t, tinyOf(t, "dinov2", `{}`))
	fused := names(t, tinyOf(t, "dinov2", `{"use_swiglu_ffn": true}`))
	if len(fused) != len(plain) || !slices.Contains(fused, "dinov2.encoder.layer.0.mlp.weights_in.weight") {
		t.Errorf("expected weights_in once, found %v", fused)
	}
}

// A base's own head is that of its architecture, if its files have all of it.
func TestOwnHead(t *testing.T) {
	for _, c := range []struct {
		name, changes string
		without       []string // modules
		own           int
		architecture  string
	}{
		{"bert", `{}`, nil, 0, "BertForSequenceClassification"},
		{"bert", `{}`, []string{"bert.pooler.dense"}, 1, "BertForTokenClassification"},
		{"bert", `{}`, []string{"classifier"}, -1, "bert"},
		{"bert", `{"architectures": ["BertForTokenClassification"]}`, nil, 1, "BertForTokenClassification"},
		{
			"bert", `{"architectures": ["BertForSequenceClassification"]}`,
			[]string{"bert.pooler.dense"},
			-1, "BertForSequenceClassification",
		},
		{"bert", `{"architectures": ["BertForMaskedLM"]}`, nil, -1, "BertForMaskedLM"},
		{"bert", `{"architectures": ["BertModel"]}`, []string{"classifier"}, -1, "BertModel"},
		{
			"bert", `{"architectures": ["BertForTokenClassification", "BertForSequenceClassification"]}`, nil,
			1, "BertForTokenClassification",
		},
		{"roberta", `{}`, []string{"classifier.dense"}, 1, "RobertaForTokenClassification"},
		{
			"xlm-roberta", `{"architectures": ["XLMRobertaForTokenClassification"]}`, nil,
			1, "XLMRobertaForTokenClassification",
		},
		{"deit", `{}`, []string{"classifier"}, 1, "DeiTForImageClassificationWithTeacher"},
		{
			"deit", `{"architectures": ["DeiTForImageClassificationWithTeacher"]}`,
			[]string{"cls_classifier"},
			-1, "DeiTForImageClassificationWithTeacher",
		},
		{"vit", `{"architectures": []}`, nil, 0, "ViTForImageClassification"},
		{"vit", `{"architectures": ["ViTModel"]}`, []string{"classifier"}, -1, "ViTModel"},
	} {
		raw := tinyOf(t, c.name, c.changes)
		d, err := arch.Parse(raw, without(names(t, raw), c.without...))
		if err != nil {
			t.Errorf("%s %s without %v: %v", c.name, c.changes, c.without, err)
			continue
		}
		if d.Own != c.own || d.Architecture != c.architecture {
			t.Errorf("%s %s without %v: expected %d, %s, found %d, %s",
				c.name, c.changes, c.without, c.own, c.architecture, d.Own, d.Architecture)
		}
	}
}

// What a head lacks is named; half a module is none.
func TestLacks(t *testing.T) {
	raw := tinyOf(t, "distilbert", `{}`)
	for _, c := range []struct {
		without []string // tensors
		lacks   [2][]string
	}{
		{nil, [2][]string{}},
		{[]string{"pre_classifier.weight"}, [2][]string{{"pre_classifier"}}},
		{[]string{"classifier.bias"}, [2][]string{{"classifier"}, {"classifier"}}},
		{
			[]string{"pre_classifier.bias", "classifier.weight", "classifier.bias"},
			[2][]string{{"pre_classifier", "classifier"}, {"classifier"}},
		},
	} {
		d, err := arch.Parse(raw, renamed(names(t, raw), func(name string) string {
			if slices.Contains(c.without, name) {
				return ""
			}
			return name
		}))
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range d.Heads {
			if lacks := d.Lacks(h); !slices.Equal(lacks, c.lacks[i]) {
				t.Errorf("%s without %v: expected %v, found %v", h.Architecture, c.without, c.lacks[i], lacks)
			}
			for _, path := range h.Modules {
				if has := d.Has(module(t, d, path)); has == slices.Contains(c.lacks[i], path) {
					t.Errorf("%s without %v: has %s: found %t", h.Architecture, c.without, path, has)
				}
			}
		}
	}
}

// A file of the bare model leaves the prefix out; one converted from TensorFlow has other names for norms. Each
// parameter is found, under the one name it has.
func TestSpellings(t *testing.T) {
	prefixes := map[string]string{
		"bert": "bert.", "roberta": "roberta.", "xlm-roberta": "roberta.", "distilbert": "distilbert.",
		"deberta-v2": "deberta.", "modernbert": "model.", "vit": "vit.", "deit": "deit.", "dinov2": "dinov2.",
	}
	bare := func(prefix, name string) string { return strings.TrimPrefix(name, prefix) }
	google := func(d *arch.Description, name string) string {
		dot := strings.LastIndexByte(name, '.')
		if found := d.Lookup(name[:dot]); len(found) == 0 || found[0].Kind != arch.LayerNorm {
			return name
		}
		return name[:dot] + map[string]string{".weight": ".gamma", ".bias": ".beta"}[name[dot:]]
	}
	for architecture, config := range tinies {
		raw := []byte(config)
		if prefixes[architecture] == "" {
			t.Errorf("%s: expected the prefix of its trunk", architecture)
		}
		plain, all := mustParse(t, raw), names(t, raw)
		for how, change := range map[string]func(name string) string{
			"plain":          func(name string) string { return name },
			"bare":           func(name string) string { return bare(prefixes[architecture], name) },
			"gamma":          func(name string) string { return google(plain, name) },
			"gamma and bare": func(name string) string { return bare(prefixes[architecture], google(plain, name)) },
		} {
			files := append(renamed(all, change), "cls.predictions.bias", "embeddings.position_ids")
			d, err := arch.Parse(raw, files)
			if err != nil {
				t.Errorf("%s, %s: %v", architecture, how, err)
				continue
			}
			for i, m := range d.Modules {
				for _, p := range m.Params {
					expected := arch.Stored{Tensor: change(m.Path + "." + p.Name), Shape: p.Shape, To: p.Shape[0]}
					if stored, ok := d.Stored(m.Path, p.Name); !ok || !reflect.DeepEqual(stored, expected) {
						t.Errorf("%s, %s: expected %+v, found %+v", architecture, how, expected, stored)
					}
				}
				if !d.Has(&d.Modules[i]) {
					t.Errorf("%s, %s: %s: expected to have it", architecture, how, m.Path)
				}
			}
			if unused := d.Unused(files); !slices.Equal(unused, files[len(files)-2:]) {
				t.Errorf("%s, %s: unused: expected the last two, found %v", architecture, how, unused)
			}
		}
	}
}

// Of two spellings in one file the usual one counts, and the other is unused.
func TestTheUsualSpellingCounts(t *testing.T) {
	raw := tinyOf(t, "bert", `{}`)
	files := append(names(t, raw), "bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight", "pooler.dense.bias")
	d, err := arch.Parse(raw, files)
	if err != nil {
		t.Fatal(err)
	}
	if s, _ := d.Stored("bert.embeddings.LayerNorm", "weight"); s.Tensor != "bert.embeddings.LayerNorm.weight" {
		t.Errorf("expected the usual one, found %s", s.Tensor)
	}
	if unused := d.Unused(files); !slices.Equal(unused, files[len(files)-3:]) {
		t.Errorf("unused: expected the last three, found %v", unused)
	}
}

// A norm's parameter of another kind has no other names.
func TestOnlyNormsHaveOtherNames(t *testing.T) {
	raw := tinyOf(t, "bert", `{}`)
	_, err := arch.Parse(raw, renamed(names(t, raw), func(name string) string {
		return strings.Replace(name, "layer.1.output.dense.weight", "layer.1.output.dense.gamma", 1)
	}))
	expectMissing(t, err, `its weights: missing: "bert.encoder.layer.1.output.dense.weight"`)
}

// What the trunk needs has to be there: five are named, the rest counted. Heads may be missing.
func TestMissingTensors(t *testing.T) {
	const q, k = `"bert.encoder.layer.1.attention.self.query.weight"`, `"bert.encoder.layer.1.attention.self.key.weight"`
	raw := tinyOf(t, "bert", `{}`)
	for _, c := range []struct {
		files []string
		err   string
	}{
		{without(names(t, raw), "bert.pooler", "classifier"), ""},
		{
			without(names(t, raw), "bert.embeddings.word_embeddings"),
			`its weights: missing: "bert.embeddings.word_embeddings.weight"`,
		},
		{
			without(names(t, raw), "bert.encoder.layer.1.attention.self"),
			`its weights: missing: ` + q + `, "bert.encoder.layer.1.attention.self.query.bias", ` + k +
				`, "bert.encoder.layer.1.attention.self.key.bias", "bert.encoder.layer.1.attention.self.value.weight" and 1 more`,
		},
		{
			nil, `its weights: missing: "bert.embeddings.word_embeddings.weight", ` +
				`"bert.embeddings.position_embeddings.weight", "bert.embeddings.token_type_embeddings.weight", ` +
				`"bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.bias" and 32 more`,
		},
	} {
		_, err := arch.Parse(raw, c.files)
		if c.err == "" && err == nil {
			continue
		}
		expectMissing(t, err, c.err)
	}
	raw = tinyOf(t, "dinov2", `{"use_swiglu_ffn": true, "num_hidden_layers": 1}`)
	_, err := arch.Parse(raw, without(names(t, raw), "dinov2.encoder.layer.0.mlp"))
	expectMissing(t, err, `its weights: missing: "dinov2.encoder.layer.0.mlp.weights_in.weight", `+
		`"dinov2.encoder.layer.0.mlp.weights_in.bias", "dinov2.encoder.layer.0.mlp.weights_out.weight", `+
		`"dinov2.encoder.layer.0.mlp.weights_out.bias"`)
}

func expectMissing(t *testing.T, err error, expected string) {
	t.Helper()
	if err == nil || err.Error() != expected {
		t.Errorf("error: expected %s, found %v", expected, err)
	}
}

// Memory is that of what the files have.
func TestBytes(t *testing.T) {
	raw := tinyOf(t, "bert", `{}`)
	whole := mustParse(t, raw)
	bare, err := arch.Parse(raw, without(names(t, raw), "bert.pooler", "classifier"))
	if err != nil {
		t.Fatal(err)
	}
	const head = 4 * (8*8 + 8 + 2*8 + 2)
	all, trunk := whole.Bytes(arch.Float32), bare.Bytes(arch.Float32)
	if all != 4*parameters(whole, "BertForSequenceClassification") || all-trunk != head {
		t.Errorf("expected the head to take %d bytes, found %d and %d", head, all, trunk)
	}
	// Weights take half of it, their biases do not.
	const rounded = 2*(8*8+2*8) + 4*(8+2)
	if found := whole.Bytes(arch.BFloat16) - bare.Bytes(arch.BFloat16); found != rounded {
		t.Errorf("as bfloat16: expected the head to take %d bytes, found %d", rounded, found)
	}
}

func TestDTypes(t *testing.T) {
	for _, want := range []arch.DType{arch.Float32, arch.BFloat16} {
		if got, err := arch.ParseDType(string(want)); err != nil || got != want {
			t.Errorf("expected %s, found %s, error %v", want, got, err)
		}
	}
	for _, name := range []string{"", "bf16", "Float32"} {
		want := fmt.Sprintf("expected float32 or bfloat16, found %q", name)
		if _, err := arch.ParseDType(name); err == nil || err.Error() != want {
			t.Errorf("expected %s, found %v", want, err)
		}
	}
}
