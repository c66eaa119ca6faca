package tokenfiles_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
)

func TestFilesRefused(t *testing.T) {
	vocab, err := os.ReadFile("../text/testdata/vocab/vocab.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, model, err string
		files            tokenfiles.Files
	}{
		{
			"no BERT", "roberta", "expected a tokenizer.json for a roberta, found only a vocab.txt",
			tokenfiles.Files{Vocab: vocab},
		},
		{
			"no special words", "bert", `vocab.txt: expected the word "[PAD]", found none`,
			tokenfiles.Files{Vocab: []byte("a\nb\n")},
		},
		{
			"a config that is none", "bert", "tokenizer_config.json: ",
			tokenfiles.Files{Vocab: vocab, Config: []byte(`{"do_lower_case": 5}`)},
		},
		{
			"a word that never ends", "bert", "vocab.txt: bufio.Scanner: token too long",
			tokenfiles.Files{Vocab: bytes.Repeat([]byte("x"), 1<<17)},
		},
	} {
		if _, err := c.files.Resolve(c.model, 8); err == nil || !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s: expected %q, found %v", c.what, c.err, err)
		}
	}
}

func TestHowLongATextMayBe(t *testing.T) {
	for tokens, want := range map[int]int{
		16: 64 << 10, 512: 64 << 10, 8 << 10: 64 << 10, 16 << 10: 128 << 10, 32 << 10: 256 << 10, 64 << 10: 256 << 10,
	} {
		if got := tokenfiles.MaxText(tokens); got != want {
			t.Errorf("%d tokens: expected %d bytes, found %d", tokens, want, got)
		}
	}
}

// Texts are cut to the tokenizer's own length, where that is less than the model's.
func TestLengths(t *testing.T) {
	tokenizer := tokenfiles.Files{Tokenizer: []byte(`{}`)}
	for config, want := range map[string]int{
		`{}`: 512, `{"model_max_length": 128}`: 128, `{"model_max_length": 1000000000000000019884624838656}`: 512,
		`{"model_max_length": null}`: 512, `{"model_max_length": 0}`: 512,
	} {
		tokenizer.Config = []byte(config)
		r, err := tokenizer.Resolve("bert", 512)
		if err != nil || r.MaxTokens != want {
			t.Errorf("%s: expected %d, found %d, %v", config, want, r.MaxTokens, err)
		}
	}
}

// What a config says of cutting, of types and of what is in no vocabulary counts, by the class that it names.
func TestWhatAConfigSays(t *testing.T) {
	for _, c := range []struct {
		model, tokenizer, config string
		want                     tokenfiles.Resolved
	}{
		{"bert", `{}`, `{}`, tokenfiles.Resolved{Unknown: "[UNK]"}},
		{
			"bert", `{"added_tokens": [{"id": 3, "content": "?"}]}`, `{"unk_token": {"content": "?"}}`,
			tokenfiles.Resolved{Unknown: "?"},
		},
		{"roberta", `{}`, `{}`, tokenfiles.Resolved{Unknown: "<unk>"}},
		{"xlm-roberta", `{}`, `{"model_max_length": 512}`, tokenfiles.Resolved{Unknown: "<unk>"}},
		{"bert", `{}`, `{"tokenizer_class": "XLMRobertaTokenizerFast"}`, tokenfiles.Resolved{Unknown: "<unk>"}},
		{"bert", `{}`, `{"tokenizer_class": "PreTrainedTokenizerFast"}`, tokenfiles.Resolved{}},
		{
			"modernbert", `{"added_tokens": [{"id": 3, "content": "[UNK]"}]}`, `{"unk_token": "[UNK]"}`,
			tokenfiles.Resolved{Unknown: "[UNK]"},
		},
		{"modernbert", `{}`, `{"truncation_side": "left"}`, tokenfiles.Resolved{TruncateLeft: true}},
		{"modernbert", `{"truncation": {"direction": "Left"}}`, `{}`, tokenfiles.Resolved{TruncateLeft: true}},
		{"modernbert", `{"truncation": {"direction": "Left"}}`, `{"truncation_side": "right"}`, tokenfiles.Resolved{}},
		{"modernbert", `{"truncation": null}`, `{"truncation_side": "right"}`, tokenfiles.Resolved{}},
		{
			"modernbert", `{}`, `{"model_input_names": ["input_ids", "attention_mask"]}`,
			tokenfiles.Resolved{NoTypes: true},
		},
		{"modernbert", `{}`, `{"model_input_names": ["input_ids", "token_type_ids"]}`, tokenfiles.Resolved{}},
	} {
		got, err := tokenfiles.Files{Tokenizer: []byte(c.tokenizer), Config: []byte(c.config)}.Resolve(c.model, 512)
		if err != nil {
			t.Errorf("%s %s: %v", c.model, c.config, err)
			continue
		}
		if string(got.Tokenizer) != c.tokenizer || got.MaxTokens != 512 {
			t.Errorf("%s %s: expected the file and 512 tokens, found %s and %d", c.model, c.config, got.Tokenizer, got.MaxTokens)
		}
		if got.Unknown != c.want.Unknown || got.TruncateLeft != c.want.TruncateLeft || got.NoTypes != c.want.NoTypes {
			t.Errorf("%s %s: expected %+v, found %+v", c.model, c.config, c.want, got)
		}
	}
}

