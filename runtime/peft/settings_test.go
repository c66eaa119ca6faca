package peft_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// The bytes are part of identities that registries and statuses remember: this test may never change.
func TestTheSettingsNeverChange(t *testing.T) {
	for _, c := range []struct {
		settings peft.Settings
		json     string
	}{
		{peft.Settings{}, `{}`},
		{peft.Settings{ClassNames: []string{}}, `{}`},
		{peft.Settings{ClassNames: []string{"even", "odd"}}, `{"classNames":["even","odd"]}`},
		{peft.Settings{ClassNames: []string{`a<b> & "c"`, "ü\n", ""}}, `{"classNames":["a<b> & \"c\"","ü\n",""]}`},
		{peft.Settings{ClassNames: []string{"\u2028\x00"}}, `{"classNames":["\u2028\u0000"]}`},
		{peft.Settings{ProblemType: arch.Regression}, `{"problemType":"Regression"}`},
		{
			peft.Settings{ClassNames: []string{"even", "odd"}, ProblemType: arch.MultiLabel},
			`{"classNames":["even","odd"],"problemType":"MultiLabel"}`,
		},
		{peft.Settings{ProblemType: arch.SingleLabel}, `{"problemType":"SingleLabel"}`},
	} {
		if got := string(c.settings.JSON()); got != c.json {
			t.Errorf("expected %s, found %s", c.json, got)
		}
		again, err := peft.ParseSettings([]byte(c.json))
		same := slices.Equal(again.ClassNames, c.settings.ClassNames) && again.ProblemType == c.settings.ProblemType
		if err != nil || !same {
			t.Errorf("%s: expected the same again, found %+v, %v", c.json, again, err)
		}
	}
}

func TestSettingsRefused(t *testing.T) {
	const problems = "problemType: expected SingleLabel, MultiLabel or Regression, found "
	for raw, want := range map[string]string{
		``:                            "settings: expected a JSON object of known fields: unexpected EOF",
		`null`:                        `settings: expected the canonical form "{}", found "null"`,
		`[]`:                          "settings: expected a JSON object",
		`{"classNames":"even"}`:       "settings: expected a JSON object",
		`{"classNames":[1]}`:          "settings: expected a JSON object",
		`{"scale":2}`:                 `unknown field "scale"`,
		`{} `:                         "canonical form",
		`{}{}`:                        "canonical form",
		`{"classNames":[]}`:           "canonical form",
		`{"classNames": ["even"]}`:    "canonical form",
		`{"ClassNames":["even"]}`:     "canonical form",
		"{\"classNames\":[\"\xff\"]}": "canonical form",
		`{"problemType":""}`:          "canonical form",
		`{"problemType":"MultiLabel","classNames":["a"]}`: "canonical form",
		`{"problemType":1}`:                                                    "settings: expected a JSON object",
		`{"problemType":"regression"}`:                                         problems + `"regression"`,
		`{"classNames":["` + strings.Repeat("x", 4<<20) + `"]}`:                `settings: expected at most 4194304 bytes`,
		`{"classNames":["x"` + strings.Repeat(`,"x"`, 1<<16) + `]}`:            "at most 65536, found 65537",
		`{"classNames":["a"],"` + strings.Repeat("x", 100_000) + `":["even"]}`: "unknown field",
	} {
		_, err := peft.ParseSettings([]byte(raw))
		expectError(t, err, want)
	}
}

