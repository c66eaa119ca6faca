package protocol

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Rows are a tensor's rows, each valid JSON by itself: requests that list rows in place of tensors are made into such.
// A row of integers that is shorter than the tensor's is filled up with zeros; one of BYTES may be nil, where
// OptionalTexts reads it.
type Rows []JSON

// Size is the text's bytes.
func (d Rows) Size() int {
	n := 0
	for _, row := range d {
		n += len(row)
	}
	return n
}

// holds refuses a row of numbers that there is no text for. Those of integers may be short.
func (d Rows) holds(t *Tensor, shape []int) error {
	if len(d) != shape[0] {
		return Errorf("input %s: expected %d rows, found %d", quote.Name(t.Name), shape[0], len(d))
	}
	if t.Datatype != FP32 {
		return nil
	}
	return d.each(t, func(row JSON) error {
		_, err := row.room(shape[1:])
		return err
	})
}

func (d Rows) floats(t *Tensor, shape []int) ([]float32, error) {
	values := make([]float32, 0, Elements(shape))
	err := d.each(t, func(row JSON) error { return appendRow(&values, row, shape[1:], asFloat) })
	return values, err
}

func (d Rows) integers(t *Tensor, shape []int) ([]int32, error) {
	values := make([]int32, 0, Elements(shape))
	err := d.each(t, func(row JSON) error {
		missing := shape[1] - row.Length()
		if missing < 0 {
			return Errorf("expected at most %d elements, found %d", shape[1], row.Length())
		}
		err := appendRow(&values, row, []int{row.Length()}, asInteger)
		values = append(values, make([]int32, missing)...)
		return err
	})
	return values, err
}

func (d Rows) texts(t *Tensor, shape []int) ([]string, error) {
	values := make([]string, 0, Elements(shape))
	err := d.each(t, func(row JSON) error { return appendRow(&values, row, shape[1:], asText) })
	return values, err
}

func (d Rows) blobs(t *Tensor, shape []int) ([][]byte, error) {
	values := make([][]byte, 0, Elements(shape))
	err := d.each(t, func(row JSON) error { return appendRow(&values, row, shape[1:], asBlob) })
	return values, err
}

// optional reads texts, of which a row may have none.
func (d Rows) optional(t *Tensor) ([]*string, error) {
	values := make([]*string, 0, len(d))
	err := d.each(t, func(row JSON) error {
		if row == nil {
			values = append(values, nil)
			return nil
		}
		v, err := asText(jsontext.Value(row))
		values = append(values, &v)
		return err
	})
	return values, err
}

// appendRow reads a row: an element, if the shape of one is [].
func appendRow[T any](values *[]T, row JSON, shape []int, as func(literal jsontext.Value) (T, error)) error {
	visit := func(_ int, literal jsontext.Value) error {
		v, err := as(literal)
		*values = append(*values, v)
		return err
	}
	if len(shape) == 0 {
		return visit(0, jsontext.Value(row))
	}
	_, err := row.walk(shape, visit)
	return err
}

// each visits the rows, and names the one whose error it returns.
func (d Rows) each(t *Tensor, visit func(row JSON) error) error {
	for i, row := range d {
		if err := visit(row); err != nil {
			return Errorf("input %s: row %d: %v", quote.Name(t.Name), i, err)
		}
	}
	return nil
}

// Shape is that of lists in lists, as the first at each depth says it: whoever reads the elements holds the rest to it.
// What is no list has none. Of lists nested deeper than any tensor it tells MaxMembers depths: each costs a walk over
// the text.
func (d JSON) Shape() (shape []int64) {
	if len(d) == 0 {
		return nil
	}
	for s := (scanner{jsontext.Value(d)}); s.peek() == '[' && len(shape) < MaxMembers; s.rest = s.rest[1:] {
		shape = append(shape, int64(s.length()))
	}
	return shape
}

// Length is how many elements a list has; 0 of what is no list.
func (d JSON) Length() int {
	if jsontext.Value(d).Kind() != '[' {
		return 0
	}
	s := scanner{jsontext.Value(d)}
	s.peek()
	return s.length()
}

// Split takes a list apart: its elements share memory with it.
func Split(list jsontext.Value, most int) (elements []JSON, err error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(list))
	if err := open(dec, '[', "a list"); err != nil {
		return nil, err
	}
	for dec.PeekKind() != ']' {
		if len(elements) == most {
			return nil, Errorf("expected at most %d members, found more", most)
		}
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		end := dec.InputOffset()
		elements = append(elements, JSON(list[end-int64(len(value)):end:end]))
	}
	return elements, nil
}
