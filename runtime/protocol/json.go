package protocol

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// JSON is a tensor's data as a request's JSON has it: valid, a flat list of its elements or lists nested as its shape.
type JSON jsontext.Value

// Size is the text's bytes.
func (d JSON) Size() int { return len(d) }

// holds counts two bytes for each element, with its comma.
func (d JSON) holds(t *Tensor, shape []int) error {
	at, err := d.room(shape)
	return t.wrongAt(shape, at, err)
}

// room refuses a shape that has more elements than there is text for: where one is missing is an error of walk.
func (d JSON) room(shape []int) (at int, err error) {
	if Elements(shape) <= len(d)/2 {
		return whole, nil
	}
	return d.walk(shape, func(int, jsontext.Value) error { return nil })
}

func (d JSON) integers(t *Tensor, shape []int) ([]int32, error) { return read(d, t, shape, asInteger) }

func (d JSON) floats(t *Tensor, shape []int) ([]float32, error) { return read(d, t, shape, asFloat) }

func (d JSON) texts(t *Tensor, shape []int) ([]string, error) { return read(d, t, shape, asText) }

func (d JSON) blobs(t *Tensor, shape []int) ([][]byte, error) { return read(d, t, shape, asBlob) }

func asInteger(literal jsontext.Value) (int32, error) {
	v, err := strconv.ParseInt(string(literal), 10, 32)
	if err != nil {
		return 0, Errorf("expected an integer from %d to %d, found %s",
			math.MinInt32, math.MaxInt32, quote.Text(string(literal)))
	}
	return int32(v), nil
}

func asFloat(literal jsontext.Value) (float32, error) {
	v, err := strconv.ParseFloat(string(literal), 32)
	if literal.Kind() != '0' || err != nil {
		return 0, Errorf("expected a finite FP32, found %s", quote.Text(string(literal)))
	}
	return float32(v), nil
}

func asText(literal jsontext.Value) (string, error) {
	text, err := unquoted(literal)
	return string(text), err
}

func asBlob(literal jsontext.Value) ([]byte, error) {
	text, err := unquoted(literal)
	if err != nil {
		return nil, err
	}
	n, err := base64.StdEncoding.Decode(text, text)
	if err != nil {
		return nil, Errorf("expected base64: %v", err)
	}
	return text[:n], nil
}

func unquoted(literal jsontext.Value) ([]byte, error) {
	if literal.Kind() != '"' {
		return nil, Errorf("expected a string, found %s", quote.Text(string(literal)))
	}
	text, err := jsontext.AppendUnquote(nil, literal)
	if err != nil {
		return nil, Errorf("%v", err)
	}
	return text, nil
}

// read makes a value of each element of the data.
func read[T any](d JSON, t *Tensor, shape []int, as func(literal jsontext.Value) (T, error)) ([]T, error) {
	values := make([]T, 0, min(Elements(shape), len(d)/2+1)) // an element and its comma take two bytes
	at, err := d.walk(shape, func(_ int, literal jsontext.Value) error {
		value, err := as(literal)
		values = append(values, value)
		return err
	})
	return values, t.wrongAt(shape, at, err)
}

// whole is where an error lies that is of no single element.
const whole = -1

// walk visits the elements of the data in row-major order. The data is a flat list of them, or lists nested as the
// shape is. It ends with the first error, of the visit of element at, or of the data as a whole.
func (d JSON) walk(shape []int, visit func(i int, literal jsontext.Value) error) (at int, err error) {
	if jsontext.Value(d).Kind() != '[' {
		return whole, Errorf("data: expected a list, found %s", quote.Text(string(d)))
	}
	// The data is valid JSON, so a scan for its punctuation is enough: no tokens are made of millions of numbers.
	s := scanner{jsontext.Value(d)}
	s.peek()
	s.rest = s.rest[1:]
	lists := []int{Elements(shape)} // the length expected of the list at each depth
	if len(shape) > 1 && s.peek() == '[' {
		lists = shape
	}
	wrong := func(depth, found int) error {
		return Errorf("data: expected %d elements, flat or in lists nested as the shape %s: "+
			"a list of %d at depth %d, found %d", Elements(shape), quote.Shape(shape), lists[depth], depth, found)
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
				return whole, wrong(depth, counts[depth])
			}
		}
		innermost := depth == len(lists)-1
		switch {
		case b == ',':
		case b == ']' && counts[depth] != lists[depth]:
			return whole, wrong(depth, counts[depth])
		case b == ']' && depth == 0:
			return whole, nil
		case b == ']':
			depth--
		case b == '[' && !innermost:
			s.rest = s.rest[1:]
			depth++
			counts[depth] = 0
		case innermost && b != '[':
			if err := visit(n, s.literal()); err != nil {
				return n, err
			}
			n++
		default:
			return whole, Errorf("data: expected %d elements, flat or in lists nested as the shape %s",
				Elements(shape), quote.Shape(shape))
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

// length is how many elements the list has that comes next.
func (s *scanner) length() int {
	inner := scanner{s.rest[1:]}
	if inner.peek() == ']' {
		return 0
	}
	commas, depth := 0, 0
	for i := 0; ; i++ {
		switch s.rest[i] {
		case '"':
			i = len(s.rest) - len(afterString(s.rest[i+1:])) - 1
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth == 0 {
				return commas + 1
			}
		case ',':
			if depth == 1 {
				commas++
			}
		}
	}
}