func TestClassNames(t *testing.T) {
	for _, c := range []struct {
		name       string
		a          *wrappers.AdapterFolder
		classNames []string
		labels     []string
		err        string
	}{
		{
			name: "instead of none", a: headed(t),
			classNames: []string{"a", "b", "c", "d", "e"}, labels: []string{"a", "b", "c", "d", "e"},
		},
		{
			name: "instead of config.json's", a: headed(t).File("config.json", []byte(`{"num_labels": 5}`)),
			classNames: []string{"a", "b", "c", "d", "e"}, labels: []string{"a", "b", "c", "d", "e"},
		},
		{
			name: "instead of a config.json's of another number", a: headed(t).File("config.json", []byte(`{}`)),
			classNames: []string{"a", "b", "c", "d", "e"}, labels: []string{"a", "b", "c", "d", "e"},
		},
		{
			name: "of the base's head", a: bare(t).Update(query5, 8, 8),
			classNames: []string{"a", "b", "c"}, labels: []string{"a", "b", "c"},
		},
		{
			name: "too few", a: headed(t), classNames: []string{"even", "odd"},
			err: "classNames: expected 5, as many as the adapter's head has outputs, found 2",
		},
		{
			name: "too many for the base's head", a: bare(t).Update(query5, 8, 8), classNames: []string{"a", "b", "c", "d"},
			err: "classNames: expected 3, as many as the base's classifier (the adapter brings none of its own)",
		},
		{
			name:       "a problem that is none",
			a:          headed(t).File("config.json", []byte(`{"problem_type": "ranking"}`)),
			classNames: []string{"a", "b", "c", "d", "e"}, err: "problem_type",
		},
		{name: "not UTF-8", a: headed(t), classNames: []string{"a", "\xff"}, err: `expected UTF-8, found "\xff" at 1`},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := loadWith(t, c.a, peft.Settings{ClassNames: c.classNames})
			if c.err != "" {
				expectError(t, err, c.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(a.Labels, c.labels) {
				t.Errorf("labels: expected %q, found %q", c.labels, a.Labels)
			}
		})
	}
}

func TestSettingsArePartOfTheRevision(t *testing.T) {
	seen := map[string]peft.Settings{}
	for _, settings := range []peft.Settings{
		{},
		{ClassNames: []string{"a", "b", "c", "d", "e"}},
		{ClassNames: []string{"a", "b", "c", "e", "d"}},
		{ProblemType: arch.SingleLabel},
		{ProblemType: arch.MultiLabel},
	} {
		a, err := loadWith(t, headed(t), settings)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[a.Digest]; ok {
			t.Errorf("%+v: expected a digest of its own, found that of %+v", settings, other)
		}
		seen[a.Digest] = settings
	}
}

// What may be right for another base is told apart from what is right for none.
func TestMisfit(t *testing.T) {
	for _, c := range []struct {
		name   string
		a      *wrappers.AdapterFolder
		misfit bool
	}{
		{"unknown module", bare(t).Update("vit.layers.2.attention.q_proj", 8, 8), true},
		{"A of another width", bare(t).Zip(query5+".lora_A.weight", 4, 6).Zip(query5+".lora_B.weight", 8, 4), true},
		{"B of another height", bare(t).Zip(query5+".lora_A.weight", 4, 8).Zip(query5+".lora_B.weight", 9, 4), true},
		{"a head of another width", bare(t).Set("modules_to_save", []string{"classifier"}).Saved("classifier", 5, 9), true},
		{"another model", headed(t).File("config.json", []byte(`{"model_type": "bert"}`)), true},
		{"A of another rank", bare(t).Update(query5, 8, 8).Set("r", 8), false},
		{"A of a convolution of another kernel", bare(t).UpdateConv(projection, 8, 3, 2, 3), true},
		{"a trained bias of another size", bare(t).Set("bias", "all").Zip(query5+".bias", 9), true},
		{"a trained bias twice", bare(t).Set("bias", "all").Zip(query5+".bias", 8).Zip(query5+".base_layer.bias", 8), false},
		{"DoRA without its magnitude", bare(t).Set("use_dora", true).Update(query5, 8, 8), false},
		{"missing head", bare(t).Set("modules_to_save", []string{"classifier"}).Update(query5, 8, 8), false},
		{"no tensors", bare(t), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.a)
			var misfit *peft.MisfitError
			if err == nil || errors.As(err, &misfit) != c.misfit {
				t.Errorf("expected a MisfitError: %v, found %T: %v", c.misfit, err, err)
			}
		})
	}
}

func loadWith(t *testing.T, a *wrappers.AdapterFolder, settings peft.Settings) (*peft.Adapter, error) {
	t.Helper()
	folder, err := weights.OpenFolder(a.Write())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	return peft.Load(folder, tinyViT(t), settings)
}
