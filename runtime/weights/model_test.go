package weights_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// Values of 16 bits are what IEEE 754 and its truncation to 16 bits say.
func TestHalves(t *testing.T) {
	tensors := parse(t, wrappers.Safetensors(
		wrappers.Tensor{Name: "f16", DType: "F16", Shape: []int{7}, Data: []byte{
			0, 0, 0, 0x80, 0, 0x3c, 0, 0xc0, 0xff, 0x7b, 1, 0, 0xff, 0x03,
		}},
		wrappers.Tensor{Name: "bf16", DType: "BF16", Shape: []int{3}, Data: []byte{0x80, 0x3f, 0x49, 0xc0, 1, 0}},
	))
	for name, want := range map[string][]float32{
		"f16":  {0, float32(math.Copysign(0, -1)), 1, -2, 65504, 0x1p-24, 1023 * 0x1p-24},
		"bf16": {1, -3.140625, 0x1p-133},
	} {
		got, err := tensors.Float32(name, len(want))
		if err != nil || !slices.EqualFunc(got.Float32s(), want, func(a, b float32) bool {
			return math.Float32bits(a) == math.Float32bits(b)
		}) {
			t.Errorf("%s: expected %v, found %v, %v", name, want, got, err)
		}
	}
}

// Every value that 16 bits can hold is the one that its sign, exponent and fraction stand for, or refused.
func TestAllHalves(t *testing.T) {
	for dtype, exponentBits := range map[string]int{"F16": 5, "BF16": 8} {
		fractionBits := 15 - exponentBits
		most := 1<<exponentBits - 1
		bias := most / 2
		var finite []byte
		var want []uint32 // the float32s' bits: -0 is not 0
		for bits := range 1 << 16 {
			sign, exponent, fraction := bits>>15, bits>>fractionBits&most, bits&(1<<fractionBits-1)
			raw := binary.LittleEndian.AppendUint16(nil, uint16(bits))
			switch exponent {
			case most:
				_, err := parse(t, wrappers.Safetensors(wrappers.Tensor{Name: "a", DType: dtype, Data: raw})).Float32("a")
				if err == nil || !strings.HasPrefix(err.Error(), `tensor "a": expected finite values, found `) {
					t.Fatalf("%s %#04x: expected it refused, found %v", dtype, bits, err)
				}
				continue
			case 0:
				exponent++
			default:
				fraction += 1 << fractionBits
			}
			value := math.Copysign(math.Ldexp(float64(fraction), exponent-bias-fractionBits), float64(-sign)+0.5)
			finite, want = append(finite, raw...), append(want, math.Float32bits(float32(value)))
		}
		tensors := parse(t, wrappers.Safetensors(
			wrappers.Tensor{Name: "a", DType: dtype, Shape: []int{len(want)}, Data: finite}))
		got, err := tensors.Float32("a", len(want))
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range got.Float32s() {
			if math.Float32bits(v) != want[i] {
				t.Fatalf("%s %x: expected %g, found %g", dtype, finite[2*i:2*i+2], math.Float32frombits(want[i]), v)
			}
		}
	}
}

// What is bfloat16 is told of values, times a factor, whatever type their file is of: be it the least or the largest.
func TestAreBFloat16(t *testing.T) {
	bits := math.Float32frombits
	some := []float32{0, bits(1 << 31), 1, -1.5, bits(0x10000), bits(0x7f7f0000), bits(0x80010000)}
	for _, c := range []struct {
		name   string
		values []float32
		factor float32
		want   bool
	}{
		{"nothing", nil, 1, true},
		{"bfloat16", some, 1, true},
		{"halved", []float32{1, -1.5}, 0.5, true},
		{"with all digits, times three", []float32{1, bits(0x3fff0000)}, 3, false},
		{"with few digits, times three", []float32{1, -1.5}, 3, true},
		{"made too small", []float32{bits(0x810000)}, 0.5, false},
		{"one bit too many, at the end", append(some, bits(0x3f808000)), 1, false},
		{"the last bit of float32", []float32{bits(0x3f800001), 1}, 1, false},
		{"too small", []float32{bits(1)}, 1, false},
		{"too large", []float32{-math.MaxFloat32}, 1, false},
	} {
		if got := weights.AreBFloat16(c.values, c.factor); got != c.want {
			t.Errorf("%s: expected %t, found %t", c.name, c.want, got)
		}
	}
}

