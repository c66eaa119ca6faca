package protocol

import (
	"encoding/binary"
	"math"

	"github.com/go-json-experiment/json"
)

// responseJSON answers an infer request.
type responseJSON struct {
	ModelName    string             `json:"model_name"`
	ModelVersion string             `json:"model_version"`
	ID           string             `json:"id,omitempty"`
	Outputs      []outputTensorJSON `json:"outputs"`
}

// Output is a tensor of an answer.
type Output struct {
	Name     string
	Datatype string
	Shape    []int
	Data     any // flat: []float32 of FP32, []int32 of INT32, []string of BYTES
}

// outputTensorJSON is an output as a response's JSON has it: with its data, or with the number of bytes that it takes
// behind the JSON.
type outputTensorJSON struct {
	Name       string            `json:"name"`
	Datatype   string            `json:"datatype"`
	Shape      []int             `json:"shape"`
	Parameters *binaryParameters `json:"parameters,omitzero"`
	Data       any               `json:"data,omitzero"`
}

type binaryParameters struct {
	Size int `json:"binary_data_size"`
}

// Encode writes an answer to a request: JSON of jsonLength bytes, and the outputs in binary behind it; jsonLength is
// AllJSON if there are none.
func (r *Request) Encode(model, version string, outputs []Output) (body []byte, jsonLength int, err error) {
	response := responseJSON{model, version, r.ID, make([]outputTensorJSON, len(outputs))}
	jsonLength = AllJSON
	var behind [][]byte
	for i, o := range outputs {
		response.Outputs[i] = outputTensorJSON{Name: o.Name, Datatype: o.Datatype, Shape: o.Shape, Data: o.Data}
		if r.InBinary(o.Name) {
			raw := o.Raw()
			behind = append(behind, raw)
			response.Outputs[i].Data, response.Outputs[i].Parameters = nil, &binaryParameters{len(raw)}
		}
	}
	if body, err = json.Marshal(&response); err != nil || behind == nil {
		return body, jsonLength, err
	}
	jsonLength = len(body)
	for _, raw := range behind {
		body = append(body, raw...)
	}
	return body, jsonLength, nil
}

// Raw is the output's data in binary.
func (o *Output) Raw() []byte {
	var raw []byte
	switch data := o.Data.(type) {
	case []float32:
		raw = make([]byte, 0, sizes[FP32]*len(data))
		for _, v := range data {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		}
	case []int32:
		raw = make([]byte, 0, sizes[INT32]*len(data))
		for _, v := range data {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(v)) //nolint:gosec // the same bits
		}
	case []string:
		for _, v := range data {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(len(v))) //nolint:gosec // labels and entities are short
			raw = append(raw, v...)
		}
	}
	return raw
}
