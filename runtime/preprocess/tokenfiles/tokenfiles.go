// Package tokenfiles reads what a base's files say of how texts become tokens, as transformers reads them. It encodes
// nothing: runtime/preprocess/text does.
package tokenfiles

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Files are a base's that say how texts become tokens; nil where there is none.
type Files struct {
	Tokenizer []byte // tokenizer.json
	Config    []byte // tokenizer_config.json
	Vocab     []byte // vocab.txt, of old BERTs
	Added     []byte // added_tokens.json, of transformers before 4.34
	Specials  []byte // special_tokens_map.json, likewise
}

// MaxText bounds a text, or the two of a pair together, in bytes, where so many tokens of it count: eight bytes a
// token, which are more than most languages take, and not less than 64 KiB, nor more than 256 KiB, which take seconds.
func MaxText(tokens int) int {
	const least, most, token = 64 << 10, 256 << 10, 8
	return max(least, min(tokens, most/token)*token)
}

// Any tells whether they say it: without texts have to come as ids.
func (f Files) Any() bool { return f.Tokenizer != nil || f.Vocab != nil }

// maxVocab bounds the words of a vocab.txt.
const maxVocab = 1 << 20

// config is what counts of a tokenizer_config.json: how texts are cut, which inputs are made, and what transformers'
// class for the model does of its own accord.
type config struct {
	Class           string           `json:"tokenizer_class"`
	ModelMaxLength  *float64         `json:"model_max_length"` // 1e30 where transformers knows none
	MaxLen          *float64         `json:"max_len"`          // its former name
	TruncationSide  string           `json:"truncation_side"`
	ModelInputNames []string         `json:"model_input_names"`
	Added           map[string]token `json:"added_tokens_decoder"`
	DoLowerCase     *bool            `json:"do_lower_case"`
	StripAccents    *bool            `json:"strip_accents"`
	ChineseChars    *bool            `json:"tokenize_chinese_chars"`
	AddPrefixSpace  *bool            `json:"add_prefix_space"`

	specialTokens

	WordTokenizer    string `json:"word_tokenizer_type"` // of a BertJapaneseTokenizer
	SubwordTokenizer string `json:"subword_tokenizer_type"`
}

// Resolved is what Files come to.
type Resolved struct {
	Tokenizer    []byte // tokenizer.json, made of vocab.txt where there is none
	MaxTokens    int    // that a text is cut to: the tokenizer's own, and at most the model's
	TruncateLeft bool   // texts lose their beginning, not their end
	NoTypes      bool   // the tokens of a pair are all of type 0
	Unknown      string // the token for what is in no vocabulary; "" is none
}

// Resolve reads the files of a model of some type that takes so many tokens. Where transformers' tokenizer class would
// go by tokenizer_config.json and not by what tokenizer.json says, the two have to agree.
func (f Files) Resolve(modelType string, most int) (Resolved, error) {
	var c config
	if f.Config != nil {
		if err := json.Unmarshal(f.Config, &c); err != nil {
			return Resolved{}, fmt.Errorf("%s: %w", configFile, err)
		}
	}
	added, named, err := f.readAdded(&c)
	if err != nil {
		return Resolved{}, err
	}
	isOf := c.classOf(modelType)
	if c.UnknownToken.Content == "" {
		c.UnknownToken = special(unknown[isOf])
	}
	r := Resolved{
		Tokenizer: f.Tokenizer, MaxTokens: most, Unknown: c.UnknownToken.Content,
		NoTypes: c.ModelInputNames != nil && !slices.Contains(c.ModelInputNames, "token_type_ids"),
	}
	if n := cmp.Or(c.ModelMaxLength, c.MaxLen); n != nil && *n >= 1 && *n < float64(most) {
		r.MaxTokens = int(*n)
	}
	var whole tokenizer
	if f.Tokenizer != nil {
		_ = json.Unmarshal(f.Tokenizer, &whole) // what is wrong with it says who reads all of it
		if err := c.agree(&whole, isOf); err != nil {
			return Resolved{}, fmt.Errorf("%s: %w", configFile, err)
		}
		if err := added.haveIn(whole.Added, named); err != nil {
			return Resolved{}, err
		}
	}
	switch side := cmp.Or(c.TruncationSide, strings.ToLower(whole.Truncation.Direction), "right"); side {
	case "left":
		r.TruncateLeft = true
	case "right":
	default:
		return Resolved{}, fmt.Errorf("%s: truncation_side: expected left or right, found %s", configFile, quote.Name(side))
	}
	if f.Tokenizer != nil {
		return r, nil
	}
	if isOf != berts {
		return Resolved{}, fmt.Errorf("expected a tokenizer.json for a %s, found only a vocab.txt",
			cmp.Or(c.Class, modelType))
	}
	r.Tokenizer, err = c.wordPiece(f.Vocab, added, named)
	return r, err
}

// The classes of transformers that have ways of their own; of all others tokenizer.json says everything.
const (
	others = iota
	berts  // BertTokenizer and DistilBertTokenizer
	robertas
	sentencePieces // XLMRobertaTokenizer
)

