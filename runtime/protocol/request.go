package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Request is what an infer request asks.
type Request struct {
	ID      string
	Model   string // that the body names; "" where it names none
	Inputs  []Tensor
	Outputs []Wanted      // none: all that there are
	Binary  bool          // whether outputs that say nothing of it are answered in binary
	Timeout time.Duration // 0: none
}

// Wanted is an output that a request names.
type Wanted struct {
	Name   string
	Binary bool
}

// InBinary tells whether an output is to be answered in binary.
func (r *Request) InBinary(output string) bool {
	for _, w := range r.Outputs {
		if w.Name == output {
			return w.Binary
		}
	}
	return r.Binary
}

// Names are the outputs that the request names.
func (r *Request) Names() []string {
	names := make([]string, len(r.Outputs))
	for i, w := range r.Outputs {
		names[i] = w.Name
	}
	return names
}

// The parameters that are known: those of the binary tensor extension, and Triton's timeout.
const (
	BinarySize    = "binary_data_size"   // of an input: how many bytes of binary data are its
	binaryOutput  = "binary_data"        // of an output
	binaryOutputs = "binary_data_output" // of a request, for its outputs that say nothing
	Timeout       = "timeout"            // of a request, in microseconds; 0: none
)

// TheRequest is where a request's own parameters are, for an error.
const TheRequest = "the request"

// AllJSON is the length of a request's JSON where nothing is behind it.
const AllJSON = -1

const (
	// MaxMembers bounds every list and object of a request but a tensor's data. The protocol has a handful of inputs,
	// outputs and dimensions, and an empty one takes three bytes of a body and a hundred in memory.
	MaxMembers = 16
	// maxID bounds what a request has sent back to it.
	maxID = 256
)

// requestJSON is a request as its JSON has it.
type requestJSON struct {
	ID         string              `json:"id"`
	ModelName  string              `json:"model_name"` // as KServe's client sends it
	Parameters Parameters          `json:"parameters"`
	Inputs     Bounded[inputJSON]  `json:"inputs"`
	Outputs    Bounded[outputJSON] `json:"outputs"`
}

type inputJSON struct {
	Name       string         `json:"name"`
	Shape      Bounded[int64] `json:"shape"`
	Datatype   string         `json:"datatype"`
	Parameters Parameters     `json:"parameters"`
	Data       jsontext.Value `json:"data"`
}

type outputJSON struct {
	Name       string     `json:"name"`
	Parameters Parameters `json:"parameters"`
}

