package weights_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

func TestTensorsComeBackAsTheyWereWritten(t *testing.T) {
	file := wrappers.Safetensors(
		wrappers.F32("z.weight", []float32{1, -2, 3.5, 0, math.MaxFloat32, math.SmallestNonzeroFloat32}, 2, 3),
		wrappers.Tensor{Name: "position_ids", DType: "I64", Shape: []int{1, 2}, Data: make([]byte, 16)},
		// Puts what follows out of alignment.
		wrappers.Tensor{Name: "half", DType: "F16", Shape: []int{3}, Data: make([]byte, 6)},
		wrappers.F32("scalar", []float32{7}),
		wrappers.F32("empty", nil, 0, 4),
		wrappers.F32("é\n", []float32{9}, 1, 1, 1, 1, 1, 1, 1, 1),
	)
	tensors := parse(t, file)
	diff(t, []string{"empty", "half", "position_ids", "scalar", "z.weight", "é\n"}, tensors.Names())

	for name, want := range map[string]weights.Info{
		"z.weight": {DType: "F32", Shape: []int{2, 3}},
		"half":     {DType: "F16", Shape: []int{3}},
		"scalar":   {DType: "F32", Shape: []int{}},
		"empty":    {DType: "F32", Shape: []int{0, 4}},
	} {
		got, ok := tensors.Info(name)
		if !ok {
			t.Errorf("no tensor %q", name)
		}
		if len(want.Shape) == 0 && len(got.Shape) == 0 {
			got.Shape = want.Shape
		}
		diff(t, want, got)
	}
	if _, ok := tensors.Info("nothing"); ok {
		t.Error("found a tensor that is not in the file")
	}

	for _, c := range []struct {
		name  string
		shape []int
		want  []float32
	}{
		{"z.weight", []int{2, 3}, []float32{1, -2, 3.5, 0, math.MaxFloat32, math.SmallestNonzeroFloat32}},
		{"scalar", nil, []float32{7}},
		{"é\n", []int{1, 1, 1, 1, 1, 1, 1, 1}, []float32{9}},
	} {
		dense, err := tensors.Float32(c.name, c.shape...)
		if err != nil {
			t.Errorf("%q: %v", c.name, err)
			continue
		}
		diff(t, c.want, dense.Float32s())
		diff(t, fmt.Sprint(c.shape), fmt.Sprint([]int(dense.Shape())))
	}
}

func TestWhatIsHandedOutIsACopy(t *testing.T) {
	file := wrappers.Safetensors(wrappers.F32("a", []float32{1, 2}, 2))
	tensors := parse(t, file)
	shape := []int{2}
	dense, err := tensors.Float32("a", shape...)
	if err != nil {
		t.Fatal(err)
	}
	clear(file)
	shape[0] = 1
	info, _ := tensors.Info("a")
	info.Shape[0] = 1
	diff(t, []float32{1, 2}, dense.Float32s())
	diff(t, 2, dense.Shape()[0])
	again, _ := tensors.Info("a")
	diff(t, []int{2}, again.Shape)
}

func TestFloat32Refuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	tensors := parse(t, wrappers.Safetensors(
		wrappers.F32("a", make([]float32, 6), 2, 3),
		wrappers.F32("nan", []float32{0, 1, 2, nan, inf}, 5),
		wrappers.F32("inf", []float32{inf}),
		wrappers.F32("-inf", []float32{0, -inf}, 1, 2),
		wrappers.F32("empty", nil, 2, 0),
		wrappers.Tensor{Name: "integer", DType: "I16", Shape: []int{1}, Data: []byte{0, 0}},
		wrappers.Tensor{Name: "half", DType: "F16", Shape: []int{2}, Data: []byte{0, 0x3c, 0, 0x7c}},
		wrappers.Tensor{Name: "brain", DType: "BF16", Shape: []int{1}, Data: []byte{0xc0, 0xff}},
	))
	for _, c := range []struct {
		name  string
		shape []int
		want  string
	}{
		{"b", []int{2, 3}, `tensor "b": expected F32 [2, 3], found no such tensor`},
		{"a", []int{3, 2}, `tensor "a": shape: expected [3, 2], found [2, 3]`},
		{"a", []int{6}, `tensor "a": shape: expected [6], found [2, 3]`},
		{"a", nil, `tensor "a": shape: expected [], found [2, 3]`},
		{"nan", []int{5}, `tensor "nan": expected finite values, found NaN at element 3 of [5]`},
		{"inf", nil, `tensor "inf": expected finite values, found +Inf at element 0 of []`},
		{"-inf", []int{1, 2}, `tensor "-inf": expected finite values, found -Inf at element 1 of [1, 2]`},
		{"empty", []int{2, 0}, `tensor "empty": shape: expected at least one value, found [2, 0]`},
		{"integer", []int{1}, `tensor "integer": dtype: expected F32, F16 or BF16, found I16`},
		{"half", []int{2}, `tensor "half": expected finite values, found +Inf at element 1 of [2]`},
		{"brain", []int{1}, `tensor "brain": expected finite values, found NaN at element 0 of [1]`},
	} {
		_, err := tensors.Float32(c.name, c.shape...)
		wantError(t, c.want, err)
	}
}

