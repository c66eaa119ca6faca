package protocol

import "github.com/switchyard-dev/switchyard/runtime/quote"

// Lists of values, as gRPC's typed contents have them, and as other forms of requests are made into tensors.
type (
	// Floats are the elements of a tensor FP32.
	Floats []float32
	// Integers are the elements of a tensor INT64.
	Integers []int64
	// Bytes are the elements of a tensor BYTES.
	Bytes [][]byte
)

// Size is the numbers' bytes.
func (d Floats) Size() int { return 4 * len(d) }

// Size is the numbers' bytes.
func (d Integers) Size() int { return 8 * len(d) }

// Size is the elements' bytes.
func (d Bytes) Size() int {
	n := 0
	for _, element := range d {
		n += len(element)
	}
	return n
}

func (d Floats) holds(t *Tensor, shape []int) error   { return t.counts(shape, len(d)) }
func (d Integers) holds(t *Tensor, shape []int) error { return t.counts(shape, len(d)) }
func (d Bytes) holds(t *Tensor, shape []int) error    { return t.counts(shape, len(d)) }

// counts holds the shape to a list's length.
func (t *Tensor) counts(shape []int, n int) error {
	if Elements(shape) != n {
		return Errorf("input %s: data: expected %s elements, found %d", quote.Name(t.Name), quote.Shape(shape), n)
	}
	return nil
}

func (d Floats) read(t *Tensor, shape []int) ([]float32, error) {
	if err := d.holds(t, shape); err != nil {
		return nil, err
	}
	return finite(t, shape, d)
}

func (d Integers) read(t *Tensor, shape []int) ([]int32, error) {
	if err := d.holds(t, shape); err != nil {
		return nil, err
	}
	values := make([]int32, len(d))
	for i, v := range d {
		var err error
		if values[i], err = narrow(t, shape, i, v); err != nil {
			return nil, err
		}
	}
	return values, nil
}