// Decode reads an infer request: jsonLength bytes of JSON and behind them the binary data of its inputs, in their
// order; or JSON alone, if jsonLength is AllJSON. Unknown and repeated members are errors: what is accepted must count.
func Decode(body []byte, jsonLength int) (*Request, error) {
	text, rest := body, []byte(nil)
	if jsonLength != AllJSON {
		if jsonLength < 0 || jsonLength > len(body) {
			return nil, Errorf("expected %d bytes of JSON, found a body of %d bytes", jsonLength, len(body))
		}
		text, rest = body[:jsonLength], body[jsonLength:]
	}
	var raw requestJSON
	if err := unmarshal(text, &raw, raw.locateInput, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	r := &Request{ID: raw.ID, Model: raw.ModelName}
	if err := r.set(raw.Parameters); err != nil {
		return nil, err
	}
	for i := range raw.Inputs {
		in, err := raw.Inputs[i].tensor(&rest, jsonLength != AllJSON)
		if err != nil {
			return nil, err
		}
		r.Inputs = append(r.Inputs, in)
	}
	if len(rest) > 0 {
		return nil, Errorf("expected as many bytes behind the JSON as the inputs' %s say, found %d more",
			BinarySize, len(rest))
	}
	for _, out := range raw.Outputs {
		where := "output " + quote.Name(out.Name)
		if err := out.Parameters.Only(where, binaryOutput); err != nil {
			return nil, err
		}
		binary, err := out.Parameters.flag(where, binaryOutput, r.Binary)
		if err != nil {
			return nil, err
		}
		r.Outputs = append(r.Outputs, Wanted{out.Name, binary})
	}
	return r, r.Check()
}

// Unmarshal reads a request's JSON in whichever form it is. Repeated members are errors; unknown ones are if the
// options say so.
func Unmarshal(text []byte, into any, options ...json.Options) error {
	return unmarshal(text, into, func(jsontext.Pointer) string { return "" }, options...)
}

// unmarshal is told by locate what is known of the place of an error.
func unmarshal(text []byte, into any, locate func(jsontext.Pointer) string, options ...json.Options) error {
	if tooManyMembers(text) {
		return Errorf("malformed request: expected objects of some members, found thousands of them")
	}
	if err := json.Unmarshal(text, into, options...); err != nil {
		return malformed(err, locate)
	}
	return nil
}

// set carries out a request's own parameters.
func (r *Request) set(given Parameters) (err error) {
	if err := given.Only(TheRequest, binaryOutputs, Timeout); err != nil {
		return err
	}
	if r.Timeout, err = given.Timeout(); err != nil {
		return err
	}
	r.Binary, err = given.flag(TheRequest, binaryOutputs, false)
	return err
}

// Check refuses what no form of a request may have.
func (r *Request) Check() error {
	if len(r.ID) > maxID {
		return Errorf("id: expected at most %d bytes, found %d", maxID, len(r.ID))
	}
	seen := make(map[string]bool)
	for _, in := range r.Inputs {
		if seen[in.Name] {
			return Errorf("input %s is given twice", quote.Name(in.Name))
		}
		seen[in.Name] = true
	}
	return nil
}

// tensor takes an input's binary data of what is behind the JSON, if it has any there.
func (in *inputJSON) tensor(rest *[]byte, binary bool) (Tensor, error) {
	t := Tensor{Name: in.Name, Datatype: in.Datatype, Shape: in.Shape, Data: JSON(in.Data)}
	where := "input " + quote.Name(in.Name)
	if err := in.Parameters.Only(where, BinarySize); err != nil {
		return t, err
	}
	size, said, err := in.Parameters.Size(where)
	switch {
	case err != nil || !said:
		return t, err
	case !binary:
		return t, Errorf("%s: %s: expected the header Inference-Header-Content-Length beside it, found none",
			where, BinarySize)
	case in.Data != nil:
		return t, Errorf("%s: expected data or %s, found both", where, BinarySize)
	case size > uint64(len(*rest)):
		return t, Errorf("%s: %s: expected %d bytes behind the JSON, found %d", where, BinarySize, size, len(*rest))
	}
	t.Data, *rest = Raw((*rest)[:size:size]), (*rest)[size:]
	return t, nil
}

// Bounded is a list of at most MaxMembers.
type Bounded[T any] []T

// UnmarshalJSONFrom fails at the first member beyond the bound.
func (l *Bounded[T]) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if err := open(dec, '[', "a list"); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		if len(*l) == MaxMembers {
			return fmt.Errorf("expected at most %d members, found more", MaxMembers)
		}
		*l = append(*l, *new(T)) // in its place at once: an error within it is told with what is known of it
		if err := json.UnmarshalDecode(dec, &(*l)[len(*l)-1]); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// open reads the token that begins a list or an object.
func open(dec *jsontext.Decoder, begin jsontext.Kind, what string) error {
	if kind := dec.PeekKind(); kind != begin && kind != 0 { // 0 is malformed, and ReadToken says how
		return fmt.Errorf("expected %s, found a JSON %s", what, kind)
	}
	_, err := dec.ReadToken()
	return err
}

// tooManyMembers tells whether JSON has more members of objects than any request: a decoder keeps all names of an
// object, and each takes ten times what it takes in the body.
func tooManyMembers(body []byte) bool {
	const most = 4096
	members := 0
	for len(body) > 0 && members <= most {
		quoted := bytes.IndexByte(body, '"')
		if quoted < 0 {
			quoted = len(body)
		}
		members += bytes.Count(body[:quoted], []byte(":"))
		body = afterString(body[min(quoted+1, len(body)):])
	}
	return members > most
}

// afterString is what follows a JSON string whose quote has been read.
func afterString(body []byte) []byte {
	for {
		end := bytes.IndexByte(body, '"')
		if end < 0 {
			return nil
		}
		escapes := 0
		for escapes < end && body[end-1-escapes] == '\\' {
			escapes++
		}
		body = body[end+1:]
		if escapes%2 == 0 {
			return body
		}
	}
}

// malformed says where in the request an error of the JSON decoder lies.
func malformed(err error, locate func(jsontext.Pointer) string) error {
	pointer, offset, cause := jsontext.Pointer(""), int64(-1), err
	var syntactic *jsontext.SyntacticError
	var semantic *json.SemanticError
	switch {
	case errors.As(err, &syntactic):
		pointer, offset, cause = syntactic.JSONPointer, syntactic.ByteOffset, syntactic.Err
	case errors.As(err, &semantic):
		pointer, offset = semantic.JSONPointer, semantic.ByteOffset
		if cause = semantic.Err; cause == nil {
			cause = fmt.Errorf("cannot read a JSON %s here", semantic.JSONKind)
		}
	}
	where := fmt.Sprintf("at byte %d", offset)
	if pointer != "" {
		where = fmt.Sprintf("at %s (byte %d)", quote.Text(string(pointer)), offset)
	}
	return Errorf("malformed request: %s%s: %v", locate(pointer), where, cause)
}

// locateInput names the tensor that a place lies in, and the row of an element of its data, as far as the members
// before tell.
func (r *requestJSON) locateInput(pointer jsontext.Pointer) string {
	steps := slices.Collect(pointer.Tokens())
	if len(steps) < 2 || steps[0] != "inputs" {
		return ""
	}
	i, _ := strconv.Atoi(steps[1])
	within := steps[2:]
	if i >= len(r.Inputs) || r.Inputs[i].Name == "" {
		return ""
	}
	in := &r.Inputs[i]
	where := "input " + quote.Name(in.Name) + ": "
	if len(within) < 2 || within[0] != "data" || len(in.Shape) == 0 {
		return where
	}
	row, _ := strconv.Atoi(within[1])
	if nested := len(within) > 2; !nested {
		size := 1
		for _, d := range in.Shape[1:] {
			if d < 1 || int64(size) > math.MaxInt32/d {
				return where
			}
			size *= int(d)
		}
		row /= size
	}
	return where + "row " + strconv.Itoa(row) + ": "
}
