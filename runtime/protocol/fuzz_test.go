package protocol

import (
	"errors"
	"math"
	"testing"
)

// Whatever the body, and however much of it is said to be JSON, decoding returns; its errors are the request's fault
// and short, and what it accepts has as many values as its shape says, all finite or within an int32.
func FuzzRequest(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte, jsonLength int) {
		request, err := Decode(body, jsonLength)
		checkRefusal(t, err)
		if err != nil {
			return
		}
		size := 0
		for i := range request.Inputs {
			size += request.Inputs[i].Data.Size()
			checkInput(t, &request.Inputs[i])
		}
		if size > len(body) {
			t.Fatalf("expected data of at most %d bytes, as the body has, found %d", len(body), size)
		}
	})
}

func checkInput(t *testing.T, in *Tensor) {
	const mostRows = 64
	shape, err := in.Expect("FP32", []int{AnySize, 2, 3})
	checkRefusal(t, err)
	if err == nil && shape[0] <= mostRows {
		values, err := in.Floats(shape)
		checkRefusal(t, err)
		if err == nil && len(values) != Elements(shape) {
			t.Fatalf("shape %v: %d values", shape, len(values))
		}
		for i, v := range values {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				t.Fatalf("value %d is %v", i, v)
			}
		}
	}
	shape, err = in.Expect("INT64", []int{AnySize, AnySize})
	checkRefusal(t, err)
	if err == nil && shape[0] <= mostRows {
		values, err := in.Integers(shape)
		checkRefusal(t, err)
		if err == nil && len(values) != Elements(shape) {
			t.Fatalf("shape %v: %d values", shape, len(values))
		}
	}
	shape, err = in.Expect("BYTES", []int{AnySize})
	checkRefusal(t, err)
	if err == nil && shape[0] <= mostRows {
		values, err := in.Texts(shape)
		checkRefusal(t, err)
		if err == nil && len(values) != shape[0] {
			t.Fatalf("shape %v: %d values", shape, len(values))
		}
	}
}

func checkRefusal(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var malformed *Error
	if !errors.As(err, &malformed) || len(err.Error()) > 2048 {
		t.Fatalf("expected a short Error, found %T: %.3000s", err, err)
	}
}