// unknown is how the classes call the token for what is in no vocabulary, where the config does not say.
var unknown = map[int]string{berts: "[UNK]", robertas: "<unk>", sentencePieces: "<unk>"}

// classOf is the class that a config names, or that transformers takes for the model type if it names none.
func (c *config) classOf(modelType string) int {
	switch strings.TrimSuffix(c.Class, "Fast") {
	case "BertTokenizer", "DistilBertTokenizer":
		return berts
	case "RobertaTokenizer":
		return robertas
	case "XLMRobertaTokenizer":
		return sentencePieces
	case "":
		switch modelType {
		case "bert", "distilbert":
			return berts
		case "roberta":
			return robertas
		case "xlm-roberta":
			return sentencePieces
		}
	}
	return others
}

// tokenizer is what of a tokenizer.json a tokenizer_config.json has a say in.
type tokenizer struct {
	Added      fileTokens `json:"added_tokens"`
	Truncation struct {
		Direction string `json:"direction"`
	} `json:"truncation"`
	Normalizer struct {
		Type         string `json:"type"`
		Lowercase    bool   `json:"lowercase"`
		StripAccents *bool  `json:"strip_accents"`
		ChineseChars bool   `json:"handle_chinese_chars"`
	} `json:"normalizer"`
	PreTokenizer struct {
		Type           string `json:"type"`
		AddPrefixSpace bool   `json:"add_prefix_space"`
	} `json:"pre_tokenizer"`
}

// agree refuses a config by which transformers' class would tokenize otherwise than the file says
// (BertTokenizerFast.__init__ and RobertaTokenizerFast.__init__ of transformers 4, and version 5, which makes the
// normalizer and the pre-tokenizer anew).
func (c *config) agree(file *tokenizer, isOf int) error {
	type way struct {
		name            string
		config          *bool
		otherwise, file bool
	}
	var ways []way
	switch {
	case isOf == berts && file.Normalizer.Type == "BertNormalizer":
		lower := c.DoLowerCase == nil || *c.DoLowerCase
		n := file.Normalizer
		accents := n.Lowercase
		if n.StripAccents != nil {
			accents = *n.StripAccents
		}
		ways = []way{
			{"do_lower_case", c.DoLowerCase, true, n.Lowercase},
			{"strip_accents", c.StripAccents, lower, accents},
			{"tokenize_chinese_chars", c.ChineseChars, true, n.ChineseChars},
		}
	case isOf == robertas && file.PreTokenizer.Type == "ByteLevel":
		ways = []way{{"add_prefix_space", c.AddPrefixSpace, false, file.PreTokenizer.AddPrefixSpace}}
	}
	for _, w := range ways {
		is, said := w.otherwise, "none, which is as good as "
		if w.config != nil {
			is, said = *w.config, ""
		}
		if is != w.file {
			return fmt.Errorf("%s: expected %t, as tokenizer.json has it, found %s%t, by which transformers would go",
				w.name, w.file, said, is)
		}
	}
	return nil
}

// wordPiece is the tokenizer.json that transformers makes of a BERT's vocab.txt.
func (c *config) wordPiece(vocab []byte, added addedTokens, named []namedToken) ([]byte, error) {
	for field, value := range map[string]string{
		"word_tokenizer_type": c.WordTokenizer, "subword_tokenizer_type": c.SubwordTokenizer,
	} {
		if value != "" {
			return nil, fmt.Errorf("%s: %s: expected none beside a vocab.txt alone, found %s",
				configFile, field, quote.Name(value))
		}
	}
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
	c.specialTokens = c.withDefaults()
	ids, err := added.addTo(words)
	if err != nil {
		return nil, err
	}
	tokens, err := c.tokens(words, ids, added, named)
	if err != nil {
		return nil, err
	}
	if _, ok := words[c.UnknownToken.Content]; !ok {
		return nil, fmt.Errorf("vocab.txt: expected the word %s, found none", quote.Name(c.UnknownToken.Content))
	}
	type object = map[string]any
	piece := func(kind string, id any, sequence int) object {
		return object{kind: object{"id": id, "type_id": sequence}}
	}
	lower := c.DoLowerCase == nil || *c.DoLowerCase
	chinese := c.ChineseChars == nil || *c.ChineseChars
	specialOf := func(content string) object {
		return object{"id": content, "ids": []int{ids[content]}, "tokens": []string{content}}
	}
	cls, sep := c.ClassToken.Content, c.SeparatorToken.Content
	return json.Marshal(object{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": tokens,
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
			"special_tokens": object{cls: specialOf(cls), sep: specialOf(sep)},
		},
		"decoder": object{"type": "WordPiece", "prefix": "##", "cleanup": true},
		"model": object{
			"type": "WordPiece", "unk_token": c.UnknownToken.Content, "continuing_subword_prefix": "##",
			"max_input_chars_per_word": 100, "vocab": words,
		},
	})
}
