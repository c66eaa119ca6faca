package quote_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

func TestTextsAreCutBetweenRunes(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		"parity":                                "parity",
		strings.Repeat("a", 200):                strings.Repeat("a", 200),
		strings.Repeat("a", 201):                strings.Repeat("a", 200) + "…",
		strings.Repeat("a", 199) + "é" + "more": strings.Repeat("a", 199) + "…",
	} {
		if got := quote.Text(text); got != want || !utf8.ValidString(got) {
			t.Errorf("%q: expected %q, found %q", text, want, got)
		}
	}
	if got := quote.Text(strings.Repeat("\x80", 300)); got != "…" {
		t.Errorf("no rune at all: found %q", got)
	}
	if got := quote.Name("a\n\x1b"); got != `"a\n\x1b"` {
		t.Errorf("control characters: found %s", got)
	}
}

func TestShapes(t *testing.T) {
	for want, shape := range map[string][]int{
		"[]":                          nil,
		"[8, 96]":                     {8, 96},
		"[1, 1, 1, 1, 1, 1, 1, 1, …]": {1, 1, 1, 1, 1, 1, 1, 1, 1},
	} {
		if got := quote.Shape(shape); got != want {
			t.Errorf("expected %s, found %s", want, got)
		}
	}
}
