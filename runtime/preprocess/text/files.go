package text

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
)

// Files are a base's that say how texts become tokens; nil where there is none.
type Files struct {
	Tokenizer []byte // tokenizer.json
	Config    []byte // tokenizer_config.json
	Vocab     []byte // vocab.txt, of old BERTs
}

// Any tells whether they say it: without texts have to come as ids.
func (f Files) Any() bool { return f.Tokenizer != nil || f.Vocab != nil }

// maxVocab bounds the words of a vocab.txt.
const maxVocab = 1 << 20

// config is what counts of a tokenizer_config.json: the length that texts are cut to, and BERT's ways where there is no
// tokenizer.json.
type config struct {
	ModelMaxLength *float64 `json:"model_max_length"` // 1e30 where transformers knows none
	DoLowerCase    *bool    `json:"do_lower_case"`
	StripAccents   *bool    `json:"strip_accents"`
	ChineseChars   *bool    `json:"tokenize_chinese_chars"`
	UnknownToken   token    `json:"unk_token"`
	ClassToken     token    `json:"cls_token"`
	SeparatorToken token    `json:"sep_token"`
	PaddingToken   token    `json:"pad_token"`
	MaskToken      token    `json:"mask_token"`

	Added map[string]token `json:"added_tokens_decoder"` // by id: the last word on how they are found
}

// token is a special token: its content, and how it is found in texts.
type token struct {
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LeftStrip  bool   `json:"lstrip"`
	RightStrip bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
}

// UnmarshalJSON reads it as a text, which is its content, or as an object.
func (t *token) UnmarshalJSON(raw []byte) error {
	type plain token
	var object plain
	if json.Unmarshal(raw, &object) == nil && object.Content != "" {
		*t = token(object)
		return nil
	}
	var text *string
	if err := json.Unmarshal(raw, &text); err != nil {
		return err
	}
	if text != nil {
		*t = token{Content: *text}
	}
	return nil
}

// Resolved is what Files come to.
type Resolved struct {
	Tokenizer []byte // tokenizer.json, made of vocab.txt where there is none
	MaxTokens int    // that a text is cut to: the tokenizer's own, and at most the model's
	Unknown   string // the token for what is in no vocabulary
}

// Resolve reads the files of a model of some type that takes so many tokens.
func (f Files) Resolve(modelType string, most int) (Resolved, error) {
	c := config{
		UnknownToken: token{Content: "[UNK]"}, ClassToken: token{Content: "[CLS]"}, SeparatorToken: token{Content: "[SEP]"},
		PaddingToken: token{Content: "[PAD]"}, MaskToken: token{Content: "[MASK]"},
	}
	if f.Config != nil {
		if err := json.Unmarshal(f.Config, &c); err != nil {
			return Resolved{}, fmt.Errorf("tokenizer_config.json: %w", err)
		}
	}
	if n := c.ModelMaxLength; n != nil && *n >= 1 && *n < float64(most) {
		most = int(*n)
	}
	r := Resolved{Tokenizer: f.Tokenizer, MaxTokens: most, Unknown: c.UnknownToken.Content}
	if f.Tokenizer != nil {
		return r, nil
	}
	if modelType != "bert" && modelType != "distilbert" {
		return Resolved{}, fmt.Errorf("expected a tokenizer.json for a %s, found only a vocab.txt", modelType)
	}
	var err error
	r.Tokenizer, err = c.wordPiece(f.Vocab)
	return r, err
}

// wordPiece is the tokenizer.json that transformers makes of a BERT's vocab.txt.
func (c *config) wordPiece(vocab []byte) ([]byte, error) {
	words := map[string]int{} // by line: of a word that stands twice the last
	lines := bufio.NewScanner(bytes.NewReader(vocab))
	for n := 0; lines.Scan(); n++ {
		if n == maxVocab {
			return nil, fmt.Errorf("vocab.txt: expected at most %d words, found more", maxVocab)
		}
		words[lines.Text()] = n
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("vocab.txt: %w", err)
	}
	type object = map[string]any
	var added []object
	for _, special := range []token{c.PaddingToken, c.UnknownToken, c.ClassToken, c.SeparatorToken, c.MaskToken} {
		for _, told := range c.Added {
			if told.Content == special.Content {
				special = told
			}
		}
		id, ok := words[special.Content]
		if !ok {
			return nil, fmt.Errorf("vocab.txt: expected the word %s, found none", special.Content)
		}
		added = append(added, object{
			"id": id, "content": special.Content, "single_word": special.SingleWord, "lstrip": special.LeftStrip,
			"rstrip": special.RightStrip, "normalized": special.Normalized, "special": true,
		})
	}
	piece := func(kind string, id any, sequence int) object {
		return object{kind: object{"id": id, "type_id": sequence}}
	}
	lower := c.DoLowerCase == nil || *c.DoLowerCase
	chinese := c.ChineseChars == nil || *c.ChineseChars
	ids := func(special string) object {
		return object{"id": special, "ids": []int{words[special]}, "tokens": []string{special}}
	}
	cls, sep := c.ClassToken.Content, c.SeparatorToken.Content
	return json.Marshal(object{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added,
		"normalizer": object{
			"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": chinese, "strip_accents": c.StripAccents,
			"lowercase": lower,
		},
		"pre_tokenizer": object{"type": "BertPreTokenizer"},
		"post_processor": object{
			"type":   "TemplateProcessing",
			"single": []object{piece("SpecialToken", cls, 0), piece("Sequence", "A", 0), piece("SpecialToken", sep, 0)},
			"pair": []object{
				piece("SpecialToken", cls, 0), piece("Sequence", "A", 0), piece("SpecialToken", sep, 0),
				piece("Sequence", "B", 1), piece("SpecialToken", sep, 1),
			},
			"special_tokens": object{cls: ids(cls), sep: ids(sep)},
		},
		"decoder": object{"type": "WordPiece", "prefix": "##", "cleanup": true},
		"model": object{
			"type": "WordPiece", "unk_token": c.UnknownToken.Content, "continuing_subword_prefix": "##",
			"max_input_chars_per_word": 100, "vocab": words,
		},
	})
}
