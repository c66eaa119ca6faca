// Package oip is a small client of the Open Inference Protocol over REST, for tests and demonstrations.
package oip

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
)

// Tensor is an input of a request.
type Tensor struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
	Data     any    `json:"data"`
}

// Request is the body of an infer request.
type Request struct {
	ID      string   `json:"id,omitempty"`
	Inputs  []Tensor `json:"inputs"`
	Outputs []Output `json:"outputs,omitempty"` // of which num_labels must be one, if any are named
}

// Output names an output.
type Output struct {
	Name string `json:"name"`
}

// Everything names all that an Answer holds; a request that names nothing gets no token_logits.
func Everything() []Output {
	return []Output{
		{"logits"}, {"num_labels"}, {"probabilities"}, {"label"}, {"score"}, {"revision"}, {"entities"}, {"token_logits"},
	}
}

// Images asks about encoded images, one row each.
func Images(encoded ...[]byte) Tensor {
	data := make([]string, len(encoded))
	for i, image := range encoded {
		data[i] = base64.StdEncoding.EncodeToString(image)
	}
	return Tensor{"image", "BYTES", []int{len(data)}, data}
}

// Texts asks about texts, one row each.
func Texts(texts ...string) Tensor { return Tensor{"text", "BYTES", []int{len(texts)}, texts} }

// Pixels asks about pixel values [rows, channels, height, width].
func Pixels(values []float32, shape ...int) Tensor {
	return Tensor{"pixel_values", "FP32", shape, values}
}

// Adapters names the adapter of each row.
func Adapters(names ...string) Tensor { return Tensor{"adapter", "BYTES", []int{len(names)}, names} }

// Answer is one row of a response.
type Answer struct {
	Logits        []float32 // the real ones
	Probabilities []float32
	Label         string
	Score         float32
	Revision      string

	// Of an adapter that classifies tokens.
	Entities    []Entity
	TokenLogits []float32 // [tokens, labels], the real ones
}

// Entity is a run of a text's tokens of one class.
type Entity struct {
	Group string  `json:"entity_group"`
	Score float32 `json:"score"`
	Word  string  `json:"word"`
	Start int     `json:"start"` // in characters of the text
	End   int     `json:"end"`
}

// padding fills logits up to the widest head and the longest text.
const padding = -math.MaxFloat32

// StatusError is an answer that is not 200.
type StatusError struct {
	Code   int
	Header http.Header
	Body   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %s", e.Code, e.Body) }

// Infer asks a model at base, "http://host:port", and splits the answer into rows.
func Infer(ctx context.Context, base, model string, request Request) ([]Answer, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	raw, err := Do(ctx, http.MethodPost, base+"/v2/models/"+model+"/infer", body)
	if err != nil {
		return nil, err
	}
	var response struct {
		Outputs []struct {
			Name  string          `json:"name"`
			Shape []int           `json:"shape"`
			Data  json.RawMessage `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(raw, &response); err != nil {
		return nil, fmt.Errorf("response: %w", err)
	}
	var logits, probabilities, scores, tokens []float32
	var counts []int
	var labels, revisions, entities []string
	into := map[string]any{
		"logits": &logits, "probabilities": &probabilities, "score": &scores, "num_labels": &counts,
		"label": &labels, "revision": &revisions, "entities": &entities, "token_logits": &tokens,
	}
	width := 0
	for _, out := range response.Outputs {
		if err := json.Unmarshal(out.Data, into[out.Name]); err != nil {
			return nil, fmt.Errorf("output %s: %w", out.Name, err)
		}
		if out.Name == "logits" {
			width = out.Shape[1]
		}
	}
	answers := make([]Answer, len(counts))
	for i, n := range counts {
		answers[i] = Answer{
			Logits: logits[i*width : i*width+n], Probabilities: probabilities[i*width : i*width+n],
			Label: labels[i], Score: scores[i], Revision: revisions[i],
		}
		if entities != nil && entities[i] != "" {
			if err := json.Unmarshal([]byte(entities[i]), &answers[i].Entities); err != nil {
				return nil, fmt.Errorf("output entities: row %d: %w", i, err)
			}
		}
		size := len(tokens) / len(counts)
		answers[i].TokenLogits = slices.DeleteFunc(tokens[i*size:(i+1)*size:(i+1)*size], func(v float32) bool {
			return v == padding
		})
	}
	return answers, nil
}

// Do sends one request and returns the body of a 200; any other answer is a *StatusError.
func Do(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, &StatusError{response.StatusCode, response.Header, string(raw)}
	}
	return raw, nil
}