func TestRowsOfATensor(t *testing.T) {
	halves := func(name, dtype string) wrappers.Tensor {
		return wrappers.Tensor{Name: name, DType: dtype, Shape: []int{3, 1, 2}, Data: []byte{
			0, 0x3c, 0, 0x40, 0, 0x42, 0, 0x44, 0, 0x45, 0, 0x46,
		}}
	}
	tensors := parse(t, wrappers.Safetensors(
		wrappers.F32("a", []float32{1, 2, 3, 4, 5, 6}, 3, 2), halves("f16", "F16"), halves("bf16", "BF16"),
		wrappers.F32("inf", []float32{1, 2, 3, float32(math.Inf(1))}, 2, 2), wrappers.F32("none", nil, 0, 2),
	))
	for _, c := range []struct {
		name     string
		shape    []int
		from, to int
		values   []float32
		err      string
	}{
		{name: "a", shape: []int{3, 2}, from: 1, to: 3, values: []float32{3, 4, 5, 6}},
		{name: "a", shape: []int{3, 2}, from: 0, to: 1, values: []float32{1, 2}},
		{name: "f16", shape: []int{3, 1, 2}, from: 1, to: 2, values: []float32{3, 4}},
		{name: "bf16", shape: []int{3, 1, 2}, from: 0, to: 1, values: []float32{0x1p-7, 2}},
		{name: "inf", shape: []int{2, 2}, from: 0, to: 1, values: []float32{1, 2}}, // of no matter here
		{
			name: "inf", shape: []int{2, 2}, from: 1, to: 2,
			err: `tensor "inf": expected finite values, found +Inf at element 3 of [2, 2]`,
		},
		{name: "a", shape: []int{2, 3}, from: 0, to: 1, err: `tensor "a": shape: expected [2, 3], found [3, 2]`},
		{name: "b", shape: []int{2, 3}, from: 0, to: 1, err: `tensor "b": expected F32 [2, 3], found no such tensor`},
		{
			name: "none", shape: []int{0, 2}, from: 0, to: 0,
			err: `tensor "none": shape: expected at least one value, found [0, 2]`,
		},
	} {
		rows, err := tensors.Float32Rows(c.name, c.shape, c.from, c.to)
		if c.err != "" {
			wantError(t, c.err, err)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		diff(t, c.values, rows.Float32s())
		diff(t, append([]int{c.to - c.from}, c.shape[1:]...), []int(rows.Shape()))
	}
}

// The names are read of the header alone.
func TestNamesOfAHeader(t *testing.T) {
	file := wrappers.Safetensors(wrappers.F32("b", []float32{1}, 1), wrappers.F32("a", []float32{2}, 1))
	names, err := weights.ReadNames(strings.NewReader(string(file[:len(file)-8])))
	if err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("expected a and b, found %v, %v", names, err)
	}
	for _, c := range []struct{ file, want string }{
		{"", "header length: EOF"},
		{"\x02\x00", "header length: unexpected EOF"},
		{"\x02\x00\x00\x00\x00\x00\x00\x00{", "header: unexpected EOF"},
		{"\x02\x00\x00\x00\x00\x00\x00\x00[]", `header: expected a JSON object, found "[]"`},
		{"\x01\x00\x00\x01\x00\x00\x00\x00", "header length: expected at most 16777216 bytes, found 16777217"},
	} {
		_, err := weights.ReadNames(strings.NewReader(c.file))
		wantError(t, c.want, err)
	}
}

const (
	first  = "model-00001-of-00002.safetensors"
	second = "model-00002-of-00002.safetensors"
)

// An index is read by itself, too, where only it is at hand.
func TestIndex(t *testing.T) {
	raw := index(t, map[string]string{"b": first, "c": second, "a": second})
	files, err := weights.IndexedFiles(raw)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, []string{first, second}, files)
	names, err := weights.IndexedNames(raw)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, []string{"a", "b", "c"}, names)
	_, err = weights.IndexedNames([]byte("{}"))
	wantError(t, "weight_map: expected the file of each tensor, found none", err)
	for name, want := range map[string]bool{
		first: true, "model-1-of-2.safetensors": false, "x/" + first: false, first + ".bak": false, weights.ModelFile: false,
	} {
		if weights.IsShard(name) != want {
			t.Errorf("%s: expected %t", name, want)
		}
	}
}

// A shard that is a link out of the folder is not read, however well it is named.
func TestAShardOutsideIsNotRead(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	a := wrappers.Safetensors(wrappers.F32("a", []float32{1}, 1))
	write(t, filepath.Join(outside, first), string(a))
	write(t, filepath.Join(dir, weights.IndexFile), string(index(t, map[string]string{"a": first})))
	link(t, filepath.Join(outside, first), filepath.Join(dir, first))
	_, err := weights.OpenModel(open(t, dir))
	wantError(t, `file "`+first+`": `+leaves, err)
}

// openModel opens a folder with these files.
func openModel(t *testing.T, files map[string][]byte) (*weights.Model, error) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := weights.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Close() })
	return weights.OpenModel(folder)
}