func TestParseRefusesHostileHeaders(t *testing.T) {
	const (
		x        = `tensor "x": `
		fields   = x + "expected dtype, shape and data_offsets, found "
		integer  = "expected an integer from 0 to 9223372036854775807, found "
		tooLarge = x + "shape: expected at most 9223372036854775807 bits, found F32 "
	)
	one := func(entry string) string { return `{"x":` + entry + `}` }
	shape := func(shape string) string { return one(`{"dtype":"F32","shape":` + shape + `,"data_offsets":[0,8]}`) }
	offsets := func(offsets string) string { return one(`{"dtype":"F32","shape":[2],"data_offsets":` + offsets + `}`) }
	at := func(name string, begin, end int) string {
		return fmt.Sprintf(`%q:{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}`, name, end-begin, begin, end)
	}
	long := strings.Repeat("n", 1000)

	for name, c := range map[string]struct{ header, want string }{
		"empty":          {"", `header: expected a JSON object, found ""`},
		"spaces first":   {" {}", `header: expected a JSON object, found " {}"`},
		"list":           {"[]", `header: expected a JSON object, found "[]"`},
		"not UTF-8":      {"{\"\xff\":1}", "header: expected UTF-8, found other bytes"},
		"cut off":        {`{"x":`, x + `expected JSON: unexpected EOF at byte 5 of the header`},
		"cut off in key": {`{"x`, "expected JSON: unexpected EOF at byte 1 of the header"},
		"comma at end": {
			`{` + at("a", 0, 8) + `,}`,
			"expected JSON: invalid character '}' looking for beginning of object key string at byte 53 of the header",
		},
		"garbage":       {"{}x", `header: expected only spaces behind the JSON object, found "x"`},
		"second object": {"{} {}", `header: expected only spaces behind the JSON object, found "{}"`},
		"zeros":         {"{}\x00\x00", `header: expected only spaces behind the JSON object, found "\x00\x00"`},

		"metadata twice": {
			`{"__metadata__":{},"__metadata__":{}}`,
			"__metadata__: expected once in the header, found twice",
		},
		"metadata a list":    {`{"__metadata__":[]}`, `__metadata__: expected "{", found "["`},
		"metadata a number":  {`{"__metadata__":{"a":1}}`, `__metadata__: "a": expected a string, found 1`},
		"metadata an object": {`{"__metadata__":{"a":{}}}`, `__metadata__: "a": expected a string, found "{"`},

		"no name": {`{"":{}}`, `tensor "": expected a name, found none`},
		"name twice": {
			`{` + at("a", 0, 4) + `,` + at("a", 4, 8) + `}`,
			`tensor "a": expected once in the header, found twice`,
		},
		"name escaped": {
			`{` + at("a", 0, 4) + `,` + strings.Replace(at("a", 4, 8), "a", `\u0061`, 1) + `}`,
			`tensor "a": expected once in the header, found twice`,
		},
		"long name":     {`{"` + long + `":1}`, `tensor "` + long[:200] + `…": expected "{", found 1`},
		"entry a list":  {one(`[1]`), x + `expected "{", found "["`},
		"entry null":    {one(`null`), x + `expected "{", found null`},
		"entry true":    {one(`true`), x + `expected "{", found true`},
		"no dtype":      {one(`{"shape":[2],"data_offsets":[0,8]}`), fields + `no dtype`},
		"no shape":      {one(`{"dtype":"F32","data_offsets":[0,8]}`), fields + `no shape`},
		"no offsets":    {one(`{"dtype":"F32","shape":[2]}`), fields + `no data_offsets`},
		"unknown field": {one(`{"dtype":"F32","strides":[2]}`), fields + `"strides"`},
		"other case":    {one(`{"DType":"F32"}`), fields + `"DType"`},
		"dtype twice":   {one(`{"dtype":"F32","dtype":"F32"}`), x + `dtype: expected once, found twice`},
		"shape twice":   {one(`{"shape":[],"shape":[2]}`), x + `shape: expected once, found twice`},
		"offsets twice": {
			one(`{"data_offsets":[0,8],"data_offsets":[0,8]}`),
			x + `data_offsets: expected once, found twice`,
		},
		"dtype unknown": {one(`{"dtype":"Q4"}`), x + `dtype: expected a dtype of safetensors, found "Q4"`},
		"dtype empty":   {one(`{"dtype":""}`), x + `dtype: expected a dtype of safetensors, found ""`},
		"dtype number":  {one(`{"dtype":32}`), x + `dtype: expected a string, found 32`},
		"long dtype": {
			one(`{"dtype":"` + long + `"}`),
			x + `dtype: expected a dtype of safetensors, found "` + long[:200] + `…"`,
		},

		"shape null":   {shape(`null`), x + `shape: expected "[", found null`},
		"null within":  {shape(`[null]`), x + "shape: " + integer + `null`},
		"shape object": {shape(`{}`), x + `shape: expected "[", found "{"`},
		"nested":       {shape(`[[2]]`), x + "shape: " + integer + `"["`},
		"minus zero":   {shape(`[-0]`), x + "shape: " + integer + `-0`},
		"negative":     {shape(`[-1]`), x + "shape: " + integer + `-1`},
		"fraction":     {shape(`[1.5]`), x + "shape: " + integer + `1.5`},
		"exponent":     {shape(`[1e3]`), x + "shape: " + integer + `1e3`},
		"beyond int64": {shape(`[9223372036854775808]`), x + "shape: " + integer + `9223372036854775808`},
		"many digits": {
			shape(`[` + strings.Repeat("9", 1000) + `]`),
			x + "shape: " + integer + strings.Repeat("9", 200) + "…",
		},
		"string":        {shape(`["2"]`), x + "shape: " + integer + `"2"`},
		"rank 9":        {shape(`[1,1,1,1,1,1,1,1,1]`), x + `shape: expected at most 8 integers, found more`},
		"overflow":      {shape(`[4294967296,4294967296]`), tooLarge + `[4294967296, 4294967296]`},
		"wraps around":  {shape(`[4611686018427387906,4]`), tooLarge + `[4611686018427387906, 4]`},
		"overflow by 0": {shape(`[4294967296,4294967296,0]`), tooLarge + `[4294967296, 4294967296, 0]`},
		"half a byte": {
			one(`{"dtype":"F4","shape":[3],"data_offsets":[0,8]}`),
			x + `shape: expected whole bytes, found 12 bits in F4 [3]`,
		},
		"trailing comma": {
			shape(`[2,]`),
			x + `shape: expected JSON: invalid character ']' looking for beginning of value at byte 31 of the header`,
		},

		"no offset":       {offsets(`[]`), x + `data_offsets: expected [begin, end], found []`},
		"one offset":      {offsets(`[0]`), x + `data_offsets: expected [begin, end], found [0]`},
		"three offsets":   {offsets(`[0,8,8]`), x + `data_offsets: expected at most 2 integers, found more`},
		"negative offset": {offsets(`[-8,0]`), x + "data_offsets: " + integer + `-8`},
		"backwards":       {offsets(`[8,0]`), x + `data_offsets: expected begin before end, found [8, 0]`},
		"out of range":    {offsets(`[0,9]`), x + `data_offsets: expected within the data's 8 bytes, found [0, 9]`},
		"far out": {
			offsets(`[9223372036854775800,9223372036854775807]`),
			x + `data_offsets: expected within the data's 8 bytes, found [9223372036854775800, 9223372036854775807]`,
		},
		"wrong size": {offsets(`[0,4]`), x + `data_offsets: expected 8 bytes for F32 [2], found 4 in [0, 4]`},

		"no tensors": {`{}`, `data: expected 0 bytes, where the data begins, found 8`},
		"overlap": {
			`{` + at("a", 0, 6) + `,` + at("b", 4, 8) + `}`,
			`tensor "b": data_offsets: expected to begin at 6, where tensor "a" ends, found 4`,
		},
		"same bytes": {
			`{` + at("a", 0, 8) + `,` + at("b", 0, 8) + `}`,
			`tensor "b": data_offsets: expected to begin at 8, where tensor "a" ends, found 0`,
		},
		"empty in middle": {
			`{` + at("a", 0, 8) + `,` + at("b", 4, 4) + `}`,
			`tensor "b": data_offsets: expected to begin at 8, where tensor "a" ends, found 4`,
		},
		"hole": {
			`{` + at("b", 5, 8) + `,` + at("a", 0, 4) + `}`,
			`tensor "b": data_offsets: expected to begin at 4, where tensor "a" ends, found 5`,
		},
		"hole at first": {
			`{` + at("a", 1, 8) + `}`,
			`tensor "a": data_offsets: expected to begin at 0, where the data begins, found 1`,
		},
		"hole at last": {`{` + at("a", 0, 7) + `}`, `data: expected 7 bytes, where tensor "a" ends, found 8`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := weights.Parse(file(c.header, make([]byte, 8)))
			wantError(t, c.want, err)
		})
	}
}

