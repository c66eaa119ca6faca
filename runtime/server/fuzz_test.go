package server

import (
	"errors"
	"math"
	"net/http"
	"testing"
)

// Whatever the body, decoding returns; its errors are the request's fault and short, and what it accepts has as many
// values as its shape says, all finite or within an int32.
func FuzzRequest(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		request, err := decodeRequest(body)
		if err == nil {
			_, err = chooseOutputs(request.Outputs)
			checkRefusal(t, err)
			for i := range request.Inputs {
				checkInput(t, &request.Inputs[i])
			}
		} else {
			checkRefusal(t, err)
		}
	})
}

func checkInput(t *testing.T, in *inputTensor) {
	const mostRows = 64
	shape, err := in.expect("FP32", []int{anySize, 2, 3})
	checkRefusal(t, err)
	if err == nil && shape[0] <= mostRows {
		values, err := in.floats(shape)
		checkRefusal(t, err)
		if err == nil && len(values) != product(shape) {
			t.Fatalf("shape %v: %d values", shape, len(values))
		}
		for i, v := range values {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				t.Fatalf("value %d is %v", i, v)
			}
		}
	}
	shape, err = in.expect("INT64", []int{anySize, anySize})
	checkRefusal(t, err)
	if err == nil && shape[0] <= mostRows {
		values, err := in.integers(shape)
		checkRefusal(t, err)
		if err == nil && len(values) != product(shape) {
			t.Fatalf("shape %v: %d values", shape, len(values))
		}
	}
	shape, err = in.expect("BYTES", []int{anySize})
	checkRefusal(t, err)
	if err == nil && shape[0] <= mostRows {
		values, err := in.strings(shape)
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
	var status *statusError
	if !errors.As(err, &status) || status.code != http.StatusBadRequest || len(err.Error()) > 2048 {
		t.Fatalf("expected a short 400, found %T: %.3000s", err, err)
	}
}
