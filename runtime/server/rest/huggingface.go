package rest

import (
	"bytes"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/server"
)

// pipelineRequest is what HuggingFace's inference API takes, and the pipelines of transformers.
type pipelineRequest struct {
	Inputs     jsontext.Value     `json:"inputs"` // a text, a pair, an image in base64, or a list of them
	Parameters pipelineParameters `json:"parameters"`
	Model      string             `json:"model"`
	Options    jsontext.Value     `json:"options"` // of HuggingFace's own service: what it caches and waits for
}

type pipelineParameters struct {
	TopK         *int                      `json:"top_k"`
	Function     *string                   `json:"function_to_apply"`
	Aggregation  *string                   `json:"aggregation_strategy"`
	IgnoreLabels *protocol.Bounded[string] `json:"ignore_labels"`
}

// pair is a text with a second, as pipelines take it.
type pair struct {
	Text jsontext.Value `json:"text"`
	Pair jsontext.Value `json:"text_pair"`
}

// pipeline answers POST /: JSON, or an image as it is.
func (h *handler) pipeline(w http.ResponseWriter, r *http.Request) error {
	return h.ask(w, r, h.readPipeline, imageTypes, binaryType)
}

func (h *handler) readPipeline(r *http.Request, body []byte) (*question, error) {
	if image, err := h.isImage(r.Header, body); err != nil || image {
		return h.rawImage(r, body), err
	}
	var asked pipelineRequest
	if err := protocol.Unmarshal(body, &asked, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	if err := asked.Parameters.check(); err != nil {
		return nil, err
	}
	rows, list, err := listed("inputs", asked.Inputs)
	if err != nil {
		return nil, err
	}
	tensors := []protocol.Tensor{bytesOf(imageInput, rows)}
	if h.source() == textInput {
		if tensors, err = textTensors(rows); err != nil {
			return nil, err
		}
	}
	p := pipelineAnswer{parameters: asked.Parameters, list: list, images: h.source() == imageInput}
	return &question{
		request: server.Request{Model: h.modelOf(r, asked.Model), Inputs: tensors, EveryLabel: true}, write: p.write,
	}, nil
}

// isImage tells whether a body is an image as it is. Where its type says nothing that is for the base to tell, and for
// its first byte: JSON begins an object, and no image does.
func (h *handler) isImage(header http.Header, body []byte) (bool, error) {
	switch said := mediaType(header); said {
	case jsonType:
		return false, nil
	case "":
		return h.source() == imageInput && !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")), nil
	default:
		if h.source() != imageInput {
			return false, server.Errorf(http.StatusUnsupportedMediaType,
				"content type: expected %s, as the model takes no encoded images, found %s", jsonType, quote.Name(said))
		}
		return true, nil
	}
}

func (h *handler) rawImage(r *http.Request, body []byte) *question {
	return &question{
		request: server.Request{
			Model: h.modelOf(r, ""), EveryLabel: true,
			Inputs: []protocol.Tensor{{
				Name: imageInput, Datatype: protocol.BYTES, Shape: []int64{1}, Data: protocol.Bytes{body},
			}},
		},
		write: (&pipelineAnswer{images: true}).write,
	}
}

// textTensors are texts and pairs of them.
func textTensors(rows []protocol.JSON) ([]protocol.Tensor, error) {
	seconds, pairs := make([]protocol.JSON, len(rows)), false
	for i, row := range rows {
		if jsontext.Value(row).Kind() != '{' {
			continue
		}
		var both pair
		if err := protocol.Unmarshal(row, &both, json.RejectUnknownMembers(true)); err != nil {
			return nil, badRequest("inputs: row %d: %v", i, err)
		}
		if both.Text == nil {
			return nil, badRequest("inputs: row %d: expected a text, found none", i)
		}
		rows[i] = protocol.JSON(both.Text)
		if given(both.Pair) {
			seconds[i], pairs = protocol.JSON(both.Pair), true
		}
	}
	tensors := []protocol.Tensor{bytesOf(textInput, rows)}
	if pairs {
		tensors = append(tensors, bytesOf(pairInput, seconds))
	}
	return tensors, nil
}

// The values of parameters that are known.
const (
	noFunction = "none"
	sigmoid    = "sigmoid"
	softmax    = "softmax"
	simple     = "simple" // entities as they are found here
)

func (p *pipelineParameters) check() error {
	if p.TopK != nil && *p.TopK < 1 {
		return badRequest("parameters: top_k: expected a positive number, found %d", *p.TopK)
	}
	if f := p.Function; f != nil && *f != noFunction && *f != sigmoid && *f != softmax {
		return badRequest("parameters: function_to_apply: expected one of %v, found %s",
			[]string{softmax, sigmoid, noFunction}, quote.Name(*f))
	}
	if a := p.Aggregation; a != nil && *a != simple {
		return badRequest("parameters: aggregation_strategy: expected %s, found %s", simple, quote.Name(*a))
	}
	if l := p.IgnoreLabels; l != nil && (len(*l) != 1 || (*l)[0] != "O") {
		return badRequest(`parameters: ignore_labels: expected ["O"], found others`)
	}
	return nil
}

// pipelineAnswer writes answers as a pipeline does.
type pipelineAnswer struct {
	parameters   pipelineParameters
	list, images bool // that were asked about
}

// write nests lists as transformers does: the labels of texts are in a list for each text, also of a single one.
func (p *pipelineAnswer) write(answers *server.Answers) (any, error) {
	rows, err := each(answers, p.row)
	if err != nil {
		return nil, err
	}
	if single := !p.list && (p.images || answers.Rows[0].Tokens != nil); single {
		return rows[0], nil
	}
	return rows, nil
}

// row is a row's labels, or its entities. A parameter of the one would count for nothing in the other.
func (p *pipelineAnswer) row(i int, a *server.Answer) (any, error) {
	refused := func(parameter string) error {
		return badRequest("parameters: %s: row %d: not for the model %s, whose task is another",
			parameter, i, quote.Name(a.Model.Name))
	}
	parameters := &p.parameters
	if a.Tokens != nil {
		switch {
		case parameters.TopK != nil:
			return nil, refused("top_k")
		case parameters.Function != nil:
			return nil, refused("function_to_apply")
		}
		return entitiesOf(i, a)
	}
	switch {
	case parameters.Aggregation != nil:
		return nil, refused("aggregation_strategy")
	case parameters.IgnoreLabels != nil:
		return nil, refused("ignore_labels")
	}
	labels := ranked(a, p.scores(a))
	if k := parameters.TopK; k != nil && *k < len(labels) {
		labels = labels[:*k]
	}
	return labels, nil
}

func (p *pipelineAnswer) scores(a *server.Answer) []float32 {
	if p.parameters.Function == nil {
		return a.Probabilities()
	}
	switch *p.parameters.Function {
	case softmax:
		return server.Softmax(a.Logits)
	case sigmoid:
		return server.Sigmoid(a.Logits)
	default:
		return a.Logits
	}
}
