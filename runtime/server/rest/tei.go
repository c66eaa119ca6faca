package rest

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/server"
)

// predictionRequest is what text-embeddings-inference takes of POST /predict. It ignores members that it does not know.
type predictionRequest struct {
	Inputs    jsontext.Value `json:"inputs"`
	Truncate  *bool          `json:"truncate"`
	Direction *string        `json:"truncation_direction"`
	RawScores bool           `json:"raw_scores"`
	Model     string         `json:"model"`
}

// predictOne answers POST /predict, whose clients know one model.
func (h *handler) predictOne(w http.ResponseWriter, r *http.Request) error {
	return h.ask(w, r, h.readPrediction)
}

func (h *handler) readPrediction(r *http.Request, body []byte) (*question, error) {
	var asked predictionRequest
	if err := protocol.Unmarshal(body, &asked); err != nil {
		return nil, err
	}
	if d := asked.Direction; d != nil && *d != "Right" {
		return nil, badRequest("truncation_direction: expected Right, found %s", quote.Name(*d))
	}
	texts, seconds, batch, err := predictionInputs(asked.Inputs)
	if err != nil {
		return nil, err
	}
	tensors := []protocol.Tensor{bytesOf(textInput, texts)}
	if slices.ContainsFunc(seconds, func(second protocol.JSON) bool { return second != nil }) {
		tensors = append(tensors, bytesOf(pairInput, seconds))
	}
	return &question{
		request: server.Request{Model: h.modelOf(r, asked.Model), Inputs: tensors, EveryLabel: true},
		write: func(answers *server.Answers) (any, error) {
			if asked.Truncate != nil && !*asked.Truncate {
				if err := h.checkUncut(answers); err != nil {
					return nil, err
				}
			}
			return predictions(answers, asked.RawScores, batch)
		},
	}, nil
}

// predictionInputs are the texts of "inputs", and the second of each pair: "a" and ["a"] are one text, ["a", "b"] is a
// pair; a list of such lists is a batch.
func predictionInputs(value jsontext.Value) (texts, seconds []protocol.JSON, batch bool, err error) {
	rows, list, err := listed("inputs", value)
	if err != nil {
		return nil, nil, false, err
	}
	batch = jsontext.Value(rows[0]).Kind() == '['
	if !batch && list {
		rows = []protocol.JSON{protocol.JSON(value)}
	}
	for i, row := range rows {
		input := []protocol.JSON{row}
		if list {
			if input, err = protocol.Split(jsontext.Value(row), 2); err != nil || len(input) == 0 {
				return nil, nil, false, badRequest("inputs: row %d: expected a list of one text, or of two that are a pair", i)
			}
		}
		var second protocol.JSON
		for _, text := range input {
			if jsontext.Value(text).Kind() != '"' {
				return nil, nil, false, badRequest("inputs: row %d: expected texts, found %s", i, quote.Text(string(text)))
			}
		}
		if len(input) == 2 {
			second = input[1]
		}
		texts, seconds = append(texts, input[0]), append(seconds, second)
	}
	return texts, seconds, batch, nil
}

// checkUncut refuses answers to texts that may have been cut. One of just as many tokens as the model reads is refused,
// too: it cannot be told from a longer one any more.
func (h *handler) checkUncut(answers *server.Answers) error {
	most := h.server.MaxTokens()
	for i := range answers.Rows {
		if answers.Rows[i].Read >= most {
			return server.Errorf(http.StatusRequestEntityTooLarge,
				"truncate: row %d: expected a text of less than %d tokens, as it must not be cut, found as many or more", i, most)
		}
	}
	return nil
}

func predictions(answers *server.Answers, raw, batch bool) (any, error) {
	if err := sequencesOnly(answers); err != nil {
		return nil, err
	}
	rows, err := each(answers, func(_ int, a *server.Answer) ([]labelScore, error) {
		if raw {
			return ranked(a, a.Logits), nil
		}
		return ranked(a, a.Probabilities()), nil
	})
	if err != nil || batch {
		return rows, err
	}
	return rows[0], nil
}

// modelInfo is of what text-embeddings-inference tells of its model that which is so here.
type modelInfo struct {
	ModelID      string    `json:"model_id"`
	ModelSHA     string    `json:"model_sha"`
	Type         modelType `json:"model_type"`
	MaxInput     int       `json:"max_input_length,omitzero"` // tokens
	MaxBatch     int       `json:"max_client_batch_size"`
	AutoTruncate bool      `json:"auto_truncate"`
	Version      string    `json:"version"`
}

// modelType has a classifier, unless the model answers for each token, or nothing.
type modelType struct {
	Classifier *classifierInfo `json:"classifier,omitzero"`
}

type classifierInfo struct {
	Labels map[string]string `json:"id2label"`
	IDs    map[string]int    `json:"label2id"`
}

func newClassifier(labels []string) *classifierInfo {
	c := &classifierInfo{make(map[string]string), make(map[string]int)}
	for i, label := range labels {
		c.Labels[strconv.Itoa(i)], c.IDs[label] = label, i
	}
	return c
}

// info answers GET /info.
func (h *handler) info(w http.ResponseWriter, r *http.Request) error {
	m, err := h.server.Find(h.modelOf(r, ""), "")
	if err != nil {
		return err
	}
	told := modelInfo{
		ModelID: m.Name, ModelSHA: m.Revision, MaxBatch: h.server.MaxRows(), AutoTruncate: true, Version: server.Version(),
	}
	if h.source() == textInput {
		told.MaxInput = h.server.MaxTokens()
	}
	if len(m.Labels) > 0 && !m.OfTokens() {
		told.Type.Classifier = newClassifier(m.Labels)
	}
	writeJSON(w, http.StatusOK, told)
	return nil
}
