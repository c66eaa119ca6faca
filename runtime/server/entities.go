package server

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/text"
)

// Entity is a run of a text's tokens of one class, as transformers' token-classification pipeline gives it with
// aggregation_strategy "simple".
type Entity struct {
	Group string  `json:"entity_group"`
	Score float32 `json:"score"`
	Word  string  `json:"word"`
	Start int     `json:"start"` // in characters of the text
	End   int     `json:"end"`
}

// outside is the label of tokens that belong to nothing.
const outside = "O"

// run is tokens of one class, with nothing but special ones between them.
type run struct {
	first, last string // labels, of the first token and of the last
	tokens      []int
	scores      []float32
}

// entities groups the tokens of a text by their best labels: a token goes with the one before it if both are of a
// class, unless its label begins one ("B-…"). What is outside of all classes is left out.
func entities(
	ctx context.Context, t *text.Tokenizer, input *textInput, labels []string, logits []float32,
) ([]Entity, error) {
	var groups []run
	for token := range input.encoding.IDs {
		if input.encoding.Special[token] {
			continue
		}
		row := Answer{Logits: logits[token*len(labels) : (token+1)*len(labels)]}
		row.Model.Labels, row.Model.Problem = labels, arch.SingleLabel
		label, score := row.Best()
		begins, class := tag(label)
		if n := len(groups); n > 0 && !begins {
			g := &groups[n-1]
			if _, before := tag(g.last); before == class {
				g.last, g.tokens, g.scores = label, append(g.tokens, token), append(g.scores, score)
				continue
			}
		}
		groups = append(groups, run{label, label, []int{token}, []float32{score}})
	}
	groups = slices.DeleteFunc(groups, func(g run) bool { return groupOf(g.first) == outside })
	runs := make([][]int, len(groups))
	for i, g := range groups {
		runs[i] = g.tokens
	}
	words, err := t.Words(ctx, input.text, input.encoding, runs)
	if err != nil {
		return nil, fmt.Errorf("the words of its entities: %w", err)
	}
	found := make([]Entity, len(groups))
	for i, g := range groups {
		sum := float32(0)
		for _, score := range g.scores {
			sum += score
		}
		first, last := g.tokens[0], g.tokens[len(g.tokens)-1]
		found[i] = Entity{
			Group: groupOf(g.first), Score: sum / float32(len(g.scores)), Word: words[i],
			Start: input.encoding.Offsets[first][0], End: input.encoding.Offsets[last][1],
		}
	}
	return found, nil
}

// entitiesJSON is the list as the output of that name has it; nothing where none were looked for.
func entitiesJSON(found []Entity) string {
	if found == nil {
		return ""
	}
	raw, err := json.Marshal(found)
	if err != nil { // numbers that are finite and texts that are UTF-8 are always JSON
		panic(err)
	}
	return string(raw)
}

// tag takes a label apart: whether it begins an entity, and of which class.
func tag(label string) (begins bool, class string) {
	if class, ok := strings.CutPrefix(label, "B-"); ok {
		return true, class
	}
	return false, strings.TrimPrefix(label, "I-")
}

// groupOf is the label without what is before its first dash.
func groupOf(label string) string {
	if _, class, ok := strings.Cut(label, "-"); ok {
		return class
	}
	return label
}
