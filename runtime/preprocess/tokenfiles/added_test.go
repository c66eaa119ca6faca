package tokenfiles_test

import (
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
)

// beside is a tokenizer's files with some beside them, as JSON.
type beside struct{ config, added, specials string }

func (b beside) of(files tokenfiles.Files) tokenfiles.Files {
	for _, f := range []struct {
		to   *[]byte
		from string
	}{{&files.Config, b.config}, {&files.Added, b.added}, {&files.Specials, b.specials}} {
		if f.from != "" {
			*f.to = []byte(f.from)
		}
	}
	return files
}

// expectResolved wants files to be taken, or refused with an error that begins so.
func expectResolved(t *testing.T, model string, files tokenfiles.Files, err string) {
	t.Helper()
	_, found := files.Resolve(model, 512)
	switch {
	case err == "" && found != nil:
		t.Errorf("%s, %s, %s: %v", files.Config, files.Added, files.Specials, found)
	case err != "" && (found == nil || !strings.HasPrefix(found.Error(), err)):
		t.Errorf("%s, %s, %s: expected %q, found %v", files.Config, files.Added, files.Specials, err, found)
	}
}

// Whatever names a token, tokenizer.json has to have it: transformers would add it, and find it before all others.
func TestTokensThatATokenizerLacks(t *testing.T) {
	tokenizer := []byte(`{
		"added_tokens": [
			{"id": 0, "content": "<s>"}, {"id": 2, "content": "</s>"}, {"id": 1, "content": "<pad>"},
			{"id": 3, "content": "<unk>"}, {"id": 9, "content": "<mask>"}, {"id": 600, "content": "[E1]"}
		],
		"model": {"vocab": {"the": 5}}
	}`)
	const (
		lacks = "expected a token that tokenizer.json has in added_tokens, found "
		roots = `{"bos_token": "<s>", "eos_token": "</s>", "unk_token": {"content": "<unk>", "normalized": true}, ` +
			`"sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>", "mask_token": {"content": "<mask>", "lstrip": true}}`
	)
	for _, c := range []struct {
		beside
		err string
	}{
		{beside{specials: roots}, ""}, // as RoBERTa's
		{beside{config: roots, added: `{"[E1]": 600}`}, ""},
		{beside{config: `{"added_tokens_decoder": {"600": {"content": "[E1]", "special": true}}}`}, ""},
		{beside{config: `{"additional_special_tokens": ["[E1]"], "extra_special_tokens": {}}`}, ""},
		{beside{config: `{"additional_special_tokens": null, "bos_token": null}`, specials: `{"cls_token": null}`}, ""},
		{beside{added: `{}`, specials: `{}`}, ""},
		{
			beside{added: `{"[E1]": 600, "version": 601}`},
			`added_tokens.json: "version": ` + lacks + "one of the id 601 that it has not: save a tokenizer.json that has it",
		},
		{beside{added: `{"the": 5}`}, `added_tokens.json: "the": ` + lacks + "one of the id 5 "},
		{
			beside{added: `{"[E1]": 601}`},
			`added_tokens.json: "[E1]": expected the id 600, as tokenizer.json has it, found 601`,
		},
		{
			beside{config: `{"added_tokens_decoder": {"601": {"content": "version"}}}`},
			`tokenizer_config.json: added_tokens_decoder: "version": ` + lacks,
		},
		{
			beside{config: `{"additional_special_tokens": ["[E1]", "[E2]"]}`},
			"tokenizer_config.json: additional_special_tokens: " + lacks + `"[E2]": save a tokenizer.json that has it`,
		},
		{
			beside{config: `{"extra_special_tokens": [{"__type": "AddedToken", "content": "[E2]"}]}`},
			"tokenizer_config.json: extra_special_tokens: " + lacks + `"[E2]"`,
		},
		{
			beside{config: `{"extra_special_tokens": {"image_token": "[E2]"}}`},
			"tokenizer_config.json: extra_special_tokens: " + lacks + `"[E2]"`,
		},
		{beside{config: `{"cls_token": "[CLS]"}`}, "tokenizer_config.json: cls_token: " + lacks + `"[CLS]"`},
		{beside{specials: `{"cls_token": "[CLS]"}`}, "special_tokens_map.json: cls_token: " + lacks + `"[CLS]"`},
		{
			beside{specials: `{"additional_special_tokens": [{"content": "[E2]"}]}`},
			"special_tokens_map.json: additional_special_tokens: " + lacks + `"[E2]"`,
		},
		// What transformers does not read beside an added_tokens_decoder, and what another file has the last word on.
		{
			beside{config: `{"added_tokens_decoder": {}}`, added: `{"version": 601}`, specials: `{"cls_token": "[CLS]"}`},
			"",
		},
		{beside{config: `{"cls_token": "[CLS]"}`, specials: `{"cls_token": "<s>"}`}, ""},
		{beside{added: `[]`}, "added_tokens.json: json: cannot unmarshal array"},
		{beside{added: `{"x": null}`}, `added_tokens.json: "x": expected an id, found null`},
		{
			beside{added: `{"x": 600, "[E1]": 600}`},
			`added_tokens.json: "x": expected an id of its own, found 600, as "[E1]" has`,
		},
		{beside{added: `{"": 7}`}, "added_tokens.json: 7: expected a token, found an empty one"},
		{beside{specials: `[]`}, "special_tokens_map.json: json: cannot unmarshal array"},
		{beside{specials: `{"cls_token": 7}`}, "special_tokens_map.json: json: cannot unmarshal number"},
		{
			beside{config: `{"added_tokens_decoder": {"x": {"content": "x"}}}`},
			`tokenizer_config.json: added_tokens_decoder: expected ids, found "x"`,
		},
	} {
		expectResolved(t, "roberta", c.of(tokenfiles.Files{Tokenizer: tokenizer}), c.err)
	}
}

