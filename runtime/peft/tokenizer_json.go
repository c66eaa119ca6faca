package peft

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// parts are those of a tokenizer.json that decide which tokens a text becomes, beside its words: not its truncation,
// its padding, nor its decoder, which makes texts of tokens.
var parts = []string{"normalizer", "pre_tokenizer", "model", "post_processor"}

// vocabulary is words with their ids, known by their number and the sum of their digests, so that their order does not
// count and none is kept. Who makes two that sum up alike gains nothing: the base's is used.
type vocabulary struct {
	count int
	size  int // one more than the greatest id
	bytes int // of all words
	sum   [4]uint64
}

func (v *vocabulary) add(word string, id int, score float64) {
	var buffer [64]byte
	entry := binary.LittleEndian.AppendUint64(buffer[:0], uint64(id)) //nolint:gosec // not negative
	entry = binary.LittleEndian.AppendUint64(entry, math.Float64bits(score))
	digest := sha256.Sum256(append(entry, word...))
	carry := uint64(0)
	for i := range v.sum {
		v.sum[i], carry = bits.Add64(v.sum[i], binary.LittleEndian.Uint64(digest[8*i:]), carry)
	}
	v.count++
	v.size, v.bytes = max(v.size, id+1), v.bytes+len(word)
}

// check bounds it.
func (v *vocabulary) check() error {
	if v.count > maxWords || v.size > math.MaxInt32 {
		return fmt.Errorf("expected at most %d words, found more", maxWords)
	}
	return nil
}

// beside tells how many there are where another number, or the same of others, was expected.
func (v *vocabulary) beside(expected vocabulary) string {
	if v.count != expected.count {
		return strconv.Itoa(v.count)
	}
	return "as many others"
}

const (
	// maxParts bounds all that is no list of words: the largest has a table of characters, half a megabyte in base64.
	maxParts = 4 << 20
	// maxWord bounds a piece with its score, and a merge.
	maxWord = 64 << 10
)

// decodeUpTo reads a value of at most so many bytes: what it becomes takes some thirty times that.
func decodeUpTo(dec *jsontext.Decoder, most int, to any) error {
	raw, err := dec.ReadValue()
	if err != nil {
		return err
	}
	if len(raw) > most {
		return fmt.Errorf("expected at most %d bytes, found %d", most, len(raw))
	}
	return json.Unmarshal(raw, to, jsontext.AllowDuplicateNames(true))
}

// decodePart reads a value that is kept, of as many bytes as are left of those for all parts.
func (t *Tokenizer) decodePart(dec *jsontext.Decoder, to any) error {
	from := dec.InputOffset()
	err := decodeUpTo(dec, maxParts-t.kept, to)
	t.kept += int(dec.InputOffset() - from)
	return err
}

// ReadTokenizer reads a tokenizer.json, piece by piece: a vocabulary may be large.
func ReadTokenizer(r io.Reader) (*Tokenizer, error) {
	t := &Tokenizer{parts: map[string]string{}, added: map[int]addedToken{}}
	dec := jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true))
	if err := t.read(dec); err != nil {
		return nil, fmt.Errorf("%s: %s", tokenizerFile, quote.Text(err.Error()))
	}
	t.File = dec.InputOffset()
	return t, nil
}

func (t *Tokenizer) read(dec *jsontext.Decoder) error {
	err := members(dec, func(name string) error {
		switch {
		case name == "added_tokens":
			return t.readAdded(dec)
		case name == "model":
			return t.readModel(dec)
		case slices.Contains(parts, name):
			var part any
			if err := t.decodePart(dec, &part); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return t.keep(name, part)
		}
		return dec.SkipValue()
	})
	if err != nil {
		return err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("expected one JSON object, found more behind it")
	}
	return nil
}

func (t *Tokenizer) readAdded(dec *jsontext.Decoder) error {
	return elements(dec, func(n int) error {
		var token struct {
			ID *int `json:"id"`
			addedToken
		}
		if err := json.UnmarshalDecode(dec, &token); err != nil {
			return err
		}
		if token.ID == nil || *token.ID < 0 {
			return fmt.Errorf("added_tokens: %s: expected an id", quote.Name(token.Content))
		}
		if n == maxAdded {
			return fmt.Errorf("added_tokens: expected at most %d, found more", maxAdded)
		}
		t.added[*token.ID] = token.addedToken
		return nil
	})
}

func (t *Tokenizer) readModel(dec *jsontext.Decoder) error {
	model := map[string]any{}
	kind := "WordLevel"
	err := members(dec, func(name string) error {
		switch name {
		case "vocab":
			if dec.PeekKind() == '[' {
				kind, t.unigram = "Unigram", true
				return elements(dec, func(n int) error { return t.readPiece(dec, n) })
			}
			return members(dec, func(word string) error { return t.readWord(dec, word) })
		case "merges":
			kind = "BPE"
			return elements(dec, func(n int) error { return t.readMerge(dec, n) })
		case "max_input_chars_per_word":
			kind = "WordPiece"
		}
		var value any
		if err := t.decodePart(dec, &value); err != nil {
			return fmt.Errorf("model: %s: %w", quote.Name(name), err)
		}
		model[name] = value
		return nil
	})
	if err != nil {
		return err
	}
	if model["type"] == nil { // in files of old it is told by the other fields
		model["type"] = kind
	}
	return t.keep("model", model)
}

