package tokenfiles

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// The files that say which tokens there are beside a vocabulary.
const (
	configFile   = "tokenizer_config.json"
	addedFile    = "added_tokens.json"
	specialsFile = "special_tokens_map.json"

	additional = "additional_special_tokens" // a field of two of them
)

// maxAdded bounds the tokens that are added to a vocabulary.
const maxAdded = 1 << 16

// token is an added token: its content, and how it is found in texts.
type token struct {
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LeftStrip  bool   `json:"lstrip"`
	RightStrip bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// special is a special token that is said by its content alone.
func special(content string) token { return token{Content: content, Special: true} }

// UnmarshalJSON reads it as a text, which is its content, or as an object. What is not special is looked for in the
// normalized text, unless the object says otherwise.
func (t *token) UnmarshalJSON(raw []byte) error {
	type plain token
	var object struct {
		plain
		Normalized *bool `json:"normalized"`
	}
	if json.Unmarshal(raw, &object) == nil && object.Content != "" {
		*t = token(object.plain)
		t.Normalized = !t.Special
		if object.Normalized != nil {
			t.Normalized = *object.Normalized
		}
		return nil
	}
	var text *string
	if err := json.Unmarshal(raw, &text); err != nil {
		return err
	}
	if text != nil {
		*t = special(*text)
	}
	return nil
}

// tokenList is read as a list of tokens, or as an object of them by their names. What is read twice is joined.
type tokenList []token

func (l *tokenList) UnmarshalJSON(raw []byte) error {
	var list []token
	if json.Unmarshal(raw, &list) == nil {
		*l = append(*l, list...)
		return nil
	}
	var named map[string]token
	if err := json.Unmarshal(raw, &named); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		*l = append(*l, named[name])
	}
	return nil
}

// specialTokens are those that a tokenizer_config.json and a special_tokens_map.json name.
type specialTokens struct {
	UnknownToken   token     `json:"unk_token"`
	ClassToken     token     `json:"cls_token"`
	SeparatorToken token     `json:"sep_token"`
	PaddingToken   token     `json:"pad_token"`
	MaskToken      token     `json:"mask_token"`
	BeginToken     token     `json:"bos_token"`
	EndToken       token     `json:"eos_token"`
	Additional     tokenList `json:"additional_special_tokens"`
	Extra          tokenList `json:"extra_special_tokens"` // as transformers 5 calls them
}

// namedToken is one with the file and the field that name it.
type namedToken struct {
	from string
	token
}

// named are all that a file names, but for those single ones that another does.
func (s *specialTokens) named(file string, but *specialTokens) (named []namedToken) {
	for _, t := range []struct {
		field       string
		said, other token
	}{
		{"pad_token", s.PaddingToken, but.PaddingToken},
		{"unk_token", s.UnknownToken, but.UnknownToken},
		{"cls_token", s.ClassToken, but.ClassToken},
		{"sep_token", s.SeparatorToken, but.SeparatorToken},
		{"mask_token", s.MaskToken, but.MaskToken},
		{"bos_token", s.BeginToken, but.BeginToken},
		{"eos_token", s.EndToken, but.EndToken},
	} {
		if t.said.Content != "" && t.other.Content == "" {
			named = append(named, namedToken{file + ": " + t.field, t.said})
		}
	}
	for _, list := range []struct {
		field string
		more  tokenList
	}{{additional, s.Additional}, {"extra_special_tokens", s.Extra}} {
		for _, t := range list.more {
			if t.Content != "" {
				named = append(named, namedToken{file + ": " + list.field, t})
			}
		}
	}
	return named
}

// addedTokens are those that a tokenizer has beside its vocabulary, or finds before all other words of it.
type addedTokens struct {
	from string // the file and the field that say so
	byID map[int]token
	// split are those that the generations of transformers find in different texts: transformers 4 takes a token that
	// special_tokens_map.json has in additional_special_tokens for special, transformers 5 does not.
	split map[string]bool
}

