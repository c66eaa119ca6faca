package golden

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

const (
	samples  = "../../hack/samples"
	testdata = "testdata"
	// baseCase is the name of the golden logits of the bare base.
	baseCase = "base"
)

// variants are folders of bases with other configs, each with inputs and its own logits.
var variants = filepath.Join(testdata, "variants")

// suites are the folders with a base, adapters, inputs and PEFT's logits for them; in the short form, which is for the
// race detector, one of images and one of texts.
func suites(t testing.TB) []string {
	t.Helper()
	if testing.Short() {
		return []string{filepath.Join(testdata, "bert"), filepath.Join(testdata, "vit")}
	}
	return append(folders(t, testdata, "variants", "entities"), folders(t, samples, "train")...)
}

// folders lists the folders in one.
func folders(t testing.TB, path string, but ...string) []string {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, entry := range entries {
		if entry.IsDir() && !slices.Contains(but, entry.Name()) {
			all = append(all, filepath.Join(path, entry.Name()))
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s: expected folders, found none", path)
	}
	return all
}

// suite is an opened base with all its adapters.
type suite struct {
	engine   *engine.Engine
	adapters map[string]*engine.Adapter // by name; base is nil
	names    []string                   // of adapters, sorted, base among them
	inputs   []engine.Input
	logits   map[string][][]float32 // by adapter and input

	tolerance float64
	unsure    map[row]float64 // how far off those rows may be whatever their largest logit
}

// unsure are the rows, by suite, whose answer float32 does not have to 1e-5 of the largest logit: it is small beside
// the terms that it is the sum of. PEFT's own is off by as much from its float64 in such rows
// (hack/golden/precision.py): of the largest logit by 1.6e-5 in the first, 8e-6 in the second, 3.5e-5 in the third and
// 8.5e-6 in the fourth.
var unsure = map[string]map[row]float64{
	"modernbert":       {{input: 4, adapter: "plain"}: 6e-6},
	"xlm-roberta-more": {{input: 4, adapter: "saved-norm"}: 1.5e-6},
	"packages":         {{input: 2, adapter: "library"}: 6e-7, {input: 111, adapter: "library"}: 6e-7},
}

// smallest is what a row's largest logit is at least if it needs no bound of its own.
const smallest = 0.2

// openSuite opens the base, the golden file and the adapters of a folder.
func openSuite(t testing.TB, path string, workers int) *suite {
	t.Helper()
	s := open(t, filepath.Join(path, "base"), path, workers, arch.Float32)
	s.unsure = unsure[filepath.Base(path)]
	return s
}

func open(t testing.TB, basePath, path string, workers int, dtype arch.DType) *suite {
	t.Helper()
	base, err := model.Open(openFolder(t, basePath), dtype)
	if err != nil {
		t.Fatal(err)
	}
	if unused := slices.DeleteFunc(base.Unused, isCount); len(unused) > 0 {
		t.Errorf("%s: nothing asks for %v", basePath, unused)
	}
	s := &suite{
		tolerance: tolerance,
		engine:    engine.New(base, workers),
		adapters:  make(map[string]*engine.Adapter),
		logits:    make(map[string][][]float32),
	}
	t.Cleanup(s.engine.Close)
	s.readGolden(t, readTensors(t, filepath.Join(path, "golden.safetensors")))
	if len(s.inputs) == 0 || (len(s.logits[baseCase]) == 0) != (base.Description.Own < 0) {
		t.Fatalf("%s: expected inputs in the golden file, and logits.%s if the base has a head", path, baseCase)
	}
	for _, name := range s.names {
		if len(s.logits[name]) != len(s.inputs) || slices.ContainsFunc(s.logits[name], isNone) {
			t.Fatalf("%s: %s: expected logits for each of %d inputs", path, name, len(s.inputs))
		}
		if name != baseCase {
			s.adapters[name] = compile(t, s.engine, openFolder(t, filepath.Join(path, "adapters", name)))
		}
	}
	entries, err := os.ReadDir(filepath.Join(path, "adapters"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, folder := range entries {
		if s.adapters[folder.Name()] == nil {
			t.Errorf("%s: the adapter %s has no logits in the golden file", path, folder.Name())
		}
	}
	return s
}

// isCount tells whether a tensor has the numbers from 0 on, as old versions of transformers saved them.
func isCount(name string) bool { return strings.HasSuffix(name, "embeddings.position_ids") }

func isNone(logits []float32) bool { return len(logits) == 0 }

// readGolden reads inputs.N.NAME and logits.CASE.N, of one input each, or pixel_values and logits.CASE, of all.
func (s *suite) readGolden(t testing.TB, golden *weights.Tensors) {
	t.Helper()
	for n := 0; ; n++ {
		in, ok := readInput(t, golden, "inputs."+strconv.Itoa(n)+".")
		if !ok {
			break
		}
		s.inputs = append(s.inputs, in)
	}
	for _, key := range golden.Names() {
		values, shape := readTensor(t, golden, key)
		name, isLogits := strings.CutPrefix(key, "logits.")
		switch adapter, number, each := strings.Cut(name, "."); {
		case key == "pixel_values":
			for pixels := range slices.Chunk(values, len(values)/shape[0]) {
				t := tensor.New(tensor.WithShape(shape[1:]...), tensor.WithBacking(pixels))
				s.inputs = append(s.inputs, engine.Input{Pixels: t})
			}
		case isLogits && each:
			n, err := strconv.Atoi(number)
			if err != nil || n < 0 || n >= len(s.inputs) {
				t.Fatalf("%s: expected the number of one of %d inputs", key, len(s.inputs))
			}
			if s.logits[adapter] == nil {
				s.logits[adapter] = make([][]float32, len(s.inputs))
			}
			s.logits[adapter][n] = values
		case isLogits:
			s.logits[name] = slices.Collect(slices.Chunk(values, len(values)/shape[0]))
		}
	}
	for name := range s.logits {
		s.names = append(s.names, name)
	}
	slices.Sort(s.names)
}

// readInput reads an input whose tensors have that prefix.
func readInput(t testing.TB, golden *weights.Tensors, prefix string) (in engine.Input, ok bool) {
	t.Helper()
	if _, ok := golden.Info(prefix + "pixel_values"); ok {
		values, shape := readTensor(t, golden, prefix+"pixel_values")
		return engine.Input{Pixels: tensor.New(tensor.WithShape(shape...), tensor.WithBacking(values))}, true
	}
	if _, ok := golden.Info(prefix + "input_ids"); !ok {
		return engine.Input{}, false
	}
	integers := func(name string) []int32 {
		if _, ok := golden.Info(prefix + name); !ok {
			return nil
		}
		values, _ := readTensor(t, golden, prefix+name)
		all := make([]int32, len(values))
		for i, v := range values {
			all[i] = int32(v)
		}
		return all
	}
	return engine.Input{IDs: integers("input_ids"), Types: integers("token_type_ids")}, true
}

func compile(t testing.TB, e *engine.Engine, folder *weights.Folder) *engine.Adapter {
	t.Helper()
	read, err := peft.Load(folder, e.Description(), peft.Settings{})
	if err != nil {
		t.Fatalf("%s: %v", folder.Name(), err)
	}
	adapter, err := e.Compile(read)
	if err != nil {
		t.Fatalf("%s: %v", folder.Name(), err)
	}
	return adapter
}

// run answers rows given as {input, adapter's name}.
func (s *suite) run(t testing.TB, rows []row) [][]float32 {
	t.Helper()
	batch := engine.Batch{Inputs: s.inputs}
	for _, r := range rows {
		batch.Rows = append(batch.Rows, engine.Row{Input: r.input, Adapter: s.adapters[r.adapter]})
	}
	answers, err := s.engine.Run(batch)
	if err != nil {
		t.Fatal(err)
	}
	logits := make([][]float32, len(rows))
	for i := range rows {
		logits[i] = answers[i].Data().([]float32)
	}
	return logits
}

// row is one row of a batch.
type row struct {
	input   int
	adapter string
}

// all is every input asked of every adapter, neighbours of different adapters.
func (s *suite) all() []row {
	var rows []row
	for i := range s.inputs {
		for _, name := range s.names {
			rows = append(rows, row{i, name})
		}
	}
	return rows
}

func openFolder(t testing.TB, path string) *weights.Folder {
	t.Helper()
	folder, err := weights.OpenFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Close() })
	return folder
}

func readTensors(t testing.TB, path string) *weights.Tensors {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tensors, err := weights.Parse(data)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return tensors
}

func readTensor(t testing.TB, tensors *weights.Tensors, name string) ([]float32, []int) {
	t.Helper()
	info, _ := tensors.Info(name)
	values, err := tensors.Float32(name, info.Shape...)
	if err != nil {
		t.Fatal(err)
	}
	return values.Float32s(), info.Shape
}
