package rpc

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// requestOf is the protocol's request that a message is. It shares the message's memory.
func requestOf(m *inference.ModelInferRequest) (*protocol.Request, error) {
	r := &protocol.Request{ID: m.GetId(), Model: m.GetModelName(), Binary: true}
	parameters, err := parametersOf(m.GetParameters())
	if err != nil {
		return nil, err
	}
	if err := parameters.Only(protocol.TheRequest, protocol.Timeout); err != nil {
		return nil, err
	}
	if r.Timeout, err = parameters.Timeout(); err != nil {
		return nil, err
	}
	raw := m.GetRawInputContents()
	if len(raw) > 0 && len(raw) != len(m.GetInputs()) {
		return nil, protocol.Errorf("raw_input_contents: expected one for each of %d inputs, or none, found %d",
			len(m.GetInputs()), len(raw))
	}
	for i, in := range m.GetInputs() {
		t := protocol.Tensor{Name: in.GetName(), Datatype: in.GetDatatype(), Shape: in.GetShape()}
		if len(raw) > 0 {
			t.Data = protocol.Raw(raw[i])
		}
		if err := fill(&t, in); err != nil {
			return nil, err
		}
		r.Inputs = append(r.Inputs, t)
	}
	for _, out := range m.GetOutputs() {
		parameters, err := parametersOf(out.GetParameters())
		if err != nil {
			return nil, err
		}
		if err := parameters.Only("output " + quote.Name(out.GetName())); err != nil {
			return nil, err
		}
		r.Outputs = append(r.Outputs, protocol.Wanted{Name: out.GetName(), Binary: true})
	}
	return r, r.Check()
}

// fill takes a tensor's data from its contents, unless it has some that is raw, and holds it to what its parameters
// say.
func fill(t *protocol.Tensor, in *inference.ModelInferRequest_InferInputTensor) error {
	where := "input " + quote.Name(t.Name)
	parameters, err := parametersOf(in.GetParameters())
	if err != nil {
		return err
	}
	if err := parameters.Only(where, protocol.BinarySize); err != nil {
		return err
	}
	size, said, err := parameters.Size(where)
	if err != nil {
		return err
	}
	given := in.GetContents()
	if t.Data == nil {
		if said {
			return protocol.Errorf("%s: %s: expected raw_input_contents beside it, found none", where, protocol.BinarySize)
		}
		t.Data, err = listOf(where, t.Datatype, given)
		return err
	}
	if given != nil {
		return protocol.Errorf("%s: expected contents or raw_input_contents, found both", where)
	}
	if n := t.Data.Size(); said && size != uint64(n) { //nolint:gosec // a length is not negative
		return protocol.Errorf("%s: %s: expected %d bytes of raw_input_contents, found %d",
			where, protocol.BinarySize, size, n)
	}
	return nil
}

// listOf is the list of a datatype. Of other datatypes than those that any input has, there is none: they are refused
// with the input's.
func listOf(where, datatype string, c *inference.InferTensorContents) (protocol.Data, error) {
	lists := []struct {
		name, datatype string
		n              int
		data           protocol.Data
	}{
		{"fp32_contents", protocol.FP32, len(c.GetFp32Contents()), protocol.Floats(c.GetFp32Contents())},
		{"int64_contents", protocol.INT64, len(c.GetInt64Contents()), protocol.Integers(c.GetInt64Contents())},
		{"bytes_contents", protocol.BYTES, len(c.GetBytesContents()), protocol.Bytes(c.GetBytesContents())},
		{"int_contents", protocol.INT32, len(c.GetIntContents()), nil},
		{"bool_contents", "", len(c.GetBoolContents()), nil},
		{"uint_contents", "", len(c.GetUintContents()), nil},
		{"uint64_contents", "", len(c.GetUint64Contents()), nil},
		{"fp64_contents", "", len(c.GetFp64Contents()), nil},
	}
	var data protocol.Data = protocol.Bytes(nil)
	for _, l := range lists {
		switch {
		case l.datatype == datatype && l.data != nil:
			data = l.data
		case l.n > 0 && l.datatype != datatype && expected(datatype) != "":
			return nil, protocol.Errorf("%s: expected contents of the datatype %s in %s, found %s",
				where, quote.Name(datatype), expected(datatype), l.name)
		}
	}
	return data, nil
}

// expected is the name of a datatype's list, "" if no input has that datatype.
func expected(datatype string) string {
	return map[string]string{
		protocol.FP32: "fp32_contents", protocol.INT64: "int64_contents", protocol.BYTES: "bytes_contents",
	}[datatype]
}

// parametersOf are a message's parameters, each as its JSON is.
func parametersOf(given map[string]*inference.InferParameter) (protocol.Parameters, error) {
	parameters := make(protocol.Parameters, len(given))
	for name, parameter := range given {
		value, err := valueOf(parameter)
		if err != nil {
			return nil, protocol.Errorf("parameter %s: %v", quote.Name(name), err)
		}
		parameters[name] = value
	}
	return parameters, nil
}

func valueOf(parameter *inference.InferParameter) (jsontext.Value, error) {
	switch choice := parameter.GetParameterChoice().(type) {
	case *inference.InferParameter_BoolParam:
		return json.Marshal(choice.BoolParam)
	case *inference.InferParameter_Int64Param:
		return json.Marshal(choice.Int64Param)
	case *inference.InferParameter_StringParam:
		return json.Marshal(choice.StringParam)
	case *inference.InferParameter_DoubleParam:
		return json.Marshal(choice.DoubleParam) // not of one that is not finite
	case *inference.InferParameter_Uint64Param:
		return json.Marshal(choice.Uint64Param)
	}
	return jsontext.Value("null"), nil
}
