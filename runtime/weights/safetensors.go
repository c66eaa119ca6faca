package weights

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

const (
	// maxHeader bounds the JSON header. The format allows 100 MB, but what a header is parsed into takes a few times its
	// size, and real ones, at some 100 bytes a tensor, are below 1 MiB.
	maxHeader = 16 << 20
	// maxRank bounds the dimensions of a tensor. Models have up to five (a 3-D convolution).
	maxRank = 8
)

// bitsOf are the format's dtypes and the bits of one value. Only floats of 16 and 32 bits are handed out, but a file
// may hold others (position ids are I64), which are none of our business unless asked for.
var bitsOf = map[string]int{
	"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
	"U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
	"I16": 16, "U16": 16, "F16": 16, "BF16": 16,
	"I32": 32, "U32": 32, "F32": 32,
	"C64": 64, "F64": 64, "I64": 64, "U64": 64,
}

// Tensors is a parsed safetensors file, or several joined.
type Tensors struct {
	byName []entry // sorted, names are unique
}

// Info is what a file says of a tensor.
type Info struct {
	DType string // in the format's spelling, e.g. "F32"
	Shape []int  // empty for a scalar
}

// entry is one tensor of the header: its bytes lie from begin to end of what follows the header.
type entry struct {
	name string
	Info
	begin, end int
	raw        []byte // these bytes
}

// Parse reads a safetensors file (https://huggingface.co/docs/safetensors): the header's length in 8 bytes, the header
// in JSON, the tensors' bytes. It keeps a reference to data, and checks all of the header but none of the values.
func Parse(data []byte) (*Tensors, error) {
	raw, data, err := split(data)
	if err != nil {
		return nil, err
	}
	entries, err := parseHeader(raw, len(data))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(entries); i++ {
		if name := entries[i].name; name == entries[i-1].name {
			return nil, fmt.Errorf("tensor %s: expected once in the header, found twice", quote.Name(name))
		}
	}
	if err := checkLayout(entries, len(data)); err != nil {
		return nil, err
	}
	for i := range entries {
		entries[i].raw = data[entries[i].begin:entries[i].end]
	}
	return &Tensors{entries}, nil
}

// ReadNames reads as much of a safetensors file as tells the tensors' names, sorted.
func ReadNames(r io.Reader) ([]string, error) {
	start := make([]byte, 8)
	if _, err := io.ReadFull(r, start); err != nil {
		return nil, fmt.Errorf("header length: %w", err)
	}
	length := binary.LittleEndian.Uint64(start)
	if length > maxHeader {
		return nil, fmt.Errorf("header length: expected at most %d bytes, found %d", maxHeader, length)
	}
	header := make([]byte, length)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	entries, err := parseHeader(header, math.MaxInt)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i := range entries {
		names[i] = entries[i].name
	}
	slices.Sort(names)
	return names, nil
}

// Names are the tensors' names, sorted.
func (t *Tensors) Names() []string {
	names := make([]string, len(t.byName))
	for i := range t.byName {
		names[i] = t.byName[i].name
	}
	return names
}

// Info tells a tensor's dtype and shape; false if there is none of that name.
func (t *Tensors) Info(name string) (Info, bool) {
	e, ok := t.find(name)
	return Info{e.DType, slices.Clone(e.Shape)}, ok
}

// Float32 copies out a tensor that must be F32, F16 or BF16, of that shape (none: a scalar) and finite throughout.
func (t *Tensors) Float32(name string, shape ...int) (*tensor.Dense, error) {
	e, err := t.floats(name, shape)
	if err != nil {
		return nil, err
	}
	return e.copyOf(0, shape)
}

// Float32Rows is Float32 of the rows [from, to) alone, the first dimension's.
func (t *Tensors) Float32Rows(name string, shape []int, from, to int) (*tensor.Dense, error) {
	e, err := t.floats(name, shape)
	if err != nil {
		return nil, err
	}
	rows := slices.Clone(shape)
	rows[0] = to - from
	return e.copyOf(from*e.row(), rows)
}

// CopyRows is Float32Rows to dst, from a row on and as many as it has room for.
func (t *Tensors) CopyRows(dst []float32, name string, shape []int, from int) error {
	e, err := t.floats(name, shape)
	if err != nil {
		return err
	}
	return e.copyTo(dst, from*e.row())
}