// Where transformers' class goes by the config, and tokenizer.json says otherwise, it is said which field it is.
func TestFilesThatDisagree(t *testing.T) {
	const (
		bert     = `{"normalizer": {"type": "BertNormalizer", "handle_chinese_chars": true, "strip_accents": `
		cased    = bert + `null, "lowercase": false}}`
		uncased  = bert + `null, "lowercase": true}}`
		accents  = bert + `false, "lowercase": true}}`
		sequence = `{"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}}`
		prefixed = `{"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true}}`
	)
	for _, c := range []struct{ model, tokenizer, config, err string }{
		{"bert", uncased, `{}`, ""},
		{"bert", uncased, `{"do_lower_case": true, "strip_accents": true}`, ""},
		{"bert", cased, `{"do_lower_case": false}`, ""},
		{"bert", sequence, `{"do_lower_case": false}`, ""},
		{"bert", cased, `{"tokenizer_class": "PreTrainedTokenizerFast"}`, ""},
		{"roberta", cased, `{}`, ""},
		{"roberta", prefixed, `{"add_prefix_space": true}`, ""},
		{"modernbert", prefixed, `{}`, ""},
		{
			"bert", uncased, `{"do_lower_case": false}`,
			"do_lower_case: expected true, as tokenizer.json has it, found false, by which transformers would go",
		},
		{
			"distilbert", cased, `{}`,
			"do_lower_case: expected false, as tokenizer.json has it, found none, which is as good as true, by which ",
		},
		{"modernbert", cased, `{"tokenizer_class": "BertTokenizerFast"}`, "do_lower_case: expected false, "},
		{
			"bert", accents, `{}`,
			"strip_accents: expected false, as tokenizer.json has it, found none, which is as good as true",
		},
		{"bert", accents, `{"strip_accents": false}`, ""},
		{"bert", uncased, `{"tokenize_chinese_chars": false}`, "tokenize_chinese_chars: expected true, "},
		{"roberta", prefixed, `{}`, "add_prefix_space: expected true, as tokenizer.json has it, found none, "},
		{"bert", uncased, `{"truncation_side": "middle"}`, `truncation_side: expected left or right, found "middle"`},
	} {
		_, err := tokenfiles.Files{Tokenizer: []byte(c.tokenizer), Config: []byte(c.config)}.Resolve(c.model, 512)
		switch {
		case c.err == "" && err != nil:
			t.Errorf("%s %s: %v", c.model, c.config, err)
		case c.err != "" && (err == nil || !strings.HasPrefix(err.Error(), "tokenizer_config.json: "+c.err)):
			t.Errorf("%s %s: expected %q, found %v", c.model, c.config, c.err, err)
		}
	}
}

// A vocab.txt alone is a BERT's, and has all its words in it.
func TestVocabulariesThatAreNotEnough(t *testing.T) {
	vocab := []byte("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
	for _, c := range []struct{ config, want string }{
		{`{}`, ""},
		{`{"tokenizer_class": "DistilBertTokenizer"}`, ""},
		{`{"added_tokens_decoder": {"4": {"content": "[MASK]"}}}`, ""},
		{`{"tokenizer_class": "BertJapaneseTokenizer"}`, "expected a tokenizer.json for a BertJapaneseTokenizer, "},
		{`{"word_tokenizer_type": "mecab"}`, "tokenizer_config.json: word_tokenizer_type: expected none "},
		{`{"added_tokens_decoder": {"6": {"content": "[USER]"}}}`, ""},
		{`{"added_tokens_decoder": {"5": {"content": "a", "special": true}}}`, ""},
		{
			`{"added_tokens_decoder": {"3": {"content": "[MASK]"}}}`,
			`tokenizer_config.json: added_tokens_decoder: "[MASK]": expected the id 4, as it has beside the 6 words of ` +
				"vocab.txt, found 3",
		},
		{`{"subword_tokenizer_type": "character"}`, "tokenizer_config.json: subword_tokenizer_type: "},
		{
			`{"tokenizer_class": "BertTokenizer", "unk_token": "<unk>"}`,
			`vocab.txt: expected the word "<unk>", found none`,
		},
		{`{"tokenizer_class": "BertTokenizer", "model_max_length": "a lot"}`, "tokenizer_config.json: "},
		{`{"tokenizer_class": "BertTokenizer", "max_len": 4}`, ""},
		{`{"tokenizer_class": "BertTokenizer", "added_tokens_decoder": {"x":1}}`, "tokenizer_config.json: "},
	} {
		r, err := tokenfiles.Files{Vocab: vocab, Config: []byte(c.config)}.Resolve("bert", 512)
		switch {
		case c.want == "" && (err != nil || len(r.Tokenizer) == 0):
			t.Errorf("%s: expected a tokenizer, found %v", c.config, err)
		case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)):
			t.Errorf("%s: expected %q, found %v", c.config, c.want, err)
		}
	}
}
