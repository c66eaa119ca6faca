package text_test

import (
	"errors"
	"testing"
	"unicode/utf8"

	"github.com/switchyard-dev/switchyard/runtime/preprocess/text"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
)

func FuzzEncode(f *testing.F)    { fuzz(f, "bytelevel") }
func FuzzWordPiece(f *testing.F) { fuzz(f, "wordpiece") }
func FuzzUnigram(f *testing.F)   { fuzz(f, "unigram") }

// fuzz holds that whatever a text is, it has tokens that point into it and words that these stand for, or is refused
// for what it is; the tokenizer lives on.
func fuzz(f *testing.F, kind string) {
	for _, c := range readGolden(f, kind, "golden.json").Cases {
		pair := ""
		if c.Pair != nil {
			pair = *c.Pair
		}
		f.Add(c.Text, pair, c.Pair != nil)
	}
	f.Add("a\xff", "\x00", true)
	const most = 24
	tokenizer := open(f, tokenfiles.Files{Tokenizer: read(f, kind, "tokenizer.json")}, most)
	f.Fuzz(func(t *testing.T, first, second string, isPair bool) {
		var pair *string
		characters := utf8.RuneCountInString(first)
		if isPair {
			pair = &second
			characters = max(characters, utf8.RuneCountInString(second))
		}
		e, err := tokenizer.Encode(t.Context(), first, pair, true)
		var refused *text.InputError
		if errors.As(err, &refused) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(e.IDs) > most || len(e.Types) != len(e.IDs) || len(e.Special) != len(e.IDs) || len(e.Offsets) != len(e.IDs) {
			t.Fatalf("expected at most %d tokens, and as many of everything, found %+v", most, *e)
		}
		for _, o := range e.Offsets {
			if o[0] < 0 || o[1] < o[0] || o[1] > characters {
				t.Fatalf("expected offsets in %d characters, found %v", characters, o)
			}
		}
		if isPair {
			return
		}
		var runs [][]int
		for token := range e.IDs {
			if !e.Special[token] {
				runs = append(runs, []int{token})
			}
		}
		if words, err := tokenizer.Words(t.Context(), first, e, runs); err != nil || len(words) != len(runs) {
			t.Fatalf("expected %d words, found %q, %v", len(runs), words, err)
		}
	})
}
