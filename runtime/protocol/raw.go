package protocol

import (
	"encoding/binary"
	"math"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Raw is a tensor's data in binary, as the protocol's binary tensor extension and gRPC's raw contents have it: numbers
// in little-endian order, one after the other; each element of BYTES behind its length, an unsigned number of 32 bits.
type Raw []byte

// lengthBytes stand before each element of BYTES.
const lengthBytes = 4

// Size is the data's bytes.
func (d Raw) Size() int { return len(d) }

// sizes are the bytes of a number of each datatype.
var sizes = map[string]int{FP32: 4, INT32: 4, INT64: 8}

func (d Raw) holds(t *Tensor, shape []int) error {
	size, fixed := sizes[t.Datatype]
	switch n := Elements(shape); {
	case fixed && (len(d)%size != 0 || len(d)/size != n):
		return Errorf("input %s: expected %s numbers of %d bytes each, found %d bytes",
			quote.Name(t.Name), quote.Shape(shape), size, len(d))
	case !fixed && len(d)/lengthBytes < n:
		return Errorf("input %s: expected %s elements, each behind its length of %d bytes, found %d bytes",
			quote.Name(t.Name), quote.Shape(shape), lengthBytes, len(d))
	}
	return nil
}

func (d Raw) floats(t *Tensor, shape []int) ([]float32, error) {
	if err := d.holds(t, shape); err != nil {
		return nil, err
	}
	size := sizes[FP32]
	values := make([]float32, len(d)/size)
	for i := range values {
		bits := binary.LittleEndian.Uint32(d[i*size:])
		values[i] = math.Float32frombits(bits)
	}
	return finite(t, shape, values)
}

func (d Raw) integers(t *Tensor, shape []int) ([]int32, error) {
	if err := d.holds(t, shape); err != nil {
		return nil, err
	}
	size := sizes[INT64]
	values := make([]int32, len(d)/size)
	for i := range values {
		v := int64(binary.LittleEndian.Uint64(d[i*size:])) //nolint:gosec // the same bits
		var err error
		if values[i], err = narrow(t, shape, i, v); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func (d Raw) blobs(t *Tensor, shape []int) ([][]byte, error) {
	if err := d.holds(t, shape); err != nil {
		return nil, err
	}
	elements := make([][]byte, Elements(shape))
	rest := d
	for i := range elements {
		if len(rest) < lengthBytes {
			return nil, t.wrong(shape, i, "expected its length of %d bytes, found %d bytes", lengthBytes, len(rest))
		}
		length := binary.LittleEndian.Uint32(rest)
		rest = rest[lengthBytes:]
		if int64(length) > int64(len(rest)) {
			return nil, t.wrong(shape, i, "expected %d bytes, as its length says, found %d", length, len(rest))
		}
		elements[i], rest = rest[:length:length], rest[length:]
	}
	if len(rest) > 0 {
		return nil, Errorf("input %s: expected %s elements, found %d bytes behind them",
			quote.Name(t.Name), quote.Shape(shape), len(rest))
	}
	return elements, nil
}

// finite refuses numbers that are none.
func finite(t *Tensor, shape []int, values []float32) ([]float32, error) {
	const exponent = 0x7f800000 // all ones: infinite, or not a number
	for i, v := range values {
		if math.Float32bits(v)&exponent == exponent {
			return nil, t.wrong(shape, i, "expected a finite FP32, found %v", v)
		}
	}
	return values, nil
}

// narrow refuses an integer that an int32 does not hold.
func narrow(t *Tensor, shape []int, i int, v int64) (int32, error) {
	if v < math.MinInt32 || v > math.MaxInt32 {
		return 0, t.wrong(shape, i, "expected an integer from %d to %d, found %d", math.MinInt32, math.MaxInt32, v)
	}
	return int32(v), nil
}