// readAdded reads which tokens are added and which are named: as tokenizer_config.json has it if there is an
// added_tokens_decoder in it, else as transformers before 4.34 wrote it: special_tokens_map.json has the last word on
// what is named, and added_tokens.json says what is added.
func (f Files) readAdded(c *config) (a addedTokens, named []namedToken, err error) {
	var none specialTokens
	if c.Added != nil {
		a, err = c.readDecoder()
		return a, c.named(configFile, &none), err
	}
	var legacy specialTokens
	if f.Specials != nil {
		if err := json.Unmarshal(f.Specials, &legacy); err != nil {
			return a, nil, fmt.Errorf("%s: %w", specialsFile, err)
		}
	}
	named = append(c.named(configFile, &legacy), legacy.named(specialsFile, &none)...)
	c.override(&legacy)
	a, err = f.readLegacy(named)
	return a, named, err
}

// withDefaults are BERT's own where none are said.
func (s specialTokens) withDefaults() specialTokens {
	s.PaddingToken = cmp.Or(s.PaddingToken, special("[PAD]"))
	s.ClassToken = cmp.Or(s.ClassToken, special("[CLS]"))
	s.SeparatorToken = cmp.Or(s.SeparatorToken, special("[SEP]"))
	s.MaskToken = cmp.Or(s.MaskToken, special("[MASK]"))
	return s
}

// override has the last word on single tokens.
func (s *specialTokens) override(by *specialTokens) {
	for _, t := range []struct{ to, from *token }{
		{&s.PaddingToken, &by.PaddingToken},
		{&s.UnknownToken, &by.UnknownToken},
		{&s.ClassToken, &by.ClassToken},
		{&s.SeparatorToken, &by.SeparatorToken},
		{&s.MaskToken, &by.MaskToken},
	} {
		if t.from.Content != "" {
			*t.to = *t.from
		}
	}
}

// readDecoder reads added_tokens_decoder.
func (c *config) readDecoder() (addedTokens, error) {
	a := addedTokens{from: configFile + ": added_tokens_decoder", byID: map[int]token{}}
	for key, t := range c.Added {
		id, err := strconv.Atoi(key)
		if err != nil || strconv.Itoa(id) != key {
			return a, fmt.Errorf("%s: expected ids, found %s", a.from, quote.Name(key))
		}
		a.byID[id] = t
	}
	return a, a.check()
}

// readLegacy reads added_tokens.json.
func (f Files) readLegacy(named []namedToken) (addedTokens, error) {
	a := addedTokens{from: addedFile, byID: map[int]token{}, split: map[string]bool{}}
	if f.Added == nil {
		return a, nil
	}
	var ids map[string]*int // pointers, as null would be 0
	if err := json.Unmarshal(f.Added, &ids); err != nil {
		return a, fmt.Errorf("%s: %w", addedFile, err)
	}
	specials := map[string]bool{}
	for _, t := range named {
		if t.from == specialsFile+": "+additional {
			a.split[t.Content] = true
		} else {
			specials[t.Content] = true
		}
	}
	for content := range specials {
		delete(a.split, content)
	}
	for _, content := range slices.Sorted(maps.Keys(ids)) {
		id := ids[content]
		if id == nil {
			return a, fmt.Errorf("%s: %s: expected an id, found null", addedFile, quote.Name(content))
		}
		if other, ok := a.byID[*id]; ok {
			return a, fmt.Errorf("%s: %s: expected an id of its own, found %d, as %s has",
				addedFile, quote.Name(content), *id, quote.Name(other.Content))
		}
		a.byID[*id] = token{Content: content, Normalized: !specials[content], Special: specials[content]}
	}
	return a, a.check()
}

func (a addedTokens) check() error {
	if len(a.byID) > maxAdded {
		return fmt.Errorf("%s: expected at most %d tokens, found %d", a.from, maxAdded, len(a.byID))
	}
	for _, id := range a.ids() {
		if a.byID[id].Content == "" {
			return fmt.Errorf("%s: %d: expected a token, found an empty one", a.from, id)
		}
	}
	return nil
}

// ids are those of the added tokens, in their order.
func (a addedTokens) ids() []int { return slices.Sorted(maps.Keys(a.byID)) }

// where names a token.
func (a addedTokens) where(t token) string { return a.from + ": " + quote.Name(t.Content) }

// fileTokens are the added tokens of a tokenizer.json: their ids.
type fileTokens map[string]int