func index(t *testing.T, files map[string]string) []byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"metadata": map[string]int{"total_size": 8}, "weight_map": files})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestShardsAreOneModel(t *testing.T) {
	a := wrappers.Safetensors(wrappers.F32("a", []float32{1}, 1))
	b := wrappers.Safetensors(wrappers.F32("b", []float32{2}, 1))
	both := index(t, map[string]string{"a": first, "b": second})
	m, err := openModel(t, map[string][]byte{
		weights.IndexFile: both, first: a, second: b, "model-00003-of-00003.safetensors": a,
	})
	if err != nil {
		t.Fatal(err)
	}
	value, err := m.Float32("b", 1)
	if err != nil || value.Float32s()[0] != 2 || !slices.Equal(m.Names(), []string{"a", "b"}) {
		t.Errorf("expected a and b of 2, found %v, %v, %v", m.Names(), value, err)
	}
	diff(t, []string{weights.IndexFile, first, second}, m.Files)
	diff(t, []weights.Blob{
		weights.NewBlob(weights.IndexFile, both), weights.NewBlob(first, a), weights.NewBlob(second, b),
	}, m.Blobs())
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	// One file beside an index is all that counts, as transformers has it.
	if m, err = openModel(t, map[string][]byte{weights.ModelFile: b, weights.IndexFile: both}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m.Files, []string{weights.ModelFile}) || !slices.Equal(m.Names(), []string{"b"}) {
		t.Errorf("expected the one file, found %v with %v", m.Files, m.Names())
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestModelsRefused(t *testing.T) {
	a := wrappers.Safetensors(wrappers.F32("a", []float32{1}, 1))
	many := map[string]string{}
	for i := range 1025 {
		many[strconv.Itoa(i)] = fmt.Sprintf("model-%05d-of-01025.safetensors", i)
	}
	for _, c := range []struct {
		files map[string][]byte
		err   string
	}{
		{nil, `file "model.safetensors": `},
		{map[string][]byte{"pytorch_model.bin": a}, "pytorch_model.bin: expected model.safetensors, found a pickle"},
		{
			map[string][]byte{weights.IndexFile: []byte("[]")},
			"model.safetensors.index.json: expected a JSON object with a weight_map",
		},
		{
			map[string][]byte{weights.IndexFile: []byte("{}")},
			"model.safetensors.index.json: weight_map: expected the file of each tensor, found none",
		},
		{
			map[string][]byte{weights.IndexFile: index(t, map[string]string{"a": "../model-00001-of-00002.safetensors"})},
			`model.safetensors.index.json: weight_map: expected names as model-00001-of-00002.safetensors, found "../`,
		},
		{
			map[string][]byte{weights.IndexFile: index(t, map[string]string{"a": "config.json"})},
			`model.safetensors.index.json: weight_map: expected names as model-00001-of-00002.safetensors, found "config.json"`,
		},
		{
			map[string][]byte{weights.IndexFile: index(t, map[string]string{"a": first})},
			`file "` + first + `": `,
		},
		{
			map[string][]byte{weights.IndexFile: index(t, map[string]string{"a": first, "b": first}), first: a},
			`model.safetensors.index.json: tensor "b": expected it in "` + first + `", found none`,
		},
		{
			map[string][]byte{
				weights.IndexFile: index(t, map[string]string{"d": first, "a": first, "c": first, "b": first}), first: a,
			},
			`model.safetensors.index.json: tensor "b": expected it in `,
		},
		{
			map[string][]byte{weights.IndexFile: index(t, map[string]string{"a": second, "b": first}), first: a, second: a},
			first + `: tensor "a": model.safetensors.index.json lists it for "` + second + `"`,
		},
		{
			map[string][]byte{weights.IndexFile: index(t, map[string]string{"b": first}), first: a},
			first + `: tensor "a": model.safetensors.index.json does not list it`,
		},
		{
			map[string][]byte{weights.IndexFile: index(t, many)},
			"model.safetensors.index.json: weight_map: expected at most 1024 files, found 1025",
		},
		{
			map[string][]byte{weights.IndexFile: index(t, map[string]string{"a": "model-00001-of-00002.safetensors\n"})},
			`model.safetensors.index.json: weight_map: expected names as model-00001-of-00002.safetensors, found "model-`,
		},
		{
			map[string][]byte{weights.IndexFile: []byte(`{"weight_map": {"a": null}}`)},
			`model.safetensors.index.json: weight_map: tensor "a": expected the name of a file, found null`,
		},
		{
			map[string][]byte{weights.IndexFile: []byte(`{"weight_map": {"a": 1}}`)},
			"model.safetensors.index.json: expected a JSON object with a weight_map",
		},
		{
			map[string][]byte{weights.IndexFile: make([]byte, weights.MaxIndex+1)},
			`file "model.safetensors.index.json": expected at most 16777216 bytes, found 16777217`,
		},
		{
			map[string][]byte{"pytorch_model.bin.index.json": a},
			"pytorch_model.bin: expected model.safetensors, found a pickle: load the model with transformers and save it " +
				"again with save_pretrained(path)",
		},
		{map[string][]byte{weights.IndexFile: index(t, map[string]string{"a": first}), first: a[:9]}, first + ": "},
	} {
		m, err := openModel(t, c.files)
		if err == nil {
			_ = m.Close()
		}
		if err == nil || !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("expected %q, found %v", c.err, err)
		}
	}
}
