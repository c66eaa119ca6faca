package rest

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/server"
)

// predictRequest is what V1 takes.
type predictRequest struct {
	Instances jsontext.Value `json:"instances"`
}

// instance is a row of V1: its members are a row each of the tensors of those names, but for the image.
type instance map[string]jsontext.Value

// encodedImage is an image as V1 writes bytes.
type encodedImage struct {
	B64 jsontext.Value `json:"b64"`
}

// sources are what an instance may be made of, one of them, with what may stand beside it.
var sources = map[string][]string{
	textInput: {pairInput}, imageInput: nil, idsInput: {maskInput, typesInput}, pixelsInput: nil,
}

// predict answers POST /v1/models/{model}:predict.
func (h *handler) predict(w http.ResponseWriter, r *http.Request) error {
	if _, err := h.server.Find(r.PathValue("model"), ""); err != nil { // before the body is read
		return err
	}
	return h.ask(w, r, h.readInstances)
}

func (h *handler) readInstances(r *http.Request, body []byte) (*question, error) {
	var asked predictRequest
	if err := protocol.Unmarshal(body, &asked, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	rows, list, err := listed("instances", asked.Instances)
	if err == nil && !list {
		err = badRequest("instances: expected a list, found %s", quote.Text(string(asked.Instances)))
	}
	if err != nil {
		return nil, err
	}
	all := make(instances, len(rows))
	first := ""
	for i, row := range rows {
		source, err := all[i].read(row)
		if err == nil && i > 0 && source != first {
			err = fmt.Errorf("expected %s, as row 0 has it, found %s", first, source)
		}
		if err != nil {
			return nil, badRequest("instances: row %d: %v", i, err)
		}
		first = source
	}
	tensors, err := all.tensors(first)
	if err != nil {
		return nil, err
	}
	return &question{
		request: server.Request{Model: h.modelOfPath(r), Inputs: tensors, EveryLabel: true}, write: predictionsOf,
	}, nil
}

// read reads an instance, and tells which of the sources it is made of.
func (in *instance) read(row protocol.JSON) (source string, err error) {
	if err := protocol.Unmarshal(row, in); err != nil {
		return "", err
	}
	maps.DeleteFunc(*in, func(_ string, value jsontext.Value) bool { return !given(value) })
	var found, others []string
	for _, name := range slices.Sorted(maps.Keys(*in)) {
		if _, ok := sources[name]; ok {
			found = append(found, name)
		} else if name != adapterInput {
			others = append(others, name)
		}
	}
	for _, name := range others {
		if len(found) == 0 || !slices.Contains(sources[found[0]], name) {
			return "", fmt.Errorf("member %s is not one of %v%s", quote.Name(name), slices.Sorted(maps.Keys(sources)),
				", or of those that may stand beside them")
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("expected one of %v, found %d of them", slices.Sorted(maps.Keys(sources)), len(found))
	}
	if encoded, ok := (*in)[imageInput]; ok {
		var image encodedImage
		if err := protocol.Unmarshal(encoded, &image, json.RejectUnknownMembers(true)); err != nil {
			return "", fmt.Errorf(`image: expected {"b64": "…"}: %w`, err)
		}
		(*in)[imageInput] = image.B64
	}
	return found[0], nil
}

// instances are the rows of a request.
type instances []instance

// column is a member of each instance, nil where it has none; nil if all have none.
func (all instances) column(name string) []protocol.JSON {
	rows, any := make([]protocol.JSON, len(all)), false
	for i, in := range all {
		value, ok := in[name]
		rows[i], any = protocol.JSON(value), any || ok
	}
	if !any {
		return nil
	}
	return rows
}

// tensors are the instances as the server takes them.
func (all instances) tensors(source string) (tensors []protocol.Tensor, err error) {
	rows := all.column(source)
	switch source {
	case idsInput:
		mask, types := all.column(maskInput), all.column(typesInput)
		if err := errors.Join(sameLengths(rows, maskInput, mask), sameLengths(rows, typesInput, types)); err != nil {
			return nil, err
		}
		tensors = idsTensors(rows, mask, types)
	case pixelsInput:
		tensors = []protocol.Tensor{{
			Name: source, Datatype: protocol.FP32, Shape: append([]int64{int64(len(rows))}, rows[0].Shape()...),
			Data: protocol.Rows(rows),
		}}
	default:
		tensors = []protocol.Tensor{bytesOf(source, rows)}
		if pairs := all.column(pairInput); pairs != nil {
			tensors = append(tensors, bytesOf(pairInput, pairs))
		}
	}
	if adapters := all.column(adapterInput); adapters != nil {
		tensor, err := adaptersTensor(adapters)
		if err != nil {
			return nil, err
		}
		tensors = append(tensors, tensor)
	}
	return tensors, nil
}

// sameLengths holds what stands beside ids to their length: what is shorter is filled up only for a batch's sake.
func sameLengths(ids []protocol.JSON, name string, rows []protocol.JSON) error {
	for i, row := range rows {
		if want, found := ids[i].Length(), row.Length(); row != nil && found != want {
			return badRequest("instances: row %d: %s: expected %d elements, as %s has, found %d", i, name, want, idsInput, found)
		}
	}
	return nil
}

// adaptersTensor is BYTES [B], or [B, K] where each instance is asked of K adapters. An instance that names none asks
// the base.
func adaptersTensor(rows []protocol.JSON) (protocol.Tensor, error) {
	shape := append([]int64{int64(len(rows))}, rows[0].Shape()...)
	for i, row := range rows {
		if row == nil {
			rows[i] = protocol.JSON(`""`)
		}
		if found := rows[i].Shape(); !slices.Equal(found, shape[1:]) {
			return protocol.Tensor{}, badRequest("instances: row %d: adapter: expected a name, "+
				"or as many as row 0 has, found %s", i, quote.Text(string(rows[i])))
		}
	}
	return protocol.Tensor{Name: adapterInput, Datatype: protocol.BYTES, Shape: shape, Data: protocol.Rows(rows)}, nil
}

// prediction is a row's answer: a label, or the entities of a text.
type prediction struct {
	Adapter       string        `json:"adapter"`
	Label         string        `json:"label"`
	Score         float32       `json:"score"`
	Probabilities probabilities `json:"probabilities"`
}

type entitiesPrediction struct {
	Adapter  string          `json:"adapter"`
	Entities []server.Entity `json:"entities"`
}

// predictionsOf are the answers of V1: those of an instance that is asked of several adapters stand side by side.
func predictionsOf(answers *server.Answers) (any, error) {
	predictions, err := each(answers, func(i int, a *server.Answer) (any, error) {
		if a.Tokens != nil {
			entities, err := entitiesOf(i, a)
			return entitiesPrediction{a.Model.Name, entities}, err
		}
		label, score := a.Best()
		return prediction{a.Model.Name, label, score, probabilities{a.Model.Labels, a.Probabilities()}}, nil
	})
	return struct {
		Predictions []any `json:"predictions"`
	}{predictions}, err
}

// probabilities are an object of a head's labels, in its order.
type probabilities struct {
	labels []string
	values []float32
}

// MarshalJSONTo writes the object. Labels of one name have the largest of theirs, which is the score if it is the best.
func (p probabilities) MarshalJSONTo(enc *jsontext.Encoder) error {
	largest := make(map[string]float32, len(p.labels))
	for i, label := range p.labels {
		if before, ok := largest[label]; !ok || p.values[i] > before {
			largest[label] = p.values[i]
		}
	}
	if err := enc.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, label := range p.labels {
		value, ok := largest[label]
		if !ok {
			continue // written already
		}
		delete(largest, label)
		if err := errors.Join(enc.WriteToken(jsontext.String(label)), json.MarshalEncode(enc, value)); err != nil {
			return err
		}
	}
	return enc.WriteToken(jsontext.EndObject)
}
