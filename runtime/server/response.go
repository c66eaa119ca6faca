package server

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// padding fills a row's logits up to the widest head of its request: the lowest float32, so that softmax and argmax
// over the whole width stay right.
const padding = -math.MaxFloat32

// answer is one row's result: logits, or those of each token.
type answer struct {
	model  model
	logits []float32 // [labels]; none where the head answers for each token
	tokens []float32 // [tokens, labels]

	text     *textInput // what was asked about, if it was a text
	entities string     // what was found in it, where the head answers for each token and it is asked for
}

// probabilities are what the logits say of each label.
func (a *answer) probabilities() []float32 {
	if len(a.logits) == 0 {
		return nil
	}
	p := make([]float32, len(a.logits))
	switch a.model.problem {
	case arch.Regression:
		copy(p, a.logits)
	case arch.MultiLabel:
		for i, l := range a.logits {
			p[i] = float32(1 / (1 + math.Exp(-float64(l))))
		}
	case arch.SingleLabel:
		largest, sum := float64(slices.Max(a.logits)), 0.0
		for _, l := range a.logits {
			sum += math.Exp(float64(l) - largest)
		}
		for i, l := range a.logits {
			p[i] = float32(math.Exp(float64(l)-largest) / sum)
		}
	}
	return p
}

// best is the label of the largest logit, the first if several are, and its probability; nothing where the head answers
// for each token.
func (a *answer) best() (label string, score float32) {
	if len(a.logits) == 0 {
		return "", 0
	}
	i := slices.Index(a.logits, slices.Max(a.logits))
	return a.model.labels[i], a.probabilities()[i]
}

// outputTensor is one output of a response. Data is a flat slice.
type outputTensor struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
	Data     any    `json:"data"`
}

// output makes one of the protocol's outputs of a request's rows.
type output struct {
	name, datatype string
	wide           bool // [rows, widest head of them], else [rows]
	tokens         bool // [rows, tokens of the longest, …]; only where it is asked for
	last           int  // of tokens, the last dimension; 0: the widest head
	entities       bool // of texts that are answered for each token
	data           func(rows []answer, s size) any
}

// size is that of a request's answer: its widest head, and its longest row of those that are answered for each token.
type size struct{ width, tokens int }

// outputs are all outputs, in the order in which they are answered.
var outputs = []output{
	{name: "logits", datatype: "FP32", wide: true, data: func(rows []answer, s size) any {
		return wide(rows, s.width, padding, func(a *answer) []float32 { return a.logits })
	}},
	{name: "num_labels", datatype: "INT32", data: func(rows []answer, _ size) any {
		return each(rows, func(a *answer) int32 { return int32(len(a.logits)) })
	}},
	{name: "probabilities", datatype: "FP32", wide: true, data: func(rows []answer, s size) any {
		return wide(rows, s.width, 0, (*answer).probabilities)
	}},
	{name: "label", datatype: "BYTES", data: func(rows []answer, _ size) any {
		return each(rows, func(a *answer) string { label, _ := a.best(); return label })
	}},
	{name: "score", datatype: "FP32", data: func(rows []answer, _ size) any {
		return each(rows, func(a *answer) float32 { _, score := a.best(); return score })
	}},
	{name: "revision", datatype: "BYTES", data: func(rows []answer, _ size) any {
		return each(rows, func(a *answer) string { return a.model.revision })
	}},
	{name: "entities", datatype: "BYTES", entities: true, data: func(rows []answer, _ size) any {
		return each(rows, func(a *answer) string { return a.entities })
	}},
	{name: "token_offsets", datatype: "INT32", tokens: true, last: 2, data: func(rows []answer, s size) any {
		data := make([]int32, 0, 2*len(rows)*s.tokens)
		for i := range rows {
			end := len(data) + 2*s.tokens
			if a := &rows[i]; a.tokens != nil && a.text != nil {
				for _, offsets := range a.text.encoding.Offsets {
					data = append(data, int32(offsets[0]), int32(offsets[1]))
				}
			}
			data = append(data, make([]int32, end-len(data))...)
		}
		return data
	}},
	{name: "token_logits", datatype: "FP32", tokens: true, data: func(rows []answer, s size) any {
		data := make([]float32, 0, len(rows)*s.tokens*s.width)
		for i := range rows {
			end, labels := len(data)+s.tokens*s.width, len(rows[i].model.labels)
			for token := range slices.Chunk(rows[i].tokens, labels) {
				data = append(data, token...)
				data = append(data, slices.Repeat([]float32{padding}, s.width-labels)...)
			}
			data = append(data, slices.Repeat([]float32{padding}, end-len(data))...)
		}
		return data
	}},
}

// chooseOutputs finds the outputs that a request names, in its order; all if it names none.
func chooseOutputs(asked []outputRequest) ([]output, error) {
	if len(asked) == 0 {
		return slices.DeleteFunc(slices.Clone(outputs), func(o output) bool { return o.tokens }), nil
	}
	chosen := make([]output, 0, len(asked))
	for _, a := range asked {
		i := slices.IndexFunc(outputs, func(o output) bool { return o.name == a.Name })
		if i < 0 {
			names := each(outputs, func(o *output) string { return o.name })
			return nil, badRequest("output %s is not one of %v", quote.Name(a.Name), names)
		}
		if slices.ContainsFunc(chosen, func(o output) bool { return o.name == a.Name }) {
			return nil, badRequest("output %s is asked for twice", quote.Name(a.Name))
		}
		chosen = append(chosen, outputs[i])
	}
	return chosen, nil
}

// tensors makes the chosen outputs of a request's rows.
func tensors(chosen []output, rows []answer) []outputTensor {
	var s size
	for i := range rows {
		labels := len(rows[i].model.labels)
		s.width = max(s.width, labels)
		s.tokens = max(s.tokens, len(rows[i].tokens)/max(labels, 1))
	}
	return each(chosen, func(o *output) outputTensor {
		t := outputTensor{Name: o.name, Datatype: o.datatype, Shape: []int{len(rows)}, Data: o.data(rows, s)}
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
func wide(rows []answer, width int, filling float32, of func(*answer) []float32) []float32 {
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

// writeJSON sends an answer whole, or a 500 that says so if it cannot be written down.
func writeJSON(w http.ResponseWriter, code int, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		code, raw = http.StatusInternalServerError, []byte(`{"error":"internal error: the answer is not valid JSON"}`)
	}
	writeRaw(w, code, raw)
}

// writeRaw writes a JSON answer.
func writeRaw(w http.ResponseWriter, code int, raw []byte) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime)) // as in readBody
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(code)
	_, _ = w.Write(raw) // an error here is the client's, gone before its answer
}