// UnmarshalJSON reads no more of them than a tokenizer may have.
func (t *fileTokens) UnmarshalJSON(raw []byte) error {
	*t = fileTokens{}
	list := json.NewDecoder(bytes.NewReader(raw))
	if _, err := list.Token(); err != nil {
		return err
	}
	for list.More() && len(*t) < maxAdded {
		var added struct {
			ID      int    `json:"id"`
			Content string `json:"content"`
		}
		if err := list.Decode(&added); err != nil {
			return err
		}
		(*t)[added.Content] = added.ID
	}
	return nil
}

// haveIn refuses tokens that transformers would add to those of a tokenizer.json: it finds them before all others, be
// they in the vocabulary or not.
func (a addedTokens) haveIn(has fileTokens, named []namedToken) error {
	for _, id := range a.ids() {
		t := a.byID[id]
		switch known, ok := has[t.Content]; {
		case !ok:
			return fmt.Errorf("%s: expected a token that tokenizer.json has in added_tokens, found one of the id %d that it "+
				"has not: save a tokenizer.json that has it", a.where(t), id)
		case known != id:
			return fmt.Errorf("%s: expected the id %d, as tokenizer.json has it, found %d", a.where(t), known, id)
		}
	}
	for _, t := range named {
		if _, ok := has[t.Content]; !ok {
			return fmt.Errorf("%s: expected a token that tokenizer.json has in added_tokens, found %s: save a tokenizer.json "+
				"that has it", t.from, quote.Name(t.Content))
		}
	}
	return nil
}

// addTo gives the ids of all added tokens, as transformers adds them to the words of a vocab.txt: a word keeps its id,
// and what is none is next behind the words. It has to be what is said.
func (a addedTokens) addTo(words map[string]int) (map[string]int, error) {
	ids := map[string]int{}
	most := -1
	for _, id := range a.ids() {
		t := a.byID[id]
		known, isWord := words[t.Content]
		if !isWord {
			known = max(len(words), most+1)
		}
		if id != known {
			return nil, fmt.Errorf("%s: expected the id %d, as it has beside the %d words of vocab.txt, found %d",
				a.where(t), known, len(words), id)
		}
		if a.split[t.Content] {
			return nil, fmt.Errorf("%s: expected none that %s has in %s, which transformers 4 and 5 find in different "+
				"texts, found it with the id %d: save a tokenizer.json that has it", a.where(t), specialsFile, additional, id)
		}
		if other, ok := ids[t.Content]; ok {
			return nil, fmt.Errorf("%s: expected it once, found it as %d and %d", a.where(t), other, id)
		}
		ids[t.Content], most = id, max(most, id)
	}
	return ids, nil
}

// tokens are the added_tokens of a BERT's tokenizer.json, which it takes in their order: those that are added, and then
// the special ones, by the ids that they have. All are written into ids.
func (c *config) tokens(words, ids map[string]int, added addedTokens, named []namedToken) ([]any, error) {
	var tokens []any
	specials := map[string]bool{}
	for _, t := range c.ofBERT() {
		specials[t.Content] = true
	}
	for _, t := range named {
		specials[t.Content] = true
	}
	write := func(t token) {
		tokens = append(tokens, map[string]any{
			"id": ids[t.Content], "content": t.Content, "single_word": t.SingleWord, "lstrip": t.LeftStrip,
			"rstrip": t.RightStrip, "normalized": t.Normalized, "special": t.Special || specials[t.Content],
		})
	}
	for _, id := range added.ids() {
		write(added.byID[id])
	}
	for _, t := range c.ofBERT() {
		if _, ok := ids[t.Content]; ok {
			continue
		}
		id, ok := words[t.Content]
		if !ok {
			return nil, fmt.Errorf("vocab.txt: expected the word %s, found none", quote.Name(t.Content))
		}
		ids[t.Content] = id
		write(t)
	}
	for _, t := range named {
		if _, ok := ids[t.Content]; ok {
			continue
		}
		id, ok := words[t.Content]
		if !ok {
			return nil, fmt.Errorf("%s: expected a word of vocab.txt, or a token of %s, found %s",
				t.from, added.from, quote.Name(t.Content))
		}
		ids[t.Content] = id
		write(t.token)
	}
	return tokens, nil
}

// ofBERT are the special tokens of a BERT.
func (c *config) ofBERT() []token {
	return []token{c.PaddingToken, c.UnknownToken, c.ClassToken, c.SeparatorToken, c.MaskToken}
}
