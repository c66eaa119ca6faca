package server

import (
	"cmp"
	"math"
	"net/http"
	"slices"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// padding fills a row's logits up to the widest head of its request: the lowest float32, so that softmax and argmax
// over the whole width stay right.
const padding = -math.MaxFloat32

// Answer is one row's result: logits, or those of each token.
type Answer struct {
	Model    Model
	Logits   []float32 // [labels]; none where the head answers for each token
	Tokens   []float32 // [tokens, labels]
	Entities []Entity  // found in a text, where the head answers for each token and they are asked for; else nil
	Read     int       // tokens that the model has read, special ones too; of an image its patches

	text *textInput // what was asked about, if it was a text
}

// set takes what the model has computed.
func (a *Answer) set(logits []float32) error {
	if slices.ContainsFunc(logits, func(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }) {
		return Errorf(http.StatusUnprocessableEntity, "the model's answer to it is not finite")
	}
	if a.Model.OfTokens() {
		a.Tokens = logits
	} else {
		a.Logits = logits
	}
	return nil
}

// Probabilities are what the logits say of each label.
func (a *Answer) Probabilities() []float32 {
	if len(a.Logits) == 0 {
		return nil
	}
	switch a.Model.Problem {
	case arch.Regression:
		return slices.Clone(a.Logits)
	case arch.MultiLabel:
		return Sigmoid(a.Logits)
	case arch.SingleLabel:
		return Softmax(a.Logits)
	}
	return make([]float32, len(a.Logits))
}

// Sigmoid are probabilities of labels that do not exclude each other.
func Sigmoid(logits []float32) []float32 {
	p := make([]float32, len(logits))
	for i, l := range logits {
		p[i] = float32(1 / (1 + math.Exp(-float64(l))))
	}
	return p
}

// Softmax are probabilities of labels of which one holds.
func Softmax(logits []float32) []float32 {
	if len(logits) == 0 {
		return nil
	}
	p := make([]float32, len(logits))
	largest, sum := float64(slices.Max(logits)), 0.0
	for _, l := range logits {
		sum += math.Exp(float64(l) - largest)
	}
	for i, l := range logits {
		p[i] = float32(math.Exp(float64(l)-largest) / sum)
	}
	return p
}

// Best is the label of the largest logit, the first if several are, and its probability; nothing where the head answers
// for each token.
func (a *Answer) Best() (label string, score float32) {
	if len(a.Logits) == 0 {
		return "", 0
	}
	i := slices.Index(a.Logits, slices.Max(a.Logits))
	return a.Model.Labels[i], a.Probabilities()[i]
}

// output makes one of the protocol's outputs of a request's rows.
type output struct {
	name, datatype string
	wide           bool // [rows, widest head of them], else [rows]
	tokens         bool // [rows, tokens of the longest, …]; only where it is asked for
	last           int  // of tokens, the last dimension; 0: the widest head
	entities       bool // of texts that are answered for each token
	data           func(rows []Answer, s size) any
}

// size is that of a request's answer: its widest head, and its longest row of those that are answered for each token.
type size struct{ width, tokens int }

// outputs are all outputs, in the order in which they are answered.
var outputs = []output{
	{name: "logits", datatype: protocol.FP32, wide: true, data: func(rows []Answer, s size) any {
		return wide(rows, s.width, padding, func(a *Answer) []float32 { return a.Logits })
	}},
	{name: "num_labels", datatype: protocol.INT32, data: func(rows []Answer, _ size) any {
		return each(rows, func(a *Answer) int32 { return int32(len(a.Logits)) })
	}},
	{name: "probabilities", datatype: protocol.FP32, wide: true, data: func(rows []Answer, s size) any {
		return wide(rows, s.width, 0, (*Answer).Probabilities)
	}},
	{name: "label", datatype: protocol.BYTES, data: func(rows []Answer, _ size) any {
		return each(rows, func(a *Answer) string { label, _ := a.Best(); return label })
	}},
	{name: "score", datatype: protocol.FP32, data: func(rows []Answer, _ size) any {
		return each(rows, func(a *Answer) float32 { _, score := a.Best(); return score })
	}},
	{name: "revision", datatype: protocol.BYTES, data: func(rows []Answer, _ size) any {
		return each(rows, func(a *Answer) string { return a.Model.Revision })
	}},
	{name: "entities", datatype: protocol.BYTES, entities: true, data: func(rows []Answer, _ size) any {
		return each(rows, func(a *Answer) string { return entitiesJSON(a.Entities) })
	}},
	{name: "token_offsets", datatype: protocol.INT32, tokens: true, last: 2, data: func(rows []Answer, s size) any {
		data := make([]int32, 0, 2*len(rows)*s.tokens)
		for i := range rows {
			end := len(data) + 2*s.tokens
			if a := &rows[i]; a.Tokens != nil && a.text != nil {
				for _, offsets := range a.text.encoding.Offsets {
					data = append(data, int32(offsets[0]), int32(offsets[1]))
				}
			}
			data = append(data, make([]int32, end-len(data))...)
		}
		return data
	}},
	{name: "token_logits", datatype: protocol.FP32, tokens: true, data: func(rows []Answer, s size) any {
		data := make([]float32, 0, len(rows)*s.tokens*s.width)
		for i := range rows {
			end, labels := len(data)+s.tokens*s.width, len(rows[i].Model.Labels)
			for token := range slices.Chunk(rows[i].Tokens, labels) {
				data = append(data, token...)
				data = append(data, slices.Repeat([]float32{padding}, s.width-labels)...)
			}
			data = append(data, slices.Repeat([]float32{padding}, end-len(data))...)
		}
		return data
	}},
}

// chooseOutputs finds the outputs that a request names, in its order; all if it names none.
func chooseOutputs(asked []string) ([]output, error) {
	if len(asked) == 0 {
		return slices.DeleteFunc(slices.Clone(outputs), func(o output) bool { return o.tokens }), nil
	}
	chosen := make([]output, 0, len(asked))
	for _, name := range asked {
		i := slices.IndexFunc(outputs, func(o output) bool { return o.name == name })
		if i < 0 {
			known := each(outputs, func(o *output) string { return o.name })
			return nil, badRequest("output %s is not one of %v", quote.Name(name), known)
		}
		if slices.ContainsFunc(chosen, func(o output) bool { return o.name == name }) {
			return nil, badRequest("output %s is asked for twice", quote.Name(name))
		}
		chosen = append(chosen, outputs[i])
	}
	return chosen, nil
}

// tensors makes the chosen outputs of a request's rows.
func tensors(chosen []output, rows []Answer) []protocol.Output {
	var s size
	for i := range rows {
		labels := len(rows[i].Model.Labels)
		s.width = max(s.width, labels)
		s.tokens = max(s.tokens, len(rows[i].Tokens)/max(labels, 1))
	}
	return each(chosen, func(o *output) protocol.Output {
		t := protocol.Output{Name: o.name, Datatype: o.datatype, Shape: []int{len(rows)}, Data: o.data(rows, s)}
		switch {
		case o.tokens:
			t.Shape = append(t.Shape, s.tokens, cmp.Or(o.last, s.width))
		case o.wide:
			t.Shape = append(t.Shape, s.width)
		}
		return t
	})
}

func each[T, R any](items []T, f func(*T) R) []R {
	results := make([]R, len(items))
	for i := range items {
		results[i] = f(&items[i])
	}
	return results
}

// wide puts rows of different lengths side by side, filled up to width.
func wide(rows []Answer, width int, filling float32, of func(*Answer) []float32) []float32 {
	data := make([]float32, 0, len(rows)*width)
	for i := range rows {
		row := of(&rows[i])
		data = append(data, row...)
		for range width - len(row) {
			data = append(data, filling)
		}
	}
	return data
}