// floats is a tensor of that shape, of which values can be handed out.
func (t *Tensors) floats(name string, shape []int) (*entry, error) {
	e, ok := t.find(name)
	switch {
	case !ok:
		return nil, fmt.Errorf("tensor %s: expected F32 %s, found no such tensor", quote.Name(name), quote.Shape(shape))
	case !Floats(e.DType):
		return nil, fmt.Errorf("tensor %s: dtype: expected F32, F16 or BF16, found %s", quote.Name(name), e.DType)
	case !slices.Equal(e.Shape, shape):
		return nil, fmt.Errorf("tensor %s: shape: expected %s, found %s",
			quote.Name(name), quote.Shape(shape), quote.Shape(e.Shape))
	case len(e.raw) == 0: // tensor.New panics on these
		return nil, fmt.Errorf("tensor %s: shape: expected at least one value, found %s",
			quote.Name(name), quote.Shape(e.Shape))
	}
	return &e, nil
}

// row is how many values a row has.
func (e *entry) row() int { return tensor.Shape(e.Shape[1:]).TotalSize() }

// copyOf is the values from one on, as a tensor of that shape.
func (e *entry) copyOf(from int, shape []int) (*tensor.Dense, error) {
	values := make([]float32, tensor.Shape(shape).TotalSize())
	if err := e.copyTo(values, from); err != nil {
		return nil, err
	}
	return tensor.New(tensor.WithShape(slices.Clone(shape)...), tensor.WithBacking(values)), nil
}

// copyTo copies values, from one on and as many as dst has room for.
func (e *entry) copyTo(dst []float32, from int) error {
	size := bitsOf[e.DType] / 8
	if i := decoders[e.DType](dst, e.raw[from*size:(from+len(dst))*size]); i < len(dst) {
		return fmt.Errorf("tensor %s: expected finite values, found %v at element %d of %s",
			quote.Name(e.name), dst[i], from+i, quote.Shape(e.Shape))
	}
	return nil
}

func (t *Tensors) find(name string) (entry, bool) {
	i, ok := slices.BinarySearchFunc(t.byName, name, func(e entry, name string) int {
		return strings.Compare(e.name, name)
	})
	if !ok {
		return entry{}, false
	}
	return t.byName[i], true
}

// Floats tells whether tensors of a dtype can be handed out.
func Floats(dtype string) bool { return decoders[dtype] != nil }

// decoders turn little-endian bytes, wherever they are aligned, into values. They return the index of the first value
// that is not finite, as far as which they decoded, else len(values).
var decoders = map[string]func(values []float32, raw []byte) int{
	"F32": func(values []float32, raw []byte) int {
		for i := range values {
			values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
			if !finite(values[i]) {
				return i
			}
		}
		return len(values)
	},
	"BF16": func(values []float32, raw []byte) int {
		for i := range values {
			values[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(raw[2*i:])) << 16)
			if !finite(values[i]) {
				return i
			}
		}
		return len(values)
	},
	"F16": func(values []float32, raw []byte) int {
		for i := range values {
			values[i] = half(binary.LittleEndian.Uint16(raw[2*i:]))
			if !finite(values[i]) {
				return i
			}
		}
		return len(values)
	},
}

func finite(v float32) bool {
	const exponent = 0x7f800000 // all ones in infinities and NaNs only
	return math.Float32bits(v)&exponent != exponent
}

// AreBFloat16 tells whether each of some finite values, times a factor, is a number of bfloat16: a float32 whose lower
// half is empty.
func AreBFloat16(values []float32, factor float32) bool {
	for _, v := range values {
		if math.Float32bits(v*factor)<<16 != 0 {
			return false
		}
	}
	return true
}

// half is an IEEE 754 binary16: 1 bit of sign, 5 of exponent (bias 15), 10 of fraction.
func half(bits uint16) float32 {
	sign, exponent, fraction := uint32(bits>>15)<<31, uint32(bits>>10)&0x1f, uint32(bits)&0x3ff
	switch exponent {
	case 0: // zero, or below the normal numbers: fraction · 2⁻²⁴, which float32 holds
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*0x1p-24))
	case 0x1f: // infinity or NaN
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	default:
		return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
	}
}