func TestParseRefusesWhatIsNotSafetensors(t *testing.T) {
	const atMost = "header length: expected at most 16777216 bytes, found "
	for name, c := range map[string]struct{ file, want string }{
		"nothing":     {"", "header length: expected 8 bytes, found a file of 0"},
		"seven bytes": {"1234567", "header length: expected 8 bytes, found a file of 7"},
		"too long": {
			"\x03\x00\x00\x00\x00\x00\x00\x00{}",
			"header length: expected at most the 2 bytes that follow, found 3",
		},
		"over our own": {"\x01\x00\x00\x01\x00\x00\x00\x00{}", atMost + "16777217: this is not safetensors"},
		"all ones": {
			"\xff\xff\xff\xff\xff\xff\xff\xff{}",
			atMost + "18446744073709551615: this is not safetensors",
		},
		"zip": {
			"PK\x03\x04\x00\x00\x08\x08\x00",
			atMost + "578712552184433488: this looks like a zip archive, as torch.save writes, not safetensors",
		},
		"pickle": {
			"\x80\x02}q\x00(X\x01\x00",
			atMost + "96871374357594752: this looks like a Python pickle, not safetensors",
		},
		"Git LFS": {
			"version https://git-lfs.github.com/spec/v1\n",
			atMost + "2336927755350992246: this is a pointer of Git LFS, not the file it points to",
		},
		"HTML": {
			"<!DOCTYPE html>",
			atMost + "5789751444030890300: this looks like HTML or XML, not safetensors",
		},
		"header's JSON": {
			`{"a":{"dtype":"F32"}}`,
			atMost + "7215465042616066683: this looks like JSON, not safetensors",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := weights.Parse([]byte(c.file))
			wantError(t, c.want, err)
		})
	}
}