// Beside a vocab.txt they are added with the ids that transformers gives them; a file that says others is none of its.
func TestTokensBesideAVocabulary(t *testing.T) {
	vocab := []byte("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
	for _, c := range []struct {
		beside
		err string
	}{
		{beside{added: `{"[E1]": 6, "version": 7}`}, ""},
		{beside{added: `{"version": 7, "[MASK]": 4, "[E1]": 6}`}, ""},
		{beside{added: `{"[E1]": 6}`, config: `{"additional_special_tokens": ["[E1]", "a"]}`}, ""},
		{beside{added: `{"<s>": 6}`, specials: `{"cls_token": "<s>"}`}, ""},
		{beside{specials: `{"additional_special_tokens": ["a"]}`}, ""},
		{
			beside{added: `{"[E1]": 6, "version": 8}`},
			`added_tokens.json: "version": expected the id 7, as it has beside the 6 words of vocab.txt, found 8`,
		},
		{beside{added: `{"a": 6}`}, `added_tokens.json: "a": expected the id 5, as it has beside the 6 words of vocab.txt`},
		{
			beside{config: `{"added_tokens_decoder": {"7": {"content": "[E1]"}}}`},
			`tokenizer_config.json: added_tokens_decoder: "[E1]": expected the id 6, as it has `,
		},
		{
			beside{config: `{"added_tokens_decoder": {"6": {"content": "[E1]"}, "7": {"content": "[E1]"}}}`},
			`tokenizer_config.json: added_tokens_decoder: "[E1]": expected it once, found it as 6 and 7`,
		},
		{
			beside{config: `{"additional_special_tokens": ["[E1]"]}`},
			"tokenizer_config.json: additional_special_tokens: expected a word of vocab.txt, or a token of added_tokens.json, " +
				`found "[E1]"`,
		},
		{
			beside{specials: `{"extra_special_tokens": ["[E1]"]}`},
			"special_tokens_map.json: extra_special_tokens: expected a word of vocab.txt, or a token of added_tokens.json, ",
		},
		{
			beside{added: `{"[E1]": 6}`, specials: `{"additional_special_tokens": ["[E1]"]}`},
			`added_tokens.json: "[E1]": expected none that special_tokens_map.json has in additional_special_tokens, which ` +
				"transformers 4 and 5 find in different texts, found it with the id 6: save a tokenizer.json that has it",
		},
		{
			beside{added: `{"[E1]": 6}`, specials: `{"unk_token": "[E1]"}`},
			`vocab.txt: expected the word "[E1]", found none`,
		},
		{beside{specials: `{"bos_token": "<s>"}`}, "special_tokens_map.json: bos_token: expected a word of vocab.txt, "},
	} {
		expectResolved(t, "bert", c.of(tokenfiles.Files{Vocab: vocab}), c.err)
	}
}

// What is in no vocabulary is called as special_tokens_map.json has it.
func TestASpecialTokensMapHasTheLastWord(t *testing.T) {
	files := tokenfiles.Files{
		Tokenizer: []byte(`{"added_tokens": [{"id": 1, "content": "<u>"}, {"id": 2, "content": "<v>"}]}`),
		Config:    []byte(`{"unk_token": "<u>"}`), Specials: []byte(`{"unk_token": "<v>"}`),
	}
	if r, err := files.Resolve("bert", 512); err != nil || r.Unknown != "<v>" {
		t.Errorf("expected <v>, found %q, %v", r.Unknown, err)
	}
}
