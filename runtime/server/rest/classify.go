package rest

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/server"
)

// classifyRequest is either of two: "inputs", answered with every label as a pipeline of HuggingFace's does; or
// "input", answered as vLLM and SGLang do. They ignore members that they do not know; those that they know and that
// would change the answer are honoured here, or refused.
type classifyRequest struct {
	Model string `json:"model"`

	Inputs     jsontext.Value `json:"inputs"`
	Parameters jsontext.Value `json:"parameters"`

	Input         jsontext.Value `json:"input"`
	UseActivation *bool          `json:"use_activation"`
	Activation    *bool          `json:"activation"` // the same, as it was called once
	Truncate      *int           `json:"truncate_prompt_tokens"`
	Specials      *bool          `json:"add_special_tokens"`
}

// asIs is the number of tokens to cut texts at that stands for the model's own.
const asIs = -1

// classify answers POST /classify and /v1/classify.
func (h *handler) classify(w http.ResponseWriter, r *http.Request) error {
	return h.ask(w, r, h.readClassify)
}

// readClassify reads either of its forms.
func (h *handler) readClassify(r *http.Request, body []byte) (*question, error) {
	var asked classifyRequest
	if err := protocol.Unmarshal(body, &asked); err != nil {
		return nil, err
	}
	if err := asked.check(); err != nil {
		return nil, err
	}
	isOne, isOther := given(asked.Inputs), given(asked.Input)
	switch {
	case isOne == isOther:
		return nil, badRequest("expected either inputs or input")
	case isOne:
		return h.classifyInputs(r, &asked)
	}
	return h.classifyInput(r, &asked)
}

// check refuses what would change the answer and does not.
func (c *classifyRequest) check() error {
	switch {
	case c.Truncate != nil && *c.Truncate != asIs:
		return badRequest("truncate_prompt_tokens: expected %d, as the model has it, found %d", asIs, *c.Truncate)
	case c.Specials != nil && !*c.Specials:
		return badRequest("add_special_tokens: expected true, found false: send ids in place of text")
	case given(c.Parameters):
		if err := protocol.Unmarshal(c.Parameters, new(struct{}), json.RejectUnknownMembers(true)); err != nil {
			return badRequest("parameters: expected none, as every label is answered, and POST / takes them: %v", err)
		}
	}
	return nil
}

// classifyInputs is answered with a list of every label, or a list of such lists.
func (h *handler) classifyInputs(r *http.Request, asked *classifyRequest) (*question, error) {
	rows, list, err := listed("inputs", asked.Inputs)
	if err != nil {
		return nil, err
	}
	return &question{
		request: server.Request{
			Model: h.modelOf(r, asked.Model), Inputs: []protocol.Tensor{bytesOf(h.source(), rows)}, EveryLabel: true,
		},
		write: func(answers *server.Answers) (any, error) { return predictions(answers, false, list) },
	}, nil
}

// classification is the answer of vLLM.
type classification struct {
	ID      string        `json:"id"`
	Object  string        `json:"object"`
	Created int64         `json:"created"` // seconds since 1970
	Model   string        `json:"model"`
	Data    []classified  `json:"data"`
	Usage   classifyUsage `json:"usage"`
}

type classified struct {
	Index   int       `json:"index"`
	Label   string    `json:"label"`
	Probs   []float32 `json:"probs"` // in the order of the head
	Classes int       `json:"num_classes"`
}

type classifyUsage struct {
	Prompt     int       `json:"prompt_tokens"`
	Total      int       `json:"total_tokens"`
	Completion int       `json:"completion_tokens"`
	Details    *struct{} `json:"prompt_tokens_details"`
}

func (h *handler) classifyInput(r *http.Request, asked *classifyRequest) (*question, error) {
	tensors, err := h.inputOf(asked.Input)
	if err != nil {
		return nil, err
	}
	isOff := func(flag *bool) bool { return flag != nil && !*flag }
	logits := isOff(asked.UseActivation) || isOff(asked.Activation)
	return &question{
		request: server.Request{Model: h.modelOf(r, asked.Model), Inputs: tensors},
		write:   func(answers *server.Answers) (any, error) { return classificationOf(answers, logits) },
	}, nil
}

// inputOf makes a tensor of "input": a text, a list of them, or ids in their place: a list of them, or of such lists.
func (h *handler) inputOf(value jsontext.Value) ([]protocol.Tensor, error) {
	if value.Kind() == '[' && value[1:].Kind() == '0' {
		return idsTensors([]protocol.JSON{protocol.JSON(value)}, nil, nil), nil
	}
	rows, _, err := listed("input", value)
	if err != nil {
		return nil, err
	}
	if jsontext.Value(rows[0]).Kind() == '[' {
		return idsTensors(rows, nil, nil), nil
	}
	return []protocol.Tensor{bytesOf(h.source(), rows)}, nil
}

func classificationOf(answers *server.Answers, logits bool) (any, error) {
	if err := sequencesOnly(answers); err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	c := classification{
		ID: "classify-" + hex.EncodeToString(id), Object: "list", Created: time.Now().Unix(), Model: answers.Model.Name,
	}
	for i := range answers.Rows {
		a := &answers.Rows[i]
		label, _ := a.Best()
		probs := a.Probabilities()
		if logits {
			probs = a.Logits
		}
		c.Data = append(c.Data, classified{i, label, probs, len(probs)})
		c.Usage.Prompt += a.Read
	}
	c.Usage.Total = c.Usage.Prompt
	return &c, nil
}
