package rpc_test

import (
	"encoding/binary"
	"math"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
)

type (
	request  = inference.ModelInferRequest
	input    = inference.ModelInferRequest_InferInputTensor
	contents = inference.InferTensorContents
)

// rawBytes are elements of BYTES, each behind its length.
func rawBytes(elements ...[]byte) (raw []byte) {
	for _, e := range elements {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(len(e)))
		raw = append(raw, e...)
	}
	return raw
}

func rawFloats(values ...float32) (raw []byte) {
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return raw
}

func asBytes(texts ...string) [][]byte {
	elements := make([][]byte, len(texts))
	for i, text := range texts {
		elements[i] = []byte(text)
	}
	return elements
}

// raw asks about images, and of adapters if there are any, in raw_input_contents.
func raw(images [][]byte, names ...string) *request {
	r := &request{
		ModelName:        "digits",
		Inputs:           []*input{{Name: "image", Datatype: "BYTES", Shape: []int64{int64(len(images))}}},
		RawInputContents: [][]byte{rawBytes(images...)},
	}
	if len(names) > 0 {
		r.Inputs = append(r.Inputs, &input{Name: "adapter", Datatype: "BYTES", Shape: []int64{int64(len(names))}})
		r.RawInputContents = append(r.RawInputContents, rawBytes(asBytes(names...)...))
	}
	return r
}

// typed is raw in the lists of the datatypes.
func typed(images [][]byte, names ...string) *request {
	r := raw(images, names...)
	r.RawInputContents = nil
	r.Inputs[0].Contents = &contents{BytesContents: images}
	if len(names) > 0 {
		r.Inputs[1].Contents = &contents{BytesContents: asBytes(names...)}
	}
	return r
}

// pixels asks about images of one value each, in a list.
func pixels(values ...float32) *request {
	const size = 3 * 32 * 32
	list := make([]float32, 0, size*len(values))
	for _, v := range values {
		for range size {
			list = append(list, v)
		}
	}
	return &request{ModelName: "digits", Inputs: []*input{{
		Name: "pixel_values", Datatype: "FP32", Shape: []int64{int64(len(values)), 3, 32, 32},
		Contents: &contents{Fp32Contents: list},
	}}}
}

// rawPixels is pixels in raw_input_contents.
func rawPixels(values ...float32) *request {
	r := pixels(values...)
	r.RawInputContents = [][]byte{rawFloats(r.Inputs[0].Contents.Fp32Contents...)}
	r.Inputs[0].Contents = nil
	return r
}

// with changes a request.
func with(r *request, change func(*request)) *request {
	change(r)
	return r
}

func parameter(value any) *inference.InferParameter {
	switch v := value.(type) {
	case bool:
		return &inference.InferParameter{ParameterChoice: &inference.InferParameter_BoolParam{BoolParam: v}}
	case int:
		return &inference.InferParameter{ParameterChoice: &inference.InferParameter_Int64Param{Int64Param: int64(v)}}
	case uint64:
		return &inference.InferParameter{ParameterChoice: &inference.InferParameter_Uint64Param{Uint64Param: v}}
	case float64:
		return &inference.InferParameter{ParameterChoice: &inference.InferParameter_DoubleParam{DoubleParam: v}}
	case string:
		return &inference.InferParameter{ParameterChoice: &inference.InferParameter_StringParam{StringParam: v}}
	}
	return &inference.InferParameter{}
}

// named is one parameter.
func named(name string, value any) map[string]*inference.InferParameter {
	return map[string]*inference.InferParameter{name: parameter(value)}
}
