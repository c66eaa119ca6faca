package engine_test

import (
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/engine"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

const sample = "../../hack/samples/digits/"

func openEngine(t *testing.T) *engine.Engine {
	t.Helper()
	base, err := model.Open(openFolder(t, "base"))
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(base, 2)
	t.Cleanup(e.Close)
	return e
}

func openFolder(t *testing.T, name string) *weights.Folder {
	t.Helper()
	folder, err := weights.OpenFolder(sample + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Close() })
	return folder
}

func compile(t *testing.T, e *engine.Engine, name string) *engine.Adapter {
	t.Helper()
	read, err := peft.Load(openFolder(t, "adapters/"+name), e.Description(), peft.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	adapter, err := e.Compile(read)
	if err != nil {
		t.Fatal(err)
	}
	return adapter
}

func pixels(value float32, shape ...int) *tensor.Dense {
	n := tensor.Shape(shape).TotalSize()
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(slices.Repeat([]float32{value}, n)))
}

func run(t *testing.T, e *engine.Engine, batch engine.Batch) *engine.Output {
	t.Helper()
	out, err := e.Run(batch)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

func TestRowsShareAnInput(t *testing.T) {
	e := openEngine(t)
	parity, holes := compile(t, e, "parity"), compile(t, e, "holes")
	inputs := []*tensor.Dense{pixels(0.25, 3, 32, 32), pixels(-0.5, 3, 32, 32)}
	rows := []engine.Row{{1, holes}, {0, parity}, {0, nil}, {0, holes}, {1, parity}, {1, nil}}
	out := run(t, e, engine.Batch{Inputs: inputs, Rows: rows})
	if got := out.Logits.Shape(); !slices.Equal(got, tensor.Shape{6, 10}) {
		t.Errorf("logits: expected the widest head, [6, 10], found %v", got)
	}
	if want := []int{3, 2, 10, 3, 2, 10}; !slices.Equal(out.NumLabels, want) {
		t.Errorf("labels: expected %v, found %v", want, out.NumLabels)
	}
	for i, row := range rows {
		alone := run(t, e, engine.Batch{Inputs: inputs[row.Input:][:1], Rows: []engine.Row{{0, row.Adapter}}})
		if !sameBits(out.Row(i), alone.Row(0)) {
			t.Errorf("row %d: alone %v, in the batch %v", i, alone.Row(0), out.Row(i))
		}
		for _, v := range out.Logits.Float32s()[i*10+out.NumLabels[i] : (i+1)*10] {
			if v != engine.Padding {
				t.Errorf("row %d: expected padding behind its labels, found %g", i, v)
			}
		}
	}
}

func TestBatchesAtOnceDoNotMix(t *testing.T) {
	e := openEngine(t)
	parity := compile(t, e, "parity")
	var callers sync.WaitGroup
	for i := range 4 {
		batch := engine.Batch{
			Inputs: []*tensor.Dense{pixels(float32(i)/4, 3, 32, 32)}, Rows: []engine.Row{{0, parity}, {0, nil}},
		}
		want := run(t, e, batch)
		callers.Go(func() {
			for range 5 {
				got, err := e.Run(batch)
				if err != nil || !sameBits(got.Logits.Float32s(), want.Logits.Float32s()) {
					t.Errorf("caller %d: expected %v, found %v, error %v", i, want.Logits, got, err)
				}
			}
		})
	}
	callers.Wait()
}

func TestBadBatches(t *testing.T) {
	e := openEngine(t)
	good := pixels(0, 3, 32, 32)
	row := []engine.Row{{}}
	double := tensor.New(tensor.WithShape(3, 32, 32), tensor.Of(tensor.Float64))
	for _, c := range []struct {
		name  string
		batch engine.Batch
		want  string
	}{
		{"no rows", engine.Batch{Inputs: []*tensor.Dense{good}}, "a batch of no rows"},
		{"no such input", engine.Batch{Inputs: []*tensor.Dense{good}, Rows: []engine.Row{{Input: 1}}}, "below 1, found 1"},
		{"negative input", engine.Batch{Inputs: []*tensor.Dense{good}, Rows: []engine.Row{{Input: -1}}}, "found -1"},
		{"another shape", engine.Batch{Inputs: []*tensor.Dense{pixels(0, 3, 32)}, Rows: row}, "expected float32 [3, 32, 32]"},
		{"another type", engine.Batch{Inputs: []*tensor.Dense{double}, Rows: row}, "found float64"},
		{"an input that is nil", engine.Batch{Inputs: []*tensor.Dense{nil}, Rows: row}, "panic"},
	} {
		if _, err := e.Run(c.batch); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: expected %q, found %v", c.name, c.want, err)
		}
		if _, err := e.Run(engine.Batch{Inputs: []*tensor.Dense{good}, Rows: row}); err != nil {
			t.Errorf("%s: the next batch: %v", c.name, err)
		}
	}
}
