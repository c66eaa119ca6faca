// Package wrappers builds what tests are fed with, so that a test reads as a sentence.
package wrappers

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"
)

// Tensor is one tensor of a safetensors file. Nothing is checked, so that tests can build wrong ones.
type Tensor struct {
	Name, DType string
	Shape       []int
	Data        []byte
}

// F32 is a tensor of float32 values; no shape makes it a scalar.
func F32(name string, values []float32, shape ...int) Tensor {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return Tensor{name, "F32", shape, data}
}

// bfloat16 is a tensor of float32 as one of bfloat16: the upper halves of its values. One that it is already stays so.
func (t Tensor) bfloat16() Tensor {
	if t.DType == "BF16" {
		return t
	}
	data := make([]byte, 0, len(t.Data)/2)
	for i := 0; i < len(t.Data); i += 4 {
		data = append(data, t.Data[i+2], t.Data[i+3])
	}
	return Tensor{t.Name, "BF16", t.Shape, data}
}

// Safetensors writes the tensors one behind the other in the order given, as the format's own library does: with its
// metadata, and the header padded to a multiple of eight bytes.
func Safetensors(tensors ...Tensor) []byte {
	header := []byte(`{"__metadata__":{"format":"pt"}`)
	var data []byte
	for _, t := range tensors {
		begin := len(data)
		data = append(data, t.Data...)
		header = append(header, ',')
		header = appendJSON(header, t.Name)
		header = append(header, ':')
		header = appendJSON(header, struct {
			DType   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}{t.DType, append([]int{}, t.Shape...), [2]int{begin, len(data)}})
	}
	header = append(header, '}')
	header = append(header, strings.Repeat(" ", -len(header)&7)...)

	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	file = append(file, header...)
	return append(file, data...)
}

func appendJSON(to []byte, value any) []byte {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings and integers always marshal
	}
	return append(to, raw...)
}
