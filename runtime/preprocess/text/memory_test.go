package text_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/text"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
)

type object = map[string]any

// made is a tokenizer.json of a kind, of so many words drawn at random.
func made(t *testing.T, kind string, size int) []byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(20, 26))
	ids := map[string]int{"[UNK]": 0}
	words := []string{"[UNK]"}
	add := func(word string) bool {
		if _, ok := ids[word]; ok {
			return false
		}
		ids[word] = len(words)
		words = append(words, word)
		return true
	}
	merges, parts := [][2]string{}, []string{} // of short words
	for b := 'a'; b <= 'z'; b++ {
		add(string(b))
		add("##" + string(b))
		parts = append(parts, string(b))
	}
	for len(words) < size {
		if kind == "BPE" { // each word of two others
			first, second := parts[rng.IntN(len(parts))], parts[rng.IntN(len(parts))]
			if !add(first + second) {
				continue
			}
			merges = append(merges, [2]string{first, second})
			if len(first+second) <= 6 {
				parts = append(parts, first+second)
			}
			continue
		}
		word := make([]byte, 4+rng.IntN(8))
		for i := range word {
			word[i] = byte('a' + rng.IntN(26))
		}
		add(string(word))
	}
	model := object{"type": kind, "unk_token": "[UNK]", "vocab": ids}
	switch kind {
	case "WordPiece":
		model["continuing_subword_prefix"], model["max_input_chars_per_word"] = "##", 100
	case "BPE":
		model["merges"] = merges
	case "Unigram":
		pieces := make([][2]any, len(words))
		for i, word := range words {
			pieces[i] = [2]any{word, -1 - float64(i)/float64(size)}
		}
		model = object{"type": kind, "unk_id": 0, "vocab": pieces}
	}
	raw, err := json.Marshal(object{
		"version": "1.0", "added_tokens": []any{}, "normalizer": object{"type": "NFKC"},
		"pre_tokenizer": object{"type": "Whitespace"}, "model": model,
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// An instance has room for its tokenizer and for any text that it may be given, and a third as much again: the memory
// that a pod is said to need for it is no less than what it takes.
func TestWhatAnInstanceTakes(t *testing.T) {
	sizes := []int{1000, 30_000}
	switch {
	case testing.Short():
		sizes = sizes[:1]
	case os.Getenv("FULLSIZE_DIR") != "": // make test-fullsize
		sizes = append(sizes, 256_000)
	}
	const tokens = 1 << 16
	most := tokenfiles.MaxText(tokens)
	texts := []string{
		"", strings.Repeat("a", most), strings.Repeat("a ", most/2), strings.Repeat("ab ", most/3),
		strings.Repeat("ﷺ", most/len("ﷺ")), // which NFKC makes eighteen characters of
		strings.Repeat("🙂", most/len("🙂")), strings.Repeat("e\u0301", most/len("e\u0301")),
		strings.Repeat(" ", most), strings.Repeat("\x00", most), strings.Repeat("quick ", most/6),
	}
	for _, kind := range []string{"WordPiece", "BPE", "Unigram"} {
		for _, size := range sizes {
			t.Run(fmt.Sprintf("%s of %d", kind, size), func(t *testing.T) {
				file := made(t, kind, size)
				read, err := peft.ReadTokenizer(bytes.NewReader(file))
				if err != nil {
					t.Fatal(err)
				}
				bound := read.Memory(most)
				resolved := tokenfiles.Resolved{Tokenizer: file, MaxTokens: tokens, Unknown: "[UNK]"}
				tokenizer, err := text.Open(t.Context(), resolved, text.Options{Instances: 1, Memory: bound, CacheDir: cache})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = tokenizer.Close(t.Context()) }()
				loaded := tokenizer.MemoryInUse()[0]
				for _, said := range texts {
					if _, err := tokenizer.Encode(t.Context(), said, nil, true); err != nil {
						t.Errorf("%.10q: %v", said, err)
					}
				}
				used := tokenizer.MemoryInUse()
				if len(used) != 1 || used[0] > bound*3/4 {
					t.Errorf("expected one instance of at most three quarters of %d bytes, found %v", bound, used)
				}
				t.Logf("a file of %d bytes: loaded %d, at most %d of %d", len(file), loaded, used[0], bound)
			})
		}
	}
}

// An instance that asks for more than there is room for is ended, and nothing else with it.
func TestAnInstanceWithoutRoom(t *testing.T) {
	resolved := tokenfiles.Resolved{Tokenizer: made(t, "WordPiece", 30_000), MaxTokens: 16, Unknown: "[UNK]"}
	tokenizer, err := text.Open(t.Context(), resolved, text.Options{Instances: 1, Memory: 4 << 20, CacheDir: cache})
	if err == nil {
		_ = tokenizer.Close(t.Context())
		t.Fatal("expected an error, found none")
	}
	if !strings.HasPrefix(err.Error(), "tokenizer.json: ") || len(err.Error()) > 1000 {
		t.Errorf("expected a short error of the tokenizer, found %v", err)
	}
}
