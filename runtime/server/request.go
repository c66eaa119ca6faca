package server

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// inferRequest is the body of an infer request, as the protocol has it.
type inferRequest struct {
	ID         string                 `json:"id"`
	Parameters parameters             `json:"parameters"`
	Inputs     bounded[inputTensor]   `json:"inputs"`
	Outputs    bounded[outputRequest] `json:"outputs"`
}

type inputTensor struct {
	Name       string         `json:"name"`
	Shape      bounded[int64] `json:"shape"`
	Datatype   string         `json:"datatype"`
	Parameters parameters     `json:"parameters"`
	Data       jsontext.Value `json:"data"`
}

type outputRequest struct {
	Name       string     `json:"name"`
	Parameters parameters `json:"parameters"`
}

const (
	// maxMembers bounds every list and object of a request but a tensor's data. The protocol has a handful of inputs,
	// outputs and dimensions, and an empty one takes three bytes of a body and a hundred in memory.
	maxMembers = 16
	// maxID bounds what a request has sent back to it.
	maxID = 256
)

// bounded is a list of at most maxMembers.
type bounded[T any] []T

// UnmarshalJSONFrom fails at the first member beyond the bound.
func (l *bounded[T]) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if err := open(dec, '[', "a list"); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		if len(*l) == maxMembers {
			return fmt.Errorf("expected at most %d members, found more", maxMembers)
		}
		*l = append(*l, *new(T)) // in its place at once: an error within it is told with what is known of it
		if err := json.UnmarshalDecode(dec, &(*l)[len(*l)-1]); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// parameters are named values, at most maxMembers.
type parameters map[string]jsontext.Value

