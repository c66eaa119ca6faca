package tokenfiles_test

import (
	"encoding/json"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
)

// Whatever the files are, what comes of them is a tokenizer.json and a length within the model's, or an error of a
// line.
func FuzzResolve(f *testing.F) {
	f.Add([]byte(`{"normalizer": {"type": "BertNormalizer"}}`), []byte(`{"strip_accents": true}`), []byte{})
	f.Fuzz(func(t *testing.T, tokenizer, config, vocab []byte) {
		files := tokenfiles.Files{Config: config, Vocab: vocab}
		if len(tokenizer) > 0 {
			files.Tokenizer = tokenizer
		}
		const most = 512
		r, err := files.Resolve("bert", most)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("expected a short error, found %d bytes", len(err.Error()))
			}
			return
		}
		if r.MaxTokens < 1 || r.MaxTokens > most {
			t.Errorf("expected 1 to %d tokens, found %d", most, r.MaxTokens)
		}
		if files.Tokenizer == nil && !json.Valid(r.Tokenizer) {
			t.Errorf("expected a tokenizer.json, found %.100q", r.Tokenizer)
		}
	})
}