// readWord reads the id of a word.
func (t *Tokenizer) readWord(dec *jsontext.Decoder, word string) error {
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(token.String())
	if token.Kind() != '0' || err != nil || id < 0 {
		return fmt.Errorf("vocab: %s: expected an id, found %s", quote.Name(word), quote.Text(token.String()))
	}
	t.words.add(word, id, 0)
	return t.words.check()
}

// precision is that of scores which are the same: Rust's library does not read back every bit of what it writes.
const precision = 1e4

// readPiece reads [piece, score] of a Unigram, whose id is its place.
func (t *Tokenizer) readPiece(dec *jsontext.Decoder, id int) error {
	const expected = "vocab: %d: expected a piece and its score"
	var pair []any
	if err := decodeUpTo(dec, maxWord, &pair); err != nil {
		return fmt.Errorf("vocab: %d: %w", id, err)
	}
	if len(pair) != 2 {
		return fmt.Errorf(expected, id)
	}
	piece, isText := pair[0].(string)
	score, isNumber := pair[1].(float64)
	if !isText || !isNumber {
		return fmt.Errorf(expected, id)
	}
	t.words.add(piece, id, math.Round(score*precision))
	return t.words.check()
}

// readMerge reads a pair of a BPE: two strings or, in older files, both in one.
func (t *Tokenizer) readMerge(dec *jsontext.Decoder, place int) error {
	var merge any
	if err := decodeUpTo(dec, maxWord, &merge); err != nil {
		return fmt.Errorf("merges: %d: %w", place, err)
	}
	joined, ok := merge.(string)
	if pair, isPair := merge.([]any); isPair && len(pair) == 2 {
		first, isText := pair[0].(string)
		second, isToo := pair[1].(string)
		joined, ok = first+" "+second, isText && isToo
	}
	if !ok {
		return fmt.Errorf("merges: %d: expected two words", place)
	}
	t.merges.add(joined, place, 0)
	return t.merges.check()
}

// keep keeps a part in its canonical form.
func (t *Tokenizer) keep(name string, part any) error {
	raw, err := json.Marshal(canonical(part), json.Deterministic(true))
	t.parts[name] = string(raw)
	return err
}

// canonical is a value in one form for all that mean the same: without what is null, false or empty, which one version
// of the library writes and another leaves out, and as the newest writes what older ones wrote otherwise.
func canonical(value any) any {
	switch v := value.(type) {
	case map[string]any:
		if only := sequenceOf(v); len(only) == 1 {
			return canonical(only[0])
		}
		modernize(v)
		said := map[string]any{}
		for name, x := range v {
			if x = canonical(x); x != nil {
				said[name] = x
			}
		}
		if len(said) == 0 {
			return nil
		}
		return said
	case []any:
		if len(v) == 0 {
			return nil
		}
		list := make([]any, len(v))
		for i := range v {
			list[i] = canonical(v[i])
		}
		return list
	case string:
		if v == "" {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	}
	return value
}

// sequenceOf are the parts of a Sequence.
func sequenceOf(v map[string]any) []any {
	if v["type"] != "Sequence" {
		return nil
	}
	for _, name := range []string{"normalizers", "pretokenizers", "processors"} {
		if list, ok := v[name].([]any); ok {
			return list
		}
	}
	return nil
}

// modernize gives a part the fields that tokenizers 0.23 has for it, without those that say what is so by default.
func modernize(v map[string]any) {
	switch v["type"] {
	case "BertNormalizer": // null is as lowercase is, and false is not
		if v["strip_accents"] == nil {
			v["strip_accents"] = v["lowercase"]
		}
	case "ByteLevel":
		delete(v, "trim_offsets") // which moves no token, only where it is said to lie
		if v["use_regex"] == true {
			delete(v, "use_regex")
		}
	case "RobertaProcessing":
		delete(v, "trim_offsets")
		delete(v, "add_prefix_space") // of the offsets, here
	case "Metaspace":
		if v["prepend_scheme"] == nil {
			v["prepend_scheme"] = "always"
			if v["add_prefix_space"] == false {
				v["prepend_scheme"] = "never"
			}
		}
		if v["split"] == true {
			delete(v, "split")
		}
		maps.DeleteFunc(v, func(name string, _ any) bool { return name == "add_prefix_space" || name == "str_rep" })
	}
}

// members visits the members of an object; visit reads the value.
func members(dec *jsontext.Decoder, visit func(name string) error) error {
	if err := enter(dec, '{', "an object"); err != nil {
		return err
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return err
		}
		if err := visit(name.String()); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// elements visits the elements of a list; visit reads one.
func elements(dec *jsontext.Decoder, visit func(n int) error) error {
	if err := enter(dec, '[', "a list"); err != nil {
		return err
	}
	for n := 0; dec.PeekKind() != ']'; n++ {
		if err := visit(n); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// enter reads the beginning of an object or a list.
func enter(dec *jsontext.Decoder, begin jsontext.Kind, what string) error {
	token, err := dec.ReadToken()
	if err == nil && token.Kind() != begin {
		err = fmt.Errorf("expected %s at byte %d, found %s", what, dec.InputOffset(), quote.Text(token.String()))
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
