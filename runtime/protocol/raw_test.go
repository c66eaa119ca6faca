package protocol

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

const finiteNumbers = "\x00\x00\x80\x3f\x00\x00\x00\x00\x00\x00\x00\xc0\xff\xff\x7f\xff" // 1, 0, -2, the lowest

// Data in binary is what its bytes say, or an error that says which row is not.
func TestRawData(t *testing.T) {
	floats := func(t *Tensor, shape []int) (any, error) { return t.Floats(shape) }
	integers := func(t *Tensor, shape []int) (any, error) { return t.Integers(shape) }
	texts := func(t *Tensor, shape []int) (any, error) { return t.Texts(shape) }
	for name, c := range map[string]struct {
		datatype string
		shape    []int
		data     string
		read     func(t *Tensor, shape []int) (any, error)
		want     any
		err      string
	}{
		"floats": {FP32, []int{2, 2}, finiteNumbers, floats, []float32{1, 0, -2, -math.MaxFloat32}, ""},
		"a float that is none": {
			FP32,
			[]int{2, 2},
			finiteNumbers[:12] + "\x01\x00\x80\x7f", floats, nil,
			`input "x": row 1: expected a finite FP32, found NaN`,
		},
		"an infinite float": {
			FP32, []int{4}, "\x00\x00\x80\xff" + finiteNumbers[:12], floats, nil, `row 0: expected a finite FP32, found -Inf`,
		},
		"a byte too few": {
			FP32,
			[]int{2, 2},
			finiteNumbers[:15], floats, nil,
			`input "x": expected [2, 2] numbers of 4 bytes each, found 15 bytes`,
		},
		"a number too many":    {FP32, []int{3}, finiteNumbers, floats, nil, "expected [3] numbers of 4 bytes each"},
		"more than there is":   {FP32, []int{1 << 31, 1 << 31, 4}, finiteNumbers, floats, nil, "found 16 bytes"},
		"a product beyond all": {FP32, []int{1 << 31, 1 << 31, 1 << 31}, finiteNumbers, floats, nil, "found 16 bytes"},
		"integers": {
			INT64, []int{2}, "\x07\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff", integers, []int32{7, -1}, "",
		},
		"an integer beyond an int32": {
			INT64,
			[]int{1},
			"\x00\x00\x00\x80\x00\x00\x00\x00", integers, nil,
			"row 0: expected an integer from -2147483648 to 2147483647, found 2147483648",
		},
		"texts": {BYTES, []int{3}, "\x01\x00\x00\x00a\x00\x00\x00\x00\x02\x00\x00\x00é", texts, []string{"a", "", "é"}, ""},
		"no text": {
			BYTES,
			[]int{2},
			"\x01\x00\x00\x00a\x02\x00\x00\x00\xc3\x28", texts, nil,
			`input "x": row 1: expected a text in UTF-8, found "\xc3("`,
		},
		"a length beyond the end": {
			BYTES,
			[]int{2},
			"\x01\x00\x00\x00a\xff\xff\xff\xffb", texts, nil,
			"row 1: expected 4294967295 bytes, as its length says, found 1",
		},
		"half a length": {
			BYTES, []int{2}, "\x03\x00\x00\x00abc\x00", texts, nil, "row 1: expected its length of 4 bytes, found 1 bytes",
		},
		"bytes behind the last": {
			BYTES, []int{1}, "\x01\x00\x00\x00ab", texts, nil, `input "x": expected [1] elements, found 1 bytes behind them`,
		},
		"a million rows": {
			BYTES,
			[]int{1 << 20},
			"\x01\x00\x00\x00ab", texts, nil,
			"expected [1048576] elements, each behind its length of 4 bytes, found 6 bytes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tensor := &Tensor{Name: "x", Datatype: c.datatype, Data: Raw(c.data)}
			found, err := c.read(tensor, c.shape)
			switch {
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("expected %q, found %v", c.err, err)
			case c.err == "" && (err != nil || !reflect.DeepEqual(found, c.want)):
				t.Errorf("expected %v, found %v, error %v", c.want, found, err)
			}
		})
	}
}

// A list is as long as its shape says, and of the datatype that is asked.
func TestLists(t *testing.T) {
	for _, c := range []struct {
		data Data
		err  string
	}{
		{Floats{1, 2}, ""},
		{Floats{1}, "expected [2] elements, found 1"},
		{Floats{1, float32(math.Inf(1))}, "row 1: expected a finite FP32"},
		{Integers{1, 2}, `expected contents of the datatype "FP32", found others`},
		{Bytes{nil, nil}, `expected contents of the datatype "FP32", found others`},
	} {
		tensor := &Tensor{Name: "x", Datatype: FP32, Data: c.data}
		values, err := tensor.Floats([]int{2})
		switch {
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%v: expected %q, found %v", c.data, c.err, err)
		case c.err == "" && (err != nil || len(values) != 2):
			t.Errorf("%v: expected two values, found %v, error %v", c.data, values, err)
		}
	}
}

// What is behind the JSON is the inputs' in their order, to the byte.
func TestBinaryRequests(t *testing.T) {
	const two = `{"inputs": [{"name": "a", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
		{"name": "b", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}]}`
	r, err := Decode([]byte(two+"\x00\x00\x80\x3f\x01\x00\x00\x00x"), len(two))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r.Inputs[0].Data, Raw("\x00\x00\x80\x3f")) ||
		!reflect.DeepEqual(r.Inputs[1].Data, Raw("\x01\x00\x00\x00x")) {
		t.Errorf("found %v", r.Inputs)
	}
	input := func(rest string) string {
		return `{"inputs": [{"name": "a", "datatype": "FP32", "shape": [1]` + rest + `}]}`
	}
	for _, c := range []struct {
		json, behind string
		all          bool // all is JSON
		err          string
	}{
		{two, "1234", false, `input "b": binary_data_size: expected 5 bytes behind the JSON, found 0`},
		{two, "1234567890", false, "as many bytes behind the JSON as the inputs' binary_data_size say, found 1 more"},
		{two, "", true, `input "a": binary_data_size: expected the header Inference-Header-Content-Length beside it`},
		{
			input(`, "data": [1], "parameters": {"binary_data_size": 4}`), "1234", false,
			`input "a": expected data or binary_data_size, found both`,
		},
		{
			input(`, "parameters": {"binary_data_size": -1}`), "", false,
			`input "a": binary_data_size: expected a number of bytes, found -1`,
		},
		{
			input(`, "parameters": {"binary_data_size": 18446744073709551616}`), "", false,
			"expected a number of bytes, found 18446744073709551616",
		},
		{
			input(`, "parameters": {"shared_memory_region": "x"}`), "", true,
			`input "a": parameter "shared_memory_region" is not supported`,
		},
		{`{"parameters": {"binary_data_output": 1}}`, "", true, "binary_data_output: expected true or false, found 1"},
		{`{"parameters": {"timeout": -1}}`, "", true, "the request: timeout: expected a number of microseconds, found -1"},
		{`{"parameters": {"priority": 1}}`, "", true, `the request: parameter "priority" is not supported`},
	} {
		length := len(c.json)
		if c.all {
			length = AllJSON
		}
		if _, err := Decode([]byte(c.json+c.behind), length); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: expected %q, found %v", c.json, c.err, err)
		}
	}
}
