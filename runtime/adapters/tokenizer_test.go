package adapters_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/adapters"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// A Trainer's folder with its tokenizer in it is served if that is the base's, as the revision that it is without.
func TestTokenizersBesideAdapters(t *testing.T) {
	read := func(kind string) []byte {
		raw, err := os.ReadFile(filepath.Join("../preprocess/text/testdata", kind, "tokenizer.json"))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	base := wrappers.Base(t, `{
		"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 700, "hidden_size": 8,
		"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 16
	}`)
	dir := t.TempDir()
	for name, tokenizer := range map[string][]byte{"none": nil, "same": read("wordpiece"), "other": read("unigram")} {
		a := wrappers.Adapter(t).Set("task_type", "SEQ_CLS").
			Update("bert.encoder.layer.0.attention.self.query", 8, 8).Saved("classifier", 2, 8)
		if err := os.Rename(a.File("tokenizer.json", tokenizer).Write(), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	load := func(set *adapters.Set) {
		load, err := set.FromFolder(openFolder(t, dir), nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		load(t.Context())
	}

	set := newSetOf(t, base.File("tokenizer.json", read("wordpiece")).Write())
	load(set)
	var digests []string
	for _, name := range []string{"none", "same"} {
		a, err := set.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, a.Digest)
	}
	if digests[0] != digests[1] {
		t.Errorf("expected one revision, found %v", digests)
	}
	_, err := set.Get("other")
	var misfit *peft.MisfitError
	if !errors.As(err, &misfit) || !strings.HasPrefix(err.Error(),
		`adapter "other": refused: tokenizer.json: vocabulary: expected the base's `) {
		t.Errorf("expected the other one refused, found %v", err)
	}

	// Who knows no tokens has none to compare; who cannot read its own says so.
	set = newSetOf(t, base.File("tokenizer.json", nil).Write())
	if load(set); len(set.Loaded()) != 1 {
		t.Errorf("a base without a tokenizer: expected one revision under all names, found %+v", set.List())
	}
	set = newSetOf(t, base.File("tokenizer.json", []byte(`{"model": 5}`)).Write())
	load(set)
	_, err = set.Get("same")
	if err == nil || !strings.Contains(err.Error(), "the base's tokenizer.json: expected an object at byte 11, found 5") {
		t.Errorf("a base's that cannot be read: expected it named, found %v", err)
	}
	if _, err := set.Get("none"); err != nil {
		t.Errorf("and an adapter that brings none: %v", err)
	}
}
