package rpc

import (
	"errors"
	"testing"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
	"github.com/switchyard-dev/switchyard/runtime/protocol"
)

// Whatever the message, decoding returns; its errors are the request's fault and short, what is measured can be
// decoded, and what comes of it is no more than was there.
func FuzzModelInfer(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		var message inference.ModelInferRequest
		measured := int64(-1)
		err := decode(raw, &message, func(parts int64) error {
			measured = parts
			return nil
		})
		if err != nil {
			checkRefusal(t, err)
			if measured >= 0 {
				t.Fatalf("what was measured cannot be decoded: %v", err)
			}
			return
		}
		request, err := requestOf(&message)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if len(request.Inputs) > protocol.MaxMembers || len(request.Outputs) > protocol.MaxMembers {
			t.Fatalf("expected bounded lists, found %d inputs and %d outputs", len(request.Inputs), len(request.Outputs))
		}
		size := int64(0)
		for i := range request.Inputs {
			in := &request.Inputs[i]
			size += int64(in.Data.Size())
			read(t, in)
		}
		if most := int64(len(raw)) + measured; size > most {
			t.Fatalf("expected data of at most %d bytes, as was measured, found %d", most, size)
		}
	})
}

// read reads a tensor as each that an input may be.
func read(t *testing.T, in *protocol.Tensor) {
	const mostRows = 64
	for datatype, want := range map[string][]int{
		protocol.FP32:  {protocol.AnySize, 2, 3},
		protocol.INT64: {protocol.AnySize, protocol.AnySize},
		protocol.BYTES: {protocol.AnySize},
	} {
		shape, err := in.Expect(datatype, want)
		if err != nil {
			checkRefusal(t, err)
			continue
		}
		if shape[0] > mostRows {
			continue
		}
		n := 0
		switch datatype {
		case protocol.FP32:
			values, refused := in.Floats(shape)
			n, err = len(values), refused
		case protocol.INT64:
			values, refused := in.Integers(shape)
			n, err = len(values), refused
		case protocol.BYTES:
			values, refused := in.Texts(shape)
			n, err = len(values), refused
		}
		if err != nil {
			checkRefusal(t, err)
		} else if n != protocol.Elements(shape) {
			t.Fatalf("shape %v: found %d values", shape, n)
		}
	}
}

func checkRefusal(t *testing.T, err error) {
	t.Helper()
	var malformed *protocol.Error
	if !errors.As(err, &malformed) || len(err.Error()) > 2048 {
		t.Fatalf("expected a short Error, found %T: %.3000s", err, err)
	}
}