// split parts a file into its header and the tensors' bytes.
func split(file []byte) (header, data []byte, err error) {
	if len(file) < 8 {
		return nil, nil, fmt.Errorf("header length: expected 8 bytes, found a file of %d", len(file))
	}
	length, rest := binary.LittleEndian.Uint64(file), file[8:]
	if length > maxHeader {
		return nil, nil, fmt.Errorf("header length: expected at most %d bytes, found %d: %s", maxHeader, length, guess(file))
	}
	if length > uint64(len(rest)) {
		return nil, nil, fmt.Errorf("header length: expected at most the %d bytes that follow, found %d", len(rest), length)
	}
	return rest[:length], rest[length:], nil
}

// guess says what a file that is not safetensors seems to be, by its first bytes.
func guess(file []byte) string {
	for _, known := range []struct{ prefix, is string }{
		{"PK\x03\x04", "this looks like a zip archive, as torch.save writes, not safetensors"},
		{"\x80", "this looks like a Python pickle, not safetensors"},
		{"version https://git-lfs", "this is a pointer of Git LFS, not the file it points to"},
		{"<", "this looks like HTML or XML, not safetensors"},
		{"{", "this looks like JSON, not safetensors"},
	} {
		if bytes.HasPrefix(file, []byte(known.prefix)) {
			return known.is
		}
	}
	return "this is not safetensors"
}

// parseHeader reads the header's entries in the order it gives them; size is that of the data behind it.
func parseHeader(raw []byte, size int) ([]entry, error) {
	// The format demands the brace at once, and encoding/json would replace what is not UTF-8, so that names are no
	// longer what the file says.
	if !bytes.HasPrefix(raw, []byte("{")) {
		return nil, fmt.Errorf("header: expected a JSON object, found %s", quote.Name(string(raw)))
	}
	if !utf8.Valid(raw) {
		return nil, errors.New("header: expected UTF-8, found other bytes")
	}
	// Token by token, because maps and structs hide duplicates, and nothing is kept of what is not understood.
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	h := header{dec}
	var entries []entry
	metadata := false
	err := h.object(func(key string) error {
		switch {
		case key == "__metadata__" && metadata:
			return errors.New("__metadata__: expected once in the header, found twice")
		case key == "__metadata__":
			metadata = true
			return where("__metadata__", h.object(func(key string) error {
				_, err := h.text()
				return where(quote.Name(key), err)
			}))
		case key == "":
			return errors.New(`tensor "": expected a name, found none`)
		}
		e, err := h.entry(key, size)
		if err != nil {
			return where("tensor "+quote.Name(key), err)
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if rest := bytes.Trim(raw[dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return nil, fmt.Errorf("header: expected only spaces behind the JSON object, found %s",
			quote.Name(string(rest)))
	}
	return entries, nil
}

// checkLayout demands that the tensors cover the data exactly, as the format does: hidden bytes would be content that
// no reader sees, shared ones a small file that asks for much memory.
func checkLayout(entries []entry, size int) error {
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), strings.Compare(a.name, b.name))
	})
	end := 0
	for i, e := range sorted {
		if e.begin != end {
			return fmt.Errorf("tensor %s: data_offsets: expected to begin at %d, where %s, found %d",
				quote.Name(e.name), end, edge(sorted[:i]), e.begin)
		}
		end = e.end
	}
	if end != size {
		return fmt.Errorf("data: expected %d bytes, where %s, found %d", end, edge(sorted), size)
	}
	return nil
}

// edge says what lies where the last of these entries ends.
func edge(entries []entry) string {
	if len(entries) == 0 {
		return "the data begins"
	}
	return "tensor " + quote.Name(entries[len(entries)-1].name) + " ends"
}

// header reads the tokens of a safetensors header.
type header struct{ dec *json.Decoder }

