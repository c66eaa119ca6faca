package peft

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// The files of a tokenizer, as transformers names them.
const (
	tokenizerFile       = "tokenizer.json"        //nolint:gosec // the name of a file
	vocabFile           = "vocab.txt"             // of an old BERT
	addedTokensFile     = "added_tokens.json"     //nolint:gosec // the name of a file
	tokenizerConfigFile = "tokenizer_config.json" //nolint:gosec // the name of a file
)

const (
	// MaxTokenizer bounds a tokenizer's file, as runtime/model does: twice that of a vocabulary of 256k words.
	MaxTokenizer = 64 << 20
	// maxWords bounds a vocabulary, maxAdded the tokens that were added to one.
	maxWords = 1 << 20
	maxAdded = 1 << 16
)

// TokenizerFiles are the files beside an adapter that CheckTokenizer reads. They are no part of the adapter, and change
// no answer: texts become tokens as the base's own say.
func TokenizerFiles() []string {
	return []string{tokenizerFile, vocabFile, addedTokensFile, tokenizerConfigFile}
}

// BringsTokenizer tells whether a folder has such files.
func BringsTokenizer(folder *weights.Folder) bool {
	return slices.ContainsFunc(TokenizerFiles(), folder.Exists)
}

// CheckTokenizer refuses an adapter beside which a Trainer has left another tokenizer than its base's (nil: the base
// has none): it was trained on other tokens than it would be asked about. How texts are padded and cut does not count,
// nor how a version of the library writes a file down. The error of another tokenizer is a MisfitError.
func CheckTokenizer(folder *weights.Folder, base *Tokenizer) error {
	if base == nil {
		return nil
	}
	vocabulary := false
	switch {
	case folder.Exists(tokenizerFile): // transformers reads no other then
		return checkFile(folder, tokenizerFile, base, ReadTokenizer)
	case folder.Exists(vocabFile):
		if err := checkFile(folder, vocabFile, base, ReadVocabulary); err != nil {
			return err
		}
		vocabulary = true
	}
	all := map[int]addedToken{}
	for _, f := range []struct {
		name string
		read func(raw []byte) (map[int]string, error)
	}{{addedTokensFile, readAddedTokens}, {tokenizerConfigFile, readTokenizerConfig}} {
		raw, err := folder.ReadOptional(f.name, maxJSON)
		if err != nil {
			return err
		}
		if raw == nil {
			continue
		}
		added, err := f.read(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		for _, id := range slices.Sorted(maps.Keys(added)) {
			if what := base.lacks(id, added[id]); what != "" {
				return otherTokenizer(f.name, what)
			}
			all[id] = addedToken{Content: added[id]}
		}
	}
	if what := base.beyond(all); vocabulary && what != "" {
		return otherTokenizer(vocabFile, what)
	}
	return nil
}

func checkFile(folder *weights.Folder, name string, base *Tokenizer, read func(io.Reader) (*Tokenizer, error)) error {
	file, err := folder.Open(name, MaxTokenizer)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // nothing was written
	own, err := read(file)
	if err != nil {
		return err
	}
	if what := own.differs(base); what != "" {
		return otherTokenizer(name, what)
	}
	return nil
}

func otherTokenizer(file, what string) error {
	return &MisfitError{fmt.Errorf("%s: %s: the base's tokenizer is used for all of its adapters", file, what)}
}

// Tokenizer is what the files of a tokenizer say, as far as it decides which tokens a text becomes. It is small: of a
// vocabulary it keeps no words.
type Tokenizer struct {
	File int64 // its size

	words  vocabulary
	merges vocabulary         // of a BPE: pairs, by their place
	parts  map[string]string  // the other parts, each in its canonical form; nil of a bare vocabulary
	added  map[int]addedToken // by id
	kept   int                // bytes of the file that became parts

	unigram bool
}

// Memory is what an instance of the tokenizer (runtime/preprocess/text) may take, with any text of so many bytes: an
// instance that asks for more is ended. What it needs is three quarters of it at most, which a test there holds it to.
func (t *Tokenizer) Memory(text int) int64 {
	const (
		letter  = 768 // of a text
		word    = 400
		merge   = 400
		letters = 240 // of a byte of a Unigram's words, which stand in a trie
	)
	bytes := letter*int64(text) + word*int64(t.words.count) + merge*int64(t.merges.count)
	if t.unigram {
		bytes += letters * int64(t.words.bytes)
	}
	return bytes
}

// addedToken is one that is found in a text before all others.
type addedToken struct {
	Content    string `json:"content"`
	Special    bool   `json:"special"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
}

// same compares two. What a special one does to the spaces around it differs from version to version, and counts only
// in a text that spells one out.
func (a addedToken) same(b addedToken) bool {
	if a.Special && b.Special {
		return a.Content == b.Content
	}
	return a == b
}

// ReadVocabulary reads a vocab.txt: a word a line, its id the line's number.
func ReadVocabulary(r io.Reader) (*Tokenizer, error) {
	ids := map[string]int{} // of a word that stands twice the last
	lines := bufio.NewScanner(r)
	for n := 0; lines.Scan(); n++ {
		if n == maxWords {
			return nil, fmt.Errorf("%s: expected at most %d words, found more", vocabFile, maxWords)
		}
		ids[lines.Text()] = n
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", vocabFile, err)
	}
	t := &Tokenizer{}
	for word, id := range ids {
		t.words.add(word, id, 0)
		t.File += int64(len(word)) + 1
	}
	return t, nil
}

// differs says in what t is another tokenizer than the base's; "" if in nothing.
func (t *Tokenizer) differs(base *Tokenizer) string {
	if t.words != base.words {
		return fmt.Sprintf("vocabulary: expected the base's %d words, found %s", base.words.count, t.words.beside(base.words))
	}
	if t.parts == nil || base.parts == nil { // a bare vocabulary has all its tokens in it
		for _, id := range slices.Sorted(maps.Keys(t.added)) {
			if what := base.lacks(id, t.added[id].Content); what != "" {
				return what
			}
		}
		if t.parts == nil { // what was added to it is in other files
			return ""
		}
		return base.beyond(t.added)
	}
	for _, id := range slices.Sorted(maps.Keys(t.added)) {
		known, ok := base.added[id]
		switch own := t.added[id]; {
		case !ok:
			return fmt.Sprintf("added_tokens: %d: expected none, found %s", id, quote.Name(own.Content))
		case own.Content != known.Content:
			return fmt.Sprintf("added_tokens: %d: expected %s, found %s", id, quote.Name(known.Content), quote.Name(own.Content))
		case !own.same(known):
			return fmt.Sprintf("added_tokens: %d %s: expected %s, found %s",
				id, quote.Name(own.Content), known.flags(), own.flags())
		}
	}
	for _, id := range slices.Sorted(maps.Keys(base.added)) {
		if _, ok := t.added[id]; !ok {
			return fmt.Sprintf("added_tokens: %d: expected %s, found none", id, quote.Name(base.added[id].Content))
		}
	}
	if t.merges != base.merges {
		return fmt.Sprintf("merges: expected the base's %d pairs, found %s", base.merges.count, t.merges.beside(base.merges))
	}
	for _, name := range parts {
		if own, known := t.parts[name], base.parts[name]; own != known {
			return fmt.Sprintf("%s: expected the base's %s, found %s", name, quote.Text(known), quote.Text(own))
		}
	}
	return ""
}

// lacks says that the base has no such token; "" if it has, or has another of that id in its vocabulary, which keeps no
// words.
func (t *Tokenizer) lacks(id int, content string) string {
	known, ok := t.added[id]
	switch {
	case ok && known.Content != content:
		return fmt.Sprintf("added tokens: %d: expected %s, found %s", id, quote.Name(known.Content), quote.Name(content))
	case !ok && id >= t.words.size:
		return fmt.Sprintf("added tokens: %d: expected none, found %s", id, quote.Name(content))
	}
	return ""
}

// beyond says which of the tokens that the base has beyond its vocabulary are not among these; "" if all are.
func (t *Tokenizer) beyond(found map[int]addedToken) string {
	for _, id := range slices.Sorted(maps.Keys(t.added)) {
		if _, ok := found[id]; id >= t.words.size && !ok {
			return fmt.Sprintf("added tokens: %d: expected %s, found none", id, quote.Name(t.added[id].Content))
		}
	}
	return ""
}

// Add adds to a vocab.txt the tokens that are said beside it: by the added_tokens_decoder of tokenizer_config.json or,
// where it has none, by added_tokens.json; nil is a file that is not there.
func (t *Tokenizer) Add(config, addedTokens []byte) error {
	var added map[int]string
	var err error
	if config != nil {
		if added, err = readTokenizerConfig(config); err != nil {
			return fmt.Errorf("%s: %w", tokenizerConfigFile, err)
		}
	}
	if added == nil && addedTokens != nil {
		if added, err = readAddedTokens(addedTokens); err != nil {
			return fmt.Errorf("%s: %w", addedTokensFile, err)
		}
	}
	t.added = make(map[int]addedToken, len(added))
	for id, content := range added {
		t.added[id] = addedToken{Content: content}
	}
	return nil
}

// flags are what a token is beside its content, as JSON.
func (a addedToken) flags() string {
	return fmt.Sprintf("special %t, single_word %t, lstrip %t, rstrip %t, normalized %t",
		a.Special, a.SingleWord, a.LStrip, a.RStrip, a.Normalized)
}

// readAddedTokens reads added_tokens.json: ids by token.
func readAddedTokens(raw []byte) (map[int]string, error) {
	var ids map[string]*int // pointers, as null would be 0
	if err := json.Unmarshal(raw, &ids); err != nil {
		return nil, fmt.Errorf("expected an object of ids: %s", quote.Text(err.Error()))
	}
	added := make(map[int]string, len(ids))
	for content, id := range ids {
		if id == nil {
			return nil, fmt.Errorf("%s: expected an id, found null", quote.Name(content))
		}
		added[*id] = content
	}
	return added, nil
}

// readTokenizerConfig reads the tokens that a tokenizer_config.json lists, by id; nil if it lists none. All else
// in it is said by a tokenizer's other files too, or says how texts are cut.
func readTokenizerConfig(raw []byte) (map[int]string, error) {
	var config struct {
		Added map[string]addedToken `json:"added_tokens_decoder"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, errors.New(quote.Text(err.Error()))
	}
	if config.Added == nil {
		return nil, nil //nolint:nilnil // as said above
	}
	added := make(map[int]string, len(config.Added))
	for key, token := range config.Added {
		id, err := strconv.Atoi(key)
		if err != nil {
			return nil, fmt.Errorf("added_tokens_decoder: expected ids, found %s", quote.Name(key))
		}
		added[id] = token.Content
	}
	return added, nil
}
