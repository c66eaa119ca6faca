package protocol

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Datatypes of tensors that are read or written here, by the protocol's names.
const (
	FP32  = "FP32"
	INT32 = "INT32"
	INT64 = "INT64"
	BYTES = "BYTES"
)

// AnySize in an expected shape is a dimension of any size; the protocol's metadata writes it so too.
const AnySize = -1

// Error says what is malformed in a request.
type Error struct {
	// Undecodable tells that the request is well-formed, and a text in it is none.
	Undecodable bool
	message     string
}

func (e *Error) Error() string { return e.message }

// Errorf makes an Error.
func Errorf(format string, args ...any) error { return &Error{message: fmt.Sprintf(format, args...)} }

// Tensor is an input of a request.
type Tensor struct {
	Name     string
	Datatype string
	Shape    []int64 // as the request says it
	Data     Data
}

// Data is a tensor's values in the form in which they came: JSON, Rows, Raw, Floats, Integers or Bytes. It is read as
// what the tensor is expected to be, once its shape has been checked.
type Data interface {
	// Size is the data's bytes; of a text in it there are no more.
	Size() int
	// holds refuses a shape that has more elements than the data can be, without reading it.
	holds(t *Tensor, shape []int) error
}

// Expect checks the tensor's datatype and shape, and returns the shape.
func (t *Tensor) Expect(datatype string, want []int) ([]int, error) {
	if t.Datatype != datatype {
		return nil, Errorf("input %s: datatype: expected %s, found %s", quote.Name(t.Name), datatype, quote.Name(t.Datatype))
	}
	shape := make([]int, len(want))
	ok := len(t.Shape) == len(want)
	for i := 0; ok && i < len(want); i++ {
		d := t.Shape[i]
		if ok = d == int64(want[i]); want[i] == AnySize {
			ok = d > 0 && d <= math.MaxInt32
		}
		shape[i] = int(d)
	}
	if !ok {
		return nil, Errorf("input %s: shape: expected %s, found %s", quote.Name(t.Name), named(want), quote.Shape(t.Shape))
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
		text = strings.Replace(text, strconv.Itoa(AnySize), letter, 1)
	}
	return text
}

// Holds refuses a shape, as Expect has given it, that has more elements than the data can be. What is computed of the
// shape later has no more than that.
func (t *Tensor) Holds(shape []int) error { return t.Data.holds(t, shape) }

// Floats reads FP32 values of that shape in row-major order, all of them finite.
func (t *Tensor) Floats(shape []int) ([]float32, error) {
	switch d := t.Data.(type) {
	case JSON:
		return d.floats(t, shape)
	case Rows:
		return d.floats(t, shape)
	case Raw:
		return d.floats(t, shape)
	case Floats:
		return d.read(t, shape)
	}
	return nil, t.otherList()
}

// Integers reads INT64 values of that shape in row-major order, all of which an int32 holds.
func (t *Tensor) Integers(shape []int) ([]int32, error) {
	switch d := t.Data.(type) {
	case JSON:
		return d.integers(t, shape)
	case Rows:
		return d.integers(t, shape)
	case Raw:
		return d.integers(t, shape)
	case Integers:
		return d.read(t, shape)
	}
	return nil, t.otherList()
}

// Texts reads BYTES of that shape as texts in UTF-8.
func (t *Tensor) Texts(shape []int) ([]string, error) {
	switch d := t.Data.(type) {
	case JSON:
		return d.texts(t, shape)
	case Rows:
		return d.texts(t, shape)
	}
	elements, err := t.Blobs(shape)
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(elements))
	for i, element := range elements {
		if !utf8.Valid(element) {
			wrong := t.wrong(shape, i, "expected a text in UTF-8, found %s", quote.Name(string(element)))
			return nil, &Error{Undecodable: true, message: wrong.Error()}
		}
		texts[i] = string(element)
	}
	return texts, nil
}

// OptionalTexts reads BYTES [B] as texts in UTF-8. A row that has none, as only Rows can say, is nil.
func (t *Tensor) OptionalTexts(shape []int) ([]*string, error) {
	if d, ok := t.Data.(Rows); ok {
		return d.optional(t)
	}
	texts, err := t.Texts(shape)
	if err != nil {
		return nil, err
	}
	optional := make([]*string, len(texts))
	for i := range texts {
		optional[i] = &texts[i]
	}
	return optional, nil
}

// Blobs reads BYTES of that shape as what they are: in JSON they are in base64. They may share memory with the request.
func (t *Tensor) Blobs(shape []int) ([][]byte, error) {
	switch d := t.Data.(type) {
	case JSON:
		return d.blobs(t, shape)
	case Rows:
		return d.blobs(t, shape)
	case Raw:
		return d.blobs(t, shape)
	case Bytes:
		return d, d.holds(t, shape)
	}
	return nil, t.otherList()
}

// otherList says that the data is a list of another datatype than the tensor.
func (t *Tensor) otherList() error {
	return Errorf("input %s: expected contents of the datatype %s, found others",
		quote.Name(t.Name), quote.Name(t.Datatype))
}

// wrong says of element i what was expected, and what came.
func (t *Tensor) wrong(shape []int, i int, format string, args ...any) error {
	return Errorf("input %s: row %d: %s", quote.Name(t.Name), i/(Elements(shape)/shape[0]), fmt.Sprintf(format, args...))
}

// wrongAt says where an error of JSON.walk lies: at an element, or in the data as a whole.
func (t *Tensor) wrongAt(shape []int, at int, err error) error {
	switch {
	case err == nil:
		return nil
	case at == whole:
		return Errorf("input %s: %v", quote.Name(t.Name), err)
	}
	return t.wrong(shape, at, "%v", err)
}

// Elements is how many elements a shape has whose dimensions are not negative, or the largest number there is: a
// shape is a stranger's word.
func Elements(shape []int) int {
	n := 1
	for _, d := range shape {
		if d > 0 && n > math.MaxInt/d {
			return math.MaxInt
		}
		n *= d
	}
	return n
}