func TestParseTakesWhatTheFormatAllows(t *testing.T) {
	const empty = `"a":{"data_offsets":[0,0],"shape":[0],"dtype":"F32"}`
	for name, file := range map[string][]byte{
		"no tensors":      file(`{}`, nil),
		"padding":         file(`{}      `, nil),
		"no metadata":     file(`{`+empty+`}`, nil),
		"metadata behind": file(`{`+empty+`,"__metadata__":{}}`, nil),
		"several empty": wrappers.Safetensors(
			wrappers.F32("c", nil, 0), wrappers.F32("b", nil, 0), wrappers.F32("a", []float32{1}), wrappers.F32("d", nil, 0),
		),
		"two values of four bits": wrappers.Safetensors(
			wrappers.Tensor{Name: "a", DType: "F4", Shape: []int{2}, Data: []byte{0}},
		),
		"header and data out of order": file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},`+
			`"b":{"dtype":"I8","shape":[],"data_offsets":[0,1]}}`, make([]byte, 2)),
	} {
		t.Run(name, func(t *testing.T) { parse(t, file) })
	}
}

func TestDeepNestingIsHarmless(t *testing.T) {
	deep := strings.Repeat("[", 8<<20)
	_, err := weights.Parse(file(`{"x":{"shape":`+deep+`}}`, nil))
	wantError(t, `tensor "x": shape: expected an integer from 0 to 9223372036854775807, found "["`, err)
	_, err = weights.Parse(file(`{"__metadata__":{"x":`+deep+`}}`, nil))
	wantError(t, `__metadata__: "x": expected a string, found "["`, err)
}

// A header of very many tensors, dimensions or digits may cost a few times its own size, and no more.
func TestMemoryIsBoundedByTheHeader(t *testing.T) {
	const size = 4 << 20
	tensors := new(strings.Builder)
	for i := 0; tensors.Len() < size; i++ {
		fmt.Fprintf(tensors, `,"%x":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}`, i)
	}
	for name, header := range map[string]string{
		"tensors":    `{` + tensors.String()[1:] + `}`,
		"dimensions": `{"x":{"shape":[` + strings.Repeat("1,", size/2) + `1]}}`,
		"digits":     `{"x":{"shape":[` + strings.Repeat("1", size) + `]}}`,
		"name":       `{"` + strings.Repeat("x", size) + `":1}`,
		"metadata":   `{"__metadata__":{"a":"` + strings.Repeat("\\n", size/2) + `"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			input := file(header, nil)
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			tensors, err := weights.Parse(input)
			runtime.GC()
			runtime.ReadMemStats(&after)
			runtime.KeepAlive(input)
			runtime.KeepAlive(tensors)
			runtime.KeepAlive(err)
			lives, allocated := int64(after.HeapAlloc)-int64(before.HeapAlloc), after.TotalAlloc-before.TotalAlloc
			t.Logf("of a header of %d bytes %d live, %d were allocated in all", len(header), lives, allocated)
			if lives > 4*int64(len(header)) {
				t.Errorf("expected at most four times the header's %d bytes to live, found %d", len(header), lives)
			}
			if allocated > 40*uint64(len(header)) {
				t.Errorf("expected at most 40 times the header's %d bytes to be allocated, found %d", len(header), allocated)
			}
		})
	}
}

