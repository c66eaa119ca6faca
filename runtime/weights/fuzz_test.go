package weights_test

import (
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// Whatever the bytes, Parse returns; what it accepts is JSON, covers the data exactly and can be asked for.
func FuzzParse(f *testing.F) {
	bits := map[string]int{
		"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
		"U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
		"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
		"C64": 64, "F64": 64, "I64": 64, "U64": 64,
	}
	f.Add(wrappers.Safetensors(
		wrappers.Tensor{Name: "a", DType: "F16", Shape: []int{2}, Data: []byte{0xff, 0x03, 0, 0xfc}},
		wrappers.Tensor{Name: "b", DType: "BF16", Shape: []int{1, 2}, Data: []byte{0x80, 0x3f, 1, 0}},
	))
	f.Fuzz(func(t *testing.T, file []byte) {
		tensors, err := weights.Parse(file)
		if err != nil {
			if len(err.Error()) > 4096 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			return
		}
		length := binary.LittleEndian.Uint64(file)
		var entries map[string]struct {
			Offsets [2]int `json:"data_offsets"`
		}
		if err := json.Unmarshal(file[8:8+length], &entries); err != nil {
			t.Fatalf("accepted a header that is no JSON: %v", err)
		}
		delete(entries, "__metadata__")
		names := tensors.Names()
		if len(names) != len(entries) {
			t.Fatalf("expected the header's %d tensors, found %d", len(entries), len(names))
		}
		data, covered := len(file)-8-int(length), 0
		for _, name := range names {
			info, ok := tensors.Info(name)
			if !ok {
				t.Fatalf("tensor %q is listed and not there", name)
			}
			values := 1
			for _, dim := range info.Shape {
				values *= dim
			}
			begin, end := entries[name].Offsets[0], entries[name].Offsets[1]
			if begin < 0 || begin > end || end > data || (end-begin)*8 != values*bits[info.DType] {
				t.Fatalf("tensor %q of %s %v lies in [%d, %d] of %d", name, info.DType, info.Shape, begin, end, data)
			}
			covered += end - begin
			dense, err := tensors.Float32(name, info.Shape...)
			if err != nil {
				continue
			}
			if !weights.Floats(info.DType) || len(dense.Float32s()) != values || dense.Shape().TotalSize() != values {
				t.Fatalf("tensor %q of %s %v came out as %v", name, info.DType, info.Shape, dense.Shape())
			}
			for i, v := range dense.Float32s() {
				if v-v != 0 {
					t.Fatalf("tensor %q: element %d is %v", name, i, v)
				}
			}
		}
		if covered != data {
			t.Fatalf("tensors cover %d bytes of %d", covered, data)
		}
	})
}
