package rest

import (
	"cmp"
	"errors"
	"math"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/server"
)

// question is a request of one of the forms beside the Open Inference Protocol, made into the server's.
type question struct {
	request server.Request
	// write makes the JSON of the answers, or says why they are none in this form.
	write func(*server.Answers) (any, error)
}

// read makes a question of a request and its body. What it keeps of the body it has copied: the body's memory is free
// once it returns.
type read func(r *http.Request, body []byte) (*question, error)

// ask answers a form: JSON, or a body of the media types that it takes beside it.
func (h *handler) ask(w http.ResponseWriter, r *http.Request, read read, also ...string) error {
	call, err := h.server.Begin()
	if err != nil {
		return err
	}
	defer call.End()
	ctx, cancel, err := deadline(r)
	if err != nil {
		return err
	}
	defer cancel()
	if err := checkMediaType(r.Header, also...); err != nil {
		return err
	}
	body, err := h.readBody(w, r, call)
	if err != nil {
		return err
	}
	q, err := read(r, body)
	if err != nil {
		return err
	}
	answers, err := call.Answer(ctx, &q.request)
	if err != nil {
		return err
	}
	answer, err := q.write(answers)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	call.KeepAnswer(int64(len(raw)))
	writeRaw(w, http.StatusOK, jsonType, raw)
	return nil
}

// Media types of bodies.
const (
	jsonType   = "application/json"
	binaryType = "application/octet-stream"
	imageTypes = "image/"
	// curlType is what curl says of every body of its -d, where it is told nothing: as much as nothing.
	curlType = "application/x-www-form-urlencoded"
)

// mediaType is the body's, without its parameters; "" where nothing is said of it.
func mediaType(header http.Header) string {
	said := header.Get("Content-Type")
	name, _, err := mime.ParseMediaType(said)
	if err != nil && said != "" {
		return said // which nobody takes
	}
	if name == curlType {
		return ""
	}
	return name
}

// checkMediaType refuses a body that is said to be neither JSON nor of the other media types; one that ends in a slash
// stands for all that begin so.
func checkMediaType(header http.Header, also ...string) error {
	name := mediaType(header)
	taken := append([]string{jsonType}, also...)
	if name == "" || slices.ContainsFunc(taken, func(t string) bool {
		return name == t || strings.HasSuffix(t, "/") && strings.HasPrefix(name, t)
	}) {
		return nil
	}
	return server.Errorf(http.StatusUnsupportedMediaType, "content type: expected one of %v, found %s",
		taken, quote.Name(name))
}

// maxListed bounds the rows that a form lists; how many a request may have is the server's word, and less.
const maxListed = 1 << 10

// Inputs of the server that forms make tensors of.
const (
	textInput    = "text"
	pairInput    = "text_pair"
	imageInput   = "image"
	idsInput     = "input_ids"
	maskInput    = "attention_mask"
	typesInput   = "token_type_ids"
	pixelsInput  = "pixel_values"
	adapterInput = "adapter"
)

// given tells whether a member is there, and not null.
func given(value jsontext.Value) bool { return value != nil && value.Kind() != 'n' }

// listed are the rows of a member that has one of them, or a list.
func listed(member string, value jsontext.Value) (rows []protocol.JSON, list bool, err error) {
	if !given(value) {
		return nil, false, badRequest("%s: expected one or more, found none", member)
	}
	if value.Kind() != '[' {
		return []protocol.JSON{protocol.JSON(value)}, false, nil
	}
	rows, err = protocol.Split(value, maxListed)
	if err == nil && len(rows) == 0 {
		err = errors.New("expected at least one, found none")
	}
	if err != nil {
		return nil, false, badRequest("%s: %v", member, err)
	}
	return rows, true, nil
}

// bytesOf is a tensor BYTES [B] of rows that are strings.
func bytesOf(name string, rows []protocol.JSON) protocol.Tensor {
	return protocol.Tensor{
		Name: name, Datatype: protocol.BYTES, Shape: []int64{int64(len(rows))}, Data: protocol.Rows(rows),
	}
}

// idsTensors are INT64 [B, S] of rows of ids, S that of the longest, with a mask where there is one or they differ in
// length; mask and types are nil, or have a row for each that is nil where there is none.
func idsTensors(ids, mask, types []protocol.JSON) []protocol.Tensor {
	longest, shortest := 0, math.MaxInt
	for _, row := range ids {
		longest, shortest = max(longest, row.Length()), min(shortest, row.Length())
	}
	integers := func(name string, rows []protocol.JSON) protocol.Tensor {
		return protocol.Tensor{
			Name: name, Datatype: protocol.INT64, Shape: []int64{int64(len(rows)), int64(longest)}, Data: protocol.Rows(rows),
		}
	}
	tensors := []protocol.Tensor{integers(idsInput, ids)}
	if mask != nil || shortest < longest {
		masks := make([]protocol.JSON, len(ids))
		copy(masks, mask)
		for i, row := range ids {
			if masks[i] == nil {
				masks[i] = ones(row.Length())
			}
		}
		tensors = append(tensors, integers(maskInput, masks))
	}
	if types != nil {
		for i := range types {
			if types[i] == nil {
				types[i] = protocol.JSON("[]") // filled up with zeros
			}
		}
		tensors = append(tensors, integers(typesInput, types))
	}
	return tensors
}

// ones is a list of n of them.
func ones(n int) protocol.JSON {
	return protocol.JSON("[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]")
}

// source is what a string stands for where nothing says it: an image in base64 where the base takes any, else a text.
func (h *handler) source() string {
	if h.server.Takes(imageInput) {
		return imageInput
	}
	return textInput
}

// labelScore is a label of a row's answer.
type labelScore struct {
	Label string  `json:"label"`
	Score float32 `json:"score"`
}

// ranked are all labels of a row with their scores, the best first; of equal ones that of the larger logit.
func ranked(a *server.Answer, scores []float32) []labelScore {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		return cmp.Or(cmp.Compare(scores[j], scores[i]), cmp.Compare(a.Logits[j], a.Logits[i]))
	})
	labels := make([]labelScore, len(order))
	for at, i := range order {
		labels[at] = labelScore{a.Model.Labels[i], scores[i]}
	}
	return labels
}

// sequencesOnly refuses answers for each token, in a form that has no place for them.
func sequencesOnly(answers *server.Answers) error {
	for i := range answers.Rows {
		if a := &answers.Rows[i]; a.Tokens != nil {
			return badRequest("row %d: the model %s classifies tokens, which this form has no place for: ask it by POST /",
				i, quote.Name(a.Model.Name))
		}
	}
	return nil
}

// entitiesOf are those of a row, where it is a text alone.
func entitiesOf(row int, a *server.Answer) ([]server.Entity, error) {
	if a.Entities == nil {
		return nil, badRequest("row %d: the model %s classifies tokens: it finds entities in text, and not in pairs or ids",
			row, quote.Name(a.Model.Name))
	}
	return a.Entities, nil
}

// each makes a list of what is made of each row.
func each[T any](answers *server.Answers, of func(i int, a *server.Answer) (T, error)) ([]T, error) {
	all := make([]T, len(answers.Rows))
	for i := range answers.Rows {
		var err error
		if all[i], err = of(i, &answers.Rows[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}