func BenchmarkFloat32(b *testing.B) {
	values := make([]float32, 768*768)
	for i := range values {
		values[i] = rand.Float32()
	}
	for name, before := range map[string]int{"aligned": 0, "unaligned": 1} {
		b.Run(name, func(b *testing.B) {
			tensors, err := weights.Parse(wrappers.Safetensors(
				wrappers.Tensor{Name: "before", DType: "U8", Shape: []int{before}, Data: make([]byte, before)},
				wrappers.F32("a", values, 768, 768),
			))
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(4 * len(values)))
			for b.Loop() {
				if _, err := tensors.Float32("a", 768, 768); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	var tensors []wrappers.Tensor
	for i := range 200 { // as many as ViT has
		name := fmt.Sprintf("vit.encoder.layer.%d.attention.attention.query.weight", i)
		tensors = append(tensors, wrappers.F32(name, []float32{1}, 1))
	}
	file := wrappers.Safetensors(tensors...)
	for b.Loop() {
		if _, err := weights.Parse(file); err != nil {
			b.Fatal(err)
		}
	}
}

// file is a safetensors file of that header and data.
func file(header string, data []byte) []byte {
	length := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return bytes.Join([][]byte{length, []byte(header), data}, nil)
}

func parse(t *testing.T, file []byte) *weights.Tensors {
	t.Helper()
	tensors, err := weights.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	return tensors
}

func wantError(t *testing.T, want string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("expected the error %q, found none", want)
		return
	}
	diff(t, want, err.Error())
}

func diff(t *testing.T, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-expected +found:\n%s", d)
	}
}
