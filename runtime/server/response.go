package server

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// answer is one row's result.
type answer struct {
	logits   []float32
	labels   []string
	revision string
}

// probabilities is the softmax of the logits.
func (a *answer) probabilities() []float32 {
	largest := float64(slices.Max(a.logits))
	p, sum := make([]float32, len(a.logits)), 0.0
	for _, l := range a.logits {
		sum += math.Exp(float64(l) - largest)
	}
	for i, l := range a.logits {
		p[i] = float32(math.Exp(float64(l)-largest) / sum)
	}
	return p
}

// best is the index of the largest logit, the first if several are.
func (a *answer) best() int { return slices.Index(a.logits, slices.Max(a.logits)) }

// outputTensor is one output of a response. Data is a flat slice.
type outputTensor struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
	Data     any    `json:"data"`
}

// output makes one of the protocol's outputs of a request's rows; width is the widest head among them.
type output struct {
	name, datatype string
	wide           bool // [rows, width], else [rows]
	data           func(rows []answer, width int) any
}

// outputs are all outputs, in the order in which they are answered.
var outputs = []output{
	{"logits", "FP32", true, func(rows []answer, width int) any {
		return wide(rows, width, engine.Padding, func(a *answer) []float32 { return a.logits })
	}},
	{"num_labels", "INT32", false, func(rows []answer, _ int) any {
		return each(rows, func(a *answer) int32 { return int32(len(a.logits)) })
	}},
	{"probabilities", "FP32", true, func(rows []answer, width int) any {
		return wide(rows, width, 0, (*answer).probabilities)
	}},
	{"label", "BYTES", false, func(rows []answer, _ int) any {
		return each(rows, func(a *answer) string { return a.labels[a.best()] })
	}},
	{"score", "FP32", false, func(rows []answer, _ int) any {
		return each(rows, func(a *answer) float32 { return a.probabilities()[a.best()] })
	}},
	{"revision", "BYTES", false, func(rows []answer, _ int) any {
		return each(rows, func(a *answer) string { return a.revision })
	}},
}

// chooseOutputs finds the outputs that a request names, in its order; all if it names none.
func chooseOutputs(asked []outputRequest) ([]output, error) {
	if len(asked) == 0 {
		return outputs, nil
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
	width := 0
	for i := range rows {
		width = max(width, len(rows[i].logits))
	}
	return each(chosen, func(o *output) outputTensor {
		t := outputTensor{Name: o.name, Datatype: o.datatype, Shape: []int{len(rows)}, Data: o.data(rows, width)}
		if o.wide {
			t.Shape = append(t.Shape, width)
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
func wide(rows []answer, width int, padding float32, of func(*answer) []float32) []float32 {
	data := make([]float32, 0, len(rows)*width)
	for i := range rows {
		row := of(&rows[i])
		data = append(data, row...)
		for range width - len(row) {
			data = append(data, padding)
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
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime)) // as in readBody
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(code)
	_, _ = w.Write(raw) // an error here is the client's, gone before its answer
}