// entry reads one tensor's {dtype, shape, data_offsets} and checks that they fit each other and the data.
func (h header) entry(name string, size int) (entry, error) {
	const fields = "expected dtype, shape and data_offsets"
	e := entry{name: name}
	var offsets []int
	err := h.object(func(key string) error {
		twice := false
		var err error
		switch key {
		case "dtype":
			if twice = e.DType != ""; !twice {
				e.DType, err = h.dtype()
			}
		case "shape":
			if twice = e.Shape != nil; !twice {
				e.Shape, err = h.integers(maxRank)
			}
		case "data_offsets":
			if twice = offsets != nil; !twice {
				offsets, err = h.integers(2)
			}
		default:
			return fmt.Errorf("%s, found %s", fields, quote.Name(key))
		}
		if twice {
			err = errors.New("expected once, found twice")
		}
		return where(key, err)
	})
	switch {
	case err != nil:
		return entry{}, err
	case e.DType == "":
		return entry{}, errors.New(fields + ", found no dtype")
	case e.Shape == nil:
		return entry{}, errors.New(fields + ", found no shape")
	case offsets == nil:
		return entry{}, errors.New(fields + ", found no data_offsets")
	case len(offsets) != 2:
		return entry{}, fmt.Errorf("data_offsets: expected [begin, end], found %s", quote.Shape(offsets))
	}
	e.begin, e.end = offsets[0], offsets[1]

	want, err := byteSize(e.Info)
	switch {
	case err != nil:
		return entry{}, where("shape", err)
	case e.begin > e.end:
		return entry{}, fmt.Errorf("data_offsets: expected begin before end, found %s", quote.Shape(offsets))
	case e.end > size:
		return entry{}, fmt.Errorf("data_offsets: expected within the data's %d bytes, found %s",
			size, quote.Shape(offsets))
	case e.end-e.begin != want:
		return entry{}, fmt.Errorf("data_offsets: expected %d bytes for %s %s, found %d in %s",
			want, e.DType, quote.Shape(e.Shape), e.end-e.begin, quote.Shape(offsets))
	}
	return e, nil
}

// object reads an object, calling each for every key; each reads the value.
func (h header) object(each func(key string) error) error {
	if err := h.delim('{'); err != nil {
		return err
	}
	for h.dec.More() {
		key, err := h.text()
		if err != nil {
			return err
		}
		if err := each(key); err != nil {
			return err
		}
	}
	return h.delim('}')
}

// dtype reads a dtype of the format.
func (h header) dtype() (string, error) {
	name, err := h.text()
	if err != nil {
		return "", err
	}
	if _, ok := bitsOf[name]; !ok {
		return "", fmt.Errorf("expected a dtype of safetensors, found %s", quote.Name(name))
	}
	return name, nil
}

// integers reads a list of at most that many integers, none negative. The list is never nil.
func (h header) integers(most int) ([]int, error) {
	if err := h.delim('['); err != nil {
		return nil, err
	}
	list := []int{}
	for h.dec.More() {
		if len(list) == most {
			return nil, fmt.Errorf("expected at most %d integers, found more", most)
		}
		token, err := h.token()
		if err != nil {
			return nil, err
		}
		number, ok := token.(json.Number)
		value, err := strconv.ParseUint(number.String(), 10, strconv.IntSize-1)
		if !ok || err != nil {
			return nil, fmt.Errorf("expected an integer from 0 to %d, found %s", math.MaxInt, show(token))
		}
		list = append(list, int(value))
	}
	return list, h.delim(']')
}

// text reads a string.
func (h header) text() (string, error) {
	token, err := h.token()
	if err != nil {
		return "", err
	}
	text, ok := token.(string)
	if !ok {
		return "", fmt.Errorf("expected a string, found %s", show(token))
	}
	return text, nil
}

// delim reads a bracket or brace.
func (h header) delim(want json.Delim) error {
	token, err := h.token()
	if err != nil {
		return err
	}
	if token != want {
		return fmt.Errorf("expected %q, found %s", want.String(), show(token))
	}
	return nil
}

func (h header) token() (json.Token, error) {
	token, err := h.dec.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("expected JSON: %w at byte %d of the header", err, h.dec.InputOffset())
	}
	return token, nil
}

// byteSize is the size of a tensor in bytes.
func byteSize(i Info) (int, error) {
	product, empty := bitsOf[i.DType], false
	for _, dim := range i.Shape {
		if dim == 0 {
			empty = true // but the others must not overflow either, in whatever order they stand
			continue
		}
		if product > math.MaxInt/dim {
			return 0, fmt.Errorf("expected at most %d bits, found %s %s", math.MaxInt, i.DType, quote.Shape(i.Shape))
		}
		product *= dim
	}
	if empty {
		return 0, nil
	}
	if product%8 != 0 {
		return 0, fmt.Errorf("expected whole bytes, found %d bits in %s %s", product, i.DType, quote.Shape(i.Shape))
	}
	return product / 8, nil
}

// where says where an error happened, if it did.
func where(place string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", place, err)
}

// show prints a JSON token for a message.
func show(token json.Token) string {
	switch token := token.(type) {
	case string:
		return quote.Name(token)
	case json.Delim:
		return strconv.Quote(token.String())
	case json.Number:
		return quote.Text(token.String())
	case nil:
		return "null"
	}
	return fmt.Sprint(token) // true or false
}
