package golden

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// suites are folders with a base, adapters, inputs and PEFT's logits for them, by name.
var suites = map[string]string{
	"digits": "../../hack/samples/digits",
	"vit":    "testdata/vit",
}

// variants are folders of bases with other configs, each with inputs and its own logits.
const variants = "testdata/vit/base-variants"

// baseCase is the name of the golden logits of the bare base.
const baseCase = "base"

// suite is an opened base with all its adapters. golden.safetensors has pixel_values [n, C, H, W] and, for each adapter
// and for the base, logits.<name> [n, labels].
type suite struct {
	engine   *engine.Engine
	adapters map[string]*engine.Adapter // by name; base is nil
	names    []string                   // of adapters, sorted, base among them
	inputs   []*tensor.Dense
	logits   map[string][][]float32
}

func openSuite(t testing.TB, name string, workers int) *suite {
	t.Helper()
	return open(t, filepath.Join(suites[name], "base"), suites[name], workers)
}

// open opens a base, and the golden file and adapters of a folder.
func open(t testing.TB, basePath, path string, workers int) *suite {
	t.Helper()
	base, err := model.Open(openFolder(t, basePath))
	if err != nil {
		t.Fatal(err)
	}
	s := &suite{
		engine:   engine.New(base, workers),
		adapters: make(map[string]*engine.Adapter),
		logits:   make(map[string][][]float32),
	}
	t.Cleanup(s.engine.Close)
	golden := readTensors(t, filepath.Join(path, "golden.safetensors"))
	for _, key := range golden.Names() {
		values, shape := readTensor(t, golden, key)
		rows := slices.Collect(slices.Chunk(values, len(values)/shape[0]))
		adapter, isLogits := strings.CutPrefix(key, "logits.")
		if !isLogits {
			for _, pixels := range rows {
				s.inputs = append(s.inputs, tensor.New(tensor.WithShape(shape[1:]...), tensor.WithBacking(pixels)))
			}
			continue
		}
		s.logits[adapter] = rows
		s.names = append(s.names, adapter)
		if adapter != baseCase {
			s.adapters[adapter] = compile(t, s.engine, openFolder(t, filepath.Join(path, "adapters", adapter)))
		}
	}
	if len(s.inputs) == 0 || len(s.logits[baseCase]) == 0 {
		t.Fatalf("%s: expected pixel_values and logits.%s in the golden file", path, baseCase)
	}
	folders, err := os.ReadDir(filepath.Join(path, "adapters"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, folder := range folders {
		if s.adapters[folder.Name()] == nil {
			t.Errorf("%s: the adapter %s has no logits in the golden file", path, folder.Name())
		}
	}
	return s
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
	out, err := s.engine.Run(batch)
	if err != nil {
		t.Fatal(err)
	}
	logits := make([][]float32, len(rows))
	for i := range rows {
		logits[i] = out.Row(i)
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
