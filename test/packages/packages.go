// Package packages reads the sample of texts in hack/samples: a base model trained on the synopses of Debian's
// packages, four adapters, of which one classifies tokens, and held-out synopses with what is true of them.
package packages

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/switchyard-dev/switchyard/test/oip"
)

// Question is a held-out text, the adapter that is to be asked of it, and the true answer.
type Question struct {
	Adapter string `json:"adapter"`
	Text    string `json:"text"`
	Label   string `json:"label"` // "" where tokens are classified

	Spans [][2]int `json:"spans"` // of the characters that entities should be of
}

// Base is the base model's folder within the sample's.
func Base(sample string) string { return filepath.Join(sample, "base") }

// Adapters is the folder of the adapters' folders.
func Adapters(sample string) string { return filepath.Join(sample, "adapters") }

// Questions reads the held-out texts; neighbours are of different adapters.
func Questions(sample string) (all []Question, err error) {
	path := filepath.Join(sample, "held-out.jsonl")
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := json.NewDecoder(bytes.NewReader(raw))
	for {
		var q Question
		if err := lines.Decode(&q); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, len(all)+1, err)
		}
		all = append(all, q)
	}
}

// Expected is the true answer in words.
func (q *Question) Expected() string {
	if q.Label != "" {
		return q.Label
	}
	return found(q.Text, q.Spans)
}

// Answer is what an adapter answered in words.
func (q *Question) Answer(a oip.Answer) string {
	if a.Label != "" {
		return a.Label
	}
	spans := make([][2]int, len(a.Entities))
	for i, e := range a.Entities {
		spans[i] = [2]int{e.Start, e.End}
	}
	return found(q.Text, spans)
}

// found is what stands in some places of a text, with where that is.
func found(text string, spans [][2]int) string {
	if len(spans) == 0 {
		return "none"
	}
	characters := []rune(text)
	words := make([]string, len(spans))
	for i, span := range spans {
		words[i] = fmt.Sprintf("%s at %d", string(characters[span[0]:span[1]]), span[0])
	}
	return strings.Join(words, ", ")
}