// UnmarshalJSONFrom fails at the first parameter beyond the bound.
func (p *parameters) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if err := open(dec, '{', "an object"); err != nil {
		return err
	}
	*p = make(parameters)
	for dec.PeekKind() != '}' {
		if len(*p) == maxMembers {
			return fmt.Errorf("expected at most %d members, found more", maxMembers)
		}
		var name string
		if err := json.UnmarshalDecode(dec, &name); err != nil {
			return err
		}
		value, err := dec.ReadValue()
		if err != nil {
			return err
		}
		(*p)[name] = value.Clone()
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

// decodeRequest reads a request's JSON. Unknown and repeated members are errors: what is accepted must count.
func decodeRequest(body []byte) (*inferRequest, error) {
	var r inferRequest
	if tooManyMembers(body) {
		return nil, badRequest("malformed request: expected objects of some members, found thousands of them")
	}
	if err := json.Unmarshal(body, &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, badRequest("%s", r.locate(err))
	}
	if len(r.ID) > maxID {
		return nil, badRequest("id: expected at most %d bytes, found %d", maxID, len(r.ID))
	}
	if err := refuseParameters("the request", r.Parameters); err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for i := range r.Inputs {
		in := &r.Inputs[i]
		if seen[in.Name] {
			return nil, badRequest("input %s is given twice", quote.Name(in.Name))
		}
		seen[in.Name] = true
		if err := refuseParameters("input "+quote.Name(in.Name), in.Parameters); err != nil {
			return nil, err
		}
	}
	for _, out := range r.Outputs {
		if err := refuseParameters("output "+quote.Name(out.Name), out.Parameters); err != nil {
			return nil, err
		}
	}
	return &r, nil
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

// refuseParameters names a parameter that would be ignored. The binary tensor extension announces itself by parameters;
// asking for none of it is harmless.
func refuseParameters(where string, given parameters) error {
	for _, name := range slices.Sorted(maps.Keys(given)) { // so that the same request names the same one
		if strings.HasPrefix(name, "binary_data") && string(given[name]) == "false" {
			continue
		}
		return badRequest("%s: parameter %s is not supported", where, quote.Name(name))
	}
	return nil
}

// locate says where in the request an error of the JSON decoder lies: for a tensor's data, its name and row.
func (r *inferRequest) locate(err error) string {
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
	steps := slices.Collect(pointer.Tokens())
	if len(steps) >= 2 && steps[0] == "inputs" {
		i, _ := strconv.Atoi(steps[1])
		where = r.locateInput(i, steps[2:]) + where
	}
	return fmt.Sprintf("malformed request: %s: %v", where, cause)
}

// locateInput is the name of input number i, and the row of an element of its data, as far as the members before tell.
func (r *inferRequest) locateInput(i int, within []string) string {
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

// anySize in an expected shape is a dimension of any size; the protocol's metadata writes it so too.
const anySize = -1

// expect checks a tensor's datatype and shape, and returns the shape.
func (in *inputTensor) expect(datatype string, want []int) ([]int, error) {
	if in.Datatype != datatype {
		return nil, badRequest("input %s: datatype: expected %s, found %s",
			quote.Name(in.Name), datatype, quote.Name(in.Datatype))
	}
	shape := make([]int, len(want))
	ok := len(in.Shape) == len(want)
	for i := 0; ok && i < len(want); i++ {
		d := in.Shape[i]
		if ok = d == int64(want[i]); want[i] == anySize {
			ok = d > 0 && d <= math.MaxInt32
		}
		shape[i] = int(d)
	}
	if !ok {
		return nil, badRequest("input %s: shape: expected %s, found %s", quote.Name(in.Name),
			named(want), quote.Shape(in.Shape))
	}
	return shape, nil
}

// named is an expected shape, its dimensions of any size by the letters that the documentation has for them.
func named(want []int) string {
	letters := []string{"B", "H", "W"}
	if len(want) == 2 {
		letters[1] = "S"
	}
	text := quote.Shape(want)
	for _, letter := range letters {
		text = strings.Replace(text, strconv.Itoa(anySize), letter, 1)
	}
	return text
}

// integers reads INT64 data of that shape, flat or nested, of values that an int32 holds.
func (in *inputTensor) integers(shape []int) ([]int32, error) {
	values := make([]int32, 0, min(product(shape), len(in.Data)/2+1)) // a number and its comma take two bytes
	err := in.each(shape, func(i int, literal jsontext.Value) error {
		v, err := strconv.ParseInt(string(literal), 10, 32)
		if err != nil {
			return badRequest("input %s: row %d: expected an integer from %d to %d, found %s", quote.Name(in.Name),
				i/(product(shape)/shape[0]), math.MinInt32, math.MaxInt32, quote.Text(string(literal)))
		}
		values = append(values, int32(v))
		return nil
	})
	return values, err
}

// floats reads FP32 data of that shape, flat or nested.
func (in *inputTensor) floats(shape []int) ([]float32, error) {
	values := make([]float32, 0, min(product(shape), len(in.Data)/2)) // a number and its comma take two bytes
	err := in.each(shape, func(i int, literal jsontext.Value) error {
		v, err := strconv.ParseFloat(string(literal), 32)
		if literal.Kind() != '0' || err != nil {
			return badRequest("input %s: row %d: expected a finite FP32, found %s", quote.Name(in.Name),
				i/(product(shape)/shape[0]), quote.Text(string(literal)))
		}
		values = append(values, float32(v))
		return nil
	})
	return values, err
}

// strings reads BYTES data of that shape, flat or nested: JSON strings.
func (in *inputTensor) strings(shape []int) ([]string, error) {
	values := make([]string, 0, min(product(shape), len(in.Data)))
	err := in.each(shape, func(i int, literal jsontext.Value) error {
		if literal.Kind() != '"' {
			return badRequest("input %s: row %d: expected a string, found %s", quote.Name(in.Name),
				i/(product(shape)/shape[0]), quote.Text(string(literal)))
		}
		v, err := jsontext.AppendUnquote(nil, literal)
		if err != nil {
			return badRequest("input %s: row %d: %v", quote.Name(in.Name), i/(product(shape)/shape[0]), err)
		}
		values = append(values, string(v))
		return nil
	})
	return values, err
}

// each visits the elements of the data in row-major order. The data is a flat list of them, or lists nested as the
// shape is.
func (in *inputTensor) each(shape []int, visit func(i int, literal jsontext.Value) error) error {
	if in.Data.Kind() != '[' {
		return badRequest("input %s: data: expected a list", quote.Name(in.Name))
	}
	// The data is valid JSON, so a scan for its punctuation is enough: no tokens are made of millions of numbers.
	s := scanner{rest: in.Data[1:]}
	lists := []int{product(shape)} // the length expected of the list at each depth
	if len(shape) > 1 && s.peek() == '[' {
		lists = shape
	}
	wrong := func(depth, found int) error {
		return badRequest("input %s: data: expected %d elements, flat or in lists nested as the shape %s: "+
			"a list of %d at depth %d, found %d",
			quote.Name(in.Name), product(shape), quote.Shape(shape), lists[depth], depth, found)
	}
	n, depth := 0, 0
	counts := make([]int, len(lists)) // elements seen of the list at each depth
	for {
		b := s.peek()
		switch b {
		case ',', ']':
			s.rest = s.rest[1:]
		default:
			if counts[depth]++; counts[depth] > lists[depth] {
				return wrong(depth, counts[depth])
			}
		}
		innermost := depth == len(lists)-1
		switch {
		case b == ',':
		case b == ']' && counts[depth] != lists[depth]:
			return wrong(depth, counts[depth])
		case b == ']' && depth == 0:
			return nil
		case b == ']':
			depth--
		case b == '[' && !innermost:
			s.rest = s.rest[1:]
			depth++
			counts[depth] = 0
		case innermost && b != '[':
			if err := visit(n, s.literal()); err != nil {
				return err
			}
			n++
		default:
			return badRequest("input %s: data: expected %d elements, flat or in lists nested as the shape %s",
				quote.Name(in.Name), product(shape), quote.Shape(shape))
		}
	}
}

// scanner walks over valid JSON.
type scanner struct{ rest jsontext.Value }

// peek skips white space and returns the next byte.
func (s *scanner) peek() byte {
	for len(s.rest) > 0 && strings.IndexByte(" \t\r\n", s.rest[0]) >= 0 {
		s.rest = s.rest[1:]
	}
	return s.rest[0]
}

// literal takes a number, a string, or another value up to the next punctuation.
func (s *scanner) literal() jsontext.Value {
	i := 0
	if s.rest[0] == '"' {
		for i = 1; s.rest[i] != '"'; i++ {
			if s.rest[i] == '\\' {
				i++
			}
		}
		i++
	} else {
		for i < len(s.rest) && strings.IndexByte(",[] \t\r\n", s.rest[i]) < 0 {
			i++
		}
	}
	literal := s.rest[:i]
	s.rest = s.rest[i:]
	return literal
}

// product is how many elements a shape of positive dimensions has, or the largest number there is: a shape is a
// stranger's word.
func product(shape []int) int {
	n := 1
	for _, d := range shape {
		if n > math.MaxInt/d {
			return math.MaxInt
		}
		n *= d
	}
	return n
}
